package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/git"
)

// resolveTime bounds asking a repository for a commit or a diff.
const resolveTime = 10 * time.Minute

// unresolved says whether a run must ask its repository before a job of it
// may be claimed: for the commit that a branch means now, or for the paths
// that the payload did not list.
func unresolved(run *deploy.Run) bool {
	return run.Deferred || run.Repository != "" && run.Commit == "" && run.Target == ""
}

// once runs fn for a run in the background, unless it is at it already.
func (e *Engine) once(ctx context.Context, run int64, fn func(context.Context) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped || e.resolving[run] {
		return
	}
	e.resolving[run] = true
	e.workers.Go(func() {
		defer func() {
			e.mu.Lock()
			delete(e.resolving, run)
			e.mu.Unlock()
		}()
		select {
		case e.resolve <- struct{}{}:
		case <-ctx.Done():
			return
		}
		defer func() { <-e.resolve }()
		ctx, cancel := context.WithTimeout(ctx, resolveTime)
		defer cancel()
		if err := fn(ctx); err != nil && !errors.Is(err, deploy.ErrStale) {
			e.Log.Error("deciding what a run starts with", "run", run, "err", err)
			return // the sweep comes again; a nudge would turn in circles
		}
		e.nudge()
	})
}

func (e *Engine) startResolve(ctx context.Context, id int64) {
	e.once(ctx, id, func(ctx context.Context) error {
		run, err := e.Store.Run(ctx, id)
		if err != nil {
			return err
		}
		err = e.resolveRun(ctx, run)
		if err == nil || stopped(ctx) {
			return nil
		}
		if errors.Is(err, deploy.ErrStale) {
			return err
		}
		// A repository that cannot be asked fails the run: that is what the
		// user must see, not a run that waits for ever.
		return e.failRun(context.WithoutCancel(ctx), run, err)
	})
}

func (e *Engine) startAdvance(ctx context.Context, id int64) {
	e.once(ctx, id, func(ctx context.Context) error {
		run, err := e.Store.Run(ctx, id)
		if err != nil {
			return err
		}
		moves, err := e.advance(ctx, run)
		if err == nil {
			return e.Store.Apply(ctx, moves...)
		}
		if stopped(ctx) {
			return nil
		}
		return e.failRun(context.WithoutCancel(ctx), run, err)
	})
}

// stopped says whether it is a stop of the daemon that ended ctx: what was cut
// short goes on after the next start.
func stopped(ctx context.Context) bool {
	return errors.Is(context.Cause(ctx), errShutdown)
}

// resolveRun fills in the run's commit and decides what was deferred.
func (e *Engine) resolveRun(ctx context.Context, run *deploy.Run) error {
	p, err := e.pipelineOf(ctx, run)
	if err != nil {
		return err
	}
	mirror, err := e.mirror(ctx, p)
	if err != nil {
		return err
	}
	commit, message := run.Commit, run.Message
	if commit == "" {
		ref := run.Ref
		if ref == "" {
			ref = p.Branch
		}
		tip, err := mirror.Resolve(ctx, ref)
		if err != nil {
			return err
		}
		if commit, err = mirror.Fetch(ctx, tip, ref); err != nil {
			return err
		}
	} else if commit, err = mirror.Fetch(ctx, commit, run.Ref); err != nil { // may be a tag object
		return err
	}
	if message == "" {
		if c, err := mirror.Commit(ctx, commit); err == nil {
			message = deploy.Cut(c.Message, messageMax)
		}
	}
	run.Commit = commit
	why := ""
	if run.Deferred {
		ok, reason, err := e.decide(ctx, mirror, p, run, commit)
		if err != nil {
			return err
		}
		if !ok {
			why = reason
		}
	}
	// A run that is not wanted stays undecided until its jobs are skipped: a
	// crash between the two must not start it.
	if err := e.Store.SetCommit(ctx, run.ID, commit, message, run.Deferred && why != ""); err != nil {
		return err
	}
	if why == "" {
		return nil
	}
	var moves []deploy.Move
	for _, j := range run.Jobs {
		moves = append(moves, deploy.Move{Run: run.ID, Job: j.Name, Attempt: j.Attempt, From: j.State, To: deploy.Skipped, Cause: why, At: time.Now()})
	}
	return e.Store.Apply(ctx, moves...)
}

// decide makes up for the half of a plan that needed the whole diff.
func (e *Engine) decide(ctx context.Context, mirror *git.Mirror, p *deploy.Pipeline, run *deploy.Run, commit string) (bool, string, error) {
	paths, err := e.changed(ctx, mirror, run.Before, commit)
	if err != nil {
		return false, "", err
	}
	ev, _, err := e.eventOf(ctx, run)
	if err != nil {
		return false, "", err
	}
	ok, why := deploy.Deferred(p, ev, paths)
	return ok, why, nil
}

// changed lists the paths between what the ref was and what it is. Where the
// repository no longer has what it was, every path counts as changed: a deploy
// too many is repaired by the next push, one too few is not noticed.
func (e *Engine) changed(ctx context.Context, mirror *git.Mirror, before, commit string) ([]string, error) {
	if before != "" && before != deploy.ZeroCommit {
		if old, err := mirror.Fetch(ctx, before, ""); err == nil {
			return mirror.Changed(ctx, old, commit)
		}
	}
	return mirror.Changed(ctx, deploy.ZeroCommit, commit)
}

// failRun fails a run before any of its jobs could be claimed: its first job
// carries the error, those that need it are skipped by it.
func (e *Engine) failRun(ctx context.Context, run *deploy.Run, cause error) error {
	moves := []deploy.Move{}
	for _, j := range run.Jobs {
		if j.State != deploy.Queued && j.State != deploy.Waiting {
			continue
		}
		m := deploy.Move{Run: run.ID, Job: j.Name, Attempt: j.Attempt, From: j.State, To: deploy.Skipped, At: time.Now()}
		if len(moves) == 0 {
			m.To, m.Error = deploy.Failed, cause.Error()
		} else {
			m.Cause = "job " + moves[0].Job + " failed"
		}
		moves = append(moves, m)
	}
	e.Log.Warn("run failed before its first job", "run", run.ID, "pipeline", run.Pipeline, "err", cause)
	return e.Store.Apply(ctx, moves...)
}

// pipelineOf is the pipeline as it was written when the run was accepted.
func (e *Engine) pipelineOf(ctx context.Context, run *deploy.Run) (*deploy.Pipeline, error) {
	cfg, err := e.ConfigOf(ctx, run.Config)
	if err != nil {
		return nil, fmt.Errorf("reading the config of run %d: %w", run.ID, err)
	}
	p := cfg.Pipeline(run.Pipeline)
	if p == nil {
		return nil, fmt.Errorf("the config of run %d has no pipeline %s", run.ID, run.Pipeline)
	}
	return p, nil
}

// mirror is the pipeline's repository, with the keys that it is fetched with.
func (e *Engine) mirror(ctx context.Context, p *deploy.Pipeline) (*git.Mirror, error) {
	r := git.Remote{
		Repository: p.Repository, URL: p.CloneURL, Username: p.Auth.Username,
		KnownHosts: []byte(p.Auth.KnownHosts), Depth: p.Depth,
	}
	if p.Auth.SSHKey != nil {
		key, err := e.Secret(ctx, *p.Auth.SSHKey)
		if err != nil {
			return nil, err
		}
		r.SSHKey = []byte(key + "\n")
	}
	if p.Auth.Token != nil {
		token, err := e.Secret(ctx, *p.Auth.Token)
		if err != nil {
			return nil, err
		}
		r.Token = token
	}
	return e.Mirrors.Mirror(r), nil
}

// eventOf is what brought the run about; a run that no delivery started gets
// one made of its own facts.
func (e *Engine) eventOf(ctx context.Context, run *deploy.Run) (*deploy.Event, []byte, error) {
	ev, body, err := e.Event(ctx, run)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the event of run %d: %w", run.ID, err)
	}
	if ev == nil {
		ev = &deploy.Event{Repository: run.Repository, Before: run.Before, After: run.Commit, Message: run.Message}
		ev.SetRef(run.Ref)
	}
	ev.Kind, ev.Actor, ev.Inputs = run.Event, run.Actor, run.Inputs
	if run.Commit != "" {
		ev.Commit = run.Commit
	}
	return ev, body, nil
}

// advance gives the moves of the jobs whose needs have ended.
func (e *Engine) advance(ctx context.Context, run *deploy.Run) ([]deploy.Move, error) {
	p, err := e.pipelineOf(ctx, run)
	if err != nil {
		return nil, err
	}
	ev, _, err := e.eventOf(ctx, run)
	if err != nil {
		return nil, err
	}
	changed, failed := e.changedFunc(ctx, p, run)
	moves := deploy.Advance(run, p, func(name string) *deploy.Scope {
		s := e.scope(p, run, ev)
		s.Job, s.Changed = name, changed
		return s
	}, time.Now())
	return moves, *failed
}

// changedFunc is changed(glob) of an if: the diff is asked for at the first
// call. The error is looked at when the if has been evaluated.
func (e *Engine) changedFunc(ctx context.Context, p *deploy.Pipeline, run *deploy.Run) (func(string) bool, *error) {
	var paths []string
	var asked bool
	failed := new(error)
	return func(glob string) bool {
		if !asked && p.Repository != "" {
			asked = true
			var mirror *git.Mirror
			if mirror, *failed = e.mirror(ctx, p); *failed == nil {
				if _, *failed = mirror.Fetch(ctx, run.Commit, run.Ref); *failed == nil {
					paths, *failed = e.changed(ctx, mirror, run.Before, run.Commit)
				}
			}
		}
		for _, path := range paths {
			if deploy.MatchList([]string{glob}, path) {
				return true
			}
		}
		return false
	}, failed
}

// scope is what expressions of a run see; Job, Status and Changed are the caller's.
func (e *Engine) scope(p *deploy.Pipeline, run *deploy.Run, ev *deploy.Event) *deploy.Scope {
	s := &deploy.Scope{Event: ev, SHA: run.Commit, Inputs: deploy.TypedInputs(p, run.Inputs), Env: map[string]string{}, Needs: map[string]deploy.NeedResult{}}
	for _, v := range p.Env {
		if text, err := v.Value.Expand(s); err == nil {
			s.Env[v.Name] = text
		}
	}
	for _, j := range run.Jobs {
		s.Needs[j.Name] = deploy.NeedResult{Result: j.State}
	}
	return s
}
