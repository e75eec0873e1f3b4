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
	logHead  = 16 << 20               // bytes kept of its beginning
	logTail  = 16 << 20               // bytes kept of its end
	logChunk = 256 << 10              // bytes gathered before they are written down
	logLines = 16 << 10               // lines gathered at most: an empty one costs memory too
	logWait  = 200 * time.Millisecond // the longest that a line waits for others
	lineMax  = 16 << 10               // bytes of a line; a longer one goes on in the next
)

// stepLog writes a step's output down: redacted, in lines with times, in
// chunks, with its head and tail kept. Its methods may be called from several
// goroutines.
type stepLog struct {
	store Records
	at    deploy.StepAt
	ctx   context.Context // of the writes: the log outlives the step's own end

	mu      sync.Mutex
	streams [3]stream // by LogLine.Stream
	lines   []deploy.LogLine
	text    []byte // what lines share
	size    int    // bytes in lines, newlines included
	timer   *time.Timer
	err     error // the first that a write gave: no more is tried

	seq     int64 // of the next chunk
	written int64 // bytes written down, dropped ones included
	marker  int64 // seq of the chunk that says what is left out; 0 = all is kept
	tail    []tailChunk
	tailLen int64
	dropped int64 // bytes
}

type stream struct {
	redact redactor
	rest   []byte // a line without its newline yet, or its end
	open   bool   // the beginning of the line is in lines already
}

type tailChunk struct{ seq, size int64 }

// newStepLog begins the log of a step; secrets are masked in it.
func newStepLog(ctx context.Context, store Records, at deploy.StepAt, secrets []string) *stepLog {
	l := &stepLog{store: store, at: at, ctx: ctx, seq: 1}
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
func (l *stepLog) write(n uint8, chunk []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if int(n) >= len(l.streams) {
		return
	}
	s := &l.streams[n]
	l.take(n, s, s.redact.write(chunk))
}

// say adds a line of deployhook's own, after all that the step has printed:
// what waits for the rest of its line, or of a secret, gets no more.
func (l *stepLog) say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle()
	s := &l.streams[0]
	l.take(0, s, s.redact.write([]byte(fmt.Sprintf(format, args...)+"\n")))
}

func (l *stepLog) take(n uint8, s *stream, text []byte) {
	now := time.Now()
	for len(text) > 0 {
		end := bytes.IndexByte(text, '\n')
		open := end < 0
		if open {
			end = len(text)
		}
		if room := lineMax - len(s.rest); end > room {
			l.add(now, n, s, text[:room], true)
			text = text[room:]
			continue
		}
		if open {
			s.rest = append(s.rest, text...)
			break
		}
		l.add(now, n, s, text[:end], false)
		text = text[end+1:]
	}
	l.arm()
}

// arm sees to it that what waits is written within logWait.
func (l *stepLog) arm() {
	if l.timer != nil || len(l.lines) == 0 && l.rests() == 0 {
		return
	}
	l.timer = time.AfterFunc(logWait, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.timer = nil
		l.openLines()
		l.save()
	})
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
		if s := &l.streams[n]; len(s.rest) > 0 {
			l.add(time.Now(), uint8(n), s, nil, true)
		}
	}
}

// settle ends the lines that have no newline.
func (l *stepLog) settle() {
	for n := range l.streams {
		s := &l.streams[n]
		l.take(uint8(n), s, s.redact.flush())
		if len(s.rest) > 0 || s.open {
			l.add(time.Now(), uint8(n), s, nil, false)
		}
	}
}

// add gathers a line of s: what waited for its rest, and text.
func (l *stepLog) add(at time.Time, n uint8, s *stream, text []byte, open bool) {
	// All lines of a chunk share one piece of memory.
	from := len(l.text)
	l.text = append(append(l.text, s.rest...), text...)
	s.rest, s.open = s.rest[:0], open
	l.lines = append(l.lines, deploy.LogLine{Time: at, Stream: n, Text: l.text[from:len(l.text):len(l.text)], Open: open})
	if l.size += len(l.text) - from + 1; l.size >= logChunk || len(l.lines) >= logLines {
		l.save()
	}
}

// save writes the gathered lines down as one chunk.
func (l *stepLog) save() {
	if len(l.lines) == 0 || l.err != nil {
		l.clear()
		return
	}
	l.put(l.seq, l.lines)
	size := int64(l.size)
	l.written += size
	if l.marker != 0 {
		l.tail, l.tailLen = append(l.tail, tailChunk{l.seq, size}), l.tailLen+size
		l.dropOld()
	} else if l.written >= logHead {
		// The place of the sentence that says what is missing, between head
		// and tail: filled at the end, when the number is known.
		l.seq++
		l.marker = l.seq
		l.put(l.marker, []deploy.LogLine{})
	}
	l.seq++
	l.clear()
}

func (l *stepLog) clear() { l.lines, l.text, l.size = nil, nil, 0 }

func (l *stepLog) put(seq int64, lines []deploy.LogLine) {
	if l.err == nil {
		l.err = l.store.AppendLog(l.ctx, l.at, seq, lines)
	}
}

func (l *stepLog) dropOld() {
	n := 0
	for n < len(l.tail)-1 && l.tailLen-l.tail[n].size >= logTail {
		l.tailLen -= l.tail[n].size
		l.dropped += l.tail[n].size
		n++
	}
	if n == 0 || l.err != nil {
		return
	}
	l.err = l.store.DropLog(l.ctx, l.at, l.tail[0].seq, l.tail[n-1].seq)
	l.tail = append([]tailChunk(nil), l.tail[n:]...)
}

// close writes down what is left, and gives the first error of a write.
func (l *stepLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
	}
	l.settle()
	l.save()
	if l.timer != nil {
		l.timer.Stop()
	}
	if l.dropped > 0 {
		text := fmt.Sprintf("deployhook: %d bytes are left out here: the log of a step keeps its first and its last %d MiB", l.dropped, logTail>>20)
		l.put(l.marker, []deploy.LogLine{{Time: time.Now(), Text: []byte(text)}})
	}
	return l.err
}
