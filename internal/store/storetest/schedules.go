package storetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"deployhook/internal/deploy"
)

// begin is a moment that schedules begin at, and nightly one of them.
var (
	begin   = time.Date(2026, 4, 1, 2, 0, 0, 0, time.UTC)
	nightly = deploy.Clock{Pipeline: "nightly", Schedule: "0 2 * * *"}
)

func tickAt(days int) deploy.Tick {
	return deploy.Tick{Pipeline: nightly.Pipeline, Schedule: nightly.Schedule, Due: begin.AddDate(0, 0, days)}
}

func scheduledRun(queue deploy.QueuePolicy) []deploy.NewRun {
	return []deploy.NewRun{{
		Pipeline: "nightly", Event: deploy.Scheduled, Why: "schedule", Queue: queue, Jobs: []deploy.NewJob{{Name: "go", Hosts: []string{"local"}, Ready: true}},
	}}
}

// ends settles a run of one job.
func (x *suite) ends(run int64, job string, as deploy.State) {
	x.Helper()
	x.must(x.s.Apply(x.ctx(), move(run, job, 0, deploy.Queued, deploy.Running)))
	x.must(x.s.Apply(x.ctx(), move(run, job, 1, deploy.Running, as)))
}

func tickOnce(x *suite) {
	if _, err := x.s.Tick(x.ctx(), tickAt(1), scheduledRun(deploy.QueueAll)); !errors.Is(err, deploy.ErrStale) {
		x.Fatalf("a schedule that is not known: %v", err)
	}
	_, _, err := x.s.Clocks(x.ctx(), []deploy.Clock{nightly}, begin)
	x.must(err)
	var made atomic.Int64
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			ids, err := x.s.Tick(x.ctx(), tickAt(1), scheduledRun(deploy.QueueAll))
			if err != nil && !errors.Is(err, deploy.ErrStale) || (err == nil) != (len(ids) == 1) {
				x.Errorf("the tick made %v, %v", ids, err)
			}
			made.Add(int64(len(ids)))
		})
	}
	all.Wait()
	if made.Load() != 1 {
		x.Errorf("the tick made %d runs", made.Load())
	}
	for _, days := range []int{0, 1} { // the clock was set back
		if ids, err := x.s.Tick(x.ctx(), tickAt(days), scheduledRun(deploy.QueueAll)); !errors.Is(err, deploy.ErrStale) || len(ids) > 0 {
			x.Errorf("day %d made %v, %v", days, ids, err)
		}
	}
	// One that starts nothing is decided too.
	if _, err := x.s.Tick(x.ctx(), tickAt(2), nil); err != nil {
		x.Error(err)
	}
	if _, err := x.s.Tick(x.ctx(), tickAt(2), scheduledRun(deploy.QueueAll)); !errors.Is(err, deploy.ErrStale) {
		x.Errorf("a tick that started nothing came again: %v", err)
	}
	got, _, err := x.s.Clocks(x.ctx(), []deploy.Clock{nightly}, begin.AddDate(0, 0, 5))
	x.must(err)
	if len(got) != 1 || !got[0].Last.Equal(tickAt(2).Due) {
		x.Errorf("the clocks are %+v", got)
	}
}

func tickWaits(x *suite) {
	_, _, err := x.s.Clocks(x.ctx(), []deploy.Clock{nightly}, begin)
	x.must(err)
	first, err := x.s.Tick(x.ctx(), tickAt(1), scheduledRun(deploy.QueueLatest))
	x.must(err)
	ids, err := x.s.Tick(x.ctx(), tickAt(2), scheduledRun(deploy.QueueLatest))
	if !errors.Is(err, deploy.ErrLocked) || len(ids) > 0 || !strings.Contains(err.Error(), fmt.Sprintf("run %d of an earlier time has not begun", first[0])) {
		x.Errorf("while one waits: %v, %v", ids, err)
	}
	x.must(x.s.Apply(x.ctx(), move(first[0], "go", 0, deploy.Queued, deploy.Running)))
	if ids, err := x.s.Tick(x.ctx(), tickAt(3), scheduledRun(deploy.QueueLatest)); err != nil || len(ids) != 1 {
		x.Errorf("once it has begun: %v, %v", ids, err)
	}
	made := 0
	for day := 4; day < 120; day++ {
		if ids, err = x.s.Tick(x.ctx(), tickAt(day), scheduledRun(deploy.QueueAll)); err != nil {
			break
		}
		made += len(ids)
	}
	if !errors.Is(err, deploy.ErrLocked) || made != 99 {
		x.Errorf("with queue: all %d wait beside it, %v", made, err)
	}
}

func clocks(x *suite) {
	other := deploy.Clock{Pipeline: "nightly", Schedule: "0 3 * * *"}
	_, _, err := x.s.Clocks(x.ctx(), []deploy.Clock{nightly, other}, begin)
	x.must(err)
	later := begin.AddDate(0, 1, 0)
	got, _, err := x.s.Clocks(x.ctx(), []deploy.Clock{other}, later)
	x.must(err)
	if len(got) != 1 || got[0].Schedule != other.Schedule || !got[0].Last.Equal(begin) {
		x.Errorf("the clocks are %+v", got)
	}
	// One that was gone begins anew: of its past nothing is missed.
	got, wrong, err := x.s.Clocks(x.ctx(), []deploy.Clock{nightly, other}, later)
	x.must(err)
	if len(got) != 2 || !got[0].Last.Equal(later) || len(wrong) > 0 {
		x.Errorf("the clocks are %+v, wrong %+v", got, wrong)
	}
	// The clock was a month ahead, and is right again.
	got, wrong, err = x.s.Clocks(x.ctx(), []deploy.Clock{nightly, other}, begin)
	x.must(err)
	if len(wrong) != 1 || wrong[0].Schedule != nightly.Schedule || !got[0].Last.Equal(begin) {
		x.Errorf("the clocks are %+v, wrong %+v", got, wrong)
	}
}

func trimScheduled(x *suite) {
	_, _, err := x.s.Clocks(x.ctx(), []deploy.Clock{nightly}, begin)
	x.must(err)
	var ids []int64
	for day := 1; day <= 225; day++ {
		made, err := x.s.Tick(x.ctx(), tickAt(day), scheduledRun(deploy.QueueLatest))
		x.must(err)
		ids = append(ids, made[0])
		if day == 3 { // runs on
			x.must(x.s.Apply(x.ctx(), move(made[0], "go", 0, deploy.Queued, deploy.Running)))
			continue
		}
		x.ends(made[0], "go", deploy.Succeeded)
	}
	x.must(x.s.SetLive(x.ctx(), deploy.Live{Host: "local", Path: "/srv", Release: "r", Run: ids[4], Seen: begin}))
	pushed := x.accept("k", "a", "b")
	for more := true; more; {
		more, err = x.s.Trim(x.ctx(), begin)
		x.must(err)
	}
	for i, id := range ids {
		_, err := x.s.Run(x.ctx(), id)
		gone := errors.Is(err, deploy.ErrNotFound)
		if want := i < 25 && i != 2 && i != 4; gone != want || err != nil && !gone {
			x.Errorf("scheduled run %d of %d is gone: %v, want %v (%v)", i+1, len(ids), gone, want, err)
		}
	}
	x.run(pushed)
}

func follow(x *suite) {
	var asked atomic.Int64
	x.s.Follow(func(r *deploy.Run) []deploy.NewRun {
		if r.Pipeline != "shop" {
			return nil
		}
		asked.Add(1)
		n := newRun(r.Commit)
		n.Pipeline, n.Event, n.Why = "next", deploy.Chained, fmt.Sprintf("run %d of shop succeeded", r.ID)
		return []deploy.NewRun{n}
	})
	following := func() []deploy.Run {
		list, err := x.s.Runs(x.ctx(), deploy.RunFilter{Pipeline: "next"})
		x.must(err)
		return list
	}
	first := x.accept("k1", "a", "b")
	x.ends(first, "test", deploy.Succeeded)
	if list := following(); len(list) > 0 {
		x.Fatalf("before the end: %+v", list)
	}
	// All or nothing: a move beside it that is stale leaves no run behind.
	x.must(x.s.Apply(x.ctx(), move(first, "deploy", 0, deploy.Queued, deploy.Running)))
	end := move(first, "deploy", 1, deploy.Running, deploy.Succeeded)
	if err := x.s.Apply(x.ctx(), end, move(first, "test", 7, deploy.Running, deploy.Failed)); !errors.Is(err, deploy.ErrStale) {
		x.Fatalf("a stale move: %v", err)
	}
	if list := following(); len(list) > 0 {
		x.Fatalf("after a move that was not made: %+v", list)
	}
	x.must(x.s.Apply(x.ctx(), end))
	if err := x.s.Apply(x.ctx(), end); !errors.Is(err, deploy.ErrStale) {
		x.Errorf("the end came twice: %v", err)
	}
	list := following()
	if len(list) != 1 || list[0].Commit != "b" || list[0].Order != x.run(first).Order || list[0].Delivery != 0 || list[0].Why != fmt.Sprintf("run %d of shop succeeded", first) {
		x.Errorf("what follows is %+v", list)
	}
	second := x.accept("k2", "b", "c")
	x.ends(second, "test", deploy.Failed)
	x.must(x.s.Apply(x.ctx(), move(second, "deploy", 0, deploy.Queued, deploy.Skipped)))
	if r := x.run(second); r.State != deploy.Failed || len(following()) != 1 {
		x.Errorf("a run that is %s is followed by %+v", r.State, following())
	}
}
