package host

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"deployhook/internal/agent/wire"
)

// child is an agent that is a child process of the daemon.
type child struct {
	cmd      *exec.Cmd
	errs     chan struct{} // closed when all that it complained of was read
	complain string        // the last line of that
}

// spawn starts an agent as a child process on a socket pair.
func (w *way) spawn(ctx context.Context) (*Conn, error) {
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
		Path: w.o.Command[0], Args: w.o.Command, Stdin: far, Stderr: stderrW, Env: w.environment(),
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
	p := &child{cmd: cmd, errs: make(chan struct{})}
	c := &Conn{o: &w.o, bury: w.bury, conn: conn, process: p, done: make(chan struct{})}
	go func() {
		defer close(p.errs)
		p.readErrors(stderr, w)
	}()
	go func() {
		_ = cmd.Wait()
		close(c.done)
	}()
	return c.greet(ctx)
}

// environment is what a child process gets: nothing of the daemon's own.
func (w *way) environment() []string {
	env := []string{wire.StateVariable + "=" + w.o.State}
	for _, name := range []string{"PATH", "HOME", "LANG", "USER", "SHELL", "TMPDIR"} {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// readErrors passes on what an agent complains of, bounded.
func (p *child) readErrors(r io.ReadCloser, w *way) {
	defer r.Close()
	sc := bufio.NewScanner(r)
	for n := 0; sc.Scan(); n++ {
		if n < 100 {
			p.complain = line(sc.Text(), textMost)
			w.o.Log.Warn("agent", "err", p.complain)
		}
	}
	_, _ = io.Copy(io.Discard, r)
}

func (p *child) kill() string {
	_ = p.cmd.Process.Kill()
	return wasKilled
}

const wasKilled = "was killed"

func (p *child) clean() bool { return p.cmd.ProcessState.Success() }

func (p *child) how() string {
	text := p.cmd.ProcessState.String()
	if st, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && st.Signal() == syscall.SIGKILL {
		text += ": a step did it, or the machine is out of memory"
	}
	return text
}

func (p *child) unborn(_ []byte, err error) error {
	select {
	case <-p.errs:
	case <-time.After(exitTime): // what it started still holds its stderr
		return fmt.Errorf("starting an agent: %w", err)
	}
	if p.complain != "" {
		return fmt.Errorf("starting an agent: %s", p.complain)
	}
	return fmt.Errorf("starting an agent: %w", err)
}
