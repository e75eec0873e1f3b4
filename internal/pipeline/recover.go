package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
)

// reopenMax is the longest wait between two tries to reach an unfinished switch.
const reopenMax = time.Minute

// Bounds of what is tried again by itself.
const (
	restartsLostMost = 2 // restarts that end their agent: the next thing is to put the old release back
	reopenedMost     = 5 // switches of one job that could not go on: then a person must look
)

// errDaemonEnded is the cause for a job that the daemon before this one left.
var errDaemonEnded = errors.New("the daemon ended during the job")

// recoverAll starts what the daemon before this one left running. It waits for
// nothing: a path that cannot be reached must not keep the others.
func (e *Engine) recoverAll(ctx context.Context) error {
	active, err := e.Store.Active(ctx)
	if err != nil {
		return fmt.Errorf("reading what was running: %w", err)
	}
	for _, run := range active.Runs {
		for _, j := range run.Jobs {
			if j.State == deploy.Running {
				e.Log.Warn("job was cut short; settling it", "run", run.ID, "job", j.Name, "attempt", j.Attempt)
				e.start(ctx, e.newJob(run.ID, j.Name, j.Attempt), (*job).resume)
			}
		}
	}
	return nil
}

// resume settles a job that was running when the daemon before this one ended.
func (j *job) resume(ctx context.Context) outcome {
	if err := j.load(ctx); err != nil {
		return j.ends(ctx, err)
	}
	for _, rj := range j.run.Jobs {
		if rj.Name == j.key.job {
			j.begun = rj.Begun || !j.spec.Deploys()
			j.release = rj.Release
			if why, ok := strings.CutPrefix(rj.Cause, ending); ok {
				j.stop(why)
			}
			for _, h := range rj.HostRuns {
				j.next = max(j.next, len(h.Steps))
				j.lose(ctx, h)
				for _, st := range h.Steps {
					if st.Name == restartName && (st.State == deploy.Running || st.State == deploy.Lost) {
						j.restartsLost++
					}
				}
			}
		}
	}
	switch {
	case j.spec.Deploys() && j.begun:
	case ctx.Err() != nil:
		return j.ends(ctx, errDaemonEnded)
	case j.spec.Deploys():
		return outcome{state: deploy.Queued} // nothing of it has run
	default:
		return j.interrupted(errDaemonEnded.Error())
	}
	if j.restartsLost > restartsLostMost {
		// A restart that ends deployhook itself, or the machine.
		return j.blocked(fmt.Sprintf("deployhook ended %d times during the restart", j.restartsLost))
	}
	return j.again(ctx, errDaemonEnded)
}

// lose ends the steps that were running when the daemon before this one ended:
// how they ended, nobody knows.
func (j *job) lose(ctx context.Context, h deploy.RunHost) {
	for _, st := range h.Steps {
		if st.State != deploy.Running {
			continue
		}
		st.State, st.Error, st.Ended = deploy.Lost, "the daemon ended during the step: nobody knows whether it finished", time.Now()
		at := deploy.StepAt{Run: j.run.ID, Job: j.key.job, Attempt: j.attempt, Host: h.Name, Index: st.Index}
		if err := j.engine.Store.SaveStep(ctx, at, st); err != nil {
			j.log.Error("recording a step", "step", st.Name, "err", err)
		}
	}
}

// reopen settles a switch whose agent ended, or could not go on. The daemon is
// there and saw it: a switch that turns out not to have begun has failed, and
// begins no second time by itself.
func (j *job) reopen(ctx context.Context, conn *host.Conn, cause error) outcome {
	j.log.Warn("the switch was cut short; opening its path again", "err", cause)
	j.close(conn)
	if j.reopened++; j.reopened > reopenedMost {
		return j.blocked(cause.Error())
	}
	if j.reopened > 1 && !j.pause(time.Duration(j.reopened)*time.Second) {
		return outcome{state: deploy.Running}
	}
	return j.again(ctx, cause)
}

// pause waits, and says whether the engine goes on.
func (j *job) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-j.engine.over:
		return false
	}
}

// again opens the path with a new agent, as often as it takes, and does what
// the journal says. Meanwhile the job takes no worker from the others.
func (j *job) again(ctx context.Context, cause error) outcome {
	delay, last := time.Second, ""
	for {
		j.beat(0)
		conn, found, err := j.openAgain(ctx)
		if err == nil {
			j.unreachable.Store(false)
			out, done := j.settle(ctx, conn, found)
			if !done {
				out = j.afterSweep(ctx, conn, cause)
			}
			j.close(conn)
			return out
		}
		level := slog.LevelWarn
		if err.Error() == last {
			level = slog.LevelDebug
		}
		last = err.Error()
		j.log.Log(ctx, level, "an unfinished switch cannot be reached", "host", j.host(), "path", j.spec.Release.Path, "err", err)
		j.unreachable.Store(true)
		j.engine.nudge()
		select {
		case <-time.After(delay):
		case by := <-j.abandon:
			return outcome{state: deploy.Lost, err: fmt.Sprintf("its switch at %s:%s could not be reached (%v) and was abandoned by %s: look at what is current there",
				j.host(), j.spec.Release.Path, err, by)}
		case <-j.engine.over:
			// The job stays as it is in the database, running: the next
			// start comes here again.
			return outcome{state: deploy.Running}
		}
		delay = min(2*delay, reopenMax)
	}
}

// giveUp ends the tries of a job to reach its unfinished switch, and says
// whether it was at that.
func (j *job) giveUp(by string) bool {
	if !j.unreachable.Load() {
		return false
	}
	select {
	case j.abandon <- by:
	default: // somebody has said so already
	}
	return true
}

func (j *job) openAgain(ctx context.Context) (*host.Conn, *deploy.Found, error) {
	ctx, cancel := settling(ctx)
	defer cancel()
	conn, err := j.engine.openOn(ctx, j.host(), j.spec.Agent())
	if err != nil {
		return nil, nil, err
	}
	found, err := j.openPath(ctx, conn)
	if err != nil {
		j.close(conn)
		return nil, nil, err
	}
	return conn, found, nil
}

// afterSweep ends an attempt that did not reach its switch.
func (j *job) afterSweep(ctx context.Context, conn *host.Conn, cause error) outcome {
	if j.spec.Release.InPlace {
		return j.cutInPlace(ctx, conn, cause)
	}
	safe, cancel := settling(ctx)
	defer cancel()
	if err := conn.Sweep(safe); err != nil {
		j.log.Warn("removing what the attempt left", "err", err)
	}
	var c canceled
	if errors.As(context.Cause(ctx), &c) {
		return outcome{state: deploy.Canceled, cause: string(c)}
	}
	if !errors.Is(cause, host.ErrGone) && !errors.Is(cause, errDaemonEnded) {
		// It would end so the next time too.
		return failed(cause)
	}
	if j.run.Target != "" && errors.Is(cause, host.ErrGone) {
		// A rollback is not begun a second time by itself: what it was to
		// undo may have been repaired by hand meanwhile.
		return failed(fmt.Errorf("%w before the switch", cause))
	}
	return j.interrupted(cause.Error())
}

// settle does what the journal of a path asks for before anything else may
// happen there. done is false when the way is free and the job may go on.
func (j *job) settle(ctx context.Context, conn *host.Conn, found *deploy.Found) (outcome, bool) {
	if j.spec.Release.InPlace {
		return j.settleInPlace(ctx, conn, found)
	}
	what, sentence := deploy.Recover(found, j.engine.Store.Daemon(), j.run.ID, j.key.job)
	if found.Intent != nil {
		j.log.Warn("found an unfinished switch", "path", j.spec.Release.Path, "phase", found.Intent.Phase, "found", what)
	}
	switch what {
	case deploy.RecoverSuccess:
		safe, cancel := settling(ctx)
		defer cancel()
		for _, l := range found.Lines {
			if l.State == deploy.ReleaseLive && l.Run == j.run.ID && l.Job == j.key.job {
				j.release = l.Release
			}
		}
		j.after(safe, conn, found)
		return outcome{state: deploy.Succeeded}, true
	case deploy.RecoverDrop:
		safe, cancel := settling(ctx)
		defer cancel()
		if err := conn.DropIntent(safe); err != nil {
			return j.ends(ctx, err), true
		}
		return outcome{}, false
	case deploy.RecoverProve, deploy.RecoverUndo:
		if j.spec.OnCrash == deploy.CrashStop {
			return j.blocked("the switch to " + found.Intent.To + " was cut short, and on_crash is stop"), true
		}
		j.release = releaseOf(found.Intent.To)
		j.releasePath = path.Join(j.spec.Release.Path, found.Intent.To)
		j.previous = releaseOf(found.Intent.From)
		j.workspace = j.releasePath
		j.mu.Lock()
		j.switched = &move{from: j.previous, to: j.release}
		j.mu.Unlock()
		if what == deploy.RecoverUndo {
			return j.undo(ctx, conn, j.undoing()), true
		}
		if j.restartsLost >= restartsLostMost {
			return j.undo(ctx, conn, errors.New("the restart ended what was running it, more than once")), true
		}
		return j.prove(ctx, conn, found), true
	case deploy.RecoverBlocked:
		return j.blocked(sentence), true
	}
	return outcome{}, false
}

// undoing is why a release is being put back, as far as this process knows.
func (j *job) undoing() error {
	if j.undone != nil {
		return j.undone
	}
	return errors.New("the daemon ended while the release was put back")
}

// blocked ends the job as lost and keeps its path until a person has looked.
func (j *job) blocked(why string) outcome {
	text := fmt.Sprintf("%s; look at %s, then: deployhook unlock %s:%s --abandon", why, j.spec.Release.Path, j.host(), j.spec.Release.Path)
	return outcome{state: deploy.Lost, err: text, blocked: text}
}
