package git

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/go-git/go-git/v5/plumbing"
)

// packs are the packs of a repository, and what is kept of them in memory. Any
// number of goroutines may read.
type packs struct {
	tmp     string // the directory for what is too large for memory
	list    []*packFile
	last    atomic.Pointer[packFile] // where the last object was
	readers sync.Pool                // of *entryReader
	bases   baseCache
}

func (o *packs) reader() *entryReader {
	if r, ok := o.readers.Get().(*entryReader); ok {
		return r
	}
	return &entryReader{}
}

func (o *packs) done(r *entryReader) {
	r.release()
	o.readers.Put(r)
}

// locate finds the pack that an object is in; nil: it is in none.
func (o *packs) locate(id plumbing.Hash) (*packFile, int64, error) {
	last := o.last.Load()
	if last != nil {
		if at, ok, err := last.find(id); ok || err != nil {
			return last, at, err
		}
	}
	for _, p := range o.list {
		if p == last {
			continue
		}
		at, ok, err := p.find(id)
		if err != nil {
			return nil, 0, err
		}
		if ok {
			o.last.Store(p)
			return p, at, nil
		}
	}
	return nil, 0, nil
}

// link is one step from an object to the one that it builds upon in the end.
type link struct {
	p    *packFile
	e    packEntry
	head int // bytes of its header
}

// spot is where an object is.
type spot struct {
	p  *packFile
	at int64
}

// chain goes from an entry to the object that it builds upon in the end. The
// first link is the entry, the last is that object, or one that stop says yes to.
func (o *packs) chain(r *entryReader, p *packFile, at int64, stop func(spot) bool) (list []link, err error) {
	for {
		if len(list) > chainMost {
			return nil, p.bad(fmt.Errorf("a chain of more than %d deltas", chainMost))
		}
		e, base, n, err := r.head(p, at, headMost)
		if err != nil {
			return nil, p.bad(err)
		}
		list = append(list, link{p, e, n})
		switch {
		case !e.kind.IsDelta() || stop != nil && stop(spot{p, at}):
			return list, nil
		case e.kind == plumbing.OFSDeltaObject:
			at = base.offset
			continue
		}
		next, where, err := o.locate(base.id)
		if err != nil {
			return nil, err
		}
		if next == nil {
			return nil, p.bad(errors.New("a delta upon what is not here"))
		}
		p, at = next, where
	}
}

// errLarge is an object that memory is not meant for.
var errLarge = errors.New("it is too large for memory")

// load gives the object at a place, in buf where that has the room, with room
// bytes of it at most. [errLarge]: it has more, or needs more to be made. Any
// other error is [errDamaged].
func (o *packs) load(p *packFile, at int64, buf []byte, room int64) (plumbing.ObjectType, []byte, error) {
	r := o.reader()
	defer o.done(r)
	e, _, n, err := r.head(p, at, firstRead)
	if err != nil {
		return 0, nil, p.bad(err)
	}
	if !e.kind.IsDelta() {
		if e.size > room {
			return e.kind, nil, errLarge
		}
		b := sized(buf, e.size)
		if _, err := r.inflate(p, e, n, b); err != nil {
			return 0, nil, p.bad(err)
		}
		return e.kind, b, nil
	}
	var kind plumbing.ObjectType
	var content []byte
	list, err := o.chain(r, p, at, func(at spot) bool {
		var ok bool
		kind, content, ok = o.bases.get(at)
		return ok
	})
	if err != nil {
		return 0, nil, err
	}
	i := len(list) - 1
	if content != nil && i == 0 {
		if int64(len(content)) > room {
			return kind, nil, errLarge
		}
		// What is kept must not become whoever reads' own buffer.
		return kind, append(buf[:0], content...), nil
	}
	if content == nil {
		l := list[i]
		if kind = l.e.kind; l.e.size > memoryMost {
			return kind, nil, errLarge
		}
		content = make([]byte, l.e.size)
		if _, _, _, err := r.head(l.p, l.e.offset, firstRead); err != nil {
			return 0, nil, l.p.bad(err)
		}
		if _, err := r.inflate(l.p, l.e, l.head, content); err != nil {
			return 0, nil, l.p.bad(err)
		}
		o.bases.put(spot{l.p, l.e.offset}, kind, content)
	}
	for i--; i >= 0; i-- {
		l := list[i]
		if l.e.size > memoryMost {
			return kind, nil, errLarge
		}
		r.delta = sized(r.delta, l.e.size)
		if _, _, _, err := r.head(l.p, l.e.offset, firstRead); err != nil {
			return 0, nil, l.p.bad(err)
		}
		if _, err := r.inflate(l.p, l.e, l.head, r.delta); err != nil {
			return 0, nil, l.p.bad(err)
		}
		_, size, _, err := deltaSizes(r.delta)
		switch {
		case err != nil:
			return 0, nil, l.p.bad(err)
		case size > memoryMost || i == 0 && size > room:
			return kind, nil, errLarge
		}
		var out []byte
		if i == 0 {
			out = buf
		}
		if content, err = patch(out, content, r.delta); err != nil {
			return 0, nil, l.p.bad(err)
		}
		if i > 0 {
			o.bases.put(spot{l.p, l.e.offset}, kind, content)
		}
	}
	return kind, content, nil
}

// stat gives an object's kind and size.
func (o *packs) stat(p *packFile, at int64) (plumbing.ObjectType, int64, error) {
	r := o.reader()
	defer o.done(r)
	e, _, n, err := r.head(p, at, headMost)
	if err != nil {
		return 0, 0, p.bad(err)
	}
	if !e.kind.IsDelta() {
		return e.kind, e.size, nil
	}
	size := int64(0)
	if e.size <= firstRead {
		r.delta = sized(r.delta, e.size)
		if _, err := r.inflate(p, e, n, r.delta); err != nil {
			return 0, 0, p.bad(err)
		}
		_, size, _, err = deltaSizes(r.delta)
	} else {
		size, err = deltaMakes(p, at+int64(n))
	}
	if err != nil {
		return 0, 0, p.bad(err)
	}
	list, err := o.chain(r, p, at, nil)
	if err != nil {
		return 0, 0, err
	}
	return list[len(list)-1].e.kind, size, nil
}

// deltaMakes reads how much a delta makes, of which only the beginning is read.
func deltaMakes(p *packFile, at int64) (int64, error) {
	z, err := p.stream(at)
	if err != nil {
		return 0, err
	}
	defer z.Close()
	head := make([]byte, deltaHead)
	n, err := io.ReadFull(z, head)
	if err != nil && err != io.ErrUnexpectedEOF {
		return 0, err
	}
	_, size, _, err := deltaSizes(head[:n])
	return size, err
}

// open streams the object at a place, whatever its size.
func (o *packs) open(p *packFile, at int64) (io.ReadCloser, error) {
	r := o.reader()
	list, err := o.chain(r, p, at, nil)
	o.done(r)
	if err != nil {
		return nil, err
	}
	last := list[len(list)-1]
	if len(list) == 1 {
		z, err := p.stream(at + int64(last.head))
		if err != nil {
			return nil, p.bad(err)
		}
		return exactly(z, last.e.size), nil
	}
	if _, b, err := o.load(p, at, nil, memoryMost); !errors.Is(err, errLarge) {
		return io.NopCloser(bytes.NewReader(b)), err
	}
	s := &spool{dir: o.tmp}
	base, err := s.inflated(last)
	size := last.e.size
	for i := len(list) - 2; i >= 0 && err == nil; i-- {
		old := base
		base, size, err = s.patched(old, size, list[i])
		_ = old.Close()
	}
	if err != nil {
		return nil, err
	}
	if _, err := base.Seek(0, io.SeekStart); err != nil {
		_ = base.Close()
		return nil, err
	}
	return base, nil
}

// spool makes files of what is too large for memory. They have no names: they
// are gone when they are closed, or when the process ends.
type spool struct{ dir string }

func (s *spool) file() (*os.File, error) {
	f, err := os.CreateTemp(s.dir, partial)
	if err != nil {
		return nil, err
	}
	// Whoever sweeps may have been faster.
	if err := os.Remove(f.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// fill makes a file of what write writes.
func (s *spool) fill(p *packFile, write func(w io.Writer) error) (*os.File, error) {
	f, err := s.file()
	if err != nil {
		return nil, err
	}
	w := bufio.NewWriterSize(f, 64<<10)
	if err = write(w); err == nil {
		err = w.Flush()
	}
	if err != nil {
		_ = f.Close()
		return nil, p.bad(err)
	}
	return f, nil
}

func (s *spool) inflated(l link) (*os.File, error) {
	return s.fill(l.p, func(w io.Writer) error {
		z, err := l.p.stream(l.e.offset + int64(l.head))
		if err != nil {
			return err
		}
		defer z.Close()
		_, err = io.Copy(w, exactly(z, l.e.size))
		return err
	})
}

// patched gives what comes of a delta, and its size.
func (s *spool) patched(base io.ReaderAt, size int64, l link) (f *os.File, made int64, err error) {
	f, err = s.fill(l.p, func(w io.Writer) error {
		z, err := l.p.stream(l.e.offset + int64(l.head))
		if err != nil {
			return err
		}
		defer z.Close()
		made, err = patchStream(w, base, size, bufio.NewReader(exactly(z, l.e.size)))
		return err
	})
	return f, made, err
}

// exact is a reader that fails when it does not give the bytes that it says.
type exact struct {
	io.ReadCloser
	left int64
}

func exactly(r io.ReadCloser, size int64) io.ReadCloser { return &exact{r, size} }

func (e *exact) Read(p []byte) (int, error) {
	n, err := e.ReadCloser.Read(p)
	if e.left -= int64(n); e.left < 0 || err == io.EOF && e.left > 0 {
		return 0, errSize
	}
	return n, err
}

// baseCache keeps what deltas build upon.
type baseCache struct {
	mu    sync.Mutex
	by    map[spot]*base
	order []spot // the oldest first
	bytes int
}

type base struct {
	kind    plumbing.ObjectType
	content []byte
	used    bool // since it was last looked at to be forgotten
}

func (c *baseCache) get(at spot) (plumbing.ObjectType, []byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.by[at]
	if !ok {
		return 0, nil, false
	}
	b.used = true
	return b.kind, b.content, true
}

func (c *baseCache) put(at spot, kind plumbing.ObjectType, content []byte) {
	if len(content) > cacheBytes/4 || len(content) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[spot]*base{}
	}
	if _, ok := c.by[at]; ok {
		return
	}
	c.by[at] = &base{kind: kind, content: content}
	c.order = append(c.order, at)
	c.bytes += len(content)
	for c.bytes > cacheBytes {
		first := c.order[0]
		c.order = c.order[1:]
		if b := c.by[first]; b.used {
			b.used = false
			c.order = append(c.order, first)
		} else {
			c.bytes -= len(b.content)
			delete(c.by, first)
		}
	}
}

// packed is an object of a pack.
type packed struct {
	o    *packs
	at   spot
	id   plumbing.Hash
	kind plumbing.ObjectType
	size int64
}

var _ plumbing.EncodedObject = (*packed)(nil)

func (f *packed) Hash() plumbing.Hash            { return f.id }
func (f *packed) Type() plumbing.ObjectType      { return f.kind }
func (f *packed) SetType(plumbing.ObjectType)    {}
func (f *packed) Size() int64                    { return f.size }
func (f *packed) SetSize(int64)                  {}
func (f *packed) Reader() (io.ReadCloser, error) { return f.o.open(f.at.p, f.at.at) }
func (f *packed) Writer() (io.WriteCloser, error) {
	return nil, fmt.Errorf("%s is packed", filepath.Base(f.at.p.path))
}

// find finds an object; nil: it is in no pack.
func (o *packs) find(id plumbing.Hash) (*packed, error) {
	p, at, err := o.locate(id)
	if p == nil || err != nil {
		return nil, err
	}
	kind, size, err := o.stat(p, at)
	if err != nil {
		return nil, err
	}
	return &packed{o, spot{p, at}, id, kind, size}, nil
}
