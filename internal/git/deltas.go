package git

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/go-git/go-git/v5/plumbing"
)

// body is the content of an object: in memory, or in a file.
type body struct {
	mem  []byte
	file *os.File
	size int64
}

func (b body) at() io.ReaderAt {
	if b.file != nil {
		return b.file
	}
	return bytes.NewReader(b.mem)
}

// resolver resolves deltas, in one goroutine.
type resolver struct {
	x    *indexer
	r    entryReader
	sums *hasher
	free [][]byte // of bodies that are no more
}

func (r *resolver) drop(b body) {
	if b.file != nil {
		_ = b.file.Close()
		return
	}
	r.x.held.Add(-b.size)
	const most = 4
	if len(r.free) < most && len(b.mem) <= aloneAbove {
		r.free = append(r.free, b.mem)
	}
}

// hold says whether a content may be in memory.
func (r *resolver) hold(size int64) bool {
	if size > memoryMost || r.x.held.Add(size) > heldMost {
		if size <= memoryMost {
			r.x.held.Add(-size)
		}
		return false
	}
	return true
}

func (r *resolver) buffer(size int64) []byte {
	if n := len(r.free); n > 0 {
		b := r.free[n-1]
		r.free = r.free[:n-1]
		return sized(b, size)
	}
	return make([]byte, size)
}

// whole reads an object that is no delta.
func (r *resolver) whole(n int32) (body, error) {
	e := r.x.entries[n]
	_, _, head, err := r.r.head(r.x.p, e.offset, firstRead)
	if err != nil {
		return body{}, err
	}
	if !r.hold(e.size) {
		f, err := r.x.spool.inflated(link{r.x.p, e, head})
		return body{file: f, size: e.size}, err
	}
	b := r.buffer(e.size)
	_, err = r.r.inflate(r.x.p, e, head, b)
	return body{mem: b, size: e.size}, err
}

// patched makes an object of the delta that an entry is.
func (r *resolver) patched(n int32, base body) (body, error) {
	x, e := r.x, r.x.entries[n]
	_, _, head, err := r.r.head(x.p, e.offset, firstRead)
	if err != nil {
		return body{}, err
	}
	l := link{x.p, e, head}
	size := int64(0)
	if e.size <= memoryMost {
		r.r.delta = sized(r.r.delta, e.size)
		if _, err := r.r.inflate(x.p, e, head, r.r.delta); err != nil {
			return body{}, err
		}
		_, size, _, err = deltaSizes(r.r.delta)
	} else {
		size, err = deltaMakes(x.p, e.offset+int64(head))
	}
	if err != nil {
		return body{}, err
	}
	if most := madeMost + madeTimes*x.size; x.made.Add(size) > most {
		return body{}, fmt.Errorf("the deltas of %d bytes make more than %d", x.size, most)
	}
	if base.file == nil && e.size <= memoryMost && r.hold(size) {
		b, err := patch(r.buffer(size), base.mem, r.r.delta)
		return body{mem: b, size: size}, err
	}
	f, made, err := x.spool.patched(base.at(), base.size, l)
	return body{file: f, size: made}, err
}

func (r *resolver) id(kind plumbing.ObjectType, b body) (plumbing.Hash, error) {
	r.sums.reset(kind, b.size)
	if b.file == nil {
		_, _ = r.sums.Write(b.mem)
		return r.sums.id(), nil
	}
	_, err := io.Copy(onlyWriter{r.sums}, io.NewSectionReader(b.file, 0, b.size))
	return r.sums.id(), err
}

func (r *resolver) root(n int32) error {
	b, err := r.whole(n)
	if err != nil {
		return bad("object %d: %v", n, err)
	}
	return r.descend(n, b, 1)
}

// descend resolves the deltas upon an entry, and drops its content. A chain
// without branches holds one content at a time.
func (r *resolver) descend(n int32, content body, depth int) error {
	x := r.x
	kind := x.entries[n].kind
	defer func() { r.drop(content) }()
	for child := x.entries[n].child; child != 0; {
		if err := x.ctx.Err(); err != nil {
			return err
		}
		if depth > chainMost {
			return bad("a chain of more than %d deltas", chainMost)
		}
		out, err := r.patched(child, content)
		if err != nil {
			return bad("object %d: %v", child, err)
		}
		e := &x.entries[child]
		if e.id, err = r.id(kind, out); err != nil {
			r.drop(out)
			return err
		}
		e.kind = kind
		x.adopt(child)
		x.mu.Lock()
		x.left--
		x.mu.Unlock()
		if e.next == 0 {
			r.drop(content)
			content, depth, child = out, depth+1, e.child
			continue
		}
		if err := r.descend(child, out, depth+1); err != nil {
			return err
		}
		child = e.next
	}
	return nil
}
