package host

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"deployhook/internal/agent/wire"
	"deployhook/internal/deploy"
)

// session is an agent that sshd started: the connection to it, and what is
// seen of its process.
type session struct {
	link   *link
	remote *remote
	name   string
	conn   *Conn
	ch     ssh.Channel

	mark    string // before what its shell says, told from all that a login prints
	stderr  lastLine
	errs    chan struct{} // closed when stderr has ended
	started bool          // its shell has said that it starts the agent

	progress Progress   // nil: nobody wants to know
	sent     chan error // closed when nothing of the program is sent any more; nil: it was there

	silence *time.Timer // cuts the connection when nothing comes of the agent for long; nil until it has answered

	writing sync.Mutex // the library does not guard a channel's end against what is written before it
	ended   bool       // nothing is written any more

	mu     sync.Mutex
	seen   bool   // its exit
	code   uint32 // its exit status
	signal string // that ended it
	timer  *time.Timer
	once   sync.Once
}

// login starts the agent: over there a shell looks whether its program is
// there and whole, asks for it if not, and becomes it.
func (s *session) login(ctx context.Context) (*Conn, error) {
	list, err := s.remote.hosts.programs.list()
	if err != nil {
		return nil, err
	}
	began, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	stop := context.AfterFunc(began, s.link.close)
	defer func() { stop() }()
	if err := s.exec(loginScript(s.mark, list)); err != nil {
		return nil, s.link.line.said(err)
	}
	words, err := s.far()
	if err == nil && words[0] == farSend {
		stop()
		words, err = s.send(ctx, list, words[1:])
		again, cancel := context.WithTimeout(ctx, loginTime)
		defer cancel()
		stop = context.AfterFunc(again, s.link.close)
		s.link.line.patience(silenceTime)
	}
	if err == nil && words[0] != farRun {
		err = s.problem(words)
	}
	if err != nil {
		var half *halfCopied
		if ctx.Err() != nil && (!errors.As(err, &half) || errors.Is(ctx.Err(), context.Canceled)) {
			err = ctx.Err()
		}
		return nil, s.link.line.said(err)
	}
	s.started = true
	c, err := s.conn.greet(ctx)
	if err != nil {
		return nil, s.link.line.said(err)
	}
	s.link.line.patience(silenceTime)
	err = s.beat()
	if !stop() {
		s.conn.end()
		return nil, unreachable(fmt.Sprintf("it took over %v to start an agent", loginTime))
	}
	if err != nil {
		s.conn.end()
		return nil, s.link.line.said(err)
	}
	return c, nil
}

// beat returns when the agent answers. From then on, for as long as the
// connection lasts, it says that this end is there, as the agent does, and cuts
// it when nothing comes of the agent: its sshd may answer for one that is stopped.
func (s *session) beat() error {
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	s.silence = time.AfterFunc(agentSilence, s.link.close) // what is sent may wait, and this may not
	go wire.Beats(ctx, func(b []byte) error {
		_, err := w.Write(b)
		return err
	})
	end := func() { s.silence.Stop(); cancel(); r.CloseWithError(net.ErrClosed) }
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+wire.RouteBeat, r)
	if err != nil {
		end()
		return err
	}
	res, err := s.conn.client.RoundTrip(req)
	if err != nil {
		end()
		return err
	}
	go func() {
		defer end()
		_, _ = io.Copy(io.Discard, res.Body) // its end is that of the connection, which those see who use it
		res.Body.Close()
	}()
	return nil
}

// exec runs a command in a session of its own.
func (s *session) exec(command string) error {
	ch, reqs, err := s.link.OpenChannel("session", nil)
	if err != nil {
		return sessionError(err)
	}
	s.ch, s.errs = ch, make(chan struct{})
	go func() {
		defer close(s.errs)
		s.stderr.read(ch.Stderr())
	}()
	go s.watch(reqs)
	ok, err := ch.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{command}))
	if err == nil && !ok {
		err = errors.New("its sshd starts no commands: is this login for something else, as SFTP?")
	}
	return err
}

// sessionError says why a host opens no session.
func sessionError(err error) error {
	var refused *ssh.OpenChannelError
	if errors.As(err, &refused) {
		return fmt.Errorf("its sshd opens no session (%s): is MaxSessions 0, or does it allow forwarding only?", line(refused.Message, textMost))
	}
	return unreachable("the connection ended before a session was open: " + plainText(err))
}

// watch sees how the process ends. Its exit counts, not the end of what it
// says: something else may hold that open.
func (s *session) watch(reqs <-chan *ssh.Request) {
	defer s.once.Do(func() { close(s.conn.done) })
	for r := range reqs {
		s.mu.Lock()
		switch r.Type {
		case "exit-status":
			if len(r.Payload) >= 4 {
				s.seen, s.code = true, binary.BigEndian.Uint32(r.Payload)
			}
		case "exit-signal":
			var how struct {
				Signal     string
				CoreDumped bool
				Message    string
				Lang       string
			}
			if ssh.Unmarshal(r.Payload, &how) == nil {
				s.seen, s.signal = true, line("SIG"+how.Signal, 20)
			}
		}
		seen := s.seen
		s.mu.Unlock()
		if r.WantReply {
			_ = r.Reply(false, nil)
		}
		if seen {
			s.once.Do(func() { close(s.conn.done) })
		}
	}
}

// far reads what the shell over there says of itself.
func (s *session) far() ([]string, error) {
	words, banner, err := wire.ReadFar(s.ch, s.mark)
	if err != nil {
		return nil, s.unborn(banner, err)
	}
	if said := strings.TrimSpace(string(banner)); said != "" {
		s.conn.o.Log.Info("skipped what the login printed before the agent", "host", s.name, "bytes", len(banner), "banner", line(said, bannerShown))
	}
	return words, nil
}

// Progress is told how much of the agent's program has come to a host, in bytes
// of what is sent.
type Progress func(come, all int64)

// halfCopied is a program that did not come whole, in one sentence.
type halfCopied struct {
	why       string
	come, all int64
	byHand    string // the command that copies it
}

func (e *halfCopied) Error() string {
	return fmt.Sprintf("%s of %s of the agent's program had come when %s; to copy it by hand: %s", megabytes(e.come), megabytes(e.all), e.why, e.byHand)
}

func (*halfCopied) Is(target error) bool { return target == ErrUnreachable }

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// send sends the agent's program, and gives what the shell over there says
// when it has it. That may take as long as it likes while something comes
// through: only the host knows what did, whatever lies on the way.
func (s *session) send(ctx context.Context, list []program, words []string) ([]string, error) {
	at := slices.IndexFunc(list, func(p program) bool { return len(words) > 1 && words[0] == p.arch })
	if at < 0 {
		return nil, errors.New("its shell asks for a program that is none")
	}
	p, place := list[at], line(strings.Join(words[1:], " "), textMost)
	s.link.line.patience(0) // its own clock runs from here on
	f, err := s.remote.hosts.programs.packed(p)
	if err != nil {
		return nil, err
	}
	s.conn.o.Log.Info("copying the agent's program", "host", s.name, "arch", p.arch, "bytes", f.Size())
	var stalled atomic.Bool
	stall := time.AfterFunc(stallTime, func() { stalled.Store(true); s.link.close() })
	defer stall.Stop()
	up, cancel := context.WithTimeout(ctx, copyTime)
	defer cancel()
	stop := context.AfterFunc(up, s.link.close)
	defer stop()
	s.sent = make(chan error, 1)
	go func() {
		_, err := fmt.Fprintln(s.ch, f.Size())
		if err == nil {
			_, err = io.Copy(s.ch, f)
		}
		s.sent <- err
		close(s.sent)
	}()
	half := &halfCopied{all: f.Size(), byHand: fmt.Sprintf("scp -C %s %s@%s:%s", s.remote.hosts.programs.file(p), s.link.User(), s.name, place)}
	for {
		words, err = s.far()
		if err != nil || words[0] != farGot || half.come == half.all {
			break
		}
		half.come = min(half.come+gotEvery, half.all)
		stall.Reset(stallTime)
		if half.come == half.all {
			stall.Reset(syncTime) // it is unpacked and compared
		}
		if s.progress != nil {
			s.progress(half.come, half.all)
		}
	}
	if err == nil && words[0] == farRun {
		err = <-s.sent
	}
	if err == nil || s.exited() {
		return words, err // one that has ended has said why
	}
	switch {
	case stalled.Load() && half.come == half.all:
		half.why = fmt.Sprintf("the host did not say within %v that it is whole", syncTime)
	case stalled.Load():
		half.why = fmt.Sprintf("nothing came any more for %v: is the line cut, or slower than %d bytes a second?", stallTime, gotEvery/int(stallTime/time.Second))
	case ctx.Err() != nil:
		half.why = "the time for it was over"
	case up.Err() != nil:
		half.why = fmt.Sprintf("it had taken %v", copyTime)
	default:
		half.why = "the connection was lost"
	}
	return nil, half
}

func (s *session) lives() bool {
	select {
	case <-s.conn.done:
		return false
	default:
		return true
	}
}

// exited says whether its shell has ended, of which the word may come a moment
// after nothing is taken any more.
func (s *session) exited() bool {
	select {
	case <-s.conn.done:
	case <-time.After(exitTime):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// problem is what the shell over there could not do.
func (s *session) problem(words []string) error {
	what := line(strings.Join(words[1:], " "), textMost)
	why := ""
	s.end(exitTime)
	if said := s.stderr.text(); said != "" {
		why = " (" + said + ")"
	}
	switch words[0] {
	case farArch:
		system, machine, _ := strings.Cut(what, " ")
		arch := archOf(machine)
		switch {
		case system != "Linux":
			return fmt.Errorf("it runs %s: steps run on Linux only", system)
		case arch == "":
			return fmt.Errorf("there is no deployhook for its architecture, %s", machine)
		}
		return fmt.Errorf("its architecture is %s, and the program for it is not at %s: the archive of the release has it", arch, s.remote.hosts.programs.beside(arch))
	case farHome:
		return fmt.Errorf("the home of its user, %s, is not there: the agent's program is kept in it", what)
	case farTool:
		return fmt.Errorf("its user's PATH has no %s", what)
	case farDir, farWrite:
		if strings.Contains(why, "No space left") || strings.Contains(why, "quota") {
			return fmt.Errorf("there is no room for the agent's program at %s%s", what, why)
		}
		return fmt.Errorf("the agent's program cannot be written to %s%s: it is kept in the user's ~/.cache, or in XDG_CACHE_HOME", what, why)
	case farSum:
		return fmt.Errorf("the agent's program did not come whole to %s%s: is the disk full, or damaged?", what, why)
	}
	return fmt.Errorf("its shell says %q, which is nothing that was asked for", line(strings.Join(words, " "), 100))
}

// end waits for the process's end and all that it complained of.
func (s *session) end(most time.Duration) {
	for _, c := range []chan struct{}{s.conn.done, s.errs} {
		select {
		case <-c:
		case <-time.After(most):
		}
	}
}

// lastLine keeps the last line of what is written to it that says something.
type lastLine struct {
	mu   sync.Mutex
	last string
}

func (l *lastLine) read(r io.Reader) {
	var part []byte
	buf := make([]byte, 4<<10)
	for {
		n, err := r.Read(buf)
		for _, b := range buf[:n] {
			if b == '\n' {
				l.set(part)
				part = part[:0]
			} else if len(part) < textMost {
				part = append(part, b)
			}
		}
		if err != nil {
			l.set(part)
			return
		}
	}
}

func (l *lastLine) set(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if said := line(string(b), textMost); said != "" {
		l.last = said
	}
}

func (l *lastLine) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

func (s *session) Read(b []byte) (int, error) {
	n, err := s.ch.Read(b)
	if n > 0 && s.silence != nil {
		s.silence.Reset(agentSilence)
	}
	return n, err
}

// Write sends pieces that a slow line carries in time each.
func (s *session) Write(b []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	for piece := range slices.Chunk(b, wire.PacketMost) {
		if s.ended {
			return 0, net.ErrClosed
		}
		if _, err := s.ch.Write(piece); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// Close tells the agent to end. A host that takes nothing any more is not
// waited for.
func (s *session) Close() error {
	go func() {
		s.writing.Lock()
		defer s.writing.Unlock()
		if !s.ended {
			s.ended = true
			_ = s.ch.CloseWrite()
		}
	}()
	return nil
}

func (s *session) LocalAddr() net.Addr  { return s.link.LocalAddr() }
func (s *session) RemoteAddr() net.Addr { return s.link.RemoteAddr() }

// SetReadDeadline ends the whole connection then: a channel of it has no
// deadline of its own.
func (s *session) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if !t.IsZero() {
		s.timer = time.AfterFunc(time.Until(t), s.link.close)
	}
	return nil
}

func (s *session) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

func (s *session) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

func (s *session) kill() string {
	s.link.close()
	return "its connection was cut"
}

func (s *session) clean() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen && s.code == 0 && s.signal == ""
}

// unseen is that nobody has seen its exit.
func (s *session) unseen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen {
		return nil
	}
	return fmt.Errorf("the exit of the agent on %s was not seen: the next one there begins when it has ended, within %v", s.name, lostTime)
}

func (s *session) how() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	const shell = 128 // and the number of a signal is how a shell says that it ended its command
	switch {
	case !s.seen:
		return "the connection to " + s.name + " was lost"
	case s.signal != "":
		return "it was ended by " + s.signal + ": a step did it, or the machine is out of memory"
	case s.code > shell:
		return fmt.Sprintf("exit status %d: a step did it, or the machine is out of memory", s.code)
	case s.code == 0:
		return "it was told to stop"
	}
	return fmt.Sprintf("exit status %d", s.code)
}

// unborn says why there is no agent.
func (s *session) unborn(banner []byte, err error) error {
	s.end(exitTime)
	s.mu.Lock()
	seen, code, signal := s.seen, s.code, s.signal
	s.mu.Unlock()
	said := s.stderr.text()
	if said == "" {
		text := strings.TrimSpace(string(banner))
		said = line(text[strings.LastIndexByte(text, '\n')+1:], textMost)
	}
	const cannotExecute = 126
	switch {
	case !seen && s.lives():
		return fmt.Errorf("no agent answered: %w", err)
	case !seen:
		return unreachable("the connection was lost before an agent answered")
	case s.started && (code == cannotExecute || strings.Contains(said, "ermission denied")):
		return fmt.Errorf("the agent's program cannot be run in the user's cache directory: is that file system mounted noexec? XDG_CACHE_HOME can point elsewhere (%s)", said)
	case s.started && said != "":
		return fmt.Errorf("starting an agent: %s", said)
	case s.started:
		return fmt.Errorf("starting an agent: it ended with %s", status(code, signal))
	case strings.Contains(said, "restricted"):
		return fmt.Errorf("its user has a restricted shell, which runs nothing of deployhook's: %s", said)
	case said == "":
		return fmt.Errorf("its login runs something else than what it is asked for (a forced command, or a shell that is none), which ended with %s", status(code, signal))
	}
	return fmt.Errorf("its login runs something else than what it is asked for (a forced command, or a shell that is none), which ended with %s and said: %s", status(code, signal), said)
}

func status(code uint32, signal string) string {
	if signal != "" {
		return signal
	}
	return fmt.Sprintf("exit status %d", code)
}

// bury sees to what an agent left that did not clean up: at once where it is
// known to have ended, else when the host is next opened.
func (s *session) bury(far *deploy.Host) {
	s.mu.Lock()
	seen := s.seen
	s.mu.Unlock()
	if !seen {
		s.remote.lose(s.conn.nonce, s.link.line.heard())
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), loginTime)
	defer cancel()
	c, err := s.remote.start(ctx, far, nil)
	if err == nil {
		err = do(ctx, c, wire.RouteBury)
		c.end()
	}
	if err != nil {
		s.conn.o.Log.Warn("ending what a killed agent left", "host", s.name, "err", err)
	}
}
