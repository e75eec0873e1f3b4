package storetest

import (
	"fmt"
	"slices"
	"time"

	"deployhook/internal/deploy"
)

// clockBack: ids and places come from counters, whatever the clock says.
func clockBack(x *suite) {
	start := time.Date(2026, 4, 1, 10, 0, 0, 0, time.UTC)
	var runs []int64
	before := "c0"
	for i := range 4 {
		after := fmt.Sprint("c", i+1)
		d := x.push(after, before, after)
		d.Received = start.Add(-time.Duration(i) * 24 * time.Hour)
		rc, err := x.s.Accept(x.ctx(), d, []deploy.NewRun{newRun(after)})
		x.must(err)
		runs = append(runs, rc.Runs[0])
		before = after
	}
	for i, id := range runs[:3] {
		if r := x.run(id); r.State != deploy.Canceled || r.Cause != fmt.Sprintf("superseded by run %d; retry %d brings it back", runs[i+1], id) {
			x.Errorf("run %d is %s: %q", id, r.State, r.Cause)
		}
	}
	if r := x.run(runs[3]); r.State != deploy.Queued || r.Created.After(start.Add(-48*time.Hour)) {
		x.Errorf("the newest run is %s, created %v", r.State, r.Created)
	}
	list, err := x.s.Runs(x.ctx(), deploy.RunFilter{})
	x.must(err)
	var got, orders []int64
	for _, r := range list {
		got, orders = append(got, r.ID), append(orders, r.Order)
	}
	slices.Reverse(got)
	slices.Reverse(orders)
	if !slices.Equal(got, runs) || !slices.IsSorted(orders) {
		x.Errorf("the runs are listed as %v in the order %v, want %v", got, orders, runs)
	}
	deliveries, err := x.s.Deliveries(x.ctx(), deploy.DeliveryFilter{})
	x.must(err)
	if len(deliveries) != 4 || deliveries[0].Key != "c4" || deliveries[3].Key != "c1" {
		x.Errorf("the deliveries are %+v", deliveries)
	}
}

func heldLater(x *suite) {
	id := x.accept("k1", "a", "b")
	m := move(id, "test", 0, deploy.Queued, deploy.Waiting)
	m.Waiting = "run 9 job test holds group g"
	x.must(x.s.Apply(x.ctx(), m))
	x.must(x.s.AddHold(x.ctx(), deploy.Hold{Pipeline: "shop", Kind: deploy.HoldAll, By: "alice", Since: time.Now()}))
	active := func(want int) {
		x.Helper()
		a, err := x.s.Active(x.ctx())
		x.must(err)
		if len(a.Runs) != want {
			x.Errorf("%d runs are active, want %d", len(a.Runs), want)
		}
	}
	active(1)
	m = move(id, "test", 0, deploy.Waiting, deploy.Waiting)
	m.Waiting = "hold by alice"
	x.must(x.s.Apply(x.ctx(), m))
	active(0)
	if r := x.run(id); r.WaitingFor != "hold by alice" {
		x.Errorf("the run waits for %q", r.WaitingFor)
	}
}

func rollbackHolds(x *suite) {
	add := func(run int64, commit, target string) {
		x.Helper()
		x.must(x.s.AddHold(x.ctx(), deploy.Hold{
			Pipeline: "shop", Kind: deploy.HoldRollback, By: "alice", Commit: commit, Target: target, Run: run, Order: run, Since: time.Now(),
		}))
	}
	want := func(want string) {
		x.Helper()
		list, err := x.s.Holds(x.ctx())
		x.must(err)
		got := ""
		for _, h := range list {
			got += fmt.Sprintf("%d:%s>%s ", h.Run, h.Commit, h.Target)
		}
		if got != want {
			x.Errorf("the holds are %q, want %q", got, want)
		}
	}
	add(4, "c", "b")
	add(5, "b", "a")
	want("4:c>b 5:b>a ")
	add(7, "b", "a") // of two from the same commit the later counts
	want("4:c>b 7:b>a ")
	add(8, "a", "c") // what was gone to is held no more
	want("7:b>a 8:a>c ")
	x.must(x.s.RemoveHold(x.ctx(), "shop", deploy.HoldRollback))
	want("")
}

// knownOlder: of 20 pushes at once the newest may come first, and two that
// follow each other must not end it.
func knownOlder(x *suite) {
	first := x.accept("k1", "c0", "c1")
	newest := x.accept("k9", "c8", "c9")
	third := x.accept("k3", "c2", "c3")
	fourth := x.accept("k4", "c3", "c4") // goes on from what came last
	for _, id := range []int64{first, newest, fourth} {
		if r := x.run(id); r.State != deploy.Queued {
			x.Errorf("run %d is %s: %q", id, r.State, r.Cause)
		}
	}
	if r := x.run(third); r.State != deploy.Canceled {
		x.Errorf("run %d, which run %d goes on from, is %s", third, fourth, r.State)
	}
	var last int64
	for _, k := range []int{6, 2, 5, 8, 7} {
		id := x.accept(fmt.Sprint("k", k), fmt.Sprint("c", k-1), fmt.Sprint("c", k))
		if k == 8 {
			last = id
		}
	}
	if r := x.run(newest); r.State != deploy.Queued || r.Order < x.run(last).Order {
		x.Errorf("the newest is %s, at %d; the one before it at %d", r.State, r.Order, x.run(last).Order)
	}
	next := x.accept("k10", "c9", "c10")
	all, err := x.s.Unfinished(x.ctx())
	x.must(err)
	if len(all.Runs) != 1 || all.Runs[0].ID != next {
		for _, r := range all.Runs {
			x.Errorf("run %d of %s waits still", r.ID, r.Commit)
		}
	}
}
