package git

import (
	"bufio"
	"errors"
	"hash/crc32"
	"io"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/klauspost/compress/zlib"
)

// scanner goes through a pack while it arrives.
type scanner struct {
	x     *indexer
	at    int64  // of the next entry
	win   []byte // some of the file
	winAt int64  // where it is
	z     zinflater
	delta []byte
	big   io.ReadCloser // for what is not held in memory
	batch *batch
	free  chan *batch
	work  chan *batch
	done  chan struct{}
}

// batch is a number of contents whose ids are found by another goroutine.
type batch struct {
	buf  []byte
	list []batched
}

type batched struct {
	n        int32
	from, to int
	kind     plumbing.ObjectType
	id       plumbing.Hash
}

const (
	batches   = 3
	batchSize = 128 << 10 // bytes
)

func newScanner(x *indexer) *scanner {
	s := &scanner{x: x, at: packHead, free: make(chan *batch, batches), work: make(chan *batch, batches), done: make(chan struct{})}
	for range batches {
		s.free <- &batch{}
	}
	go func() {
		defer close(s.done)
		sums := newHasher()
		for b := range s.work {
			for i := range b.list {
				l := &b.list[i]
				sums.reset(l.kind, int64(l.to-l.from))
				_, _ = sums.Write(b.buf[l.from:l.to])
				l.id = sums.id()
			}
			s.free <- b
		}
	}()
	return s
}

// take gives a batch whose ids are known and taken over.
func (s *scanner) take() *batch {
	b := <-s.free
	for _, l := range b.list {
		s.x.entries[l.n].id = l.id
	}
	b.buf, b.list = b.buf[:0], b.list[:0]
	return b
}

// stop ends the goroutine, when all ids are known. It may be called again.
func (s *scanner) stop() {
	if s.work == nil {
		return
	}
	if s.batch != nil {
		s.work <- s.batch
	}
	close(s.work)
	<-s.done
	for range len(s.free) {
		s.take()
	}
	if s.big != nil {
		_ = s.big.Close()
	}
	s.work, s.batch = nil, nil
}

// window gives n bytes from the next entry on, or those that there are.
func (s *scanner) window(n int64) ([]byte, error) {
	const step = 64 << 10
	if s.winAt+int64(len(s.win)) < s.at+n || s.at < s.winAt {
		have, err := s.x.in.wait(s.at + n)
		if err != nil {
			return nil, err
		}
		var rest []byte
		if at := s.at - s.winAt; at >= 0 && at < int64(len(s.win)) {
			rest = s.win[at:]
		}
		want := min(max(n, step), have-s.at)
		if int64(cap(s.win)) < want || int64(cap(s.win)) > 4*max(want, step) {
			s.win = append(make([]byte, 0, want+step), rest...)
		} else {
			s.win = s.win[:copy(s.win[:cap(s.win)], rest)]
		}
		if got := int64(len(s.win)); got < want {
			s.win = s.win[:want]
			if _, err := s.x.in.f.ReadAt(s.win[got:], s.at+got); err != nil {
				return nil, err
			}
		}
		s.winAt = s.at
	}
	b := s.win[s.at-s.winAt:]
	return b[:min(n, int64(len(b)))], nil
}

// entry reads the next entry, which is the nth.
func (s *scanner) entry(n int32) error {
	x := s.x
	b, err := s.window(headMost)
	if err != nil {
		return err
	}
	e, base, head, err := entryHead(b, s.at)
	if err != nil {
		return err
	}
	switch e.kind {
	case plumbing.OFSDeltaObject:
		at, ok := x.at(base.offset)
		if !ok {
			return errors.New("a delta upon nothing")
		}
		e.next, x.entries[at].child = x.entries[at].child, n
		x.left++
	case plumbing.REFDeltaObject:
		x.byID[base.id] = append(x.byID[base.id], n)
		x.left++
	}
	if e.size > aloneAbove {
		return s.alone(e, head)
	}
	var dst []byte
	if e.kind.IsDelta() {
		s.delta = sized(s.delta, e.size)
		dst = s.delta
	} else {
		if s.batch != nil && int64(len(s.batch.buf))+e.size > batchSize {
			s.work <- s.batch
			s.batch = nil
		}
		if s.batch == nil {
			s.batch = s.take()
		}
		from := len(s.batch.buf)
		s.batch.buf = slices.Grow(s.batch.buf, int(e.size))[:from+int(e.size)]
		s.batch.list = append(s.batch.list, batched{n: n, from: from, to: from + int(e.size), kind: e.kind})
		dst = s.batch.buf[from:]
	}
	used := 0
	for most := int64(head) + compressed(e.size); ; most *= 2 {
		if b, err = s.window(most); err != nil {
			break
		}
		used, err = s.z.zlib(dst, b[head:])
		if !errors.Is(err, errShort) || int64(len(b)) < most {
			break
		}
	}
	if err != nil {
		s.drop()
		return err
	}
	e.crc = crc32.ChecksumIEEE(b[:head+used])
	s.at += int64(head + used)
	x.entries = append(x.entries, e)
	return nil
}

// drop takes the last entry out of the batch: it will have no id.
func (s *scanner) drop() {
	if s.batch != nil && len(s.batch.list) > 0 && int(s.batch.list[len(s.batch.list)-1].n) == len(s.x.entries) {
		s.batch.list = s.batch.list[:len(s.batch.list)-1]
	}
}

// alone reads an entry that is too large to be held.
func (s *scanner) alone(e packEntry, head int) (err error) {
	follow := &follower{s.x.in, s.at + int64(head)}
	r := bufio.NewReaderSize(follow, 64<<10)
	if s.big == nil {
		s.big, err = zlib.NewReader(r)
	} else {
		err = s.big.(zlib.Resetter).Reset(r, nil)
	}
	if err != nil {
		return err
	}
	to := io.Discard
	var sums *hasher
	if !e.kind.IsDelta() {
		sums = newHasher()
		sums.reset(e.kind, e.size)
		to = sums
	}
	n, err := io.CopyBuffer(onlyWriter{to}, io.LimitReader(s.big, e.size+1), make([]byte, 64<<10))
	if err != nil {
		return err
	}
	if n != e.size {
		return errSize
	}
	if sums != nil {
		e.id = sums.id()
	}
	end := follow.at - int64(r.Buffered())
	sum := crc32.NewIEEE()
	if _, err := io.Copy(sum, io.NewSectionReader(s.x.in.f, s.at, end-s.at)); err != nil {
		return err
	}
	e.crc, s.at = sum.Sum32(), end
	s.x.entries = append(s.x.entries, e)
	return nil
}

type onlyWriter struct{ io.Writer }
