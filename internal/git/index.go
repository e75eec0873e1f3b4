package git

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha1" // the checksum of packs
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/klauspost/compress/zlib"
)

// Bounds of a pack.
const (
	entryLeast = 9         // bytes: a header and an empty zlib stream
	deltaMost  = 512 << 20 // bytes of what is stored as a delta, or as its base; git stores no larger ones so
	chainMost  = 4095      // deltas upon deltas, as git has it
	workersMax = 4         // that resolve deltas, each holding a file and its base
	heldMost   = 64 << 20  // bytes of bases in memory at once; others are in files
	aloneAbove = 1 << 20   // bytes of an object that is not held in memory while a pack is read
)

// madeMost is how many bytes all deltas of a pack may make, beside madeTimes
// its own size: a few bytes of them can stand for more than any disk has.
var madeMost = int64(16 << 30)

const madeTimes = 256

// packEntry is one object of a pack.
type packEntry struct {
	offset, size int64 // of its header; of its content, or of the delta
	next, child  int32 // the next delta upon the same base, and the first upon this one; 0: none
	crc          uint32
	kind         plumbing.ObjectType // the kind of a delta is that of its base, once it is known
	id           plumbing.Hash
}

// indexer reads a pack while it is written to a file, and finds what is in it.
// The entries count from 1.
//
// The library's parser holds every object in memory, some of them twice, and
// believes the number of objects in the header: 32 bytes of it could end the
// daemon.
//
// Source: git's Documentation/gitformat-pack.txt.
type indexer struct {
	ctx     context.Context
	in      *arriving
	p       *packFile // the same file, to read entries again
	size    int64     // without the checksum
	entries []packEntry
	sum     plumbing.Hash // the pack's checksum
	spool   spool

	made, held atomic.Int64 // bytes that deltas made, and that are in memory
	mu         sync.Mutex
	byID       map[plumbing.Hash][]int32 // deltas whose base is named by its id, until it is found
	left       int                       // deltas that are not resolved
}

// arriving is a file that is being written.
type arriving struct {
	f    io.ReaderAt
	mu   sync.Mutex
	more *sync.Cond
	have int64 // bytes
	err  error // why no more comes; io.EOF: it is whole
	sum  plumbing.Hash
}

func newArriving(f io.ReaderAt) *arriving {
	a := &arriving{f: f}
	a.more = sync.NewCond(&a.mu)
	return a
}

// copy writes what comes from r, and ends with r.
func (a *arriving) copy(w io.Writer, r io.Reader) {
	buf := make([]byte, 64<<10)
	sum := sha1.New()
	tail := make([]byte, 0, 2*len(plumbing.Hash{})) // the last bytes are the checksum
	for {
		n, err := r.Read(buf)
		if n > 0 {
			tail = hashed(sum, tail, buf[:n])
			if _, werr := w.Write(buf[:n]); werr != nil {
				err = werr
			}
		}
		a.mu.Lock()
		a.have += int64(n)
		if err != nil {
			if a.err = err; err == io.EOF && (len(tail) < int(idLen) || !bytes.Equal(tail, sum.Sum(nil))) {
				a.sum = plumbing.ZeroHash
			} else {
				a.sum = plumbing.Hash(sum.Sum(nil))
			}
		}
		a.more.Broadcast()
		a.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// hashed adds to a sum all but the last bytes, which it gives.
func hashed(sum hash.Hash, tail, b []byte) []byte {
	keep := int(idLen)
	if len(b) >= keep {
		sum.Write(tail)
		sum.Write(b[:len(b)-keep])
		return append(tail[:0], b[len(b)-keep:]...)
	}
	tail = append(tail, b...)
	if over := len(tail) - keep; over > 0 {
		sum.Write(tail[:over])
		tail = append(tail[:0], tail[over:]...)
	}
	return tail
}

// wait waits until there are n bytes, or no more to come. It says how many
// there are.
func (a *arriving) wait(n int64) (int64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.have < n && a.err == nil {
		a.more.Wait()
	}
	if a.err != nil && a.err != io.EOF {
		return a.have, a.err
	}
	return a.have, nil
}

// all waits until it is whole.
func (a *arriving) all() (int64, error) { return a.wait(math.MaxInt64) }

// follower reads what arrives from a place on.
type follower struct {
	a  *arriving
	at int64
}

func (f *follower) Read(p []byte) (int, error) {
	have, err := f.a.wait(f.at + 1)
	if err != nil {
		return 0, err
	}
	if have <= f.at {
		return 0, io.EOF
	}
	n, err := f.a.f.ReadAt(p[:min(int64(len(p)), have-f.at)], f.at)
	f.at += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

// indexPack finds what is in a pack that arrives.
func indexPack(ctx context.Context, in *arriving, tmp string) (*indexer, error) {
	x := &indexer{ctx: ctx, in: in, byID: map[plumbing.Hash][]int32{}, spool: spool{tmp}}
	if err := x.scan(); err != nil {
		if _, failed := in.wait(0); failed != nil {
			err = failed
		}
		return nil, err
	}
	x.p = &packFile{path: "the pack", pack: in.f, size: x.size}
	return x, x.resolve()
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errPack, fmt.Sprintf(format, args...))
}

// scan goes through the pack once, and knows all but the deltas after it.
func (x *indexer) scan() error {
	head := make([]byte, packHead)
	have, err := x.in.wait(packHead + idLen)
	switch {
	case err != nil:
		return err
	case have == 0:
		return io.ErrUnexpectedEOF // who has nothing to add sends a pack of no objects
	case have < packHead+idLen:
		return bad("it is too short")
	}
	if _, err := x.in.f.ReadAt(head, 0); err != nil {
		return err
	}
	if string(head[:8]) != "PACK\x00\x00\x00\x02" {
		return bad("it is none of version 2")
	}
	count := binary.BigEndian.Uint32(head[8:])
	if count > math.MaxInt32-2 {
		return bad("it cannot have %d objects", count)
	}
	x.entries = make([]packEntry, 1, min(count, 1<<14)+1) // what it says is not believed
	s := newScanner(x)
	defer s.stop()
	for n := int32(1); n <= int32(count); n++ {
		if n%1024 == 0 && x.ctx.Err() != nil {
			return x.ctx.Err()
		}
		if err := s.entry(n); err != nil {
			if _, failed := x.in.wait(0); failed != nil {
				return failed
			}
			return bad("object %d: %v", n, err)
		}
	}
	s.stop()
	have, err = x.in.all()
	switch {
	case err != nil:
		return err
	case have < s.at+idLen:
		return bad("it is cut short")
	case have > s.at+idLen:
		return bad("it has more than its objects")
	case x.in.sum.IsZero():
		return bad("its checksum is another")
	}
	x.size, x.sum = s.at, x.in.sum
	return nil
}

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

// at finds the entry that begins at a place.
func (x *indexer) at(offset int64) (int32, bool) {
	n, ok := slices.BinarySearchFunc(x.entries[1:], offset, func(e packEntry, offset int64) int { return cmp.Compare(e.offset, offset) })
	return int32(n + 1), ok
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
	return x.roots(roots)
}

// roots resolves all that builds upon some objects.
func (x *indexer) roots(list []int32) error {
	var next sync.Mutex
	var failed error
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), workersMax, len(list)) {
		wg.Go(func() {
			r := &resolver{x: x, sums: newHasher()}
			for {
				next.Lock()
				if failed != nil || len(list) == 0 {
					next.Unlock()
					return
				}
				root := list[0]
				list = list[1:]
				next.Unlock()
				if err := r.root(root); err != nil {
					next.Lock()
					failed = err
					next.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	return failed
}

// missing are the bases that are not in the pack, in order.
func (x *indexer) missing() []plumbing.Hash {
	list := make([]plumbing.Hash, 0, len(x.byID))
	for id := range x.byID {
		list = append(list, id)
	}
	slices.SortFunc(list, func(a, b plumbing.Hash) int { return bytes.Compare(a[:], b[:]) })
	return list
}

// unresolved is the error of deltas whose bases are nowhere.
func (x *indexer) unresolved() error {
	if x.left == 0 {
		return nil
	}
	return bad("%d deltas build upon what is not in it", x.left)
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
	return body{mem: b, size: e.size}, r.r.inflate(r.x.p, e, head, b)
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
		if err := r.r.inflate(x.p, e, head, r.r.delta); err != nil {
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

// hasher makes ids of contents, and notices forged collisions of SHA-1 as git does.
type hasher struct{ h plumbing.Hasher }

func newHasher() *hasher { return &hasher{plumbing.NewHasher(plumbing.BlobObject, 0)} }

func (h *hasher) reset(kind plumbing.ObjectType, size int64) {
	h.h.Reset()
	fmt.Fprintf(h.h, "%s %d\x00", kind, size)
}

func (h *hasher) Write(p []byte) (int, error) { return h.h.Write(p) }

func (h *hasher) id() plumbing.Hash { return h.h.Sum() }

// write writes the index of the pack, of version 2.
func (x *indexer) write(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o440)
	if err != nil {
		return err
	}
	return errors.Join(x.encode(f), f.Sync(), f.Close())
}
