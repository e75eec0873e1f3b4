package main

import (
	"context"
	"fmt"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/web"
)

// waitEvery is how often a run that is waited for is looked at.
const waitEvery = 200 * time.Millisecond

// started prints the run that a command made, waits for it when asked to, and
// fails as the run does.
func (a *app) started(ctx context.Context, cl *web.Client, run int64, wait, asJSON bool) error {
	if !asJSON {
		fmt.Fprintln(a.out, run)
	}
	if !wait && !asJSON {
		return nil
	}
	for {
		r, err := cl.Run(ctx, run)
		if err != nil {
			return err
		}
		state := deploy.State(r.State)
		if !wait || state.Terminal() {
			if asJSON {
				if err := a.json(r); err != nil {
					return err
				}
			}
			if wait && state != deploy.Succeeded {
				return failedRun(r)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(waitEvery):
		}
	}
}

// failedRun is the error of a run that did not succeed.
func failedRun(r web.Run) error {
	text := fmt.Sprintf("run %d %s", r.ID, r.State)
	switch {
	case r.Error != nil:
		text = fmt.Sprintf("run %d: %s", r.ID, *r.Error)
	case r.Cause != nil:
		text += ": " + *r.Cause
	}
	return hinted{fmt.Errorf("%s", text), fmt.Sprintf("deployhook logs %d", r.ID)}
}
