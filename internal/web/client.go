package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"

	"deployhook/internal/deploy"
)

// Client talks to the daemon over its control socket.
type Client struct {
	socket string
	http   *http.Client
}

// Dial makes a client for a control socket. Nothing is sent yet.
func Dial(socket string) *Client {
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}}
}

// Error is what the daemon answered instead.
type Error struct {
	Message string
	Misuse  bool // the command means nothing as it was given
}

func (e *Error) Error() string { return e.Message }

// Unreachable is a daemon that does not answer.
type Unreachable struct {
	Socket string
	Err    error
}

func (e *Unreachable) Error() string {
	return fmt.Sprintf("no daemon answers on %s: %v", e.Socket, e.Err)
}

func (e *Unreachable) Unwrap() error { return e.Err }

func (c *Client) send(ctx context.Context, method, path string, q any) (*http.Response, error) {
	var body io.Reader
	if q != nil {
		b, err := json.Marshal(q)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://deployhook"+path, body)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return nil, &Unreachable{c.socket, cause(op)}
		}
		return nil, fmt.Errorf("asking the daemon: %w", cause(err))
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer res.Body.Close()
	var e errorBody
	if json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&e) != nil || e.Error == "" {
		return nil, fmt.Errorf("the daemon answered %s", res.Status)
	}
	return nil, &Error{Message: e.Error, Misuse: e.Code == codeMisuse}
}

// cause is the innermost error: what the system said.
func cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		switch {
		case errors.Is(errno, fs.ErrNotExist):
			return errors.New("the socket is not there")
		case errors.Is(errno, fs.ErrPermission):
			return errors.New("this user may not open it: join the group deployhook-admin")
		}
		return errno
	}
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err
}

func call[A any](ctx context.Context, c *Client, method, path string, q any) (A, error) {
	var a A
	res, err := c.send(ctx, method, path, q)
	if err != nil {
		return a, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		return a, fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return a, nil
}

// Query narrows a list: empty and zero are not sent.
type Query struct {
	Pipeline, State, Hook string
	Limit                 int
	Before                int64
}

func (q Query) encode() string {
	v := url.Values{}
	for key, s := range map[string]string{"pipeline": q.Pipeline, "state": q.State, "hook": q.Hook} {
		if s != "" {
			v.Set(key, s)
		}
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Before > 0 {
		v.Set("before", strconv.FormatInt(q.Before, 10))
	}
	return "?" + v.Encode()
}

// Runs lists runs, the newest first.
func (c *Client) Runs(ctx context.Context, q Query) ([]Run, error) {
	return call[[]Run](ctx, c, http.MethodGet, "/api/runs"+q.encode(), nil)
}

// Run gives one run.
func (c *Client) Run(ctx context.Context, run int64) (Run, error) {
	return call[Run](ctx, c, http.MethodGet, fmt.Sprintf("/api/runs/%d", run), nil)
}

// Log gives a run's lines to fn, with follow until the run has ended.
func (c *Client) Log(ctx context.Context, run int64, job, step string, follow bool, fn func(Line) error) error {
	v := url.Values{"job": {job}, "step": {step}, "follow": {strconv.FormatBool(follow)}}
	res, err := c.send(ctx, http.MethodGet, fmt.Sprintf("/api/runs/%d/log?%s", run, v.Encode()), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	d := json.NewDecoder(res.Body)
	for {
		var l Line
		if err := d.Decode(&l); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("reading the log: %w", err)
		}
		if err := fn(l); err != nil {
			return err
		}
	}
}

// Trigger makes a run by hand and gives its number.
func (c *Client) Trigger(ctx context.Context, t deploy.TriggerCommand) (int64, error) {
	n, err := call[numbered](ctx, c, http.MethodPost, "/api/pipelines/"+url.PathEscape(t.Pipeline)+"/runs", t)
	return n.Run, err
}

// Retry makes a run like an ended one and gives its number.
func (c *Client) Retry(ctx context.Context, run int64, force bool) (int64, error) {
	n, err := call[numbered](ctx, c, http.MethodPost, fmt.Sprintf("/api/runs/%d/retry", run), forced{force})
	return n.Run, err
}

// Cancel ends a run.
func (c *Client) Cancel(ctx context.Context, run int64) (string, error) {
	d, err := call[done](ctx, c, http.MethodPost, fmt.Sprintf("/api/runs/%d/cancel", run), nil)
	return d.Message, err
}

// Rollback asks for an earlier release.
func (c *Client) Rollback(ctx context.Context, r deploy.RollbackCommand) (deploy.RollbackReceipt, error) {
	return call[deploy.RollbackReceipt](ctx, c, http.MethodPost, "/api/pipelines/"+url.PathEscape(r.Pipeline)+"/rollback", r)
}

// Releases lists a pipeline's releases, the newest first.
func (c *Client) Releases(ctx context.Context, pipeline string) ([]deploy.Release, error) {
	return call[[]deploy.Release](ctx, c, http.MethodGet, "/api/pipelines/"+url.PathEscape(pipeline)+"/releases", nil)
}

// Hold carries out hold, unhold, lock or unlock.
func (c *Client) Hold(ctx context.Context, word, pipeline, reason string) (string, error) {
	d, err := call[done](ctx, c, http.MethodPost, "/api/pipelines/"+url.PathEscape(pipeline)+"/"+word, reasoned{reason})
	return d.Message, err
}

// Abandon drops the unfinished switch of a path.
func (c *Client) Abandon(ctx context.Context, host, path string) (string, error) {
	d, err := call[done](ctx, c, http.MethodPost, "/api/abandon", place{host, path})
	return d.Message, err
}

// Deliveries lists deliveries, the newest first.
func (c *Client) Deliveries(ctx context.Context, q Query) ([]Delivery, error) {
	return call[[]Delivery](ctx, c, http.MethodGet, "/api/deliveries"+q.encode(), nil)
}

// Delivery gives one delivery.
func (c *Client) Delivery(ctx context.Context, n int64) (Delivery, error) {
	return call[Delivery](ctx, c, http.MethodGet, fmt.Sprintf("/api/deliveries/%d", n), nil)
}

// Replay decides on a delivery anew.
func (c *Client) Replay(ctx context.Context, delivery int64, force bool) (Receipt, error) {
	return call[Receipt](ctx, c, http.MethodPost, fmt.Sprintf("/api/deliveries/%d/replay", delivery), forced{force})
}

// Reload makes the daemon read its config again.
func (c *Client) Reload(ctx context.Context) (string, error) {
	d, err := call[done](ctx, c, http.MethodPost, "/api/reload", nil)
	return d.Message, err
}
