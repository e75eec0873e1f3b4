package pipeline

import (
	"context"
	"errors"
	"testing"

	"deployhook/internal/deploy"
)

// A cancel and the end of an attempt that another is to follow: one of them is
// first, and the cancel counts all the same.
func TestCancelAtTheEndOfAnAttemptIsNotLost(t *testing.T) {
	for _, state := range []deploy.State{deploy.Queued, deploy.Waiting} {
		ctx, cancel := context.WithCancelCause(t.Context())
		j := &job{cancel: cancel}
		if !j.stop("by alice") {
			t.Errorf("%s: a cancel before the end is too late", state)
		}
		want := outcome{state: deploy.Canceled, cause: "by alice"}
		if out := j.conclude(ctx, outcome{state: state}); out.state != want.state || out.cause != want.cause {
			t.Errorf("%s: canceled before its end, the attempt ends %+v", state, out)
		}

		ctx, cancel = context.WithCancelCause(t.Context())
		j = &job{cancel: cancel}
		if out := j.conclude(ctx, outcome{state: state}); out.state != state {
			t.Errorf("%s became %+v", state, out)
		}
		if j.stop("by alice") {
			t.Errorf("%s: who cancels after the end is not told that another attempt follows", state)
		}
	}
	// A stop of the daemon is no cancel, and an end stays what it is.
	ctx, cancel := context.WithCancelCause(t.Context())
	j := &job{cancel: cancel}
	cancel(errShutdown)
	if out := j.conclude(ctx, outcome{state: deploy.Queued}); out.state != deploy.Queued {
		t.Errorf("a job that a stop cut short ends %+v", out)
	}
	ctx, cancel = context.WithCancelCause(t.Context())
	j = &job{cancel: cancel}
	j.stop("by alice")
	if out := j.conclude(ctx, outcome{state: deploy.Lost, err: "x"}); out.state != deploy.Lost || out.err != "x" || !errors.As(context.Cause(ctx), new(canceled)) {
		t.Errorf("a lost job ends %+v", out)
	}
}
