// Package wire is what the two ends of an agent's connection say to each
// other: the first line, the routes, their JSON, and the framing of output and
// trees. It does nothing by itself.
package wire

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"deployhook/internal/deploy"
)

// Protocol is the version of all this. Ends of different protocols do not talk.
const Protocol = 1

// Bounds of what one end believes of the other, in bytes.
const (
	BannerMost = 64 << 10 // before the first line
	JSONMost   = 1 << 20
	FrameMost  = 64 << 10
	NameMost   = 4 << 10 // of a path in a tree
	FileMost   = 32 << 20
	InlineMost = 64 << 10 // of a file that comes with a step
	HeaderMost = 64 << 10

	OutputMost   = 4 << 30 // of a step: then it is ended
	LeftOverMost = 50      // names of processes that a step left running; the last may stand for more
)

// Pings: both ends of a local socket send one when nothing came for PingEvery,
// and give the other up when PingWait later still nothing has.
const (
	PingEvery = 10 * time.Second
	PingWait  = 20 * time.Second
)

// Beats: over a slow line a ping waits behind what was sent before it, and would
// look like silence. So both ends of an SSH connection say a byte every BeatEvery
// as long as it lasts, whatever else is said, and give the other up when for
// Silence nothing at all has come. What waits for the line goes in packets of at
// most PacketMost, of which an end sees nothing before it has the whole.
const (
	BeatEvery  = 5 * time.Second
	Silence    = 30 * time.Second
	PacketMost = 16 << 10 // bytes
)

// A body is sent over a slow line no faster than it takes it, so that what else
// is asked meanwhile need not wait long: who reads it says now and then, by
// answers 102, how much has come.
const (
	SlowPiece  = 4 << 10         // bytes that go at once until more is known: in time at 1 KB a second
	SignEvery  = 3 * time.Second // between two signs; also each time that so many bytes have come:
	SignGrowth = 16              // SlowPiece, and this many times more with each sign

	CameHeader = "Deployhook-Came" // of an answer 102: bytes of the body
)

// Routes. All are POST.
const (
	RouteFacts     = "/facts"
	RouteRoom      = "/room"
	RouteWorkspace = "/workspace"
	RouteTree      = "/tree"
	RouteFile      = "/file/" // and a name
	RouteStep      = "/step"
	RouteCancel    = "/cancel"
	RouteOpen      = "/release/open"
	RouteLook      = "/release/look"
	RouteSweep     = "/release/sweep"
	RoutePrepare   = "/release/prepare"
	RouteReuse     = "/release/reuse"
	RouteShared    = "/release/shared"
	RoutePrepared  = "/release/prepared"
	RouteActivate  = "/release/activate"
	RouteLive      = "/release/live"
	RouteUndo      = "/release/undo"
	RouteUndone    = "/release/undone"
	RouteBad       = "/release/bad"
	RouteDrop      = "/release/drop"
	RouteAbandon   = "/release/abandon"
	RoutePrune     = "/release/prune"
	RouteBury      = "/bury"
	RouteAlone     = "/alone"
	RouteKill      = "/kill"
	RouteAwait     = "/await"
	RouteBeat      = "/beat"
)

// AloneTime is how long other agents have to end before they are killed.
const AloneTime = 20 * time.Second

// Environment variables between the two ends and to steps.
const (
	StateVariable  = "DEPLOYHOOK_AGENT_STATE" // where an agent keeps workspaces and its mark
	MarkerVariable = "DEPLOYHOOK_MARKER"      // in every step: which agent started it
)

// TimeHeader is what the clock of who sends a request or an answer says, in
// RFC 3339: the two ends may be years apart.
const TimeHeader = "Deployhook-Time"

// Empty is a request or answer without content.
type Empty struct{}

// Error is the answer of a call that failed.
type Error struct {
	Error    string `json:"error"`
	Exists   bool   `json:"exists,omitempty"`    // the release's name is taken
	NotBegun bool   `json:"not_begun,omitempty"` // of a switch: nothing was changed
}

// Facts are what an agent knows of its machine.
type Facts struct {
	OS       string `json:"os"`
	Arch     string `json:"arch"`
	Hostname string `json:"hostname"`
	User     string `json:"user"`
	UID      int    `json:"uid"`
	Home     string `json:"home"`
	Path     string `json:"path"`
	Shell    string `json:"shell"` // bash or sh
}

// Workspace asks for a fresh directory.
type Workspace struct {
	Name string `json:"name"`
}

// Dir is where something was made.
type Dir struct {
	Dir string `json:"dir"`
}

// OpenRelease asks for the lock of a release path.
type OpenRelease struct {
	Path    string `json:"path"`
	Daemon  string `json:"daemon"`
	Run     int64  `json:"run"`
	Job     string `json:"job"`
	Attempt int    `json:"attempt"`
}

// Found is deploy.Found.
type Found struct {
	Intent  *deploy.Intent       `json:"intent"`
	Foreign string               `json:"foreign"`
	Current string               `json:"current"`
	Lines   []deploy.ReleaseLine `json:"lines"`
}

// Lacking tells which files of a list the agent does not have: one bit each,
// in the list's order, the first in the lowest bit of the first byte.
type Lacking struct {
	Bits []byte `json:"bits"`
}

// Prepare asks for a release to be made.
type Prepare struct {
	Release     string   `json:"release"`
	Repository  string   `json:"repository"`
	Commit      string   `json:"commit"`
	Files       int      `json:"files"`
	Bytes       int64    `json:"bytes"`
	SharedDirs  []string `json:"shared_dirs"`
	SharedFiles []string `json:"shared_files"`
}

// Activate asks for a switch.
type Activate struct {
	To   string `json:"to"`
	Pops bool   `json:"pops"`
}

// From says where current points after an undo.
type From struct {
	From string `json:"from"`
}

// Path names a release path.
type Path struct {
	Path string `json:"path"`
}

// RoomOf names a path that is asked about before anything is written there.
type RoomOf struct {
	Path    string `json:"path"`
	InPlace bool   `json:"in_place"`
}

// Prune says how many releases stay; the answer which went.
type Prune struct {
	Keep       int `json:"keep"`
	KeepFailed int `json:"keep_failed"`
}

// Pruned names the releases that are gone.
type Pruned struct {
	Removed []string `json:"removed"`
	Warning string   `json:"warning"`
}

// Step is one command.
type Step struct {
	ID      string   `json:"id"`
	Command string   `json:"command"`
	Shell   string   `json:"shell"`
	Dir     string   `json:"dir"`
	Env     []string `json:"env"`   // KEY=value
	Path    []string `json:"path"`  // before PATH
	Files   []string `json:"files"` // variables whose value is the path of a file that was sent
	Timeout int64    `json:"timeout_ms"`
	// Inline are small files that come with the step itself, by variable.
	Inline map[string][]byte `json:"inline,omitempty"`
	Limits Limits            `json:"limits"` // of all steps of the job together
}

// Limits bound what the steps of a job use; 0 is no limit.
type Limits struct {
	Memory int64   `json:"memory,omitempty"` // bytes
	CPU    float64 `json:"cpu,omitempty"`    // processors
	PIDs   int     `json:"pids,omitempty"`   // processes and threads
}

// Result is how a step ended.
type Result struct {
	ExitCode *int     `json:"exit_code"`
	Signal   string   `json:"signal"`
	TimedOut bool     `json:"timed_out"`
	Canceled bool     `json:"canceled"`
	Error    string   `json:"error"`
	LeftOver []string `json:"left_over"` // names of the processes that it left running, cut at LeftOverMost

	Output      []byte `json:"output,omitempty"`       // what it wrote to its file of outputs, cut at one byte more than a job may have
	OutputError string `json:"output_error,omitempty"` // why that cannot be read
}

// Cancel names the step to end.
type Cancel struct {
	ID string `json:"id"`
}

// Kill names the agent to end, by its nonce.
type Kill struct {
	Nonce string `json:"nonce"`
}

// Await asks an agent to wait until others of its user have ended.
type Await struct {
	Nonces []string `json:"nonces,omitempty"` // these; none: all that live now
	Except []string `json:"except,omitempty"` // but these
	Wait   int64    `json:"wait_ms"`
	Kill   bool     `json:"kill"` // those that have not ended then
}

// Awaited says how many of them still live.
type Awaited struct {
	Alive int `json:"alive"`
}

// Hello writes the first line of an agent.
func Hello(w io.Writer, version, nonce string) error {
	_, err := fmt.Fprintf(w, "deployhook-agent %d %s %s\n", Protocol, version, nonce)
	return err
}

// Goodbye is the last word of an agent that has cleaned up, behind whatever
// else it has sent.
func Goodbye(nonce string) string { return "\ndeployhook-agent " + nonce + " has ended\n" }

// ProtocolError is an agent that speaks another protocol.
type ProtocolError struct {
	Version  string // of the agent
	Protocol int
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("agent %s speaks protocol %d, not %d", e.Version, e.Protocol, Protocol)
}

// ReadHello reads the first line, past what a login may print before it, which
// it returns. It reads byte by byte: what follows belongs to the connection.
// An agent of another protocol is a [*ProtocolError].
func ReadHello(r io.Reader) (version, nonce string, banner []byte, err error) {
	banner, err = readUntil(r, func(line string) (at int, err error) {
		version, nonce, at, err = parseHello(line)
		return at, err
	})
	return version, nonce, banner, err
}

// ReadFar reads the line by which the shell of a host over SSH says, before
// there is an agent, what it needs: the words behind mark. What a login may
// print before it is returned.
func ReadFar(r io.Reader, mark string) (words []string, banner []byte, err error) {
	banner, err = readUntil(r, func(line string) (int, error) {
		at := strings.LastIndex(line, mark)
		if at >= 0 {
			words = strings.Fields(line[at+len(mark):])
		}
		if len(words) == 0 {
			return -1, nil
		}
		return at, nil
	})
	return words, banner, err
}

// readUntil reads lines byte by byte until one in which parse finds, at the
// place that it gives, what is waited for; what is before that it returns. -1:
// it is not in that line.
func readUntil(r io.Reader, parse func(line string) (at int, err error)) (banner []byte, err error) {
	var line []byte
	one := make([]byte, 1)
	for total := 0; total < BannerMost; total++ {
		if _, err := io.ReadFull(r, one); err != nil {
			return append(banner, line...), fmt.Errorf("no agent answered: %w", err)
		}
		if one[0] != '\n' {
			line = append(line, one[0])
			continue
		}
		if at, err := parse(string(line)); at >= 0 {
			return append(banner, line[:at]...), err
		}
		banner = append(append(banner, line...), '\n')
		line = nil
	}
	return append(banner, line...), errors.New("no agent answered within the first 64 KiB")
}

const greeting = "deployhook-agent "

// parseHello reads the first line, which begins at the place that it gives: a
// login may print something without a newline before it. -1: there is none.
func parseHello(line string) (version, nonce string, at int, err error) {
	at = strings.LastIndex(line, greeting)
	if at < 0 {
		return "", "", -1, nil
	}
	f := strings.Fields(strings.TrimRight(line[at+len(greeting):], "\r"))
	if len(f) < 2 || !plain(f[1]) {
		return "", "", -1, nil
	}
	n, err := strconv.Atoi(f[0])
	if err != nil {
		return "", "", -1, nil
	}
	if n != Protocol {
		return "", "", at, &ProtocolError{Version: f[1], Protocol: n}
	}
	if len(f) != 3 || !plain(f[2]) {
		return "", "", -1, nil
	}
	return f[1], f[2], at, nil
}

// plain says whether a word can be shown: it goes into sentences and logs.
func plain(s string) bool {
	const most = 100
	return s != "" && len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// Decode reads JSON strictly and within its bound.
func Decode(r io.Reader, v any) error {
	b, err := io.ReadAll(io.LimitReader(r, JSONMost+1))
	if err != nil {
		return err
	}
	if len(b) > JSONMost {
		return fmt.Errorf("the message is over %d bytes", JSONMost)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the message")
	}
	return nil
}

// Frame kinds of a step's answer.
const (
	FrameStdout byte = 1
	FrameStderr byte = 2
	FrameResult byte = 3 // JSON of Result, the last
)

// WriteFrame writes one frame: kind, length, content.
func WriteFrame(w io.Writer, kind byte, content []byte) error {
	var head [FrameHead]byte
	FrameHeader(head[:], kind, len(content))
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

// FrameHead is how many bytes stand before the content of a frame.
const FrameHead = 5

// FrameHeader writes the head of a frame into the first bytes of b.
func FrameHeader(b []byte, kind byte, size int) {
	b[0] = kind
	binary.BigEndian.PutUint32(b[1:FrameHead], uint32(size))
}

// ReadFrame reads one frame. Its content is valid until the next is read; r
// holds FrameHead and FrameMost bytes.
func ReadFrame(r *bufio.Reader) (kind byte, content []byte, err error) {
	var head [FrameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	most := uint32(FrameMost)
	if head[0] == FrameResult {
		most = JSONMost
	}
	if n > most || head[0] < FrameStdout || head[0] > FrameResult {
		return 0, nil, errors.New("the agent sent a frame that is none")
	}
	// Without a copy where it can be.
	if int(n) <= r.Size() {
		content, err = r.Peek(int(n))
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return 0, nil, err
		}
		_, err = r.Discard(int(n))
		return head[0], content, err
	}
	content = make([]byte, n)
	_, err = io.ReadFull(r, content)
	return head[0], content, err
}

// Protocols are the HTTP versions of both ends: HTTP/2 without TLS, alone.
func Protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// HTTP2 is the configuration of both ends; far is of an SSH connection, where
// beats tell whether the other end is there. There is room for those beside the
// one stream that nobody reads just now.
func HTTP2(far bool) *http.HTTP2Config {
	c := &http.HTTP2Config{MaxReadFrameSize: 1 << 18, MaxReceiveBufferPerConnection: 5 << 20, MaxReceiveBufferPerStream: 4 << 20}
	if !far {
		c.SendPingTimeout, c.PingTimeout = PingEvery, PingWait
	}
	return c
}

// Beats says a byte every BeatEvery, until nobody takes it or ctx ends.
func Beats(ctx context.Context, say func([]byte) error) {
	tick := time.NewTicker(BeatEvery)
	defer tick.Stop()
	for say([]byte{0}) == nil {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
