package git

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// Every fetch brings a pack, and whoever opens the mirror opens them all: after
// a year of pushes that would take longer than the fetch. So packs are made one
// when there are many, the small ones often and the large ones seldom.
const (
	mergeObjects = 1 << 19 // objects that are looked at at a time; larger packs stay as they are
	mergeDepth   = 50      // deltas upon deltas, where there is a choice; git's own is the same
	shallowMost  = 1000    // shallow commits, of which servers are told at each fetch
)

// packsMost is how many packs there are before some are made one.
var packsMost = 20

// A push of a large file can be as large as all that is there: packs are made
// one as well when those that were not searched have more than a part of what
// the others have. What is written for that is a few times what was fetched.
const (
	heavyPart  = 4
	heavyLeast = 64 << 10 // bytes that are little anyway
)

// crowded says whether there are many packs, or much in them that may become
// deltas. The lock is held.
func (m *Mirror) crowded() bool {
	files, err := filepath.Glob(filepath.Join(m.dir, "objects", "pack", "*.pack"))
	if err != nil {
		return false
	}
	sizes := map[string]int64{}
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			sizes[strings.TrimSuffix(f, ".pack")] = st.Size()
		}
	}
	return len(files) > packsMost || m.heavy(sizes)
}

// heavy says whether there is much in packs that may become deltas. The largest
// pack does not count: what is fetched first is packed well.
func (m *Mirror) heavy(sizes map[string]int64) bool {
	all, fresh, largest := int64(0), int64(0), int64(0)
	for path, size := range sizes {
		all += size
		if !m.searched[path] && path != m.unfinished.path {
			fresh += size
			largest = max(largest, size)
		}
	}
	if largest > 0 && largest == slices.Max(slices.Collect(maps.Values(sizes))) {
		fresh -= largest
	}
	return fresh > heavyLeast && fresh > (all-fresh)/heavyPart
}

// tidy makes one pack of some. The lock is held; who reads from the old ones
// goes on.
func (m *Mirror) tidy(ctx context.Context) error {
	list, lost, err := openPacks(m.dir, math.MaxInt)
	defer func() { closePacks(list) }()
	if err = errors.Join(err, lost); err != nil {
		return m.doubt(err)
	}
	searched, sizes := map[string]bool{}, map[string]int64{}
	for _, p := range list {
		if p.searched = m.searched[p.path]; p.searched {
			searched[p.path] = true
		}
		sizes[p.path] = p.size
	}
	m.searched = searched
	if chosen := geometric(list, m.heavy(sizes)); len(chosen) > 1 {
		p, err := m.join(ctx, chosen, standing{})
		if err != nil {
			return m.doubt(err)
		}
		list = append(list, p)
		if m.unfinished.path == p.path {
			return nil
		}
	}
	// What there was no time for the last time.
	i := slices.IndexFunc(list, func(p *packFile) bool { return p.path == m.unfinished.path })
	if i < 0 || m.awaited() {
		return nil
	}
	p, err := m.join(ctx, list[i:i+1], m.unfinished.from)
	if err == nil {
		list = append(list, p)
	}
	return m.doubt(err)
}

// join makes one pack of some, and gives it. Deltas are searched from a place
// on.
func (m *Mirror) join(ctx context.Context, chosen []*packFile, from standing) (*packFile, error) {
	name := ""
	var left *standing
	err := keep(m.dir, func(f *os.File) (x *indexer, err error) {
		x, left, err = merge(ctx, f, chosen, searching{tmp: filepath.Dir(f.Name()), from: from, awaited: m.awaited})
		if err == nil {
			name = packName(m.dir, x)
		}
		return x, err
	})
	if err != nil {
		return nil, err
	}
	m.renewed.Add(1)
	for _, p := range chosen {
		if p.path == m.unfinished.path {
			m.unfinished = unfinished{}
		}
		if p.path == name {
			continue
		}
		// The pack first: an index without one counts for nothing.
		if err := errors.Join(os.Remove(p.path+".pack"), os.Remove(p.path+".idx")); err != nil {
			return nil, err
		}
	}
	if left == nil {
		m.searched[name] = true
	} else {
		m.unfinished = unfinished{name, *left}
	}
	return openPack(name)
}

// unfinished is a pack in which deltas were not searched from a place on.
type unfinished struct {
	path string // without its ending
	from standing
}

// doubt has a mirror fetched anew the next time when it is damaged.
func (m *Mirror) doubt(err error) error {
	if errors.Is(err, errDamaged) {
		m.suspect.Store(true)
	}
	return err
}

// geometric chooses packs to be made one, so that each of the others is at
// least twice as large as all smaller ones together. What is written again by
// that grows with the logarithm of the number of fetches. Or it chooses all that
// there may be in one.
//
// Source: git's repack --geometric=2.
func geometric(list []*packFile, all bool) []*packFile {
	list = slices.DeleteFunc(slices.Clone(list), func(p *packFile) bool { return p.n > mergeObjects })
	slices.SortFunc(list, func(a, b *packFile) int { return cmp.Compare(a.size, b.size) })
	n, bytes, objects := 0, int64(0), int64(0)
	for i, p := range list {
		if objects += p.n; objects > mergeObjects {
			break
		}
		if all || p.size < 2*bytes {
			n = i + 1
		}
		bytes += p.size
	}
	return list[:n]
}

// stored is one way in which an object is stored.
type stored struct {
	id, base plumbing.Hash // base is zero when it is no delta
	pack     int32
	head     int32 // bytes
	from, to int64
	size     int64
	kind     plumbing.ObjectType
	crc      uint32
}

// merger makes one pack of several. What is compressed is copied as it is, and
// a delta stays one: its base is in the same pack, and so among the objects.
// What is none may become one.
type merger struct {
	ctx   context.Context
	packs []*packFile
	all   []stored // by id, and of one id the shortest first
	first []int32  // of each object, in all
	done  []merged // of each object
	steps int
	p     *packer
	buf   []byte
}

// merged is what becomes of an object.
type merged struct {
	choice int32 // in all; -1: none yet
	found  int32 // in all, of a delta that was found; 0: none
	base   int32 // what it builds upon; -1: nothing
	depth  int32 // deltas upon deltas, as it was chosen
	offset int64 // in the new pack; 0: it is not written
	kind   plumbing.ObjectType
	busy   bool // it is being chosen
}

// merge writes one pack of several. left is where deltas were not searched yet;
// nil: all were.
func merge(ctx context.Context, f io.Writer, list []*packFile, how searching) (x *indexer, left *standing, err error) {
	m, err := newMerger(ctx, list)
	if err != nil {
		return nil, nil, err
	}
	s := newSearcher(m, how)
	defer s.close()
	if left, err = s.search(); err != nil {
		return nil, nil, err
	}
	if m.p, err = newPacker(f, len(m.done)); err != nil {
		return nil, nil, err
	}
	for _, i := range s.order() {
		if err := m.write(i); err != nil {
			return nil, nil, err
		}
	}
	x, err = m.p.end()
	return x, left, err
}

// newMerger reads what packs have, and chooses how each object is stored.
func newMerger(ctx context.Context, list []*packFile) (*merger, error) {
	m := &merger{ctx: ctx, packs: list, buf: make([]byte, 64<<10)}
	for i := range list {
		if err := m.load(int32(i)); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(m.all, func(a, b stored) int {
		return cmp.Or(bytes.Compare(a.id[:], b.id[:]), cmp.Compare(a.to-a.from, b.to-b.from), cmp.Compare(a.pack, b.pack))
	})
	for i := range m.all {
		if i == 0 || m.all[i].id != m.all[i-1].id {
			m.first = append(m.first, int32(i))
		}
	}
	m.done = make([]merged, len(m.first))
	for i := range m.done {
		m.done[i].choice, m.done[i].base = -1, -1
	}
	for i := range m.done {
		if _, ok := m.choose(int32(i)); !ok {
			return nil, fmt.Errorf("the packs build upon each other in too many ways")
		}
	}
	return m, nil
}

// load reads what a pack has.
func (m *merger) load(pack int32) error {
	p := m.packs[pack]
	ids, rest := make([]byte, p.n*idLen), make([]byte, p.n*4)
	if _, err := p.idx.ReadAt(ids, idxHead); err != nil {
		return p.bad(err)
	}
	if _, err := p.idx.ReadAt(rest, idxHead+p.n*idLen); err != nil {
		return p.bad(err)
	}
	list := make([]stored, p.n)
	for i := range list {
		at, err := p.offset(int64(i))
		if err != nil {
			return err
		}
		list[i] = stored{id: plumbing.Hash(ids[int64(i)*idLen:]), pack: pack, from: at, crc: binary.BigEndian.Uint32(rest[4*i:])}
	}
	slices.SortFunc(list, func(a, b stored) int { return cmp.Compare(a.from, b.from) })
	r := &entryReader{}
	for i := range list {
		s := &list[i]
		if s.to = p.size; i+1 < len(list) {
			s.to = list[i+1].from
		}
		e, base, n, err := r.head(p, s.from, headMost)
		if err != nil || s.from+int64(n) > s.to {
			return p.bad(fmt.Errorf("object %s: %w", s.id, cmp.Or(err, errShort)))
		}
		s.head, s.size, s.kind = int32(n), e.size, e.kind
		switch e.kind {
		case plumbing.OFSDeltaObject:
			at, ok := slices.BinarySearchFunc(list, base.offset, func(s stored, at int64) int { return cmp.Compare(s.from, at) })
			if !ok {
				return p.bad(errors.New("a delta upon nothing"))
			}
			s.base = list[at].id
		case plumbing.REFDeltaObject:
			s.base = base.id
		}
	}
	m.all = append(m.all, list...)
	return nil
}

// object finds an object by its id.
func (m *merger) object(id plumbing.Hash) (int32, bool) {
	i, ok := slices.BinarySearchFunc(m.first, id, func(at int32, id plumbing.Hash) int { return bytes.Compare(m.all[at].id[:], id[:]) })
	return int32(i), ok
}

// ways are the places in all of what is one object.
func (m *merger) ways(i int32) (from, to int32) {
	from, to = m.first[i], int32(len(m.all))
	if int(i)+1 < len(m.first) {
		to = m.first[i+1]
	}
	return from, to
}

// choose chooses how an object is stored: as short as can be, but not upon
// itself, and not at the end of a long chain. Not ok: all ways lead to objects
// that are being chosen.
func (m *merger) choose(i int32) (depth int32, ok bool) {
	d := &m.done[i]
	if d.choice >= 0 {
		return d.depth, true
	}
	const stepsEach = 50
	if m.steps++; d.busy || m.steps > stepsEach*len(m.all) {
		return 0, false
	}
	d.busy = true
	defer func() { d.busy = false }()
	from, to := m.ways(i)
	long := merged{choice: -1}
	for at := from; at < to; at++ {
		s := &m.all[at]
		if s.base.IsZero() {
			d.choice, d.kind = at, s.kind
			return 0, true
		}
		base, ok := m.object(s.base)
		if !ok {
			continue
		}
		depth, ok := m.choose(base)
		if !ok {
			continue
		}
		next := merged{choice: at, base: base, depth: depth + 1, kind: m.done[base].kind}
		if next.depth <= mergeDepth {
			*d = next
			return d.depth, true
		}
		if long.choice < 0 {
			long = next
		}
	}
	if long.choice < 0 {
		return 0, false
	}
	*d = long
	return d.depth, true
}

// stored is how an object is stored in the end.
func (m *merger) stored(i int32) *stored {
	if d := &m.done[i]; d.found > 0 {
		return &m.all[d.found]
	}
	return &m.all[m.done[i].choice]
}

// write writes an object, after those that it builds upon.
func (m *merger) write(i int32) error {
	var todo []int32
	for ; i >= 0 && m.done[i].offset == 0; i = m.done[i].base {
		todo = append(todo, i)
	}
	for _, i := range slices.Backward(todo) {
		if err := m.copy(i); err != nil {
			return err
		}
	}
	return m.ctx.Err()
}

// copy copies an object. The header of a delta is written anew: its base is at
// another place.
func (m *merger) copy(i int32) error {
	d := &m.done[i]
	s := m.stored(i)
	p := m.packs[s.pack]
	kind, back := s.kind, int64(0)
	if d.base >= 0 {
		kind, back = plumbing.OFSDeltaObject, m.p.at-m.done[d.base].offset
	}
	d.offset = m.p.at
	m.p.crc = 0
	if _, err := (counted{m.p}).Write(appendHead(nil, kind, s.size, back)); err != nil {
		return err
	}
	// What it was when it was written is held against what it is now.
	sum := crc32.NewIEEE()
	if _, err := io.CopyBuffer(onlyWriter{sum}, io.NewSectionReader(p.pack, s.from, int64(s.head)), m.buf); err != nil {
		return p.bad(err)
	}
	from := io.TeeReader(io.NewSectionReader(p.pack, s.from+int64(s.head), s.to-s.from-int64(s.head)), sum)
	n, err := io.CopyBuffer(onlyWriter{counted{m.p}}, from, m.buf)
	if err != nil {
		return err
	}
	if n != s.to-s.from-int64(s.head) || sum.Sum32() != s.crc {
		return p.bad(fmt.Errorf("object %s has another content", s.id))
	}
	m.p.index.entries = append(m.p.index.entries, packEntry{offset: d.offset, size: s.size, kind: kind, id: s.id, crc: m.p.crc})
	return nil
}

// appendHead adds the header of an entry: back is how far before it the base of
// a delta is.
func appendHead(b []byte, kind plumbing.ObjectType, size, back int64) []byte {
	b = append(b, byte(kind)<<4|byte(size&15))
	for size >>= 4; size > 0; size >>= 7 {
		b[len(b)-1] |= 0x80
		b = append(b, byte(size&0x7f))
	}
	if kind != plumbing.OFSDeltaObject {
		return b
	}
	var list [10]byte
	n := len(list) - 1
	list[n] = byte(back & 0x7f)
	for back >>= 7; back > 0; back >>= 7 {
		back--
		n--
		list[n] = 0x80 | byte(back&0x7f)
	}
	return append(b, list[n:]...)
}
