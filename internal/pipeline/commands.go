package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"deployhook/internal/deploy"
)

// reasonMax bounds the reason of a hold, in bytes.
const reasonMax = 1000

// Trigger makes a run by hand.
//
// Errors: [deploy.ErrNotFound] for an unknown pipeline, [deploy.ErrMisuse] for
// a commit that is none and for inputs that are not as declared,
// [deploy.ErrRefused] for a commit that would go backwards.
func (e *Engine) Trigger(ctx context.Context, c deploy.TriggerCommand) (int64, error) {
	cfg := e.Config()
	p := cfg.Pipeline(c.Pipeline)
	if p == nil {
		return 0, noPipeline(cfg, c.Pipeline)
	}
	if (c.SHA != "" || c.Branch != "") && p.Repository == "" {
		return 0, fmt.Errorf("%w: %s has no repository, so it takes neither --sha nor --branch", deploy.ErrMisuse, p.Name)
	}
	if c.SHA != "" && !deploy.ValidCommit(c.SHA) {
		return 0, fmt.Errorf("%w: --sha takes a whole commit of 40 hexadecimal digits", deploy.ErrMisuse)
	}
	inputs, err := deploy.CheckInputs(p, c.Inputs)
	if err != nil {
		return 0, err
	}
	ev := &deploy.Event{Kind: deploy.Manual, Pipeline: p.Name, Repository: p.Repository, Commit: c.SHA, Actor: c.Actor, Inputs: inputs}
	if branch := first(c.Branch, p.Branch); branch != "" && c.SHA == "" {
		ev.SetRef("refs/heads/" + strings.TrimPrefix(branch, "refs/heads/"))
	}
	decision := deploy.Plan(cfg, ev)
	if len(decision.Runs) != 1 {
		return 0, fmt.Errorf("%w: %s", deploy.ErrRefused, decision.Message)
	}
	run := decision.Runs[0]
	run.Force = c.Force
	if err := e.notBackwards(ctx, p, &run); err != nil {
		return 0, err
	}
	return e.create(ctx, run)
}

func (e *Engine) create(ctx context.Context, run deploy.NewRun) (int64, error) {
	id, err := e.Store.Create(ctx, run, nil)
	if err == nil {
		e.nudge()
	}
	return id, err
}

// notBackwards refuses at once what the claim would cancel: a commit that is
// contained in what was last seen to be live. What cannot be told now is told
// at the claim.
func (e *Engine) notBackwards(ctx context.Context, p *deploy.Pipeline, run *deploy.NewRun) error {
	if run.Force || run.Commit == "" {
		return nil
	}
	for _, j := range run.Jobs {
		for _, h := range j.Hosts {
			if j.Path == "" {
				continue
			}
			live, err := e.Store.Live(ctx, h, j.Path)
			if errors.Is(err, deploy.ErrNotFound) || err == nil && (live == nil || live.Repository != run.Repository || live.Commit == run.Commit) {
				continue
			}
			if err != nil {
				return err
			}
			mirror, err := e.mirror(ctx, p)
			if err != nil {
				return err
			}
			if back, err := mirror.IsAncestor(ctx, run.Commit, live.Commit); err == nil && back {
				return fmt.Errorf("%w: already live in %s: its commit %s contains %s; --force deploys the older commit",
					deploy.ErrRefused, live.Release, short(live.Commit), short(run.Commit))
			}
		}
	}
	return nil
}

// Retry makes a new run like one that has ended, with today's config.
func (e *Engine) Retry(ctx context.Context, c deploy.RetryCommand) (int64, error) {
	old, err := e.Store.Run(ctx, c.Run)
	if err != nil {
		return 0, fmt.Errorf("run %d: %w", c.Run, err)
	}
	switch {
	case !old.State.Terminal():
		return 0, fmt.Errorf("%w: run %d has not ended: it is %s", deploy.ErrRefused, old.ID, old.State)
	case old.Target != "":
		return 0, fmt.Errorf("%w: run %d is a rollback: deployhook rollback %s --to %s", deploy.ErrRefused, old.ID, old.Pipeline, old.Target)
	}
	cfg := e.Config()
	p := cfg.Pipeline(old.Pipeline)
	if p == nil {
		return 0, noPipeline(cfg, old.Pipeline)
	}
	if p.Repository != old.Repository {
		return 0, fmt.Errorf("%w: run %d was of repository %q, and %s is of %q now", deploy.ErrRefused, old.ID, old.Repository, p.Name, p.Repository)
	}
	ev, _, err := e.eventOf(ctx, old)
	if err != nil {
		return 0, err
	}
	run := deploy.NewRunOf(cfg, p, ev)
	// The facts of the first run stay, whatever the event says of them now.
	run.Event, run.Hook, run.Ref, run.Before, run.Commit = old.Event, old.Hook, old.Ref, old.Before, old.Commit
	run.Message, run.Inputs, run.Forced, run.Why = old.Message, old.Inputs, old.Forced, old.Why
	run.Deferred = false // asked for by name: filters do not count
	run.Actor, run.RetryOf, run.Force, run.KeepOrder = c.Actor, old.ID, c.Force, !c.Force
	if err := e.Allowed(ctx, &run); err != nil {
		return 0, err
	}
	return e.create(ctx, run)
}

// Allowed says whether a run that somebody asks for once more may start:
// [deploy.ErrRefused] for a commit that would go backwards, or is held since a
// rollback, unless the run is forced.
func (e *Engine) Allowed(ctx context.Context, run *deploy.NewRun) error {
	cfg := e.Config()
	p := cfg.Pipeline(run.Pipeline)
	if p == nil {
		return noPipeline(cfg, run.Pipeline)
	}
	if err := e.notBackwards(ctx, p, run); err != nil || run.Force {
		return err
	}
	return e.notHeld(ctx, p, run)
}

// notHeld refuses the very commit that was rolled back from.
func (e *Engine) notHeld(ctx context.Context, p *deploy.Pipeline, run *deploy.NewRun) error {
	holds, err := e.Store.Holds(ctx)
	if err != nil {
		return err
	}
	for _, h := range holds {
		if h.Pipeline == p.Name && h.Kind == deploy.HoldRollback && h.Commit == run.Commit {
			return fmt.Errorf("%w: held since rollback %d; deployhook unhold %s, or --force", deploy.ErrRefused, h.Run, p.Name)
		}
	}
	return nil
}

// Cancel ends a run: what waits at once, what runs by ending its steps. A
// switch that has begun is undone. What is there to clean up, by an if with
// always() or canceled(), runs after that; a second cancel ends it too.
func (e *Engine) Cancel(ctx context.Context, id int64, actor string) error {
	run, err := e.Store.Run(ctx, id)
	if err != nil {
		return fmt.Errorf("run %d: %w", id, err)
	}
	if run.State.Terminal() {
		return fmt.Errorf("%w: run %d has ended: it is %s", deploy.ErrRefused, id, run.State)
	}
	p, err := e.pipelineOf(ctx, run)
	keep := err == nil && !e.canceled(run) // what cleans up
	why := byCause + actor
	told := map[*job]bool{}
	// Meanwhile a job may be claimed, and an attempt end that another follows:
	// it is looked at again until nothing is left.
	for {
		moves := deploy.CancelMoves(run, why, time.Now())
		if keep {
			moves = deploy.WithoutCleanUp(run, p, moves)
		}
		// On disk first: a daemon that is killed before the job has ended must not
		// begin it again.
		moves = append(moves, endings(run, why)...)
		untold, late := e.untold(run, told)
		if len(moves)+len(untold) == 0 && late == nil {
			e.nudge()
			return nil
		}
		if err := e.applyEach(ctx, moves); err != nil {
			return err
		}
		for _, j := range untold {
			told[j] = j.stop(why)
		}
		if late != nil {
			select {
			case <-late.done:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if run, err = e.Store.Run(ctx, id); err != nil {
			return err
		}
	}
}

// untold gives the jobs of a run that run here and that told does not have, and
// one of those that were told too late for the attempt they are at the end of.
func (e *Engine) untold(run *deploy.Run, told map[*job]bool) (list []*job, late *job) {
	for _, rj := range run.Jobs {
		j := e.job(run.ID, rj.Name)
		if j == nil {
			continue
		}
		switch inTime, ok := told[j]; {
		case !ok:
			list = append(list, j)
		case !inTime:
			late = j
		}
	}
	return list, late
}

// ending begins the cause of a running job that somebody has canceled.
const ending = "being canceled "

// endings write down that the running jobs of a run are to end, where it is not.
func endings(run *deploy.Run, why string) []deploy.Move {
	var moves []deploy.Move
	for _, j := range run.Jobs {
		if j.State == deploy.Running && j.Cause != ending+why {
			moves = append(moves, deploy.Move{
				Run: run.ID, Job: j.Name, Attempt: j.Attempt, From: deploy.Running, To: deploy.Running, Cause: ending + why, At: time.Now(),
			})
		}
	}
	return moves
}

// canceled says whether somebody has canceled the run before.
func (e *Engine) canceled(run *deploy.Run) bool {
	for _, rj := range run.Jobs {
		if j := e.job(run.ID, rj.Name); j != nil && j.canceled() {
			return true
		}
		if rj.State == deploy.Canceled && strings.HasPrefix(rj.Cause, byCause) {
			return true
		}
	}
	return false
}

// byCause begins the cause of what a person canceled.
const byCause = "by "

// Hold makes a pipeline's runs wait until [Engine.Unhold].
func (e *Engine) Hold(ctx context.Context, pipeline, actor, reason string) error {
	return e.hold(ctx, deploy.HoldAll, pipeline, actor, reason)
}

// Lock makes a pipeline's release jobs wait until [Engine.Unlock]; its test
// jobs run. A second lock is [deploy.ErrLocked] and names the holder.
func (e *Engine) Lock(ctx context.Context, pipeline, actor, reason string) error {
	return e.hold(ctx, deploy.HoldDeploys, pipeline, actor, reason)
}

func (e *Engine) hold(ctx context.Context, kind deploy.HoldKind, pipeline, actor, reason string) error {
	cfg := e.Config()
	if cfg.Pipeline(pipeline) == nil {
		return noPipeline(cfg, pipeline)
	}
	err := e.Store.AddHold(ctx, deploy.Hold{Pipeline: pipeline, Kind: kind, By: actor, Reason: deploy.Cut(reason, reasonMax), Since: time.Now()})
	e.nudge()
	return err
}

// Unhold ends a hold by hand, and one that a rollback left.
func (e *Engine) Unhold(ctx context.Context, pipeline, actor, _ string) error {
	defer e.nudge()
	byHand := e.Store.RemoveHold(ctx, pipeline, deploy.HoldAll)
	rollback := e.Store.RemoveHold(ctx, pipeline, deploy.HoldRollback)
	for _, err := range []error{byHand, rollback} {
		if err != nil && !errors.Is(err, deploy.ErrNotFound) {
			return err
		}
	}
	if byHand != nil && rollback != nil {
		return fmt.Errorf("%w: %s is not held", deploy.ErrRefused, pipeline)
	}
	e.Log.Info("hold ended", "pipeline", pipeline, "by", actor)
	return nil
}

// Unlock ends a lock.
func (e *Engine) Unlock(ctx context.Context, pipeline, actor, _ string) error {
	defer e.nudge()
	err := e.Store.RemoveHold(ctx, pipeline, deploy.HoldDeploys)
	if errors.Is(err, deploy.ErrNotFound) {
		return fmt.Errorf("%w: %s is not locked", deploy.ErrRefused, pipeline)
	}
	if err == nil {
		e.Log.Info("lock ended", "pipeline", pipeline, "by", actor)
	}
	return err
}

// unlocked refuses a command on a pipeline that somebody has locked.
func (e *Engine) unlocked(ctx context.Context, pipeline string) error {
	holds, err := e.Store.Holds(ctx)
	if err != nil {
		return err
	}
	for _, h := range holds {
		if h.Pipeline == pipeline && h.Kind == deploy.HoldDeploys {
			return fmt.Errorf("%w: %s is locked by %s since %s%s; --force goes past it", deploy.ErrRefused, pipeline, h.By,
				h.Since.UTC().Format(time.RFC3339), because(h.Reason))
		}
	}
	return nil
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// Abandon drops the unfinished switch of a path, leaves current where it
// points, and frees the path for the next deploy.
func (e *Engine) Abandon(ctx context.Context, where, path, actor string) error {
	lock := deploy.PathLock(where, path)
	active, err := e.Store.Unfinished(ctx)
	if err != nil {
		return err
	}
	holder, held := active.Locks[lock]
	if held && holder.Blocked == "" {
		if j := e.job(holder.Run, holder.Job); j != nil && j.giveUp(where, actor) {
			e.Log.Warn("unfinished switch that cannot be reached is given up", "run", holder.Run, "job", holder.Job, "by", actor)
			return nil
		}
		return fmt.Errorf("%w: run %d job %s is using %s:%s now; cancel %d ends it", deploy.ErrRefused, holder.Run, holder.Job, where, path, holder.Run)
	}
	var run *deploy.Run
	if held {
		if run, err = e.Store.Run(ctx, holder.Run); err != nil {
			return err
		}
	}
	at := switchAt{where, path, e.inPlaceAt(ctx, run, holder.Job, path)}
	if err := e.dropIntent(ctx, at, run); err != nil && !held {
		return err
	} else if err != nil {
		// The path is free here all the same: its host may never come back. A
		// switch that is found there later stops the deploy that finds it.
		e.Log.Warn("the path of an abandoned switch cannot be reached", "host", where, "path", path, "err", err)
	}
	if held {
		// The end of the job that held it may have freed it by now.
		if err := e.Store.FreeLock(ctx, lock); err != nil && !errors.Is(err, deploy.ErrNotFound) {
			return err
		}
	}
	e.Log.Warn("unfinished switch abandoned", "host", where, "path", path, "by", actor)
	e.nudge()
	return nil
}

// switchAt says where an unfinished switch is.
type switchAt struct {
	host, path string
	inPlace    bool
}

// dropIntent removes what a switch left in the journal of a path. run is the one
// that holds the path, nil = none does.
func (e *Engine) dropIntent(ctx context.Context, at switchAt, run *deploy.Run) error {
	conn, err := e.openOn(ctx, at.host, deploy.DeployAgent, run)
	if err != nil {
		return onHost(at.host, fmt.Errorf("opening an agent: %w", err))
	}
	defer conn.Close()
	found, err := lookWith(ctx, conn, at.path, at.inPlace)
	if err != nil && run == nil {
		return onHost(at.host, err)
	}
	if err == nil && found.Intent == nil && found.Foreign == "" {
		if run != nil {
			return nil
		}
		return fmt.Errorf("%w: %s:%s has no unfinished switch", deploy.ErrRefused, at.host, at.path)
	}
	if at.inPlace {
		return conn.AbandonInPlace(ctx, at.path)
	}
	return conn.Abandon(ctx, at.path)
}

// inPlaceAt says whether the files of a path are changed in place: by the
// config of the run whose job holds it, else by today's.
func (e *Engine) inPlaceAt(ctx context.Context, run *deploy.Run, job, path string) bool {
	if run != nil {
		if p, err := e.pipelineOf(ctx, run); err == nil {
			if j := p.Job(job); j != nil && j.Deploys() {
				return j.Release.InPlace
			}
		}
	}
	for _, p := range e.Config().Pipelines {
		for _, j := range p.Jobs {
			if j.Deploys() && j.Release.Path == path {
				return j.Release.InPlace
			}
		}
	}
	return false
}

// noPipeline is the error for a name that the config does not have.
func noPipeline(cfg *deploy.Config, name string) error {
	var names []string
	for _, p := range cfg.Pipelines {
		names = append(names, p.Name)
	}
	if len(names) == 0 {
		return fmt.Errorf("%w: no pipeline %q: deploy.yaml has none", deploy.ErrNotFound, name)
	}
	return fmt.Errorf("%w: no pipeline %q: deploy.yaml has %s", deploy.ErrNotFound, name, joined(names))
}

func joined(names []string) string {
	const most = 10
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}
