package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"deployhook/internal/deploy"
)

// Outbox is what the parts ask of a database about notifications.
type Outbox interface {
	Tell(ctx context.Context, t deploy.Teller) error
	AddEvent(ctx context.Context, e *deploy.AppEvent, targets []string) (id int64, known bool, err error)
	NotificationsDue(ctx context.Context) ([]deploy.NotifyDue, error)
	ClaimNotifications(ctx context.Context, claims []deploy.NotifyClaim, at time.Time) ([]deploy.Notification, error)
	EndNotifications(ctx context.Context, ends []deploy.NotifyEnd) error
	Telling(ctx context.Context, event int64) (*deploy.Telling, error)
	Notifications(ctx context.Context, f deploy.NotificationFilter) ([]deploy.Notification, error)
	Notification(ctx context.Context, id int64) (*deploy.Notification, error)
	Resend(ctx context.Context, id int64, at time.Time) error
	Trim(ctx context.Context, now time.Time) (more bool, err error)
}

func (x *suite) add(key, kind, data string, targets ...string) int64 {
	x.Helper()
	id, known, err := x.s.AddEvent(x.ctx(), &deploy.AppEvent{Key: key, Type: kind, Data: []byte(data), Received: time.Now()}, targets)
	x.must(err)
	if known {
		x.Fatalf("event %s was known", key)
	}
	return id
}

func (x *suite) claim(target string, most int, at time.Time) []deploy.Notification {
	x.Helper()
	list, err := x.s.ClaimNotifications(x.ctx(), []deploy.NotifyClaim{{Target: target, Most: most}}, at)
	x.must(err)
	return list
}

func endOf(n *deploy.Notification, to deploy.State, next time.Time) deploy.NotifyEnd {
	return deploy.NotifyEnd{
		ID: n.ID, Attempts: n.Attempts, Tried: true, To: to, Next: next, Error: "why", Target: n.Target, Run: n.Run, At: time.Now(),
		Tries: append(slices.Clone(n.Tries), deploy.NotifyTry{At: time.Now().UTC(), Status: 503, Error: "why", Answer: "no"}),
	}
}

func sameEvent(x *suite) {
	e := &deploy.AppEvent{Key: "k", Type: "paid", Data: []byte(`{"order":1}`), Received: time.Now()}
	first, known, err := x.s.AddEvent(x.ctx(), e, []string{"targets//a"})
	x.must(err)
	again, knownAgain, err := x.s.AddEvent(x.ctx(), e, []string{"targets//a"})
	x.must(err)
	if known || !knownAgain || first != again {
		x.Errorf("the same key gave %d (%v) and %d (%v)", first, known, again, knownAgain)
	}
	for _, other := range []deploy.AppEvent{{Key: "k", Type: "paid", Data: []byte(`{"order":2}`)}, {Key: "k", Type: "refunded", Data: e.Data}} {
		if _, _, err := x.s.AddEvent(x.ctx(), &other, nil); !errors.Is(err, deploy.ErrConflict) {
			x.Errorf("the same key with %s %s: %v", other.Type, other.Data, err)
		}
	}
	list, err := x.s.Notifications(x.ctx(), deploy.NotificationFilter{Limit: 10})
	x.must(err)
	if len(list) != 1 || list[0].Key == "" || list[0].Type != "paid" || list[0].State != deploy.Queued {
		x.Errorf("there are %+v", list)
	}
	// No key: each is new.
	if one, two := x.add("", "paid", "1"), x.add("", "paid", "1"); one == two {
		x.Error("two events without a key are one")
	}
}

func claimedOnce(x *suite) {
	for i := range 5 {
		x.add("", "paid", fmt.Sprint(i), "targets//a", "targets//b")
	}
	due, err := x.s.NotificationsDue(x.ctx())
	x.must(err)
	if len(due) != 2 || due[0].Target != "targets//a" || due[1].Target != "targets//b" {
		x.Fatalf("due are %+v", due)
	}
	now := time.Now().Add(time.Second)
	got := x.claim("targets//a", 3, now)
	if len(got) != 3 || len(x.claim("targets//a", 9, now)) != 2 || len(x.claim("targets//a", 9, now)) != 0 {
		x.Fatalf("claimed were %+v", got)
	}
	told, err := x.s.Telling(x.ctx(), got[0].Event)
	x.must(err)
	if string(told.Body) != "0" || told.Type != "paid" {
		x.Errorf("told is %+v", told)
	}
	// A try later, and one that ends it; each only by who has it.
	later := now.Add(time.Hour)
	x.must(x.s.EndNotifications(x.ctx(), []deploy.NotifyEnd{endOf(&got[0], deploy.Waiting, later), endOf(&got[1], deploy.Succeeded, now)}))
	stale := endOf(&got[1], deploy.Failed, now)
	x.must(x.s.EndNotifications(x.ctx(), []deploy.NotifyEnd{stale}))
	if n, err := x.s.Notification(x.ctx(), got[1].ID); err != nil || n.State != deploy.Succeeded || n.Attempts != 1 || len(n.Tries) != 1 || n.Tries[0].Status != 503 || n.Ended.IsZero() {
		x.Errorf("it is %+v, %v", n, err)
	}
	if len(x.claim("targets//a", 9, now)) != 0 {
		x.Error("one that waits was claimed before its time")
	}
	again := x.claim("targets//a", 9, later)
	if len(again) != 1 || again[0].Key != got[0].Key || again[0].Attempts != 1 || len(again[0].Tries) != 1 {
		x.Errorf("claimed again is %+v", again)
	}
}

// telling tells two targets of every change.
type telling struct{}

func (telling) Listens(config, pipeline string) bool { return pipeline == "shop" }

func (telling) Tell(h *deploy.Happened) []deploy.Telling {
	list, err := deploy.Changes(h)
	if err != nil || len(list) == 0 {
		return nil
	}
	return []deploy.Telling{{Change: list[0], Type: "run." + string(list[0]), Config: h.Run.Config, Body: []byte(`{}`), Targets: []string{"shop/a", "shop/b"}}}
}

func toldInOrder(x *suite) {
	x.must(x.s.Tell(x.ctx(), telling{}))
	one := x.accept("one", "0", "1")
	two := x.accept("two", "9", "8")
	now := time.Now().Add(time.Second)
	x.must(x.s.Apply(x.ctx(), deploy.Move{Run: one, Job: "test", From: deploy.Queued, To: deploy.Running, At: time.Now()}))
	x.must(x.s.Apply(x.ctx(), deploy.Move{Run: one, Job: "test", Attempt: 1, From: deploy.Running, To: deploy.Failed, Error: "e", At: time.Now()},
		deploy.Move{Run: one, Job: "deploy", From: deploy.Queued, To: deploy.Skipped, At: time.Now()}))
	got := x.claim("shop/a", 10, now)
	if len(got) != 2 || got[0].Run != one || got[1].Run != two {
		x.Fatalf("claimed are %+v", got)
	}
	// The first waits an hour: those behind it wait with it, the other run and
	// the other target do not.
	x.must(x.s.EndNotifications(x.ctx(), []deploy.NotifyEnd{endOf(&got[0], deploy.Waiting, now.Add(time.Hour)), endOf(&got[1], deploy.Succeeded, now)}))
	if list := x.claim("shop/a", 10, now); len(list) != 0 {
		x.Errorf("claimed past the first are %+v", list)
	}
	if list := x.claim("shop/b", 10, now); len(list) != 2 {
		x.Errorf("of the other target are claimed %+v", list)
	}
	x.must(x.s.Resend(x.ctx(), got[0].ID, time.Now()))
	for _, want := range []string{"run.queued", "run.running", "run.failed"} {
		list := x.claim("shop/a", 10, now)
		if len(list) != 1 {
			x.Fatalf("claimed are %+v, want one", list)
		}
		told, err := x.s.Telling(x.ctx(), list[0].Event)
		x.must(err)
		if told.Type != want || told.Run != one {
			x.Errorf("told is %s of run %d, want %s", told.Type, told.Run, want)
		}
		x.must(x.s.EndNotifications(x.ctx(), []deploy.NotifyEnd{endOf(&list[0], deploy.Succeeded, now)}))
	}
}

func goneTarget(x *suite) {
	x.add("", "paid", "1", "targets//a")
	x.add("", "paid", "2", "targets//a")
	got := x.claim("targets//a", 1, time.Now().Add(time.Second))
	end := endOf(&got[0], deploy.Failed, time.Now())
	end.Gone = "digest"
	x.must(x.s.EndNotifications(x.ctx(), []deploy.NotifyEnd{end}))
	due, err := x.s.NotificationsDue(x.ctx())
	x.must(err)
	if len(due) != 1 || due[0].Gone != "digest" {
		x.Errorf("due is %+v", due)
	}
	x.must(x.s.Resend(x.ctx(), got[0].ID, time.Now()))
	if due, err = x.s.NotificationsDue(x.ctx()); err != nil || due[0].Gone != "" {
		x.Errorf("after resend due is %+v, %v", due, err)
	}
	if err := x.s.Resend(x.ctx(), 999, time.Now()); !errors.Is(err, deploy.ErrNotFound) {
		x.Errorf("resend of none: %v", err)
	}
}

func deadWait(x *suite) {
	key := x.add("known", "paid", "1", "targets//a")
	x.add("", "paid", "2", "targets//b")
	now := time.Now()
	got := x.claim("targets//b", 1, now.Add(time.Second))
	x.must(x.s.EndNotifications(x.ctx(), []deploy.NotifyEnd{endOf(&got[0], deploy.Succeeded, now)}))
	trim := func(days int) []deploy.Notification {
		for more := true; more; {
			var err error
			more, err = x.s.Trim(x.ctx(), now.Add(time.Duration(days)*24*time.Hour))
			x.must(err)
		}
		list, err := x.s.Notifications(x.ctx(), deploy.NotificationFilter{Limit: 10})
		x.must(err)
		return list
	}
	if list := trim(2); len(list) != 2 || list[1].State != deploy.Queued {
		x.Errorf("after two days there are %+v", list)
	}
	if list := trim(4); len(list) != 2 || list[1].State != deploy.Failed || list[1].Error != "not sent within three days" {
		x.Errorf("after four days there are %+v", list)
	}
	if list := trim(40); len(list) != 1 || list[0].State != deploy.Failed {
		x.Errorf("after 40 days there are %+v", list)
	}
	if list := trim(100); len(list) != 0 {
		x.Errorf("after 100 days there are %+v", list)
	}
	if id, known, err := x.s.AddEvent(x.ctx(), &deploy.AppEvent{Key: "known", Type: "paid", Data: []byte("1"), Received: now}, nil); err != nil || !known || id != key {
		x.Errorf("after 100 days the key gives %d, %v, %v", id, known, err)
	}
}
