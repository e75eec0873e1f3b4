package host

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"deployhook/internal/agent/wire"
	"deployhook/internal/deploy"
)

// ErrExists is a release whose name is taken.
var ErrExists = errors.New("a release of this name is there already")

// ErrNotBegun is a switch that was refused before anything was changed.
var ErrNotBegun = errors.New("the switch was not begun")

// notBegun is the sentence about an [ErrNotBegun].
type notBegun string

func (e notBegun) Error() string      { return string(e) }
func (notBegun) Is(target error) bool { return target == ErrNotBegun }

// The daemon's own deadlines: what an agent says of time is not believed.
const (
	callTime = 2 * time.Minute  // a call that only asks or writes a few lines
	syncTime = 10 * time.Minute // one that writes a file system to disk, or removes trees
	treeTime = time.Hour        // sending a tree
	copyTime = 24 * time.Hour   // copying the agent's program, as long as something comes through
)

// Deadlines that tests make shorter.
var (
	stallTime = 2 * time.Minute  // sending a tree or the agent's program, without a byte being taken
	stepSlack = 90 * time.Second // from the end of a step's time, or its cancel, to its result
)

// Types of the far end, as they go over the connection.
type (
	Facts       = wire.Facts
	OpenRelease = wire.OpenRelease
	Prepare     = wire.Prepare
	Activate    = wire.Activate
	Limits      = wire.Limits
)

// ErrNoClock is an agent that does not say what its machine's clock is.
var ErrNoClock = errors.New("the agent does not say what time it has")

// call sends a request and reads its answer.
func call[A any](ctx context.Context, c *Conn, route string, q any) (A, error) {
	return callFor[A](ctx, c, callTime, route, q)
}

// callFor is call with a deadline of its own.
func callFor[A any](ctx context.Context, c *Conn, most time.Duration, route string, q any) (A, error) {
	var answer, none A
	b, err := json.Marshal(q)
	if err != nil {
		return none, err
	}
	late := fmt.Errorf("the agent did not answer within %v", most)
	ctx, cancel := context.WithTimeoutCause(ctx, most, late)
	defer cancel()
	res, err := c.send(ctx, route, bytes.NewReader(b), "")
	if err == nil {
		defer res.Body.Close()
		if derr := wire.Decode(res.Body, &answer); derr != nil {
			err = c.broken(ctx, derr)
		}
	}
	switch {
	case err == nil:
		return answer, nil
	case errors.Is(context.Cause(ctx), late):
		return none, late
	}
	return none, err
}

// send makes one request, with a body of an encoding, if any; an answer that
// is an error becomes one.
func (c *Conn) send(ctx context.Context, route string, body io.Reader, encoding string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+route, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set(wire.TimeHeader, c.o.Clock().UTC().Format(time.RFC3339Nano))
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
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
	if e.NotBegun {
		return nil, notBegun(line(e.Error, textMost))
	}
	return nil, errors.New(line(e.Error, textMost))
}

// broken is an answer that could not be read: the agent ended, or it lies.
func (c *Conn) broken(ctx context.Context, err error) error {
	var cut *net.OpError
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &cut) {
		// The end of its process is seen a moment after that of its words.
		select {
		case <-c.done:
		case <-ctx.Done():
		case <-time.After(exitTime):
		}
	}
	if ctx.Err() == nil && c.lives() {
		return fmt.Errorf("the agent's answer is not what was asked for: %s", line(err.Error(), textMost))
	}
	return c.gone(ctx, err)
}

func do(ctx context.Context, c *Conn, route string) error { return doFor(ctx, c, callTime, route) }

func doFor(ctx context.Context, c *Conn, most time.Duration, route string) error {
	_, err := callFor[wire.Empty](ctx, c, most, route, wire.Empty{})
	return err
}

// Facts are what the agent knows of its machine.
func (c *Conn) Facts(ctx context.Context) (Facts, error) {
	return call[Facts](ctx, c, wire.RouteFacts, wire.Empty{})
}

// ClockAhead is by how much the clock of the agent's machine is ahead of the
// one here; negative: behind. A difference that the way there and back may
// account for is none. [ErrNoClock]: an agent of an earlier version says nothing of it.
func (c *Conn) ClockAhead(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	before, began := c.o.Clock(), time.Now()
	res, err := c.send(ctx, wire.RouteFacts, strings.NewReader("{}"), "")
	if err != nil {
		return 0, err
	}
	way := time.Since(began)
	res.Body.Close()
	there, err := time.Parse(time.RFC3339Nano, res.Header.Get(wire.TimeHeader))
	if err != nil {
		return 0, ErrNoClock
	}
	ahead := there.Sub(before)
	switch {
	case ahead > way:
		return ahead - way, nil
	case ahead < 0:
		return ahead, nil
	}
	return 0, nil
}

// Room asks whether a path can be written by the agent's user, and how much
// room there is. Nothing is changed.
func (c *Conn) Room(ctx context.Context, path string, inPlace bool) (deploy.Room, error) {
	r, err := call[deploy.Room](ctx, c, wire.RouteRoom, wire.RoomOf{Path: path, InPlace: inPlace})
	r.Path, r.Error = path, line(r.Error, textMost)
	return r, err
}

// OpenWorkspace makes a fresh directory, which is gone when the agent is.
func (c *Conn) OpenWorkspace(ctx context.Context, name string) (string, error) {
	d, err := callFor[wire.Dir](ctx, c, syncTime, wire.RouteWorkspace, wire.Workspace{Name: name})
	if err == nil && (!path.IsAbs(d.Dir) || line(d.Dir, currentMost) != d.Dir) {
		return "", errors.New("the agent names a workspace that is none")
	}
	return d.Dir, err
}

// OpenRelease locks a release path, which stays locked until the agent ends,
// and tells what is there. It waits up to a minute for whoever has the lock.
func (c *Conn) OpenRelease(ctx context.Context, o OpenRelease) (*deploy.Found, error) {
	return found(callFor[wire.Found](ctx, c, syncTime, wire.RouteOpen, o))
}

// Look tells what is at a release path without locking it.
func (c *Conn) Look(ctx context.Context, root string) (*deploy.Found, error) {
	return found(call[wire.Found](ctx, c, wire.RouteLook, wire.Path{Path: root}))
}

// Sweep removes trees that a crash left half made.
func (c *Conn) Sweep(ctx context.Context) error { return doFor(ctx, c, syncTime, wire.RouteSweep) }

// Prepare makes a release's directory. [ErrExists]: its name is taken.
func (c *Conn) Prepare(ctx context.Context, p Prepare) error {
	_, err := call[wire.Dir](ctx, c, wire.RoutePrepare, p)
	return err
}

// Shared links the shared paths into the release.
func (c *Conn) Shared(ctx context.Context) error { return do(ctx, c, wire.RouteShared) }

// Prepared records that the release is whole, and on disk.
func (c *Conn) Prepared(ctx context.Context) error {
	return doFor(ctx, c, syncTime, wire.RoutePrepared)
}

// Activate points current to a release. [ErrNotBegun]: it was refused, and
// everything is as before.
func (c *Conn) Activate(ctx context.Context, a Activate) error {
	_, err := callFor[wire.Empty](ctx, c, syncTime, wire.RouteActivate, a)
	return err
}

// Live ends the switch: the release is live.
func (c *Conn) Live(ctx context.Context) error { return do(ctx, c, wire.RouteLive) }

// Undo points current back; it returns where to: "releases/<id>" or nothing.
func (c *Conn) Undo(ctx context.Context) (string, error) {
	f, err := call[wire.From](ctx, c, wire.RouteUndo, wire.Empty{})
	if err == nil && f.From != "" {
		id, ok := strings.CutPrefix(f.From, "releases/")
		if !ok || !deploy.ValidReleaseName(id) {
			return "", errors.New("the agent names a release that is none")
		}
	}
	return f.From, err
}

// Undone ends the switch: the release is bad.
func (c *Conn) Undone(ctx context.Context) error { return do(ctx, c, wire.RouteUndone) }

// Bad marks the release that was being made: it will never be live.
func (c *Conn) Bad(ctx context.Context) error { return doFor(ctx, c, syncTime, wire.RouteBad) }

// DropIntent ends a switch that was announced and not made.
func (c *Conn) DropIntent(ctx context.Context) error { return do(ctx, c, wire.RouteDrop) }

// Abandon drops the unfinished switch of a path and leaves current.
func (c *Conn) Abandon(ctx context.Context, root string) error {
	_, err := call[wire.Empty](ctx, c, wire.RouteAbandon, wire.Path{Path: root})
	return err
}

// Prune removes old releases and names those that are gone.
func (c *Conn) Prune(ctx context.Context, keep, keepFailed int) ([]string, error) {
	p, err := callFor[wire.Pruned](ctx, c, syncTime, wire.RoutePrune, wire.Prune{Keep: keep, KeepFailed: keepFailed})
	if err == nil {
		err = releases(p.Removed)
	}
	if err != nil {
		return nil, err
	}
	if p.Warning != "" {
		err = errors.New(line(p.Warning, textMost))
	}
	return p.Removed, err
}

// Put sends a tree into the workspace or the release. walk calls its function
// for every file; it ends when that returns an error.
func (c *Conn) Put(ctx context.Context, walk func(fn func(deploy.TreeFile, io.Reader) error) error) error {
	return c.put(ctx, wire.RouteTree, walk)
}

func (c *Conn) put(ctx context.Context, route string, walk func(fn func(deploy.TreeFile, io.Reader) error) error) error {
	_, err := stream[wire.Empty](ctx, c, stallTime, route, func(w *bufio.Writer) error {
		return walk(func(f deploy.TreeFile, content io.Reader) error { return wire.WriteFile(w, f, content) })
	})
	return err
}

// Reuse has the release that is being made take what it can from the release
// that is current, and says which files must be sent: lacking is asked for
// each file that list gave, by its place there. A link always is.
func (c *Conn) Reuse(ctx context.Context, list func(fn func(deploy.TreeFile) error) error) (lacking func(i int) bool, err error) {
	return c.lacking(ctx, wire.RouteReuse, list)
}

func (c *Conn) lacking(ctx context.Context, route string, list func(fn func(deploy.TreeFile) error) error) (lacking func(i int) bool, err error) {
	n := 0
	// A few names can stand for much to copy: that is no stall.
	l, err := stream[wire.Lacking](ctx, c, syncTime, route, func(w *bufio.Writer) error {
		return list(func(f deploy.TreeFile) error {
			n++
			return wire.WriteName(w, f)
		})
	})
	if err == nil && len(l.Bits) != (n+7)/8 {
		err = fmt.Errorf("the agent answered for %d files, asked for %d", len(l.Bits)*8, n)
	}
	return func(i int) bool { return i >= n || l.Bits[i/8]&(1<<(i%8)) != 0 }, err
}

// stream is call with a body that write writes, for as long as the agent goes
// on reading it.
func stream[A any](ctx context.Context, c *Conn, most time.Duration, route string, write func(*bufio.Writer) error) (A, error) {
	var answer, none A
	late := errors.New("the agent stopped taking the files of the commit")
	ctx, end := context.WithTimeoutCause(ctx, treeTime, late)
	defer end()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(most, func() { cancel(late) })
	defer stall.Stop()
	r, w := io.Pipe()
	wrote := make(chan error, 1)
	go func() {
		err := c.writeTree(w, write)
		wrote <- err
		w.CloseWithError(err)
	}()
	encoding := ""
	if c.far {
		encoding = wire.Packed
	}
	body := &progress{r: r, stall: stall, most: most, began: time.Now()}
	if c.far {
		body.piece.Store(wire.SlowPiece)
	}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		return body.sign(h.Get(wire.CameHeader))
	}})
	res, err := c.send(ctx, route, body, encoding)
	r.CloseWithError(errStopped)
	werr := <-wrote
	if err == nil {
		defer res.Body.Close()
		if werr != nil {
			err = errors.New("the agent answered before it had all files of the commit")
		} else if derr := wire.Decode(res.Body, &answer); derr != nil {
			err = c.broken(ctx, derr)
		}
	}
	if errors.Is(context.Cause(ctx), late) {
		err = late
	}
	// What went wrong while the tree was read says more than that the agent
	// got only half of it; that the agent stopped reading says less.
	if werr != nil && !errors.Is(werr, errStopped) {
		err = werr
	}
	if err != nil {
		return none, err
	}
	return answer, nil
}

// writeTree writes a tree or a list, compressed where that pays.
func (c *Conn) writeTree(to io.Writer, write func(*bufio.Writer) error) error {
	packed := io.WriteCloser(nil)
	if c.far {
		var err error
		if packed, err = wire.Pack(to); err != nil {
			return err
		}
		to = packed
	}
	buf := bufio.NewWriterSize(to, 256<<10)
	err := write(buf)
	if err == nil {
		err = wire.EndTree(buf)
	}
	if packed != nil && err == nil {
		err = packed.Close()
	}
	return err
}

// signsMost is how many signs an agent may give while it reads one body.
const signsMost = int(treeTime / time.Second)

// progress puts a timer off whenever something is read, or has come. Over SSH
// no more is read at once than the line takes in a second, as far as is known.
type progress struct {
	r     io.Reader
	stall *time.Timer
	most  time.Duration
	piece atomic.Int64 // bytes; 0: as many as are wanted

	// Of what the agent says of it.
	began time.Time
	signs int
	came  int64
}

// sign takes the word of the agent that so many bytes have come.
func (p *progress) sign(came string) error {
	p.stall.Reset(p.most) // what was taken here long ago has come there
	if p.signs++; p.signs > signsMost {
		return lie("it says again and again how much it has read")
	}
	n, err := strconv.ParseInt(came, 10, 64)
	now := time.Now()
	took := now.Sub(p.began)
	if err != nil || n <= p.came || took <= 0 {
		return nil
	}
	if p.piece.Load() > 0 {
		rate := float64(n-p.came) / took.Seconds()
		p.piece.Store(int64(min(max(rate, wire.SlowPiece), pieceMost)))
	}
	p.came, p.began = n, now
	return nil
}

// pieceMost is how much of a body goes at once on a fast line, in bytes.
const pieceMost = 256 << 10

func (p *progress) Read(b []byte) (int, error) {
	if piece := int(p.piece.Load()); piece > 0 && len(b) > piece {
		b = b[:piece]
	}
	n, err := p.r.Read(b)
	p.stall.Reset(p.most)
	return n, err
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
	Limits  Limits            // of the job
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

	Output      []byte // what it wrote to its file of outputs, not looked at yet
	OutputError string // why that cannot be read
}

// Step runs a command and gives its output to out (stream 1 stdout, 2 stderr)
// as it comes. When ctx ends, the step is ended, and its result still read;
// [ErrGone]: the agent ended, and nobody knows how the step did. So it is when
// an agent does not end a step in time, or sends more output than a step may have.
func (c *Conn) Step(ctx context.Context, s Step, out func(stream uint8, chunk []byte)) (StepResult, error) {
	req := wire.Step{ID: s.ID, Command: s.Command, Shell: s.Shell, Dir: s.Dir, Env: s.Env, Path: s.Path, Timeout: s.Timeout.Milliseconds(), Limits: s.Limits}
	// Sent with every step: one before may have changed what it was given.
	for name, content := range s.Files {
		req.Files = append(req.Files, name)
		if len(content) <= wire.InlineMost {
			if req.Inline == nil {
				req.Inline = map[string][]byte{}
			}
			req.Inline[name] = content
			continue
		}
		if err := c.sendFile(ctx, name, content); err != nil {
			return StepResult{}, err
		}
	}
	b, err := json.Marshal(req)
	if err != nil {
		return StepResult{}, err
	}
	if len(b) > wire.JSONMost {
		return StepResult{}, errors.New("the command and the variables of the step are over 1 MiB together")
	}
	// The request lives longer than ctx: its end is asked for, not cut off.
	life, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	if s.Timeout > 0 {
		defer time.AfterFunc(s.Timeout+stepSlack, cut).Stop()
	}
	stop := context.AfterFunc(ctx, func() {
		if _, err := call[wire.Empty](life, c, wire.RouteCancel, wire.Cancel{ID: s.ID}); err != nil {
			cut()
			return
		}
		select {
		case <-life.Done():
		case <-time.After(stepSlack):
			cut()
		}
	})
	defer stop()
	res, err := c.send(life, wire.RouteStep, bytes.NewReader(b), "")
	if err != nil {
		if life.Err() != nil {
			err = c.gone(context.Background(), err)
		}
		return StepResult{}, err
	}
	defer res.Body.Close()
	w, err := readStep(res.Body, out)
	if err != nil {
		return StepResult{}, c.gone(context.Background(), err)
	}
	if ctx.Err() != nil {
		w.Canceled = true
	}
	return w, nil
}

func (c *Conn) sendFile(ctx context.Context, name string, content []byte) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	res, err := c.send(ctx, wire.RouteFile+name, bytes.NewReader(content), "")
	if err != nil {
		return fmt.Errorf("sending a file for the step: %w", err)
	}
	return res.Body.Close()
}

// stepBuffer is the memory for what an agent sends of a step, in bytes.
const stepBuffer = 256 << 10

// readStep reads a step's output and its result.
func readStep(body io.Reader, out func(stream uint8, chunk []byte)) (StepResult, error) {
	r := bufio.NewReaderSize(body, stepBuffer)
	for total := int64(0); total <= wire.OutputMost+wire.FrameMost; {
		kind, content, err := wire.ReadFrame(r)
		if err != nil {
			return StepResult{}, err
		}
		if kind != wire.FrameResult {
			total += int64(len(content))
			out(kind, content)
			continue
		}
		var w wire.Result
		if err := wire.Decode(bytes.NewReader(content), &w); err != nil {
			return StepResult{}, lie("its result of the step is not one: " + line(err.Error(), textMost))
		}
		return result(w)
	}
	return StepResult{}, lie("it sent more output than a step may have")
}
