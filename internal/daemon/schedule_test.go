package daemon_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"deployhook/internal/store/storetest"
	"deployhook/internal/web"
)

// withPipelines is the smallest config with other pipelines.
func (s *site) withPipelines(pipelines string) string {
	head, _, _ := strings.Cut(s.config(""), "pipelines:")
	return head + "pipelines:\n" + pipelines
}

// runsOf lists the runs of a pipeline, the oldest first.
func (s *site) runsOf(pipeline string) []web.Run {
	s.t.Helper()
	list, err := s.client.Runs(s.t.Context(), web.Query{Pipeline: pipeline, Limit: 1000})
	if err != nil {
		s.t.Fatal(err)
	}
	for i, k := 0, len(list)-1; i < k; i, k = i+1, k-1 {
		list[i], list[k] = list[k], list[i]
	}
	return list
}

// dueOf are the times that the runs of a pipeline say that they are of.
func (s *site) dueOf(pipeline string) []string {
	var list []string
	for _, r := range s.runsOf(pipeline) {
		_, due, _ := strings.Cut(text(r.Why), "due at ")
		due, _, _ = strings.Cut(due, ",")
		list = append(list, due)
	}
	return list
}

func TestScheduleStartsEachTimeOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	config := s.withPipelines(`
  ticking:
    on: { schedule: [ { cron: "* * * * * *", timezone: Europe/Berlin } ] }
    jobs:
      go: { steps: [ { run: 'echo "$DEPLOYHOOK_EVENT" >> ` + s.path("ticks") + `', env: { A: "${{ event }}" } } ] }
  never:
    on: { schedule: [ { cron: "0 0 1 1 *" } ] }
    if: branch == "main"
    jobs: { go: { steps: [ { run: "true" } ] } }
`)
	s.start(config)
	s.until("three times have come", func() bool { return len(s.runsOf("ticking")) >= 3 })
	s.kill()
	s.start(config)
	before := len(s.runsOf("ticking"))
	s.until("it goes on", func() bool { return len(s.runsOf("ticking")) >= before+2 })
	s.stop()
	s.start(config)
	runs := s.runsOf("ticking")
	seen := map[string]bool{}
	for _, due := range s.dueOf("ticking") {
		if at, err := time.Parse(time.RFC3339, due); err != nil || seen[due] || time.Since(at) > time.Hour {
			t.Errorf("a run is of %q, and it was so before is %v", due, seen[due])
		}
		seen[due] = true
	}
	for _, r := range runs {
		if r.Event != "schedule" || r.Ref != nil || r.Delivery != nil || !strings.HasPrefix(text(r.Why), "schedule * * * * * * Europe/Berlin, due at ") {
			t.Errorf("a run is %+v, why %q", r, text(r.Why))
		}
	}
	s.want(runs[0].ID, "succeeded")
	if got := s.file("ticks"); !strings.HasPrefix(got, "schedule") {
		t.Errorf("the step saw the event %q", got)
	}
	if list := s.runsOf("never"); len(list) > 0 {
		t.Errorf("a schedule whose time has not come started %+v", list)
	}
}

func TestTicksMissedWhileDownRunOnceLate(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	config := s.withPipelines(`
  nightly:
    on: { schedule: [ { cron: "@hourly" } ] }
    jobs: { go: { steps: [ { run: "true" } ] } }
`)
	s.start(config)
	s.stop()
	storetest.ShiftTimes(t, s.path("data"), -10*time.Hour)
	s.start(config)
	s.until("the run is there", func() bool { return len(s.runsOf("nightly")) > 0 })
	r := s.want(s.runsOf("nightly")[0].ID, "succeeded")
	if why := text(r.Why); !strings.Contains(why, "late by ") || !strings.Contains(why, " times before it were missed") {
		t.Errorf("the run says %q", why)
	}
	s.stop()
	s.start(config)
	// A clock that was wrong for a while must not silence a schedule.
	s.stop()
	storetest.ShiftTimes(t, s.path("data"), 73*365*24*time.Hour)
	s.start(config)
	s.until("it begins anew", func() bool { return strings.Contains(s.log.String(), "far ahead of the clock") })
	if list := s.runsOf("nightly"); len(list) > 2 { // an hour may have passed
		t.Errorf("the missed times started %d runs", len(list))
	}
}

func TestReloadChangesWhatIsScheduled(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.withPipelines(`
  a: { jobs: { go: { steps: [ { run: "true" } ] } } }
`))
	for _, name := range []string{"b", "c"} {
		config := s.withPipelines(`
  ` + name + `:
    on: { schedule: [ { cron: "* * * * * *" } ] }
    jobs: { go: { steps: [ { run: "true" } ] } }
`)
		if err := os.WriteFile(s.configFile(), []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.client.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.until(name+" ticks", func() bool { return len(s.runsOf(name)) >= 2 })
	}
	b := len(s.runsOf("b"))
	c := len(s.runsOf("c"))
	s.until("c goes on", func() bool { return len(s.runsOf("c")) >= c+2 })
	if got := len(s.runsOf("b")); got != b {
		t.Errorf("b is not in the config, and has started %d runs since", got-b)
	}
}

func TestScheduledRunsDoNotPileUp(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.withPipelines(`
  slow:
    on: { schedule: [ { cron: "* * * * * *" } ] }
    jobs: { go: { steps: [ { run: '` + s.gate("go") + `' } ], concurrency: { group: one } } }
`))
	s.until("a time starts nothing", func() bool { return strings.Contains(s.log.String(), "has not begun") })
	if list := s.runsOf("slow"); len(list) != 2 || list[0].State != "running" {
		t.Errorf("there are %d runs", len(list))
	}
	s.write("go", "")
}

// chained are three pipelines that follow each other.
func (s *site) chained() string {
	return s.withPipelines(`
  build:
    repository: github.com/acme/shop
    clone_url: ` + s.repo() + `
    hook: github
    on: { push: { branches: [main] } }
    jobs: { test: { steps: [ { run: "! grep -q bad index.txt" } ] } }
  ship:
    repository: github.com/acme/shop
    clone_url: ` + s.repo() + `
    on: { pipeline: { name: build } }
    jobs:
      deploy: { release: ` + s.path("srv") + `, steps: [ { run: 'cp index.txt built.txt; echo "$DEPLOYHOOK_EVENT $DEPLOYHOOK_BRANCH" > event.txt' } ] }
  tell:
    on: { pipeline: { name: ship } }
    if: branch == "main"
    jobs: { go: { steps: [ { run: 'echo told >> ` + s.path("told") + `' } ] } }
`)
}

func TestSuccessOfAPipelineStartsTheNext(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.chained())
	build := s.push("one")
	s.want(build, "succeeded")
	s.until("the last is told", func() bool { return s.exists("told") })
	ship := s.want(s.runsOf("ship")[0].ID, "succeeded")
	if text(ship.Commit) != s.last || text(ship.Ref) != "refs/heads/main" || ship.Event != "pipeline" || text(ship.Why) != fmt.Sprintf("run %d of build succeeded", build) {
		t.Errorf("the run that follows is %+v, why %q", ship, text(ship.Why))
	}
	s.wantLive("one")
	if got := s.file("srv/current/event.txt"); got != "pipeline main" {
		t.Errorf("the step saw %q", got)
	}
	s.want(s.push("bad"), "failed")
	s.want(s.push("two"), "succeeded")
	s.until("the second is live", func() bool { return s.file("srv/current/index.txt") == "two" })
	if n := len(s.runsOf("ship")); n != 2 {
		t.Errorf("ship ran %d times: the failed build must start nothing", n)
	}
}

// However often the daemon is killed around the end of a run, what follows it
// is there once.
func TestWhatFollowsIsThereOnceThroughKills(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.chained())
	var builds []int64
	for i := range 6 {
		id := s.push(fmt.Sprint("text ", i))
		builds = append(builds, id)
		switch i % 3 {
		case 1:
			s.until("it runs", func() bool {
				r, err := s.client.Run(t.Context(), id)
				return err == nil && r.State != "queued"
			})
		case 2:
			s.ended(id)
		}
		s.kill()
		s.start(s.chained())
	}
	for _, id := range builds {
		s.ended(id)
	}
	followers := map[string]int{}
	for _, r := range s.runsOf("ship") {
		followers[text(r.Why)]++
	}
	for _, id := range builds {
		r := s.ended(id)
		want := 0
		if r.State == "succeeded" {
			want = 1
		}
		if n := followers[fmt.Sprintf("run %d of build succeeded", id)]; n != want {
			t.Errorf("run %d is %s and is followed by %d runs", id, r.State, n)
		}
	}
	for _, r := range s.runsOf("ship") {
		s.ended(r.ID)
	}
	s.wantLive("text 5")
}

// A green workflow deploys its very commit; one that is run anew for an old
// commit does not go back, and what is not green or not ours starts nothing.
func TestPublishedReleaseDeploysItsTag(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(strings.Replace(s.config(""), "on: { push: { branches: [main] } }", "on: { release: {} }", 1))
	one := s.commit("one")
	s.git("-C", s.repo(), "tag", "-a", "-m", "the first", "v1")
	s.commit("two, which is in no release")
	release := func(action string, draft bool) answer {
		return s.deliver("release", map[string]any{
			"action": action, "release": map[string]any{"id": s.n, "tag_name": "v1", "target_commitish": "main", "draft": draft, "prerelease": false},
			"repository": map[string]any{"full_name": "acme/shop", "html_url": "https://github.com/acme/shop"}, "sender": map[string]any{"login": "alice"},
		})
	}
	for _, none := range []struct {
		action string
		draft  bool
		want   string
	}{{"created", false, "only one that is published starts something"}, {"published", true, "is a draft"}} {
		if a := release(none.action, none.draft); a.status != 200 || len(a.Runs) > 0 || !strings.Contains(a.Message, none.want) {
			t.Errorf("a release that is %s is answered %+v", none.action, a)
		}
	}
	a := release("published", false)
	if a.status != 202 || len(a.Runs) != 1 {
		t.Fatalf("a published release is answered %+v", a)
	}
	if r := s.want(a.Runs[0], "succeeded"); text(r.Commit) != one || text(r.Ref) != "refs/tags/v1" || r.Event != "release" {
		t.Errorf("the run is %+v", r)
	}
	s.wantLive("one")
}

func TestGreenWorkflowDeploysItsCommit(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(strings.Replace(s.config(""), "on: { push: { branches: [main] } }", "on: { workflow_run: { workflows: [CI], branches: [main] } }", 1))
	green := func(commit string, change ...func(run map[string]any)) answer {
		run := map[string]any{
			"name": "CI", "head_sha": commit, "head_branch": "main", "event": "push", "conclusion": "success", "status": "completed", "id": s.n,
			"head_repository": map[string]any{"full_name": "acme/shop", "html_url": "https://github.com/acme/shop", "fork": false},
			"repository":      map[string]any{"full_name": "acme/shop", "html_url": "https://github.com/acme/shop"},
		}
		for _, c := range change {
			c(run)
		}
		return s.deliver("workflow_run", map[string]any{
			"action": "completed", "workflow_run": run, "workflow": map[string]any{"name": "CI"},
			"repository": map[string]any{"full_name": "acme/shop", "html_url": "https://github.com/acme/shop"}, "sender": map[string]any{"login": "alice"},
		})
	}
	one := s.commit("one")
	s.commit("pushed meanwhile, and not yet green")
	a := green(one)
	if a.status != 202 || len(a.Runs) != 1 {
		t.Fatalf("a green workflow was answered %+v", a)
	}
	if r := s.want(a.Runs[0], "succeeded"); text(r.Commit) != one || text(r.Ref) != "refs/heads/main" || r.Event != "workflow_run" {
		t.Errorf("the run is %+v", r)
	}
	s.wantLive("one")
	two := s.commit("two")
	s.want(green(two).Runs[0], "succeeded")
	s.wantLive("two")
	again := green(one)
	if r := s.want(again.Runs[0], "canceled"); !strings.Contains(why(r), "already live in") {
		t.Errorf("a workflow of an old commit: %q", why(r))
	}
	for want, change := range map[string]func(map[string]any){
		"ended with failure":     func(r map[string]any) { r["conclusion"] = "failure" },
		"ran for a pull request": func(r map[string]any) { r["event"] = "pull_request" },
		"ran for a commit of another": func(r map[string]any) {
			r["head_repository"] = map[string]any{"full_name": "eve/shop", "html_url": "https://github.com/eve/shop", "fork": true}
		},
		"no pipeline wants workflow CI on b": func(r map[string]any) { r["head_branch"] = "topic" },
	} {
		if a := green(two, change); a.status != 200 || len(a.Runs) > 0 || !strings.Contains(a.Message, want) {
			t.Errorf("answered %+v, want %q", a, want)
		}
	}
	s.wantLive("two")
}
