package deploy

import (
	"strings"
	"testing"
	"time"
)

const greenCommit = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func mustExpr(t testing.TB, src string) *Expr {
	t.Helper()
	e, err := CompileExpr(src)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// forged is a config whose pipelines take what a forge tells of besides pushes.
func forged(t testing.TB) *Config {
	jobs := []Job{{Name: "go", Hosts: []string{Local}}}
	const repo = "github.com/acme/shop"
	return &Config{Digest: "d", Pipelines: []Pipeline{
		{Name: "green", Repository: repo, Hook: "github", Jobs: jobs, On: Triggers{Workflow: &WorkflowTrigger{Workflows: []string{"CI"}, Branches: []string{"main", "release/**"}}}},
		{Name: "released", Repository: repo, Hook: "github", Jobs: jobs, On: Triggers{Release: true}, If: mustExpr(t, `not payload.release.prerelease`)},
		{Name: "other", Repository: "github.com/acme/other", Hook: "github", Jobs: jobs, On: Triggers{Release: true, Workflow: &WorkflowTrigger{}}},
		{Name: "pushed", Repository: repo, Hook: "github", Jobs: jobs, On: Triggers{Push: &PushTrigger{}}},
	}}
}

func greenRun(change ...func(*Event)) *Event {
	ev := &Event{Kind: Workflow, Hook: "github", Name: "workflow_run", Repository: "github.com/acme/shop", Commit: greenCommit,
		Action: "completed", Conclusion: "success", Workflow: "CI", Trigger: "push", Actor: "alice"}
	ev.SetRef("refs/heads/main")
	for _, c := range change {
		c(ev)
	}
	return ev
}

func TestWorkflowRunDeploysItsCommitWhenItIsGreen(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Event)
		runs   string
		want   string
	}{
		{"green", func(*Event) {}, "green", "green: run starts for aaaaaaa on branch main, which workflow CI found good"},
		{"another branch", func(e *Event) { e.SetRef("refs/heads/topic") }, "", "no pipeline wants workflow CI on branch topic: green wants main, release/**"},
		{"another workflow", func(e *Event) { e.Workflow = "lint" }, "", "green wants workflow CI"},
		{"requested", func(e *Event) { e.Action = "requested" }, "", "workflow CI is requested: it starts something when it is completed"},
		{"failed", func(e *Event) { e.Conclusion = "failure" }, "", "workflow CI ended with failure: only success starts something"},
		{"no conclusion", func(e *Event) { e.Conclusion = "" }, "", "ended with (none)"},
		{"fork", func(e *Event) { e.Fork = true }, "", "a fork: code of strangers does not run beside production"},
		{"pull request", func(e *Event) { e.Trigger = "pull_request" }, "", "workflow CI ran for a pull request: pull requests start nothing"},
		{"pull request target", func(e *Event) { e.Trigger = "pull_request_target" }, "", "pull requests start nothing"},
		{"no commit", func(e *Event) { e.Commit = "" }, "", "names no commit"},
		{"another repository", func(e *Event) { e.Repository = "github.com/acme/third" }, "", "no pipeline has repository github.com/acme/third"},
		{"another hook", func(e *Event) { e.Hook = "second" }, "", "no pipeline wants workflow runs that come through hook second"},
	} {
		d := Plan(forged(t), greenRun(tt.change))
		var names []string
		for _, r := range d.Runs {
			names = append(names, r.Pipeline)
			if r.Commit != greenCommit || r.Ref != "refs/heads/main" || r.Event != Workflow || !r.Forced {
				t.Errorf("%s: the run is %+v", tt.name, r)
			}
		}
		if strings.Join(names, ",") != tt.runs || !strings.Contains(d.Message, tt.want) {
			t.Errorf("%s: starts %v, %q; want %q, %q", tt.name, names, d.Message, tt.runs, tt.want)
		}
	}
}

func TestReleaseDeploysItsTagOncePublished(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Event)
		starts bool
		want   string
	}{
		{"published", func(*Event) {}, true, "released: run starts for the release of tag v1"},
		{"prerelease, by the if", func(e *Event) {
			e.Payload = func() any { return map[string]any{"release": map[string]any{"prerelease": true}} }
		}, false, "released its if is false: not payload.release.prerelease"},
		{"created", func(e *Event) { e.Action = "created" }, false, "this release was created: only one that is published starts something"},
		{"draft", func(e *Event) { e.Draft = true }, false, "this release is a draft"},
		{"no tag", func(e *Event) { e.SetRef("") }, false, "names no tag"},
	} {
		ev := &Event{Kind: ReleaseEvent, Hook: "github", Name: "release", Repository: "github.com/acme/shop", Action: "published"}
		ev.SetRef("refs/tags/v1")
		tt.change(ev)
		d := Plan(forged(t), ev)
		if (len(d.Runs) == 1) != tt.starts || !strings.Contains(d.Message, tt.want) {
			t.Errorf("%s: %+v, want %q", tt.name, d, tt.want)
		}
		// A release of an old tag must not go over what is newer.
		if tt.starts && (d.Runs[0].Ref != "refs/tags/v1" || d.Runs[0].Commit != "" || d.Runs[0].Forced) {
			t.Errorf("%s: the run is %+v", tt.name, d.Runs[0])
		}
	}
}

func TestPullRequestsOfAllForgesStartNothing(t *testing.T) {
	for _, name := range []string{"pull_request", "pull_request_review_comment", "pull_request_target", "merge_request", "Merge Request Hook", "pullrequest:created", "pr:opened pullRequest", "git.pullrequest.updated"} {
		if d := Plan(forged(t), &Event{Name: name, Hook: "github", Repository: "github.com/acme/shop"}); len(d.Runs) > 0 || d.Message != noPullRequests {
			t.Errorf("%s: %q", name, d.Message)
		}
	}
}

func TestSuccessStartsThePipelinesThatFollow(t *testing.T) {
	jobs := []Job{{Name: "go", Hosts: []string{Local}}}
	cfg := &Config{Digest: "d", Pipelines: []Pipeline{
		{Name: "build", Repository: "github.com/acme/shop", Jobs: jobs},
		{Name: "same", Repository: "github.com/acme/shop", Jobs: jobs, On: Triggers{Pipeline: "build"}},
		{Name: "another", Repository: "github.com/acme/docs", Jobs: jobs, On: Triggers{Pipeline: "build"}, If: mustExpr(t, `branch == "main"`)},
		{Name: "none", Jobs: jobs, On: Triggers{Pipeline: "build"}, If: mustExpr(t, `branch == "topic"`)},
		{Name: "diff", Repository: "github.com/acme/shop", Jobs: jobs, On: Triggers{Pipeline: "build"}, If: mustExpr(t, `changed("docs/**")`)},
		{Name: "later", Jobs: jobs, On: Triggers{Pipeline: "same"}},
	}}
	run := &Run{ID: 41, NewRun: NewRun{Pipeline: "build", Event: Push, Repository: "github.com/acme/shop", Ref: "refs/heads/main", Before: "b", Commit: greenCommit,
		Message: "fix", Actor: "alice", Forced: true}}
	d := Follow(cfg, run)
	if len(d.Runs) != 3 || len(d.Why) != 4 || d.Why[2].Run || !strings.Contains(d.Why[2].Why, "its if is false") {
		t.Fatalf("%+v", d)
	}
	same, another, diff := d.Runs[0], d.Runs[1], d.Runs[2]
	if same.Pipeline != "same" || same.Commit != greenCommit || same.Ref != "refs/heads/main" || same.Before != "b" || !same.Forced || same.Message != "fix" ||
		same.Actor != "alice" || same.Event != Chained || same.Why != "run 41 of build succeeded" || !same.Jobs[0].Ready {
		t.Errorf("of the same repository: %+v", same)
	}
	if another.Commit != "" || another.Ref != "" || another.Message != "" || another.Why != same.Why {
		t.Errorf("of another repository: %+v", another)
	}
	if !diff.Deferred || diff.Jobs[0].Ready {
		t.Errorf("whose if needs the diff: %+v", diff)
	}
	run.Event = Rollback
	if d := Follow(cfg, run); len(d.Runs) > 0 || d.Message == "" {
		t.Errorf("a rollback: %+v", d)
	}
}

func TestAnswerNamesThePathThatIsMissingOrOfAnotherType(t *testing.T) {
	cfg := &Config{Pipelines: []Pipeline{{Name: "pay", On: Triggers{Hook: &HookTrigger{Name: "stripe", If: mustExpr(t, `payload.data.type == "paid" && payload.list[0].id == 1`)}}}}}
	for _, tt := range []struct {
		payload any
		want    string
	}{
		{map[string]any{"data": "text"}, "payload.data is a string, not an object: there is no payload.data.type"},
		{map[string]any{"data": map[string]any{}}, "there is no payload.data.type"},
		{map[string]any{}, "there is no payload.data"},
		{nil, "there is no payload.data"},
		{[]any{1}, "payload is a list: its members are numbers"},
		{map[string]any{"data": map[string]any{"type": "paid"}, "list": []any{}}, "there is no payload.list[0]"},
		{map[string]any{"data": map[string]any{"type": "paid"}, "list": []any{"x"}}, "payload.list[0] is a string, not an object: there is no payload.list[0].id"},
		{map[string]any{"data": map[string]any{"type": "paid"}, "list": map[string]any{"a": 1}}, "payload.list is an object: its keys are strings"},
	} {
		d := Plan(cfg, &Event{Kind: Payload, Hook: "stripe", Payload: func() any { return tt.payload }})
		if len(d.Runs) > 0 || !strings.Contains(d.Message, tt.want) {
			t.Errorf("%v: %q, want %q", tt.payload, d.Message, tt.want)
		}
	}
}

func TestExpressionsAreBoundedInTime(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ab", 4<<20)
	list := make([]any, 1<<21)
	for i := range list {
		list[i] = "x"
	}
	payload := map[string]any{"text": long, "pattern": strings.Repeat("a", 2000), "list": list, "evil": "(a|b|ab)*{0}", "deep": map[string]any{"list": list}}
	repeated := func(part, with string, n int) string { return strings.TrimSuffix(strings.Repeat(part+with, n), with) }
	for src, want := range map[string]string{
		`payload.text matches "(x{1,30}){1,30}y"`:                      "it takes more than 100 million steps",
		repeated(`payload.text contains "zz"`, " || ", 60):             "it takes more than 100 million steps",
		repeated(`payload.list contains "y"`, " || ", 60):              "it takes more than 100 million steps",
		repeated(`payload.deep != payload.deep`, " || ", 60):           "it takes more than 100 million steps",
		`payload.text matches payload.pattern`:                         "at most 1000 are allowed",
		`payload.text matches payload.evil`:                            "matches: error parsing regexp",
		`payload.text startsWith "ab" && payload.text matches "^abab"`: "",
		strings.Repeat("(", 1500) + "true" + strings.Repeat(")", 1500): "",
		strings.Repeat("-", 400) + "1 == 1":                            "",
		strings.Repeat("[", 400) + "1" + strings.Repeat("]", 400):      "",
		`payload.text == payload.text && payload.list == payload.list`: "",
	} {
		e, err := CompileExpr(src)
		if err != nil {
			if want == "" {
				continue // too deep for the file: said by check
			}
			t.Errorf("%.60s: %v", src, err)
			continue
		}
		began := time.Now()
		ok, why := e.Eval(&Scope{Event: &Event{Payload: func() any { return payload }}})
		if want != "" && (ok || !strings.Contains(why, want)) || want == "" && !ok {
			t.Errorf("%.60s = %v, %q; want %q", src, ok, why, want)
		}
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("%.60s took %v", src, took)
		}
	}
}
