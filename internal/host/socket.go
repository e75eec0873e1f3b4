package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"deployhook/internal/agent/wire"
)

// instance is an agent that systemd started for a connection to a local
// socket, as another user: the near end cannot see its process, only the end
// of its stream. That is the process's exit, as the agent holds the connection
// until then; one that has cleaned up says so as its last word.
type instance struct {
	*net.UnixConn
	way  *way
	conn *Conn

	mu      sync.Mutex // one reads at a time
	tail    []byte     // the last bytes that were read
	over    bool       // the stream has ended
	closing bool
	once    sync.Once
}

// connect has systemd start an agent.
func (w *way) connect(ctx context.Context) (*Conn, error) {
	conn, err := dialLocal(ctx, w.socket)
	if err != nil {
		return nil, err
	}
	i := &instance{UnixConn: conn, way: w}
	i.conn = &Conn{o: &w.o, bury: w.bury, conn: i, process: i, done: make(chan struct{})}
	return i.conn.greet(ctx)
}

// dialLocal connects to a local socket that root listens on.
func dialLocal(ctx context.Context, path string) (*net.UnixConn, error) {
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "unix", path)
		// All that may wait for systemd do: it takes them in a moment.
		if errors.Is(err, unix.EAGAIN) {
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
				continue
			}
		}
		if err != nil {
			return nil, fmt.Errorf("the agent socket %s %s", path, dialError(err))
		}
		local := conn.(*net.UnixConn)
		if uid, err := listenerOf(local); err != nil || uid != 0 {
			local.Close()
			return nil, fmt.Errorf("the agent socket %s is not root's, but of user %d: it would be told the jobs' secrets; only one that systemd made is used", path, uid)
		}
		return local, nil
	}
}

// dialError says why a local socket cannot be reached, and what to type.
func dialError(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "is not there: sudo systemctl enable --now deployhook-test.socket deployhook-agent.socket makes both"
	case errors.Is(err, unix.ECONNREFUSED):
		return "is dead: sudo systemctl restart deployhook-test.socket deployhook-agent.socket"
	case errors.Is(err, fs.ErrPermission):
		return "may not be opened by this user: it belongs to the group deployhook"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return fmt.Sprintf("cannot be reached: %v", err)
}

// listenerOf gives the user who made the socket that a connection went to.
func listenerOf(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil {
		return 0, cerr
	}
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// Read is the transport's way to read.
func (i *instance) Read(b []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closing {
		return 0, net.ErrClosed
	}
	return i.read(b)
}

// read notes the last bytes, and the end of the stream.
func (i *instance) read(b []byte) (int, error) {
	if i.over {
		return 0, net.ErrClosed
	}
	n, err := i.UnixConn.Read(b)
	most := len(wire.Goodbye(strings.Repeat("x", nonceMost)))
	i.tail = append(i.tail, b[max(0, n-most):n]...)
	i.tail = i.tail[max(0, len(i.tail)-most):]
	if t, ok := err.(net.Error); err != nil && !(ok && t.Timeout()) {
		i.over = true
		i.UnixConn.Close()
		close(i.conn.done)
	}
	return n, err
}

// nonceMost is how long the name of an agent is at most.
const nonceMost = 100

// Close tells the agent to end, and goes on reading until it has.
func (i *instance) Close() error {
	i.once.Do(func() {
		if i.conn.nonce == "" { // it has not begun: there is nothing to wait for
			i.UnixConn.Close()
		}
		_ = i.UnixConn.CloseWrite()
		_ = i.UnixConn.SetReadDeadline(time.Time{})
		go func() {
			i.mu.Lock()
			defer i.mu.Unlock()
			i.closing = true
			for b := make([]byte, 4<<10); !i.over; {
				_, _ = i.read(b)
			}
		}()
	})
	return nil
}

// kill has another agent of the same user end this one. When that cannot be
// had either, the stream is given up.
func (i *instance) kill() string {
	ctx, cancel := context.WithTimeout(context.Background(), openTime)
	defer cancel()
	c, err := i.way.start(ctx)
	if err == nil {
		_, err = call[wire.Empty](ctx, c, wire.RouteKill, wire.Kill{Nonce: i.conn.nonce})
		c.Close()
	}
	if err == nil {
		select {
		case <-i.conn.done:
			return wasKilled
		case <-time.After(closeTime):
			err = errors.New("it is still there")
		}
	}
	i.way.o.Log.Error("an agent does not end and cannot be killed", "socket", i.way.socket, "err", err)
	i.UnixConn.Close()
	return "cannot be killed"
}

func (i *instance) clean() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return bytes.HasSuffix(i.tail, []byte(wire.Goodbye(i.conn.nonce)))
}

func (i *instance) how() string {
	if i.clean() {
		return "it was told to stop"
	}
	return "it was killed: a step did it, or the machine is out of memory; the journal of its unit says more"
}

func (i *instance) unborn(banner []byte, err error) error {
	if said := strings.TrimSpace(string(banner)); said != "" {
		return fmt.Errorf("starting an agent at %s: %s", i.way.socket, line(said[strings.LastIndexByte(said, '\n')+1:], textMost))
	}
	if errors.Is(err, syscall.ECONNRESET) {
		err = errors.New("systemd closed the connection: MaxConnections of the socket unit is below workers, or the unit cannot start")
	}
	return fmt.Errorf("starting an agent at %s: %w; the journal of its unit says more", i.way.socket, err)
}
