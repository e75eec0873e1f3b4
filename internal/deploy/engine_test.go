package deploy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func compiled(t *testing.T, src string) *Expr {
	t.Helper()
	e, err := CompileExpr(src)
	if err != nil {
		t.Fatalf("%s: %v", src, err)
	}
	return e
}

// chain is a run of jobs that each need the one before, in these states.
func chain(states map[string]State, jobs ...Job) (*Run, *Pipeline) {
	run, p := &Run{ID: 1}, &Pipeline{}
	for i := range jobs {
		if i > 0 && jobs[i].Needs == nil {
			jobs[i].Needs = []string{jobs[i-1].Name}
		}
		state := states[jobs[i].Name]
		if state == "" {
			state = Queued
		}
		run.Jobs = append(run.Jobs, RunJob{State: state, NewJob: NewJob{Name: jobs[i].Name, Needs: jobs[i].Needs}})
	}
	p.Jobs = jobs
	return run, p
}

func TestFailureIsSeenThroughSkippedJobs(t *testing.T) {
	jobs := func() []Job {
		return []Job{{Name: "test"}, {Name: "deploy"}, {Name: "tell", If: compiled(t, "failure()")}}
	}
	for _, tt := range []struct {
		test State
		want string
	}{
		{Failed, "ready"},
		{Lost, "ready"},
		{Skipped, "skipped: its if is false: failure()"},
		{Canceled, "skipped: its if is false: failure()"},
	} {
		run, p := chain(map[string]State{"test": tt.test}, jobs()...)
		if got := advanced(run, p)["tell"]; got != tt.want {
			t.Errorf("test %s: tell is %q, want %q", tt.test, got, tt.want)
		}
	}
}

func TestStatusFunctionsTellWhatCameBefore(t *testing.T) {
	for _, tt := range []struct {
		test State
		src  string
		want bool
	}{
		{Succeeded, "success()", true},
		{Succeeded, "always()", true},
		{Succeeded, "failure()", false},
		{Succeeded, "canceled()", false},
		{Failed, "success()", false},
		{Failed, "always()", true},
		{Failed, "failure()", true},
		{Failed, "failure() && branch == nil", false},
		{Canceled, "success()", false},
		{Canceled, "canceled()", true},
		{Canceled, "always()", true},
		{Skipped, "success()", false}, // what was skipped did not succeed: a deploy must not run
		{Skipped, "!failure()", true},
		{Skipped, `needs.test.result == "skipped"`, false}, // without a status function success() stands before it
		{Skipped, `always() && needs.test.result == "skipped"`, true},
	} {
		run, p := chain(map[string]State{"test": tt.test}, Job{Name: "test"}, Job{Name: "after", If: compiled(t, tt.src)})
		moves := Advance(run, p, func(string) *Scope {
			return &Scope{Event: &Event{}, Needs: map[string]NeedResult{"test": {}}}
		}, now)
		if len(moves) != 1 || moves[0].Ready != tt.want {
			t.Errorf("test %s, if %s: %+v, want ready %v", tt.test, tt.src, moves, tt.want)
		}
	}
}

func TestWhatCleansUpIsLeftByACancel(t *testing.T) {
	jobs := func() []Job {
		return []Job{{Name: "test"}, {Name: "deploy", Release: &ReleaseSpec{Path: "/srv"}, If: compiled(t, "always()")},
			{Name: "clean", If: compiled(t, "always()")}, {Name: "tell", If: compiled(t, "canceled()")}, {Name: "other"}}
	}
	run, p := chain(map[string]State{"test": Running}, jobs()...)
	names := func(moves []Move) string {
		var s []string
		for _, m := range moves {
			s = append(s, m.Job)
		}
		return strings.Join(s, " ")
	}
	if got := names(WithoutCleanUp(run, p, CancelMoves(run, "by alice", now))); got != "deploy clean tell other" {
		t.Errorf("nothing has begun, and the cancels are %q", got)
	}
	run.Jobs[0].Attempt = 1
	if got := names(WithoutCleanUp(run, p, CancelMoves(run, "by alice", now))); got != "deploy other" {
		t.Errorf("the cancels are %q, want those of deploy and other: a cancel deploys nothing", got)
	}
}

func TestWithQueueAllEachGoesAfterTheOneBeforeIt(t *testing.T) {
	a := active(deployJob(Queued, false), deployJob(Queued, true))
	for i := range a.Runs {
		a.Runs[i].Queue = QueueAll
	}
	n := Schedule(a, 4, now)
	if got := claims(n); got != "" || len(n.Waits) != 1 || n.Waits[0].Waiting != "run 1, which is before it" {
		t.Errorf("claims %q, waits %+v: run 1 is still being tested", got, n.Waits)
	}
	a.Runs[0].Jobs[0].State = Failed
	if got := claims(Schedule(a, 4, now)); got != "2" {
		t.Errorf("claims are %q after run 1 failed", got)
	}
	a.Runs[0].Jobs[0].State = Queued
	a.Runs[1].Ref = "refs/heads/other"
	if got := claims(Schedule(a, 4, now)); got != "2" {
		t.Errorf("claims are %q: another ref has its own order", got)
	}
}

func TestRollbackTargetOfAnUnfinishedSwitchIsTheLastThatWasLive(t *testing.T) {
	for _, tt := range []struct{ current, want string }{
		{"3", "2"},
		{"2", "1"},
		{"9", "3"}, // prepared and linked, never live
		{"", "3"},  // current was removed by hand
	} {
		f := &Found{Lines: journal("1", "2", "3", "p9")}
		if tt.current != "" {
			f.Current = "releases/" + tt.current
		}
		if got := RollbackTarget(f); got != tt.want {
			t.Errorf("current %q: the target is %q, want %q", tt.current, got, tt.want)
		}
	}
}

func TestReleasesAreInTheOrderOfTheirRuns(t *testing.T) {
	// The names say otherwise: the clock jumped back after the first.
	lines := []ReleaseLine{
		{Release: "20990101T000000Z-aaaaaaa", State: ReleasePreparing, Run: 1},
		{Release: "20990101T000000Z-aaaaaaa", State: ReleaseLive, Run: 1},
		{Release: "20260401T101500Z-bbbbbbb", State: ReleasePreparing, Run: 2},
		{Release: "20260401T101500Z-bbbbbbb", State: ReleaseLive, Run: 2},
		{Release: "20990101T000000Z-aaaaaaa", State: ReleaseLive, Run: 3, Pops: true},
	}
	list := Releases(&Found{Lines: lines, Current: "releases/20990101T000000Z-aaaaaaa"})
	if len(list) != 2 || list[0].Made != 2 || list[1].Made != 1 || list[1].Run != 3 || !list[1].Current {
		t.Errorf("the releases are %+v", list)
	}
}

func TestEveryLegalMoveIsInTheTable(t *testing.T) {
	legal := map[State][]State{
		Queued:  {Waiting, Running, Canceled, Skipped, Failed},
		Waiting: {Queued, Running, Canceled, Skipped, Failed},
		Running: {Succeeded, Failed, Canceled, Skipped, Lost, Queued, Waiting},
	}
	all := []State{Queued, Waiting, Running, Succeeded, Failed, Canceled, Skipped, Lost}
	for _, from := range all {
		for _, to := range all {
			if want := slices.Contains(legal[from], to); CanMove(from, to) != want {
				t.Errorf("CanMove(%s, %s) = %v", from, to, !want)
			}
		}
	}
}

func TestSettleIsRightForEveryCombination(t *testing.T) {
	all := []State{Queued, Waiting, Running, Succeeded, Failed, Canceled, Skipped, Lost}
	want := func(jobs []State) State {
		has := func(list ...State) bool {
			return slices.ContainsFunc(jobs, func(s State) bool { return slices.Contains(list, s) })
		}
		switch {
		case has(Queued, Waiting, Running) && has(Running, Succeeded, Failed, Canceled, Skipped, Lost):
			return Running
		case has(Waiting):
			return Waiting
		case has(Queued):
			return Queued
		case has(Lost):
			return Lost
		case has(Failed):
			return Failed
		case has(Canceled):
			return Canceled
		case has(Succeeded):
			return Succeeded
		}
		return Skipped
	}
	for _, a := range all {
		for _, b := range all {
			for _, c := range all {
				jobs := []State{a, b, c}
				if got := Settle(jobs); got != want(jobs) {
					t.Errorf("Settle(%v) = %s, want %s", jobs, got, want(jobs))
				}
			}
		}
	}
}

func TestChainIsInOrderHoweverItsDeliveriesCome(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		const n = 12
		var list []RefMove
		for _, i := range r.Perm(n) {
			list = append(list, RefMove{Before: fmt.Sprint("c", i), After: fmt.Sprint("c", i+1)})
		}
		for place, i := range OrderLane(list) {
			if list[i].Before != fmt.Sprint("c", place) {
				t.Fatalf("the deliveries %v come out in the order %v", list, OrderLane(list))
			}
		}
	}
}

func TestWhatComesInBetweenTakesNobodysPlace(t *testing.T) {
	for _, tt := range []struct {
		pushes []RefMove
		want   []int
	}{
		{laneOfMoves("b>c", "x>y", "a>b"), []int{2, 0, 1}},
		{laneOfMoves("a>b", "b>a", "z>a"), []int{2, 0, 1}},
		{laneOfMoves("a>b", "b>a", "a>c"), []int{0, 1, 2}},
		{laneOfMoves("a>b", "a>b"), []int{0, 1}},
	} {
		if got := OrderLane(tt.pushes); !slices.Equal(got, tt.want) {
			t.Errorf("OrderLane(%v) = %v, want %v", tt.pushes, got, tt.want)
		}
	}
}
