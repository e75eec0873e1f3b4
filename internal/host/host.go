// Package host is the near end: it reaches an agent where steps run and talks
// to it. Every agent is for one job or one command; when its connection is
// closed it ends, with everything that it started.
package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"deployhook/internal/agent/wire"
	"deployhook/internal/deploy"
)

// ErrGone is an agent that ended while it was needed.
var ErrGone = errors.New("the agent ended")

// ErrProtocol is an agent of another deployhook, which speaks another protocol:
// nothing can be done on its host until the daemon is restarted.
var ErrProtocol = errors.New("an agent of another protocol")

const (
	openTime  = 15 * time.Second // from starting an agent to its first line
	closeTime = 20 * time.Second // from closing the connection to the agent's exit
	exitTime  = time.Second      // from the end of the connection to the exit of an agent that ended it
	warmAfter = 25 * time.Millisecond

	bannerShown = 1 << 10 // bytes of a login's banner that go into the log
)

// Options say how agents are started.
type Options struct {
	Command []string // of a child process; default: this binary with the argument agent
	State   string   // directory in which child processes work
	// Sockets are the local sockets of those kinds of agents that systemd
	// starts; the others are child processes.
	Sockets map[deploy.AgentKind]string
	Version string // of the daemon, for the sentence about an agent of another protocol
	Log     *slog.Logger

	// Secret reads a secret: the private keys of hosts over SSH.
	Secret func(ctx context.Context, s deploy.Secret) (string, error)
	// Program is the binary that is copied to hosts over SSH; default this
	// one. Those for other architectures stand beside it as
	// deployhook-linux-ARCH.
	Program string
	// Clock is what agents are told of the time; default time.Now.
	Clock func() time.Time
}

// Hosts opens agents.
type Hosts struct {
	o        Options
	began    time.Time
	ways     map[deploy.AgentKind]*way
	programs *programs

	mu      sync.Mutex
	remotes map[string]*remote // by the host's name
	live    map[string]bool    // nonces of the agents over SSH that are in use
}

// New makes the near end for this machine.
func New(o Options) *Hosts {
	if len(o.Command) == 0 {
		o.Command = []string{"/proc/self/exe", "agent"}
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	h := &Hosts{
		o: o, began: time.Now(), ways: map[deploy.AgentKind]*way{}, programs: newPrograms(o.Program),
		remotes: map[string]*remote{}, live: map[string]bool{},
	}
	shared := map[string]*way{}
	for _, kind := range deploy.AgentKinds {
		socket := o.Sockets[kind]
		if shared[socket] == nil {
			shared[socket] = &way{o: o, socket: socket, alone: make(chan bool, 1)}
			shared[socket].alone <- false
		}
		h.ways[kind] = shared[socket]
	}
	return h
}

// Warm starts the agents that are kept ahead.
func (h *Hosts) Warm() {
	for _, w := range h.ways {
		w.warm()
	}
}

// Close ends the agents that are kept ahead; those in use are their users'.
func (h *Hosts) Close() {
	for _, w := range h.ways {
		w.close()
	}
}

// Open gives an agent on a host, for one job or one command; far is nil for
// this machine. [ErrUnreachable]: the host may be there later. It waits for
// what an agent on that host, whose exit was not seen, may still be ending.
func (h *Hosts) Open(ctx context.Context, far *deploy.Host, kind deploy.AgentKind) (*Conn, error) {
	return h.OpenTelling(ctx, far, kind, nil)
}

// OpenTelling is [Hosts.Open] that tells, while the agent's program is copied to
// the host, how far that has come: over a slow line it takes hours.
func (h *Hosts) OpenTelling(ctx context.Context, far *deploy.Host, kind deploy.AgentKind, progress Progress) (*Conn, error) {
	if far == nil {
		return h.ways[kind].open(ctx)
	}
	c, err := h.remote(far.Name).open(ctx, far, progress)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", far.Name, err)
	}
	return c, nil
}

// way is one way to agents on this machine: child processes, or a local socket.
// One unused agent is kept open ahead, so that a job does not wait for one to
// start; none is used for a second job.
type way struct {
	o      Options
	socket string // empty: child processes

	alone chan bool // held while it is found out, or true: no agent of the daemon before this one lives

	mu     sync.Mutex
	ahead  *Conn
	making bool
	closed bool
	wg     sync.WaitGroup
}

// start starts an agent.
func (w *way) start(ctx context.Context) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	if w.socket != "" {
		return w.connect(ctx)
	}
	return w.spawn(ctx)
}

// warm starts the agent that is kept ahead.
func (w *way) warm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.making || w.ahead != nil {
		return
	}
	w.making = true
	w.wg.Go(func() {
		ctx := context.Background()
		err := w.first(ctx)
		var c *Conn
		if err == nil && !w.hasAhead() {
			if c, err = w.start(ctx); err == nil {
				// The first call is the slow one, at both ends.
				call, cancel := context.WithTimeout(ctx, openTime)
				_, err = c.Facts(call)
				cancel()
				if err != nil {
					c.Close()
					c = nil
				}
			}
		}
		if err != nil {
			w.o.Log.Warn("keeping an agent ready", "err", err)
		}
		w.mu.Lock()
		w.making = false
		w.mu.Unlock()
		w.keep(c)
	})
}

func (w *way) hasAhead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ahead != nil
}

// keep keeps an agent ahead, or ends it when there is one.
func (w *way) keep(c *Conn) {
	w.mu.Lock()
	if c != nil && !w.closed && w.ahead == nil {
		w.ahead, c = c, nil
	}
	w.mu.Unlock()
	if c != nil {
		c.Close()
	}
}

func (w *way) close() {
	w.mu.Lock()
	w.closed = true
	c := w.ahead
	w.ahead = nil
	w.mu.Unlock()
	w.wg.Wait()
	if c != nil {
		c.Close()
	}
}

func (w *way) open(ctx context.Context) (*Conn, error) {
	if err := w.first(ctx); err != nil {
		return nil, err
	}
	w.mu.Lock()
	c := w.ahead
	w.ahead = nil
	w.mu.Unlock()
	// The next one is started when this one is at work: starting it now would
	// take the processor from the job that waits.
	time.AfterFunc(warmAfter, w.warm)
	if c != nil {
		select {
		case <-c.done: // it was ended while nobody used it
			c.Close()
		default:
			return c, nil
		}
	}
	return w.start(ctx)
}

// first sees to it that the agents that an earlier daemon left have ended
// their steps before this one opens its own: the same job must not run twice
// at once. The first agent waits for them, and ends those that do not end in
// time because a step has stopped them.
func (w *way) first(ctx context.Context) error {
	var alone bool
	select {
	case alone = <-w.alone:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { w.alone <- alone }()
	if alone {
		return nil
	}
	c, err := w.start(ctx)
	if err != nil {
		return err
	}
	if err := doFor(ctx, c, wire.AloneTime+callTime, wire.RouteAlone); err != nil {
		c.Close()
		return err
	}
	alone = true
	w.keep(c)
	return nil
}

// bury ends what a killed agent's steps left running, and removes its
// directory: the next job may be far away. A fresh agent does it.
func (w *way) bury() {
	ctx := context.Background()
	c, err := w.start(ctx)
	if err == nil {
		err = do(ctx, c, wire.RouteBury)
		c.end()
	}
	if err != nil {
		w.o.Log.Warn("ending what a killed agent left", "err", err)
	}
}

// Conn is an agent in use.
type Conn struct {
	o       *Options
	bury    func()       // ends what it left when it did not clean up
	after   func() error // gives back what it needed, and says whether its exit was not seen; nil: nothing
	far     bool         // over SSH: trees are compressed on the way, and go no faster than the line takes them
	nonce   string
	version string // as the agent says it
	conn    net.Conn
	process process
	client  *http.Transport
	done    chan struct{} // the agent's process has ended
	once    sync.Once
}

// process is the process of an agent, as far as the near end can see it.
type process interface {
	// kill ends it at once; then done is closed. It says what it did.
	kill() string
	// clean says of one that has ended whether it did so by itself, and
	// cleaned up.
	clean() bool
	// how says how it has ended, for a sentence.
	how() string
	// unborn says why one did not start, in its own words where it left some.
	unborn(banner []byte, err error) error
}

// greet reads the first line of an agent and makes the connection ready for calls.
func (c *Conn) greet(ctx context.Context) (*Conn, error) {
	banner, err := c.hello(ctx)
	var other *wire.ProtocolError
	switch {
	case errors.As(err, &other):
		c.end()
		return nil, protocolError(fmt.Sprintf("restart deployhook: agent %s, daemon %s", other.Version, c.o.Version))
	case err != nil:
		c.end()
		return nil, c.process.unborn(banner, err)
	case len(banner) > 0:
		c.o.Log.Info("skipped what the login printed before the agent", "bytes", len(banner), "banner", line(string(banner), bannerShown))
	}
	c.client = &http.Transport{
		Protocols: wire.Protocols(), HTTP2: wire.HTTP2(c.far), DisableCompression: true, MaxResponseHeaderBytes: wire.HeaderMost,
		DialContext: c.dial,
	}
	return c, nil
}

func (c *Conn) hello(ctx context.Context) (banner []byte, err error) {
	if end, ok := ctx.Deadline(); ok {
		_ = c.conn.SetReadDeadline(end)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	c.version, c.nonce, banner, err = wire.ReadHello(c.conn)
	if err != nil {
		return banner, err
	}
	return banner, c.conn.SetReadDeadline(time.Time{})
}

// protocolError is the sentence about an [ErrProtocol].
type protocolError string

func (e protocolError) Error() string      { return string(e) }
func (protocolError) Is(target error) bool { return target == ErrProtocol }

// dial gives the connection to the transport, once.
func (c *Conn) dial(context.Context, string, string) (net.Conn, error) {
	var conn net.Conn
	c.once.Do(func() { conn = c.conn })
	if conn == nil {
		return nil, ErrGone
	}
	return conn, nil
}

// lives says whether the agent is still there.
func (c *Conn) lives() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// Version is the agent's, as it says: the program may have been replaced since
// the daemon was started.
func (c *Conn) Version() string { return c.version }

// Socket is the local socket by which the agents of a kind are reached; empty:
// they are child processes.
func (h *Hosts) Socket(kind deploy.AgentKind) string { return h.ways[kind].socket }

// Done is closed when the agent has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Close ends the connection, and so the agent with all that it started, and
// waits for its exit. One that does not end is killed; what a killed one left
// is ended too. Over SSH its exit may not be seen, which is an error; then the
// next Open of that host sees to it.
func (c *Conn) Close() error {
	err := c.end()
	if !c.process.clean() {
		c.bury()
	}
	return err
}

func (c *Conn) end() (err error) {
	if c.client != nil {
		c.client.CloseIdleConnections()
	}
	c.conn.Close()
	if c.after != nil {
		defer func() { err = cmp.Or(err, c.after()) }()
	}
	select {
	case <-c.done:
		return nil
	case <-time.After(closeTime):
	}
	what := c.process.kill()
	<-c.done
	return fmt.Errorf("the agent did not end within %v and %s", closeTime, what)
}

// gone tells a dead agent from other errors of the connection. An agent that
// cannot be talked to any more is ended: it may be stopped, or lie.
func (c *Conn) gone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// How the process ended is what a person can act upon; what broke first is
	// what tells a fault of ours from one of a step.
	c.o.Log.Warn("the connection to an agent broke", "err", line(err.Error(), textMost))
	c.conn.Close()
	text := ""
	select {
	case <-c.done:
		text = c.process.how()
	case <-time.After(exitTime):
		// It is stopped, or still ending its steps: nobody waits for that here.
		c.process.kill()
		<-c.done
		text = "it did not answer any more"
	}
	// Other errors say only that a connection broke.
	var l lie
	if errors.As(err, &l) {
		text = l.Error()
	}
	return fmt.Errorf("the agent ended during the job (%s)%w", text, silent{})
}

// lie is what an agent said and cannot be: nothing of it is believed any more.
type lie string

func (l lie) Error() string { return string(l) }

// silent makes errors.Is find ErrGone without writing it out.
type silent struct{}

func (silent) Error() string        { return "" }
func (silent) Is(target error) bool { return target == ErrGone }
