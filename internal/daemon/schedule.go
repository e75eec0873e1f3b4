package daemon

import (
	"context"
	"errors"
	"time"

	"deployhook/internal/deploy"
)

// Times of the clock that starts pipelines on schedule.
const (
	lookAgain = 30 * time.Second // at the latest: timers stand still while a machine sleeps
	tickAgain = 5 * time.Second  // after an error, as of a full disk
)

// schedule starts what the schedules of the config in force say, until ctx
// ends. What could not be written is tried again, and counts as late.
func (d *daemon) schedule(ctx context.Context) {
	var clocks []deploy.Clock
	var known *deploy.Config
	for {
		cfg, now := d.config(), time.Now()
		wait := time.Duration(-1) // until a reload
		if known == nil || known.Digest != cfg.Digest || len(clocks) > 0 {
			var err error
			known = cfg
			if clocks, wait, err = d.tick(ctx, cfg, now); err != nil {
				known = nil // look again
				if ctx.Err() == nil {
					d.log.Error("starting what is scheduled", "err", err)
				}
			}
		}
		var timer <-chan time.Time
		if wait >= 0 {
			timer = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-d.reloaded:
		case <-timer:
		}
	}
}

// tick starts what is due now, and says how long nothing is; -1: nothing ever
// is under this config.
func (d *daemon) tick(ctx context.Context, cfg *deploy.Config, now time.Time) ([]deploy.Clock, time.Duration, error) {
	clocks, err := d.clocks(ctx, cfg, now)
	if err != nil {
		return nil, tickAgain, err
	}
	if len(clocks) == 0 {
		return nil, -1, nil
	}
	ticks, next := deploy.Due(cfg, clocks, now)
	for _, k := range ticks {
		if err := d.startTick(ctx, cfg, k); err != nil {
			return clocks, tickAgain, err
		}
	}
	wait := lookAgain
	if !next.IsZero() {
		wait = min(wait, max(0, time.Until(next)))
	}
	return clocks, wait, nil
}

// clocks gives the schedules of a config with the last of their times that was
// decided, and notes those that are new.
func (d *daemon) clocks(ctx context.Context, cfg *deploy.Config, now time.Time) ([]deploy.Clock, error) {
	clocks, wrong, err := d.store.Clocks(ctx, cfg.Clocks(), now)
	for _, c := range wrong {
		d.log.Warn("the last time of a schedule was far ahead of the clock: it begins anew", "pipeline", c.Pipeline, "schedule", c.Schedule)
	}
	return clocks, err
}

// startTick decides on one tick, and writes down what it starts.
func (d *daemon) startTick(ctx context.Context, cfg *deploy.Config, k deploy.Tick) error {
	decision := deploy.Plan(cfg, k.Event())
	runs, err := d.store.Tick(ctx, k, decision.Runs)
	log := d.log.With("pipeline", k.Pipeline, "schedule", k.Schedule, "due", k.Due.UTC().Format(time.RFC3339))
	switch {
	case errors.Is(err, deploy.ErrStale):
		return nil // decided before
	case errors.Is(err, deploy.ErrLocked):
		log.Warn("a time of a schedule started nothing", "err", err)
	case err != nil:
		return err
	case len(runs) == 0:
		log.Info("a time of a schedule started nothing", "why", decision.Message)
	default:
		log.Info("run starts on schedule", "run", runs[0], "late", k.Late.Round(time.Second), "missed", k.Missed)
	}
	return nil
}

// follow gives what a run that has succeeded starts, under the config in force.
func (d *daemon) follow(run *deploy.Run) []deploy.NewRun {
	decision := deploy.Follow(d.config(), run)
	for _, v := range decision.Why {
		d.log.Info("a pipeline has succeeded that another follows", "run", run.ID, "pipeline", v.Pipeline, "starts", v.Run, "why", v.Why)
	}
	return decision.Runs
}
