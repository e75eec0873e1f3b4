package receiver_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"deployhook/internal/deploy"
	"deployhook/internal/receiver"
)

// read is what a push means.
func read(t *testing.T, change func(map[string]any)) *deploy.Event {
	t.Helper()
	ev, err := receiver.Read("github", "push", push(change))
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

func TestPushIsReadAsItIs(t *testing.T) {
	a, b, c := strings.Repeat("a", 40), strings.Repeat("b", 40), strings.Repeat("c", 40)
	want := func(change func(*deploy.Event)) *deploy.Event {
		ev := &deploy.Event{
			Kind: deploy.Push, Name: "push", Repository: "github.com/codertocat/hello-world", Ref: "refs/heads/main", Branch: "main",
			Before: b, After: a, Commit: a, Actor: "Codertocat", Message: "change", Paths: []string{"src/a.go"},
		}
		if change != nil {
			change(ev)
		}
		return ev
	}
	for _, tt := range []struct {
		name   string
		change func(map[string]any)
		want   *deploy.Event
	}{
		{"branch", nil, want(nil)},
		{"tag", func(p map[string]any) { p["ref"] = "refs/tags/v1" }, want(func(e *deploy.Event) { e.Ref, e.Branch, e.Tag = "refs/tags/v1", "", "v1" })},
		{"annotated tag", func(p map[string]any) { p["ref"] = "refs/tags/v1"; p["after"] = c },
			want(func(e *deploy.Event) { e.Ref, e.Branch, e.Tag, e.After = "refs/tags/v1", "", "v1", c })},
		{"created", func(p map[string]any) { p["created"] = true; p["before"] = deploy.ZeroCommit },
			want(func(e *deploy.Event) { e.Created, e.Before, e.PathsCut = true, deploy.ZeroCommit, true })},
		{"forced", func(p map[string]any) { p["forced"] = true }, want(func(e *deploy.Event) { e.Forced, e.PathsCut = true, true })},
		{"deleted", func(p map[string]any) {
			p["deleted"], p["after"], p["head_commit"], p["commits"] = true, deploy.ZeroCommit, nil, []any{}
		}, want(func(e *deploy.Event) {
			e.Deleted, e.After, e.Commit, e.Message, e.Paths, e.PathsCut = true, deploy.ZeroCommit, deploy.ZeroCommit, "", nil, true
		})},
		{"upper case sha", func(p map[string]any) { p["before"] = strings.ToUpper(b) }, want(nil)},
		{"pusher where there is no sender", func(p map[string]any) { delete(p, "sender"); p["pusher"] = map[string]any{"name": "bob"} },
			want(func(e *deploy.Event) { e.Actor = "bob" })},
		{"sender before pusher", func(p map[string]any) { p["pusher"] = map[string]any{"name": "bob"} }, want(nil)},
		{"address with .git", func(p map[string]any) {
			p["repository"] = map[string]any{"html_url": "https://GitHub.com:443/codertocat/Hello-World.git/"}
		}, want(nil)},
		{"Gitea's five of seven commits", func(p map[string]any) {
			p["total_commits"] = 7
			p["repository"].(map[string]any)["created_at"] = "2026-01-01"
		},
			want(func(e *deploy.Event) { e.PathsCut = true })},
		{"Gitea's whole list", func(p map[string]any) { p["total_commits"] = 1 }, want(nil)},
		{"commits without their paths", func(p map[string]any) { p["commits"] = []any{map[string]any{"id": a}} },
			want(func(e *deploy.Event) { e.Paths, e.PathsCut = nil, true })},
		{"a path twice, removed and added", func(p map[string]any) {
			p["commits"] = []any{map[string]any{"added": []any{"x"}, "removed": []any{"y"}}, map[string]any{"modified": []any{"x", "z"}}}
		}, want(func(e *deploy.Event) { e.Paths = []string{"x", "y", "z"} })},
	} {
		got := read(t, tt.change)
		got.Payload = nil
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", tt.name, *got, *tt.want)
		}
	}
}

func TestTwoThousandCommitsAreListedWholeAndMoreAreNot(t *testing.T) {
	for n, cut := range map[int]bool{2000: false, 2047: false, 2048: true} {
		ev := read(t, func(p map[string]any) {
			list := make([]any, n)
			for i := range list {
				list[i] = map[string]any{"id": fmt.Sprintf("%040x", i), "added": []any{fmt.Sprint("docs/", i)}}
			}
			p["commits"] = list
		})
		if len(ev.Paths) != n || ev.PathsCut != cut {
			t.Errorf("%d commits: %d paths, cut %t, want %t", n, len(ev.Paths), ev.PathsCut, cut)
		}
	}
}

func TestPayloadNeverSaysWhereToFetch(t *testing.T) {
	x := start(t)
	r := x.github("push", "1", push(nil)) // its clone_url names another host
	if r.status != 202 {
		t.Fatalf("got %+v", r)
	}
	run, err := x.store.Run(t.Context(), r.Runs[0])
	if err != nil || run.Repository != "github.com/codertocat/hello-world" || run.Commit != strings.Repeat("a", 40) {
		t.Errorf("the run is %+v, %v", run, err)
	}
}

func TestEveryDeliveryHasOneLogLine(t *testing.T) {
	x := start(t)
	r := x.github("push", "1", push(nil))
	x.github("ping", "2", []byte(`{"zen":"x"}`))
	lines := strings.Split(strings.TrimSpace(x.log.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("the log is\n%s", x.log)
	}
	for _, want := range []string{`msg="delivery accepted"`, fmt.Sprint("delivery=", r.Delivery), "hook=github", fmt.Sprintf("runs=%v", r.Runs), "took="} {
		if !strings.Contains(lines[0], want) {
			t.Errorf("no %s in %s", want, lines[0])
		}
	}
}
