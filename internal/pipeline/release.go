package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/git"
	"deployhook/internal/host"
)

// releaseNames bounds how many names of one second are tried for a release.
const releaseNames = 1000

// settleTime bounds what follows a switch that may not be cut short: each
// call to the agent, restarts aside, which have the job's own timeout.
const settleTime = 12 * time.Minute

// deploy makes a release of the commit and publishes it.
func (j *job) deploy(ctx context.Context, conn *host.Conn) outcome {
	spec := j.spec.Release
	mirror, err := j.fetch(ctx)
	if err != nil {
		return j.ends(ctx, err)
	}
	found, err := j.openPath(ctx, conn)
	if err != nil {
		return j.ends(ctx, err)
	}
	if out, done := j.settle(ctx, conn, found); done {
		return out
	}
	j.sweep(ctx, conn, found)
	if why, err := j.unwanted(ctx, mirror, found); err != nil || why != "" {
		return j.unless(ctx, why, err)
	}
	if why, err := j.begin(ctx, mirror); err != nil || why != "" {
		return j.unless(ctx, why, err)
	}
	if err := j.prepare(ctx, conn, mirror); err != nil {
		return j.ends(ctx, err)
	}
	j.previous = releaseOf(found.Current)
	dir := path.Join(spec.Path, "releases", j.release)
	j.releasePath, j.workspace = dir, dir
	out := j.steps(ctx, conn, dir)
	if out.state == deploy.Succeeded {
		if err := conn.Prepared(ctx); err != nil {
			out = j.ends(ctx, err)
		} else if why, err := j.unwanted(ctx, mirror, found); err != nil || why != "" {
			out = j.unless(ctx, why, err)
		}
	}
	if out.state != deploy.Succeeded {
		j.bad(ctx, conn)
		return out
	}
	return j.publish(ctx, conn, found)
}

// sweep removes the trees that were never whole and whose jobs are over: with
// the path's lock, nobody else can be making one.
func (j *job) sweep(ctx context.Context, conn *host.Conn, found *deploy.Found) {
	for _, r := range deploy.Releases(found) {
		if r.State == deploy.ReleasePreparing {
			if err := conn.Sweep(ctx); err != nil {
				j.log.Warn("removing what an earlier attempt left", "err", err)
			}
			return
		}
	}
}

// unless is the outcome of a job that must not go on: canceled for a reason,
// or the error that kept it from being decided.
func (j *job) unless(ctx context.Context, why string, err error) outcome {
	if err != nil {
		return j.ends(ctx, err)
	}
	return outcome{state: deploy.Canceled, cause: why}
}

// bad marks a release that will never be live, and removes those that are too
// many. Neither changes how the job ended.
func (j *job) bad(ctx context.Context, conn *host.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	if err := conn.Bad(ctx); err != nil && !errors.Is(err, host.ErrGone) {
		j.log.Warn("marking a release that never was live", "release", j.release, "err", err)
	}
	_ = j.prune(ctx, conn) // in the log
}

// prune removes old releases. What goes wrong is a warning, which it returns.
func (j *job) prune(ctx context.Context, conn *host.Conn) error {
	removed, err := conn.Prune(ctx, j.spec.Release.Keep, j.spec.Release.KeepFailed)
	if err != nil && !errors.Is(err, host.ErrGone) {
		err = fmt.Errorf("removing old releases: %w", err)
		j.log.Warn("something was left behind", "err", err)
	}
	if len(removed) > 0 {
		j.log.Debug("removed old releases", "releases", strings.Join(removed, " "))
	}
	return err
}

// warn shows on the run what went wrong and changes nothing: as a step of its
// own that failed.
func (j *job) warn(name string, err error) {
	now := time.Now()
	at := j.at(j.next)
	j.next++
	ctx := context.Background()
	log := newStepLog(ctx, j.engine.Store, at, j.secrets)
	log.say("deployhook: a warning: %v", err)
	lerr := log.close()
	serr := j.engine.Store.SaveStep(ctx, at, deploy.RunStep{
		Index: at.Index, Name: name, State: deploy.Failed, Error: "warning: " + err.Error(), Tries: 1, Started: now, Ended: now,
	})
	if err := errors.Join(lerr, serr); err != nil {
		j.log.Error("recording a warning", "err", err)
	}
}

func (j *job) openPath(ctx context.Context, conn *host.Conn) (*deploy.Found, error) {
	if j.spec.Release.InPlace {
		found, _, err := j.openInPlace(ctx, conn)
		return found, err
	}
	return conn.OpenRelease(ctx, host.OpenRelease{
		Path: j.spec.Release.Path, Daemon: j.engine.Store.Daemon(), Run: j.run.ID, Job: j.key.job, Attempt: j.attempt,
	})
}

// prepare makes the release's directory, with the commit's files and the
// shared links in it.
func (j *job) prepare(ctx context.Context, conn *host.Conn, mirror *git.Mirror) error {
	spec := j.spec.Release
	p := host.Prepare{Commit: j.run.Commit, Repository: j.run.Repository, SharedDirs: spec.SharedDirs, SharedFiles: spec.SharedFiles}
	var err error
	if p.Files, p.Bytes, err = j.export(mirror, j.run.Commit).Measure(ctx); err != nil {
		return err
	}
	now := time.Now()
	for n := 1; ; n++ {
		p.Release = deploy.ReleaseID(now, j.run.Commit, n)
		err := conn.Prepare(ctx, p)
		if err == nil {
			break
		}
		if !errors.Is(err, host.ErrExists) || n == releaseNames {
			return err
		}
	}
	j.release = p.Release
	err = j.fill(ctx, conn, mirror)
	if err == nil {
		err = conn.Shared(ctx)
	}
	if err != nil {
		j.bad(ctx, conn)
	}
	return err
}

// fill puts the commit's files into the release: from the one before what has
// not changed, the others from the mirror.
func (j *job) fill(ctx context.Context, conn *host.Conn, mirror *git.Mirror) error {
	x := j.export(mirror, j.run.Commit)
	lacking, err := conn.Reuse(ctx, func(fn func(deploy.TreeFile) error) error { return x.List(ctx, fn) })
	if err != nil {
		return err
	}
	i := -1
	want := func(deploy.TreeFile) bool { i++; return lacking(i) }
	return conn.Put(ctx, func(fn func(deploy.TreeFile, io.Reader) error) error {
		return x.WalkSome(ctx, want, fn)
	})
}

// publish points current to the job's release, restarts, and puts the old one
// back when that fails. found is what the path looked like before.
func (j *job) publish(ctx context.Context, conn *host.Conn, found *deploy.Found) outcome {
	if err := j.enterSwitch(ctx); err != nil {
		if j.run.Target == "" {
			j.bad(ctx, conn)
		}
		return j.ends(ctx, err)
	}
	safe, cancel := settling(ctx)
	defer cancel()
	err := conn.Activate(safe, host.Activate{To: j.release, Pops: j.run.Pops})
	if errors.Is(err, host.ErrNotBegun) {
		if j.run.Target == "" {
			j.bad(ctx, conn)
		}
		return failed(fmt.Errorf("switching to %s: %w", j.release, err))
	}
	if err != nil {
		return j.reopen(ctx, conn, fmt.Errorf("switching to %s: %w", j.release, err))
	}
	return j.prove(ctx, conn, found)
}

// settling is a context for what a cancel must not cut short.
func settling(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), settleTime)
}

// prove restarts the application on the release that current points to; then
// the release is live, or the one before is current again.
func (j *job) prove(ctx context.Context, conn *host.Conn, found *deploy.Found) outcome {
	err := j.restart(ctx, conn)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx) // a cancel that came too late to end the restart
	}
	if errors.Is(err, host.ErrGone) {
		j.restartsLost++
		return j.reopen(ctx, conn, err)
	}
	if err != nil {
		return j.undo(ctx, conn, err)
	}
	safe, cancel := settling(ctx)
	defer cancel()
	if err := conn.Live(safe); err != nil {
		return j.reopen(ctx, conn, fmt.Errorf("recording that %s is live: %w", j.release, err))
	}
	j.after(safe, conn, found)
	return outcome{state: deploy.Succeeded}
}

// after does what follows a release that is live; found is what the path
// looked like when it was opened. Its errors are warnings: the release is live
// whatever they are.
func (j *job) after(ctx context.Context, conn *host.Conn, found *deploy.Found) {
	if j.run.Target != "" {
		j.holdBack(ctx, found)
	}
	j.noteLive(ctx)
	if err := j.prune(ctx, conn); err != nil {
		j.warn("prune", err)
	}
}

// noteLive keeps in the database what the path has now.
func (j *job) noteLive(ctx context.Context) {
	err := j.engine.Store.SetLive(ctx, deploy.Live{
		Host: j.host(), Path: j.spec.Release.Path, Release: j.release, Repository: j.run.Repository,
		Commit: j.run.Commit, Run: j.run.ID, Seen: time.Now(),
	})
	if err != nil {
		j.log.Warn("noting what is live", "err", err)
	}
}

// restartName is the name of the step that restart is.
const restartName = "restart"

// restart runs the job's restart command; nil when there is none.
func (j *job) restart(ctx context.Context, conn *host.Conn) error {
	if j.spec.Restart == "" {
		return nil
	}
	step := &deploy.Step{Name: restartName, Run: j.spec.Restart, WorkingDir: "/"}
	dir := path.Join(j.spec.Release.Path, "current")
	if j.spec.Release.InPlace {
		dir = j.spec.Release.Path
	}
	return j.step(ctx, conn, step, dir)
}

// undo points current back, restarts what was there before, and says so.
func (j *job) undo(ctx context.Context, conn *host.Conn, cause error) outcome {
	j.undone = cause
	safe, cancel := settling(ctx)
	defer cancel()
	from, err := conn.Undo(safe)
	if err != nil {
		return j.reopen(ctx, conn, fmt.Errorf("restart: %w; pointing current back: %w", cause, err))
	}
	var text string
	if from = releaseOf(from); from == "" {
		text = "this was the first release, so current is removed again"
	} else {
		text = from + " is current again"
		j.release = from
		j.releasePath = path.Join(j.spec.Release.Path, "releases", from)
		if err := j.restartOld(ctx, conn); err != nil {
			text += fmt.Sprintf(", but its restart failed too: %v", err)
		}
	}
	safe, cancel = settling(ctx)
	defer cancel()
	if err := conn.Undone(safe); err != nil {
		return j.reopen(ctx, conn, fmt.Errorf("%w; %s; recording it: %w", cause, text, err))
	}
	_ = j.prune(safe, conn) // in the log
	out := j.ends(ctx, cause)
	switch out.state {
	case deploy.Canceled:
		out.cause += "; " + text
	case deploy.Queued: // a stop of the daemon: nothing is left of the switch, so it begins anew
	case deploy.Lost: // on_crash is stop, and it is known what became of the switch
		out = outcome{state: deploy.Failed, err: "deployhook was stopped during the restart; " + text}
	default:
		out.err = fmt.Sprintf("restart: %v; %s", cause, text)
	}
	return out
}

// restartOld restarts what is current again; once more only when what ran the
// restart was not ended by it.
func (j *job) restartOld(ctx context.Context, conn *host.Conn) error {
	if j.oldLost != nil {
		return j.oldLost
	}
	err := j.restart(context.WithoutCancel(ctx), conn)
	if errors.Is(err, host.ErrGone) {
		j.oldLost = err
	}
	return err
}

// releaseOf is the id in "releases/<id>".
func releaseOf(name string) string { return strings.TrimPrefix(name, "releases/") }

// lineOf is the last line of a release that names its commit; nil when none does.
func lineOf(f *deploy.Found, release string) *deploy.ReleaseLine {
	for i := len(f.Lines) - 1; i >= 0; i-- {
		if l := &f.Lines[i]; l.Release == release && l.Commit != "" {
			return l
		}
	}
	return nil
}

// short is a commit as people write it.
func short(commit string) string { return commit[:min(7, len(commit))] }
