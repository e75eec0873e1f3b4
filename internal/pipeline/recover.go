package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
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
			for _, p := range j.parts {
				p.remember(ctx, &rj)
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
	for _, p := range j.parts {
		if p.restartsLost > restartsLostMost {
			// A restart that ends deployhook itself, or the machine.
			return j.blockedAt(j.parts, fmt.Sprintf("deployhook ended %d times during the restart", p.restartsLost))
		}
	}
	return j.again(ctx, errDaemonEnded)
}

// remember takes up what was written down of a part of a job that was cut short.
func (p *jobPart) remember(ctx context.Context, rj *deploy.RunJob) {
	for _, h := range rj.HostRuns {
		if h.Name != p.host {
			continue
		}
		p.next, p.phase = len(h.Steps), h.Phase
		if h.Error != "" {
			p.failure = errors.New(h.Error)
		}
		p.lose(ctx, h)
		for _, st := range h.Steps {
			if st.Name == restartName && (st.State == deploy.Running || st.State == deploy.Lost) {
				p.restartsLost++
			}
		}
	}
}

// lose ends the steps that were running when the daemon before this one ended:
// how they ended, nobody knows.
func (p *jobPart) lose(ctx context.Context, h deploy.RunHost) {
	for _, st := range h.Steps {
		if st.State != deploy.Running {
			continue
		}
		st.State, st.Error, st.Ended = deploy.Lost, "the daemon ended during the step: nobody knows whether it finished", time.Now()
		if err := p.engine.Store.SaveStep(ctx, p.at(st.Index), st); err != nil {
			p.log.Error("recording a step", "step", st.Name, "err", err)
		}
	}
}

// reopen settles a switch one of whose agents ended, or could not go on. The
// daemon is there and saw it: a switch that turns out not to have begun has
// failed, and begins no second time by itself.
func (j *job) reopen(ctx context.Context, cause error) outcome {
	j.log.Warn("the switch was cut short; opening its path again", "err", cause)
	j.hangUp()
	if j.reopened++; j.reopened > reopenedMost {
		cut := slices.DeleteFunc(j.active(), func(p *jobPart) bool { return !p.switched })
		if len(cut) == 0 {
			cut = j.active()
		}
		return j.blockedAt(cut, cause.Error())
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

// again opens the path on all hosts with new agents, as often as it takes, and
// does what the journals say. A host that cannot be reached keeps the others:
// what becomes of the switch is decided for all of them. Meanwhile the job
// takes no worker from others.
func (j *job) again(ctx context.Context, cause error) outcome {
	delay, last := time.Second, ""
	for {
		j.beat()
		err := j.openAgain(ctx)
		if err == nil {
			j.unreachable.Store(false)
			out, done := j.settle(ctx, cause)
			if !done {
				out = j.afterSweep(ctx, cause)
			}
			j.hangUp()
			out.whole = true
			return out
		}
		level := slog.LevelWarn
		if err.Error() == last {
			level = slog.LevelDebug
		}
		last = err.Error()
		j.log.Log(ctx, level, "an unfinished switch cannot be reached", "path", j.spec.Release.Path, "err", err)
		j.unreachable.Store(true)
		j.engine.nudge()
		select {
		case <-time.After(delay):
		case <-j.gaveUp:
			if j.drop(); len(j.active()) == 0 {
				j.unreachable.Store(false)
				return outcome{state: deploy.Lost, whole: true}
			}
			continue
		case <-j.engine.over:
			// The job stays as it is in the database, running: the next
			// start comes here again.
			return outcome{state: deploy.Running}
		}
		delay = min(2*delay, reopenMax)
	}
}

// giveUp ends the tries of a job to reach its unfinished switch on a host, and
// says whether it was at that.
func (j *job) giveUp(where, by string) bool {
	if !j.unreachable.Load() {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range j.parts {
		if p.host == where && p.away != nil {
			p.gaveUp = by
			select {
			case j.gaveUp <- struct{}{}:
			default: // it is to look already
			}
			return true
		}
	}
	return false
}

// drop leaves out the hosts that were given up.
func (j *job) drop() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range j.parts {
		if p.gaveUp != "" && p.abandoned == nil {
			p.abandoned = fmt.Errorf("its switch at %s:%s could not be reached (%w) and was abandoned by %s: look at what is current there",
				p.host, p.spec.Release.Path, p.away, p.gaveUp)
			p.away = nil
		}
	}
}

// lacking is the outcome of a job some of whose hosts were abandoned: nobody
// knows what became of it there.
func (j *job) lacking(out outcome) outcome {
	var texts []error
	for _, p := range j.parts {
		if p.abandoned != nil {
			texts = append(texts, p.abandoned)
		}
	}
	if len(texts) == 0 || out.state == deploy.Running {
		return out
	}
	text := both(texts...).Error()
	if rest := j.active(); len(rest) > 0 {
		how := "it ended " + string(out.state)
		if out.state == deploy.Queued {
			how = "nothing was switched"
		}
		text += fmt.Sprintf("; on %s %s", names(rest), how)
		if why := first(out.err, out.cause); why != "" {
			text += ": " + why
		}
	}
	return outcome{state: deploy.Lost, err: text, blocked: out.blocked}
}

// openAgain opens the path on all hosts, or on none.
func (j *job) openAgain(ctx context.Context) error {
	ctx, cancel := settling(ctx)
	defer cancel()
	err := j.each(func(p *jobPart) error {
		err := p.openOnce(ctx)
		p.setAway(err)
		return err
	})
	if err != nil {
		j.hangUp()
	}
	return err
}

// openOnce opens the path of a part with a new agent.
func (p *jobPart) openOnce(ctx context.Context) error {
	if err := p.connect(ctx); err != nil {
		return err
	}
	err := p.openPath(ctx)
	if err != nil {
		p.hangUp()
	}
	return err
}

// afterSweep ends an attempt that did not reach its switch.
func (j *job) afterSweep(ctx context.Context, cause error) outcome {
	if j.spec.Release.InPlace {
		return j.cutInPlace(ctx, cause)
	}
	safe, cancel := settling(ctx)
	defer cancel()
	_ = j.each(func(p *jobPart) error {
		if err := p.conn.Sweep(safe); err != nil {
			p.log.Warn("removing what the attempt left", "err", err)
		}
		return nil
	})
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

// settle does what the journals of the job's paths ask for before anything else
// may happen there. done is false when the way is free and the job may go on.
// cause is what cut the job short; nil for one that begins.
func (j *job) settle(ctx context.Context, cause error) (out outcome, done bool) {
	if j.spec.Release.InPlace {
		return j.settleInPlace(ctx)
	}
	var blocked []*jobPart
	var sentences []error
	for _, p := range j.active() {
		var sentence string
		p.what, sentence = deploy.Recover(p.found, j.engine.Store.Daemon(), j.run.ID, j.key.job)
		if p.found.Intent != nil {
			p.log.Warn("found an unfinished switch", "path", j.spec.Release.Path, "phase", p.found.Intent.Phase, "found", p.what)
		}
		if p.what == deploy.RecoverBlocked {
			blocked, sentences = append(blocked, p), append(sentences, p.named(errors.New(sentence)))
		}
		p.take()
		p.recovered()
	}
	if len(blocked) == 0 {
		return j.decide(ctx, cause, j.recovery())
	}
	// Nobody but a person can say what goes on there. What is unfinished on
	// the other hosts is put back: the release cannot be live on all.
	out = j.blockedAt(blocked, both(sentences...).Error())
	for _, p := range blocked {
		p.blocked = true
	}
	what := j.recovery()
	if what == deploy.RecoverProve {
		what = deploy.RecoverUndo
	}
	j.undone = cmp.Or(j.undone, fmt.Errorf("the switch cannot be settled on %s", names(blocked)))
	rest, done := j.decide(ctx, cause, what)
	switch {
	case done && rest.state == deploy.Running:
		return rest, true
	case done && rest.err != "":
		out.err += "; " + rest.err
	}
	out.block(rest.blocked)
	return out, true
}

// take makes what the journal says of the job's own switch the part's.
func (p *jobPart) take() {
	p.previous = current(p.found)
	switch p.what {
	case deploy.RecoverSuccess:
		for _, l := range p.found.Lines {
			if l.State == deploy.ReleaseLive && l.Run == p.run.ID && l.Job == p.key.job {
				p.job.release = l.Release
			}
		}
		p.switched, p.there = false, true
	case deploy.RecoverDrop, deploy.RecoverProve, deploy.RecoverUndo:
		p.switched = p.what != deploy.RecoverDrop
		p.previous, p.release = releaseOf(p.found.Intent.From), releaseOf(p.found.Intent.To)
		p.job.release = p.release
		p.releasePath = path.Join(p.spec.Release.Path, p.found.Intent.To)
		p.workspace = p.releasePath
	default:
		p.switched = false
	}
}

// recovery is what the job does on all of its hosts.
func (j *job) recovery() deploy.Recovery {
	parts := j.active()
	each := make([]deploy.Recovery, len(parts))
	for i, p := range parts {
		each[i] = p.what
	}
	return deploy.RecoverAll(each, func(i int) bool { return parts[i].whole() })
}

// whole says whether the release that the job switches to stands on a host, and
// may be current there.
func (p *jobPart) whole() bool {
	for _, r := range deploy.Releases(p.found) {
		if r.ID == p.job.release {
			return r.State == deploy.ReleasePrepared || r.State == deploy.ReleaseLive
		}
	}
	return false
}

// decide does what the job is to do on all of its hosts.
func (j *job) decide(ctx context.Context, cause error, what deploy.Recovery) (out outcome, done bool) {
	if (what == deploy.RecoverProve || what == deploy.RecoverUndo) && j.spec.OnCrash == deploy.CrashStop {
		var cut []*jobPart
		for _, p := range j.active() {
			if p.found.Intent != nil {
				cut = append(cut, p)
			}
		}
		return j.blockedAt(cut, "the switch to releases/"+j.release+" was cut short, and on_crash is stop"), true
	}
	if err := j.dropIntents(ctx); err != nil {
		if j.anySwitched() {
			return j.reopen(ctx, err), true
		}
		return j.ends(ctx, err), true
	}
	switch what {
	case deploy.RecoverSuccess:
		return j.settleLive(ctx), true
	case deploy.RecoverProve, deploy.RecoverUndo:
		for _, p := range j.active() {
			p.there = p.there || !p.switched && current(p.found) == j.release
		}
		j.mu.Lock()
		j.switched = j.moves()
		j.mu.Unlock()
		if why := j.mustUndo(cause); why != nil && what == deploy.RecoverProve {
			return j.undo(ctx, why), true
		}
		if what == deploy.RecoverUndo {
			return j.undo(ctx, j.undoing()), true
		}
		return j.carryOut(ctx), true
	}
	if slices.ContainsFunc(j.active(), func(p *jobPart) bool { return p.back != "" }) {
		return j.wentBack(ctx, j.undoing()), true // all are back, and the last did not say so any more
	}
	return outcome{}, false
}

// dropIntents ends the switches that were announced and not made.
func (j *job) dropIntents(ctx context.Context) error {
	safe, cancel := settling(ctx)
	defer cancel()
	return j.each(func(p *jobPart) error {
		if p.what != deploy.RecoverDrop {
			return nil
		}
		return p.conn.DropIntent(safe)
	})
}

// mustUndo is why a switch that was made on some hosts is not carried on; nil =
// it is.
func (j *job) mustUndo(cause error) error {
	for _, p := range j.active() {
		if p.restartsLost >= restartsLostMost {
			err := errors.New("restart: the restart ended what was running it, more than once")
			p.fail(err)
			return p.named(err)
		}
		if p.tried && !p.switched {
			return cause // this daemon tried it once, and it was not begun
		}
	}
	return nil
}

// settleLive ends a switch that is live on one host: it was restarted on all of
// them by then.
func (j *job) settleLive(ctx context.Context) outcome {
	safe, cancel := settling(ctx)
	defer cancel()
	var without []*jobPart
	for _, p := range j.active() {
		switch {
		case p.there, p.what == deploy.RecoverProve, current(p.found) == j.release:
			continue
		case p.what == deploy.RecoverUndo:
			if err := p.undo(safe, j.undoing()); err != nil {
				return j.reopen(ctx, p.named(err))
			}
			p.switched = false
		}
		without = append(without, p)
	}
	out := j.live(safe)
	if len(without) > 0 && out.state == deploy.Succeeded {
		return failed(fmt.Errorf("%s is live, and not on %s, where its switch was ended meanwhile: deploy again", j.release, names(without)))
	}
	return out
}

// undoing is why a release is being put back, as far as this process knows.
func (j *job) undoing() error {
	if j.undone != nil {
		return j.undone
	}
	return errors.New("restart: the daemon ended while the release was put back")
}

// blockedAt ends the job as lost, and keeps its path on hosts until a person
// has looked there.
func (j *job) blockedAt(parts []*jobPart, why string) outcome {
	root := j.spec.Release.Path
	out := outcome{state: deploy.Lost, blocked: map[string]string{}}
	var commands []string
	for _, p := range parts {
		command := fmt.Sprintf("deployhook unlock %s:%s --abandon", p.host, root)
		commands = append(commands, command)
		out.blocked[deploy.PathLock(p.host, root)] = fmt.Sprintf("%s; look at %s, then: %s", why, root, command)
	}
	out.err = fmt.Sprintf("%s; look at %s, then: %s", why, root, strings.Join(commands, " and "))
	return out
}
