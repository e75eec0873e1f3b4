package git

import (
	"bufio"
	"bytes"
	"cmp"
	"hash/crc32"
	"os"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/klauspost/compress/zlib"
)

// Many servers send whole objects where deltas would do. Each is held against
// those next to it in a list in which files of like names stand together, the
// newest first: what is deployed is read at once, what is old in many steps.
const (
	windowMost   = 10       // objects that one is held against; git's own
	windowRoots  = 2        // and those before them that are no deltas
	windowBytes  = 24 << 20 // of contents and indexes in memory
	searchDepth  = 200      // deltas upon deltas; they are the oldest versions, which hardly anybody reads
	searchLeast  = 50       // bytes of an object; git's own
	searchAbove  = streamAbove
	poorAbove    = 512       // bytes of a delta, compressed, that may be a poor one
	loadCost     = 2 << 10   // bytes that might be compared in the time that it takes to find an object
	nameWorkMost = 512 << 20 // bytes of commits, and of trees, that are read for names: those of 250,000 or so
)

// What is compared at a time, in bytes: up to about half a minute of it, but no
// more than a quarter of a second when somebody waits for the end. The rest is
// searched the next time.
var (
	searchWorkMost  = int64(16 << 30)
	searchWorkLeast = int64(128 << 20)
)

// searching says how deltas are searched.
type searching struct {
	tmp     string      // a directory for what is found
	from    standing    // where to begin
	awaited func() bool // whether somebody waits; nil: nobody does
}

// searcher finds deltas for the objects of a merger.
type searcher struct {
	searching
	*merger
	o     packs
	info  []standing
	turns int32
	buf   []byte

	spent   int64 // bytes that were read and compared
	hurried bool  // somebody waited

	window, roots []*neighbor // the newest last
	held          int         // bytes
	free          []*neighbor
	delta, best   []byte

	found  *bufio.Writer // where what was found is kept until it is written
	file   *os.File
	at     int64
	z      *zlib.Writer
	packed bytes.Buffer
}

func newSearcher(m *merger, how searching) *searcher {
	return &searcher{searching: how, merger: m, o: packs{tmp: how.tmp, list: m.packs}, info: make([]standing, len(m.done))}
}

// search finds deltas for what the packs hold whole. left is where it was not
// done yet; nil: all was searched.
func (s *searcher) search() (left *standing, err error) {
	list, err := s.begin()
	if err != nil {
		return nil, err
	}
	if s.hurried {
		return &standing{}, nil
	}
	first, _ := slices.BinarySearchFunc(list, s.from, func(i int32, from standing) int { return s.info[i].compare(from) })
	s.spent = 0
	for _, i := range list[first:] {
		if s.spent > searchWorkMost || s.hurry() {
			left = &s.info[i]
			break
		}
		if err := s.next(i); err != nil {
			return nil, err
		}
	}
	return left, s.found.Flush()
}

// hurry says whether it is time to end for who waits.
func (s *searcher) hurry() bool {
	s.hurried = s.hurried || s.spent > searchWorkLeast && s.awaited != nil && s.awaited()
	return s.hurried
}

// begin gives the objects that are searched, in their order.
func (s *searcher) begin() ([]int32, error) {
	if err := s.names(); err != nil {
		return nil, err
	}
	list := s.list()
	s.heights()
	var err error
	if s.file, err = (&spool{s.tmp}).file(); err != nil {
		return nil, err
	}
	s.found = bufio.NewWriterSize(s.file, 64<<10)
	s.packs = append(slices.Clone(s.packs), &packFile{path: "the deltas", pack: s.file})
	s.z, err = zlib.NewWriterLevel(&s.packed, zlib.DefaultCompression)
	return list, err
}

func (s *searcher) close() {
	if s.file != nil {
		_ = s.file.Close()
	}
}

// order is that in which objects are written: commits, which are read one after
// the other, then what is newest, and in the order of their packs what has no
// name.
func (s *searcher) order() []int32 {
	list := make([]int32, len(s.done))
	for i := range list {
		list[i] = int32(i)
	}
	rank := func(i int32) int {
		switch {
		case s.done[i].kind == plumbing.CommitObject:
			return 0
		case s.info[i].turn > 0:
			return 1
		}
		return 2
	}
	slices.SortFunc(list, func(a, b int32) int {
		x, y := &s.all[s.done[a].choice], &s.all[s.done[b].choice]
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(s.info[a].turn, s.info[b].turn), cmp.Compare(y.pack, x.pack), cmp.Compare(x.from, y.from))
	})
	return list
}

// content reads an object, of room bytes at most. [errLarge]: it has more.
func (s *searcher) content(i int32, buf []byte, room int64) (plumbing.ObjectType, []byte, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, nil, err
	}
	at := &s.all[s.done[i].choice]
	kind, b, err := s.o.load(s.packs[at.pack], at.from, buf, room)
	s.spent += loadCost + int64(len(b))
	if err != nil {
		return kind, nil, err
	}
	// A delta between others would not be that of these.
	return kind, b, newVerifier(nil, kind, int64(len(b)), at.id).all(b)
}

// heights finds out how many deltas there are upon each object.
func (s *searcher) heights() {
	order := make([]int32, len(s.done))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return cmp.Compare(s.done[b].depth, s.done[a].depth) })
	for _, i := range order {
		if base := s.done[i].base; base >= 0 {
			s.info[base].height = max(s.info[base].height, s.info[i].height+1)
		}
	}
}

// next looks for a delta for an object, if it wants one, and has others held
// against it.
func (s *searcher) next(i int32) error {
	if n := len(s.window); n > 0 && s.info[s.window[n-1].i].kind != s.info[i].kind {
		s.forget()
	}
	if at := &s.all[s.done[i].choice]; at.base.IsZero() && at.size > searchAbove {
		return nil // nor are others held against it
	}
	c := s.neighbor(i)
	if s.fresh(c) {
		if err := s.deltify(c); err != nil {
			s.drop(c)
			return err
		}
	}
	s.push(c)
	return nil
}

// tried says whether two objects were held against each other when the pack was
// made that they are in.
func (s *searcher) tried(a, b int32) bool {
	pack := s.all[s.done[a].choice].pack
	return pack == s.all[s.done[b].choice].pack && s.packs[pack].searched
}

// fresh says whether there is anything new to hold an object against.
func (s *searcher) fresh(c *neighbor) bool {
	for _, list := range [][]*neighbor{s.window, s.roots} {
		if slices.ContainsFunc(list, func(b *neighbor) bool { return !s.tried(b.i, c.i) }) {
			return true
		}
	}
	return false
}

// deltify looks for a delta for an object, if it wants one.
func (s *searcher) deltify(c *neighbor) error {
	most, err := s.most(c.i)
	if err != nil || most <= 0 {
		return err
	}
	if ok, err := s.read(c); err != nil || !ok {
		return err
	}
	return s.find(c, most)
}

// most is how many bytes a delta of an object may have; 0 or less: none is
// looked for.
func (s *searcher) most(i int32) (int, error) {
	at := &s.all[s.done[i].choice]
	made, have := at.size, at.size
	if !at.base.IsZero() {
		if at.to-at.from < poorAbove {
			return 0, nil
		}
		p := s.packs[at.pack]
		s.spent += loadCost
		var err error
		if made, err = deltaMakes(p, at.from+int64(at.head)); err != nil {
			return 0, p.bad(err)
		}
		if at.size <= made/2 {
			return 0, nil
		}
	}
	if made > searchAbove || made < searchLeast {
		return 0, nil
	}
	// Half of it, without what says that it is a delta: as git has it.
	return int(min(made/2-idLen, have)), nil
}

// find looks for the best delta for an object.
func (s *searcher) find(c *neighbor, most int) error {
	best, depthBest, any := int32(-1), 1, most
	for _, list := range [][]*neighbor{slices.Clone(s.window), slices.Clone(s.roots)} {
		for _, b := range slices.Backward(list) {
			depth, ok := s.depth(b.i, c.i)
			if b.gone || !ok || depth+1+int(s.info[c.i].height) > searchDepth || s.tried(b.i, c.i) {
				continue
			}
			// What is read in fewer steps may be a little longer.
			limit := min(most*(searchDepth-depth)/(searchDepth-depthBest+1), any)
			if ok, err := s.try(c, b, limit); err != nil {
				return err
			} else if ok {
				s.best, s.delta = s.delta, s.best
				best, depthBest, most = b.i, depth+1, len(s.best)-1
			}
		}
	}
	if best < 0 {
		return nil
	}
	return s.take(c.i, best)
}

// try looks for a delta of limit bytes at most upon a neighbor.
func (s *searcher) try(c, b *neighbor, limit int) (bool, error) {
	if ok, err := s.read(b); err != nil || !ok || b.gone || len(c.content)-len(b.content) >= limit || len(c.content) < len(b.content)/32 {
		return false, err
	}
	if !b.indexed {
		b.index.make(b.content)
		b.indexed = true
		s.hold(b)
		s.spent += int64(len(b.content))
	}
	var ok bool
	s.delta, ok = b.index.encode(s.delta, c.content, limit)
	s.spent += int64(len(c.content))
	return ok, nil
}

// depth is how many deltas an object is made of. Not ok: another is among them.
func (s *searcher) depth(i, other int32) (depth int, ok bool) {
	for ; i >= 0; i = s.done[i].base {
		if i == other {
			return 0, false
		}
		depth++
	}
	return depth - 1, true
}

// take keeps the best delta.
func (s *searcher) take(i, base int32) error {
	s.packed.Reset()
	s.z.Reset(&s.packed)
	if _, err := s.z.Write(s.best); err != nil {
		return err
	}
	if err := s.z.Close(); err != nil {
		return err
	}
	b := s.packed.Bytes()
	if _, err := s.found.Write(b); err != nil {
		return err
	}
	d := &s.done[i]
	d.found, d.base = int32(len(s.all)), base
	s.all = append(s.all, stored{
		id: s.all[d.choice].id, base: s.all[s.done[base].choice].id, pack: int32(len(s.packs) - 1),
		from: s.at, to: s.at + int64(len(b)), size: int64(len(s.best)), kind: plumbing.OFSDeltaObject, crc: crc32.ChecksumIEEE(b),
	})
	s.at += int64(len(b))
	for h := s.info[i].height + 1; base >= 0 && s.info[base].height < h; h++ {
		s.info[base].height = h
		base = s.done[base].base
	}
	return nil
}
