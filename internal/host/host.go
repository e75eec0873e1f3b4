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

const (
	openTime  = 15 * time.Second // from starting an agent to its first line
	closeTime = 20 * time.Second // from closing the connection to the agent's exit
	warmAfter = 25 * time.Millisecond
)

// Options say how agents are started.
type Options struct {
	Command []string // default: this binary with the argument agent
	State   string   // directory in which agents on this machine work
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
		h.mu.Lock()
		defer h.mu.Unlock()
		h.making = false
		switch {
		case err != nil:
			h.o.Log.Warn("keeping an agent ready", "err", err)
		case h.closed:
			go c.Close()
		default:
			h.ahead = c
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
// their steps: the same job must not run twice at once.
func (h *Hosts) waitForOthers() {
	h.before.Do(func() {
		end := time.Now().Add(closeTime)
		dir := filepath.Join(h.o.State, "agents")
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			for time.Now().Before(end) {
				f, err := os.OpenFile(filepath.Join(dir, e.Name()), os.O_RDWR, 0)
				if err != nil {
					break
				}
				err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
				f.Close()
				if !errors.Is(err, unix.EWOULDBLOCK) {
					break // dead: the next agent buries it
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	})
}

// Conn is an agent in use.
type Conn struct {
	log    *slog.Logger
	cmd    *exec.Cmd
	conn   net.Conn
	client *http.Transport
	done   chan struct{} // the agent's process has ended
	once   sync.Once
	sent   map[string]bool // files that the agent has
}

// spawn starts an agent as a child process on a socket pair.
func (h *Hosts) spawn(ctx context.Context) (*Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("starting an agent: %w", err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "agent"), os.NewFile(uintptr(fds[1]), "agent")
	defer far.Close()
	conn, err := net.FileConn(near)
	near.Close()
	if err != nil {
		return nil, fmt.Errorf("starting an agent: %w", err)
	}
	stderr, stderrW, err := os.Pipe()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("starting an agent: %w", err)
	}
	cmd := &exec.Cmd{
		Path: h.o.Command[0], Args: h.o.Command, Stdin: far, Stderr: stderrW, Env: h.environment(),
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true}, // a ctrl-C is not for it
	}
	err = cmd.Start()
	stderrW.Close()
	if err != nil {
		conn.Close()
		stderr.Close()
		return nil, fmt.Errorf("starting an agent: %w", err)
	}
	c := &Conn{log: h.o.Log, cmd: cmd, conn: conn, done: make(chan struct{}), sent: map[string]bool{}}
	go c.readErrors(stderr)
	go func() {
		_ = cmd.Wait()
		close(c.done)
	}()
	if err := c.hello(ctx); err != nil {
		c.Close()
		return nil, err
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
		c.log.Debug("an agent's login printed something", "bytes", len(banner))
	}
	if err != nil {
		return fmt.Errorf("starting an agent: %w", err)
	}
	return c.conn.SetReadDeadline(time.Time{})
}

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
	defer r.Close()
	sc := bufio.NewScanner(r)
	for n := 0; sc.Scan(); n++ {
		if n < 100 {
			c.log.Warn("agent", "err", sc.Text())
		}
	}
	_, _ = io.Copy(io.Discard, r)
}

// Done is closed when the agent has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Close ends the connection, and so the agent with all that it started, and
// waits for its exit. One that does not end is killed.
func (c *Conn) Close() error {
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

// gone waits a moment for the agent's exit, and tells a dead agent from other
// errors of the connection.
func (c *Conn) gone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// The process may be stopped or about to end; in either case nothing can
	// be asked of it any more.
	_ = c.cmd.Process.Kill()
	<-c.done
	text := "the agent ended"
	if st := c.cmd.ProcessState; st != nil && !strings.HasPrefix(st.String(), "signal: killed") {
		text += " (" + st.String() + ")"
	}
	_ = err // says only that a connection broke
	return fmt.Errorf("%s during the job%w", text, silent{})
}

// silent makes errors.Is find ErrGone without writing it out.
type silent struct{}

func (silent) Error() string        { return "" }
func (silent) Is(target error) bool { return target == ErrGone }
