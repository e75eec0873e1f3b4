package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/git"
)

// holdBack holds the commit that a rollback went back from, so that nothing
// but a new push or a person deploys it again. It is done anew after a crash:
// what was found on the hosts tells what was live before.
func (j *job) holdBack(ctx context.Context) {
	line := j.wentBackFrom()
	if line == nil {
		return
	}
	err := j.engine.Store.AddHold(ctx, deploy.Hold{
		Pipeline: j.run.Pipeline, Kind: deploy.HoldRollback, By: j.run.Actor, Commit: line.Commit, Target: j.run.Commit,
		Run: j.run.ID, Order: j.run.Order, Since: time.Now(),
	})
	if err != nil && !errors.Is(err, deploy.ErrLocked) {
		j.log.Error("holding the commit that was rolled back from", "commit", line.Commit, "err", err)
	}
}

// wentBackFrom is the line of what was live before this run's rollback; nil =
// nothing else was.
func (j *job) wentBackFrom() *deploy.ReleaseLine {
	for _, p := range j.active() {
		if line := lineOf(p.found, j.cameFrom(p.found)); line != nil && line.Commit != j.run.Commit {
			return line
		}
	}
	return nil
}

// cameFrom is the release that was live before this run's rollback.
func (j *job) cameFrom(found *deploy.Found) string {
	if found.Intent != nil && found.Intent.Run == j.run.ID {
		return releaseOf(found.Intent.From)
	}
	mine := slices.IndexFunc(found.Lines, func(l deploy.ReleaseLine) bool {
		return l.State == deploy.ReleaseLive && l.Run == j.run.ID && l.Job == j.key.job && l.Daemon == j.engine.Store.Daemon()
	})
	if mine < 0 {
		return releaseOf(found.Current) // the path as it was before the switch
	}
	stack := deploy.LiveStack(found.Lines[:mine])
	if len(stack) == 0 {
		return ""
	}
	return stack[len(stack)-1]
}

// held says whether a rollback keeps this commit from being deployed, and ends
// the holds of rollbacks when a later push brings another commit.
func (j *job) held(ctx context.Context, mirror *git.Mirror) (string, error) {
	byHand := j.run.Event == deploy.Manual && j.run.RetryOf == 0
	if j.run.Force || byHand {
		return "", nil
	}
	holds, err := j.engine.Store.Holds(ctx)
	if err != nil {
		return "", err
	}
	over := false
	for _, h := range holds {
		if h.Pipeline != j.run.Pipeline || h.Kind != deploy.HoldRollback {
			continue
		}
		in, err := j.heldBy(ctx, mirror, &h)
		if err != nil {
			return "", err
		}
		if in {
			return fmt.Sprintf("held since rollback %d; unhold %s", h.Run, h.Pipeline), nil
		}
		over = over || bringsCommit(j.run.Event) && j.run.Order > h.Order
	}
	if over {
		if err := j.engine.Store.RemoveHold(ctx, j.run.Pipeline, deploy.HoldRollback); err != nil && !errors.Is(err, deploy.ErrNotFound) {
			return "", err
		}
		j.log.Info("hold ended by a new commit")
	}
	return "", nil
}

// bringsCommit says whether a forge's event brings a commit of its own.
func bringsCommit(k deploy.Kind) bool {
	return k == deploy.Push || k == deploy.Workflow || k == deploy.ReleaseEvent
}

// heldBy says whether the job's commit is the one that was rolled back from,
// or an ancestor of it that the target does not contain. Where git cannot
// tell, what was accepted before the rollback is held.
func (j *job) heldBy(ctx context.Context, mirror *git.Mirror, h *deploy.Hold) (bool, error) {
	switch j.run.Commit {
	case h.Commit:
		return true, nil
	case h.Target:
		return false, nil
	}
	behind, known, err := j.ancestor(ctx, mirror, j.run.Commit, h.Commit, "")
	if err != nil {
		return false, err
	}
	if !known {
		j.note(fmt.Sprintf("git cannot tell whether %s is older than what rollback %d went back from: the order of the deliveries decides", short(j.run.Commit), h.Run))
		return j.run.Order < h.Order, nil
	}
	if !behind {
		return false, nil
	}
	reached, known, err := j.ancestor(ctx, mirror, j.run.Commit, h.Target, "")
	return !reached || !known, err
}
