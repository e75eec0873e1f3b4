package pipeline

import (
	"bytes"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
)

// chunk is a piece of a log, as it was printed, that is written down at once.
type chunk struct {
	text  []byte // newlines included
	parts []part
	head  bool // it is kept for good
}

// part is what a stream printed without anything of another between.
type part struct {
	at     time.Time
	stream uint8
	end    int // in text
}

// tailChunk is a chunk of the tail in the store.
type tailChunk struct{ seq, size int64 }

// tailSlots are enough chunks for logTail bytes, of which each may lack a line
// at its end, besides the one being filled and the one being written down.
const tailSlots = logTail/(logChunk-lineMax) + 3

// slots are the memory of the tail. It is no memory of Go's: the collector
// would let the daemon grow by twice its size before it looks.
type slots struct {
	all    []byte // nil until the tail begins
	unused [][]byte
}

// get gives the memory of a chunk, nil when all is in use.
func (m *slots) get() []byte {
	if m.all == nil {
		var err error
		m.all, err = unix.Mmap(-1, 0, tailSlots*logChunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			m.all = make([]byte, tailSlots*logChunk)
		}
		for i := range tailSlots {
			m.unused = append(m.unused, m.all[i*logChunk:i*logChunk:(i+1)*logChunk])
		}
	}
	last := len(m.unused) - 1
	if last < 0 {
		return nil
	}
	b := m.unused[last]
	m.unused = m.unused[:last]
	return b
}

// put takes the memory of a chunk back.
func (m *slots) put(b []byte) { m.unused = append(m.unused, b[:0]) }

// free gives all of it back; no chunk is in use any more.
func (m *slots) free() {
	if m.all != nil {
		_ = unix.Munmap(m.all) // one of Go's it does not know, and leaves alone
	}
	*m = slots{}
}

// add puts text of a stream into the chunk that is being filled, and into the
// next ones where it is longer. What is full is written down at once in the
// head, in the tail when somebody looks.
func (l *stepLog) add(n uint8, s *stream, text []byte) {
	for len(text) > 0 {
		c := &l.filling
		piece := text
		if room := logChunk - len(c.text); len(piece) > room {
			// Better whole lines, so that a tail begins with one.
			piece = text[:room]
			if whole := lastLine(piece); whole > 0 {
				piece = text[:whole]
			} else if room < lineMax {
				l.fill()
				continue
			}
		}
		if c.text == nil {
			c.text = l.memory(c.head)
		}
		c.text = append(c.text, piece...)
		now := time.Now()
		if last := len(c.parts) - 1; last >= 0 && c.parts[last].stream == n && now.Sub(c.parts[last].at) < time.Millisecond {
			c.parts[last].end = len(c.text)
		} else {
			c.parts = append(c.parts, part{now, n, len(c.text)})
		}
		s.open = piece[len(piece)-1] != '\n'
		text = text[len(piece):]
		if len(c.text) == logChunk || len(c.parts) == logParts || len(text) > 0 {
			l.fill()
		}
	}
	if len(l.pending) > 0 && l.pending[0].head && !l.saving {
		l.saving = true
		go func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.save()
		}()
	}
}

// memory gives that of a chunk. Of the tail, the oldest that was not written
// down makes room.
func (l *stepLog) memory(head bool) []byte {
	if head {
		b := l.spare
		l.spare = nil
		return b
	}
	b := l.slots.get()
	for i := 0; b == nil; i++ {
		old := l.pending[i]
		if old.head {
			continue // the first of the tail stands behind it
		}
		l.pending = append(l.pending[:i], l.pending[i+1:]...)
		l.dropped += int64(len(old.text))
		l.gap, l.flood = true, true
		b = old.text[:0]
	}
	return b
}

// fill ends the chunk that is being filled.
func (l *stepLog) fill() {
	if len(l.filling.text) == 0 {
		return
	}
	l.taken += int64(len(l.filling.text))
	l.pending = append(l.pending, l.filling)
	l.filling = chunk{head: l.taken < logHead}
}

// save writes down what is pending, as far as the tail is not outrun by what
// comes. It is called, and returns, with mu held, which it lets go while it
// writes.
func (l *stepLog) save() {
	l.saving = true
	for len(l.pending) > 0 && (l.pending[0].head || !l.flood) {
		c := l.pending[0]
		l.pending = append(l.pending[:0], l.pending[1:]...)
		gap := l.gap && !c.head
		if gap {
			l.gap = false
			l.dropped += l.tailed // it stands before what was left out
		}
		dropped, failed := l.dropped, l.err
		l.mu.Unlock()
		var out int64
		if failed == nil {
			out, failed = l.writeDown(c, gap, dropped)
		}
		l.mu.Lock()
		l.dropped += out
		l.err = failed
		if c.head {
			l.spare = c.text[:0]
		} else {
			l.spare = nil
			l.slots.put(c.text)
		}
		l.moved.Broadcast()
	}
	l.saving = false
	l.moved.Broadcast()
}

// writeDown puts a chunk into the store, and takes out what is not of the tail
// any more: out bytes. After a gap that is all of it, and dropped bytes are
// left out before the chunk.
func (l *stepLog) writeDown(c chunk, gap bool, dropped int64) (out int64, err error) {
	switch {
	case c.head:
	case gap && l.marker != 0:
		if err := l.store.DropLog(l.ctx, l.at, l.marker, l.seq-1); err != nil {
			return 0, err
		}
		l.tail, l.tailed = l.tail[:0], 0
		fallthrough
	case l.marker == 0:
		// The place of the sentence that says what is missing, between head
		// and tail: filled at the end, when the number is known.
		l.marker = l.seq
		l.seq++
		if err := l.store.AppendLog(l.ctx, l.at, l.marker, leftOut(dropped)); err != nil {
			return 0, err
		}
	}
	if err := l.writeLines(c); err != nil {
		return 0, err
	}
	n := 0
	for n < len(l.tail)-1 && l.tailed-l.tail[n].size >= logTail {
		out += l.tail[n].size
		l.tailed -= l.tail[n].size
		n++
	}
	if n > 0 {
		err = l.store.DropLog(l.ctx, l.at, l.tail[0].seq, l.tail[n-1].seq)
		l.tail = append(l.tail[:0], l.tail[n:]...)
	}
	return out, err
}

// writeLines puts the lines of a chunk into the store. The store does not keep
// what it is given.
func (l *stepLog) writeLines(c chunk) error {
	size := 0
	put := func() error {
		if len(l.lines) == 0 {
			return nil
		}
		err := l.store.AppendLog(l.ctx, l.at, l.seq, l.lines)
		if !c.head {
			l.tail = append(l.tail, tailChunk{l.seq, int64(size)})
			l.tailed += int64(size)
		}
		l.seq++
		l.lines, size = l.lines[:0], 0
		return err
	}
	from := 0
	for _, p := range c.parts {
		for text := c.text[from:p.end]; len(text) > 0; {
			end := bytes.IndexByte(text, '\n')
			open, next := false, end+1
			if end < 0 {
				open, end, next = true, len(text), len(text)
			}
			if end > lineMax {
				open, end, next = true, lineMax, lineMax
			}
			l.lines = append(l.lines, deploy.LogLine{Time: p.at, Stream: p.stream, Text: text[:end:end], Open: open})
			size += next
			text = text[next:]
			if len(l.lines) == logLines {
				if err := put(); err != nil {
					return err
				}
			}
		}
		from = p.end
	}
	return put()
}

// markLeftOut says how much is left out in all, at its place.
func (l *stepLog) markLeftOut() {
	if l.dropped > 0 && l.err == nil {
		l.err = l.store.AppendLog(l.ctx, l.at, l.marker, leftOut(l.dropped))
	}
}

// leftOut is the line between head and tail; none while nothing is missing.
func leftOut(bytes int64) []deploy.LogLine {
	if bytes == 0 {
		return []deploy.LogLine{}
	}
	text := fmt.Sprintf("deployhook: %d bytes are left out here: the log of a step keeps its first %d and its last %d MiB", bytes, logHead>>20, logTail>>20)
	return []deploy.LogLine{{Time: time.Now(), Text: []byte(text)}}
}
