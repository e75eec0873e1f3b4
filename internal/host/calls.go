package host

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"deployhook/internal/agent/wire"
	"deployhook/internal/deploy"
)

// ErrExists is a release whose name is taken.
var ErrExists = errors.New("a release of this name is there already")

// callTime bounds a call that only asks or writes a few lines; those that take
// longer say so.
const callTime = 2 * time.Minute

// Types of the far end, as they go over the connection.
type (
	Facts       = wire.Facts
	OpenRelease = wire.OpenRelease
	Prepare     = wire.Prepare
	Activate    = wire.Activate
)

// call sends a request and reads its answer.
func call[A any](ctx context.Context, c *Conn, route string, q any) (A, error) {
	var answer A
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	b, err := json.Marshal(q)
	if err != nil {
		return answer, err
	}
	res, err := c.send(ctx, route, bytes.NewReader(b))
	if err != nil {
		return answer, err
	}
	defer res.Body.Close()
	if err := wire.Decode(res.Body, &answer); err != nil {
		return answer, c.broken(ctx, err)
	}
	return answer, nil
}

// send makes one request; an answer that is an error becomes one.
func (c *Conn) send(ctx context.Context, route string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+route, body)
	if err != nil {
		return nil, err
	}
	res, err := c.client.RoundTrip(req)
	if err != nil {
		return nil, c.gone(ctx, err)
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer res.Body.Close()
	var e wire.Error
	if res.StatusCode != http.StatusUnprocessableEntity || wire.Decode(res.Body, &e) != nil || e.Error == "" {
		return nil, fmt.Errorf("the agent answered %s", http.StatusText(res.StatusCode))
	}
	if e.Exists {
		return nil, ErrExists
	}
	return nil, errors.New(e.Error)
}

// broken is an answer that could not be read: the agent ended, or it lies.
func (c *Conn) broken(ctx context.Context, err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("the agent's answer is not what was asked for: %w", err)
	}
	return c.gone(ctx, err)
}

func do(ctx context.Context, c *Conn, route string) error {
	_, err := call[wire.Empty](ctx, c, route, wire.Empty{})
	return err
}

// Facts are what the agent knows of its machine.
func (c *Conn) Facts(ctx context.Context) (Facts, error) {
	return call[Facts](ctx, c, wire.RouteFacts, wire.Empty{})
}

// OpenWorkspace makes a fresh directory, which is gone when the agent is.
func (c *Conn) OpenWorkspace(ctx context.Context, name string) (string, error) {
	d, err := call[wire.Dir](ctx, c, wire.RouteWorkspace, wire.Workspace{Name: name})
	return d.Dir, err
}

// OpenRelease locks a release path, which stays locked until the agent ends,
// and tells what is there. It waits up to a minute for whoever has the lock.
func (c *Conn) OpenRelease(ctx context.Context, o OpenRelease) (*deploy.Found, error) {
	return checked(call[wire.Found](ctx, c, wire.RouteOpen, o))
}

// Look tells what is at a release path without locking it.
func (c *Conn) Look(ctx context.Context, path string) (*deploy.Found, error) {
	return checked(call[wire.Found](ctx, c, wire.RouteLook, wire.Path{Path: path}))
}

// checked matches what an agent says of a path against the forms that it can have.
func checked(f wire.Found, err error) (*deploy.Found, error) {
	if err != nil {
		return nil, err
	}
	for _, l := range f.Lines {
		if !deploy.ValidReleaseID(l.Release) {
			return nil, errors.New("the agent names a release that is none")
		}
	}
	return &deploy.Found{Intent: f.Intent, Foreign: f.Foreign, Current: f.Current, Lines: f.Lines}, nil
}

// Sweep removes trees that a crash left half made.
func (c *Conn) Sweep(ctx context.Context) error { return do(ctx, c, wire.RouteSweep) }

// Prepare makes a release's directory. [ErrExists]: its name is taken.
func (c *Conn) Prepare(ctx context.Context, p Prepare) error {
	_, err := call[wire.Dir](ctx, c, wire.RoutePrepare, p)
	return err
}

// Shared links the shared paths into the release.
func (c *Conn) Shared(ctx context.Context) error { return do(ctx, c, wire.RouteShared) }

// Prepared records that the release is whole, and on disk.
func (c *Conn) Prepared(ctx context.Context) error { return do(ctx, c, wire.RoutePrepared) }

// Activate points current to a release.
func (c *Conn) Activate(ctx context.Context, a Activate) error {
	_, err := call[wire.Empty](ctx, c, wire.RouteActivate, a)
	return err
}

// Live ends the switch: the release is live.
func (c *Conn) Live(ctx context.Context) error { return do(ctx, c, wire.RouteLive) }

// Undo points current back; it returns where to: "releases/<id>" or nothing.
func (c *Conn) Undo(ctx context.Context) (string, error) {
	f, err := call[wire.From](ctx, c, wire.RouteUndo, wire.Empty{})
	return f.From, err
}

// Undone ends the switch: the release is bad.
func (c *Conn) Undone(ctx context.Context) error { return do(ctx, c, wire.RouteUndone) }

// Bad marks the release that was being made: it will never be live.
func (c *Conn) Bad(ctx context.Context) error { return do(ctx, c, wire.RouteBad) }

// DropIntent ends a switch that was announced and not made.
func (c *Conn) DropIntent(ctx context.Context) error { return do(ctx, c, wire.RouteDrop) }

// Abandon drops the unfinished switch of a path and leaves current.
func (c *Conn) Abandon(ctx context.Context, path string) error {
	_, err := call[wire.Empty](ctx, c, wire.RouteAbandon, wire.Path{Path: path})
	return err
}

// Prune removes old releases and names those that are gone.
func (c *Conn) Prune(ctx context.Context, keep, keepFailed int) ([]string, error) {
	p, err := call[wire.Pruned](ctx, c, wire.RoutePrune, wire.Prune{Keep: keep, KeepFailed: keepFailed})
	if err == nil && p.Warning != "" {
		err = errors.New(p.Warning)
	}
	return p.Removed, err
}

// Put sends a tree into the workspace or the release. walk calls its function
// for every file; it ends when that returns an error.
func (c *Conn) Put(ctx context.Context, walk func(fn func(deploy.TreeFile, io.Reader) error) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	walked := make(chan error, 1)
	go func() {
		buf := bufio.NewWriterSize(w, 256<<10)
		err := walk(func(f deploy.TreeFile, content io.Reader) error { return wire.WriteFile(buf, f, content) })
		if err == nil {
			err = wire.EndTree(buf)
		}
		walked <- err
		w.CloseWithError(err)
	}()
	res, err := c.send(ctx, wire.RouteTree, r)
	r.CloseWithError(errStopped)
	werr := <-walked
	if err == nil {
		res.Body.Close()
	}
	// What went wrong while the tree was read says more than that the agent
	// got only half of it; that the agent stopped reading says less.
	if werr != nil && !errors.Is(werr, errStopped) {
		return werr
	}
	return err
}

var errStopped = errors.New("the agent stopped reading")

// Step is one command to run.
type Step struct {
	ID      string
	Command string
	Shell   string   // empty: bash -eo pipefail, else sh -e
	Dir     string   // absolute
	Env     []string // KEY=value
	Path    []string // before PATH
	Timeout time.Duration
	Files   map[string][]byte // a variable that gets the path of a file with this content
}

// StepResult is how a step ended.
type StepResult struct {
	ExitCode *int
	Signal   string
	TimedOut bool
	Canceled bool
	Error    string
	LeftOver []string
}

// Step runs a command and gives its output to out (stream 1 stdout, 2 stderr)
// as it comes. When ctx ends, the step is ended, and its result still read;
// [ErrGone]: the agent ended, and nobody knows how the step did.
func (c *Conn) Step(ctx context.Context, s Step, out func(stream uint8, chunk []byte)) (StepResult, error) {
	req := wire.Step{ID: s.ID, Command: s.Command, Shell: s.Shell, Dir: s.Dir, Env: s.Env, Path: s.Path, Timeout: s.Timeout.Milliseconds()}
	for name, content := range s.Files {
		req.Files = append(req.Files, name)
		if c.sent[name] {
			continue
		}
		if len(content) <= wire.InlineMost {
			if req.Inline == nil {
				req.Inline = map[string][]byte{}
			}
			req.Inline[name] = content
			c.sent[name] = true
			continue
		}
		res, err := c.send(ctx, wire.RouteFile+name, bytes.NewReader(content))
		if err != nil {
			return StepResult{}, err
		}
		res.Body.Close()
		c.sent[name] = true
	}
	b, err := json.Marshal(req)
	if err != nil {
		return StepResult{}, err
	}
	if len(b) > wire.JSONMost {
		return StepResult{}, errors.New("the environment of the step is over 1 MiB")
	}
	// The request lives longer than ctx: its end is asked for, not cut off.
	life, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	stop := context.AfterFunc(ctx, func() {
		if _, err := call[wire.Empty](life, c, wire.RouteCancel, wire.Cancel{ID: s.ID}); err != nil {
			cut()
		}
	})
	defer stop()
	res, err := c.send(life, wire.RouteStep, bytes.NewReader(b))
	if err != nil {
		return StepResult{}, err
	}
	defer res.Body.Close()
	r := bufio.NewReaderSize(res.Body, 64<<10)
	buf := make([]byte, wire.FrameMost)
	for {
		kind, content, err := wire.ReadFrame(r, buf)
		if err != nil {
			return StepResult{}, c.gone(life, err)
		}
		if kind != wire.FrameResult {
			out(kind, content)
			continue
		}
		var w wire.Result
		if err := wire.Decode(bytes.NewReader(content), &w); err != nil {
			return StepResult{}, fmt.Errorf("the agent's result is not one: %w", err)
		}
		if ctx.Err() != nil {
			w.Canceled = true
		}
		return StepResult(w), nil
	}
}
