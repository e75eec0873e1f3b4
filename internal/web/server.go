package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
)

// Reader is what was stored.
type Reader interface {
	Run(ctx context.Context, id int64) (*deploy.Run, error)
	Runs(ctx context.Context, f deploy.RunFilter) ([]deploy.Run, error)
	Log(ctx context.Context, run int64, f deploy.LogFilter, fn func(deploy.LogChunk) error) error
	Deliveries(ctx context.Context, f deploy.DeliveryFilter) ([]deploy.Delivery, error)
	Delivery(ctx context.Context, id int64) (*deploy.Delivery, error)
}

// Commands start and end runs.
type Commands interface {
	Trigger(ctx context.Context, c deploy.TriggerCommand) (int64, error)
	Retry(ctx context.Context, c deploy.RetryCommand) (int64, error)
	Cancel(ctx context.Context, run int64, actor string) error
	Rollback(ctx context.Context, c deploy.RollbackCommand) (deploy.RollbackReceipt, error)
	Releases(ctx context.Context, pipeline string) ([]deploy.Release, error) // beside an error: those of the other hosts
}

// Holds keep pipelines back.
type Holds interface {
	Hold(ctx context.Context, pipeline, actor, reason string) error
	Unhold(ctx context.Context, pipeline, actor, reason string) error
	Lock(ctx context.Context, pipeline, actor, reason string) error
	Unlock(ctx context.Context, pipeline, actor, reason string) error
	Abandon(ctx context.Context, host, path, actor string) error
}

// Caches are what test jobs leave for those after them.
type Caches interface {
	Caches(ctx context.Context, pipeline string) (deploy.CacheReport, error)
	ClearCaches(ctx context.Context, pipeline, actor string) (deploy.CacheReport, error)
}

// Outbox has the notifications.
type Outbox interface {
	Notifications(ctx context.Context, f deploy.NotificationFilter) ([]deploy.Notification, error)
	Notification(ctx context.Context, id int64) (*deploy.Notification, error)
	Resend(ctx context.Context, id int64, at time.Time) error
}

// Options are what the control socket serves; all are needed.
type Options struct {
	Reader   Reader
	Commands Commands
	Holds    Holds
	Replay   func(ctx context.Context, delivery int64, force bool, actor string) (deploy.Receipt, error)
	Reload   func(ctx context.Context) (string, error)
	Report   func() deploy.DaemonReport
	Agents   func(ctx context.Context) []deploy.AgentReport
	Caches   Caches
	Outbox   Outbox
	Tokens   Tokens
	Pipeline func(name string) bool // whether deploy.yaml has it
	Log      *slog.Logger
}

// requestMost bounds the body of a command, in bytes.
const requestMost = 256 << 10

// adminGroup may use the control socket, where it is there.
const adminGroup = "deployhook-admin"

// Listen opens the control socket: 0660, of the group deployhook-admin where
// that is there. A socket that nobody serves any more is replaced.
func Listen(path string) (net.Listener, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("another daemon serves the control socket %s", path)
	}
	if st, err := os.Lstat(path); err == nil {
		if st.Mode()&fs.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is there and is no socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("replacing the control socket: %w", err)
		}
	}
	// Nobody may come between making the socket and setting its mode.
	old := unix.Umask(0o117)
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the directory of the control socket %s is not there: make it, or set server.socket", path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the control socket %s: %w", path, errors.Unwrap(err))
	}
	if g, err := user.LookupGroup(adminGroup); err == nil {
		gid, err := strconv.Atoi(g.Gid)
		if err == nil {
			err = os.Chown(path, -1, gid)
		}
		if err != nil {
			l.Close()
			return nil, fmt.Errorf("giving the control socket to the group %s: %w: put the daemon's user into it (usermod -aG %s deployhook)", adminGroup, reason(err), adminGroup)
		}
	}
	return l, nil
}

// reason is what the system said, without the words around it.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

type actorKey struct{}

// NewServer serves o on the control socket. Its Shutdown ends the logs that
// are followed: they would go on as long as their runs.
func NewServer(o Options) *http.Server {
	s := &server{Options: o, stopping: make(chan struct{}), logs: make(chan struct{}, logsMost), alive: aliveEvery}
	h := &http.Server{
		Handler: routes(s), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, actorKey{}, peer(c))
		},
	}
	h.RegisterOnShutdown(sync.OnceFunc(func() { close(s.stopping) }))
	return h
}

// peer is the name of the user at the other end, as the kernel says.
func peer(c net.Conn) string {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return "unknown"
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return "unknown"
	}
	name := "unknown"
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return
		}
		name = strconv.Itoa(int(cred.Uid))
		if u, err := user.LookupId(name); err == nil {
			name = u.Username
		}
	})
	return name
}

func actor(r *http.Request) string {
	name, _ := r.Context().Value(actorKey{}).(string)
	return name
}

type server struct {
	Options
	stopping chan struct{} // closed by Shutdown
	logs     chan struct{} // one place for each log that is read
	alive    time.Duration // the longest that a followed log is silent
}

// handle makes a route of a function; its answer goes out as JSON, beside an
// [incomplete] too.
func handle[A any](fn func(r *http.Request) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a, err := fn(r)
		var part incomplete
		if errors.As(err, &part) {
			writeMissing(w, part.error)
		} else if err != nil {
			writeError(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a)
	}
}

// body reads the JSON of a command.
func body[Q any](r *http.Request) (Q, error) {
	var q Q
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, requestMost))
	d.DisallowUnknownFields()
	err := d.Decode(&q)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows its JSON")
		}
	}
	if large := new(http.MaxBytesError); errors.As(err, &large) {
		err = fmt.Errorf("it is over %d KiB", requestMost>>10)
	}
	if err != nil {
		return q, fmt.Errorf("%w: reading the request: %w", deploy.ErrMisuse, err)
	}
	return q, nil
}

func id(r *http.Request) (int64, error) {
	n, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%w: %q is not a number", deploy.ErrMisuse, r.PathValue("id"))
	}
	return n, nil
}

// limitOf reads how many entries of a list are wanted.
func limitOf(q url.Values) (int, error) {
	s := q.Get("limit")
	if s == "" {
		return 50, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 1000 {
		return 0, fmt.Errorf("%w: limit is a number from 1 to 1000", deploy.ErrMisuse)
	}
	return n, nil
}

// page reads limit and before.
func page(r *http.Request) (limit int, before int64, err error) {
	q := r.URL.Query()
	if limit, err = limitOf(q); err != nil {
		return 0, 0, err
	}
	if s := q.Get("before"); s != "" {
		if before, err = strconv.ParseInt(s, 10, 64); err != nil || before < 1 {
			return 0, 0, fmt.Errorf("%w: before is a number above 0", deploy.ErrMisuse)
		}
	}
	return limit, before, nil
}

// States are what a list of runs may be narrowed to.
var States = []string{
	string(deploy.Queued), string(deploy.Waiting), string(deploy.Running), string(deploy.Succeeded),
	string(deploy.Failed), string(deploy.Canceled), string(deploy.Skipped), string(deploy.Lost),
}

// state reads a state; empty means every one.
func state(s string) (deploy.State, error) {
	if s != "" && !slices.Contains(States, s) {
		return "", fmt.Errorf("%w: %q is no state: there are %s%s", deploy.ErrMisuse, s, strings.Join(States, ", "), deploy.DidYouMean(s, States))
	}
	return deploy.State(s), nil
}
