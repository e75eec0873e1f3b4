package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
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

// deploy makes a release of the commit on every host, and publishes it when it
// is whole on all of them.
func (j *job) deploy(ctx context.Context) outcome {
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
	_ = j.each(func(p *jobPart) error { p.sweep(ctx); return nil })
	if why, err := j.unwanted(ctx, mirror); err != nil || why != "" {
		return j.unless(ctx, why, err)
	}
	if why, err := j.begin(ctx, mirror); err != nil || why != "" {
		return j.unless(ctx, why, err)
	}
	if err := j.prepare(ctx, mirror); err != nil {
		return j.ends(ctx, err)
	}
	out := j.every(func(p *jobPart) outcome {
		dir := path.Join(j.spec.Release.Path, "releases", j.release)
		p.previous = releaseOf(p.found.Current)
		p.release, p.releasePath, p.workspace = j.release, dir, dir
		out := p.steps(ctx, dir)
		if out.state == deploy.Succeeded {
			if err := p.conn.Prepared(ctx); err != nil {
				return j.ends(ctx, err)
			}
			p.enter(deploy.PhasePrepared)
		}
		return out
	})
	if out.state == deploy.Succeeded {
		if why, err := j.unwanted(ctx, mirror); err != nil || why != "" {
			out = j.unless(ctx, why, err)
		}
	}
	if out.state != deploy.Succeeded {
		j.bad(ctx)
		return out
	}
	return j.publish(ctx)
}

// sweep removes the trees that were never whole and whose jobs are over: with
// the path's lock, nobody else can be making one.
func (p *jobPart) sweep(ctx context.Context) {
	for _, r := range deploy.Releases(p.found) {
		if r.State == deploy.ReleasePreparing {
			if err := p.conn.Sweep(ctx); err != nil {
				p.log.Warn("removing what an earlier attempt left", "err", err)
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
// many, on all hosts. Neither changes how the job ended.
func (j *job) bad(ctx context.Context) {
	_ = j.each(func(p *jobPart) error { p.bad(ctx); return nil }) // in the log
}

func (p *jobPart) bad(ctx context.Context) {
	ctx, cancel := settling(ctx)
	defer cancel()
	if err := p.conn.Bad(ctx); err != nil && !errors.Is(err, host.ErrGone) {
		p.log.Warn("marking a release that never was live", "release", p.job.release, "err", err)
	}
	_ = p.prune(ctx) // in the log
}

// prune removes old releases. What goes wrong is a warning, which it returns.
func (p *jobPart) prune(ctx context.Context) error {
	removed, err := p.conn.Prune(ctx, p.spec.Release.Keep, p.spec.Release.KeepFailed)
	if err != nil && !errors.Is(err, host.ErrGone) {
		err = fmt.Errorf("removing old releases: %w", err)
		p.log.Warn("something was left behind", "err", err)
	}
	if len(removed) > 0 {
		p.log.Debug("removed old releases", "releases", strings.Join(removed, " "))
	}
	return err
}

// warn shows on the run what went wrong and changes nothing: as a step of its
// own that failed.
func (p *jobPart) warn(name string, err error) {
	now := time.Now()
	at := p.at(p.next)
	p.next++
	ctx := context.Background()
	log := newStepLog(ctx, p.engine.Store, at, p.learn())
	log.say("deployhook: a warning: %v", err)
	lerr := log.close()
	serr := p.engine.Store.SaveStep(ctx, at, deploy.RunStep{
		Index: at.Index, Name: name, State: deploy.Failed, Error: "warning: " + err.Error(), Tries: 1, Started: now, Ended: now,
	})
	if err := errors.Join(lerr, serr); err != nil {
		p.log.Error("recording a warning", "err", err)
	}
}

// openPaths locks the path of the job on all hosts, and sees what is there.
func (j *job) openPaths(ctx context.Context) error {
	return j.each(func(p *jobPart) error { return p.openPath(ctx) })
}

func (p *jobPart) openPath(ctx context.Context) (err error) {
	o := host.OpenRelease{
		Path: p.spec.Release.Path, Daemon: p.engine.Store.Daemon(), Run: p.run.ID, Job: p.key.job, Attempt: p.attempt,
	}
	if p.spec.Release.InPlace {
		p.found, p.clone, err = p.conn.OpenInPlace(ctx, o)
		return err
	}
	p.found, err = p.conn.OpenRelease(ctx, o)
	return err
}

// prepare makes the release's directory on all hosts, by the same name, with
// the commit's files and the shared links in it.
func (j *job) prepare(ctx context.Context, mirror *git.Mirror) error {
	spec := j.spec.Release
	want := host.Prepare{Commit: j.run.Commit, Repository: j.run.Repository, SharedDirs: spec.SharedDirs, SharedFiles: spec.SharedFiles}
	x := j.export(mirror, j.run.Commit)
	var err error
	if want.Files, want.Bytes, err = x.Measure(ctx); err != nil { // it brings what is kept elsewhere
		return err
	}
	now := time.Now()
	for n := 1; ; n++ {
		want.Release = deploy.ReleaseID(now, j.run.Commit, n)
		err := j.each(func(p *jobPart) error { return p.conn.Prepare(ctx, want) })
		if err == nil {
			break
		}
		if !errors.Is(err, host.ErrExists) || n == releaseNames {
			j.bad(ctx)
			return err
		}
		// Those that have it now give it back: the name is one for all.
		if err := j.each(func(p *jobPart) error { return p.conn.Bad(ctx) }); err != nil {
			return err
		}
	}
	j.release = want.Release
	err = j.each(func(p *jobPart) error {
		p.enter(deploy.PhasePreparing)
		if err := p.inTurn(ctx, func() error { return p.fill(ctx, x) }); err != nil {
			return err
		}
		return p.conn.Shared(ctx)
	})
	if err != nil {
		j.bad(ctx)
	}
	return err
}

// fill puts the commit's files into the release: from the one before what has
// not changed, the others from the mirror.
func (p *jobPart) fill(ctx context.Context, x *git.Export) error {
	lacking, err := p.conn.Reuse(ctx, func(fn func(deploy.TreeFile) error) error { return x.List(ctx, fn) })
	if err != nil {
		return err
	}
	i := -1
	want := func(deploy.TreeFile) bool { i++; return lacking(i) }
	return p.conn.Put(ctx, func(fn func(deploy.TreeFile, io.Reader) error) error {
		return x.WalkSome(ctx, want, fn)
	})
}

// publish points current to the job's release, on one host after the other,
// and puts the old one back on all when that fails.
func (j *job) publish(ctx context.Context) outcome {
	if err := j.enterSwitch(ctx); err != nil {
		if j.run.Target == "" {
			j.bad(ctx)
		}
		return j.ends(ctx, err)
	}
	return j.carryOut(ctx)
}

// settling is a context for what a cancel must not cut short.
func settling(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), settleTime)
}

// carryOut goes on with a switch: the hosts where the link points to the
// release restart, the others are switched and restarted, one after the other.
// When all have, the release is live on all; before that, the first that fails
// puts the old one back on all.
func (j *job) carryOut(ctx context.Context) outcome {
	for _, p := range j.active() {
		if p.there {
			continue
		}
		if !p.switched {
			if ctx.Err() != nil && j.anySwitched() {
				return j.undo(ctx, context.Cause(ctx))
			}
			p.tried = true
			p.enter(deploy.PhaseSwitching)
			err := p.activate(ctx)
			p.fail(err)
			if errors.Is(err, host.ErrNotBegun) {
				p.enter(deploy.PhasePrepared)
				return j.undo(ctx, p.named(err))
			} else if err != nil {
				return j.reopen(ctx, p.named(err))
			}
			p.switched = true
			p.enter(deploy.PhaseSwitched)
		}
		err := p.restart(ctx)
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx) // a cancel that came too late to end the restart
		}
		if errors.Is(err, host.ErrGone) {
			p.restartsLost++
			p.fail(err)
			return j.reopen(ctx, p.named(err))
		}
		if err != nil {
			err = fmt.Errorf("restart: %w", err)
			if ctx.Err() == nil { // a cancel ends the restart, too
				p.fail(err)
			}
			return j.undo(ctx, p.named(err))
		}
		p.failure = nil // of what it has got over
	}
	return j.live(ctx)
}

// activate points current to the job's release on one host.
func (p *jobPart) activate(ctx context.Context) error {
	safe, cancel := settling(ctx)
	defer cancel()
	p.release = p.job.release
	p.releasePath = path.Join(p.spec.Release.Path, "releases", p.release)
	p.workspace = p.releasePath
	if err := p.conn.Activate(safe, host.Activate{To: p.release, Pops: p.run.Pops}); err != nil {
		return fmt.Errorf("switching to %s: %w", p.release, err)
	}
	return nil
}

// live ends a switch that has proven itself on all hosts. From the first host
// that has it in its journal on, nothing is put back any more.
func (j *job) live(ctx context.Context) outcome {
	safe, cancel := settling(ctx)
	defer cancel()
	for _, p := range j.active() {
		if !p.switched {
			continue
		}
		if err := p.conn.Live(safe); err != nil {
			return j.reopen(ctx, p.named(fmt.Errorf("recording that %s is live: %w", j.release, err)))
		}
		p.switched, p.there = false, true
		p.enter(deploy.PhaseLive)
	}
	j.after(safe)
	return outcome{state: deploy.Succeeded}
}

// after does what follows a release that is live. Its errors are warnings: the
// release is live whatever they are.
func (j *job) after(ctx context.Context) {
	if j.run.Target != "" {
		j.holdBack(ctx)
	}
	_ = j.each(func(p *jobPart) error {
		p.noteLive(ctx)
		if err := p.prune(ctx); err != nil {
			p.warn("prune", err)
		}
		return nil
	})
}

// noteLive keeps in the database what the path has now.
func (p *jobPart) noteLive(ctx context.Context) {
	err := p.engine.Store.SetLive(ctx, deploy.Live{
		Host: p.host, Path: p.spec.Release.Path, Release: p.job.release, Repository: p.run.Repository,
		Commit: p.run.Commit, Run: p.run.ID, Seen: time.Now(),
	})
	if err != nil {
		p.log.Warn("noting what is live", "err", err)
	}
}

// restartName is the name of the step that restart is.
const restartName = "restart"

// restart runs the job's restart command; nil when there is none.
func (p *jobPart) restart(ctx context.Context) error {
	if p.spec.Restart == "" {
		return nil
	}
	step := &deploy.Step{Name: restartName, Run: p.spec.Restart, WorkingDir: "/"}
	dir := path.Join(p.spec.Release.Path, "current")
	if p.spec.Release.InPlace {
		dir = p.spec.Release.Path
	}
	return p.step(ctx, step, dir)
}

// anySwitched says whether current points to the new release on a host.
func (j *job) anySwitched() bool {
	return slices.ContainsFunc(j.active(), func(p *jobPart) bool { return p.switched })
}

// undo points current back on all hosts that were switched, the last one
// first, restarts what was there before, and says so. cause is what kept the
// switch from its end.
func (j *job) undo(ctx context.Context, cause error) outcome {
	j.undone = cause
	for _, p := range slices.Backward(j.active()) {
		if !p.switched {
			if j.run.Target == "" && !p.there && p.back == "" {
				p.bad(ctx)
			}
			continue
		}
		if err := p.undo(ctx, cause); err != nil {
			return j.reopen(ctx, p.named(err))
		}
		p.switched = false
	}
	return j.wentBack(ctx, cause)
}

// wentBack is the outcome of a job whose switch was put back on all hosts.
func (j *job) wentBack(ctx context.Context, cause error) outcome {
	safe, cancel := settling(ctx)
	defer cancel()
	parts := j.active()
	_ = eachOf(parts, func(p *jobPart) error { // in the log
		if p.back != "" {
			_ = p.prune(safe)
		}
		return nil
	})
	text := backText(parts)
	out := j.ends(ctx, cause)
	switch out.state {
	case deploy.Canceled:
		out.cause += text
	case deploy.Queued: // a stop of the daemon: nothing is left of the switch, so it begins anew
	case deploy.Lost: // on_crash is stop, and it is known what became of the switch
		out = outcome{state: deploy.Failed, err: "deployhook was stopped during the restart" + text}
	default:
		out.err += text
	}
	return out
}

// undo points current back on one host, and restarts what was there before.
func (p *jobPart) undo(ctx context.Context, cause error) error {
	safe, cancel := settling(ctx)
	defer cancel()
	from, err := p.conn.Undo(safe)
	if err != nil {
		p.fail(fmt.Errorf("pointing current back: %w", err))
		return fmt.Errorf("%w; pointing current back: %w", cause, err)
	}
	p.enter(deploy.PhasePutBack)
	if from = releaseOf(from); from == "" {
		p.back = "this was the first release, so current is removed again"
	} else {
		p.back = from + " is current again"
		p.release = from
		p.releasePath = path.Join(p.spec.Release.Path, "releases", from)
		if err := p.restartOld(ctx); err != nil {
			p.back += fmt.Sprintf(", but its restart failed too: %v", err)
			p.fail(fmt.Errorf("restart of %s, which is current again: %w", from, err))
		}
	}
	safe, cancel = settling(ctx)
	defer cancel()
	if err := p.conn.Undone(safe); err != nil {
		return fmt.Errorf("%w; %s; recording it: %w", cause, p.back, err)
	}
	return nil
}

// backText says what is current again, and where: behind a sentence.
func backText(parts []*jobPart) string {
	var texts []string
	hosts := map[string][]*jobPart{}
	for _, p := range parts {
		if p.back == "" {
			continue
		}
		if hosts[p.back] == nil {
			texts = append(texts, p.back)
		}
		hosts[p.back] = append(hosts[p.back], p)
	}
	var b strings.Builder
	for _, text := range texts {
		b.WriteString("; ")
		if len(parts[0].spec.Hosts) > 1 {
			b.WriteString("on " + names(hosts[text]) + " ")
		}
		b.WriteString(text)
	}
	return b.String()
}

// restartOld restarts what is current again; once more only when what ran the
// restart was not ended by it.
func (p *jobPart) restartOld(ctx context.Context) error {
	if p.oldLost != nil {
		return p.oldLost
	}
	err := p.restart(context.WithoutCancel(ctx))
	if errors.Is(err, host.ErrGone) {
		p.oldLost = err
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
