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
// steps there, and restarts: on one host after the other, once it is known that
// all can be changed. A rollback is the same with an earlier commit. What fails
// after the files have changed leaves them so, and the hosts after it as they
// were.
func (j *job) deployInPlace(ctx context.Context) outcome {
	mirror, err := j.fetch(ctx)
	if err != nil {
		return j.ends(ctx, err)
	}
	if err := j.openPaths(ctx); err != nil {
		return j.ends(ctx, err)
	}
	if out, done := j.settle(ctx, nil); done {
		return out
	}
	if why, err := j.mayDeployInPlace(ctx, mirror); err != nil || why != "" {
		return j.unless(ctx, why, err)
	}
	for _, p := range j.active() {
		if j.run.Target != "" && current(p.found) == j.run.Target && !inDoubt(p.found) {
			// What it waited for ended so: what was asked for is so.
			p.log.Info("the commit to go back to is deployed already", "release", j.run.Target)
			p.there = true
			p.enter(deploy.PhaseLive)
		}
	}
	if len(j.left()) == 0 {
		return outcome{state: deploy.Succeeded}
	}
	if why, err := j.begin(ctx, mirror); err != nil || why != "" {
		return j.unless(ctx, why, err)
	}
	for _, p := range j.left() {
		p.previous = current(p.found)
		if in := p.found.Intent; in != nil && in.Run == j.run.ID && in.Job == j.key.job {
			p.previous, j.release = releaseOf(in.From), releaseOf(in.To) // it goes on
		}
	}
	j.nameInPlace()
	began := time.Now()
	x, err := j.bring(ctx, mirror)
	if err == nil {
		err = eachOf(j.left(), func(p *jobPart) error { return p.inTurn(ctx, func() error { return p.stage(ctx, mirror, x) }) })
	}
	if err == nil {
		var why string
		if why, err = j.mayDeployInPlace(ctx, mirror); why != "" {
			j.discard(ctx, j.left())
			return outcome{state: deploy.Canceled, cause: why}
		}
	}
	if err == nil {
		err = j.enterSwitch(ctx)
	}
	if err != nil {
		j.discard(ctx, j.left())
		return j.ends(ctx, err)
	}
	for i, p := range j.left() {
		if i > 0 && ctx.Err() != nil {
			return j.stopInPlace(ctx, nil, j.ends(ctx, context.Cause(ctx)))
		}
		if out := p.changeInPlace(ctx, began); out.whole || out.state != deploy.Succeeded {
			return j.stopInPlace(ctx, p, out)
		}
		p.there = true
	}
	j.afterInPlace(context.WithoutCancel(ctx))
	return outcome{state: deploy.Succeeded}
}

// left are the parts on which something is left to do.
func (j *job) left() []*jobPart {
	return slices.DeleteFunc(j.active(), func(p *jobPart) bool { return p.there })
}

// nameInPlace chooses the name of the deploy, which no host has yet.
func (j *job) nameInPlace() {
	if j.run.Target != "" {
		j.release = j.run.Target
	}
	taken := func(id string) bool {
		return slices.ContainsFunc(j.left(), func(p *jobPart) bool {
			return slices.ContainsFunc(p.found.Lines, func(l deploy.ReleaseLine) bool { return l.Release == id })
		})
	}
	now := time.Now()
	for n := 1; j.release == "" || n > 1 && taken(j.release) && n <= releaseNames; n++ {
		j.release = deploy.ReleaseID(now, j.run.Commit, n)
	}
	for _, p := range j.left() {
		p.release = j.release
	}
}

// changeInPlace changes the files on one host, runs the steps there, and
// restarts.
func (p *jobPart) changeInPlace(ctx context.Context, began time.Time) outcome {
	if out, ok := p.switchInPlace(ctx); !ok {
		return out
	}
	p.noteLive(context.WithoutCancel(ctx))
	p.sayFiles(began)
	path := p.spec.Release.Path
	p.releasePath, p.workspace = path, path
	if out := p.steps(ctx, path); out.state != deploy.Succeeded {
		return p.standing(ctx, out)
	}
	safe, cancel := settling(ctx)
	defer cancel()
	if err := p.conn.ProvingInPlace(safe); err != nil {
		return p.reopen(ctx, p.named(fmt.Errorf("recording that the steps are done: %w", err)))
	}
	return p.proveInPlace(ctx)
}

// stopInPlace ends a deploy that did not come to its end on one host: it says
// what stands on the others. at is nil when it ended between two of them.
func (j *job) stopInPlace(ctx context.Context, at *jobPart, out outcome) outcome {
	if out.whole || out.state == deploy.Queued || out.state == deploy.Running {
		return out // the next attempt goes on with those that are left
	}
	if at != nil {
		at.ended(out)
	}
	if at != nil && out.err != "" {
		out.err = at.named(errors.New(out.err)).Error()
	}
	var done, rest []*jobPart
	for _, p := range j.active() {
		switch {
		case p.there:
			done = append(done, p)
		case p != at:
			rest = append(rest, p)
		}
	}
	j.discard(ctx, rest)
	if len(j.parts) == 1 {
		return out
	}
	var texts []string
	if len(done) > 0 {
		texts = append(texts, fmt.Sprintf("%s has commit %s", names(done), short(j.run.Commit)))
	}
	for _, p := range rest {
		has := "no commit"
		if line := lineOf(p.found, current(p.found)); line != nil {
			has = "commit " + short(line.Commit)
		}
		texts = append(texts, fmt.Sprintf("%s was not changed and has %s", p.host, has))
	}
	text := strings.Join(texts, "; ")
	switch {
	case text == "":
	case out.state == deploy.Canceled:
		out.cause += "; " + text
	default:
		out.err += "; " + text
	}
	return out
}

// current is the release that a path has.
func current(f *deploy.Found) string { return releaseOf(f.Current) }

// mayDeployInPlace gives the reason for which the commit must not be deployed
// now. A rollback goes where it was told to, if that still is in the list.
func (j *job) mayDeployInPlace(ctx context.Context, mirror *git.Mirror) (string, error) {
	if j.run.Target == "" {
		return j.unwanted(ctx, mirror)
	}
	for _, p := range j.left() {
		if !slices.Contains(wereLive(p.found), j.run.Target) {
			return "", p.named(fmt.Errorf("the deploy %s is not in the list any more: deployhook releases %s", j.run.Target, j.run.Pipeline))
		}
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

// stage compares the directory with the commit and sends what is new, without
// changing a file that stands there.
func (p *jobPart) stage(ctx context.Context, mirror *git.Mirror, x *git.Export) error {
	if p.clone != "" {
		p.takeOver(ctx, mirror)
	}
	list := func(fn func(deploy.TreeFile) error) error { return x.List(ctx, fn) }
	lacking, err := p.conn.CompareInPlace(ctx, host.InPlaceBegin{
		Release: p.release, Repository: p.run.Repository, Commit: p.run.Commit, Overwrite: p.spec.Release.Overwrite,
	}, list)
	if err != nil {
		return err
	}
	p.enter(deploy.PhasePreparing)
	if p.staged, err = p.conn.StageInPlace(ctx); err == nil && p.staged.Write > 0 {
		i := -1
		want := func(deploy.TreeFile) bool { i++; return lacking(i) }
		err = p.conn.PutInPlace(ctx, func(fn func(deploy.TreeFile, io.Reader) error) error {
			return x.WalkSome(ctx, want, fn)
		})
	}
	if err == nil {
		p.enter(deploy.PhasePrepared)
	}
	return err
}

// takeOver says that the files of the commit which a clone was of, before
// deployhook came, are nobody's changes. Without that they have to be equal to
// those of the commit that is deployed.
func (p *jobPart) takeOver(ctx context.Context, mirror *git.Mirror) {
	commit := p.clone
	x := p.export(mirror, commit)
	_, err := mirror.Fetch(ctx, commit, "")
	if err == nil {
		err = x.Bring(ctx)
	}
	if err == nil {
		err = p.conn.BaseInPlace(ctx, func(fn func(deploy.TreeFile) error) error { return x.List(ctx, fn) })
	}
	if err != nil {
		p.note(fmt.Sprintf("there is a clone of %s, whose files cannot be compared with it: %v", short(commit), err))
		return
	}
	p.note(fmt.Sprintf("took over the clone of %s that was there; its .git is left alone, and nothing needs it any more", short(commit)))
}

// discard removes what was written for a change that is not made.
func (j *job) discard(ctx context.Context, parts []*jobPart) {
	if len(parts) == 0 {
		return
	}
	safe, cancel := settling(ctx)
	defer cancel()
	_ = eachOf(parts, func(p *jobPart) error {
		if p.conn == nil {
			return nil
		}
		if err := p.conn.DiscardInPlace(safe); err != nil && !errors.Is(err, host.ErrGone) {
			p.log.Warn("removing what was not deployed", "err", err)
		}
		return nil
	})
}

// switchInPlace changes the files; ok is false when that ended the job.
func (p *jobPart) switchInPlace(ctx context.Context) (out outcome, ok bool) {
	safe, cancel := settling(ctx)
	defer cancel()
	p.enter(deploy.PhaseSwitching)
	err := p.conn.SwitchInPlace(safe, p.run.Pops)
	switch {
	case err == nil:
		p.enter(deploy.PhaseSwitched)
		return outcome{}, true
	case errors.Is(err, host.ErrNotBegun):
		p.enter(deploy.PhasePrepared)
		p.discard(ctx, []*jobPart{p})
		return failed(err), false
	case errors.Is(err, host.ErrGone):
		return p.reopen(ctx, p.named(err)), false
	}
	if ferr := p.conn.FailedInPlace(safe); ferr != nil {
		p.log.Warn("recording a deploy that failed", "err", ferr)
	}
	return failed(err), false
}

// proveInPlace restarts the application; then the commit is live there.
func (p *jobPart) proveInPlace(ctx context.Context) outcome {
	err := p.restart(ctx)
	if errors.Is(err, host.ErrGone) {
		p.restartsLost++
		return p.reopen(ctx, p.named(err))
	}
	if err != nil {
		return p.standing(ctx, p.ends(ctx, fmt.Errorf("restart: %w", err)))
	}
	safe, cancel := settling(ctx)
	defer cancel()
	if err := p.conn.LiveInPlace(safe); err != nil {
		return p.reopen(ctx, p.named(fmt.Errorf("recording that %s is live: %w", p.release, err)))
	}
	p.enter(deploy.PhaseLive)
	return outcome{state: deploy.Succeeded}
}

// afterInPlace does what follows a commit that is live on all hosts. Its errors
// are warnings.
func (j *job) afterInPlace(ctx context.Context) {
	ctx, cancel := settling(ctx)
	defer cancel()
	if j.run.Target != "" {
		j.holdBack(ctx)
	}
	_ = j.each(func(p *jobPart) error {
		p.noteLive(ctx)
		if err := p.conn.PruneInPlace(ctx, p.spec.Release.Keep, p.spec.Release.KeepFailed); err != nil && !errors.Is(err, host.ErrGone) {
			p.warn("prune", fmt.Errorf("taking old deploys out of the list: %w", err))
		}
		return nil
	})
}

// standing ends a job whose files have changed and whose steps did not come to
// their end: it says what stands there, and how to go back.
func (p *jobPart) standing(ctx context.Context, out outcome) outcome {
	if out.state == deploy.Queued || out.blocked != nil {
		return out // a stop of the daemon: the next attempt begins with the files as they are
	}
	safe, cancel := settling(ctx)
	defer cancel()
	text := fmt.Sprintf("the files in %s stay those of commit %s", p.spec.Release.Path, short(p.run.Commit))
	found, err := p.endInPlace(safe)
	if err != nil {
		p.log.Warn("recording a deploy that failed", "err", err)
	} else {
		if found.Half {
			text = fmt.Sprintf("the files in %s are partly those of commit %s; the next deploy or rollback repairs them", p.spec.Release.Path, short(p.run.Commit))
		}
		if back := p.wayBack(found); back != "" {
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
func (j *job) cutInPlace(ctx context.Context, cause error) outcome {
	var c canceled
	out := failed(cause)
	switch gone := errors.Is(cause, host.ErrGone); {
	case errors.As(context.Cause(ctx), &c):
		out = outcome{state: deploy.Canceled, cause: string(c)}
	case gone && j.attempt < attemptsMost, errors.Is(cause, errDaemonEnded):
		return j.interrupted(cause.Error())
	}
	for _, p := range j.active() {
		found, err := p.conn.LookInPlace(context.WithoutCancel(ctx), j.spec.Release.Path)
		if err == nil && found.Intent != nil && found.Intent.Run == j.run.ID && found.Intent.Job == j.key.job {
			return j.stopInPlace(ctx, p, p.standing(ctx, out)) // elsewhere nothing was changed
		}
	}
	return j.stopInPlace(ctx, nil, out)
}

// attemptsMost bounds how often a change of files whose agent is killed is
// begun again by itself.
const attemptsMost = 5

// endInPlace records that the deploy has failed, with a new agent where the
// job's own has ended, and tells what is there then.
func (p *jobPart) endInPlace(ctx context.Context) (*deploy.Found, error) {
	err := p.conn.FailedInPlace(ctx)
	if errors.Is(err, host.ErrGone) {
		p.hangUp()
		if err = p.openOnce(ctx); err != nil {
			return nil, err
		}
		err = p.conn.FailedInPlace(ctx)
	}
	if err != nil {
		return nil, err
	}
	return p.conn.LookInPlace(ctx, p.spec.Release.Path)
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
func (p *jobPart) sayFiles(began time.Time) {
	s := p.staged
	text := fmt.Sprintf("%d written, %d removed, %d as they were", s.Write, s.Remove, s.Keep)
	if len(s.Restored) > 0 {
		text += "; had been removed by hand, and are there again: " + strings.Join(s.Restored, ", ")
	}
	p.notes = append([]string{fmt.Sprintf("the files in %s are those of commit %s: %s", p.spec.Release.Path, short(p.run.Commit), text)}, p.notes...)
	at := p.at(p.next)
	p.next++
	ctx := context.Background()
	log := newStepLog(ctx, p.engine.Store, at, p.learn())
	for _, n := range p.notes {
		log.say("deployhook: %s", n)
	}
	p.notes = nil
	st := deploy.RunStep{Index: at.Index, Name: filesName, State: deploy.Succeeded, Tries: 1, Started: began, Ended: time.Now()}
	if err := errors.Join(log.close(), p.engine.Store.SaveStep(ctx, at, st)); err != nil {
		p.log.Error("recording a step", "step", st.Name, "err", err)
	}
}

// filesName is the name of the step that the change of the files is.
const filesName = "files"

// settleInPlace is settle for a directory whose files are changed in place.
// What was cut short while they changed, or during the steps, begins anew: the
// journal knows the files of both commits for ours. Hosts that are done stay so.
func (j *job) settleInPlace(ctx context.Context) (outcome, bool) {
	var blocked []*jobPart
	var sentences []error
	for _, p := range j.active() {
		var sentence string
		p.what, sentence = deploy.RecoverInPlace(p.found, j.engine.Store.Daemon(), j.run.ID, j.key.job)
		if p.found.Intent != nil {
			p.log.Warn("found an unfinished deploy", "path", j.spec.Release.Path, "of_run", p.found.Intent.Run, "phase", p.found.Intent.Phase, "found", p.what)
		}
		if p.what == deploy.RecoverBlocked {
			blocked, sentences = append(blocked, p), append(sentences, p.named(errors.New(sentence)))
		}
	}
	if len(blocked) > 0 {
		return j.blockedAt(blocked, both(sentences...).Error()), true
	}
	for _, p := range j.active() {
		if out, done := p.settleInPlace(ctx); done {
			return j.stopInPlace(ctx, p, out), true
		}
	}
	if len(j.left()) > 0 {
		return outcome{}, false
	}
	j.afterInPlace(ctx)
	return outcome{state: deploy.Succeeded}, true
}

// settleInPlace settles one host; done is true when that ended the job, and
// there is true when nothing is left to do on it.
func (p *jobPart) settleInPlace(ctx context.Context) (out outcome, done bool) {
	safe, cancel := settling(ctx)
	defer cancel()
	switch p.what {
	case deploy.RecoverSuccess:
		if p.found.Intent != nil {
			if err := p.conn.DropInPlace(safe); err != nil {
				return p.ends(ctx, err), true
			}
		}
		p.job.release = current(p.found)
		p.there = true
		p.enter(deploy.PhaseLive)
	case deploy.RecoverDrop:
		// Its own, in an attempt before this one. What differs from both
		// commits was changed by its steps.
		if err := p.conn.AdoptInPlace(safe); err != nil {
			return p.ends(ctx, err), true
		}
	case deploy.RecoverProve:
		if p.spec.OnCrash == deploy.CrashStop {
			return p.blockedAt([]*jobPart{p}, "the deploy of "+p.found.Intent.To+" was cut short during its restart, and on_crash is stop"), true
		}
		path := p.spec.Release.Path
		p.release, p.previous = releaseOf(p.found.Intent.To), releaseOf(p.found.Intent.From)
		p.job.release = p.release
		p.releasePath, p.workspace = path, path
		p.enter(deploy.PhaseSwitched)
		p.mu.Lock()
		p.job.switched = &move{from: p.previous, to: p.release}
		p.mu.Unlock()
		if p.restartsLost >= restartsLostMost {
			return p.standing(ctx, failed(errors.New("the restart ended what was running it, more than once"))), true
		}
		if out := p.proveInPlace(ctx); out.whole || out.state != deploy.Succeeded {
			return out, true
		}
		p.there = true
	}
	if in := p.found.Intent; in != nil && (in.Run != p.run.ID || in.Job != p.key.job) {
		p.note(fmt.Sprintf("run %d was cut short here while it deployed %s: this one goes over it", in.Run, releaseOf(in.To)))
	}
	return outcome{}, false
}
