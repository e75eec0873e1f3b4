package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
)

// messageMax bounds DEPLOYHOOK_MESSAGE: an environment string holds 128 KiB at
// most, and a commit message has no bound of its own.
const messageMax = 16 << 10

// steps runs the job's steps, one after the other, in dir.
// After a cancel those go on that are there to clean up: whose if has always()
// or canceled().
func (p *jobPart) steps(ctx context.Context, dir string) outcome {
	out := outcome{state: deploy.Succeeded}
	if err := p.dropOutputs(ctx); err != nil {
		return p.ends(ctx, err)
	}
	for i := range p.spec.Steps {
		step := &p.spec.Steps[i]
		if ctx.Err() != nil {
			if out.state == deploy.Canceled { // a second time
				return out
			}
			if out = p.ends(ctx, ctx.Err()); out.state != deploy.Canceled {
				return out
			}
			var done func()
			ctx, done = p.cleanUp(ctx)
			defer done()
		}
		run, why, err := p.wanted(ctx, step, out)
		if err != nil {
			return p.ends(ctx, fmt.Errorf("step %s: if: %w", step.Name, err))
		}
		if !run {
			p.skip(ctx, step, why)
			continue
		}
		err = p.step(ctx, step, dir)
		if err == nil {
			continue
		}
		if errors.Is(err, host.ErrGone) {
			return p.ends(ctx, fmt.Errorf("step %s: %w", step.Name, err))
		}
		if ctx.Err() != nil {
			continue
		}
		if !step.ContinueOnError && out.state == deploy.Succeeded {
			out = failed(fmt.Errorf("step %s: %w", step.Name, err))
		}
	}
	if ctx.Err() != nil && out.state != deploy.Canceled {
		return p.ends(ctx, ctx.Err())
	}
	return out
}

// cleanUp is a context for the steps that run although their job was canceled:
// a second cancel ends them, and a stop of the daemon whose grace is over.
func (p *jobPart) cleanUp(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	p.mu.Lock()
	if p.cleaning == nil {
		p.cleaning = map[*jobPart]context.CancelCauseFunc{}
	}
	p.cleaning[p] = cancel
	p.mu.Unlock()
	done := make(chan struct{})
	go func() {
		select {
		case <-p.engine.over:
			cancel(errShutdown)
		case <-done:
		}
	}()
	return ctx, func() {
		close(done)
		cancel(nil)
		p.mu.Lock()
		delete(p.cleaning, p)
		p.mu.Unlock()
	}
}

// wanted says whether a step is to run after what the steps before it came to.
// The error is that of a diff that its changed() could not get.
func (p *jobPart) wanted(ctx context.Context, step *deploy.Step, so outcome) (ok bool, why string, err error) {
	before := "a step before it failed"
	if so.state == deploy.Canceled {
		before = "the job was canceled"
	}
	if so.state != deploy.Succeeded && (step.If == nil || !step.If.UsesStatus()) {
		return false, before, nil
	}
	if step.If == nil {
		return true, "", nil
	}
	s := p.scope()
	s.Status = deploy.Status{Failed: so.state == deploy.Failed, Canceled: so.state == deploy.Canceled}
	changed, unread := p.engine.changedFunc(ctx, p.pipe, p.run)
	s.Changed = changed
	ok, why = step.If.Eval(s)
	if why != "" {
		why = ": " + why
	}
	return ok, "if is false" + why, *unread
}

func (p *jobPart) skip(ctx context.Context, step *deploy.Step, why string) {
	now := time.Now()
	st := deploy.RunStep{Index: p.next, Name: step.Name, State: deploy.Skipped, Error: why, Started: now, Ended: now}
	if err := p.engine.Store.SaveStep(context.WithoutCancel(ctx), p.at(p.next), st); err != nil {
		p.log.Error("recording a step", "step", step.Name, "err", err)
	}
	p.next++
}

func (p *jobPart) at(index int) deploy.StepAt {
	return deploy.StepAt{Run: p.run.ID, Job: p.key.job, Attempt: p.attempt, Host: p.host, Index: index}
}

func (j *job) scope() *deploy.Scope {
	s := j.engine.scope(j.pipe, j.run, j.event)
	s.Job = j.key.job
	for name, outputs := range j.needed {
		if n, ok := s.Needs[name]; ok {
			n.Outputs = outputs
			s.Needs[name] = n
		}
	}
	return s
}

// step runs one step with its retries and records it. The error is one
// sentence about how it ended.
func (p *jobPart) step(ctx context.Context, step *deploy.Step, dir string) error {
	defer p.rest()
	index := p.next
	p.next++
	safe := context.WithoutCancel(ctx)
	st := deploy.RunStep{Index: index, Name: step.Name, State: deploy.Running, Tries: 1, Started: time.Now()}
	// The record of the beginning is written beside the step, not before it:
	// a claim that is on disk already says that the job may have begun.
	saved := make(chan error, 1)
	go func(st deploy.RunStep) { saved <- p.engine.Store.SaveStep(safe, p.at(index), st) }(st)

	secrets := p.learn()
	p.masked = len(secrets)
	log := newStepLog(safe, p.engine.Store, p.at(index), secrets)
	for _, n := range p.notes {
		log.say("deployhook: %s", n)
	}
	p.notes = nil
	var err error
	for {
		var res host.StepResult
		res, st.Outputs, err = p.try(ctx, step, dir, log)
		st.ExitCode, st.Signal = res.ExitCode, res.Signal
		for _, name := range res.LeftOver {
			log.say("deployhook: ended what the step left running: %s", name)
		}
		if err == nil || ctx.Err() != nil || errors.Is(err, host.ErrGone) || st.Tries > step.Retry.Limit {
			break
		}
		wait := retryDelay(step.Retry, st.Tries)
		log.say("deployhook: %v; try %d of %d in %v", err, st.Tries+1, step.Retry.Limit+1, wait)
		p.beat(wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		st.Tries++
	}
	st.Ended = time.Now()
	switch {
	case err == nil:
		st.State = deploy.Succeeded
	case ctx.Err() != nil:
		st.State, st.Error = deploy.Canceled, context.Cause(ctx).Error()
	default:
		st.State, st.Error = deploy.Failed, err.Error()
	}
	if st.Error != "" {
		log.say("deployhook: %s", st.Error)
	}
	if lerr := log.close(); lerr != nil {
		p.log.Error("writing a step's log", "step", step.Name, "err", lerr)
	}
	serr := <-saved
	if serr2 := p.engine.Store.SaveStep(safe, p.at(index), st); serr2 != nil {
		serr = serr2
	}
	if serr != nil {
		p.log.Error("recording a step", "step", step.Name, "err", serr)
	}
	return err
}

// sayNotes gives the notes that no step came for a place of their own, under a
// name.
func (j *job) sayNotes(ctx context.Context, name string) {
	for _, p := range j.parts {
		p.sayNotes(ctx, name)
	}
}

func (p *jobPart) sayNotes(ctx context.Context, name string) {
	if len(p.notes) == 0 {
		return
	}
	now := time.Now()
	log := newStepLog(ctx, p.engine.Store, p.at(p.next), p.learn())
	for _, n := range p.notes {
		log.say("deployhook: %s", n)
	}
	st := deploy.RunStep{Index: p.next, Name: name, State: deploy.Succeeded, Tries: 1, Started: now, Ended: now}
	p.next++
	if err := errors.Join(log.close(), p.engine.Store.SaveStep(ctx, p.at(st.Index), st)); err != nil {
		p.log.Error("recording a step", "step", st.Name, "err", err)
	}
}

// retryDelay is how long the next try waits after so many.
func retryDelay(r deploy.Retry, tries int) time.Duration {
	factor := r.Factor
	if factor <= 0 {
		factor = 1
	}
	d := float64(r.Delay) * math.Pow(factor, float64(tries-1))
	return time.Duration(min(d, float64(time.Hour)))
}

// try runs a step once. What it wrote for later jobs counts however it ended;
// what is wrong with that is its failure when it has no other.
func (p *jobPart) try(ctx context.Context, step *deploy.Step, dir string, log *stepLog) (host.StepResult, map[string]string, error) {
	env, err := p.environment(ctx, step, log)
	if err != nil {
		return host.StepResult{}, nil, err
	}
	req := host.Step{
		ID: strconv.Itoa(p.next - 1), Command: step.Run, Shell: first(step.Shell, p.spec.Shell),
		Dir: path.Join(dir, first(step.WorkingDir, p.spec.WorkingDir)),
		Env: env, Path: p.spec.Path, Timeout: step.Timeout, Limits: host.Limits(p.spec.Limits),
	}
	if req.Timeout == 0 {
		req.Timeout = p.spec.Timeout
	}
	if p.payload != nil {
		req.Files = map[string][]byte{"DEPLOYHOOK_PAYLOAD_FILE": p.payload}
	}
	p.beat(req.Timeout)
	res, err := p.conn.Step(ctx, req, log.write)
	p.rest()
	if err != nil {
		return res, nil, err
	}
	outputs, wrong := p.outputs(res)
	if err := stepError(res, req.Timeout); err != nil {
		if wrong != nil {
			log.say("deployhook: its outputs do not count: %v", wrong)
		}
		return res, outputs, err
	}
	return res, outputs, wrong
}

// stepError says in one sentence how a step failed; nil when it did not.
func stepError(res host.StepResult, timeout time.Duration) error {
	switch {
	case res.TimedOut:
		return fmt.Errorf("timed out after %v", timeout)
	case res.Canceled:
		return errors.New("canceled")
	case res.Error != "":
		return errors.New(res.Error)
	case res.Signal != "":
		return fmt.Errorf("ended by %s", res.Signal)
	case res.ExitCode == nil:
		return errors.New("ended without an exit status")
	case *res.ExitCode != 0:
		return fmt.Errorf("exit status %d", *res.ExitCode)
	}
	return nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// environment is what a step gets besides what the agent has: KEY=VALUE.
// deployhook's own names come last, so that nothing written can stand for them.
// Secrets are read now, and masked in the log as they are now.
func (p *jobPart) environment(ctx context.Context, step *deploy.Step, log *stepLog) ([]string, error) {
	s := p.scope()
	var env []string
	for _, list := range [][]deploy.Variable{p.pipe.Env, p.spec.Env, step.Env} {
		for _, v := range list {
			text, err := v.Value.Expand(s)
			if err != nil {
				return nil, fmt.Errorf("env %s: %w", v.Name, err)
			}
			s.Env[v.Name] = text
			env = append(env, v.Name+"="+text)
		}
	}
	for _, v := range p.spec.Secrets {
		value, err := p.engine.Secret(ctx, v.Secret)
		if err != nil {
			return nil, err
		}
		// Another part may have learnt it first.
		if all := p.learn(value); len(all) != p.masked {
			p.masked = len(all)
			log.mask(all)
		}
		env = append(env, v.Name+"="+value)
	}
	return append(env, p.facts(step.Name)...), nil
}

// facts are the variables DEPLOYHOOK_…
func (p *jobPart) facts(step string) []string {
	r, ev := p.run, p.event
	env := []string{"CI=true", "DEPLOYHOOK=true"}
	add := func(name, value string) {
		if i := strings.IndexByte(value, 0); i >= 0 {
			value = value[:i] // a variable cannot hold more
		}
		env = append(env, "DEPLOYHOOK_"+name+"="+value)
	}
	add("RUN_ID", strconv.FormatInt(r.ID, 10))
	add("PIPELINE", r.Pipeline)
	add("JOB", p.key.job)
	add("STEP", step)
	add("HOST", p.host)
	add("EVENT", string(r.Event))
	add("SHA", r.Commit)
	add("BEFORE", r.Before)
	add("REF", r.Ref)
	add("BRANCH", ev.Branch)
	add("TAG", ev.Tag)
	add("REPO", r.Repository)
	add("ACTOR", r.Actor)
	add("MESSAGE", deploy.Cut(r.Message, messageMax))
	if p.workspace != "" {
		add("WORKSPACE", p.workspace)
	}
	if p.spec.Deploys() {
		root := p.spec.Release.Path
		add("RELEASE", p.release)
		add("RELEASE_PATH", p.releasePath)
		add("PREVIOUS_RELEASE", p.previous)
		if p.spec.Release.InPlace {
			add("CURRENT_PATH", root)
			add("SHARED_PATH", root)
		} else {
			add("CURRENT_PATH", path.Join(root, "current"))
			add("SHARED_PATH", path.Join(root, "shared"))
		}
	}
	add("ENVIRONMENT", "") // jobs have none in this version
	add("RUN_URL", deploy.RunURL(p.engine.URL, r.ID))
	return env
}
