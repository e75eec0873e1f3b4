// Package host is the near end: it reaches an agent where steps run and talks
// to it. Every agent is for one job or one command; when its connection is
// closed it ends, with everything that it started.
package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

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
	Command []string // default: this binary with the argument agent
	State   string   // directory in which agents on this machine work
	Version string   // of the daemon, for the sentence about an agent of another protocol
	Log     *slog.Logger
}

// Hosts opens agents. One unused agent is kept open ahead, so that a job does
// not wait for one to start; none is used for a second job.
type Hosts struct {
	o Options

	mu     sync.Mutex
	ahead  *Conn
	making bool
	closed bool
	wg     sync.WaitGroup

	before sync.Once // waits for the agents of the daemon before this one
}

// New makes the near end for this machine.
func New(o Options) *Hosts {
	if len(o.Command) == 0 {
		o.Command = []string{"/proc/self/exe", "agent"}
	}
	return &Hosts{o: o}
}

// Warm starts the agent that is kept ahead.
func (h *Hosts) Warm() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.making || h.ahead != nil {
		return
	}
	h.making = true
	h.wg.Go(func() {
		h.waitForOthers()
		ctx, cancel := context.WithTimeout(context.Background(), openTime)
		defer cancel()
		c, err := h.spawn(ctx)
		if err == nil {
			// The first call is the slow one, at both ends.
			if _, err = c.Facts(ctx); err != nil {
				c.Close()
				c = nil
			}
		}
		if err != nil {
			h.o.Log.Warn("keeping an agent ready", "err", err)
		}
		h.mu.Lock()
		h.making = false
		if !h.closed {
			h.ahead, c = c, nil
		}
		h.mu.Unlock()
		if c != nil {
			c.Close()
		}
	})
}

// Close ends the agent that is kept ahead; those in use are their users'.
func (h *Hosts) Close() {
	h.mu.Lock()
	h.closed = true
	c := h.ahead
	h.ahead = nil
	h.mu.Unlock()
	h.wg.Wait()
	if c != nil {
		c.Close()
	}
}

// Open gives an agent on a host, for one job or one command.
func (h *Hosts) Open(ctx context.Context, name string) (*Conn, error) {
	if name != deploy.Local {
		return nil, fmt.Errorf("host %s: only this machine can be reached", name)
	}
	h.waitForOthers()
	h.mu.Lock()
	c := h.ahead
	h.ahead = nil
	h.mu.Unlock()
	// The next one is started when this one is at work: starting it now would
	// take the processor from the job that waits.
	time.AfterFunc(warmAfter, h.Warm)
	if c != nil {
		select {
		case <-c.done: // it was ended while nobody used it
			c.Close()
		default:
			return c, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	return h.spawn(ctx)
}

// waitForOthers waits until the agents that an earlier daemon left have ended
// their steps: the same job must not run twice at once. One that does not end
// in time, because a step has stopped it, is killed.
func (h *Hosts) waitForOthers() {
	h.before.Do(func() {
		end := time.Now().Add(closeTime)
		marks, _ := filepath.Glob(filepath.Join(h.o.State, "agents", "*"))
		for _, mark := range marks {
			for {
				pid, lives := livingAgent(mark)
				if !lives {
					break // the next agent buries it
				}
				if time.Now().After(end) {
					h.o.Log.Warn("an agent of the daemon before this one does not end: it is killed", "pid", pid)
					if pid > 1 {
						_ = unix.Kill(pid, unix.SIGKILL)
					}
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	})
}

// livingAgent says whether the agent of a mark lives, and its process id.
func livingAgent(mark string) (pid int, lives bool) {
	f, err := os.OpenFile(mark, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		return 0, false
	}
	b := make([]byte, 20)
	n, _ := f.Read(b)
	pid, _ = strconv.Atoi(strings.TrimSpace(string(b[:n])))
	return pid, true
}

// bury ends what a killed agent's steps left running, and removes its
// directory: the next job may be far away. A fresh agent does it.
func (h *Hosts) bury() {
	ctx, cancel := context.WithTimeout(context.Background(), openTime)
	defer cancel()
	c, err := h.spawn(ctx)
	if err == nil {
		err = do(ctx, c, wire.RouteBury)
		c.end()
	}
	if err != nil {
		h.o.Log.Warn("ending what a killed agent left", "err", err)
	}
}

// Conn is an agent in use.
type Conn struct {
	hosts  *Hosts
	log    *slog.Logger
	cmd    *exec.Cmd
	conn   net.Conn
	client *http.Transport
	done   chan struct{} // the agent's process has ended
	once   sync.Once

	errs     chan struct{} // closed when all that it complained of was read
	complain string        // the last line of that
}

// spawn starts an agent as a child process on a socket pair.
func (h *Hosts) spawn(ctx context.Context) (*Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("starting an agent: %w", err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "agent"), os.NewFile(uintptr(fds[1]), "agent")
	conn, err := net.FileConn(near)
	near.Close()
	if err != nil {
		far.Close()
		return nil, fmt.Errorf("starting an agent: %w", err)
	}
	stderr, stderrW, err := os.Pipe()
	if err != nil {
		conn.Close()
		far.Close()
		return nil, fmt.Errorf("starting an agent: %w", err)
	}
	cmd := &exec.Cmd{
		Path: h.o.Command[0], Args: h.o.Command, Stdin: far, Stderr: stderrW, Env: h.environment(),
		SysProcAttr: &syscall.SysProcAttr{Setsid: true}, // a ctrl-C is not for it, and no terminal
	}
	err = cmd.Start()
	stderrW.Close()
	far.Close() // the agent alone has it: its end is the end of the stream
	if err != nil {
		conn.Close()
		stderr.Close()
		return nil, fmt.Errorf("starting an agent: %w", err)
	}
	c := &Conn{hosts: h, log: h.o.Log, cmd: cmd, conn: conn, done: make(chan struct{}), errs: make(chan struct{})}
	go c.readErrors(stderr)
	go func() {
		_ = cmd.Wait()
		close(c.done)
	}()
	if err := c.hello(ctx); err != nil {
		c.end()
		return nil, c.unborn(err)
	}
	c.client = &http.Transport{
		Protocols: wire.Protocols(), HTTP2: wire.HTTP2(), DisableCompression: true, MaxResponseHeaderBytes: wire.HeaderMost,
		DialContext: c.dial,
	}
	return c, nil
}

// environment is what an agent gets: nothing of the daemon's own.
func (h *Hosts) environment() []string {
	env := []string{wire.StateVariable + "=" + h.o.State}
	for _, name := range []string{"PATH", "HOME", "LANG", "USER", "SHELL", "TMPDIR"} {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func (c *Conn) hello(ctx context.Context) error {
	if end, ok := ctx.Deadline(); ok {
		_ = c.conn.SetReadDeadline(end)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, _, banner, err := wire.ReadHello(c.conn)
	if len(banner) > 0 {
		c.log.Info("skipped what the login printed before the agent", "bytes", len(banner), "banner", line(string(banner), bannerShown))
	}
	if err != nil {
		return err
	}
	return c.conn.SetReadDeadline(time.Time{})
}

// unborn says why an agent did not start, in its own words where it left some.
func (c *Conn) unborn(err error) error {
	var other *wire.ProtocolError
	if errors.As(err, &other) {
		return protocolError(fmt.Sprintf("restart deployhook: agent %s, daemon %s", other.Version, c.hosts.o.Version))
	}
	select {
	case <-c.errs:
	case <-time.After(exitTime): // what it started still holds its stderr
		return fmt.Errorf("starting an agent: %w", err)
	}
	if c.complain != "" {
		return fmt.Errorf("starting an agent: %s", c.complain)
	}
	return fmt.Errorf("starting an agent: %w", err)
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

// readErrors passes on what an agent complains of, bounded.
func (c *Conn) readErrors(r io.ReadCloser) {
	defer close(c.errs)
	defer r.Close()
	sc := bufio.NewScanner(r)
	for n := 0; sc.Scan(); n++ {
		if n < 100 {
			c.complain = line(sc.Text(), textMost)
			c.log.Warn("agent", "err", c.complain)
		}
	}
	_, _ = io.Copy(io.Discard, r)
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

// Done is closed when the agent has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Close ends the connection, and so the agent with all that it started, and
// waits for its exit. One that does not end is killed; what a killed one left
// is ended too.
func (c *Conn) Close() error {
	err := c.end()
	if !c.cmd.ProcessState.Success() {
		c.hosts.bury()
	}
	return err
}

func (c *Conn) end() error {
	if c.client != nil {
		c.client.CloseIdleConnections()
	}
	c.conn.Close()
	select {
	case <-c.done:
		return nil
	case <-time.After(closeTime):
	}
	_ = c.cmd.Process.Kill()
	<-c.done
	return fmt.Errorf("the agent did not end within %v and was killed", closeTime)
}

// gone tells a dead agent from other errors of the connection. An agent that
// cannot be talked to any more is ended: it may be stopped, or lie.
func (c *Conn) gone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.conn.Close()
	text := ""
	select {
	case <-c.done:
		text = c.cmd.ProcessState.String()
		if st, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && st.Signal() == syscall.SIGKILL {
			text += ": a step did it, or the machine is out of memory"
		}
	case <-time.After(exitTime):
		// It is stopped, or still ending its steps: nobody waits for that here.
		_ = c.cmd.Process.Kill()
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
