package git

import (
	"bytes"
	"cmp"
	"context" // the checksum of packs
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/go-git/go-git/v5/plumbing"
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
