package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"deployhook/internal/agent/wire"
	"deployhook/internal/deploy"
)

// shelf is a place of caches, with an agent's own directory beside it.
type shelf struct {
	*caches
	t *testing.T
	n int
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	dir := t.TempDir()
	own := filepath.Join(dir, "work")
	if err := os.MkdirAll(own, 0o755); err != nil {
		t.Fatal(err)
	}
	return &shelf{caches: &caches{dir: filepath.Join(dir, "caches"), own: own, got: map[string]uint64{}, now: time.Now}, t: t}
}

// workspace makes one with files.
func (s *shelf) workspace(files ...string) string {
	s.t.Helper()
	s.n++
	dir := filepath.Join(s.own, fmt.Sprint("ws", s.n))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	for _, f := range files {
		name, text, _ := strings.Cut(f, "=")
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	return dir
}

func ask(kind deploy.CacheKind, dirs ...string) wire.Cache {
	return wire.Cache{Daemon: "one", Pipeline: "shop", Kind: kind, Dirs: dirs}
}

func (s *shelf) kept(ws string, q wire.Cache) wire.Cached {
	s.t.Helper()
	res, err := s.keep(s.t.Context(), ws, q)
	if err != nil {
		s.t.Fatal(err)
	}
	return res
}

func (s *shelf) restored(ws string, q wire.Cache) wire.Cached {
	s.t.Helper()
	res, err := s.restore(s.t.Context(), ws, q)
	if err != nil {
		s.t.Fatal(err)
	}
	return res
}

// listing lists what is below a directory, with contents and targets.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		switch {
		case d.IsDir():
			name += "/"
		case d.Type()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(path)
			name += " -> " + to
		default:
			b, _ := os.ReadFile(path)
			name += "=" + string(b)
		}
		list = append(list, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, " ")
}

// wantTree looks at a workspace.
func (s *shelf) wantTree(ws, want string) {
	s.t.Helper()
	if got := listing(s.t, ws); got != want {
		s.t.Errorf("the workspace is\n  %s\nwant\n  %s", got, want)
	}
}

// contents are the names of all that is kept.
func (s *shelf) contents() (names []string) {
	s.t.Helper()
	for _, key := range s.keys() {
		entries, err := os.ReadDir(s.path(key))
		if err != nil {
			s.t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, e.Name())
			}
		}
	}
	return names
}

func TestCacheComesBackAsItWas(t *testing.T) {
	s := newShelf(t)
	ws := s.workspace("m/a=one", "m/deep/b=two", "m/run=x", "n/c=three")
	old := time.Date(2020, 1, 2, 3, 4, 5, 678, time.UTC)
	for _, do := range []error{
		os.Chmod(filepath.Join(ws, "m/run"), 0o755|fs.ModeSetuid), os.Symlink("../../etc/passwd", filepath.Join(ws, "m/link")), os.Symlink("deep", filepath.Join(ws, "m/dir")),
		unix.Mkfifo(filepath.Join(ws, "m/pipe"), 0o600), os.Chtimes(filepath.Join(ws, "m/a"), old, old), os.Chtimes(filepath.Join(ws, "m/deep"), old, old),
		os.WriteFile(filepath.Join(ws, "m/large"), []byte(strings.Repeat("x", 300<<10)), 0o600), os.Chmod(filepath.Join(ws, "m/deep"), 0o555), os.Chmod(filepath.Join(ws, "m"), 0o555),
	} {
		if do != nil {
			t.Fatal(do)
		}
	}
	if res := s.kept(ws, ask(deploy.BranchCache, "m", "n", "not-there")); len(res.Dirs) != 2 || len(res.Notes) != 0 || res.Dirs[0].Files != 8 || res.Dirs[0].Bytes != 300<<10+7 {
		t.Fatalf("%+v", res)
	}
	s.wantTree(ws, "")
	for range 2 { // it stays for the next
		ws = s.workspace("index=x")
		if res := s.restored(ws, ask(deploy.BranchCache, "m", "n")); len(res.Dirs) != 2 || len(res.Notes) != 0 || res.Dirs[0].Kind != deploy.BranchCache {
			t.Fatalf("%+v", res)
		}
		s.wantTree(ws, "index=x m/ m/a=one m/deep/ m/deep/b=two m/dir -> deep m/large="+strings.Repeat("x", 300<<10)+" m/link -> ../../etc/passwd m/run=x n/ n/c=three")
		for name, mode := range map[string]fs.FileMode{"m": 0o555, "m/deep": 0o555, "m/run": 0o755, "m/a": 0o644, "m/large": 0o600} {
			if st, err := os.Stat(filepath.Join(ws, name)); err != nil || st.Mode()&^fs.ModeDir != mode && name != "m" || name == "m" && st.Mode().Perm() != 0o755 {
				t.Errorf("%s has mode %v, %v", name, st.Mode(), err)
			}
		}
		for _, name := range []string{"m/a", "m/deep"} {
			if st, err := os.Stat(filepath.Join(ws, name)); err != nil || !st.ModTime().Equal(old) {
				t.Errorf("%s is of %v", name, st.ModTime())
			}
		}
		// The copy is a file of its own.
		if err := os.WriteFile(filepath.Join(ws, "m/a"), []byte("changed"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOtherRefsStartFromTheBranchAndNeverWriteToIt(t *testing.T) {
	s := newShelf(t)
	s.kept(s.workspace("m/a=main"), ask(deploy.BranchCache, "m"))
	ws := s.workspace()
	if res := s.restored(ws, ask(deploy.OthersCache, "m")); len(res.Dirs) != 1 || res.Dirs[0].Kind != deploy.BranchCache {
		t.Fatalf("%+v", res)
	}
	s.kept(s.workspace("m/a=poison"), ask(deploy.OthersCache, "m"))
	ws = s.workspace()
	s.restored(ws, ask(deploy.BranchCache, "m"))
	s.wantTree(ws, "m/ m/a=main")
	ws = s.workspace()
	if res := s.restored(ws, ask(deploy.OthersCache, "m")); res.Dirs[0].Kind != deploy.OthersCache {
		t.Fatalf("%+v", res)
	}
	s.wantTree(ws, "m/ m/a=poison")
	// The branch does not take from others, nor another daemon's or pipeline's job from this one's.
	s.kept(s.workspace("o/x=1"), ask(deploy.OthersCache, "o"))
	for _, q := range []wire.Cache{
		ask(deploy.BranchCache, "o"), {Daemon: "two", Pipeline: "shop", Kind: deploy.BranchCache, Dirs: []string{"m"}},
		{Daemon: "one", Pipeline: "blog", Kind: deploy.BranchCache, Dirs: []string{"m"}},
	} {
		ws = s.workspace()
		s.restored(ws, q)
		s.wantTree(ws, "")
	}
}

func TestDirectoriesOfASetAreKeptApart(t *testing.T) {
	s := newShelf(t)
	q := ask(deploy.BranchCache, "m", "n")
	s.kept(s.workspace("m/a=1"), q)
	s.kept(s.workspace("n/b=2"), q) // by a job that makes only the other
	ws := s.workspace()
	s.restored(ws, q)
	s.wantTree(ws, "m/ m/a=1 n/ n/b=2")
	// What is not asked for any more goes, and nothing is left of what was replaced.
	s.kept(s.workspace("m/a=3"), ask(deploy.BranchCache, "m"))
	if names := s.contents(); len(names) != 1 {
		t.Errorf("there are %d contents: %q", len(names), names)
	}
}

// Of two jobs beside each other, one that only reads must not put back what the
// other has replaced.
func TestWhatAJobDidNotChangeIsNotItsToKeep(t *testing.T) {
	s := newShelf(t)
	q := ask(deploy.BranchCache, "m")
	s.kept(s.workspace("m/a=1", "m/sub/b=1"), q)
	reader := &shelf{caches: &caches{dir: s.dir, own: s.own, got: map[string]uint64{}, now: time.Now}, t: t, n: 100}
	read := reader.workspace()
	reader.restored(read, q)
	s.kept(s.workspace("m/a=2"), q)
	if res := reader.kept(read, q); len(res.Dirs) != 0 || len(res.Notes) != 0 {
		t.Errorf("%+v", res)
	}
	ws := s.workspace()
	s.restored(ws, q)
	s.wantTree(ws, "m/ m/a=2")
	for name, change := range map[string]func() error{
		"content": func() error { return os.WriteFile(filepath.Join(read, "m/sub/b"), []byte("2"), 0o644) },
		"mode":    func() error { return os.Chmod(filepath.Join(read, "m/a"), 0o755) },
		"removed": func() error { return os.Remove(filepath.Join(read, "m/a")) },
	} {
		if err := os.RemoveAll(filepath.Join(read, "m")); err != nil {
			t.Fatal(err)
		}
		s.kept(s.workspace("m/a=1", "m/sub/b=1"), q)
		reader.restored(read, q)
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if res := reader.kept(read, q); len(res.Dirs) != 1 {
			t.Errorf("%s: %+v", name, res)
		}
	}
}

// An agent that ends removes its workspace, while a call may still be at it.
func TestNothingIsMovedOnceTheAgentEnds(t *testing.T) {
	s := newShelf(t)
	q := ask(deploy.BranchCache, "m")
	s.kept(s.workspace("m/a=1"), q)
	s.close()
	ws := s.workspace("m/a=2")
	if res, err := s.keep(t.Context(), ws, q); err == nil || len(res.Dirs) != 0 {
		t.Errorf("%+v, %v", res, err)
	}
	s.wantTree(ws, "m/ m/a=2")
	ws = s.workspace()
	s.restored(ws, q)
	s.wantTree(ws, "m/ m/a=1")
}

func TestFilesOfTheCommitStay(t *testing.T) {
	s := newShelf(t)
	ws := s.workspace("m/a=cached", "m/sub/b=cached", "m/file=cached", "m/dir/c=cached")
	if err := os.Symlink("cached", filepath.Join(ws, "m/link")); err != nil {
		t.Fatal(err)
	}
	s.kept(ws, ask(deploy.BranchCache, "m"))
	ws = s.workspace("m/a=commit", "m/sub/own=commit", "m/file/x=commit", "m/dir=commit", "m/link=commit")
	if res := s.restored(ws, ask(deploy.BranchCache, "m")); len(res.Notes) != 0 {
		t.Errorf("%+v", res)
	}
	s.wantTree(ws, "m/ m/a=commit m/dir=commit m/file/ m/file/x=commit m/link=commit m/sub/ m/sub/b=cached m/sub/own=commit")
}

func TestLinksAreNotFollowedOutOfTheWorkspace(t *testing.T) {
	s := newShelf(t)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.kept(s.workspace("m/a=1", "d/m/a=1"), ask(deploy.BranchCache, "m", "d/m"))
	ws := s.workspace()
	for name := range map[string]bool{"m": true, "d": true} {
		if err := os.Symlink(outside, filepath.Join(ws, name)); err != nil {
			t.Fatal(err)
		}
	}
	res := s.restored(ws, ask(deploy.BranchCache, "m", "d/m"))
	if want := "m is not taken from the cache: the commit has something else there|d/m is not taken from the cache: d is not a directory"; strings.Join(res.Notes, "|") != want {
		t.Errorf("%q", res.Notes)
	}
	res = s.kept(ws, ask(deploy.BranchCache, "m", "d/m"))
	if want := "m is not kept in the cache: it is not a directory|d/m is not kept in the cache: d is not a directory"; strings.Join(res.Notes, "|") != want {
		t.Errorf("%q", res.Notes)
	}
	if got := listing(t, outside); got != "secret=x" {
		t.Errorf("outside there is %s", got)
	}
}

func TestSetThatIsTooLargeIsNotKept(t *testing.T) {
	s := newShelf(t)
	s.kept(s.workspace("m/a=old"), ask(deploy.BranchCache, "m"))
	ws := s.workspace("m/a=new", "n/b=1")
	f, err := os.Create(filepath.Join(ws, "m/large"))
	if err == nil {
		err = errors.Join(f.Truncate(deploy.CacheSetBytes), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	res := s.kept(ws, ask(deploy.BranchCache, "m", "n"))
	if len(res.Dirs) != 1 || len(res.Notes) != 1 || res.Notes[0] != "m is not kept in the cache: a set may have 2 GiB and 500000 files" {
		t.Errorf("%+v", res)
	}
	ws = s.workspace()
	s.restored(ws, ask(deploy.BranchCache, "m", "n"))
	s.wantTree(ws, "m/ m/a=old n/ n/b=1")
	deep := strings.Repeat("d/", cacheDepth+1)
	if res := s.kept(s.workspace("m/"+deep+"x=1"), ask(deploy.BranchCache, "m")); len(res.Notes) != 1 || !strings.Contains(res.Notes[0], "it is more than 200 levels deep") {
		t.Errorf("%+v", res)
	}
}

func TestSetUsedLongestAgoEndsFirst(t *testing.T) {
	s := newShelf(t)
	of := func(pipeline string) wire.Cache {
		return wire.Cache{Daemon: "one", Pipeline: pipeline, Kind: deploy.BranchCache, Dirs: []string{"m"}}
	}
	for i, p := range []string{"a", "b", "c", "d", "e", "f"} {
		s.kept(s.workspace("m/x=1"), of(p))
		// As large as a set may be, and used a minute after the one before.
		set, _ := s.read(keyOf("one", p), deploy.BranchCache)
		d := set.Dirs["m"]
		d.Bytes = deploy.CacheSetBytes
		set.Dirs["m"] = d
		at := time.Now().Add(time.Duration(i-100) * time.Minute)
		if err := errors.Join(s.write(keyOf("one", p), set), os.Chtimes(s.file(keyOf("one", p), deploy.BranchCache), at, at)); err != nil {
			t.Fatal(err)
		}
	}
	s.restored(s.workspace(), of("b")) // used now
	res := s.kept(s.workspace("m/x=1"), of("g"))
	if len(res.Notes) != 1 || !strings.Contains(res.Notes[0], "the cache of c (branch), used last at ") { // a went for f
		t.Errorf("%q", res.Notes)
	}
	var left []string
	for _, x := range s.sets(wire.CachesOf{Daemon: "one"}) {
		left = append(left, x.set.Pipeline)
	}
	if got := strings.Join(left, " "); got != "g b f e d" {
		t.Errorf("there are %s", got)
	}
	if n := len(s.contents()); n != 5 {
		t.Errorf("%d contents are left", n)
	}
	ended, err := s.clear(t.Context(), wire.CachesOf{Daemon: "one", Pipeline: "b"})
	if err != nil || len(ended) != 1 || len(s.contents()) != 4 {
		t.Errorf("%v, %v, %d contents", ended, err, len(s.contents()))
	}
	if ended, err = s.clear(t.Context(), wire.CachesOf{Daemon: "two"}); err != nil || len(ended) != 0 {
		t.Errorf("of another daemon: %v, %v", ended, err)
	}
	if ended, err = s.clear(t.Context(), wire.CachesOf{Daemon: "one"}); err != nil || len(ended) != 4 || len(s.contents()) != 0 {
		t.Errorf("%v, %v", ended, err)
	}
}

// Many jobs at once read and keep one set: each gets the whole of what one job left.
func TestJobsAtOnceDoNotMix(t *testing.T) {
	s := newShelf(t)
	const files = 40
	text := func(id int) (list []string) {
		for i := range files {
			list = append(list, fmt.Sprintf("m/%d/f=%d", i, id))
		}
		return list
	}
	q := ask(deploy.BranchCache, "m")
	s.kept(s.workspace(text(0)...), q)
	var all sync.WaitGroup
	for id := 1; id <= 6; id++ {
		own := filepath.Join(s.own, fmt.Sprint("own", id))
		if err := os.MkdirAll(own, 0o755); err != nil {
			t.Fatal(err)
		}
		mine := &shelf{caches: &caches{dir: s.dir, own: own, got: map[string]uint64{}, now: time.Now}, t: t}
		var full, empty []string
		for range 5 {
			full, empty = append(full, mine.workspace(text(id)...)), append(empty, mine.workspace())
		}
		all.Go(func() {
			for i := range full {
				res, err := mine.restore(context.Background(), empty[i], q)
				if err != nil || len(res.Dirs) != 1 {
					t.Errorf("%+v, %v", res, err)
					return
				}
				seen := map[string]bool{}
				for k := range files {
					b, err := os.ReadFile(filepath.Join(empty[i], fmt.Sprintf("m/%d/f", k)))
					if err != nil {
						t.Error(err)
					}
					seen[string(b)] = true
				}
				if len(seen) != 1 {
					t.Errorf("a job got what several left: %v", seen)
				}
				if res, err := mine.keep(context.Background(), full[i], q); err != nil || len(res.Dirs) != 1 {
					t.Errorf("%+v, %v", res, err)
				}
			}
		})
	}
	all.Wait()
	if err := s.changing(t.Context(), func() error { return nil }); err != nil {
		t.Error(err)
	}
	if names := s.contents(); len(names) != 1 {
		t.Errorf("%d contents are left", len(names))
	}
}

// A content that nobody names, as an agent leaves it that was killed between
// its move and the new set, is removed, but not under a reader.
func TestWhatNoSetNamesIsRemovedWhenNobodyReadsIt(t *testing.T) {
	s := newShelf(t)
	q := ask(deploy.BranchCache, "m")
	s.kept(s.workspace("m/a=1"), q)
	key := keyOf("one", "shop")
	orphan := s.path(key, newName())
	if err := errors.Join(os.MkdirAll(orphan, 0o700), os.WriteFile(s.path(key, "branch.new"), []byte("{half"), 0o600)); err != nil {
		t.Fatal(err)
	}
	reader, _ := s.content(key, deploy.BranchCache, "m")
	if reader == nil {
		t.Fatal("there is no content")
	}
	s.kept(s.workspace("m/a=2"), q)
	if names := s.contents(); len(names) != 2 { // the new one, and the one that is read
		t.Errorf("there are %q", names)
	}
	if _, err := os.Stat(orphan); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what nobody names is there: %v", err)
	}
	to, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	copies := &cacheCopy{ctx: t.Context(), left: cacheCount{files: 10, bytes: 10}}
	if err := copies.dir(reader, to, 1); err != nil || listing(t, to.Name()) != "a=1" {
		t.Errorf("the reader got %s, %v", listing(t, to.Name()), err)
	}
	reader.Close()
	if _, err := s.clear(t.Context(), wire.CachesOf{Daemon: "one"}); err != nil || len(s.contents()) != 0 {
		t.Errorf("%q are left, %v", s.contents(), err)
	}
	if err := s.changing(t.Context(), func() error { return nil }); err != nil || len(s.keys()) != 0 {
		t.Errorf("%q are left, %v", s.keys(), err)
	}
}

func TestTamperedSetIsNone(t *testing.T) {
	s := newShelf(t)
	q := ask(deploy.BranchCache, "m")
	key := keyOf("one", "shop")
	for _, text := range []string{
		"", "{", "null", `{"format":2,"pipeline":"shop","kind":"branch","dirs":{}}`,
		`{"format":1,"pipeline":"shop","kind":"branch","dirs":{"m":{"name":"../../..","files":1,"bytes":1}}}`,
		`{"format":1,"pipeline":"shop","kind":"others","dirs":{"m":{"name":"` + strings.Repeat("0", 32) + `"}}}`,
		`{"format":1,"pipeline":"blog","kind":"branch","dirs":{"m":{"name":"` + strings.Repeat("0", 32) + `"}}}`,
		`{"format":1,"pipeline":"shop","kind":"branch","dirs":{"m":{"name":"` + strings.Repeat("0", 32) + `","files":1,"bytes":1}}}`, // not there
	} {
		s.kept(s.workspace("m/a=1"), q)
		if err := os.WriteFile(s.file(key, deploy.BranchCache), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		ws := s.workspace()
		if res := s.restored(ws, q); len(res.Dirs) != 0 || listing(t, ws) != "" {
			t.Errorf("%s gives %+v", text, res)
		}
	}
	if err := errors.Join(os.Remove(s.file(key, deploy.BranchCache)), unix.Mkfifo(s.file(key, deploy.BranchCache), 0o600)); err != nil {
		t.Fatal(err)
	}
	if res := s.restored(s.workspace(), q); len(res.Dirs) != 0 {
		t.Errorf("a pipe gives %+v", res)
	}
	if res := s.kept(s.workspace("m/a=1"), q); len(res.Dirs) != 1 {
		t.Errorf("a pipe is not replaced: %+v", res)
	}
}

func FuzzParseSet(f *testing.F) {
	f.Add([]byte(`{"format":1,"pipeline":"shop","kind":"branch","dirs":{"m":{"name":"00000000000000000000000000000000","files":1,"bytes":2}}}`))
	f.Add([]byte(`{"format":1,"pipeline":"shop","kind":"others","dirs":{"../m":{"name":"x","files":-1}}}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSet(b)
		if err != nil {
			return
		}
		for dir, k := range s.Dirs {
			if !filepath.IsLocal(dir) || dir == "." || !filepath.IsLocal(k.Name) || strings.Contains(k.Name, "/") || k.Bytes < 0 || k.Files < 0 {
				t.Errorf("%q is in %q", dir, k.Name)
			}
		}
	})
}
