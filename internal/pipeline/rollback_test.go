package pipeline

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"deployhook/internal/deploy"
)

func TestNoSwitchBeginsWhileARollbackIsAccepted(t *testing.T) {
	synctest.Test(t, noSwitchWhileClosed)
}

func noSwitchWhileClosed(t *testing.T) {
	e := New(Options{})
	at := func(path string) *job {
		return &job{engine: e, spec: &deploy.Job{Hosts: []string{deploy.Local}, Release: &deploy.ReleaseSpec{Path: path}}}
	}
	j := at("/srv/shop")
	open, err := e.close(t.Context(), deploy.PathLock(deploy.Local, "/srv/shop"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	entered := make(chan error, 1)
	go func() { entered <- j.enterSwitch(ctx) }()
	synctest.Wait()
	if len(entered) > 0 || j.switching() != nil {
		t.Error("a switch was begun while a rollback was being accepted")
	}
	// What the rollback does with a deploy that has not reached its switch.
	cancel(canceled("rolled back by run 2"))
	var c canceled
	if err := <-entered; !errors.As(err, &c) || j.switching() != nil {
		t.Errorf("the switch was begun: %v, %v", err, j.switching())
	}
	other := at("/srv/other")
	if err := other.enterSwitch(t.Context()); err != nil || other.switching() == nil {
		t.Errorf("the switch of another path was not begun: %v", err)
	}
	open()
	if err := j.enterSwitch(t.Context()); err != nil || j.switching() == nil {
		t.Errorf("after the rollback was accepted no switch begins: %v", err)
	}
}
