package receiver_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
	"deployhook/internal/receiver"
	"deployhook/internal/store/storetest"
)

func (x *fixture) run(id int64) *deploy.Run {
	x.t.Helper()
	run, err := x.store.Run(x.t.Context(), id)
	if err != nil {
		x.t.Fatal(err)
	}
	return run
}

// next is a push that goes on from the one that push makes.
func next(p map[string]any) {
	p["before"], p["after"] = strings.Repeat("a", 40), strings.Repeat("c", 40)
	p["head_commit"] = map[string]any{"id": strings.Repeat("c", 40), "message": "next"}
}

func TestReplayKeepsItsPlaceInTheLaneUnlessForced(t *testing.T) {
	x := start(t)
	first := x.github("push", "1", push(nil))
	newer := x.github("push", "2", push(next))
	if first.status != 202 || newer.status != 202 {
		t.Fatalf("got %+v, %+v", first, newer)
	}
	for _, force := range []bool{false, true} {
		got, err := x.rc.Replay(t.Context(), first.Delivery, force, "alice")
		if err != nil || got.Delivery != first.Delivery || len(got.Runs) != 1 || got.Runs[0] == first.Runs[0] {
			t.Fatalf("force %t: %+v, %v", force, got, err)
		}
		run := x.run(got.Runs[0])
		if run.RetryOf == 0 || run.Actor != "alice" || run.Force != force || run.Commit != strings.Repeat("a", 40) {
			t.Errorf("force %t: the run is %+v", force, run)
		}
		if newest := run.Order > x.run(newer.Runs[0]).Order; newest != force {
			t.Errorf("force %t: newer than the newer push: %t", force, newest)
		}
		if d, err := x.store.Event(t.Context(), run.ID); err != nil || d.ID != first.Delivery {
			t.Errorf("force %t: the run's delivery is %+v, %v", force, d, err)
		}
	}
}

func TestReplayOfWhatStartedNothingFollowsTodaysConfig(t *testing.T) {
	x := start(t)
	r := x.github("push", "1", push(func(p map[string]any) { p["ref"] = "refs/heads/docs" }))
	if r.status != 200 || len(r.Runs) != 0 {
		t.Fatalf("got %+v", r)
	}
	if _, err := x.rc.Replay(t.Context(), r.Delivery, false, "alice"); !errors.Is(err, deploy.ErrRefused) || !strings.Contains(err.Error(), "no pipeline wants branch docs") {
		t.Errorf("nothing wants it yet: %v", err)
	}
	x.use(strings.Replace(file, "branches: [main]", "branches: [main, docs]", 1))
	got, err := x.rc.Replay(t.Context(), r.Delivery, false, "alice")
	if err != nil || got.Delivery != r.Delivery || len(got.Runs) != 1 {
		t.Fatalf("got %+v, %v", got, err)
	}
	if run := x.run(got.Runs[0]); run.Actor != "alice" || run.RetryOf != 0 || run.Ref != "refs/heads/docs" || run.Delivery != r.Delivery {
		t.Errorf("the run is %+v", run)
	}
	if d, err := x.store.Delivery(t.Context(), r.Delivery); err != nil || !strings.Contains(d.Message, "run starts") || len(d.Why) != 1 || !d.Why[0].Run {
		t.Errorf("the delivery says %+v, %v", d, err)
	}
}

func TestRedeliveryOfWhatStartedNothingIsPlannedAnew(t *testing.T) {
	x := start(t)
	body := push(func(p map[string]any) { p["ref"] = "refs/heads/docs" })
	r := x.github("push", "1", body)
	if again := x.github("push", "1", body); again.status != 200 || again.Delivery != r.Delivery {
		t.Errorf("nothing wants it yet: %+v", again)
	}
	x.use(strings.Replace(file, "branches: [main]", "branches: [main, docs]", 1))
	if again := x.github("push", "1", body); again.status != 202 || again.Delivery != r.Delivery || len(again.Runs) != 1 {
		t.Errorf("now wanted: %+v", again)
	}
}

func TestReplayStartsAPipelineThatIsNewSince(t *testing.T) {
	x := start(t)
	r := x.github("push", "1", push(nil))
	x.use(file + `
  more:
    repository: github.com/Codertocat/Hello-World
    hook: github
    on: { push: { branches: [main] } }
    jobs: { test: { steps: [ { run: "true" } ] } }
`)
	got, err := x.rc.Replay(t.Context(), r.Delivery, false, "alice")
	if err != nil || len(got.Runs) != 2 {
		t.Fatalf("got %+v, %v", got, err)
	}
	for i, pipeline := range []string{"shop", "more"} {
		if run := x.run(got.Runs[i]); run.Pipeline != pipeline || run.Delivery != r.Delivery {
			t.Errorf("run %d is %+v", i, run)
		}
	}
}

func TestReplayOfAPayload(t *testing.T) {
	x := start(t)
	r := x.send("/hooks/webhook?token="+token, []byte(`{"type":"payment.approved"}`))
	got, err := x.rc.Replay(t.Context(), r.Delivery, false, "alice")
	if err != nil || len(got.Runs) != 1 || got.Runs[0] == r.Runs[0] {
		t.Fatalf("got %+v, %v", got, err)
	}
	if d, err := x.store.Event(t.Context(), got.Runs[0]); err != nil || string(d.Body) != `{"type":"payment.approved"}` {
		t.Errorf("the run's delivery is %+v, %v", d, err)
	}
	// One without an id that started nothing gets a number of its own.
	none := x.send("/hooks/webhook?token="+token, []byte(`{"type":"payment.opened"}`))
	x.use(strings.Replace(file, "payment.approved", "payment.opened", 1))
	got, err = x.rc.Replay(t.Context(), none.Delivery, false, "alice")
	if err != nil || len(got.Runs) != 1 || x.run(got.Runs[0]).Delivery != got.Delivery {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestReplayThatCannotBe(t *testing.T) {
	x := start(t)
	if _, err := x.rc.Replay(t.Context(), 999, false, "alice"); !errors.Is(err, deploy.ErrNotFound) {
		t.Errorf("an unknown delivery: %v", err)
	}
	ping := x.github("ping", "1", []byte(`{"zen":"x"}`))
	if _, err := x.rc.Replay(t.Context(), ping.Delivery, false, "alice"); !errors.Is(err, deploy.ErrRefused) {
		t.Errorf("a ping: %v", err)
	}
	r := x.github("push", "2", push(nil))
	x.use("hooks: { other: { provider: github, secret: { environment: TEST_SECRET } } }\n")
	if _, err := x.rc.Replay(t.Context(), r.Delivery, false, "alice"); !errors.Is(err, deploy.ErrRefused) || !strings.Contains(err.Error(), "no hook github any more") {
		t.Errorf("its hook is gone: %v", err)
	}
}

func TestDeliveryIsKnownLongerThanItsBody(t *testing.T) {
	x := start(t)
	body := push(nil)
	r := x.github("push", "1", body)
	storetest.DropBodies(t, x.dir)
	for _, id := range []string{"1", "2"} {
		if again := x.github("push", id, body); again.status != 200 || again.Delivery != r.Delivery || again.Runs[0] != r.Runs[0] {
			t.Errorf("id %s: %+v, want the receipt of %+v", id, again, r)
		}
	}
	if again := x.github("push", "1", push(next)); again.status != 409 {
		t.Errorf("the same id with another body: %+v", again)
	}
	if _, err := x.rc.Replay(t.Context(), r.Delivery, false, "alice"); !errors.Is(err, deploy.ErrRefused) || !strings.Contains(err.Error(), "is not kept any more") {
		t.Errorf("a replay without a body: %v", err)
	}
}

func TestReplayThatMustNotBeStartsNothing(t *testing.T) {
	x := start(t)
	r := x.github("push", "1", push(nil))
	var asked []string
	rc := receiver.New(receiver.Options{
		Config: x.cfg.Load, Secret: config.Resolve, Store: x.store, Log: slog.New(slog.DiscardHandler), BodyMemory: 1 << 20,
		Allowed: func(_ context.Context, r *deploy.NewRun) error {
			asked = append(asked, fmt.Sprint(r.Pipeline, r.Force, r.Commit[:1]))
			return fmt.Errorf("%w: no", deploy.ErrRefused)
		},
	})
	if _, err := rc.Replay(t.Context(), r.Delivery, true, "alice"); !errors.Is(err, deploy.ErrRefused) {
		t.Errorf("got %v", err)
	}
	if list, err := x.store.Runs(t.Context(), deploy.RunFilter{}); err != nil || len(list) != 1 || !slices.Equal(asked, []string{"shoptruea"}) {
		t.Errorf("%d runs, %v; asked %v", len(list), err, asked)
	}
}
