package git

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync/atomic"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/klauspost/compress/zlib"
)

// memoryMost is how large, in bytes, what is made of deltas may be in memory.
// What is larger goes through files.
var memoryMost = int64(16 << 20)

// packFile is a pack with its index. Both are open: whoever has them reads on
// when they are removed. They are read and not mapped: a file that gets shorter
// would end the process.
type packFile struct {
	path   string // without its ending
	pack   io.ReaderAt
	idx    io.ReaderAt
	open   []io.Closer
	size   int64 // of the pack, without its checksum
	n, far int64 // objects, and offsets that need more than 31 bits
	fan    [256]uint32

	searched bool // for deltas among what it has

	asked atomic.Int64                 // how often it was looked into
	mem   atomic.Pointer[bytes.Reader] // the index, when that was often
}

// An index that is looked into often is read at once.
const (
	askedOften = 256
	indexMost  = 8 << 20 // bytes
)

// index gives the index to look into.
func (p *packFile) index() io.ReaderAt {
	if r := p.mem.Load(); r != nil {
		return r
	}
	if size := idxLeast + p.n*(idLen+8) + p.far*8; p.asked.Add(1) == askedOften && size <= indexMost {
		b := make([]byte, size)
		if _, err := p.idx.ReadAt(b, 0); err == nil {
			p.mem.Store(bytes.NewReader(b))
		}
	}
	return p.idx
}

const (
	idLen    = int64(len(plumbing.Hash{}))
	packHead = 12           // bytes
	idxHead  = 8 + 256*4    // magic, version, fan-out
	idxLeast = idxHead + 40 // with two checksums
)

// openPack opens a pack. An error is [errDamaged], or that one of the files is
// not there.
func openPack(path string) (*packFile, error) {
	p := &packFile{path: path}
	if err := p.load(); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *packFile) load() error {
	path := p.path
	idx, err := os.Open(path + ".idx")
	if err != nil {
		return err
	}
	p.idx, p.open = idx, append(p.open, idx)
	pack, err := os.Open(path + ".pack")
	if err != nil {
		return err
	}
	p.pack, p.open = pack, append(p.open, pack)
	bad := func(what string) error {
		return fmt.Errorf("%w: %s: %s", errDamaged, filepath.Base(path), what)
	}
	st, err := pack.Stat()
	if err != nil {
		return err
	}
	if p.size = st.Size() - idLen; p.size < packHead {
		return bad("the pack is cut short")
	}
	if st, err = idx.Stat(); err != nil {
		return err
	}
	head := make([]byte, idxHead)
	if st.Size() < idxLeast {
		return bad("the index is cut short")
	}
	if _, err := p.idx.ReadAt(head, 0); err != nil {
		return bad("the index cannot be read")
	}
	if string(head[:8]) != "\xfftOc\x00\x00\x00\x02" {
		return bad("the index is none of version 2")
	}
	last := uint32(0)
	for i := range p.fan {
		n := binary.BigEndian.Uint32(head[8+4*i:])
		if n < last {
			return bad("the index is not in order")
		}
		p.fan[i], last = n, n
	}
	p.n = int64(last)
	p.far = (st.Size() - idxLeast - p.n*(idLen+8)) / 8
	if p.n > p.size/entryLeast || p.far < 0 || p.far > p.n || st.Size() != idxLeast+p.n*(idLen+8)+p.far*8 {
		return bad("the index has another size than it says")
	}
	var ofPack, ofIdx [idLen]byte
	if _, err := p.pack.ReadAt(ofPack[:], p.size); err != nil {
		return bad("the pack cannot be read")
	}
	if _, err := p.idx.ReadAt(ofIdx[:], st.Size()-2*idLen); err != nil {
		return bad("the index cannot be read")
	}
	if ofPack != ofIdx {
		return bad("the index is that of another pack")
	}
	return nil
}

func (p *packFile) close() {
	for _, f := range p.open {
		_ = f.Close()
	}
}

// find gives where an object is in the pack.
func (p *packFile) find(id plumbing.Hash) (offset int64, ok bool, err error) {
	const little = 32 // ids that are read at once
	idx := p.index()
	low, high := int64(0), int64(p.fan[id[0]])
	if id[0] > 0 {
		low = int64(p.fan[id[0]-1])
	}
	var buf [little * idLen]byte
	for high-low > little {
		mid := (low + high) / 2
		if _, err := idx.ReadAt(buf[:idLen], idxHead+mid*idLen); err != nil {
			return 0, false, p.bad(err)
		}
		if bytes.Compare(buf[:idLen], id[:]) <= 0 {
			low = mid
		} else {
			high = mid
		}
	}
	list := buf[:(high-low)*idLen]
	if _, err := idx.ReadAt(list, idxHead+low*idLen); err != nil {
		return 0, false, p.bad(err)
	}
	for ; len(list) > 0; list, low = list[idLen:], low+1 {
		if bytes.Equal(list[:idLen], id[:]) {
			offset, err = p.offset(low)
			return offset, err == nil, err
		}
	}
	return 0, false, nil
}

// beside gives the ids that stand next to an id in the index, or to its place
// there: no others begin with more of it.
func (p *packFile) beside(id plumbing.Hash) (list []plumbing.Hash, err error) {
	at := func(n int64) (h plumbing.Hash) {
		if err == nil {
			_, err = p.idx.ReadAt(h[:], idxHead+n*idLen)
		}
		return h
	}
	first := int64(sort.Search(int(p.n), func(n int) bool {
		h := at(int64(n))
		return bytes.Compare(h[:], id[:]) >= 0
	}))
	for n := max(first-1, 0); n < min(first+2, p.n); n++ {
		if h := at(n); h != id {
			list = append(list, h)
		}
	}
	if err != nil {
		return nil, p.bad(err)
	}
	return list, nil
}

// offset gives where the object is that is the nth of the index.
func (p *packFile) offset(n int64) (int64, error) {
	var b [8]byte
	idx := p.index()
	if _, err := idx.ReadAt(b[:4], idxHead+p.n*(idLen+4)+n*4); err != nil {
		return 0, p.bad(err)
	}
	at := int64(binary.BigEndian.Uint32(b[:4]))
	if at&(1<<31) != 0 {
		n := at &^ (1 << 31)
		if n >= p.far {
			return 0, p.bad(errors.New("an offset is missing"))
		}
		if _, err := idx.ReadAt(b[:], idxHead+p.n*(idLen+8)+n*8); err != nil {
			return 0, p.bad(err)
		}
		at = int64(binary.BigEndian.Uint64(b[:]))
	}
	if at < packHead || at > p.size-entryLeast {
		return 0, p.bad(errors.New("an offset leads out of it"))
	}
	return at, nil
}

func (p *packFile) bad(err error) error {
	return fmt.Errorf("%w: %s: %w", errDamaged, filepath.Base(p.path), err)
}

// openPacks opens the packs of a repository, but no more than most. lost is why
// some of them could not be: what is in the others can be read.
func openPacks(dir string, most int) (list []*packFile, lost, err error) {
	// Between the list and the opening, packs may have been made one.
	for try := 1; ; try++ {
		const tries = 3
		if list, lost, err = openListed(dir, most); !errors.Is(lost, os.ErrNotExist) || try == tries {
			return list, lost, err
		}
		closePacks(list)
	}
}

func openListed(dir string, most int) (list []*packFile, lost, err error) {
	paths, err := filepath.Glob(filepath.Join(dir, "objects", "pack", "*.pack"))
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(paths)
	for _, path := range paths {
		p, err := openPack(strings.TrimSuffix(path, ".pack"))
		switch {
		case err == nil:
			list = append(list, p)
		case errors.Is(err, errDamaged):
			lost = err
		default:
			lost = fmt.Errorf("%w: %w", errDamaged, err)
		}
		if len(list) == most {
			break
		}
	}
	return list, lost, nil
}

func closePacks(list []*packFile) {
	for _, p := range list {
		p.close()
	}
}

// deltaBase names what a delta builds upon: by its place, or by its id.
type deltaBase struct {
	offset int64
	id     plumbing.Hash
}

// headMost is the longest header of an entry, in bytes.
const headMost = 32

// entryHead reads the header of the entry at offset, of which b is the
// beginning, and says how long it is.
func entryHead(b []byte, offset int64) (e packEntry, base deltaBase, n int, err error) {
	if len(b) == 0 {
		return e, base, 0, io.ErrUnexpectedEOF
	}
	e.offset, e.kind, e.size = offset, plumbing.ObjectType(b[0]>>4&7), int64(b[0]&15)
	n = 1
	for shift := 4; b[n-1]&0x80 != 0; shift += 7 {
		if n == len(b) {
			return e, base, n, io.ErrUnexpectedEOF
		}
		if shift > 53 {
			return e, base, n, errors.New("its size is no number")
		}
		e.size |= int64(b[n]&0x7f) << shift
		n++
	}
	switch e.kind {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
	case plumbing.OFSDeltaObject:
		back := int64(0)
		for first := true; first || b[n-1]&0x80 != 0; first = false {
			if n == len(b) {
				return e, base, n, io.ErrUnexpectedEOF
			}
			if !first {
				back++
			}
			if back > 1<<55 {
				return e, base, n, errors.New("its base is no number")
			}
			back = back<<7 | int64(b[n]&0x7f)
			n++
		}
		base.offset = offset - back
		if back == 0 || base.offset < packHead {
			return e, base, n, errors.New("a delta upon nothing")
		}
	case plumbing.REFDeltaObject:
		if n += copy(base.id[:], b[n:]); n > len(b) || len(b) < n || base.id.IsZero() {
			return e, base, n, io.ErrUnexpectedEOF
		}
	default:
		return e, base, n, fmt.Errorf("its kind is %d", e.kind)
	}
	return e, base, n, nil
}

// compressed is how long what zlib makes of size bytes is at most, when it is
// made in the usual way.
func compressed(size int64) int64 { return size + size>>10 + 64 }

// entryReader reads entries of packs into memory. It is for one goroutine.
type entryReader struct {
	z     zinflater
	src   []byte
	delta []byte
}

const firstRead = 4 << 10 // bytes: most entries are shorter

// head reads the header of an entry. What is read of it stays in r.src.
func (r *entryReader) head(p *packFile, offset int64, ahead int) (e packEntry, base deltaBase, n int, err error) {
	if cap(r.src) < firstRead {
		r.src = make([]byte, firstRead)
	}
	r.src = r.src[:min(int64(ahead), p.size-offset)]
	if _, err = p.pack.ReadAt(r.src, offset); err != nil {
		return e, base, 0, err
	}
	return entryHead(r.src, offset)
}

// inflate reads the content of an entry, whose header of n bytes was just read,
// and says how long it is in the pack.
func (r *entryReader) inflate(p *packFile, e packEntry, n int, dst []byte) (used int, err error) {
	n = min(n, len(r.src))
	// Most are as long as that, some are longer than they need to be.
	for most := int64(n) + compressed(e.size); ; most *= 4 {
		want := min(most, p.size-e.offset)
		if have := int64(len(r.src)); have < want {
			r.src = slices.Grow(r.src, int(want-have))[:want]
			if _, err := p.pack.ReadAt(r.src[have:], e.offset+have); err != nil {
				return 0, err
			}
		}
		if used, err = r.z.zlib(dst, r.src[n:]); !errors.Is(err, errShort) || want < most {
			return used, err
		}
	}
}

// release gives memory back that is not often needed.
func (r *entryReader) release() {
	if int64(cap(r.src)) > memoryMost/4 {
		r.src = nil
	}
	if int64(cap(r.delta)) > memoryMost/4 {
		r.delta = nil
	}
}

// sized gives b with a length, which may be another array.
func sized(b []byte, n int64) []byte {
	if int64(cap(b)) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// section reads the pack from a place on.
func (p *packFile) section(at int64) *bufio.Reader {
	return bufio.NewReaderSize(io.NewSectionReader(p.pack, at, p.size-at), 32<<10)
}

// stream inflates what is at a place of the pack.
func (p *packFile) stream(at int64) (io.ReadCloser, error) { return zlib.NewReader(p.section(at)) }
