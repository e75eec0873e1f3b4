package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
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
	Releases(ctx context.Context, pipeline string) ([]deploy.Release, error)
}

// Holds keep pipelines back.
type Holds interface {
	Hold(ctx context.Context, pipeline, actor, reason string) error
	Unhold(ctx context.Context, pipeline, actor, reason string) error
	Lock(ctx context.Context, pipeline, actor, reason string) error
	Unlock(ctx context.Context, pipeline, actor, reason string) error
	Abandon(ctx context.Context, host, path, actor string) error
}

// Options are what the control socket serves; all are needed.
type Options struct {
	Reader   Reader
	Commands Commands
	Holds    Holds
	Replay   func(ctx context.Context, delivery int64, force bool, actor string) (deploy.Receipt, error)
	Reload   func(ctx context.Context) (string, error)
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
			return nil, fmt.Errorf("giving the control socket to the group %s: %w", adminGroup, err)
		}
	}
	return l, nil
}

type actorKey struct{}

// NewServer serves o on the control socket.
func NewServer(o Options) *http.Server {
	return &http.Server{
		Handler: routes(&server{o}), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, actorKey{}, peer(c))
		},
	}
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

type server struct{ Options }

// handle makes a route of a function; its answer goes out as JSON.
func handle[A any](fn func(r *http.Request) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a, err := fn(r)
		if err != nil {
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
	if err := d.Decode(&q); err != nil {
		return q, fmt.Errorf("%w: reading the request: %w", deploy.ErrMisuse, err)
	}
	return q, nil
}

// Codes of errors, by which the client knows what to do.
const (
	codeNotFound = "not_found"
	codeMisuse   = "misuse"
	codeRefused  = "refused"
	codeFailed   = "failed"
)

type errorBody struct {
	Error string `json:"error"`
	Code  string `json:"code"`
}

// writeError is the one place that turns errors into status codes.
func writeError(w http.ResponseWriter, err error) {
	e, status := errorBody{Error: err.Error(), Code: codeFailed}, http.StatusInternalServerError
	for _, known := range []struct {
		err    error
		code   string
		status int
	}{
		{deploy.ErrMisuse, codeMisuse, http.StatusBadRequest}, {deploy.ErrNotFound, codeNotFound, http.StatusNotFound},
		{deploy.ErrRefused, codeRefused, http.StatusConflict}, {deploy.ErrLocked, codeRefused, http.StatusConflict},
		{deploy.ErrStale, codeRefused, http.StatusConflict}, {deploy.ErrFull, codeFailed, http.StatusInsufficientStorage},
	} {
		if errors.Is(err, known.err) {
			e.Code, status = known.code, known.status
			break
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(e)
}

func id(r *http.Request) (int64, error) {
	n, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%w: %q is not a number", deploy.ErrMisuse, r.PathValue("id"))
	}
	return n, nil
}

// page reads limit and before.
func page(r *http.Request) (limit int, before int64, err error) {
	limit = 50
	q := r.URL.Query()
	if s := q.Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > 1000 {
			return 0, 0, fmt.Errorf("%w: limit is a number from 1 to 1000", deploy.ErrMisuse)
		}
	}
	if s := q.Get("before"); s != "" {
		if before, err = strconv.ParseInt(s, 10, 64); err != nil || before < 1 {
			return 0, 0, fmt.Errorf("%w: before is a number above 0", deploy.ErrMisuse)
		}
	}
	return limit, before, nil
}
