package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
)

// rollback points current to a release that is there already, on all hosts.
func (j *job) rollback(ctx context.Context) outcome {
	if err := j.openPaths(ctx); err != nil {
		return j.ends(ctx, err)
	}
	if out, done := j.settle(ctx, nil); done {
		return out
	}
	for _, p := range j.active() {
		if !slices.Contains(goodReleases(p.found), j.run.Target) {
			err := fmt.Errorf("release %s is not there any more, or was never live", j.run.Target)
			p.fail(err)
			return failed(p.named(err))
		}
		if p.previous = current(p.found); p.previous == j.run.Target {
			// The deploy that it waited for was put back by itself: what was asked
			// for is so.
			p.log.Info("the release to go back to is current already", "release", p.previous)
			p.there = true
			p.enter(deploy.PhaseLive)
		}
	}
	if len(j.left()) == 0 {
		return outcome{state: deploy.Succeeded}
	}
	if _, err := j.begin(ctx, nil); err != nil {
		return j.ends(ctx, err)
	}
	j.release = j.run.Target
	return j.publish(ctx)
}

// goodReleases lists what a rollback may go to: whole releases that were live.
func goodReleases(f *deploy.Found) []string {
	var ids []string
	for _, r := range deploy.Releases(f) {
		if r.State == deploy.ReleaseLive {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// Rollback asks for an earlier release to be current again. The target is
// fixed now, from the host's own journal. Deploys on that path that have not
// reached their switch are canceled, as are those accepted before that have
// not begun.
//
// Errors: [deploy.ErrNotFound], [deploy.ErrMisuse] (several release jobs and
// none named), [deploy.ErrRefused] (locked, nothing to go to, a deploy is past
// its switch).
func (e *Engine) Rollback(ctx context.Context, c deploy.RollbackCommand) (deploy.RollbackReceipt, error) {
	var none deploy.RollbackReceipt
	cfg := e.Config()
	p := cfg.Pipeline(c.Pipeline)
	if p == nil {
		return none, noPipeline(cfg, c.Pipeline)
	}
	spec, err := releaseJob(p, c.Job)
	if err != nil {
		return none, err
	}
	if !c.Force {
		if err := e.unlocked(ctx, p.Name); err != nil {
			return none, err
		}
	}
	locks := locksAt(spec.Hosts, spec.Release.Path)
	// What is one step back must not change until those before it have ended.
	open, err := e.closeAll(ctx, locks)
	if err != nil {
		return none, err
	}
	defer open()
	all, err := e.lookAll(ctx, spec)
	if err != nil {
		return none, err
	}
	if id, past := e.pastSwitch(locks); past != nil && c.To == "" {
		return none, ambiguous(all[0], spec.Release.InPlace, id, past, p.Name)
	}
	target, pops, found, err := rollbackTargets(spec, all, p.Name, c.To)
	if err != nil {
		return none, err
	}
	line := lineOf(found, target)
	if line == nil && deploy.ValidReleaseID(target) {
		return none, fmt.Errorf("%w: the journal of %s does not say which commit %s is", deploy.ErrRefused, spec.Release.Path, target)
	}
	if line == nil { // adopted from a tool that did not write it down
		line = &deploy.ReleaseLine{}
	}
	run := deploy.NewRun{
		Pipeline: p.Name, Config: cfg.Digest, Event: deploy.Rollback, Repository: cmp.Or(line.Repository, p.Repository), Commit: line.Commit,
		Actor: c.Actor, Queue: deploy.QueueAll, Force: c.Force, Target: target, Pops: pops,
		Jobs: []deploy.NewJob{{
			Name: spec.Name, Hosts: spec.Hosts, Deploys: true, Path: spec.Release.Path, Group: spec.Group, Ready: true,
		}},
	}
	id, err := e.Store.Create(ctx, run, nil)
	if err != nil {
		return none, err
	}
	if err := e.clear(ctx, locks, id); err != nil {
		return none, err
	}
	e.nudge()
	return deploy.RollbackReceipt{Run: id, From: releaseOf(found.Current), Target: target}, nil
}

// rollbackTargets is the release that all hosts go to, and what the first one
// that is not there yet looks like. A host that does not have it is named.
func rollbackTargets(spec *deploy.Job, all []*deploy.Found, pipeline, to string) (target string, pops bool, found *deploy.Found, err error) {
	inPlace := spec.Release.InPlace
	var first error
	for i, f := range all {
		here, hereP, err := rollbackTarget(f, inPlace, pipeline, to)
		if len(all) == 1 {
			return here, hereP, f, err
		}
		there := to != "" && errors.Is(err, errCurrent)
		switch {
		case err != nil && !there:
			return "", false, nil, fmt.Errorf("host %s: %w", spec.Hosts[i], err)
		case there && first == nil:
			first = fmt.Errorf("host %s: %w", spec.Hosts[i], err)
		case target != "" && here != "" && here != target:
			return "", false, nil, fmt.Errorf("%w: the hosts differ: %s would go to %s, and %s to %s; say which one with --to",
				deploy.ErrRefused, spec.Hosts[0], target, spec.Hosts[i], here)
		}
		if target == "" && !there {
			target, pops, found = here, hereP, f
		}
	}
	if target == "" {
		return "", false, nil, first
	}
	return target, pops, found, nil
}

// errCurrent is a release to go to that is there already.
var errCurrent = fmt.Errorf("%w: current already", deploy.ErrRefused)

// isCurrent is the sentence about an [errCurrent].
type isCurrent string

func (r isCurrent) Error() string {
	return fmt.Sprintf("%v: release %s is current already", deploy.ErrRefused, string(r))
}
func (isCurrent) Is(target error) bool { return target == errCurrent || target == deploy.ErrRefused }

// rollbackTarget is the release to go to on one host: the one below the top of the stack,
// or the one asked for by its name or its commit.
func rollbackTarget(found *deploy.Found, inPlace bool, pipeline, to string) (target string, pops bool, err error) {
	good := goodReleases(found)
	if inPlace {
		good = wereLive(found)
	}
	if to != "" {
		to = byCommit(found, good, releaseOf(to))
		switch {
		case !slices.Contains(good, to):
			return "", false, fmt.Errorf("%w: release %s; deployhook releases %s lists those that were live", deploy.ErrNotFound, to, pipeline)
		case to == current(found) && !(inPlace && inDoubt(found)):
			return "", false, isCurrent(to)
		}
		return to, false, nil
	}
	if target := deploy.RollbackTarget(found); target != "" && slices.Contains(good, target) {
		return target, true, nil
	}
	return "", false, fmt.Errorf("%w: %s has no earlier release that was live", deploy.ErrRefused, pipeline)
}

// inDoubt says whether what stands at a directory did not come to its end: to
// go to it once more is no waste.
func inDoubt(found *deploy.Found) bool {
	return found.Intent != nil || !slices.Contains(goodReleases(found), current(found))
}

// commitLeast is how many digits of a commit name a release.
const commitLeast = 7

// byCommit gives the release that was made last of a commit, when that is what
// somebody named; else what they named.
func byCommit(found *deploy.Found, good []string, to string) string {
	if slices.Contains(good, to) {
		return to // an adopted release may have a name of digits
	}
	if len(to) < commitLeast || len(to) > 40 || strings.Trim(to, "0123456789abcdef") != "" {
		return to
	}
	for _, r := range deploy.Releases(found) {
		if strings.HasPrefix(r.Commit, to) && slices.Contains(good, r.ID) {
			return r.ID
		}
	}
	return to
}

// close keeps jobs from beginning a switch on a path until open is called.
func (e *Engine) close(ctx context.Context, lock string) (open func(), err error) {
	e.mu.Lock()
	door := e.doors[lock]
	if door == nil {
		door = make(chan struct{}, 1)
		e.doors[lock] = door
	}
	e.mu.Unlock()
	select {
	case door <- struct{}{}:
		return func() { <-door }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// closeAll is close for several paths: in one order for all, so that nobody
// waits for another in turn.
func (e *Engine) closeAll(ctx context.Context, locks []string) (open func(), err error) {
	var opens []func()
	open = func() {
		for _, fn := range opens {
			fn()
		}
	}
	for _, lock := range slices.Sorted(slices.Values(locks)) {
		fn, err := e.close(ctx, lock)
		if err != nil {
			open()
			return nil, err
		}
		opens = append(opens, fn)
	}
	return open, nil
}

// pastSwitch finds the switch that has begun on one of the paths, and its run;
// nil = none.
func (e *Engine) pastSwitch(locks []string) (run int64, past *move) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, j := range e.running {
		if m := j.switching(); m != nil && j.locks(locks) {
			return k.run, m
		}
	}
	return 0, nil
}

// ambiguous refuses a rollback while a run switches: whether its release stays
// decides what is one step back. It names both.
func ambiguous(found *deploy.Found, inPlace bool, run int64, past *move, pipeline string) error {
	before := *found
	before.Current = "releases/" + past.from
	text := fmt.Sprintf("run %d is switching from %s to %s", run, orNothing(past.from), past.to)
	var ways []string
	for _, id := range []string{past.from, deploy.RollbackTarget(&before)} {
		if slices.Contains(goodReleases(found), id) {
			ways = append(ways, fmt.Sprintf("deployhook rollback %s --to %s", pipeline, id))
		}
	}
	if len(ways) == 0 && inPlace {
		return fmt.Errorf("%w: %s, and no earlier release was live; deployhook cancel %d ends it", deploy.ErrRefused, text, run)
	}
	if len(ways) == 0 {
		return fmt.Errorf("%w: %s, and no earlier release was live; deployhook cancel %d puts it back", deploy.ErrRefused, text, run)
	}
	return fmt.Errorf("%w: %s; say which one you want: %s", deploy.ErrRefused, text, strings.Join(ways, ", or "))
}

func orNothing(release string) string {
	if release == "" {
		return "nothing"
	}
	return release
}

// clear makes way for a rollback: what was accepted before it and has not
// begun on its path ends, and so does what has not reached its switch.
func (e *Engine) clear(ctx context.Context, locks []string, rollback int64) error {
	why := fmt.Sprintf("rolled back by run %d", rollback)
	active, err := e.Store.Unfinished(ctx)
	if err != nil {
		return err
	}
	for _, run := range active.Runs {
		for _, j := range run.Jobs {
			waits := j.State == deploy.Queued || j.State == deploy.Waiting
			if run.ID >= rollback || !waits || !anyOf(pathLocks(&j), locks) {
				continue
			}
			if err := e.cancelWaiting(ctx, run.ID, j.Name, why); err != nil {
				return err
			}
		}
	}
	e.stopBefore(locks, why, rollback)
	return nil
}

// stopBefore ends the jobs on a path that have not reached their switch.
func (e *Engine) stopBefore(locks []string, why string, but int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, j := range e.running {
		if k.run != but && j.locks(locks) {
			j.stopBeforeSwitch(why)
		}
	}
}

// locks says whether the job deploys to one of the paths that the locks are for.
func (j *job) locks(locks []string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return anyOf(j.paths, locks)
}

// anyOf says whether two lists have a word in common.
func anyOf(list, other []string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return slices.Contains(other, s) })
}

// switching is the switch that has begun; nil = none has.
func (j *job) switching() *move {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.switched
}

func pathLocks(j *deploy.RunJob) []string {
	if j.Path == "" {
		return nil
	}
	return locksAt(j.Hosts, j.Path)
}

// locksAt names the locks of a path on hosts.
func locksAt(hosts []string, path string) []string {
	var locks []string
	for _, h := range hosts {
		locks = append(locks, deploy.PathLock(h, path))
	}
	return locks
}

// releaseJob finds the release job of a pipeline that a command means.
func releaseJob(p *deploy.Pipeline, name string) (*deploy.Job, error) {
	var names []string
	var found *deploy.Job
	for i := range p.Jobs {
		if j := &p.Jobs[i]; j.Deploys() && (name == "" || j.Name == name) {
			names = append(names, j.Name)
			found = j
		}
	}
	switch {
	case len(names) == 1:
		return found, nil
	case len(names) > 1:
		return nil, fmt.Errorf("%w: %s has several release jobs (%s): say which with --job", deploy.ErrMisuse, p.Name, joined(names))
	case name != "":
		return nil, fmt.Errorf("%w: %s has no release job %s", deploy.ErrNotFound, p.Name, name)
	}
	return nil, fmt.Errorf("%w: %s has no job with a release", deploy.ErrRefused, p.Name)
}

// lookAll reads the journal of a job's path on all of its hosts side by side,
// without taking its lock.
func (e *Engine) lookAll(ctx context.Context, spec *deploy.Job) ([]*deploy.Found, error) {
	all := make([]*deploy.Found, len(spec.Hosts))
	errs := make([]error, len(spec.Hosts))
	var wait sync.WaitGroup
	for i, h := range spec.Hosts {
		wait.Go(func() { all[i], errs[i] = e.look(ctx, h, spec.Release) })
	}
	wait.Wait()
	return all, both(errs...)
}

// look reads the journal of a path without taking its lock.
func (e *Engine) look(ctx context.Context, where string, r *deploy.ReleaseSpec) (*deploy.Found, error) {
	conn, err := e.openOn(ctx, where, deploy.DeployAgent, nil)
	if err != nil {
		return nil, onHost(where, fmt.Errorf("opening an agent: %w", err))
	}
	defer conn.Close()
	found, err := lookWith(ctx, conn, r.Path, r.InPlace)
	return found, onHost(where, err)
}

// onHost names the host of an error, which is not this machine.
func onHost(name string, err error) error {
	if err == nil || name == deploy.Local || startsWithHost(err.Error(), name) {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}

func lookWith(ctx context.Context, conn *host.Conn, path string, inPlace bool) (*deploy.Found, error) {
	if inPlace {
		return conn.LookInPlace(ctx, path)
	}
	return conn.Look(ctx, path)
}

// Releases lists what every release job of a pipeline has on its hosts, newest
// first. Beside an error it gives what the other hosts have.
func (e *Engine) Releases(ctx context.Context, pipeline string) ([]deploy.Release, error) {
	cfg := e.Config()
	p := cfg.Pipeline(pipeline)
	if p == nil {
		return nil, noPipeline(cfg, pipeline)
	}
	list := []deploy.Release{}
	var errs []error
	for i := range p.Jobs {
		spec := &p.Jobs[i]
		if !spec.Deploys() {
			continue
		}
		all, err := e.lookAll(ctx, spec)
		errs = append(errs, err)
		for k, h := range spec.Hosts {
			found := all[k]
			if found == nil {
				continue
			}
			for _, r := range deploy.Releases(found) {
				r.Host, r.Path = h, spec.Release.Path
				if found.Half && r.Current {
					r.State = deploy.ReleasePreparing
				}
				list = append(list, r)
			}
		}
	}
	// By the runs that made them: the clock that their names are made of may
	// have jumped. Within a run the journal's order stays.
	slices.SortStableFunc(list, func(a, b deploy.Release) int { return cmp.Compare(b.Made, a.Made) })
	return list, both(errs...)
}
