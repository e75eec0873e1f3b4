package git

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
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

// standing is where an object stands in the trees, and among its deltas.
type standing struct {
	name, path uint32 // a sum that is near for like names, and one that is another for each path
	turn       int32  // how many are newer; 0: it is in no tree that was read
	kind       plumbing.ObjectType
	height     int32 // deltas upon deltas upon it
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

// names finds out what the objects are called, and how old they are.
func (s *searcher) names() error {
	type commit struct {
		i    int32
		tree plumbing.Hash
		time int64
	}
	var commits []commit
	byPack := make([]int32, 0, len(s.done))
	for i := range s.done {
		if s.done[i].kind == plumbing.CommitObject {
			byPack = append(byPack, int32(i))
		}
	}
	// The small packs come first, and are the new ones.
	slices.SortStableFunc(byPack, func(a, b int32) int {
		return cmp.Compare(s.all[s.done[a].choice].pack, s.all[s.done[b].choice].pack)
	})
	for _, i := range byPack {
		if s.spent > nameWorkMost || s.hurry() {
			break
		}
		kind, b, err := s.content(i, s.buf, searchAbove)
		if errors.Is(err, errLarge) || err == nil && kind != plumbing.CommitObject {
			continue
		}
		if err != nil {
			return err
		}
		s.buf = b
		if tree, time, ok := commitHead(b); ok {
			commits = append(commits, commit{i, tree, time})
		}
	}
	s.spent = 0
	slices.SortStableFunc(commits, func(a, b commit) int { return cmp.Compare(b.time, a.time) })
	for _, c := range commits {
		s.see(c.i, standing{kind: plumbing.CommitObject})
		if root, ok := s.object(c.tree); ok {
			if err := s.tree(root); err != nil {
				return err
			}
		}
	}
	return nil
}

// commitHead reads a commit's tree, and when it was made, in seconds.
func commitHead(b []byte) (tree plumbing.Hash, time int64, ok bool) {
	p, ok := bytes.CutPrefix(b, []byte("tree "))
	if !ok || len(p) < 2*len(tree) || !plumbing.IsHash(string(p[:2*len(tree)])) {
		return tree, 0, false
	}
	tree = plumbing.NewHash(string(p[:2*len(tree)]))
	head, _, _ := bytes.Cut(p, []byte("\n\n"))
	_, who, _ := bytes.Cut(head, []byte("\ncommitter "))
	who, _, _ = bytes.Cut(who, []byte("\n"))
	if _, err := fmt.Sscan(string(who[bytes.LastIndexByte(who, '>')+1:]), &time); err != nil {
		time = 0
	}
	return tree, time, true
}

// see notes where an object stands, unless it was seen before.
func (s *searcher) see(i int32, at standing) bool {
	if s.info[i].turn > 0 {
		return false
	}
	s.turns++
	at.turn = s.turns
	s.info[i] = at
	return true
}

// tree reads what is below a tree that nothing is above of.
func (s *searcher) tree(root int32) error {
	if !s.see(root, standing{kind: plumbing.TreeObject, path: pathStart}) {
		return nil
	}
	todo := []int32{root}
	for len(todo) > 0 && s.spent <= nameWorkMost && !s.hurry() {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		kind, b, err := s.content(i, s.buf, searchAbove)
		if errors.Is(err, errLarge) || err == nil && kind != plumbing.TreeObject {
			continue
		}
		if err != nil {
			return err
		}
		s.buf = b
		list, err := parseTree(b)
		if err != nil {
			continue // it is as it was pushed
		}
		for _, e := range list {
			child, ok := s.object(e.hash)
			if !ok || e.mode == filemode.Submodule {
				continue
			}
			kind := plumbing.BlobObject
			if e.mode == filemode.Dir {
				kind = plumbing.TreeObject
			}
			if s.see(child, s.info[i].below(kind, e.name)) && kind == plumbing.TreeObject {
				todo = append(todo, child)
			}
		}
	}
	return nil
}

const pathStart = 2166136261 // of FNV-1

// below is where an entry of a directory stands. The end of a path counts the
// most in the sum of its name, so that files of one name in many directories,
// and those with one ending, stand together.
//
// Source: git's pack_name_hash (pack-objects.h).
func (d standing) below(kind plumbing.ObjectType, name string) standing {
	next := standing{name: d.name, path: d.path, kind: kind}
	for _, c := range []byte("/" + name) {
		next.path = (next.path ^ uint32(c)) * 16777619
		if c > ' ' && (c != '/' || d.path != pathStart) {
			next.name = next.name>>2 + uint32(c)<<24
		}
	}
	return next
}

// list is what is searched, in the order in which like stands beside like.
func (s *searcher) list() (list []int32) {
	for i := range s.info {
		if d := &s.info[i]; d.turn > 0 && d.kind != plumbing.CommitObject {
			list = append(list, int32(i))
		}
	}
	slices.SortFunc(list, func(a, b int32) int {
		return cmp.Or(s.info[a].compare(s.info[b]), cmp.Compare(s.info[a].turn, s.info[b].turn))
	})
	return list
}

// compare puts trees before files, and like names beside each other.
func (d standing) compare(other standing) int {
	return cmp.Or(cmp.Compare(d.kind, other.kind), cmp.Compare(d.name, other.name), cmp.Compare(d.path, other.path))
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

// neighbor is an object that others are held against.
type neighbor struct {
	i             int32
	kind          plumbing.ObjectType
	content       []byte
	index         deltaIndex
	read, indexed bool
	gone          bool // it is in the window no more
	bytes         int
}

func (s *searcher) neighbor(i int32) *neighbor {
	c := &neighbor{}
	if n := len(s.free); n > 0 {
		c, s.free = s.free[n-1], s.free[:n-1]
	}
	*c = neighbor{i: i, content: c.content, index: c.index}
	return c
}

// forget empties the window.
func (s *searcher) forget() {
	for _, list := range []*[]*neighbor{&s.window, &s.roots} {
		for len(*list) > 0 {
			s.shift(list)
		}
	}
}

// shift takes the first out of a list.
func (s *searcher) shift(list *[]*neighbor) {
	s.drop((*list)[0])
	*list = append((*list)[:0], (*list)[1:]...)
}

func (s *searcher) drop(c *neighbor) {
	const most = 256 << 10 // bytes that are kept for the next one
	s.held -= c.bytes
	c.gone = true
	if cap(c.content)+c.index.bytes() <= most {
		s.free = append(s.free, c)
	}
}

// push adds a neighbor to the window, and takes out what has no place in it.
func (s *searcher) push(c *neighbor) {
	s.window = append(s.window, c)
	if len(s.window) <= windowMost {
		return
	}
	if old := s.window[0]; s.done[old.i].base < 0 {
		s.window = append(s.window[:0], s.window[1:]...)
		s.roots = append(s.roots, old)
	} else {
		s.shift(&s.window)
	}
	if len(s.roots) > windowRoots {
		s.shift(&s.roots)
	}
}

// hold counts what a neighbor takes. Of the others, the oldest go when that is
// too much.
func (s *searcher) hold(c *neighbor) {
	now := cap(c.content) + c.index.bytes()
	s.held += now - c.bytes
	c.bytes = now
	for _, list := range []*[]*neighbor{&s.roots, &s.window} {
		for s.held > windowBytes && len(*list) > 0 && (*list)[0] != c {
			s.shift(list)
		}
	}
}

// read reads what a neighbor has. Not ok: it is not what it was taken for, or
// too large.
func (s *searcher) read(c *neighbor) (ok bool, err error) {
	if c.read {
		return c.kind == s.info[c.i].kind, nil
	}
	kind, b, err := s.content(c.i, c.content, searchAbove)
	if err != nil && !errors.Is(err, errLarge) {
		return false, err
	}
	c.read = true
	if err != nil {
		return false, nil // and no kind: it is none that is looked for
	}
	c.kind, c.content = kind, b
	s.hold(c)
	return kind == s.info[c.i].kind, nil
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
	best, depthBest := int32(-1), 1
	s.best = s.best[:0]
	for _, list := range [][]*neighbor{slices.Clone(s.window), slices.Clone(s.roots)} {
		for _, b := range slices.Backward(list) {
			depth, ok := s.depth(b.i, c.i)
			if b.gone || !ok || depth+1+int(s.info[c.i].height) > searchDepth || s.tried(b.i, c.i) {
				continue
			}
			// What is read in fewer steps may be a little longer.
			limit := most * (searchDepth - depth) / (searchDepth - depthBest + 1)
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
