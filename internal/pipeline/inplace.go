package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/git"
	"deployhook/internal/host"
)

// deployInPlace makes the files of a directory those of the commit, runs the
// steps there, and restarts. A rollback is the same with an earlier commit.
// What fails after the files have changed leaves them so.
func (j *job) deployInPlace(ctx context.Context, conn *host.Conn) outcome {
	mirror, err := j.fetch(ctx)
	if err != nil {
		return j.ends(ctx, err)
	}
	found, clone, err := j.openInPlace(ctx, conn)
	if err != nil {
		return j.ends(ctx, err)
	}
	if out, done := j.settle(ctx, conn, found); done {
		return out
	}
	if why, err := j.mayDeployInPlace(ctx, mirror, found); err != nil || why != "" {
		return j.unless(ctx, why, err)
	}
	if j.run.Target != "" && current(found) == j.run.Target && !inDoubt(found) {
		// What it waited for ended so: what was asked for is so.
		j.log.Info("the commit to go back to is deployed already", "release", j.run.Target)
		return outcome{state: deploy.Succeeded}
	}
	if why, err := j.begin(ctx, mirror); err != nil || why != "" {
		return j.unless(ctx, why, err)
	}
	j.previous = current(found)
	if in := found.Intent; in != nil && in.Run == j.run.ID && in.Job == j.key.job {
		j.previous, j.release = releaseOf(in.From), releaseOf(in.To) // it goes on
	}
	began := time.Now()
	staged, err := j.stage(ctx, conn, mirror, found, clone)
	if err == nil {
		var why string
		if why, err = j.mayDeployInPlace(ctx, mirror, found); why != "" {
			j.discard(ctx, conn)
			return outcome{state: deploy.Canceled, cause: why}
		}
	}
	if err == nil {
		err = j.enterSwitch(ctx)
	}
	if err != nil {
		j.discard(ctx, conn)
		return j.ends(ctx, err)
	}
	if out, ok := j.switchInPlace(ctx, conn); !ok {
		return out
	}
	j.noteLive(context.WithoutCancel(ctx))
	j.sayFiles(staged, began)
	path := j.spec.Release.Path
	j.releasePath, j.workspace = path, path
	if out := j.steps(ctx, conn, path); out.state != deploy.Succeeded {
		return j.standing(ctx, conn, out)
	}
	safe, cancel := settling(ctx)
	defer cancel()
	if err := conn.ProvingInPlace(safe); err != nil {
		return j.reopen(ctx, conn, fmt.Errorf("recording that the steps are done: %w", err))
	}
	return j.proveInPlace(ctx, conn, found)
}

// current is the release that a path has.
func current(f *deploy.Found) string { return releaseOf(f.Current) }

// mayDeployInPlace gives the reason for which the commit must not be deployed
// now. A rollback goes where it was told to, if that still is in the list.
func (j *job) mayDeployInPlace(ctx context.Context, mirror *git.Mirror, found *deploy.Found) (string, error) {
	if j.run.Target == "" {
		return j.unwanted(ctx, mirror, found)
	}
	if !slices.Contains(wereLive(found), j.run.Target) {
		return "", fmt.Errorf("the deploy %s is not in the list any more: deployhook releases %s", j.run.Target, j.run.Pipeline)
	}
	return "", nil
}

// wereLive lists the deploys whose commit was live: a rollback may go there.
func wereLive(f *deploy.Found) []string {
	var ids []string
	for _, r := range deploy.Releases(f) {
		if slices.ContainsFunc(f.Lines, func(l deploy.ReleaseLine) bool { return l.Release == r.ID && l.State == deploy.ReleaseLive }) {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

func (j *job) openInPlace(ctx context.Context, conn *host.Conn) (*deploy.Found, string, error) {
	return conn.OpenInPlace(ctx, host.OpenRelease{
		Path: j.spec.Release.Path, Daemon: j.engine.Store.Daemon(), Run: j.run.ID, Job: j.key.job, Attempt: j.attempt,
	})
}

// stage compares the directory with the commit and sends what is new, without
// changing a file that stands there.
func (j *job) stage(ctx context.Context, conn *host.Conn, mirror *git.Mirror, found *deploy.Found, clone string) (host.InPlaceStaged, error) {
	none := host.InPlaceStaged{}
	spec := j.spec.Release
	if clone != "" {
		j.takeOver(ctx, conn, mirror, clone)
	}
	if j.run.Target != "" {
		j.release = j.run.Target
	}
	if j.release == "" {
		taken := func(id string) bool {
			return slices.ContainsFunc(found.Lines, func(l deploy.ReleaseLine) bool { return l.Release == id })
		}
		now := time.Now()
		j.release = deploy.ReleaseID(now, j.run.Commit, 1)
		for n := 2; taken(j.release) && n <= releaseNames; n++ {
			j.release = deploy.ReleaseID(now, j.run.Commit, n)
		}
	}
	x := j.export(mirror, j.run.Commit)
	if err := x.Bring(ctx); err != nil {
		return none, err
	}
	list := func(fn func(deploy.TreeFile) error) error { return x.List(ctx, fn) }
	lacking, err := conn.CompareInPlace(ctx, host.InPlaceBegin{
		Release: j.release, Repository: j.run.Repository, Commit: j.run.Commit, Overwrite: spec.Overwrite,
	}, list)
	if err != nil {
		return none, err
	}
	staged, err := conn.StageInPlace(ctx)
	if err != nil || staged.Write == 0 {
		return staged, err
	}
	i := -1
	want := func(deploy.TreeFile) bool { i++; return lacking(i) }
	return staged, conn.PutInPlace(ctx, func(fn func(deploy.TreeFile, io.Reader) error) error {
		return x.WalkSome(ctx, want, fn)
	})
}

// takeOver says that the files of the commit which a clone was of, before
// deployhook came, are nobody's changes. Without that they have to be equal to
// those of the commit that is deployed.
func (j *job) takeOver(ctx context.Context, conn *host.Conn, mirror *git.Mirror, commit string) {
	x := j.export(mirror, commit)
	_, err := mirror.Fetch(ctx, commit, "")
	if err == nil {
		err = x.Bring(ctx)
	}
	if err == nil {
		err = conn.BaseInPlace(ctx, func(fn func(deploy.TreeFile) error) error { return x.List(ctx, fn) })
	}
	if err != nil {
		j.note(fmt.Sprintf("there is a clone of %s, whose files cannot be compared with it: %v", short(commit), err))
		return
	}
	j.note(fmt.Sprintf("took over the clone of %s that was there; its .git is left alone, and nothing needs it any more", short(commit)))
}

// discard removes what was written for a change that is not made.
func (j *job) discard(ctx context.Context, conn *host.Conn) {
	safe, cancel := settling(ctx)
	defer cancel()
	if err := conn.DiscardInPlace(safe); err != nil && !errors.Is(err, host.ErrGone) {
		j.log.Warn("removing what was not deployed", "err", err)
	}
}

// switchInPlace changes the files; ok is false when that ended the job.
func (j *job) switchInPlace(ctx context.Context, conn *host.Conn) (out outcome, ok bool) {
	safe, cancel := settling(ctx)
	defer cancel()
	err := conn.SwitchInPlace(safe, j.run.Pops)
	switch {
	case err == nil:
		return outcome{}, true
	case errors.Is(err, host.ErrNotBegun):
		j.discard(ctx, conn)
		return failed(err), false
	case errors.Is(err, host.ErrGone):
		return j.reopen(ctx, conn, err), false
	}
	if ferr := conn.FailedInPlace(safe); ferr != nil {
		j.log.Warn("recording a deploy that failed", "err", ferr)
	}
	return failed(err), false
}

// proveInPlace restarts the application; then the commit is live.
func (j *job) proveInPlace(ctx context.Context, conn *host.Conn, found *deploy.Found) outcome {
	err := j.restart(ctx, conn)
	if errors.Is(err, host.ErrGone) {
		j.restartsLost++
		return j.reopen(ctx, conn, err)
	}
	if err != nil {
		return j.standing(ctx, conn, j.ends(ctx, fmt.Errorf("restart: %w", err)))
	}
	safe, cancel := settling(ctx)
	defer cancel()
	if err := conn.LiveInPlace(safe); err != nil {
		return j.reopen(ctx, conn, fmt.Errorf("recording that %s is live: %w", j.release, err))
	}
	j.afterInPlace(safe, conn, found)
	return outcome{state: deploy.Succeeded}
}

// afterInPlace does what follows a commit that is live. Its errors are
// warnings.
func (j *job) afterInPlace(ctx context.Context, conn *host.Conn, found *deploy.Found) {
	if j.run.Target != "" {
		j.holdBack(ctx, found)
	}
	j.noteLive(ctx)
	if err := conn.PruneInPlace(ctx, j.spec.Release.Keep, j.spec.Release.KeepFailed); err != nil && !errors.Is(err, host.ErrGone) {
		j.warn("prune", fmt.Errorf("taking old deploys out of the list: %w", err))
	}
}

// standing ends a job whose files have changed and whose steps did not come to
// their end: it says what stands there, and how to go back.
func (j *job) standing(ctx context.Context, conn *host.Conn, out outcome) outcome {
	if out.state == deploy.Queued || out.blocked != "" {
		return out // a stop of the daemon: the next attempt begins with the files as they are
	}
	safe, cancel := settling(ctx)
	defer cancel()
	text := fmt.Sprintf("the files in %s stay those of commit %s", j.spec.Release.Path, short(j.run.Commit))
	found, err := j.endInPlace(safe, conn)
	if err != nil {
		j.log.Warn("recording a deploy that failed", "err", err)
	} else {
		if found.Half {
			text = fmt.Sprintf("the files in %s are partly those of commit %s; the next deploy or rollback repairs them", j.spec.Release.Path, short(j.run.Commit))
		}
		if back := j.wayBack(found); back != "" {
			text += "; " + back
		}
	}
	switch out.state {
	case deploy.Canceled:
		out.cause += "; " + text
	default:
		out.err += "; " + text
	}
	return out
}

// cutInPlace ends an attempt that was cut short while the files changed, or
// before, or during the steps.
func (j *job) cutInPlace(ctx context.Context, conn *host.Conn, cause error) outcome {
	var c canceled
	out := failed(cause)
	switch gone := errors.Is(cause, host.ErrGone); {
	case errors.As(context.Cause(ctx), &c):
		out = outcome{state: deploy.Canceled, cause: string(c)}
	case gone && j.attempt < attemptsMost, errors.Is(cause, errDaemonEnded):
		return j.interrupted(cause.Error())
	}
	found, err := conn.LookInPlace(context.WithoutCancel(ctx), j.spec.Release.Path)
	if err != nil || found.Intent == nil || found.Intent.Run != j.run.ID || found.Intent.Job != j.key.job {
		return out // nothing was changed
	}
	return j.standing(ctx, conn, out)
}

// attemptsMost bounds how often a change of files whose agent is killed is
// begun again by itself.
const attemptsMost = 5

// endInPlace records that the deploy has failed, with a new agent where the
// job's own has ended, and tells what is there then.
func (j *job) endInPlace(ctx context.Context, conn *host.Conn) (*deploy.Found, error) {
	err := conn.FailedInPlace(ctx)
	if errors.Is(err, host.ErrGone) {
		j.close(conn)
		var again *host.Conn
		if again, _, err = j.openAgain(ctx); err != nil {
			return nil, err
		}
		defer j.close(again)
		conn, err = again, again.FailedInPlace(ctx)
	}
	if err != nil {
		return nil, err
	}
	return conn.LookInPlace(ctx, j.spec.Release.Path)
}

// wayBack says how to go back from what stands there; empty = there is nothing
// to go back to.
func (j *job) wayBack(found *deploy.Found) string {
	target := inPlaceTarget(found)
	line := lineOf(found, target)
	if target == "" || line == nil {
		return ""
	}
	which := ""
	if _, err := releaseJob(j.pipe, ""); err != nil {
		which = " --job " + j.key.job
	}
	return fmt.Sprintf("deployhook rollback %s%s goes to commit %s", j.run.Pipeline, which, short(line.Commit))
}

// inPlaceTarget is the deploy that a rollback goes to; empty = none.
func inPlaceTarget(f *deploy.Found) string {
	target := deploy.RollbackTarget(f)
	if !slices.Contains(wereLive(f), target) {
		return ""
	}
	return target
}

// sayFiles shows on the run what changed, as a step of its own.
func (j *job) sayFiles(s host.InPlaceStaged, began time.Time) {
	text := fmt.Sprintf("%d written, %d removed, %d as they were", s.Write, s.Remove, s.Keep)
	if len(s.Restored) > 0 {
		text += "; had been removed by hand, and are there again: " + strings.Join(s.Restored, ", ")
	}
	j.notes = append([]string{fmt.Sprintf("the files in %s are those of commit %s: %s", j.spec.Release.Path, short(j.run.Commit), text)}, j.notes...)
	at := j.at(j.next)
	j.next++
	ctx := context.Background()
	log := newStepLog(ctx, j.engine.Store, at, j.secrets)
	for _, n := range j.notes {
		log.say("deployhook: %s", n)
	}
	j.notes = nil
	st := deploy.RunStep{Index: at.Index, Name: filesName, State: deploy.Succeeded, Tries: 1, Started: began, Ended: time.Now()}
	if err := errors.Join(log.close(), j.engine.Store.SaveStep(ctx, at, st)); err != nil {
		j.log.Error("recording a step", "step", st.Name, "err", err)
	}
}

// filesName is the name of the step that the change of the files is.
const filesName = "files"

// settleInPlace is settle for a directory whose files are changed in place.
// What was cut short while they changed, or during the steps, begins anew: the
// journal knows the files of both commits for ours.
func (j *job) settleInPlace(ctx context.Context, conn *host.Conn, found *deploy.Found) (outcome, bool) {
	what, sentence := deploy.RecoverInPlace(found, j.engine.Store.Daemon(), j.run.ID, j.key.job)
	if found.Intent != nil {
		j.log.Warn("found an unfinished deploy", "path", j.spec.Release.Path, "of_run", found.Intent.Run, "phase", found.Intent.Phase, "found", what)
	}
	safe, cancel := settling(ctx)
	defer cancel()
	switch what {
	case deploy.RecoverSuccess:
		if found.Intent != nil {
			if err := conn.DropInPlace(safe); err != nil {
				return j.ends(ctx, err), true
			}
		}
		j.release = current(found)
		j.afterInPlace(safe, conn, found)
		return outcome{state: deploy.Succeeded}, true
	case deploy.RecoverDrop:
		// Its own, in an attempt before this one. What differs from both
		// commits was changed by its steps.
		if err := conn.AdoptInPlace(safe); err != nil {
			return j.ends(ctx, err), true
		}
	case deploy.RecoverProve:
		if j.spec.OnCrash == deploy.CrashStop {
			return j.blocked("the deploy of " + found.Intent.To + " was cut short during its restart, and on_crash is stop"), true
		}
		path := j.spec.Release.Path
		j.release, j.previous = releaseOf(found.Intent.To), releaseOf(found.Intent.From)
		j.releasePath, j.workspace = path, path
		j.mu.Lock()
		j.switched = &move{from: j.previous, to: j.release}
		j.mu.Unlock()
		if j.restartsLost >= restartsLostMost {
			return j.standing(ctx, conn, failed(errors.New("the restart ended what was running it, more than once"))), true
		}
		return j.proveInPlace(ctx, conn, found), true
	case deploy.RecoverBlocked:
		return j.blocked(sentence), true
	}
	if in := found.Intent; in != nil && (in.Run != j.run.ID || in.Job != j.key.job) {
		j.note(fmt.Sprintf("run %d was cut short here while it deployed %s: this one goes over it", in.Run, releaseOf(in.To)))
	}
	return outcome{}, false
}
