// Package agent is the far end: one process for one job on one host, or for
// one command. It runs steps, receives trees and keeps releases; it decides
// nothing. When its connection ends, it ends its steps and then itself.
package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"os/user"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"deployhook/internal/agent/wire"
	"deployhook/internal/release"
)

// Agent is the state of one connection.
type Agent struct {
	nonce  string
	far    bool // sshd has started it
	state  *state
	caches *caches
	group  *cgroup // nil: none for this agent alone
	clock  clock

	mu        sync.Mutex
	path      *release.Path    // opened, or nil
	place     *release.InPlace // opened, or nil
	workspace string
	files     map[string]string // variable -> path of a file that was sent
	steps     map[string]*step
	canceled  map[string]bool // steps to end, also before they began
	ending    bool            // no step starts any more

	reap reaper
}

// Options say what an agent is started with.
type Options struct {
	Version string
	Daemon  string // user whose connection it takes; empty: its own
	// SSH is an agent that sshd has started: it reads from its standard input
	// and answers on its standard output.
	SSH bool
}

// Main serves until its stream ends, and returns the process's exit code. The
// stream is file descriptor 0, a socket, or with o.SSH descriptors 0 and 1.
func Main(o Options) int {
	// Without it a step of the same user takes the connection with
	// pidfd_getfd and forges results, and reads secrets from this memory.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fail(fmt.Errorf("protecting the agent from its steps: %w", err))
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fail(fmt.Errorf("becoming the reaper of the steps: %w", err))
	}
	syscall.Umask(0o022)
	// Whatever was open where deployhook was started is nobody's business in
	// a step. Kernels before 5.11 do not know the flag: there Go's own files
	// are closed all the same.
	_ = unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	// Who starts the agent ends it by closing the connection. Taken and not
	// ignored: what is ignored stays so in every step, where a shell could not
	// even trap it.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	conn, hold, err := connection(o)
	if err != nil {
		return fail(err)
	}
	a, err := newAgent(o.SSH)
	if err == nil {
		err = wire.Hello(conn, o.Version, a.nonce)
	}
	if err != nil {
		fmt.Fprintln(conn, "deployhook agent:", err) // here too, the near end does not see the other
		return fail(err)
	}
	if o.SSH {
		go tidyPrograms(os.Executable())
	}
	go a.reap.run()
	// Whoever sends SIGTERM gets what the end of the connection gives: no step
	// and no lock is left behind.
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() { <-term; conn.Close() }()
	// What killed agents left is ended now, not when the next job comes; a job
	// waits for it when it opens its directory.
	go func() { _ = a.state.buryDead() }()
	a.serve(conn)
	a.end()
	if err := a.state.close(); err != nil {
		fail(err)
	}
	if hold != nil {
		// Not more than fits: a near end that has stopped reading keeps nobody.
		_ = unix.Sendto(int(hold.Fd()), []byte(wire.Goodbye(a.nonce)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
	}
	return 0
}

// connection takes the stream. hold keeps a socket open after the server has
// closed conn: its end is this process's exit, which sshd reports by itself.
func connection(o Options) (conn net.Conn, hold *os.File, err error) {
	if o.SSH {
		conn, err = openStdio()
	} else if conn, hold, err = socket(); err == nil {
		err = checkPeer(hold, o.Daemon)
		if err != nil {
			// The near end of a local socket does not see what is printed here.
			fmt.Fprintln(conn, "deployhook agent:", err)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	// Descriptor 0 must not be free: the next file opened would be a step's
	// standard input. Nor may what is printed by mistake land in the stream.
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	err = unix.Dup3(int(null.Fd()), 0, 0)
	if err == nil && o.SSH {
		err = unix.Dup3(int(null.Fd()), 1, 0)
	}
	return conn, hold, errors.Join(err, null.Close())
}

// socket takes the socket at descriptor 0.
func socket() (conn net.Conn, hold *os.File, err error) {
	fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 3)
	if err == nil {
		hold = os.NewFile(uintptr(fd), "connection")
		conn, err = net.FileConn(os.Stdin)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("deployhook agent is started by deployhook itself, with a socket as its standard input: %w", err)
	}
	return conn, hold, nil
}

// newAgent makes an agent; far is one that sshd has started.
func newAgent(far bool) (*Agent, error) {
	nonce := make([]byte, 16)
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	a := &Agent{nonce: hex.EncodeToString(nonce), far: far, files: map[string]string{}, steps: map[string]*step{}, canceled: map[string]bool{}}
	a.reap.own = map[int]bool{}
	a.group = openCgroup("/sys/fs/cgroup", "/proc/self/cgroup")
	a.reap.group = a.group
	var err error
	if a.state, err = openState(a.nonce, far); err == nil {
		a.caches = &caches{dir: a.state.path("caches"), own: a.state.work(), got: map[string]uint64{}, now: a.clock.now}
	}
	return a, err
}

// checkPeer refuses a connection of anybody but the daemon: whoever could open
// one would run commands as this user.
func checkPeer(conn *os.File, daemon string) error {
	cred, err := unix.GetsockoptUcred(int(conn.Fd()), unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return fmt.Errorf("finding out who has connected: %w", err)
	}
	want := strconv.Itoa(os.Getuid())
	if daemon != "" {
		u, err := user.Lookup(daemon)
		if err != nil {
			return fmt.Errorf("the daemon's user %s is not known here", daemon)
		}
		want = u.Uid
	}
	if got := strconv.Itoa(int(cred.Uid)); got != want {
		return fmt.Errorf("user %s has connected, and only user %s may", got, want)
	}
	return nil
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "deployhook agent:", err)
	return 1
}

// serve answers on the one connection until it ends.
func (a *Agent) serve(conn net.Conn) {
	gone := make(chan struct{})
	var once sync.Once
	srv := &http.Server{
		Handler: a.clock.timed(a.routes()), Protocols: wire.Protocols(), HTTP2: wire.HTTP2(a.far), MaxHeaderBytes: wire.HeaderMost,
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed || s == http.StateHijacked {
				once.Do(func() { close(gone) })
			}
		},
	}
	l := &oneConn{conn: make(chan net.Conn, 1), gone: gone, addr: conn.LocalAddr()}
	l.conn <- conn
	_ = srv.Serve(l) // its error is that the connection ended
}

// oneConn is a listener of one connection; Accept fails when that has ended.
type oneConn struct {
	conn chan net.Conn
	gone chan struct{}
	addr net.Addr
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.gone:
		return nil, errors.New("the connection has ended")
	}
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.addr }

// end ends the steps, removes the workspace and gives the locks back. It is
// called when serving has returned: handlers may still be about to.
func (a *Agent) end() {
	ctx, cancel := context.WithTimeout(context.Background(), stepGrace+5*time.Second)
	defer cancel()
	a.mu.Lock()
	a.ending = true
	steps := make([]*step, 0, len(a.steps))
	for _, s := range a.steps {
		steps = append(steps, s)
	}
	a.mu.Unlock()
	for _, s := range steps {
		s.stop(stopCanceled)
	}
	for _, s := range steps {
		select {
		case <-s.done:
		case <-ctx.Done():
		}
	}
	a.reap.endAll(0)
	a.caches.close()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.path != nil {
		a.path.Close()
		a.path = nil
	}
	if a.place != nil {
		a.place.Close()
		a.place = nil
	}
}
