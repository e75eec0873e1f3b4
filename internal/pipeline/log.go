package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"deployhook/internal/deploy"
)

// Bounds of a step's log.
const (
	logHead  = 24 << 20               // bytes kept of its beginning
	logTail  = 8 << 20                // bytes kept of its end
	logChunk = 256 << 10              // bytes gathered before they are written down
	logLines = 16 << 10               // lines written down at once: an empty one costs memory too
	logParts = 4 << 10                // pieces of the streams in a chunk, when they alternate
	logAhead = 4                      // chunks of the beginning that wait to be written down: then the step is held up
	logWait  = 200 * time.Millisecond // the longest that a line waits for others
	lineMax  = 16 << 10               // bytes of a line; a longer one goes on in the next
)

// stepLog writes a step's output down: redacted, in lines with times, in
// chunks, with its head and tail kept. Its methods may be called from several
// goroutines.
//
// The head holds the step up while the disk is slower than it; the tail never
// does: what falls out of it before it was written down never is. So a step
// that prints 1 GB costs its redaction and a copy, and not a database.
type stepLog struct {
	store Records
	at    deploy.StepAt
	ctx   context.Context // of the writes: the log outlives the step's own end

	mu      sync.Mutex
	moved   sync.Cond // of mu: a chunk was written down, or the writing has paused
	streams [3]stream // by LogLine.Stream
	filling chunk
	taken   int64 // bytes of all chunks that were filled
	pending []chunk
	spare   []byte // memory of a chunk of the head that was written down
	slots   slots  // memory of the tail
	gap     bool   // what stood before the first of pending in the tail is left out, and was never written down
	flood   bool   // since the last look the tail grew faster than it is kept
	dropped int64  // bytes left out
	saving  bool   // a goroutine writes pending down
	closed  bool
	timer   *time.Timer
	err     error // the first that a write gave: no more is tried

	// Of the goroutine that is saving.
	lines  []deploy.LogLine // memory
	seq    int64            // of the next chunk in the store
	marker int64            // seq of the chunk that says what is left out; 0 = all is kept
	tail   []tailChunk
	tailed int64 // bytes of them
}

type stream struct {
	redact redactor
	rest   []byte // a line without its newline yet, or its end
	open   bool   // the beginning of the line is in a chunk already
}

// newStepLog begins the log of a step; secrets are masked in it.
func newStepLog(ctx context.Context, store Records, at deploy.StepAt, secrets []string) *stepLog {
	l := &stepLog{store: store, at: at, ctx: ctx, seq: 1}
	l.moved.L = &l.mu
	l.filling.head = true
	l.mask(secrets)
	return l
}

// mask takes the secrets anew: one may have changed since the step began.
func (l *stepLog) mask(secrets []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := newMasks(secrets)
	for i := range l.streams {
		l.streams[i].redact.masks = m
	}
}

// write takes output of a stream (1 stdout, 2 stderr).
func (l *stepLog) write(n uint8, text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Here and not further on: between a piece of a stream and its next
	// nothing else may come.
	for len(l.pending) >= logAhead && l.filling.head && !l.closed {
		l.moved.Wait()
	}
	if int(n) >= len(l.streams) || l.closed {
		return
	}
	s := &l.streams[n]
	l.take(n, s, s.redact.write(text))
}

// say adds a line of deployhook's own, after all that the step has printed:
// what waits for the rest of its line, or of a secret, gets no more.
func (l *stepLog) say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.settle()
	s := &l.streams[0]
	l.take(0, s, s.redact.write([]byte(fmt.Sprintf(format, args...)+"\n")))
	// It is whole: no secret begins here that goes on in what is said next.
	l.take(0, s, s.redact.flush())
}

// take adds the whole lines of text, behind what waited for its rest, and has
// the last one wait.
func (l *stepLog) take(n uint8, s *stream, text []byte) {
	whole := lastLine(text)
	if whole == 0 && len(s.rest)+len(text) > lineMax {
		whole = len(text)
	}
	if whole > 0 {
		if len(s.rest) > 0 {
			// A line goes as one: a chunk may end between its two halves.
			first := bytes.IndexByte(text[:whole], '\n') + 1
			l.add(n, s, append(s.rest, text[:first]...))
			s.rest = s.rest[:0]
			text, whole = text[first:], whole-first
		}
		l.add(n, s, text[:whole])
	}
	s.rest = append(s.rest, text[whole:]...)
	l.arm()
}

// lastLine gives the length of text with its last newline; 0 says that there
// is none, or that what follows it is longer than a line.
func lastLine(text []byte) int {
	from := max(0, len(text)-lineMax)
	if at := bytes.LastIndexByte(text[from:], '\n'); at >= 0 {
		return from + at + 1
	}
	return 0
}

// arm sees to it that what waits is written within logWait.
func (l *stepLog) arm() {
	if l.timer != nil || len(l.pending) == 0 && len(l.filling.text) == 0 && l.rests() == 0 {
		return
	}
	l.timer = time.AfterFunc(logWait, l.look)
}

// look writes down what waits, unless there is more of it than is kept.
func (l *stepLog) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = nil
	switch {
	case l.closed:
		return
	case l.flood:
		l.flood = false
	case !l.saving:
		l.openLines()
		l.fill()
		l.save()
	}
	l.arm()
}

func (l *stepLog) rests() (n int) {
	for i := range l.streams {
		n += len(l.streams[i].rest)
	}
	return n
}

// openLines shows lines that have no newline yet: a prompt must be seen.
func (l *stepLog) openLines() {
	for n := range l.streams {
		s := &l.streams[n]
		l.add(uint8(n), s, s.rest)
		s.rest = s.rest[:0]
	}
}

// settle ends the lines that have no newline.
func (l *stepLog) settle() {
	for n := range l.streams {
		s := &l.streams[n]
		l.take(uint8(n), s, s.redact.flush())
		if len(s.rest) > 0 || s.open {
			l.add(uint8(n), s, append(s.rest, '\n'))
			s.rest = s.rest[:0]
		}
	}
}

// close writes down what is left, and gives the first error of a write.
func (l *stepLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.err
	}
	l.settle()
	l.fill()
	for l.saving {
		l.moved.Wait()
	}
	l.flood = false
	l.closed = true
	l.save()
	l.markLeftOut()
	if l.timer != nil {
		l.timer.Stop()
	}
	l.slots.free()
	l.moved.Broadcast()
	return l.err
}
