package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/git"
	"deployhook/internal/host"
)

// job is one attempt at a job of a run, while it runs here.
type job struct {
	engine   *Engine
	key      jobKey
	attempt  int
	deploys  bool
	over     []deploy.JobRef // deploy jobs that end when this one begins
	taken    chan struct{}   // closed when the job is this engine's, which may not be on disk yet
	claimed  chan error      // the claim is on disk, or was not made
	cancel   context.CancelCauseFunc
	canceled func() bool
	done     chan struct{} // closed when its end is on disk
	log      *slog.Logger

	run     *deploy.Run
	pipe    *deploy.Pipeline
	spec    *deploy.Job
	event   *deploy.Event
	payload []byte
	needed  map[string]map[string]string // outputs of the jobs before it, by job
	begun   bool                         // steps of it may have run; a deploy job has then passed what could keep it from beginning
	release string                       // the id of the release to switch to, the same on all hosts
	parts   []*jobPart
	turns   chan struct{} // full while as many hosts get the tree as may at once

	// Of a switch that was cut short.
	reopened    int           // times that its paths were opened again
	undone      error         // why the release is put back
	unreachable atomic.Bool   // one of its paths cannot be opened now
	due         atomic.Int64  // ms until which the job must have said that it goes on
	gaveUp      chan struct{} // somebody abandons a host that cannot be reached

	mu       sync.Mutex
	secrets  []string                             // values to mask, all that could be read
	cleaning map[*jobPart]context.CancelCauseFunc // end the steps that run although the job was canceled
	paths    []string                             // locks of the paths that it deploys to, and of its group
	switched *move                                // the switch has begun: a cancel acts only by undoing; nil = not yet
	sizes    deploy.OutputSizes                   // what its outputs take
	decided  bool                                 // its attempt goes on another time, and nobody has canceled it
}

// move is a switch from one release to another; from is empty for the first.
type move struct{ from, to string }

// outcome is how an attempt ended. Queued means that the job is to be claimed
// again, running that the next start of the daemon has to settle it.
type outcome struct {
	state   deploy.State
	cause   string
	err     string
	waiting string // with waiting: for what

	whole bool // of all hosts: their paths were opened again and settled

	// blocked is for lost: the locks that stay, each with the sentence that says
	// how to go on.
	blocked map[string]string
}

func (o *outcome) block(locks map[string]string) {
	if len(locks) > 0 && o.blocked == nil {
		o.blocked = map[string]string{}
	}
	maps.Copy(o.blocked, locks)
}

func failed(err error) outcome { return outcome{state: deploy.Failed, err: err.Error()} }

// canceled is the cause of a context that somebody ended.
type canceled string

func (c canceled) Error() string { return "canceled " + string(c) }

// ends turns an error into an outcome: what was canceled is not a failure, and
// what a stop of the daemon cut short goes on as on_crash says.
func (j *job) ends(ctx context.Context, err error) outcome {
	var c canceled
	switch cause := context.Cause(ctx); {
	case ctx.Err() == nil:
		return failed(err)
	case errors.As(cause, &c):
		return outcome{state: deploy.Canceled, cause: string(c)}
	case errors.Is(cause, errShutdown):
		return j.interrupted("deployhook was stopped during the job")
	}
	return failed(err)
}

// interrupted is the outcome of a job that a stop or a crash cut short.
func (j *job) interrupted(what string) outcome {
	if !j.begun || j.spec == nil || j.spec.OnCrash != deploy.CrashStop {
		return outcome{state: deploy.Queued}
	}
	what += ", and on_crash is stop: nobody knows how far its steps came"
	if j.spec.Deploys() {
		return j.blockedAt(j.active(), what)
	}
	return outcome{state: deploy.Lost, err: what}
}

// load reads what the job is about.
func (j *job) load(ctx context.Context) error {
	if err := j.find(ctx); err != nil {
		return err
	}
	return j.read(ctx)
}

// find looks up the run of the job and what its config says of it.
func (j *job) find(ctx context.Context) error {
	e := j.engine
	var err error
	if j.run == nil {
		if j.run, err = e.Store.Run(ctx, j.key.run); err != nil {
			return fmt.Errorf("reading run %d: %w", j.key.run, err)
		}
	}
	j.log = j.log.With("pipeline", j.run.Pipeline)
	if j.run.Commit != "" {
		j.log = j.log.With("commit", j.run.Commit)
	}
	if j.pipe, err = e.pipelineOf(ctx, j.run); err != nil {
		return err
	}
	if j.spec = j.pipe.Job(j.key.job); j.spec == nil {
		return fmt.Errorf("the config of run %d has no job %s", j.run.ID, j.key.job)
	}
	j.split()
	return nil
}

// read reads the event and the secrets.
func (j *job) read(ctx context.Context) error {
	j.mu.Lock()
	for i := range j.run.Jobs {
		if rj := &j.run.Jobs[i]; rj.Name == j.key.job {
			j.paths = pathLocks(rj)
		}
	}
	j.mu.Unlock()
	var err error
	if j.event, j.payload, err = j.engine.eventOf(ctx, j.run); err != nil {
		return err
	}
	j.learn(j.engine.secretValues(ctx, j.run, j.spec)...)
	return j.readOutputs(ctx)
}

// learn adds values to those that are masked, and gives all of them.
func (j *job) learn(values ...string) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, v := range values {
		if !slices.Contains(j.secrets, v) {
			j.secrets = append(j.secrets, v)
		}
	}
	return slices.Clip(j.secrets)
}

// secretValues gives every value that must not come out in a log. A secret
// that cannot be read has no value to hide; who needs it fails by itself. The
// commands of secrets that this job does not use are not run for that.
func (e *Engine) secretValues(ctx context.Context, run *deploy.Run, spec *deploy.Job) []string {
	var values []string
	add := func(s *deploy.Secret, used bool) {
		if s == nil || s.Command != "" && !used {
			return
		}
		if v, err := e.Secret(ctx, *s); err == nil {
			values = append(values, v)
		}
	}
	for _, s := range spec.Secrets {
		add(&s.Secret, true)
	}
	cfg := e.Config()
	for i := range cfg.Secrets {
		add(&cfg.Secrets[i], false)
	}
	for _, h := range cfg.Hooks {
		for _, s := range slices.Concat(h.Secrets, h.Tokens) {
			add(&s, false)
		}
	}
	if p := cfg.Pipeline(run.Pipeline); p != nil {
		add(p.Auth.Token, false)
		add(p.Auth.SSHKey, false)
	}
	hosts := slices.Clone(cfg.Hosts)
	if old, err := e.ConfigOf(ctx, run.Config); err == nil && old != cfg {
		hosts = append(hosts, old.Hosts...) // one that today's file has no more
	}
	for i := range hosts {
		for h := &hosts[i]; h != nil; h = h.Jump {
			add(h.Identity, false)
		}
	}
	return values
}

// do runs the job from its beginning.
func (j *job) do(ctx context.Context) (out outcome) {
	err := j.find(ctx)
	if err == nil {
		opened := make(chan error, 1)
		go func() { opened <- j.each(func(p *jobPart) error { return p.open(ctx) }) }()
		err = j.read(ctx)
		if oerr := <-opened; err == nil {
			err = oerr
		}
	}
	defer func() {
		// Jobs that need this one begin beside the end of its agents. A job
		// that is to be begun again must have seen that end, and a path be free.
		if out.state != deploy.Succeeded || j.deploys {
			j.hangUp()
		}
	}()
	if err == nil && j.repeatable() {
		select {
		case <-j.taken:
			out = j.work(ctx, nil)
			if !j.isClaimed() {
				out = outcome{state: deploy.Running}
			}
			return out
		case cerr := <-j.claimed:
			j.claimed <- cerr
		}
	}
	if !j.isClaimed() {
		return outcome{state: deploy.Running}
	}
	if out, wait := j.mustWait(); wait && err != nil {
		return out
	}
	return j.work(ctx, err)
}

// mustWait is the outcome of a job one of whose hosts has an agent of another
// deployhook: it goes on when that host can be talked to again.
func (j *job) mustWait() (outcome, bool) {
	for _, p := range j.parts {
		if why := p.whyAway(); errors.Is(why, host.ErrProtocol) {
			j.engine.setAway(p.host, j.spec.Agent(), why)
			return outcome{state: deploy.Waiting, waiting: why.Error()}, true
		}
	}
	return outcome{}, false
}

// open opens the agent of a part, and its workspace when it is not a deploy
// job's.
func (p *jobPart) open(ctx context.Context) error {
	err := p.connect(ctx)
	switch {
	case errors.Is(err, host.ErrProtocol):
		p.setAway(p.named(err))
		return err
	case err != nil && p.host == deploy.Local:
		return fmt.Errorf("opening an agent: %w", err)
	case err == nil && !p.deploys:
		p.workspace, err = p.conn.OpenWorkspace(ctx, p.workspaceName())
	}
	return err
}

// workspaceName is that of no other attempt, and of no other host: two may be
// one machine by two names.
func (p *jobPart) workspaceName() string {
	name := fmt.Sprintf("%d-%s-%d", p.key.run, p.key.job, p.attempt)
	if p.far() {
		name += "-" + p.host
	}
	return name
}

// repeatable says whether the job's steps may run twice. Then they need not
// wait until the claim is on disk: when that is lost in a crash, the job is
// queued as before, and to begin it again is what on_crash asks for.
func (j *job) repeatable() bool { return !j.deploys && j.spec.OnCrash == deploy.CrashRerun }

// isClaimed waits for the claim; without it the job is not this engine's.
func (j *job) isClaimed() bool {
	err := <-j.claimed
	j.claimed <- err
	return err == nil
}

// work runs the job, or ends it for an error.
func (j *job) work(ctx context.Context, err error) outcome {
	j.log.Info("job started")
	if err == nil {
		defer j.sayNotes(context.WithoutCancel(ctx), "order")
	}
	switch {
	case err != nil:
		return j.ends(ctx, err)
	case j.spec.Deploys() && j.spec.Release.InPlace:
		return j.deployInPlace(ctx)
	case j.run.Target != "":
		return j.rollback(ctx)
	case j.spec.Deploys():
		return j.deploy(ctx)
	}
	return j.test(ctx)
}

// test runs the steps in a fresh workspace of the commit, on all hosts side by
// side.
func (j *job) test(ctx context.Context) outcome {
	var x *git.Export
	if j.pipe.Repository != "" {
		mirror, err := j.fetch(ctx)
		if err == nil {
			x, err = j.bring(ctx, mirror)
		}
		if err != nil {
			return j.ends(ctx, err)
		}
	}
	j.begun = true
	kind := sync.OnceValue(func() deploy.CacheKind { return j.cacheKind(ctx) })
	return j.every(func(p *jobPart) outcome {
		if x != nil {
			put := func(fn func(deploy.TreeFile, io.Reader) error) error { return x.Walk(ctx, fn) }
			if err := p.inTurn(ctx, func() error { return p.conn.Put(ctx, put) }); err != nil {
				return j.ends(ctx, err)
			}
		}
		return p.cached(ctx, kind, func() outcome { return p.steps(ctx, p.workspace) })
	})
}

// fetch sees to it that the commit is here.
func (j *job) fetch(ctx context.Context) (*git.Mirror, error) {
	mirror, err := j.engine.mirror(ctx, j.pipe)
	if err != nil {
		return nil, err
	}
	if _, err := mirror.Fetch(ctx, j.run.Commit, j.run.Ref); err != nil {
		return nil, err
	}
	return mirror, nil
}

// bring gives the commit as the job gets it, one for all hosts. What is kept
// elsewhere comes first: whoever waits for files would take that for a stall.
func (j *job) bring(ctx context.Context, mirror *git.Mirror) (*git.Export, error) {
	x := j.export(mirror, j.run.Commit)
	return x, x.Bring(ctx)
}

// export is a commit as the job gets it: a release has what git archive would
// give, and what is tested or deployed in place is all of it.
func (j *job) export(mirror *git.Mirror, commit string) *git.Export {
	v := git.View{}
	if r := j.spec.Release; r != nil {
		v = git.View{Subdir: r.Subdir, Rules: !r.InPlace}
	}
	return mirror.Export(commit, v)
}

// stop ends the job for a reason: at once, or, once its switch has begun, by
// undoing the switch. A second stop also ends the steps that clean up. It
// gives false when it is too late for this attempt, and another will follow.
func (j *job) stop(why string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.end(why)
	return !j.decided
}

// conclude is the last word on an attempt: one that is canceled does not go on
// another time.
func (j *job) conclude(ctx context.Context, out outcome) outcome {
	j.mu.Lock()
	defer j.mu.Unlock()
	if out.state != deploy.Queued && out.state != deploy.Waiting {
		return out
	}
	var c canceled
	if errors.As(context.Cause(ctx), &c) {
		return outcome{state: deploy.Canceled, cause: string(c)}
	}
	j.decided = true
	return out
}

// end is stop, with the lock held.
func (j *job) end(why string) {
	for _, end := range j.cleaning {
		end(canceled(why))
	}
	j.cancel(canceled(why))
}

// enterSwitch marks the point from which on the job ends only with the new
// release live or the old one back. It fails when the job was canceled before.
func (j *job) enterSwitch(ctx context.Context) error {
	open, err := j.engine.closeAll(ctx, locksAt(j.spec.Hosts, j.spec.Release.Path))
	if err != nil {
		return err
	}
	defer open()
	j.mu.Lock()
	defer j.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	j.switched = j.moves()
	return nil
}

// moves is the switch of the job, for people: from what its first host has.
func (j *job) moves() *move {
	m := &move{to: j.release}
	for _, p := range j.parts {
		if !p.there {
			m.from = p.previous
			break
		}
	}
	return m
}

// stopBeforeSwitch ends the job unless its switch has begun, and says whether
// it did.
func (j *job) stopBeforeSwitch(why string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.switched != nil {
		return false
	}
	j.end(why)
	return true
}

// finish writes the outcome down, with what it means for the other jobs, in
// one transaction. A database that cannot write now is asked again: the result
// of a job must not be lost to a full disk.
func (j *job) finish(ctx context.Context, out outcome) {
	if out.state == deploy.Running {
		return // unfinished, for the next start to settle
	}
	delay := 100 * time.Millisecond
	for {
		err := j.record(ctx, out)
		if err == nil {
			return
		}
		if !errors.Is(err, deploy.ErrStale) {
			j.log.Error("recording the end of a job", "state", out.state, "err", err)
			if j.engine.draining() {
				return // the next start finds the job running, and settles it
			}
		}
		j.beat()
		time.Sleep(delay)
		delay = min(2*delay, 15*time.Second)
	}
}

func (j *job) record(ctx context.Context, out outcome) error {
	run, err := j.engine.Store.Run(ctx, j.key.run)
	if err != nil {
		return err
	}
	now := time.Now()
	for i := range run.Jobs {
		rj := &run.Jobs[i]
		if rj.Name != j.key.job {
			continue
		}
		if rj.State != deploy.Running || rj.Attempt != j.attempt {
			j.log.Warn("the job was ended by somebody else", "state", rj.State)
			return nil
		}
		rj.State, rj.Cause, rj.Error = out.state, out.cause, out.err
	}
	moves := []deploy.Move{{
		Run: run.ID, Job: j.key.job, Attempt: j.attempt, From: deploy.Running, To: out.state,
		Cause: out.cause, Error: out.err, BlockedAt: out.blocked, Waiting: out.waiting, At: now,
	}}
	// What needs a diff may have to ask the repository for it: the sweep does,
	// and the end of this job waits for nobody.
	if out.state.Terminal() && !asksPaths(j.pipe) {
		next, err := j.engine.advance(ctx, run)
		if err != nil {
			// The end of this job is certain; the sweep finds those after it.
			j.log.Warn("deciding what comes after a job", "err", err)
		} else {
			moves = append(moves, next...)
		}
	}
	return j.engine.Store.Apply(ctx, moves...)
}

// asksPaths says whether a job of the pipeline depends on which paths changed.
func asksPaths(p *deploy.Pipeline) bool {
	return p != nil && slices.ContainsFunc(p.Jobs, func(j deploy.Job) bool { return j.If != nil && j.If.UsesChanged() })
}

func (e *Engine) draining() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stopped
}
