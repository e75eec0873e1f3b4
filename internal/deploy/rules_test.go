package deploy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var now = time.Date(2026, 4, 1, 10, 15, 0, 0, time.UTC)

func TestMovesAreThoseOfTheTable(t *testing.T) {
	all := []State{Queued, Waiting, Running, Succeeded, Failed, Canceled, Skipped, Lost}
	for _, from := range all {
		for _, to := range all {
			if CanMove(from, to) && from.Terminal() {
				t.Errorf("%s is final and becomes %s", from, to)
			}
		}
	}
	for _, m := range [][2]State{{Queued, Running}, {Waiting, Running}, {Running, Succeeded}, {Running, Queued}, {Running, Lost}, {Queued, Skipped}} {
		if !CanMove(m[0], m[1]) {
			t.Errorf("%s cannot become %s", m[0], m[1])
		}
	}
	for _, m := range [][2]State{{Queued, Succeeded}, {Queued, Lost}, {Succeeded, Running}, {Waiting, Succeeded}} {
		if CanMove(m[0], m[1]) {
			t.Errorf("%s can become %s", m[0], m[1])
		}
	}
}

func TestRunIsSettledFromItsJobs(t *testing.T) {
	for _, tt := range []struct {
		jobs []State
		want State
	}{
		{[]State{Queued, Queued}, Queued},
		{[]State{Waiting, Queued}, Waiting},
		{[]State{Running, Queued}, Running},
		{[]State{Succeeded, Queued}, Running},
		{[]State{Succeeded, Waiting}, Running},
		{[]State{Succeeded, Succeeded}, Succeeded},
		{[]State{Succeeded, Skipped}, Succeeded},
		{[]State{Failed, Skipped}, Failed},
		{[]State{Canceled, Succeeded}, Canceled},
		{[]State{Failed, Canceled}, Failed},
		{[]State{Lost, Failed}, Lost},
		{[]State{Skipped, Skipped}, Skipped},
	} {
		if got := Settle(tt.jobs); got != tt.want {
			t.Errorf("Settle(%v) = %s, want %s", tt.jobs, got, tt.want)
		}
	}
}

func TestGlobsAreGitHubs(t *testing.T) {
	for _, tt := range []struct {
		patterns []string
		name     string
		want     bool
	}{
		{[]string{"main"}, "main", true},
		{[]string{"main"}, "main2", false},
		{[]string{"feature/*"}, "feature/a", true},
		{[]string{"feature/*"}, "feature/a/b", false},
		{[]string{"feature/**"}, "feature/a/b", true},
		{[]string{"*"}, "a/b", false},
		{[]string{"**"}, "a/b", true},
		{[]string{"**/README.md"}, "README.md", true},
		{[]string{"**/README.md"}, "a/b/README.md", true},
		{[]string{"v[12].[0-9]+.[0-9]+"}, "v1.10.1", true},
		{[]string{"v[12].[0-9]+.[0-9]+"}, "v3.1.1", false},
		{[]string{"*.jsx?"}, "page.js", true},
		{[]string{"*.jsx?"}, "page.jsx", true},
		{[]string{"docs/**", "!docs/x/**"}, "docs/x/a", false},
		{[]string{"docs/**", "!docs/x/**", "docs/x/keep"}, "docs/x/keep", true},
		{[]string{"!main"}, "main", false},
		{[]string{"a.b"}, "axb", false},
		{[]string{"日本*"}, "日本語", true},
		{[]string{"$(touch x)"}, "$(touch x)", true},
		// GitHub's own cheat sheet.
		{[]string{"feature/**"}, "feature/beta-a/my-branch", true},
		{[]string{"**feature"}, "my-feature", true},
		{[]string{"**feature"}, "a/feature", true},
		{[]string{"v2*"}, "v2.0", true},
		{[]string{"v2*"}, "v2/x", false},
		{[]string{"releases/**", "!releases/**-alpha"}, "releases/10", true},
		{[]string{"releases/**", "!releases/**-alpha"}, "releases/beta/3-alpha", false},
		{[]string{"docs/*"}, "docs/README.md", true},
		{[]string{"docs/*"}, "docs/a/README.md", false},
		{[]string{"docs/**/*.md"}, "docs/README.md", true},
		{[]string{"docs/**/*.md"}, "docs/a/markdown/file.md", true},
		{[]string{"docs/**/*.md"}, "docs/a.txt", false},
		{[]string{"**/docs/**"}, "dir/docs/my-file.txt", true},
		{[]string{"**/docs/**"}, "docs/hello.md", true},
		{[]string{"**/docs/**"}, "mydocs/hello.md", false},
		{[]string{"**/*src/**"}, "my-src/code/js/app.js", true},
		{[]string{"**/*src/**"}, "a/src/app.js", true},
		{[]string{"**/*-post.md"}, "path/their-post.md", true},
		{[]string{"**/migrate-*.sql"}, "db/migrate-v1.0.sql", true},
		{[]string{"**.js"}, "js/index.js", true},
		{[]string{"*.md", "!README.md"}, "README.md", false},
		{[]string{"*.md", "!README.md", "README*"}, "README.doc", true},
		{[]string{"[CB]at"}, "Cat", true},
		{[]string{"[1-2]00"}, "300", false},
		{[]string{"é+"}, "éé", true},
		{[]string{"a.b+"}, "a.bbb", true},
		{[]string{`\*`}, "*", true},
		{[]string{`\*`}, "x", false},
		{[]string{"main"}, "main\n", false},
		{[]string{"main"}, "x\nmain", false},
		{[]string{"**"}, "a\nb", true},
		{nil, "main", false},
	} {
		if got := MatchList(tt.patterns, tt.name); got != tt.want {
			t.Errorf("MatchList(%q, %q) = %v, want %v", tt.patterns, tt.name, got, tt.want)
		}
	}
	for _, p := range []string{"", "+x", "?x", "[abc", `x\`, "[]", strings.Repeat("x", 2000)} {
		if ValidGlob(p) == nil {
			t.Errorf("the pattern %.20q is taken", p)
		}
	}
}

func TestSkipWordsAreGitHubs(t *testing.T) {
	for message, want := range map[string]string{
		"x [skip ci]": "[skip ci]", "[ci skip] x": "[ci skip]", "x\n\n[no ci]": "[no ci]", "[skip actions]": "[skip actions]",
		"a [actions skip] b": "[actions skip]", "x\n\n\nskip-checks: true": "skip-checks: true", "x\n\nskip-checks:true\n": "skip-checks: true",
		"x\r\n\r\nskip-checks: true\r\n": "skip-checks: true", "x\n\nCo-authored-by: a\nskip-checks: true": "skip-checks: true",
		"skip-checks: true": "", "skip ci": "", "x [skip-ci]": "", "x\n\nskip-checks: trueish": "", "": "",
	} {
		if got := skipWord(message); got != want {
			t.Errorf("%q: %q, want %q", message, got, want)
		}
		ev := pushEvent()
		ev.Message = message
		if d := Plan(pipeline(PushTrigger{Branches: []string{"main"}}), ev); (len(d.Runs) == 0) != (want != "") || want != "" && !strings.Contains(d.Message, want) {
			t.Errorf("%q: %+v", message, d)
		}
	}
}

func TestAnswersAreShortHoweverMuchThereIsToSay(t *testing.T) {
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprint("branch-", i))
	}
	d := Plan(pipeline(PushTrigger{Branches: many}), pushEvent())
	if len(d.Message) > 600 || !strings.HasSuffix(d.Message, "…") || len(d.Why[0].Why) > 600 {
		t.Errorf("the answer has %d bytes, the reason %d", len(d.Message), len(d.Why[0].Why))
	}
}

func FuzzGlobsNeverPanic(f *testing.F) {
	for _, p := range []string{"**/a", "[a-", "[z-a]", `\`, "a+?", "!x", "[[:alpha:]]"} {
		f.Add(p, "a/b")
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if ValidGlob(pattern) != nil && !strings.HasPrefix(pattern, "!") && MatchList([]string{pattern}, name) {
			t.Errorf("%q is no pattern and matches %q", pattern, name)
		}
		// Every character can be meant as it is.
		exact := ""
		for _, b := range []byte(name) {
			if b < 0x80 {
				exact += `\`
			}
			exact += string([]byte{b})
		}
		if name != "" && len(exact) <= globBytes && utf8.ValidString(name) && (!MatchList([]string{exact}, name) || MatchList([]string{exact}, name+"x")) {
			t.Errorf("%q does not match %q alone", exact, name)
		}
	})
}

func laneOfMoves(s ...string) []RefMove {
	var list []RefMove
	for _, m := range s {
		before, after, _ := strings.Cut(m, ">")
		list = append(list, RefMove{Before: before, After: after})
	}
	return list
}

func TestLaneIsInTheOrderOfItsCommits(t *testing.T) {
	for _, tt := range []struct {
		pushes []RefMove
		want   []int
	}{
		{laneOfMoves("0>a", "a>b", "b>c"), []int{0, 1, 2}},
		{laneOfMoves("b>c", "a>b"), []int{1, 0}},
		{laneOfMoves("b>c", "z>a", "a>b"), []int{1, 2, 0}},
		{laneOfMoves("c>d", "b>c", "a>b"), []int{2, 1, 0}},
		{laneOfMoves("a>b", "b>a", "a>b"), []int{0, 1, 2}},
		{laneOfMoves("d>e", "a>b", "b>c", "c>d"), []int{1, 2, 3, 0}},
		{laneOfMoves("d>e", "b>c", "a>b", "c>d"), []int{2, 1, 3, 0}},
		{laneOfMoves("d>e", "x>y", "c>d"), []int{2, 0, 1}},
		{laneOfMoves("x>y", "b>c", "a>b"), []int{0, 2, 1}},
		{laneOfMoves("a>b", "b>c", "c>a", "a>b", "b>d"), []int{0, 1, 2, 3, 4}},
		{laneOfMoves("b>d", "a>b", "b>a", "a>b"), []int{1, 3, 0, 2}},
		{laneOfMoves("a>a", "a>b", "a>a"), []int{0, 2, 1}},
		{laneOfMoves("a>b", "b>a"), []int{0, 1}},
		{laneOfMoves("a>b", "x>y"), []int{0, 1}},
		{laneOfMoves(">b", ">c"), []int{0, 1}},
		{laneOfMoves(ZeroCommit+">b", ZeroCommit+">c"), []int{0, 1}},
		{nil, []int{}},
	} {
		if got := OrderLane(tt.pushes); !slices.Equal(got, tt.want) {
			t.Errorf("OrderLane(%v) = %v, want %v", tt.pushes, got, tt.want)
		}
	}
}

func TestOnlyWhatIsKnownToBeOlderLeadsUp(t *testing.T) {
	for _, tt := range []struct {
		pushes []RefMove
		want   string // a digit for each
	}{
		{laneOfMoves("0>a", "a>b", "b>c"), "110"},
		{laneOfMoves("d>e", "a>b", "b>c"), "010"},
		{laneOfMoves("a>b", "b>c", "b>c", "c>d"), "1110"},
		{laneOfMoves("a>b", "b>b", "b>c"), "100"},
		{laneOfMoves("a>b", "b>a", "a>b"), "110"},
		{laneOfMoves("a>b", "b>"+ZeroCommit, ZeroCommit+">c"), "110"},
		{laneOfMoves("a>b"), "0"},
		{nil, ""},
	} {
		got := ""
		for _, is := range LeadUp(tt.pushes) {
			got += map[bool]string{true: "1", false: "0"}[is]
		}
		if got != tt.want {
			t.Errorf("LeadUp(%v) = %s, want %s", tt.pushes, got, tt.want)
		}
	}
}

func FuzzLaneOrderIsAPermutation(f *testing.F) {
	f.Add("ab bc ca ab")
	f.Add("bc ab")
	f.Fuzz(func(t *testing.T, s string) {
		var list []RefMove
		for _, w := range strings.Fields(s) {
			if len(w) > 1 && len(list) < 50 {
				list = append(list, RefMove{Before: w[:1], After: w[1:2]})
			}
		}
		got := OrderLane(list)
		slices.Sort(got)
		for i, k := range got {
			if i != k {
				t.Fatalf("OrderLane(%v) is no permutation: %v", list, got)
			}
		}
		order := OrderLane(list)
		for place, k := range order {
			for later, o := range order {
				// Only what leads back to itself may stand out of its order.
				g := laneGraph{pushes: list, from: map[string][]int{}}
				for i, p := range list {
					g.from[p.Before] = append(g.from[p.Before], i)
				}
				if place > later && list[k].After == list[o].Before && !g.leads(list[o].After, list[k].Before) {
					t.Fatalf("OrderLane(%v) = %v: %d stands after %d", list, order, k, o)
				}
			}
		}
		if len(got) != len(list) || len(LeadUp(list)) != len(list) {
			t.Fatalf("OrderLane(%v) has %d places", list, len(got))
		}
	})
}

func pipeline(on PushTrigger) *Config {
	return &Config{Digest: "d", Hooks: []Hook{{Name: "github", Provider: "github"}}, Pipelines: []Pipeline{{
		Name: "shop", Repository: "github.com/acme/shop", Hook: "github", Queue: QueueLatest, On: Triggers{Push: &on},
		Jobs: []Job{
			{Name: "test", Hosts: []string{Local}},
			{Name: "deploy", Needs: []string{"test"}, Hosts: []string{Local}, Release: &ReleaseSpec{Path: "/srv/shop"}, Group: "shop/deploy"},
		},
	}}}
}

func pushEvent() *Event {
	ev := &Event{Kind: Push, Name: "push", Hook: "github", Repository: "github.com/acme/shop", Before: strings.Repeat("b", 40),
		After: strings.Repeat("a", 40), Commit: strings.Repeat("a", 40), Paths: []string{"src/a.go"}}
	ev.SetRef("refs/heads/main")
	return ev
}

func TestPlanGivesRunsWithTheirJobs(t *testing.T) {
	d := Plan(pipeline(PushTrigger{Branches: []string{"main"}}), pushEvent())
	if len(d.Runs) != 1 || len(d.Why) != 1 || !d.Why[0].Run {
		t.Fatalf("got %+v", d)
	}
	r := d.Runs[0]
	if r.Commit != strings.Repeat("a", 40) || r.Queue != QueueLatest || r.Config != "d" || r.Deferred || r.Forced {
		t.Errorf("the run is %+v", r)
	}
	if !r.Jobs[0].Ready || r.Jobs[1].Ready || r.Jobs[1].Path != "/srv/shop" || r.Jobs[1].Group != "shop/deploy" || !r.Jobs[1].Deploys {
		t.Errorf("the jobs are %+v", r.Jobs)
	}
}

func TestPlanIsOnlyForItsHookAndRepository(t *testing.T) {
	cfg := pipeline(PushTrigger{Branches: []string{"main"}})
	for name, change := range map[string]func(*Event){
		"another hook":       func(e *Event) { e.Hook = "gitea" },
		"another repository": func(e *Event) { e.Repository = "github.com/acme/other" },
		"no repository":      func(e *Event) { e.Repository = "" },
	} {
		ev := pushEvent()
		change(ev)
		if d := Plan(cfg, ev); len(d.Runs) != 0 || d.Message == "" {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestPathFiltersDeferWhereTheListIsCut(t *testing.T) {
	cfg := pipeline(PushTrigger{Branches: []string{"main"}, Paths: []string{"docs/**"}})
	ev := pushEvent()
	if d := Plan(cfg, ev); len(d.Runs) != 0 {
		t.Errorf("no docs have changed, and a run starts: %+v", d)
	}
	ev.PathsCut = true
	d := Plan(cfg, ev)
	if len(d.Runs) != 1 || !d.Runs[0].Deferred || d.Runs[0].Jobs[0].Ready {
		t.Fatalf("got %+v", d)
	}
	p := &cfg.Pipelines[0]
	if ok, why := Deferred(p, ev, []string{"src/x"}); ok || why == "" {
		t.Errorf("the diff has no docs: %v, %q", ok, why)
	}
	if ok, _ := Deferred(p, ev, []string{"src/x", "docs/y"}); !ok {
		t.Error("the diff has docs, and nothing starts")
	}
	for _, tt := range []struct {
		t     PushTrigger
		paths []string
		want  bool
	}{
		{PushTrigger{}, nil, true},
		{PushTrigger{PathsIgnore: []string{"docs/**"}}, []string{"docs/a"}, false},
		{PushTrigger{PathsIgnore: []string{"docs/**"}}, []string{"docs/a", "b"}, true},
		{PushTrigger{Paths: []string{"**", "!docs/**"}}, []string{"docs/a"}, false},
	} {
		if got := PathsMatch(&tt.t, tt.paths); got != tt.want {
			t.Errorf("PathsMatch(%+v, %v) = %v", tt.t, tt.paths, got)
		}
	}
}

// active is a set of runs of one deploy job; each is "order state".
func active(jobs ...RunJob) *Active {
	a := &Active{Locks: map[string]LockHolder{}}
	for i, j := range jobs {
		r := Run{ID: int64(i + 1), Order: int64(i + 1)}
		r.Pipeline, r.Ref, r.Queue, r.Event = "shop", "refs/heads/main", QueueLatest, Push
		r.Jobs = []RunJob{j}
		a.Runs = append(a.Runs, r)
	}
	return a
}

func deployJob(state State, ready bool) RunJob {
	return RunJob{State: state, NewJob: NewJob{Name: "deploy", Deploys: true, Path: "/srv/shop", Hosts: []string{Local}, Group: "shop/deploy", Ready: ready}}
}

func testJob() RunJob {
	return RunJob{State: Queued, NewJob: NewJob{Name: "test", Hosts: []string{Local}, Ready: true}}
}

func claims(n Next) string {
	var s []string
	for _, c := range n.Claims {
		over := ""
		for _, o := range c.Supersedes {
			over += fmt.Sprint("-", o.Run)
		}
		s = append(s, fmt.Sprint(c.Run, over))
	}
	return strings.Join(s, " ")
}

func TestNewestReadyDeployGoesAndSupersedes(t *testing.T) {
	a := active(deployJob(Queued, true), deployJob(Queued, false), deployJob(Waiting, true), deployJob(Queued, false))
	n := Schedule(a, 4, now)
	if got := claims(n); got != "3-1-2" {
		t.Errorf("claims are %q, want run 3 over 1 and 2", got)
	}
	if len(n.Claims[0].Locks) != 2 {
		t.Errorf("locks are %v", n.Claims[0].Locks)
	}
	a.Runs[0].Queue, a.Runs[2].Queue = QueueAll, QueueAll
	if got := claims(Schedule(a, 4, now)); got != "1" {
		t.Errorf("with queue: all claims are %q, want the oldest", got)
	}
}

func TestJobThatHasBegunIsNotSuperseded(t *testing.T) {
	begun := deployJob(Queued, true)
	begun.Begun = true
	a := active(begun, deployJob(Queued, true))
	if got := claims(Schedule(a, 4, now)); got != "2" {
		t.Errorf("claims are %q", got)
	}
}

func TestLocksKeepOthersWaitingAndSayWho(t *testing.T) {
	a := active(deployJob(Queued, true))
	a.Locks[PathLock(Local, "/srv/shop")] = LockHolder{Run: 9, Job: "deploy"}
	n := Schedule(a, 4, now)
	if len(n.Claims) != 0 || len(n.Waits) != 1 || n.Waits[0].Waiting != "run 9 job deploy holds path local:/srv/shop" || n.Waits[0].To != Waiting {
		t.Errorf("got %+v", n)
	}
	a.Locks[PathLock(Local, "/srv/shop")] = LockHolder{Run: 9, Job: "deploy", Blocked: "unfinished switch"}
	if n := Schedule(a, 4, now); n.Waits[0].Waiting != "unfinished switch" {
		t.Errorf("got %+v", n)
	}
}

func TestRollbackGoesFirstAndPastHolds(t *testing.T) {
	a := active(deployJob(Queued, true), deployJob(Queued, true))
	a.Runs[1].Event, a.Runs[1].Ref = Rollback, ""
	a.Holds = []Hold{{Pipeline: "shop", Kind: HoldAll, By: "alice"}}
	n := Schedule(a, 4, now)
	if got := claims(n); got != "2" {
		t.Errorf("claims are %q, want the rollback", got)
	}
	if len(n.Waits) != 1 || n.Waits[0].Waiting != "hold by alice" {
		t.Errorf("waits are %+v", n.Waits)
	}
}

func TestLockLetsTestsRun(t *testing.T) {
	a := active(testJob(), deployJob(Queued, true))
	a.Holds = []Hold{{Pipeline: "shop", Kind: HoldDeploys, By: "alice", Reason: "sale"}}
	n := Schedule(a, 4, now)
	if got := claims(n); got != "1" || len(n.Waits) != 1 || n.Waits[0].Waiting != "lock by alice: sale" {
		t.Errorf("claims %q, waits %+v", got, n.Waits)
	}
}

func TestWorkersBoundTheClaims(t *testing.T) {
	a := active(testJob(), testJob(), testJob())
	if got := claims(Schedule(a, 2, now)); got != "1 2" {
		t.Errorf("claims are %q", got)
	}
	if n := Schedule(a, 0, now); len(n.Claims) != 0 || len(n.Waits) != 0 {
		t.Errorf("without workers: %+v", n)
	}
}

func TestScheduleSaysNothingTwice(t *testing.T) {
	a := active(deployJob(Waiting, true))
	a.Runs[0].Jobs[0].WaitingFor = "run 9 job deploy holds path local:/srv/shop"
	a.Locks[PathLock(Local, "/srv/shop")] = LockHolder{Run: 9, Job: "deploy"}
	if n := Schedule(a, 4, now); len(n.Waits) != 0 {
		t.Errorf("got %+v", n.Waits)
	}
}

func advanced(run *Run, p *Pipeline) map[string]string {
	got := map[string]string{}
	for _, m := range Advance(run, p, func(string) *Scope { return &Scope{Needs: map[string]NeedResult{}} }, now) {
		if m.Ready {
			got[m.Job] = "ready"
		} else {
			got[m.Job] = string(m.To) + ": " + m.Cause
		}
	}
	return got
}

func TestFailedNeedSkipsAllAfterIt(t *testing.T) {
	always, err := CompileExpr("always()")
	if err != nil {
		t.Fatal(err)
	}
	failure, err := CompileExpr("failure()")
	if err != nil {
		t.Fatal(err)
	}
	p := &Pipeline{Jobs: []Job{{Name: "test"}, {Name: "deploy", Needs: []string{"test"}}, {Name: "after", Needs: []string{"deploy"}},
		{Name: "clean", Needs: []string{"test"}, If: always}, {Name: "tell", Needs: []string{"test"}, If: failure}}}
	run := &Run{ID: 1}
	for _, j := range p.Jobs {
		run.Jobs = append(run.Jobs, RunJob{State: Queued, NewJob: NewJob{Name: j.Name, Needs: j.Needs}})
	}
	run.Jobs[0].State = Failed
	got := advanced(run, p)
	want := map[string]string{"deploy": "skipped: job test failed", "after": "skipped: job deploy was skipped", "clean": "ready", "tell": "ready"}
	for name, w := range want {
		if got[name] != w {
			t.Errorf("%s: %q, want %q", name, got[name], w)
		}
	}
	run.Jobs[0].State = Succeeded
	got = advanced(run, p)
	if got["deploy"] != "ready" || got["after"] != "" || !strings.HasPrefix(got["tell"], "skipped: its if is false") {
		t.Errorf("after a success: %v", got)
	}
}

func TestRecoverFollowsItsTable(t *testing.T) {
	const a, b = "releases/20260401T101500Z-aaaaaaa", "releases/20260401T101600Z-bbbbbbb"
	in := func(phase Phase, change ...func(*Intent)) *Intent {
		i := &Intent{Format: IntentFormat, Daemon: "me", Run: 7, Job: "deploy", From: a, To: b, Phase: phase}
		for _, c := range change {
			c(i)
		}
		return i
	}
	live := ReleaseLine{Release: b[9:], State: ReleaseLive, Run: 7, Job: "deploy", Daemon: "me"}
	for name, tt := range map[string]struct {
		f    Found
		want Recovery
	}{
		"nothing":                  {Found{Current: a}, RecoverNothing},
		"live":                     {Found{Current: b, Lines: []ReleaseLine{live}}, RecoverSuccess},
		"another run is live":      {Found{Current: b, Lines: []ReleaseLine{{Release: b[9:], State: ReleaseLive, Run: 8, Job: "deploy", Daemon: "me"}}}, RecoverNothing},
		"announced":                {Found{Intent: in(Switching), Current: a}, RecoverDrop},
		"announced, first release": {Found{Intent: in(Switching, func(i *Intent) { i.From = "" })}, RecoverDrop},
		"switched":                 {Found{Intent: in(Switching), Current: b}, RecoverProve},
		"proving":                  {Found{Intent: in(Proving), Current: b}, RecoverProve},
		"undoing, not yet":         {Found{Intent: in(Undoing), Current: b}, RecoverUndo},
		"undoing, done":            {Found{Intent: in(Undoing), Current: a}, RecoverUndo},
		"proving, moved by hand":   {Found{Intent: in(Proving), Current: a}, RecoverBlocked},
		"points elsewhere":         {Found{Intent: in(Switching), Current: "releases/x"}, RecoverBlocked},
		"another daemon":           {Found{Intent: in(Switching, func(i *Intent) { i.Daemon = "you" }), Current: a}, RecoverBlocked},
		"another run":              {Found{Intent: in(Switching, func(i *Intent) { i.Run = 8 }), Current: a}, RecoverBlocked},
		"another format":           {Found{Intent: in(Switching, func(i *Intent) { i.Format = 2 }), Current: a}, RecoverBlocked},
		"unreadable":               {Found{Foreign: "intent.json is not JSON", Current: a}, RecoverBlocked},
		"a name that is none":      {Found{Intent: in(Switching, func(i *Intent) { i.To = "../../etc" }), Current: a}, RecoverBlocked},
	} {
		got, why := Recover(&tt.f, "me", 7, "deploy")
		if got != tt.want || (got == RecoverBlocked) != (why != "") {
			t.Errorf("%s: %s, %q; want %s", name, got, why, tt.want)
		}
	}
}

func TestHostsAreRecoveredTogether(t *testing.T) {
	const n, s, d, p, u, b = RecoverNothing, RecoverSuccess, RecoverDrop, RecoverProve, RecoverUndo, RecoverBlocked
	for _, tt := range []struct {
		each []Recovery
		lack int // the host where the release is not whole; -1 = none
		want Recovery
	}{
		{[]Recovery{n, n}, -1, n},
		{[]Recovery{d, n}, -1, d},
		{[]Recovery{n, d}, 0, d},
		{[]Recovery{p, n}, -1, p},
		{[]Recovery{p, d, n}, -1, p},
		{[]Recovery{p, p}, 0, p}, // it is current there: the journal tells it
		{[]Recovery{p, n}, 1, u},
		{[]Recovery{d, p}, 0, u},
		{[]Recovery{p, u}, -1, u},
		{[]Recovery{u, n}, -1, u},
		{[]Recovery{s, p, p}, -1, s},
		{[]Recovery{p, s}, -1, s},
		{[]Recovery{s, u}, -1, s},
		{[]Recovery{p, b}, -1, b},
		{[]Recovery{s, b}, -1, b},
		{nil, -1, n},
	} {
		if got := RecoverAll(tt.each, func(i int) bool { return i != tt.lack }); got != tt.want {
			t.Errorf("RecoverAll(%v), not whole on %d: %s, want %s", tt.each, tt.lack, got, tt.want)
		}
	}
}

// journal makes lines from words: "a" live, "-a" bad, "xa" removed, "<a" a
// rollback that pops, "pa" prepared.
func journal(words ...string) []ReleaseLine {
	var lines []ReleaseLine
	for _, w := range words {
		l := ReleaseLine{Release: w, State: ReleaseLive}
		switch w[0] {
		case '-':
			l.Release, l.State = w[1:], ReleaseBad
		case 'x':
			l.Release, l.State = w[1:], ReleaseRemoved
		case 'p':
			l.Release, l.State = w[1:], ReleasePrepared
		case '<':
			l.Release, l.Pops = w[1:], true
		}
		lines = append(lines, l)
	}
	return lines
}

func TestLiveReleasesFormAStack(t *testing.T) {
	for _, tt := range []struct {
		words  []string
		stack  string
		target string
	}{
		{[]string{"1"}, "1", ""},
		{[]string{"1", "2", "3"}, "1 2 3", "2"},
		{[]string{"1", "2", "3", "<2"}, "1 2", "1"},
		{[]string{"1", "2", "3", "<2", "<1"}, "1", ""},
		{[]string{"1", "2", "3", "<2", "4"}, "1 2 4", "2"},
		{[]string{"1", "2", "3", "1"}, "1 2 3 1", "3"},
		{[]string{"1", "p2", "-2", "3"}, "1 3", "1"},
		{[]string{"1", "2", "3", "x1"}, "2 3", "2"},
		{[]string{"1", "p2"}, "1", ""},
		{nil, "", ""},
	} {
		lines := journal(tt.words...)
		stack := LiveStack(lines)
		if got := strings.Join(stack, " "); got != tt.stack {
			t.Errorf("%v: the stack is %q, want %q", tt.words, got, tt.stack)
		}
		f := &Found{Lines: lines}
		if len(stack) > 0 {
			f.Current = "releases/" + stack[len(stack)-1]
		}
		if got := RollbackTarget(f); got != tt.target {
			t.Errorf("%v: the target is %q, want %q", tt.words, got, tt.target)
		}
	}
}

func TestPruneKeepsWhatIsNeeded(t *testing.T) {
	none := func(string) bool { return false }
	for _, tt := range []struct {
		words            []string
		current          string
		keep, keepFailed int
		inUse            func(string) bool
		want             string
	}{
		{[]string{"1", "2", "3", "4"}, "4", 2, 2, none, "2 1"},
		{[]string{"1", "2", "3", "4"}, "4", 1, 2, none, "2 1"}, // 3 is the rollback target
		{[]string{"1", "-2", "-3", "-4", "5"}, "5", 5, 2, none, "2"},
		{[]string{"1", "-2", "-3", "5"}, "5", 5, 0, none, "3 2"},
		{[]string{"1", "2", "3", "4"}, "4", 2, 2, func(id string) bool { return id == "1" }, "2"},
		{[]string{"1", "2", "3", "<2"}, "2", 1, 0, none, "3"}, // 1 is the target
		{[]string{"1"}, "1", 1, 0, none, ""},
	} {
		f := &Found{Lines: journal(tt.words...), Current: "releases/" + tt.current}
		if got := strings.Join(PruneList(f, tt.keep, tt.keepFailed, tt.inUse), " "); got != tt.want {
			t.Errorf("%v, current %s, keep %d and %d: removes %q, want %q", tt.words, tt.current, tt.keep, tt.keepFailed, got, tt.want)
		}
	}
}

func TestReleaseNamesHaveTheirForm(t *testing.T) {
	id := ReleaseID(now, strings.Repeat("3f2c1ab", 6), 1)
	if id != "20260401T101500Z-3f2c1ab" || ReleaseID(now, "3f2c1ab", 3) != id+"-3" {
		t.Errorf("the names are %s and %s", id, ReleaseID(now, "3f2c1ab", 3))
	}
	for name, want := range map[string]bool{
		id: true, id + "-2": true, "": false, "..": false, id + "/..": false, id + "\n": false, "current": false, id + "-0": false, "x" + id: false,
	} {
		if ValidReleaseID(name) != want {
			t.Errorf("ValidReleaseID(%q) = %v", name, !want)
		}
	}
}
