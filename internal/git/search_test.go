package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
)

// pushes are packs of whole objects, as a server may send them.
type pushes struct {
	t      *testing.T
	dir    string
	n      int
	parent plumbing.Hash
	have   map[plumbing.Hash]bool
	last   string // the pack, without its ending

	searched map[string]bool // packs
}

func newPushes(t *testing.T) *pushes {
	t.Helper()
	p := &pushes{t: t, dir: t.TempDir(), have: map[plumbing.Hash]bool{}}
	if _, err := (&Mirror{dir: p.dir}).openOrMake(); err != nil {
		t.Fatal(err)
	}
	return p
}

type pushed struct {
	kind    plumbing.ObjectType
	content []byte
}

// pack adds a pack of what is not there yet.
func (p *pushes) pack(list ...pushed) {
	p.t.Helper()
	list = slices.DeleteFunc(list, func(o pushed) bool { return p.have[plumbing.ComputeHash(o.kind, o.content)] })
	err := keep(p.dir, func(f *os.File) (*indexer, error) {
		w, err := newPacker(f, len(list))
		if err != nil {
			return nil, err
		}
		for _, o := range list {
			id := plumbing.ComputeHash(o.kind, o.content)
			if err := w.add(id, o.kind, int64(len(o.content)), bytes.NewReader(o.content)); err != nil {
				return nil, err
			}
			p.have[id] = true
		}
		x, err := w.end()
		if err == nil {
			p.last = packName(p.dir, x)
		}
		return x, err
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

// push adds a pack of a commit with files, all in one directory.
func (p *pushes) push(files map[string][]byte) (commit plumbing.Hash) {
	p.t.Helper()
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	var dir []byte
	var list []pushed
	for _, name := range names {
		dir = appendEntry(dir, filemode.Regular, name, plumbing.BlobObject, files[name])
		list = append(list, pushed{plumbing.BlobObject, files[name]})
	}
	root := appendEntry(nil, filemode.Dir, "dir", plumbing.TreeObject, dir)
	return p.commit(root, append(list, pushed{plumbing.TreeObject, dir}, pushed{plumbing.TreeObject, root})...)
}

func appendEntry(b []byte, mode filemode.FileMode, name string, kind plumbing.ObjectType, content []byte) []byte {
	id := plumbing.ComputeHash(kind, content)
	return append(fmt.Appendf(b, "%o %s\x00", uint32(mode), name), id[:]...)
}

// commit adds a pack of a commit of a tree, and other objects.
func (p *pushes) commit(root []byte, list ...pushed) plumbing.Hash {
	p.t.Helper()
	parent := ""
	if p.n++; p.n > 1 {
		parent = "parent " + p.parent.String() + "\n"
	}
	text := fmt.Appendf(nil, "tree %s\n%sauthor a <a@example.com> %d +0000\ncommitter a <a@example.com> %d +0000\n\npush %d\n",
		plumbing.ComputeHash(plumbing.TreeObject, root), parent, 1700000000+p.n, 1700000000+p.n, p.n)
	p.parent = plumbing.ComputeHash(plumbing.CommitObject, text)
	p.pack(append(list, pushed{plumbing.CommitObject, text})...)
	return p.parent
}

// merge makes one pack of all.
func (p *pushes) merge() error {
	list, lost, err := openPacks(p.dir, math.MaxInt)
	defer func() { closePacks(list) }()
	if err := errors.Join(err, lost); err != nil {
		return err
	}
	for _, pack := range list {
		pack.searched = p.searched[pack.path]
	}
	name := ""
	err = keep(p.dir, func(f *os.File) (*indexer, error) {
		x, _, err := merge(p.t.Context(), f, list, searching{tmp: filepath.Dir(f.Name())})
		if err == nil {
			name = packName(p.dir, x)
		}
		return x, err
	})
	if err != nil {
		return err
	}
	for _, old := range list {
		if old.path != name {
			if err := errors.Join(os.Remove(old.path+".pack"), os.Remove(old.path+".idx")); err != nil {
				return err
			}
		}
	}
	p.last, p.searched = name, map[string]bool{name: true}
	return nil
}

// size is that of all packs.
func (p *pushes) size() (sum int64) {
	p.t.Helper()
	files, err := filepath.Glob(filepath.Join(p.dir, "objects", "pack", "*.pack"))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			p.t.Fatal(err)
		}
		sum += st.Size()
	}
	return sum
}

// check has git look whether all is there and whole, and that nothing else was
// left.
func (p *pushes) check() {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, "refs", "main"), []byte(p.parent.String()+"\n"), 0o644); err != nil {
		p.t.Fatal(err)
	}
	for _, args := range [][]string{{"verify-pack", p.last + ".idx"}, {"cat-file", "--batch-all-objects", "--batch-check"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = p.dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_DIR="+p.dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			p.t.Fatalf("git %s: %v: %s", args[0], err, out)
		}
		if n := bytes.Count(out, []byte("\n")); args[0] == "cat-file" && n != len(p.have) {
			p.t.Errorf("there are %d objects, want %d", n, len(p.have))
		}
	}
	left, err := filepath.Glob(filepath.Join(p.dir, "objects", "pack", partial+"*"))
	if err != nil || len(left) > 0 {
		p.t.Errorf("%v is left over, %v", left, err)
	}
}

// noise is a content that nothing can be saved of.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func TestWholeObjectsBecomeDeltas(t *testing.T) {
	p := newPushes(t)
	rng := rand.New(rand.NewPCG(1, 2))
	files := map[string][]byte{}
	for i := range 20 {
		files[fmt.Sprintf("file%d", i)] = noise(byte(i), 4<<10)
	}
	for range 3 {
		for range 30 {
			name := fmt.Sprintf("file%d", rng.IntN(2))
			files[name] = edited(rng, files[name], 1)
			p.push(files)
		}
		before := p.size()
		if err := p.merge(); err != nil {
			t.Fatal(err)
		}
		p.check()
		// 20 files, and little for each push.
		if size := p.size(); size > 20*4<<10+int64(p.n)*500 {
			t.Errorf("%d pushes take %d bytes, %d before", p.n, size, before)
		}
	}
	// The newest version of each is at hand.
	list, lost, err := openPacks(p.dir, 1)
	defer func() { closePacks(list) }()
	if err := errors.Join(err, lost); err != nil {
		t.Fatal(err)
	}
	o := &packs{list: list}
	for name, content := range files {
		pack, at, err := o.locate(plumbing.ComputeHash(plumbing.BlobObject, content))
		if err != nil || pack == nil {
			t.Fatalf("%s: %v", name, err)
		}
		if links, err := o.chain(&entryReader{}, pack, at, nil); err != nil || len(links) > 1 {
			t.Errorf("the newest %s is made of %d deltas, %v", name, len(links)-1, err)
		}
	}
}

// What takes longer than one search goes on, at once or the next time.
func TestSearchGoesOnUntilAllIsFound(t *testing.T) {
	most, least := searchWorkMost, searchWorkLeast
	defer func() { searchWorkMost, searchWorkLeast = most, least }()
	for name, awaited := range map[string]bool{"there is much": false, "a fetch waits": true} {
		t.Run(name, func(t *testing.T) {
			p := newPushes(t)
			rng := rand.New(rand.NewPCG(1, 2))
			files := map[string][]byte{}
			for i := range 10 {
				files[fmt.Sprintf("file%d", i)] = noise(byte(i), 10<<10)
			}
			for range 6 {
				for name := range files {
					files[name] = edited(rng, files[name], 1)
				}
				p.push(files)
			}
			m := &Mirror{dir: p.dir, place: &place{}}
			done := func() {}
			searchWorkMost = 1 << 20
			if awaited {
				searchWorkMost, searchWorkLeast = most, 1<<20
				done = m.wait(p.parent)
			}
			var sizes []int64
			for len(sizes) == 0 || m.unfinished.path != "" && len(sizes) < 30 {
				if err := m.tidy(t.Context()); err != nil {
					t.Fatal(err)
				}
				done()
				done = func() {}
				sizes = append(sizes, p.size())
				p.push(files)
			}
			p.check()
			if last := sizes[len(sizes)-1]; last > 130<<10 || sizes[0] < 300<<10 {
				t.Errorf("the sizes are %d: all in one, or never done", sizes)
			}
		})
	}
}

func TestSearchIsNotMisled(t *testing.T) {
	random := noise(1, 8<<10)
	for _, tt := range []struct {
		name string
		make func(p *pushes)
	}{
		{"a tree that is called a file", func(p *pushes) {
			dir := appendEntry(nil, filemode.Regular, strings.Repeat("n", 200), plumbing.BlobObject, random)
			blob := append(bytes.Clone(dir), "more"...)
			root := appendEntry(nil, filemode.Regular, "a", plumbing.TreeObject, dir)
			root = appendEntry(root, filemode.Regular, "b", plumbing.BlobObject, blob)
			p.commit(root, pushed{plumbing.BlobObject, random}, pushed{plumbing.TreeObject, dir}, pushed{plumbing.BlobObject, blob}, pushed{plumbing.TreeObject, root})
		}},
		{"a file that is called a tree", func(p *pushes) {
			root := appendEntry(nil, filemode.Dir, "a", plumbing.BlobObject, random)
			p.commit(root, pushed{plumbing.BlobObject, random}, pushed{plumbing.TreeObject, root})
			root = appendEntry(root, filemode.Dir, "b", plumbing.TreeObject, root)
			p.commit(root, pushed{plumbing.TreeObject, root})
		}},
		{"a commit among the files", func(p *pushes) {
			commit := fmt.Appendf(nil, "tree %s\n\n", plumbing.ZeroHash)
			root := appendEntry(nil, filemode.Regular, "a", plumbing.CommitObject, commit)
			p.commit(root, pushed{plumbing.CommitObject, commit}, pushed{plumbing.TreeObject, root})
		}},
		{"a tree that is none", func(p *pushes) {
			p.commit(random, pushed{plumbing.TreeObject, random})
			p.commit(random[1:], pushed{plumbing.TreeObject, random[1:]})
		}},
		{"commits that are none", func(p *pushes) {
			p.pack(pushed{plumbing.CommitObject, nil}, pushed{plumbing.CommitObject, []byte("tree ")}, pushed{plumbing.CommitObject, random},
				pushed{plumbing.CommitObject, fmt.Appendf(nil, "tree %s\ncommitter > \n\n", plumbing.NewHash(strings.Repeat("1", 40)))})
			p.push(map[string][]byte{"a": random})
		}},
		{"empty files and trees", func(p *pushes) {
			p.push(map[string][]byte{"a": nil, "b": random})
			p.commit(nil, pushed{plumbing.TreeObject, nil})
		}},
		{"directories below each other without end", func(p *pushes) {
			dir := appendEntry(nil, filemode.Regular, "f", plumbing.BlobObject, random)
			list := []pushed{{plumbing.BlobObject, random}}
			for range 20_000 {
				list = append(list, pushed{plumbing.TreeObject, dir})
				dir = appendEntry(nil, filemode.Dir, "d", plumbing.TreeObject, dir)
			}
			p.commit(dir, append(list, pushed{plumbing.TreeObject, dir})...)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPushes(t)
			tt.make(p)
			p.push(map[string][]byte{"a": append([]byte("x"), random...)})
			if err := p.merge(); err != nil {
				t.Fatal(err)
			}
			p.check()
		})
	}
}

func TestLargeFilesAreNotSearched(t *testing.T) {
	t.Parallel()
	p := newPushes(t)
	large := noise(1, searchAbove+1)
	small := noise(2, 3<<20)
	for i := range 6 {
		large[i] ^= 1
		small[i] ^= 1
		p.push(map[string][]byte{"large": bytes.Clone(large), "small": bytes.Clone(small)})
		if i%3 != 2 {
			continue
		}
		if err := p.merge(); err != nil {
			t.Fatal(err)
		}
	}
	p.check()
	if size := p.size(); size < 6*searchAbove || size > 6*searchAbove+4<<20 {
		t.Errorf("the packs have %d bytes", size)
	}
}

// Memory is that of a small machine, whatever is searched.
func TestSearchHoldsLittle(t *testing.T) {
	t.Parallel()
	p := newPushes(t)
	for i := range 8 {
		b := noise(1, searchAbove)
		b[i] ^= 1
		p.push(map[string][]byte{"file": b})
	}
	list, lost, err := openPacks(p.dir, math.MaxInt)
	defer func() { closePacks(list) }()
	if err := errors.Join(err, lost); err != nil {
		t.Fatal(err)
	}
	m, err := newMerger(t.Context(), list)
	if err != nil {
		t.Fatal(err)
	}
	s := newSearcher(m, searching{tmp: t.TempDir()})
	defer s.close()
	objects, err := s.begin()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range objects {
		if err := s.next(i); err != nil {
			t.Fatal(err)
		}
		sum := 0
		for _, c := range slices.Concat(s.window, s.roots, s.free) {
			sum += cap(c.content) + c.index.bytes()
		}
		if sum > windowBytes+10<<20 {
			t.Errorf("%d bytes are held", sum)
		}
	}
	if s.at == 0 {
		t.Error("nothing was found")
	}
}

func TestDamageIsFoundBySearch(t *testing.T) {
	t.Parallel()
	p := newPushes(t)
	rng := rand.New(rand.NewPCG(1, 2))
	text := bytes.Repeat([]byte("some text "), 1000)
	var packs []string
	for range 4 {
		text = edited(rng, text, 3)
		p.push(map[string][]byte{"a": text})
		packs = append(packs, p.last+".pack")
	}
	b, err := os.ReadFile(packs[2])
	if err != nil {
		t.Fatal(err)
	}
	b[40] ^= 0x10
	if err := errors.Join(os.Remove(packs[2]), os.WriteFile(packs[2], b, 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := p.merge(); !errors.Is(err, errDamaged) {
		t.Errorf("a damaged pack gives %v", err)
	}
	left, err := filepath.Glob(filepath.Join(p.dir, "objects", "pack", "*"))
	if err != nil || len(left) != 2*len(packs) {
		t.Errorf("%d packs became %q, %v", len(packs), left, err)
	}
}

func TestSearchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	p := newPushes(t)
	p.push(map[string][]byte{"a": noise(1, 1000)})
	list, _, err := openPacks(p.dir, math.MaxInt)
	defer func() { closePacks(list) }()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := merge(ctx, new(bytes.Buffer), list, searching{tmp: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Errorf("a canceled merge gives %v", err)
	}
}

// What is kept in memory as the base of others is no buffer of who reads it.
func TestBasesAreNotWrittenOver(t *testing.T) {
	t.Parallel()
	p := newPushes(t)
	rng := rand.New(rand.NewPCG(1, 2))
	var list []plumbing.Hash
	text := noise(1, 10<<10)
	for range 8 {
		text = edited(rng, text, 1)
		p.push(map[string][]byte{"a": text})
		list = append(list, plumbing.ComputeHash(plumbing.BlobObject, text))
	}
	if err := p.merge(); err != nil {
		t.Fatal(err)
	}
	o, err := (&Mirror{dir: p.dir}).open()
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	for range 3 {
		for _, id := range list { // the oldest first, which builds upon the others
			if _, _, err := o.read(id); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What is fetched is at once made as small as it can be when that is much.
func TestPushesOfOneLargeFileStaySmall(t *testing.T) {
	t.Parallel()
	p := newPushes(t)
	rng := rand.New(rand.NewPCG(1, 2))
	file := noise(1, 1<<20)
	m := &Mirror{dir: p.dir, place: &place{}}
	joined := 0
	for i := range 20 {
		file = edited(rng, file, 5)
		p.push(map[string][]byte{"file": file, "other": noise(byte(i), 1000)})
		if m.crowded() {
			joined++
			if err := m.tidy(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if size := p.size(); size > 1<<20+200<<10 {
			t.Errorf("%d pushes have %d bytes", i+1, size)
		}
	}
	if joined < 19 {
		t.Errorf("packs were made one %d times", joined)
	}
	// Nothing is left to do, and none of it is done again.
	p.push(map[string][]byte{"file": []byte("small")})
	if m.crowded() {
		t.Error("a small push has it done again")
	}
	// Of what does not become smaller little is written again and again.
	before, written := p.size(), int64(0)
	for i := range 40 {
		p.push(map[string][]byte{"file": noise(byte(100+i), 300<<10)})
		if m.crowded() {
			if err := m.tidy(t.Context()); err != nil {
				t.Fatal(err)
			}
			written += p.size()
		}
	}
	if came := p.size() - before; written > 8*came {
		t.Errorf("for %d bytes %d are written", came, written)
	}
}

func FuzzCommitHead(f *testing.F) {
	id := strings.Repeat("1a", 20)
	for _, s := range []string{
		"", "tree ", "tree " + id, "tree " + id + "\ncommitter a <a> 17 +0000\n\nx", "tree " + id[:39] + "g\n", "tree " + id + "\ncommitter > 99999999999999999999 x\n", "tree " + id + "\n\ncommitter a <a> 5 +0\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		tree, _, ok := commitHead(b)
		if ok && !strings.HasPrefix(strings.ToLower(string(b)), "tree "+tree.String()) {
			t.Errorf("%q has the tree %s", b, tree)
		}
	})
}
