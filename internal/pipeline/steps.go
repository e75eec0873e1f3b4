package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
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
func (j *job) steps(ctx context.Context, conn *host.Conn, dir string) outcome {
	out := outcome{state: deploy.Succeeded}
	for i := range j.spec.Steps {
		step := &j.spec.Steps[i]
		if ctx.Err() != nil {
			if out.state == deploy.Canceled { // a second time
				return out
			}
			if out = j.ends(ctx, ctx.Err()); out.state != deploy.Canceled {
				return out
			}
			var done func()
			ctx, done = j.cleanUp(ctx)
			defer done()
		}
		run, why, err := j.wanted(ctx, step, out)
		if err != nil {
			return j.ends(ctx, fmt.Errorf("step %s: if: %w", step.Name, err))
		}
		if !run {
			j.skip(ctx, step, why)
			continue
		}
		err = j.step(ctx, conn, step, dir)
		if err == nil {
			continue
		}
		if errors.Is(err, host.ErrGone) {
			return j.ends(ctx, fmt.Errorf("step %s: %w", step.Name, err))
		}
		if ctx.Err() != nil {
			continue
		}
		if !step.ContinueOnError && out.state == deploy.Succeeded {
			out = failed(fmt.Errorf("step %s: %w", step.Name, err))
		}
	}
	if ctx.Err() != nil && out.state != deploy.Canceled {
		return j.ends(ctx, ctx.Err())
	}
	return out
}

// cleanUp is a context for the steps that run although their job was canceled:
// a second cancel ends them, and a stop of the daemon whose grace is over.
func (j *job) cleanUp(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	j.mu.Lock()
	j.cleaning = cancel
	j.mu.Unlock()
	done := make(chan struct{})
	go func() {
		select {
		case <-j.engine.over:
			cancel(errShutdown)
		case <-done:
		}
	}()
	return ctx, func() {
		close(done)
		cancel(nil)
		j.mu.Lock()
		j.cleaning = nil
		j.mu.Unlock()
	}
}

// wanted says whether a step is to run after what the steps before it came to.
// The error is that of a diff that its changed() could not get.
func (j *job) wanted(ctx context.Context, step *deploy.Step, so outcome) (ok bool, why string, err error) {
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
	s := j.scope()
	s.Status = deploy.Status{Failed: so.state == deploy.Failed, Canceled: so.state == deploy.Canceled}
	changed, unread := j.engine.changedFunc(ctx, j.pipe, j.run)
	s.Changed = changed
	ok, why = step.If.Eval(s)
	if why != "" {
		why = ": " + why
	}
	return ok, "if is false" + why, *unread
}

func (j *job) skip(ctx context.Context, step *deploy.Step, why string) {
	now := time.Now()
	st := deploy.RunStep{Index: j.next, Name: step.Name, State: deploy.Skipped, Error: why, Started: now, Ended: now}
	if err := j.engine.Store.SaveStep(context.WithoutCancel(ctx), j.at(j.next), st); err != nil {
		j.log.Error("recording a step", "step", step.Name, "err", err)
	}
	j.next++
}

func (j *job) at(index int) deploy.StepAt {
	return deploy.StepAt{Run: j.run.ID, Job: j.key.job, Attempt: j.attempt, Host: j.host(), Index: index}
}

func (j *job) scope() *deploy.Scope {
	s := j.engine.scope(j.pipe, j.run, j.event)
	s.Job = j.key.job
	return s
}

// step runs one step with its retries and records it. The error is one
// sentence about how it ended.
func (j *job) step(ctx context.Context, conn *host.Conn, step *deploy.Step, dir string) error {
	index := j.next
	j.next++
	safe := context.WithoutCancel(ctx)
	st := deploy.RunStep{Index: index, Name: step.Name, State: deploy.Running, Tries: 1, Started: time.Now()}
	// The record of the beginning is written beside the step, not before it:
	// a claim that is on disk already says that the job may have begun.
	saved := make(chan error, 1)
	go func(st deploy.RunStep) { saved <- j.engine.Store.SaveStep(safe, j.at(index), st) }(st)

	log := newStepLog(safe, j.engine.Store, j.at(index), j.secrets)
	for _, n := range j.notes {
		log.say("deployhook: %s", n)
	}
	j.notes = nil
	var err error
	for {
		var res host.StepResult
		res, err = j.try(ctx, conn, step, dir, log)
		st.ExitCode, st.Signal = res.ExitCode, res.Signal
		for _, name := range res.LeftOver {
			log.say("deployhook: ended what the step left running: %s", name)
		}
		if err == nil || ctx.Err() != nil || errors.Is(err, host.ErrGone) || st.Tries > step.Retry.Limit {
			break
		}
		wait := retryDelay(step.Retry, st.Tries)
		log.say("deployhook: %v; try %d of %d in %v", err, st.Tries+1, step.Retry.Limit+1, wait)
		j.beat(wait)
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
		j.log.Error("writing a step's log", "step", step.Name, "err", lerr)
	}
	serr := <-saved
	if serr2 := j.engine.Store.SaveStep(safe, j.at(index), st); serr2 != nil {
		serr = serr2
	}
	if serr != nil {
		j.log.Error("recording a step", "step", step.Name, "err", serr)
	}
	return err
}

// sayNotes gives the notes that no step came for a place of their own, under a
// name.
func (j *job) sayNotes(ctx context.Context, name string) {
	if len(j.notes) == 0 {
		return
	}
	now := time.Now()
	log := newStepLog(ctx, j.engine.Store, j.at(j.next), j.secrets)
	for _, n := range j.notes {
		log.say("deployhook: %s", n)
	}
	st := deploy.RunStep{Index: j.next, Name: name, State: deploy.Succeeded, Tries: 1, Started: now, Ended: now}
	j.next++
	if err := errors.Join(log.close(), j.engine.Store.SaveStep(ctx, j.at(st.Index), st)); err != nil {
		j.log.Error("recording a step", "step", st.Name, "err", err)
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

// try runs a step once.
func (j *job) try(ctx context.Context, conn *host.Conn, step *deploy.Step, dir string, log *stepLog) (host.StepResult, error) {
	env, err := j.environment(ctx, step, log)
	if err != nil {
		return host.StepResult{}, err
	}
	req := host.Step{
		ID: strconv.Itoa(j.next - 1), Command: step.Run, Shell: first(step.Shell, j.spec.Shell),
		Dir: path.Join(dir, first(step.WorkingDir, j.spec.WorkingDir)),
		Env: env, Path: j.spec.Path, Timeout: step.Timeout, Limits: host.Limits(j.spec.Limits),
	}
	if req.Timeout == 0 {
		req.Timeout = j.spec.Timeout
	}
	if j.payload != nil {
		req.Files = map[string][]byte{"DEPLOYHOOK_PAYLOAD_FILE": j.payload}
	}
	j.beat(req.Timeout)
	res, err := conn.Step(ctx, req, log.write)
	j.beat(0)
	if err != nil {
		return res, err
	}
	return res, stepError(res, req.Timeout)
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
func (j *job) environment(ctx context.Context, step *deploy.Step, log *stepLog) ([]string, error) {
	s := j.scope()
	var env []string
	for _, list := range [][]deploy.Variable{j.pipe.Env, j.spec.Env, step.Env} {
		for _, v := range list {
			text, err := v.Value.Expand(s)
			if err != nil {
				return nil, fmt.Errorf("env %s: %w", v.Name, err)
			}
			s.Env[v.Name] = text
			env = append(env, v.Name+"="+text)
		}
	}
	for _, v := range j.spec.Secrets {
		value, err := j.engine.Secret(ctx, v.Secret)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(j.secrets, value) {
			j.secrets = append(j.secrets, value)
			log.mask(j.secrets)
		}
		env = append(env, v.Name+"="+value)
	}
	return append(env, j.facts(step.Name)...), nil
}

// facts are the variables DEPLOYHOOK_…
func (j *job) facts(step string) []string {
	r, ev := j.run, j.event
	env := []string{"CI=true", "DEPLOYHOOK=true"}
	add := func(name, value string) {
		if i := strings.IndexByte(value, 0); i >= 0 {
			value = value[:i] // a variable cannot hold more
		}
		env = append(env, "DEPLOYHOOK_"+name+"="+value)
	}
	add("RUN_ID", strconv.FormatInt(r.ID, 10))
	add("PIPELINE", r.Pipeline)
	add("JOB", j.key.job)
	add("STEP", step)
	add("HOST", j.host())
	add("EVENT", string(r.Event))
	add("SHA", r.Commit)
	add("BEFORE", r.Before)
	add("REF", r.Ref)
	add("BRANCH", ev.Branch)
	add("TAG", ev.Tag)
	add("REPO", r.Repository)
	add("ACTOR", r.Actor)
	add("MESSAGE", deploy.Cut(r.Message, messageMax))
	if j.workspace != "" {
		add("WORKSPACE", j.workspace)
	}
	if j.spec.Deploys() {
		root := j.spec.Release.Path
		add("RELEASE", j.release)
		add("RELEASE_PATH", j.releasePath)
		add("PREVIOUS_RELEASE", j.previous)
		if j.spec.Release.InPlace {
			add("CURRENT_PATH", root)
			add("SHARED_PATH", root)
		} else {
			add("CURRENT_PATH", path.Join(root, "current"))
			add("SHARED_PATH", path.Join(root, "shared"))
		}
	}
	add("ENVIRONMENT", "") // jobs have none in this version
	url := ""
	if j.engine.URL != "" {
		url = strings.TrimSuffix(j.engine.URL, "/") + "/runs/" + strconv.FormatInt(r.ID, 10)
	}
	add("RUN_URL", url)
	return env
}
