package git

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/klauspost/compress/zlib"
)

// Bounds of a pack.
const (
	entryLeast = 9         // bytes: a header and an empty zlib stream
	deltaMost  = 512 << 20 // bytes of what is stored as a delta, or as its base; git stores no larger ones so
	chainMost  = 4095      // deltas upon deltas, as git has it
	workersMax = 4         // that resolve deltas, each holding a file and its base
)

// packEntry is one object of a pack.
type packEntry struct {
	offset, size int64 // of its header; of its content, or of the delta
	next, child  int32 // the next delta upon the same base, and the first upon this one; 0: none
	crc          uint32
	kind         plumbing.ObjectType // the kind of a delta is that of its base, once it is known
	id           plumbing.Hash
}

// indexer reads a pack from a file and finds what is in it. The entries count
// from 1.
//
// The library's parser holds every object in memory, some of them twice, and
// believes the number of objects in the header: 32 bytes of it could end the
// daemon.
//
// Source: git's Documentation/gitformat-pack.txt.
type indexer struct {
	ctx     context.Context
	f       io.ReaderAt
	size    int64 // without the checksum
	entries []packEntry
	sum     plumbing.Hash // the pack's checksum

	mu   sync.Mutex
	byID map[plumbing.Hash][]int32 // deltas whose base is named by its id, until it is found
	left int                       // deltas that are not resolved
}

// indexPack reads a pack of n bytes and gives what is in it.
func indexPack(ctx context.Context, f io.ReaderAt, n int64) (*indexer, error) {
	x := &indexer{ctx: ctx, f: f, size: n - int64(len(plumbing.Hash{})), byID: map[plumbing.Hash][]int32{}}
	if err := x.scan(); err != nil {
		return nil, err
	}
	if err := x.checksums(); err != nil {
		return nil, err
	}
	return x, x.resolve()
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errPack, fmt.Sprintf(format, args...))
}

// scan goes through the pack once, and knows all but the deltas after it.
func (x *indexer) scan() error {
	const header = 12
	head := make([]byte, header)
	if x.size < header {
		return bad("it is too short")
	}
	if _, err := x.f.ReadAt(head, 0); err != nil {
		return err
	}
	if string(head[:8]) != "PACK\x00\x00\x00\x02" {
		return bad("it is none of version 2")
	}
	count := int64(binary.BigEndian.Uint32(head[8:]))
	if count > (x.size-header)/entryLeast || count > 1<<31-2 {
		return bad("it cannot have %d objects", count)
	}
	x.entries = make([]packEntry, 1, count+1)
	in := newInflater(x.f, header, x.size)
	sums := newHasher()
	for n := int32(1); int64(n) <= count; n++ {
		if n%1024 == 0 && x.ctx.Err() != nil {
			return x.ctx.Err()
		}
		e, base, err := in.header()
		if err != nil {
			return bad("object %d: %v", n, err)
		}
		var to io.Writer = io.Discard
		switch e.kind {
		case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
			sums.reset(e.kind, e.size)
			to = sums
		case plumbing.OFSDeltaObject:
			at, ok := x.at(base.offset)
			if !ok {
				return bad("object %d: a delta upon nothing", n)
			}
			e.next, x.entries[at].child = x.entries[at].child, n
			x.left++
		case plumbing.REFDeltaObject:
			x.byID[base.id] = append(x.byID[base.id], n)
			x.left++
		}
		if err := in.inflate(to, e.size); err != nil {
			return bad("object %d: %v", n, err)
		}
		if !e.kind.IsDelta() {
			e.id = sums.id()
		}
		x.entries = append(x.entries, e)
	}
	if in.pos() != x.size {
		return bad("it has more than its objects")
	}
	return nil
}

// at finds the entry that begins at a place.
func (x *indexer) at(offset int64) (int32, bool) {
	n, ok := slices.BinarySearchFunc(x.entries[1:], offset, func(e packEntry, offset int64) int { return cmp.Compare(e.offset, offset) })
	return int32(n + 1), ok
}

// checksums goes through the pack a second time.
func (x *indexer) checksums() error {
	r := bufio.NewReaderSize(io.NewSectionReader(x.f, 0, x.size), 256<<10)
	whole := newHasher()
	whole.h.Reset()
	at := int64(0)
	for n := 1; n <= len(x.entries); n++ {
		end := x.size
		if n < len(x.entries) {
			end = x.entries[n].offset
		}
		sum := crc32.NewIEEE()
		if _, err := io.CopyN(io.MultiWriter(sum, whole), r, end-at); err != nil {
			return err
		}
		x.entries[n-1].crc, at = sum.Sum32(), end
	}
	x.sum = whole.id()
	said := plumbing.Hash{}
	if _, err := x.f.ReadAt(said[:], x.size); err != nil && err != io.EOF {
		return err
	}
	if said != x.sum {
		return bad("its checksum is another")
	}
	return nil
}

// resolve finds the ids of deltas: from each object that is none, down to all
// that build upon it.
func (x *indexer) resolve() error {
	if x.left == 0 {
		return nil
	}
	var roots []int32
	for n := int32(1); int(n) < len(x.entries); n++ {
		e := &x.entries[n]
		if e.kind.IsDelta() {
			continue
		}
		x.adopt(n)
		if e.child != 0 {
			roots = append(roots, n)
		}
	}
	var next sync.Mutex
	var failed error
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), workersMax, len(roots)) {
		wg.Go(func() {
			in, sums := newInflater(x.f, 0, x.size), newHasher()
			for {
				next.Lock()
				if failed != nil || len(roots) == 0 {
					next.Unlock()
					return
				}
				root := roots[0]
				roots = roots[1:]
				next.Unlock()
				err := x.root(in, sums, root)
				if err != nil {
					next.Lock()
					failed = err
					next.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	if failed == nil && x.left > 0 {
		return bad("%d deltas build upon what is not in it", x.left)
	}
	return failed
}

// adopt makes children of the deltas that name an entry by its id.
func (x *indexer) adopt(n int32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := &x.entries[n]
	for _, child := range x.byID[e.id] {
		x.entries[child].next, e.child = e.child, child
	}
	delete(x.byID, e.id)
}

func (x *indexer) root(in *inflater, sums *hasher, n int32) error {
	content, err := in.read(&x.entries[n])
	if err != nil {
		return bad("object %d: %v", n, err)
	}
	return x.descend(in, sums, n, content, 1)
}

// descend resolves the deltas upon an entry. A chain without branches holds one
// content at a time.
func (x *indexer) descend(in *inflater, sums *hasher, n int32, content []byte, depth int) error {
	kind := x.entries[n].kind
	for child := x.entries[n].child; child != 0; {
		if err := x.ctx.Err(); err != nil {
			return err
		}
		if depth > chainMost {
			return bad("a chain of more than %d deltas", chainMost)
		}
		e := &x.entries[child]
		delta, err := in.read(e)
		if err != nil {
			return bad("object %d: %v", child, err)
		}
		out, err := patch(content, delta)
		if err != nil {
			return bad("object %d: %v", child, err)
		}
		sums.reset(kind, int64(len(out)))
		_, _ = sums.Write(out)
		e.id, e.kind = sums.id(), kind
		x.adopt(child)
		x.mu.Lock()
		x.left--
		x.mu.Unlock()
		last := e.next == 0
		if last {
			content, depth, child = out, depth+1, e.child
			continue
		}
		if err := x.descend(in, sums, child, out, depth+1); err != nil {
			return err
		}
		child = e.next
	}
	return nil
}

// patch makes an object of its base and a delta.
func patch(base, delta []byte) ([]byte, error) {
	from, n := binary.Uvarint(delta)
	if n <= 0 || from != uint64(len(base)) {
		return nil, errors.New("the delta is of another base")
	}
	delta = delta[n:]
	size, n := binary.Uvarint(delta)
	if n <= 0 || size > deltaMost {
		return nil, fmt.Errorf("a delta makes %d bytes", size)
	}
	delta = delta[n:]
	// What is said is not believed: the first time, only its size is made.
	made, err := follow(delta, uint64(len(base)), func(int, int) {}, func([]byte) {})
	if err != nil {
		return nil, err
	}
	if made != size {
		return nil, fmt.Errorf("the delta makes %d bytes, not %d", made, size)
	}
	out := make([]byte, 0, size)
	_, err = follow(delta, uint64(len(base)),
		func(at, length int) { out = append(out, base[at:at+length]...) },
		func(text []byte) { out = append(out, text...) })
	return out, err
}

// follow goes through a delta's instructions: pieces of the base are copied,
// text is put between them. It gives the number of bytes that come of it.
func follow(delta []byte, base uint64, piece func(at, length int), text func([]byte)) (made uint64, err error) {
	short := errors.New("the delta is cut short")
	for len(delta) > 0 {
		op := delta[0]
		delta = delta[1:]
		switch {
		case op == 0:
			return 0, errors.New("the delta has an unknown instruction")
		case op < 0x80:
			if int(op) > len(delta) {
				return 0, short
			}
			text(delta[:op])
			made, delta = made+uint64(op), delta[op:]
		default:
			var arg [7]byte // offset, 4 bytes, and length, 3, of which some are left out
			for i := range arg {
				if op&(1<<i) == 0 {
					continue
				}
				if len(delta) == 0 {
					return 0, short
				}
				arg[i], delta = delta[0], delta[1:]
			}
			at := uint64(binary.LittleEndian.Uint32(arg[:4]))
			length := uint64(arg[4]) | uint64(arg[5])<<8 | uint64(arg[6])<<16
			if length == 0 {
				length = 0x10000
			}
			if at > base || length > base-at {
				return 0, errors.New("the delta copies what the base does not have")
			}
			if made += length; made > deltaMost {
				return 0, errors.New("the delta makes more than it says")
			}
			piece(int(at), int(length))
		}
	}
	return made, nil
}

// hasher makes ids of contents, and notices forged collisions of SHA-1 as git does.
type hasher struct{ h plumbing.Hasher }

func newHasher() *hasher { return &hasher{plumbing.NewHasher(plumbing.BlobObject, 0)} }

func (h *hasher) reset(kind plumbing.ObjectType, size int64) {
	h.h.Reset()
	fmt.Fprintf(h.h, "%s %d\x00", kind, size)
}

func (h *hasher) Write(p []byte) (int, error) { return h.h.Write(p) }

func (h *hasher) id() plumbing.Hash { return h.h.Sum() }

// inflater reads entries of a pack.
type inflater struct {
	f      io.ReaderAt
	end    int64
	source *io.SectionReader
	r      *bufio.Reader
	z      io.ReadCloser
	buf    []byte
}

func newInflater(f io.ReaderAt, from, end int64) *inflater {
	s := io.NewSectionReader(f, 0, end)
	_, _ = s.Seek(from, io.SeekStart)
	return &inflater{f: f, end: end, source: s, r: bufio.NewReaderSize(s, 32<<10), buf: make([]byte, 32<<10)}
}

// pos is the place of the next byte.
func (in *inflater) pos() int64 {
	at, _ := in.source.Seek(0, io.SeekCurrent)
	return at - int64(in.r.Buffered())
}

// deltaBase names what a delta builds upon: by its place, or by its id.
type deltaBase struct {
	offset int64
	id     plumbing.Hash
}

// header reads the header of an entry.
func (in *inflater) header() (e packEntry, base deltaBase, err error) {
	e.offset = in.pos()
	b, err := in.r.ReadByte()
	if err != nil {
		return e, base, io.ErrUnexpectedEOF
	}
	e.kind, e.size = plumbing.ObjectType(b>>4&7), int64(b&15)
	for shift := 4; b&0x80 != 0; shift += 7 {
		if b, err = in.r.ReadByte(); err != nil {
			return e, base, io.ErrUnexpectedEOF
		}
		if shift > 53 {
			return e, base, errors.New("its size is no number")
		}
		e.size |= int64(b&0x7f) << shift
	}
	switch e.kind {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
	case plumbing.OFSDeltaObject:
		back := int64(0)
		for first := true; first || b&0x80 != 0; first = false {
			if b, err = in.r.ReadByte(); err != nil {
				return e, base, io.ErrUnexpectedEOF
			}
			if !first {
				back++
			}
			if back > 1<<55 {
				return e, base, errors.New("its base is no number")
			}
			back = back<<7 | int64(b&0x7f)
		}
		base.offset = e.offset - back
	case plumbing.REFDeltaObject:
		if _, err = io.ReadFull(in.r, base.id[:]); err != nil {
			return e, base, io.ErrUnexpectedEOF
		}
	default:
		return e, base, fmt.Errorf("its kind is %d", e.kind)
	}
	return e, base, nil
}

// inflate reads the content of an entry, which has size bytes.
func (in *inflater) inflate(to io.Writer, size int64) (err error) {
	if in.z == nil {
		in.z, err = zlib.NewReader(in.r)
	} else {
		err = in.z.(zlib.Resetter).Reset(in.r, nil)
	}
	if err != nil {
		return err
	}
	n, err := io.CopyBuffer(onlyWriter{to}, io.LimitReader(in.z, size+1), in.buf)
	if err == nil && n != size {
		err = fmt.Errorf("it has not the %d bytes that it says", size)
	}
	return err
}

type onlyWriter struct{ io.Writer }

// read gives the content of an entry, or the delta that it is.
func (in *inflater) read(e *packEntry) ([]byte, error) {
	// It was inflated once, to this size: it can be believed.
	if e.size > deltaMost {
		return nil, fmt.Errorf("it has %d bytes", e.size)
	}
	if _, err := in.source.Seek(e.offset, io.SeekStart); err != nil {
		return nil, err
	}
	in.r.Reset(in.source)
	if _, _, err := in.header(); err != nil {
		return nil, err
	}
	b := bytes.NewBuffer(make([]byte, 0, e.size+bytes.MinRead))
	err := in.inflate(b, e.size)
	return b.Bytes(), err
}

// write writes the index of the pack, of version 2.
func (x *indexer) write(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o440)
	if err != nil {
		return err
	}
	return errors.Join(x.encode(f), f.Close())
}
