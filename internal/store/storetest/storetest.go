// Package storetest has the one suite that every database of deployhook passes.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"deployhook/internal/deploy"
)

// Store is everything that the parts ask of a database.
type Store interface {
	Accept(ctx context.Context, d *deploy.Delivery, runs []deploy.NewRun) (deploy.Receipt, error)
	Create(ctx context.Context, r deploy.NewRun, cancel []deploy.Move) (int64, error)
	Apply(ctx context.Context, moves ...deploy.Move) error
	Active(ctx context.Context) (*deploy.Active, error)
	Unfinished(ctx context.Context) (*deploy.Active, error)
	Run(ctx context.Context, id int64) (*deploy.Run, error)
	Runs(ctx context.Context, f deploy.RunFilter) ([]deploy.Run, error)
	Delivery(ctx context.Context, id int64) (*deploy.Delivery, error)
	Deliveries(ctx context.Context, f deploy.DeliveryFilter) ([]deploy.Delivery, error)
	SaveStep(ctx context.Context, at deploy.StepAt, st deploy.RunStep) error
	AppendLog(ctx context.Context, at deploy.StepAt, seq int64, lines []deploy.LogLine) error
	DropLog(ctx context.Context, at deploy.StepAt, from, to int64) error
	Log(ctx context.Context, run int64, f deploy.LogFilter, fn func(deploy.LogChunk) error) error
	AddHold(ctx context.Context, h deploy.Hold) error
	Holds(ctx context.Context) ([]deploy.Hold, error)
	RemoveHold(ctx context.Context, pipeline string, kind deploy.HoldKind) error
	FreeLock(ctx context.Context, lock string) error
	SetLive(ctx context.Context, l deploy.Live) error
	Live(ctx context.Context, host, path string) (*deploy.Live, error)
	Wake() <-chan struct{}
	Clocks(ctx context.Context, want []deploy.Clock, now time.Time) (clocks, wrong []deploy.Clock, err error)
	Tick(ctx context.Context, k deploy.Tick, runs []deploy.NewRun) ([]int64, error)
	Follow(next func(*deploy.Run) []deploy.NewRun)
	Trim(ctx context.Context, now time.Time) (more bool, err error)
}

type suite struct {
	*testing.T
	s Store
	n int
}

// Run runs the suite; open gives an empty database each time.
func Run(t *testing.T, open func(t *testing.T) Store) {
	for name, test := range map[string]func(*suite){
		"SecondDeliveryReturnsFirstReceipt":   secondDelivery,
		"SameIdWithAnotherBodyIsAConflict":    conflict,
		"SameDeliveryAtOnceMakesOneRun":       atOnce,
		"DeliveryWithoutRunsIsPlannedAnew":    plannedAnew,
		"DeliveryPlannedAnewKeepsItsPlace":    anewInPlace,
		"NewerPushEndsWhatHasNotStarted":      superseding,
		"RunThatMayBeSkippedEndsNoOther":      deferred,
		"LatePushStandsWhereItsCommitBelongs": latePush,
		"OnlyWhatIsKnownToBeOlderEnds":        knownOlder,
		"ClaimIsMadeOnce":                     claimOnce,
		"ClaimTakesAllItsLocksOrNothing":      locks,
		"BlockedPathStaysLocked":              blocked,
		"RunIsSettledWithItsJobs":             settled,
		"FailingWriteHarmsNoOther":            isolation,
		"HeldRunsWaitAndAreLeftOut":           held,
		"HeldRunIsActiveUntilItSaysSo":        heldLater,
		"RollbackHoldsStandBesideEachOther":   rollbackHolds,
		"SecondLockNamesTheHolder":            secondLock,
		"ClockThatJumpsBackChangesNoOrder":    clockBack,
		"StepsAndLogsComeBack":                logs,
		"ListsHaveACursor":                    lists,
		"LiveIsWhatWasLastSeen":               live,
		"IllegalMoveIsRefused":                illegal,
		"RetryKeepsItsPlace":                  retry,
		"CommitsThatMoveJobsWakeTheEngine":    wake,
		"TickIsTakenOnce":                     tickOnce,
		"ScheduledRunsDoNotPileUp":            tickWaits,
		"ClocksAreThoseOfTheConfig":           clocks,
		"OldScheduledRunsGo":                  trimScheduled,
		"SuccessMakesWhatFollowsOnce":         follow,
	} {
		t.Run(name, func(t *testing.T) { test(&suite{T: t, s: open(t)}) })
	}
}

func (x *suite) ctx() context.Context { return x.Context() }

func (x *suite) must(err error) {
	x.Helper()
	if err != nil {
		x.Fatal(err)
	}
}

// push is a delivery of a push of main.
func (x *suite) push(key, before, after string) *deploy.Delivery {
	x.n++
	return &deploy.Delivery{
		Hook: "github", Key: key, BodyHash: fmt.Sprint("hash of ", key, x.n), SameBody: true, Event: "push", Received: time.Now(),
		Body: []byte(`{"key":"` + key + `"}`), Message: "message of " + key, Why: []deploy.Verdict{{Pipeline: "shop", Run: true, Why: "why"}},
		Push: &deploy.RefMove{Repository: "github.com/acme/shop", Ref: "refs/heads/main", Before: before, After: after},
	}
}

func newRun(commit string) deploy.NewRun {
	return deploy.NewRun{
		Pipeline: "shop", Config: "digest", Event: deploy.Push, Hook: "github", Repository: "github.com/acme/shop", Ref: "refs/heads/main",
		Commit: commit, Queue: deploy.QueueLatest, Inputs: map[string]string{"a": "b"},
		Jobs: []deploy.NewJob{
			{Name: "test", Hosts: []string{"local"}, Ready: true},
			{Name: "deploy", Needs: []string{"test"}, Hosts: []string{"local"}, Deploys: true, Path: "/srv/shop", Group: "shop/deploy"},
		},
	}
}

func (x *suite) accept(key, before, after string) int64 {
	x.Helper()
	rc, err := x.s.Accept(x.ctx(), x.push(key, before, after), []deploy.NewRun{newRun(after)})
	x.must(err)
	if len(rc.Runs) != 1 || rc.Duplicate {
		x.Fatalf("the receipt of %s is %+v", key, rc)
	}
	return rc.Runs[0]
}

func (x *suite) run(id int64) *deploy.Run {
	x.Helper()
	r, err := x.s.Run(x.ctx(), id)
	x.must(err)
	return r
}

func move(run int64, job string, attempt int, from, to deploy.State) deploy.Move {
	return deploy.Move{Run: run, Job: job, Attempt: attempt, From: from, To: to, At: time.Now()}
}

func secondDelivery(x *suite) {
	d := x.push("k1", "a", "b")
	first, err := x.s.Accept(x.ctx(), d, []deploy.NewRun{newRun("b")})
	x.must(err)
	again := *d
	other := *d
	other.Key = "another id of the same body"
	for _, d := range []*deploy.Delivery{&again, &other} {
		d.Message = "another message"
		rc, err := x.s.Accept(x.ctx(), d, []deploy.NewRun{newRun("b")})
		x.must(err)
		if !rc.Duplicate || rc.Delivery != first.Delivery || !slices.Equal(rc.Runs, first.Runs) || rc.Message != "message of k1" {
			x.Errorf("id %s: %+v, want the receipt %+v", d.Key, rc, first)
		}
	}
	payment := *d
	payment.SameBody, payment.Hook, payment.Key = false, "pay", ""
	one, err := x.s.Accept(x.ctx(), &payment, []deploy.NewRun{newRun("")})
	x.must(err)
	two, err := x.s.Accept(x.ctx(), &payment, []deploy.NewRun{newRun("")})
	x.must(err)
	if one.Delivery == two.Delivery || two.Duplicate {
		x.Errorf("without an id each request is new: %+v, %+v", one, two)
	}
	got, err := x.s.Delivery(x.ctx(), first.Delivery)
	x.must(err)
	if string(got.Body) != `{"key":"k1"}` || len(got.Why) != 1 || !slices.Equal(got.Runs, first.Runs) {
		x.Errorf("the delivery is %+v", got)
	}
}

func conflict(x *suite) {
	x.accept("k1", "a", "b")
	if _, err := x.s.Accept(x.ctx(), x.push("k1", "a", "c"), nil); !errors.Is(err, deploy.ErrConflict) {
		x.Errorf("got %v, want %v", err, deploy.ErrConflict)
	}
}

func atOnce(x *suite) {
	d := x.push("k1", "a", "b")
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[int64]int{}
	for range 50 {
		wg.Go(func() {
			mine := *d
			rc, err := x.s.Accept(x.ctx(), &mine, []deploy.NewRun{newRun("b")})
			if err != nil || len(rc.Runs) != 1 {
				x.Errorf("got %+v, %v", rc, err)
				return
			}
			mu.Lock()
			seen[rc.Runs[0]]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(seen) != 1 {
		x.Errorf("fifty deliveries of one push made the runs %v", seen)
	}
}

func plannedAnew(x *suite) {
	d := x.push("k1", "a", "b")
	first, err := x.s.Accept(x.ctx(), d, nil)
	x.must(err)
	rc, err := x.s.Accept(x.ctx(), d, []deploy.NewRun{newRun("b")})
	x.must(err)
	if rc.Duplicate || rc.Delivery != first.Delivery || len(rc.Runs) != 1 {
		x.Errorf("got %+v", rc)
	}
}

func anewInPlace(x *suite) {
	first, second := x.push("k1", "a", "b"), x.push("k2", "p", "q")
	for _, d := range []*deploy.Delivery{first, second} {
		_, err := x.s.Accept(x.ctx(), d, nil)
		x.must(err)
	}
	newest := x.run(x.accept("k3", "x", "y"))
	first.Event = "push again"
	rc, err := x.s.Accept(x.ctx(), first, []deploy.NewRun{newRun("b")})
	x.must(err)
	if r := x.run(rc.Runs[0]); r.Order >= newest.Order || r.State != deploy.Queued || x.run(newest.ID).State != deploy.Queued {
		x.Errorf("the older push has place %d, the newest %d", r.Order, newest.Order)
	}
	if d, err := x.s.Delivery(x.ctx(), rc.Delivery); err != nil || d.Event != "push again" || d.ID != rc.Delivery {
		x.Errorf("the delivery is %+v, %v", d, err)
	}
	forced := newRun("q")
	forced.Force = true
	rc, err = x.s.Accept(x.ctx(), second, []deploy.NewRun{forced})
	x.must(err)
	if r := x.run(rc.Runs[0]); r.Order <= newest.Order {
		x.Errorf("with force the older push has place %d, the newest %d", r.Order, newest.Order)
	}
}

func deferred(x *suite) {
	one := x.accept("k1", "a", "b")
	r := newRun("c")
	r.Deferred = true
	rc, err := x.s.Accept(x.ctx(), x.push("k2", "b", "c"), []deploy.NewRun{r})
	x.must(err)
	if r := x.run(one); r.State != deploy.Queued {
		x.Errorf("the older run is %s (%s), and run %d may be skipped", r.State, r.Cause, rc.Runs[0])
	}
	three := x.accept("k3", "c", "d")
	for _, id := range []int64{one, rc.Runs[0]} {
		if r := x.run(id); r.State != deploy.Canceled || !strings.Contains(r.Cause, fmt.Sprint("superseded by run ", three)) {
			x.Errorf("run %d is %s: %s", id, r.State, r.Cause)
		}
	}
}

func superseding(x *suite) {
	one, two := x.accept("k1", "a", "b"), x.accept("k2", "b", "c")
	r := x.run(one)
	if r.State != deploy.Canceled || r.Cause != fmt.Sprintf("superseded by run %d; retry %d brings it back", two, one) {
		x.Errorf("the older run is %s: %s", r.State, r.Cause)
	}
	x.must(x.s.Apply(x.ctx(), move(two, "test", 0, deploy.Queued, deploy.Running)))
	three := x.accept("k3", "c", "d")
	if r := x.run(two); r.State != deploy.Running {
		x.Errorf("a run that has started is %s", r.State)
	}
	forced := x.accept("k4", "x", "y")
	if r := x.run(three); r.State != deploy.Queued {
		x.Errorf("a push that does not go on from the newest ended run %d: %s", three, r.State)
	}
	if x.run(forced).Order <= x.run(three).Order {
		x.Error("the newest push is not the newest of its lane")
	}
}

func latePush(x *suite) {
	late := x.accept("k1", "b", "c")
	early := x.accept("k2", "a", "b")
	if a, b := x.run(early).Order, x.run(late).Order; a >= b {
		x.Errorf("the push to b has place %d, the one from b to c %d", a, b)
	}
	if r := x.run(late); r.State != deploy.Queued {
		x.Errorf("the newer commit was superseded by the older: %s", r.Cause)
	}
}

func claimOnce(x *suite) {
	id := x.accept("k1", "a", "b")
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 20 {
		wg.Go(func() {
			err := x.s.Apply(x.ctx(), move(id, "test", 0, deploy.Queued, deploy.Running))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, deploy.ErrStale) {
				x.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		x.Errorf("%d claims were made", won)
	}
	if j := x.run(id).Jobs[0]; j.Attempt != 1 || j.Started.IsZero() {
		x.Errorf("the job is %+v", j)
	}
	if err := x.s.Apply(x.ctx(), move(id, "test", 0, deploy.Running, deploy.Succeeded)); !errors.Is(err, deploy.ErrStale) {
		x.Errorf("the end of another attempt: %v", err)
	}
}

func locks(x *suite) {
	a, b := x.accept("k1", "a", "b"), x.accept("k2", "x", "y")
	claim := func(id int64, names ...string) error {
		m := move(id, "test", 0, deploy.Queued, deploy.Running)
		m.Locks = names
		return x.s.Apply(x.ctx(), m)
	}
	x.must(claim(a, "group g", "path local:/srv/a"))
	err := claim(b, "path local:/srv/b", "group g")
	if !errors.Is(err, deploy.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("run %d job test holds group g", a)) {
		x.Errorf("got %v", err)
	}
	act, err := x.s.Active(x.ctx())
	x.must(err)
	if _, ok := act.Locks["path local:/srv/b"]; ok || len(act.Locks) != 2 {
		x.Errorf("the locks are %v: one was taken by a claim that was not made", act.Locks)
	}
	if j := x.run(b).Jobs[0]; j.State != deploy.Queued || j.Attempt != 0 {
		x.Errorf("the job that lost is %+v", j)
	}
	x.must(x.s.Apply(x.ctx(), move(a, "test", 1, deploy.Running, deploy.Succeeded)))
	x.must(claim(b, "path local:/srv/b", "group g"))
}

func blocked(x *suite) {
	id := x.accept("k1", "a", "b")
	m := move(id, "test", 0, deploy.Queued, deploy.Running)
	m.Locks = []string{"group g", "path local:/srv/a", "path web1:/srv/a", "path web2:/srv/a"}
	x.must(x.s.Apply(x.ctx(), m))
	end := move(id, "test", 1, deploy.Running, deploy.Lost)
	end.Error = "error"
	end.BlockedAt = map[string]string{"path local:/srv/a": "unfinished switch", "path web2:/srv/a": "another one"}
	x.must(x.s.Apply(x.ctx(), end))
	act, err := x.s.Active(x.ctx())
	x.must(err)
	if h := act.Locks["path local:/srv/a"]; len(act.Locks) != 2 || h.Blocked != "unfinished switch" || h.Run != id {
		x.Errorf("the locks are %v", act.Locks)
	}
	if h := act.Locks["path web2:/srv/a"]; h.Blocked != "another one" || h.Run != id {
		x.Errorf("the locks are %v", act.Locks)
	}
	x.must(x.s.FreeLock(x.ctx(), "path local:/srv/a"))
	if err := x.s.FreeLock(x.ctx(), "path local:/srv/a"); !errors.Is(err, deploy.ErrNotFound) {
		x.Errorf("freeing it again: %v", err)
	}
}

func settled(x *suite) {
	id := x.accept("k1", "a", "b")
	x.must(x.s.Apply(x.ctx(), move(id, "test", 0, deploy.Queued, deploy.Running)))
	if r := x.run(id); r.State != deploy.Running || r.Started.IsZero() || !r.Ended.IsZero() {
		x.Errorf("the run is %+v", r)
	}
	fail := move(id, "test", 1, deploy.Running, deploy.Failed)
	fail.Error = "step x: exit status 1"
	skip := move(id, "deploy", 0, deploy.Queued, deploy.Skipped)
	skip.Cause = "job test failed"
	x.must(x.s.Apply(x.ctx(), fail, skip))
	r := x.run(id)
	if r.State != deploy.Failed || r.Error != "job test: step x: exit status 1" || r.Ended.IsZero() {
		x.Errorf("the run is %s: %s", r.State, r.Error)
	}
	if r.Jobs[1].State != deploy.Skipped || r.Jobs[1].Cause != "job test failed" || r.Inputs["a"] != "b" {
		x.Errorf("the run is %+v", r)
	}
	act, err := x.s.Unfinished(x.ctx())
	x.must(err)
	if len(act.Runs) != 0 {
		x.Errorf("an ended run is unfinished: %+v", act.Runs)
	}
}

func isolation(x *suite) {
	id := x.accept("k1", "a", "b")
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if i%2 == 0 {
				if err := x.s.Apply(x.ctx(), move(id, "none", 0, deploy.Queued, deploy.Running)); !errors.Is(err, deploy.ErrStale) {
					x.Errorf("a move of a job that is not there: %v", err)
				}
				return
			}
			d := &deploy.Delivery{Hook: "h", Key: fmt.Sprint(i), BodyHash: fmt.Sprint(i), Received: time.Now()}
			if _, err := x.s.Accept(x.ctx(), d, nil); err != nil {
				x.Error(err)
			}
		})
	}
	wg.Wait()
	list, err := x.s.Deliveries(x.ctx(), deploy.DeliveryFilter{Hook: "h", Limit: 1000})
	x.must(err)
	if len(list) != 100 {
		x.Errorf("%d deliveries of 100 are there", len(list))
	}
}

func held(x *suite) {
	x.must(x.s.AddHold(x.ctx(), deploy.Hold{Pipeline: "shop", Kind: deploy.HoldAll, By: "alice", Reason: "move", Since: time.Now()}))
	id := x.accept("k1", "a", "b")
	if r := x.run(id); r.State != deploy.Waiting || r.WaitingFor != "hold by alice: move" {
		x.Errorf("the run is %s: %q", r.State, r.WaitingFor)
	}
	act, err := x.s.Active(x.ctx())
	x.must(err)
	all, err := x.s.Unfinished(x.ctx())
	x.must(err)
	if len(act.Runs) != 0 || len(all.Runs) != 1 {
		x.Errorf("%d are active and %d unfinished", len(act.Runs), len(all.Runs))
	}
	x.must(x.s.RemoveHold(x.ctx(), "shop", deploy.HoldAll))
	act, err = x.s.Active(x.ctx())
	x.must(err)
	if len(act.Runs) != 1 {
		x.Error("the run is not active after the hold")
	}
}

func secondLock(x *suite) {
	h := deploy.Hold{Pipeline: "shop", Kind: deploy.HoldDeploys, By: "alice", Reason: "sale", Since: time.Now()}
	x.must(x.s.AddHold(x.ctx(), h))
	h.By = "bob"
	if err := x.s.AddHold(x.ctx(), h); !errors.Is(err, deploy.ErrLocked) || !strings.Contains(err.Error(), "alice") {
		x.Errorf("got %v", err)
	}
	x.must(x.s.RemoveHold(x.ctx(), "shop", deploy.HoldDeploys))
	if err := x.s.RemoveHold(x.ctx(), "shop", deploy.HoldDeploys); !errors.Is(err, deploy.ErrNotFound) {
		x.Errorf("got %v", err)
	}
}

func logs(x *suite) {
	id := x.accept("k1", "a", "b")
	x.must(x.s.Apply(x.ctx(), move(id, "test", 0, deploy.Queued, deploy.Running)))
	at := deploy.StepAt{Run: id, Job: "test", Attempt: 1, Host: "local"}
	code := 3
	began := time.UnixMilli(1_700_000_000_000).UTC()
	x.must(x.s.SaveStep(x.ctx(), at, deploy.RunStep{Name: "make", State: deploy.Running, Tries: 1, Started: began}))
	x.must(x.s.SaveStep(x.ctx(), at, deploy.RunStep{Name: "make", State: deploy.Failed, ExitCode: &code, Error: "exit status 3", Tries: 2, Started: began, Ended: began.Add(time.Second)}))
	steps := x.run(id).Jobs[0].HostRuns[0].Steps
	if len(steps) != 1 || steps[0].State != deploy.Failed || *steps[0].ExitCode != 3 || steps[0].Tries != 2 || !steps[0].Started.Equal(began) {
		x.Errorf("the steps are %+v", steps)
	}
	for i := range 20 {
		x.must(x.s.AppendLog(x.ctx(), at, int64(i+1), []deploy.LogLine{{Time: began, Stream: 1, Text: fmt.Append(nil, "line ", i)}, {Time: began, Stream: 2, Text: []byte{0, 0xff}, Open: true}}))
	}
	x.must(x.s.DropLog(x.ctx(), at, 6, 15))
	x.must(x.s.AppendLog(x.ctx(), at, 5, []deploy.LogLine{{Time: began, Text: []byte("left out")}}))
	var text []string
	x.must(x.s.Log(x.ctx(), id, deploy.LogFilter{Job: "test", Step: "make"}, func(c deploy.LogChunk) error {
		text = append(text, string(c.Lines[0].Text))
		if c.StepName != "make" || c.At != at || !c.Lines[0].Time.Equal(began) {
			x.Errorf("the chunk is %+v", c)
		}
		return nil
	}))
	want := []string{"line 0", "line 1", "line 2", "line 3", "left out", "line 15", "line 16", "line 17", "line 18", "line 19"}
	if !slices.Equal(text, want) {
		x.Errorf("the log is %q, want %q", text, want)
	}
	for n, want := range map[int]string{1: "line 19", 2: "line 19", 3: "line 18 line 19", 17: "line 1 line 2 line 3 left out line 15 line 16 line 17 line 18 line 19"} {
		var tail []string
		x.must(x.s.Log(x.ctx(), id, deploy.LogFilter{Tail: n}, func(c deploy.LogChunk) error {
			tail = append(tail, string(c.Lines[0].Text))
			return nil
		}))
		if got := strings.Join(tail, " "); got != want {
			x.Errorf("the chunks of the last %d lines are %q, want %q", n, got, want)
		}
	}
	stop := errors.New("stop")
	if err := x.s.Log(x.ctx(), id, deploy.LogFilter{}, func(deploy.LogChunk) error { return stop }); !errors.Is(err, stop) {
		x.Errorf("got %v", err)
	}
}

func lists(x *suite) {
	for i := range 7 {
		x.accept(fmt.Sprint("k", i), fmt.Sprint("x", i), fmt.Sprint("y", i))
	}
	page, err := x.s.Runs(x.ctx(), deploy.RunFilter{Limit: 3})
	x.must(err)
	next, err := x.s.Runs(x.ctx(), deploy.RunFilter{Limit: 3, Before: page[2].ID, Pipeline: "shop", State: deploy.Queued})
	x.must(err)
	if len(page) != 3 || page[0].ID != 7 || len(next) != 3 || next[0].ID != 4 {
		x.Errorf("the pages begin with %d and %d", page[0].ID, next[0].ID)
	}
	ds, err := x.s.Deliveries(x.ctx(), deploy.DeliveryFilter{Limit: 2, Before: 4})
	x.must(err)
	if len(ds) != 2 || ds[0].ID != 3 || len(ds[0].Runs) != 1 || ds[0].Body != nil {
		x.Errorf("the deliveries are %+v", ds)
	}
	if _, err := x.s.Run(x.ctx(), 99); !errors.Is(err, deploy.ErrNotFound) {
		x.Errorf("got %v", err)
	}
	if _, err := x.s.Delivery(x.ctx(), 99); !errors.Is(err, deploy.ErrNotFound) {
		x.Errorf("got %v", err)
	}
}

func live(x *suite) {
	if _, err := x.s.Live(x.ctx(), "local", "/srv"); !errors.Is(err, deploy.ErrNotFound) {
		x.Errorf("got %v", err)
	}
	for _, r := range []string{"one", "two"} {
		x.must(x.s.SetLive(x.ctx(), deploy.Live{Host: "local", Path: "/srv", Release: r, Commit: "c", Run: 1, Seen: time.Now()}))
	}
	l, err := x.s.Live(x.ctx(), "local", "/srv")
	x.must(err)
	if l.Release != "two" || l.Seen.IsZero() {
		x.Errorf("got %+v", l)
	}
}

func illegal(x *suite) {
	id := x.accept("k1", "a", "b")
	err := x.s.Apply(x.ctx(), move(id, "test", 0, deploy.Queued, deploy.Succeeded))
	if err == nil || !strings.Contains(err.Error(), "queued cannot become succeeded") {
		x.Errorf("got %v", err)
	}
}

func retry(x *suite) {
	one := x.accept("k1", "a", "b")
	two := x.accept("k2", "x", "y")
	again := newRun("b")
	again.RetryOf, again.KeepOrder = one, true
	id, err := x.s.Create(x.ctx(), again, nil)
	x.must(err)
	if r := x.run(id); r.Order != x.run(one).Order || r.Delivery != x.run(one).Delivery || r.RetryOf != one {
		x.Errorf("the retry is %+v", r)
	}
	again.KeepOrder = false
	id, err = x.s.Create(x.ctx(), again, []deploy.Move{move(two, "test", 0, deploy.Queued, deploy.Canceled)})
	x.must(err)
	if r := x.run(id); r.Order <= x.run(two).Order {
		x.Errorf("with force the retry has place %d", r.Order)
	}
	if j := x.run(two).Jobs[0]; j.State != deploy.Canceled {
		x.Errorf("the job is %s", j.State)
	}
	again.RetryOf = 99
	if _, err := x.s.Create(x.ctx(), again, nil); !errors.Is(err, deploy.ErrNotFound) {
		x.Errorf("got %v", err)
	}
}

func wake(x *suite) {
	for len(x.s.Wake()) > 0 {
		<-x.s.Wake()
	}
	x.accept("k1", "a", "b")
	select {
	case <-x.s.Wake():
	case <-time.After(10 * time.Second):
		x.Error("nothing woke the engine")
	}
}
