// Package pipeline is the engine: it claims jobs, runs their steps on their
// hosts, and writes down what happened.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/git"
	"deployhook/internal/host"
)

// sweepEvery is how often the engine looks for work that no wake-up told of.
const sweepEvery = 3 * time.Second

// waitsMost bounds how many reasons for waiting one pass writes down.
const waitsMost = 100

// resolvers bounds how many runs ask their repository for a commit or a diff
// at once, before any of their jobs takes a worker.
const resolvers = 2

// Queue is where jobs stand.
type Queue interface {
	Active(ctx context.Context) (*deploy.Active, error)
	Claim(ctx context.Context, m deploy.Move, taken func()) error
	Apply(ctx context.Context, moves ...deploy.Move) error
	Create(ctx context.Context, r deploy.NewRun, cancel []deploy.Move) (int64, error)
	Wake() <-chan struct{}
}

// Records is where the engine writes what a job did.
type Records interface {
	SaveStep(ctx context.Context, at deploy.StepAt, st deploy.RunStep) error
	AppendLog(ctx context.Context, at deploy.StepAt, seq int64, lines []deploy.LogLine) error
	DropLog(ctx context.Context, at deploy.StepAt, from, to int64) error
	DropOutputs(ctx context.Context, at deploy.StepAt) error
	Outputs(ctx context.Context, run int64) (map[string]map[string]string, error)
	SetCommit(ctx context.Context, run int64, commit, message string, deferred bool) error
}

// Holds is what keeps pipelines and paths back.
type Holds interface {
	Holds(ctx context.Context) ([]deploy.Hold, error)
	AddHold(ctx context.Context, h deploy.Hold) error
	RemoveHold(ctx context.Context, pipeline string, kind deploy.HoldKind) error
	FreeLock(ctx context.Context, lock string) error
}

// Seen is what can be looked up: a run, what was last seen to be live, and all
// that has not ended.
type Seen interface {
	Run(ctx context.Context, id int64) (*deploy.Run, error)
	SetLive(ctx context.Context, l deploy.Live) error
	Live(ctx context.Context, host, path string) (*deploy.Live, error)
	Unfinished(ctx context.Context) (*deploy.Active, error)
}

// Store is all that the engine needs of the database.
type Store interface {
	Queue
	Records
	Holds
	Seen
	Daemon() string
}

// Options are what an engine is made of. All but URL are needed.
type Options struct {
	Store   Store
	Hosts   *host.Hosts
	Mirrors *git.Mirrors
	Workers int
	URL     string // server.url, for DEPLOYHOOK_RUN_URL; empty = not set
	Log     *slog.Logger

	// Config is the config in force; ConfigOf an earlier one, by its digest.
	Config   func() *deploy.Config
	ConfigOf func(ctx context.Context, digest string) (*deploy.Config, error)
	// Secret reads a secret's value now.
	Secret func(ctx context.Context, s deploy.Secret) (string, error)
	// Event is what brought a run about, and the JSON that it came as; both
	// nil for a run that no delivery started.
	Event func(ctx context.Context, run *deploy.Run) (*deploy.Event, []byte, error)
}

// Engine runs jobs. Make one with [New] and call [Engine.Run].
type Engine struct {
	Options
	poke     chan struct{}
	workers  sync.WaitGroup
	resolve  chan struct{}
	progress atomic.Int64  // ms of the last pass of the loop
	over     chan struct{} // closed when the grace of a stop is over

	mu        sync.Mutex
	running   map[jobKey]*job // claimed by this engine
	resolving map[int64]bool
	away      map[string]*away         // hosts where no job can start now
	doors     map[string]chan struct{} // of paths, by their locks: full while no switch may begin there
	stopped   bool                     // no job starts any more
}

type jobKey struct {
	run int64
	job string
}

// New makes an engine that has not started yet.
func New(o Options) *Engine {
	return &Engine{
		Options: o, poke: make(chan struct{}, 1), resolve: make(chan struct{}, resolvers),
		over: make(chan struct{}), running: map[jobKey]*job{}, resolving: map[int64]bool{}, away: map[string]*away{},
		doors: map[string]chan struct{}{},
	}
}

// errShutdown ends the jobs that are still running when the grace is over.
var errShutdown = errors.New("deployhook stopped")

// Run claims and runs jobs until ctx ends; then no job starts any more, and
// those that run go on until grace is over: what is ended then is started
// again, or is lost, as its on_crash says. It returns when all have ended.
func (e *Engine) Run(ctx context.Context, grace time.Duration) error {
	work, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	if err := e.recoverAll(work); err != nil {
		return err
	}
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		began := time.Now()
		if err := e.pass(work); err != nil && ctx.Err() == nil {
			e.Log.Error("choosing the next job", "err", err)
		}
		e.progress.Store(time.Now().UnixMilli())
		rest(ctx, time.Since(began))
		select {
		case <-ctx.Done():
		case <-e.Store.Wake():
		case <-e.poke:
		case <-tick.C:
		}
	}
	e.mu.Lock()
	e.stopped = true
	e.mu.Unlock()
	done := make(chan struct{})
	go func() { e.workers.Wait(); close(done) }()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		end(errShutdown)
		close(e.over)
		<-done
	}
	return nil
}

// rest keeps the loop from taking the machine for itself where thousands of
// runs wait: a pass looks at all of them.
func rest(ctx context.Context, pass time.Duration) {
	const short, share, most = 5 * time.Millisecond, 10, 5 * time.Second
	if pass < short {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(min(share*pass, most)):
	}
}

// Progress is when the engine last looked for work: the watchdog's food.
func (e *Engine) Progress() time.Time { return time.UnixMilli(e.progress.Load()) }

// goesOn is how long a job may take between two signs of life, a step's own
// time aside: every call of an agent has a deadline below it.
const goesOn = 75 * time.Minute

// beat is a sign of life of a job: the next one comes within goesOn.
func (j *job) beat() { j.due.Store(time.Now().Add(goesOn).UnixMilli()) }

// beat is a sign of life of a step: the next one comes within more than goesOn,
// and until then nothing else is asked of its job.
func (p *jobPart) beat(more time.Duration) {
	p.due.Store(time.Now().Add(goesOn + more).UnixMilli())
}

// rest says that no step of the part runs any more.
func (p *jobPart) rest() {
	p.job.beat()
	p.due.Store(0)
}

// overdue says whether a sign of life of the job is overdue.
func (j *job) overdue(now time.Time) bool {
	stepping := false
	for _, p := range j.all() {
		if due := p.due.Load(); due != 0 {
			stepping = true
			if now.UnixMilli() > due {
				return true
			}
		}
	}
	return !stepping && now.UnixMilli() > j.due.Load()
}

// Stuck names a job whose sign of life is overdue: its worker hangs, and only
// another start of the daemon helps. Empty: there is none.
func (e *Engine) Stuck(now time.Time) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, j := range e.running {
		if j.overdue(now) {
			return fmt.Sprintf("run %d job %s", k.run, k.job)
		}
	}
	return ""
}

// Running is how many jobs run now.
func (e *Engine) Running() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.running)
}

// nudge makes the loop look again.
func (e *Engine) nudge() {
	select {
	case e.poke <- struct{}{}:
	default:
	}
}

// pass looks once at everything that is not terminal: runs that need their
// commit, jobs whose needs have ended, jobs that can be claimed.
func (e *Engine) pass(ctx context.Context) error {
	active, err := e.Store.Active(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, run := range active.Runs {
		switch {
		case unresolved(&run):
			e.startResolve(ctx, run.ID)
			for k := range run.Jobs {
				run.Jobs[k].Ready = false // it has its place in line, and cannot go yet
			}
		case needsAdvance(&run):
			e.startAdvance(ctx, run.ID)
		}
	}
	e.addAway(ctx, active, now)
	next := deploy.Schedule(active, e.free(), now)
	// All at once: they share a transaction.
	claims := make(chan error, len(next.Claims))
	for _, c := range next.Claims {
		go func() { claims <- e.claim(ctx, c, runOf(active, c.Run), now) }()
	}
	for range next.Claims {
		err = errors.Join(err, <-claims)
	}
	if err != nil {
		return err
	}
	// What jobs wait for is for people to read: where thousands wait, the
	// next passes come to the rest.
	return e.applyEach(ctx, next.Waits[:min(len(next.Waits), waitsMost)])
}

// applyEach makes moves that do not belong together: one that somebody else
// was first with is left out.
func (e *Engine) applyEach(ctx context.Context, moves []deploy.Move) error {
	err := e.Store.Apply(ctx, moves...)
	if !errors.Is(err, deploy.ErrStale) {
		return err
	}
	for _, m := range moves {
		if err := e.Store.Apply(ctx, m); err != nil && !errors.Is(err, deploy.ErrStale) {
			return err
		}
	}
	return nil
}

func runOf(a *deploy.Active, id int64) *deploy.Run {
	for i := range a.Runs {
		if a.Runs[i].ID == id {
			return &a.Runs[i]
		}
	}
	return nil
}

// claim takes a job and its locks in one transaction. Meanwhile the job reads
// what it is about and opens its agent; it waits for the claim before it does
// anything that can be seen.
func (e *Engine) claim(ctx context.Context, c deploy.Claim, run *deploy.Run, now time.Time) error {
	j := e.newJob(c.Run, c.Job, c.Attempt+1)
	j.over, j.deploys, j.paths, j.run = c.Supersedes, c.Deploys, c.Locks, run
	e.start(ctx, j, (*job).do)
	err := e.Store.Claim(ctx, deploy.Move{
		Run: c.Run, Job: c.Job, Attempt: c.Attempt, From: c.From, To: deploy.Running, Locks: c.Locks, At: now,
	}, sync.OnceFunc(func() { close(j.taken) }))
	if err != nil {
		j.cancel(err)
	}
	j.claimed <- err
	if errors.Is(err, deploy.ErrStale) || errors.Is(err, deploy.ErrLocked) {
		return nil // somebody was first: the next pass sees it
	}
	if err != nil {
		return fmt.Errorf("claiming run %d job %s: %w", c.Run, c.Job, err)
	}
	return nil
}

func (e *Engine) newJob(run int64, name string, attempt int) *job {
	return &job{
		engine: e, key: jobKey{run, name}, attempt: attempt, taken: make(chan struct{}), claimed: make(chan error, 1), gaveUp: make(chan struct{}, 1),
		done: make(chan struct{}),
		log:  e.Log.With("run", run, "job", name, "attempt", attempt),
	}
}

// start runs work on a job in a goroutine of its own, and records its outcome.
func (e *Engine) start(ctx context.Context, j *job, work func(*job, context.Context) outcome) {
	ctx, j.cancel = context.WithCancelCause(ctx)
	j.beat()
	j.canceled = func() bool { return ctx.Err() != nil }
	e.mu.Lock()
	e.running[j.key] = j
	e.mu.Unlock()
	e.workers.Go(func() {
		defer j.cancel(nil)
		began := time.Now()
		out := j.conclude(ctx, j.lacking(work(j, ctx)))
		j.finish(context.WithoutCancel(ctx), out)
		j.hangUp()
		e.mu.Lock()
		if e.running[j.key] == j { // its next attempt may have begun
			delete(e.running, j.key)
		}
		e.mu.Unlock()
		close(j.done)
		if out.state == deploy.Running {
			return
		}
		if out.state == deploy.Waiting {
			j.log.Warn("job waits", "err", out.waiting)
			return
		}
		attrs := []any{"state", out.state, "took", time.Since(began).Round(time.Millisecond)}
		if out.err != "" {
			attrs = append(attrs, "err", out.err)
		}
		j.log.Info("job finished", attrs...)
		e.nudge()
	})
}

// free is how many more jobs may start.
func (e *Engine) free() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped {
		return 0
	}
	busy := 0
	for _, j := range e.running {
		if !j.unreachable.Load() {
			busy++
		}
	}
	return max(0, e.Workers-busy)
}

// job of this engine that runs now; nil when there is none.
func (e *Engine) job(run int64, name string) *job {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.running[jobKey{run, name}]
}

// needsAdvance says whether a run has a job that could be ready but is not:
// what a crash between two transactions, or a run that begins with an if, leaves.
func needsAdvance(run *deploy.Run) bool {
	ended := map[string]bool{}
	for _, j := range run.Jobs {
		ended[j.Name] = j.State.Terminal()
	}
	for _, j := range run.Jobs {
		if j.Ready || j.State != deploy.Queued && j.State != deploy.Waiting {
			continue
		}
		all := true
		for _, n := range j.Needs {
			all = all && ended[n]
		}
		if all {
			return true
		}
	}
	return false
}
