// Package daemon puts the parts together: start, ready, reload, drain, stop.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	systemd "github.com/coreos/go-systemd/v22/daemon"
	journald "github.com/coreos/go-systemd/v22/journal"
	"github.com/spf13/pflag"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
	"deployhook/internal/git"
	"deployhook/internal/host"
	"deployhook/internal/notify"
	"deployhook/internal/pipeline"
	"deployhook/internal/receiver"
	"deployhook/internal/store"
	"deployhook/internal/web"
)

// Bounds of the public server.
const (
	headerTime = 10 * time.Second
	idleTime   = 2 * time.Minute
	headerMost = 64 << 10
	trimEvery  = time.Hour
	stuckAfter = 2 * time.Minute // without a pass of the engine the watchdog gets nothing
)

// Options are what serve was started with.
type Options struct {
	Config  string // path of deploy.yaml
	Flags   *pflag.FlagSet
	Version string
	Stderr  io.Writer
	Clock   func() time.Time // what agents are told of the time; default time.Now
}

// daemon is one running process.
type daemon struct {
	o        Options
	log      *slog.Logger
	file     atomic.Pointer[config.File]
	store    *store.Store
	hosts    *host.Hosts
	engine   *pipeline.Engine
	rc       *receiver.Receiver
	api      *web.Public
	outbox   *notify.Outbox
	pair     *certificate // nil without server.tls
	draining atomic.Bool
	refusing atomic.Bool // deliveries are answered 503
	size     sizeProbe
	reloaded chan struct{} // has one when another config is in force

	mu    sync.Mutex
	known map[string]*deploy.Config // configs of accepted runs, by digest
}

// Run serves until ctx ends, and then lets running jobs go on for the grace
// that the config gives them.
func Run(ctx context.Context, o Options) error {
	d := &daemon{o: o, known: map[string]*deploy.Config{}, reloaded: make(chan struct{}, 1)}
	f, err := d.read(ctx)
	if err != nil {
		return err
	}
	// A reader of the log that goes away, as tee may, must not take the daemon
	// with it. Caught and not ignored: what it starts would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	d.log = logger(o.Stderr, f.Server)
	for _, w := range f.Warnings {
		d.log.Warn("config", "err", w.String())
	}
	return d.run(ctx, f)
}

// read reads the config and sees to it that no hook has a secret that lets
// anybody in, and that the certificate can be served.
func (d *daemon) read(ctx context.Context) (*config.File, error) {
	f, err := config.Load(d.o.Config, d.o.Flags)
	if err != nil {
		return nil, err
	}
	errs, _ := config.CheckSecrets(ctx, f)
	pair, _ := config.CheckTLS(ctx, f, time.Now())
	if errs = append(errs, pair...); len(errs) > 0 {
		return nil, errs
	}
	return f, nil
}

// withUnits writes a duration as 1.5s: a number would not say what it counts.
func withUnits(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// logger writes to w, or into systemd's journal where that reads w.
func logger(w io.Writer, s config.Server) *slog.Logger {
	if isJournal(w) {
		return slog.New(newJournal(w, journald.Send, lines(s, true)))
	}
	return slog.New(lines(s, false)(w))
}

// lines makes handlers that write a record as a line, without its time when
// who reads it has the time already.
func lines(s config.Server, timeless bool) func(io.Writer) slog.Handler {
	var level slog.Level
	_ = level.UnmarshalText([]byte(s.LogLevel)) // the config has checked it
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if timeless && len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return withUnits(groups, a)
	}}
	return func(w io.Writer) slog.Handler {
		if s.LogFormat == "json" {
			return slog.NewJSONHandler(w, o)
		}
		return slog.NewTextHandler(w, o)
	}
}

func (d *daemon) run(ctx context.Context, f *config.File) error {
	var err error
	if d.store, err = store.Open(ctx, f.Server.Data, d.log); err != nil {
		return err
	}
	defer d.store.Close()
	if err := d.use(ctx, f); err != nil {
		return err
	}
	if err := d.store.Tell(ctx, teller{d}); err != nil {
		return err
	}
	d.store.Follow(d.follow)
	mirrors, err := git.Open(filepath.Join(f.Server.Data, "git"), d.log)
	if err != nil {
		return err
	}
	defer mirrors.Close()
	if f.Server.TLS.On() {
		if d.pair, err = openCertificate(ctx, f.Server.TLS, d.log); err != nil {
			return err
		}
	}
	public, passed, err := listen(f.Server.Listen)
	if err != nil {
		return err
	}
	defer public.Close()
	control, err := web.Listen(f.Server.Socket)
	if err != nil {
		return err
	}
	defer control.Close()
	d.hosts = host.New(host.Options{
		State: filepath.Join(f.Server.Data, "agent"), Sockets: f.Server.Agent.Sockets(), Version: d.o.Version, Log: d.log, Secret: config.Resolve,
		Clock: d.o.Clock,
	})
	defer d.hosts.Close()
	d.engine = pipeline.New(pipeline.Options{
		Store: d.store, Hosts: d.hosts, Mirrors: mirrors, Workers: f.Server.Workers, URL: f.Server.URL, Log: d.log,
		Config: d.config, ConfigOf: d.configOf, Secret: config.Resolve, Event: d.event,
	})
	d.rc = receiver.New(receiver.Options{
		Config: d.config, Secret: config.Resolve, Store: d.store, Log: d.log, BodyMemory: f.Server.BodyMemory, Allowed: d.engine.Allowed,
		Proxies: f.Server.TrustedProxies, Ranges: (&ranges{data: f.Server.Data}).networks,
	})
	clients := notify.NewClients(nil)
	defer clients.Close()
	d.outbox = notify.New(notify.Options{
		Store: d.store, Told: d.store.Told(), Config: d.config, Fill: d.fill, Client: clients.Client, Secret: config.Resolve, Log: d.log,
	})
	d.api = web.NewPublic(web.PublicOptions{
		Runs: d.store, Trigger: d.engine.Trigger, Pipeline: d.hasPipeline, Tokens: d.store, Log: d.log, AddEvent: d.addEvent,
		WrongToken: d.rc.WrongToken, RetryAfter: receiver.RetryAfter,
	})
	return d.serve(ctx, f, public, control, passed)
}

// listen opens the public address, or takes the socket that systemd passed.
func listen(address string) (l net.Listener, passed bool, err error) {
	sockets, err := activation.Listeners()
	if err != nil {
		return nil, false, fmt.Errorf("taking the sockets that systemd passed: %w", err)
	}
	if len(sockets) > 1 {
		return nil, false, fmt.Errorf("systemd passed %d sockets; one is wanted", len(sockets))
	}
	if len(sockets) == 1 && sockets[0] != nil {
		if got := sockets[0].Addr().String(); got != address {
			return nil, false, fmt.Errorf("systemd's socket is %s and server.listen is %s: make them equal", got, address)
		}
		return sockets[0], true, nil
	}
	l, err = net.Listen("tcp", address)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return nil, false, fmt.Errorf("listening on %s: %w", address, err)
	}
	return l, false, nil
}

// serve runs all parts until ctx ends, and takes them down in their order.
func (d *daemon) serve(ctx context.Context, f *config.File, public, control net.Listener, passed bool) error {
	open := newCounter()
	hooks := &http.Server{
		Handler: d.routes(), ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: headerMost,
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug), ConnState: open.state,
	}
	admin := web.NewServer(web.Options{
		Reader: d.store, Commands: d.engine, Holds: d.engine, Replay: d.rc.Replay, Reload: d.reload, Log: d.log,
		Agents: d.engine.Agents, Caches: d.engine, Report: d.reporter(public.Addr().String()),
		Tokens: d.store, Pipeline: d.hasPipeline, Outbox: d.store,
		TestHook: d.hookTester(public.Addr().String()),
	})
	failed := make(chan error, 4)
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	engineCtx, stopEngine := context.WithCancel(background)
	defer stopEngine()
	var parts sync.WaitGroup
	served := make(chan struct{})
	serve := hooks.Serve
	if d.pair != nil {
		serve = func(l net.Listener) error { return d.pair.serve(hooks, l) }
		parts.Go(func() { d.pair.Run(background) })
	}
	parts.Go(func() { defer close(served); failed <- ignoreClosed(serve(public)) })
	parts.Go(func() { failed <- ignoreClosed(admin.Serve(control)) })
	engineDone := make(chan struct{})
	parts.Go(func() {
		defer close(engineDone)
		if err := d.engine.Run(engineCtx, f.Server.ShutdownGrace); err != nil {
			failed <- err
		}
	})
	parts.Go(func() { d.trim(background) })
	parts.Go(func() {
		if err := d.outbox.Run(background); err != nil {
			failed <- err
		}
	})
	parts.Go(func() { d.schedule(background) })
	parts.Go(func() { d.watch(background) })
	d.hosts.Warm()
	d.log.Info("ready", "listen", public.Addr().String(), "socket", f.Server.Socket, "tls", d.pair != nil, "pipelines", len(f.Deploy.Pipelines),
		"version", d.o.Version)
	if len(f.Server.Agent.Sockets()) < len(deploy.AgentKinds) {
		d.log.Warn("steps run as the daemon's own user and can read what it can, its secrets included", "user", userName())
	}
	d.notify(systemd.SdNotifyReady + "\n" + d.status())
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	d.log.Info("stopping", "grace", f.Server.ShutdownGrace)
	d.notify(systemd.SdNotifyStopping)
	d.draining.Store(true)
	// Behind systemd's socket deliveries are still taken, and run by the next
	// process: a sender that had to wait for the running jobs would give up,
	// GitHub after 10 s. Without it nothing says that there is a next one.
	d.refusing.Store(!passed)
	stopEngine()
	<-engineDone
	// From here on connections wait in systemd's socket, if there is one.
	public.Close()
	<-served
	hooks.SetKeepAlivesEnabled(false)
	if passed {
		open.wait(headerTime)
	} else {
		open.wait(time.Second)
	}
	last, cancel := context.WithTimeout(background, 5*time.Second)
	defer cancel()
	_ = hooks.Shutdown(last)
	_ = admin.Shutdown(last)
	stop()
	parts.Wait()
	d.log.Info("stopped")
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// counter counts open connections. Shutdown alone closes those whose request
// comes in just then without an answer.
type counter struct {
	n atomic.Int64
}

func newCounter() *counter { return &counter{} }

func (c *counter) state(_ net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		c.n.Add(1)
	case http.StateClosed, http.StateHijacked:
		c.n.Add(-1)
	}
}

// wait waits until none is open, at most so long.
func (c *counter) wait(most time.Duration) {
	for end := time.Now().Add(most); c.n.Load() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}

// routes are all routes of the public address. What is no probe and none of the
// API goes to the receiver, as it is: a mux would send an address with two slashes elsewhere,
// and GitHub with it.
func (d *daemon) routes() http.Handler {
	probes := http.NewServeMux()
	probes.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	probes.HandleFunc("GET /readyz", d.ready)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api := strings.HasPrefix(r.URL.Path, "/api/")
		switch {
		case r.URL.Path == "/healthz" || r.URL.Path == "/readyz":
			probes.ServeHTTP(w, r)
		case r.URL.Path == sizePath:
			d.size.ServeHTTP(w, r)
		case d.refusing.Load():
			w.Header().Set("Retry-After", "30")
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusServiceUnavailable)
			if api {
				fmt.Fprintln(w, `{"error":"deployhook is stopping: send it again in a moment","code":"stopping"}`)
				return
			}
			fmt.Fprintln(w, `{"runs":[],"message":"deployhook is stopping: redeliver in a moment"}`)
		case api:
			d.api.ServeHTTP(w, r)
		default:
			d.rc.ServeHTTP(w, r)
		}
	})
}

// ready says whether deliveries can be taken now.
func (d *daemon) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	err := d.store.Check(ctx)
	if d.draining.Load() {
		err = errors.New("stopping")
	}
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, "not ready")
		d.log.Warn("not ready", "err", err)
		return
	}
	fmt.Fprintln(w, "ready")
}

func (d *daemon) config() *deploy.Config { return d.file.Load().Deploy }

func (d *daemon) hasPipeline(name string) bool { return d.config().Pipeline(name) != nil }

// use puts a config in force; its text is kept for the runs accepted under it,
// and its schedules are noted, so that from here on no time of them is missed.
func (d *daemon) use(ctx context.Context, f *config.File) error {
	if err := d.store.SaveConfig(ctx, f.Deploy.Digest, f.Deploy.Text); err != nil {
		return err
	}
	if _, err := d.clocks(ctx, f.Deploy, time.Now()); err != nil {
		return err
	}
	d.mu.Lock()
	d.known[f.Deploy.Digest] = f.Deploy
	d.mu.Unlock()
	d.file.Store(f)
	select {
	case d.reloaded <- struct{}{}:
	default:
	}
	return nil
}

// configsMost bounds the parsed configs in memory.
const configsMost = 32

// configOf gives the config that a run was accepted under.
func (d *daemon) configOf(ctx context.Context, digest string) (*deploy.Config, error) {
	d.mu.Lock()
	c := d.known[digest]
	d.mu.Unlock()
	if c != nil {
		return c, nil
	}
	text, err := d.store.ConfigText(ctx, digest)
	if err != nil {
		return nil, err
	}
	f, err := config.Parse(d.o.Config, []byte(text))
	if err != nil {
		return nil, fmt.Errorf("the config of that time cannot be read by this version: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.known) >= configsMost {
		clear(d.known)
	}
	d.known[digest] = f.Deploy
	return f.Deploy, nil
}

// event gives what brought a run about.
func (d *daemon) event(ctx context.Context, run *deploy.Run) (*deploy.Event, []byte, error) {
	if run.Delivery == 0 {
		return nil, nil, nil
	}
	del, err := d.store.Event(ctx, run.ID)
	if errors.Is(err, deploy.ErrNotFound) || err == nil && del.Body == nil {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	ev, err := d.readDelivery(ctx, run.Config, del)
	if err != nil {
		return nil, nil, err
	}
	return ev, del.Body, nil
}

// readDelivery reads a stored delivery, by the config that it came under.
func (d *daemon) readDelivery(ctx context.Context, digest string, del *deploy.Delivery) (*deploy.Event, error) {
	cfg, err := d.configOf(ctx, digest)
	if err != nil {
		return nil, err
	}
	provider := "github"
	if h := cfg.Hook(del.Hook); h != nil {
		provider = h.Provider
	}
	ev, err := receiver.Read(provider, del.Event, del.Body)
	if err != nil {
		return nil, err
	}
	ev.Hook = del.Hook
	return ev, nil
}

// reload takes a new file when it is good, and keeps the old when it is not.
func (d *daemon) reload(ctx context.Context) (string, error) {
	f, err := d.read(ctx)
	if err != nil {
		return "", fmt.Errorf("%w: the config in force stays:\n%w", deploy.ErrRefused, err)
	}
	old := d.file.Load()
	text := fmt.Sprintf("%s is in force: %s, %s", f.Path, counted(len(f.Deploy.Pipelines), "pipeline"), counted(len(f.Deploy.Hooks), "hook"))
	if !reflect.DeepEqual(f.Server, old.Server) {
		text += "; the section server has changed and counts from the next start"
	}
	if err := d.use(ctx, f); err != nil {
		return "", err
	}
	if d.pair != nil {
		// A new certificate counts at once, and not a few seconds later. The
		// files of this config were found good; where it names others, they
		// count from the next start.
		_ = d.pair.look(ctx)
	}
	for _, w := range f.Warnings {
		d.log.Warn("config", "err", w.String())
	}
	d.log.Info("config reloaded", "pipelines", len(f.Deploy.Pipelines))
	d.notify(d.status())
	return text, nil
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// trim removes what is too old, a little at a time.
func (d *daemon) trim(ctx context.Context) {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		more, err := d.store.Trim(ctx, time.Now())
		if err != nil && ctx.Err() == nil {
			d.log.Warn("removing what is too old", "err", err)
		}
		wait := tick.C
		if more && err == nil {
			wait = time.After(time.Second)
		}
		select {
		case <-ctx.Done():
			return
		case <-wait:
		}
	}
}

// watch feeds systemd's watchdog as long as the engine makes progress and the
// database can be written, and tells it how many jobs run.
func (d *daemon) watch(ctx context.Context) {
	every, err := systemd.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		every = time.Minute
	}
	tick := time.NewTicker(every / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		check, cancel := context.WithTimeout(ctx, every/3)
		err := d.store.Check(check)
		cancel()
		// A full disk is no reason to be restarted: that would end the jobs.
		if err != nil && !errors.Is(err, deploy.ErrFull) {
			d.log.Warn("the database did not answer in time", "err", err)
			continue
		}
		if !d.draining.Load() && time.Since(d.engine.Progress()) > stuckAfter {
			d.log.Error("the engine is stuck", "since", d.engine.Progress())
			continue
		}
		if job := d.engine.Stuck(time.Now()); job != "" {
			d.log.Error("a job is stuck", "job", job)
			continue
		}
		d.notify(systemd.SdNotifyWatchdog + "\n" + d.status())
	}
}

func (d *daemon) status() string {
	return fmt.Sprintf("STATUS=%d pipelines, %d running", len(d.config().Pipelines), d.engine.Running())
}

func (d *daemon) notify(state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		d.log.Warn("telling systemd", "err", err)
	}
}
