package web

import (
	"bufio"
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
	"strings"
	"syscall"
	"time"

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
	}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// Bounds of what the daemon is waited for and of what it may answer.
const (
	callTime  = 5 * time.Minute
	answerMax = 64 << 20 // bytes: 1,000 runs with their steps
)

// Unreachable is a daemon that does not answer.
type Unreachable struct {
	Socket string
	Hint   string
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
		return nil, c.failure(ctx, err)
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer res.Body.Close()
	var e errorBody
	if json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&e) != nil || e.Error == "" {
		return nil, &Error{Message: "the daemon answered " + res.Status, Hint: "is it of another version? deployhook version says this one's", Code: codeFailed}
	}
	return nil, &Error{Message: e.Error, Hint: e.Hint, Code: e.Code}
}

// failure says why no answer came.
func (c *Client) failure(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("the daemon on %s did not answer within %v", c.socket, callTime)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var errno syscall.Errno
	errors.As(err, &errno)
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "dial" {
		// The words around it name the address of the request, which is ours.
		for next := err; next != nil; next = errors.Unwrap(next) {
			err = next
		}
		return &Unreachable{c.socket, "it may have stopped just now: deployhook runs shows what became of the command", err}
	}
	switch {
	case errors.Is(errno, fs.ErrNotExist):
		err = errors.New("connect: the socket is not there")
	case errors.Is(errno, fs.ErrPermission):
		return &Unreachable{c.socket, "join the group " + adminGroup + ", or use sudo", errors.New("connect: this user may not open it")}
	case errno != 0:
		err = fmt.Errorf("connect: %w", errno)
	default:
		err = op.Err
	}
	return &Unreachable{c.socket, "is it running? systemctl status deployhook, or: deployhook serve", err}
}

func call[A any](ctx context.Context, c *Client, method, path string, q any) (A, error) {
	var a A
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	res, err := c.send(ctx, method, path, q)
	if err != nil {
		return a, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(io.LimitReader(res.Body, answerMax)).Decode(&a); err != nil {
		if ctx.Err() != nil {
			return a, c.failure(ctx, err)
		}
		return a, fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return a, missing(res.Header)
}

// onPipeline carries out a command on a pipeline, a POST when q is not nil.
func onPipeline[A any](ctx context.Context, c *Client, name, word string, q any) (A, error) {
	// No pipeline is named so, and a path would lose these names.
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		var none A
		return none, &Error{Message: fmt.Sprintf("no pipeline %q", name), Code: "not_found"}
	}
	method := http.MethodPost
	if q == nil {
		method = http.MethodGet
	}
	return call[A](ctx, c, method, "/api/pipelines/"+url.PathEscape(name)+"/"+word, q)
}

// Query narrows a list: empty and zero are not sent.
type Query struct {
	Pipeline, State, Hook string
	Target                string // of notifications
	Limit                 int
	Before                int64
}

func (q Query) encode() string {
	v := url.Values{}
	for key, s := range map[string]string{"pipeline": q.Pipeline, "state": q.State, "hook": q.Hook, "target": q.Target} {
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

// Outputs gives what the jobs of a run wrote for later ones, by job and name.
func (c *Client) Outputs(ctx context.Context, run int64) (map[string]map[string]string, error) {
	return call[map[string]map[string]string](ctx, c, http.MethodGet, fmt.Sprintf("/api/runs/%d/outputs", run), nil)
}

// Log gives a run's lines to fn, with follow until the run has ended.
func (c *Client) Log(ctx context.Context, run int64, job, step string, follow bool, fn func(Line) error) error {
	_, err := c.Lines(ctx, run, LogQuery{Job: job, Step: step, Follow: follow}, func(lines []Line) error {
		for _, l := range lines {
			if err := fn(l); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// LogQuery says which lines of a run are wanted.
type LogQuery struct {
	Job, Step string
	Host      string
	Tail      int   // only so many of the last ones; 0 = all
	After     int64 // only those behind a mark that Lines gave
	Follow    bool  // until the run has ended
}

// readMost is how much of a log is read at once, in bytes.
const readMost = 64 << 10

// Lines gives a run's lines to fn, as many at once as came together, and says
// after which mark it would go on: also with an error, of which [Away] says
// whether going on may be of use.
func (c *Client) Lines(ctx context.Context, run int64, q LogQuery, fn func([]Line) error) (after int64, err error) {
	v := url.Values{"job": {q.Job}, "step": {q.Step}, "host": {q.Host}, "follow": {strconv.FormatBool(q.Follow)}, "after": {strconv.FormatInt(q.After, 10)}}
	if q.Tail > 0 {
		v.Set("tail", strconv.Itoa(q.Tail))
	}
	after = q.After
	res, err := c.send(ctx, http.MethodGet, fmt.Sprintf("/api/runs/%d/log?%s", run, v.Encode()), nil)
	if err != nil {
		return after, err
	}
	defer res.Body.Close()
	d := json.NewDecoder(bufio.NewReaderSize(res.Body, readMost))
	for {
		var p logPart
		switch err = d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return after, nil
		case err != nil && ctx.Err() != nil:
			return after, ctx.Err()
		case err != nil:
			return after, &Unreachable{c.socket, fmt.Sprintf("it may have stopped just now: deployhook run %d shows what became of the run", run), err}
		case p.Error != "":
			return after, &Error{Message: p.Error, Code: p.Code}
		}
		lines, err := p.lines()
		if err == nil {
			err = fn(lines)
		}
		if err != nil {
			return after, err
		}
		after = p.After
	}
}

// Trigger makes a run by hand and gives its number.
func (c *Client) Trigger(ctx context.Context, t deploy.TriggerCommand) (int64, error) {
	n, err := onPipeline[numbered](ctx, c, t.Pipeline, "runs", t)
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
	return onPipeline[deploy.RollbackReceipt](ctx, c, r.Pipeline, "rollback", r)
}

// Releases lists a pipeline's newest releases, the newest first. Beside an error
// it gives those of the hosts that could be asked.
func (c *Client) Releases(ctx context.Context, pipeline string) ([]deploy.Release, error) {
	return c.ReleasesBefore(ctx, pipeline, 0, "")
}

// ReleasesBefore lists so many of a pipeline's releases (0 = 50) that come
// after the release before in the list, the newest first. Beside an error it
// gives those of the hosts that could be asked.
func (c *Client) ReleasesBefore(ctx context.Context, pipeline string, limit int, before string) ([]deploy.Release, error) {
	v := url.Values{}
	if limit > 0 {
		v.Set("limit", strconv.Itoa(limit))
	}
	if before != "" {
		v.Set("before", before)
	}
	return onPipeline[[]deploy.Release](ctx, c, pipeline, "releases?"+v.Encode(), nil)
}

// Hold carries out hold, unhold, lock or unlock.
func (c *Client) Hold(ctx context.Context, word, pipeline, reason string) (string, error) {
	d, err := onPipeline[done](ctx, c, pipeline, word, reasoned{reason})
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

// Daemon asks the daemon about itself.
func (c *Client) Daemon(ctx context.Context) (deploy.DaemonReport, error) {
	return call[deploy.DaemonReport](ctx, c, http.MethodGet, "/api/daemon", nil)
}

// Agents has the daemon open an agent of each kind and say what came of it.
func (c *Client) Agents(ctx context.Context) ([]deploy.AgentReport, error) {
	return call[[]deploy.AgentReport](ctx, c, http.MethodGet, "/api/agents", nil)
}

// Caches lists what test jobs of a pipeline, or of all where it is empty, keep.
func (c *Client) Caches(ctx context.Context, pipeline string) (deploy.CacheReport, error) {
	return call[deploy.CacheReport](ctx, c, http.MethodGet, "/api/caches?"+url.Values{"pipeline": {pipeline}}.Encode(), nil)
}

// ClearCaches ends these, and gives those that were ended.
func (c *Client) ClearCaches(ctx context.Context, pipeline string) (deploy.CacheReport, error) {
	return call[deploy.CacheReport](ctx, c, http.MethodPost, "/api/caches/clear", ofPipeline{pipeline})
}
