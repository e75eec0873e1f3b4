package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/web"
)

// started prints the run that a command made, waits for it when asked to, and
// fails as the run does.
func (a *app) started(ctx context.Context, cl *web.Client, run int64, wait, asJSON bool) error {
	if !asJSON {
		fmt.Fprintln(a.out, run)
	}
	if !wait && !asJSON {
		return nil
	}
	var r web.Run
	var err error
	if wait {
		r, err = a.wait(ctx, cl, run)
	} else {
		r, err = cl.Run(ctx, run)
	}
	if err != nil {
		return err
	}
	if asJSON {
		if err := a.json(r); err != nil {
			return err
		}
	}
	if wait && deploy.State(r.State) != deploy.Succeeded {
		return failedRun(r)
	}
	return nil
}

// wait waits for the end of a run. Who looks on at a terminal sees how it
// comes on; an end of the waiting is none of the run.
func (a *app) wait(ctx context.Context, cl *web.Client, run int64) (web.Run, error) {
	seen := ""
	gone := absence{a: a, run: run}
	for {
		r, err := cl.Run(ctx, run)
		switch {
		case err == nil:
			gone.over()
			if now := standing(r); now != seen && terminal(a.err) {
				seen = now
				a.say(now)
			}
			if deploy.State(r.State).Terminal() {
				return r, nil
			}
			select {
			case <-ctx.Done():
			case <-time.After(waitEvery):
			}
		case ctx.Err() != nil:
			a.say(fmt.Sprintf("run %d goes on: deployhook logs %d --follow", run, run))
			return r, ctx.Err()
		case !web.Away(err) || !gone.wait(ctx) && ctx.Err() == nil:
			return r, err
		}
	}
}

// standing says in one line where a run stands.
func standing(r web.Run) string {
	for _, j := range r.Jobs {
		switch {
		case j.State == string(deploy.Running):
			return fmt.Sprintf("run %d: job %s is running", r.ID, plain(&j.Name))
		case j.State == string(deploy.Waiting) && j.WaitingFor != nil:
			return fmt.Sprintf("run %d: job %s waits: %s", r.ID, plain(&j.Name), plain(j.WaitingFor))
		}
	}
	return fmt.Sprintf("run %d %s", r.ID, r.State)
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
	return hinted{errors.New(text), fmt.Sprintf("deployhook run %d shows what failed, deployhook logs %d all of it", r.ID, r.ID)}
}
