package git_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"deployhook/internal/deploy"
	"deployhook/internal/git"
)

// local gives the mirror of a repository by its path.
func local(t *testing.T, r *repo) *git.Mirror {
	t.Helper()
	return mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: r.dir})
}

func TestNamesInTrees(t *testing.T) {
	r := newRepo(t)
	r.commit("a", "x")
	blob := r.git("rev-parse", "HEAD:a")
	tree := r.git("rev-parse", "HEAD^{tree}")
	m := local(t, r)
	for _, tt := range []struct{ mode, name, want string }{
		{"40000", ".git", "cannot hold .git"},
		{"40000", ".GIT", "cannot hold .git"},
		{"40000", ".gIt ", "cannot hold .git"},
		{"40000", ".git.", "cannot hold .git"},
		{"40000", ".git. . .", "cannot hold .git"},
		{"40000", ".git::$INDEX_ALLOCATION", "cannot hold .git"},
		{"40000", "git~1", "cannot hold .git"},
		{"40000", "GIT~1", "cannot hold .git"},
		{"40000", "git~12", "cannot hold .git"},
		{"40000", ".g\u200cit", "cannot hold .git"},
		{"40000", "\u200e.git", "cannot hold .git"},
		{"40000", ".git\ufeff", "cannot hold .git"},
		{"100644", ".git", "cannot hold .git"},
		{"120000", ".git", "cannot hold .git"},
		{"160000", ".git", "cannot hold .git"},
		{"100644", `dir\.git\hooks\x`, "cannot hold .git"},
		{"100644", `.git\x`, "cannot hold .git"},
		{"40000", "..", "not the name of a file"},
		{"40000", ".", "not the name of a file"},
		{"40000", "", "not the name of a file"},
		{"100644", "../x", "no slash"},
		{"100644", "a/../../b", "no slash"},
		{"100644", "/etc/passwd", "no slash"},
		{"100644", strings.Repeat("n", 256), "the name is over 255 bytes"},
		{"100600", "a", `"a" of example.com/r has mode 100600, which is none of git's`},
		{"104755", "suid", "which is none of git's"},
		{"60000", "dev", "which is none of git's"},
		{"x", "a", "it has an entry without a mode"},
		// Ordinary, if unusual.
		{"100644", "git", ""},
		{"100644", ".gitignore", ""},
		{"100644", ".gitmodules", ""},
		{"100644", ".git-", ""},
		{"100644", "git~x", ""},
		{"100644", "...", ""},
		{"100644", `a\b`, ""},
		{"100644", `..\b`, ""},
		{"100644", "-rf", ""},
		{"100644", " ", ""},
		{"100644", "a\nb\t\r\x01\x7f", ""},
		{"100644", "\xff\xfe\x80", ""},
		{"100644", "$(touch x)`id`;&|<>*?[]{}'\"", ""},
		{"100644", "con", ""},
		{"100664", "old mode", ""},
		{"100644", strings.Repeat("n", 255), ""},
	} {
		id := blob
		if tt.mode == "40000" || tt.mode == "160000" {
			id = tree
		}
		commit := r.commitOf(r.object("tree", treeEntry(tt.mode, tt.name, id)))
		if _, err := m.Fetch(t.Context(), commit, "refs/heads/odd"); err != nil {
			if tt.mode != "x" {
				t.Errorf("%q: %v", tt.name, err)
			}
			continue
		}
		for name, err := range map[string]error{
			"Walk":    m.Walk(t.Context(), commit, func(deploy.TreeFile, io.Reader) error { return nil }),
			"Measure": func() error { _, _, err := m.Measure(t.Context(), commit); return err }(),
		} {
			if tt.want == "" {
				if err != nil {
					t.Errorf("%s of %q: %v", name, tt.name, err)
				}
				continue
			}
			assertError(t, err, tt.want, "\u200c")
			assertError(t, err, "example.com/r", "\x01")
		}
		if tt.want == "" {
			if got := files(t, m, commit); got[tt.name] != "file:x" || len(got) != 1 {
				t.Errorf("%q comes as %q", tt.name, got)
			}
		}
	}
}

func TestTreesThatAreNone(t *testing.T) {
	r := newRepo(t)
	r.commit("a", "x")
	blob := r.git("rev-parse", "HEAD:a")
	for name, tt := range map[string]struct{ tree, want string }{
		"a name twice":                               {treeEntry("100644", "a", blob) + treeEntry("100644", "a", blob), `has "a" twice`},
		"a file and a directory":                     {treeEntry("100644", "a", blob) + treeEntry("40000", "a", r.object("tree", "")), `has "a" twice`},
		"names that differ in case only":             {treeEntry("100644", "A", blob) + treeEntry("100644", "a", blob), ""},
		"the empty directory":                        {treeEntry("40000", "a", r.object("tree", "")), ""},
		"an empty link":                              {treeEntry("120000", "l", r.object("blob", "")), `the link "l" of example.com/r points to what is no name`},
		"a link to a NUL":                            {treeEntry("120000", "l", r.object("blob", "a\x00b")), "points to what is no name"},
		"a link to a long name":                      {treeEntry("120000", "l", r.object("blob", strings.Repeat("x", 5000))), "points to what is no name"},
		"a link outside":                             {treeEntry("120000", "l", r.object("blob", "../../etc/passwd")), ""},
		"a link of LFS's words":                      {treeEntry("120000", "l", r.object("blob", "version https://git-lfs.github.com/spec/v1\n")), ""},
		"an LFS pointer that no attribute makes one": {treeEntry("100644", "movie.mp4", r.object("blob", "version https://git-lfs.github.com/spec/v1\noid sha256:"+strings.Repeat("a", 64)+"\nsize 12345\n")), ""},
		"a text about LFS":                           {treeEntry("100644", "README", r.object("blob", "version https://git-lfs.github.com/spec/v1"+strings.Repeat("\nwords", 300))), ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := local(t, r)
			commit := r.commitOf(r.object("tree", tt.tree))
			if _, err := m.Fetch(t.Context(), commit, "refs/heads/odd"); err != nil {
				t.Fatal(err)
			}
			err := m.Walk(t.Context(), commit, func(deploy.TreeFile, io.Reader) error { return nil })
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// A few small objects can mean more files than anybody could ever walk, and
// deeper directories than a path can name.
func TestTreeBombs(t *testing.T) {
	git.SetFilesMost(t, 50_000)
	r := newRepo(t)
	r.commit("a", "x")
	blob := r.git("rev-parse", "HEAD:a")
	wide := func(leaf, mode string) string {
		id := leaf
		for range 12 {
			var tree strings.Builder
			for i := range 10 {
				tree.WriteString(treeEntry(mode, fmt.Sprintf("d%d", i), id))
			}
			id, mode = r.object("tree", tree.String()), "40000"
		}
		return id
	}
	deep := func(name string, n int) string {
		id := r.object("tree", treeEntry("100644", "a", blob))
		for range n {
			id = r.object("tree", treeEntry("40000", name, id))
		}
		return id
	}
	for name, tt := range map[string]struct{ tree, want string }{
		"files":          {wide(blob, "100644"), "example.com/r has more than 50000 files and directories"},
		"no file at all": {wide(r.object("tree", ""), "40000"), "example.com/r has more than 50000 files and directories"},
		"deep":           {deep("d", 201), "example.com/r has directories more than 200 deep"},
		"long":           {deep(strings.Repeat("n", 250), 20), "example.com/r has a path of more than 3500 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			m := local(t, r)
			commit := r.commitOf(tt.tree)
			if _, err := m.Fetch(t.Context(), commit, "refs/heads/odd"); err != nil {
				if name == "deep" && strings.Contains(err.Error(), "directories more than 200 deep") {
					return
				}
				t.Fatal(err)
			}
			start := time.Now()
			_, _, err := m.Measure(t.Context(), commit)
			assertError(t, err, tt.want, "\x00")
			if d := time.Since(start); d > 2*time.Minute {
				t.Errorf("it took %v", d)
			}
			if _, err := m.Changed(t.Context(), deploy.ZeroCommit, commit); err == nil && name != "long" {
				t.Error("its paths are listed")
			}
		})
	}
}

func TestHundredThousandFiles(t *testing.T) {
	r := newRepo(t)
	const dirs, each = 400, 250
	name := filepath.Join(t.TempDir(), "many.pack")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	p := git.NewPacker(t, f, dirs*each+dirs+2)
	var root strings.Builder
	for d := range dirs {
		var dir strings.Builder
		for f := range each {
			dir.WriteString(treeEntry("100644", fmt.Sprintf("file%03d", f), p.Add(plumbing.BlobObject, fmt.Sprintf("%d of %d\n", f, d))))
		}
		root.WriteString(treeEntry("40000", fmt.Sprintf("dir%03d", d), p.Add(plumbing.TreeObject, dir.String())))
	}
	sha := p.Add(plumbing.CommitObject, "tree "+p.Add(plumbing.TreeObject, root.String())+"\nauthor a <a@example.com> 1700000000 +0000\ncommitter a <a@example.com> 1700000000 +0000\n\nmany\n")
	p.End()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	r.git("-c", "alias.in=!git index-pack --strict --stdin <'"+name+"'", "in")
	r.git("update-ref", "refs/heads/main", sha)
	everywhere(t, r, func(t *testing.T, m *git.Mirror) {
		start := time.Now()
		if _, err := m.Fetch(t.Context(), sha, "refs/heads/main"); err != nil {
			t.Fatal(err)
		}
		fetched := time.Since(start)
		n, size, err := m.Measure(t.Context(), sha)
		if n != dirs*each || size < dirs*each*8 || err != nil {
			t.Errorf("measured %d files, %d bytes, %v", n, size, err)
		}
		var most uint64
		seen := 0
		start = time.Now()
		err = m.Walk(t.Context(), sha, func(f deploy.TreeFile, r io.Reader) error {
			if seen++; seen%10_000 == 0 {
				var s runtime.MemStats
				runtime.ReadMemStats(&s)
				most = max(most, s.HeapInuse)
			}
			_, err := io.Copy(io.Discard, r)
			return err
		})
		if seen != dirs*each || err != nil {
			t.Errorf("walked %d files, %v", seen, err)
		}
		t.Logf("fetched in %v, walked in %v, heap %d MB", fetched.Round(time.Millisecond), time.Since(start).Round(time.Millisecond), most>>20)
		if most > 200<<20 {
			t.Errorf("the heap had %d MB", most>>20)
		}
		if d := time.Since(start); d > time.Minute {
			t.Errorf("the walk took %v", d)
		}
	})
}

func TestWalkEndsWhenItIsToldTo(t *testing.T) {
	r := newRepo(t)
	r.write("a", "1")
	sha := r.commit("b", "2")
	m := local(t, r)
	if _, err := m.Fetch(t.Context(), sha, "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	stop, n := errors.New("stop"), 0
	err := m.Walk(t.Context(), sha, func(deploy.TreeFile, io.Reader) error {
		n++
		return stop
	})
	if n != 1 || !errors.Is(err, stop) {
		t.Errorf("%d files, %v", n, err)
	}
	for _, bad := range []string{"", "main", strings.Repeat("1", 40), r.git("rev-parse", "HEAD^{tree}")} {
		err := m.Walk(t.Context(), bad, func(deploy.TreeFile, io.Reader) error { return nil })
		if err == nil {
			t.Errorf("the files of %q are given", bad)
		}
	}
	if got := files(t, m, sha); len(got) != 2 {
		t.Errorf("after all that the files are %v", got)
	}
}

func TestPathsThatChanged(t *testing.T) {
	r := newRepo(t)
	r.write("gone", "1")
	r.write("dir/same", "1")
	r.write("dir/other", "1")
	r.write("to-dir", "1")
	r.write("from-dir/x", "1")
	r.write("a-b", "1")
	r.write("a/b", "1")
	first := r.commit("mode", "1")
	r.git("rm", "-rq", "gone", "to-dir", "from-dir")
	r.write("dir/other", "2")
	r.write("to-dir/y", "1")
	r.write("from-dir", "1")
	r.write("odd \n\xff", "1")
	r.git("update-index", "--chmod=+x", "mode")
	second := r.commit("a/c", "1")
	everywhere(t, r, func(t *testing.T, m *git.Mirror) {
		for _, sha := range []string{first, second} {
			if _, err := m.Fetch(t.Context(), sha, "refs/heads/main"); err != nil {
				t.Fatal(err)
			}
		}
		want := strings.Split(strings.TrimSuffix(r.git("diff", "--no-renames", "--name-only", "-z", first, second), "\x00"), "\x00")
		for _, way := range [][2]string{{first, second}, {second, first}} {
			got, err := m.Changed(t.Context(), way[0], way[1])
			if err != nil || fmt.Sprintf("%q", sorted(got)) != fmt.Sprintf("%q", sorted(want)) {
				t.Errorf("changed are %q, %v; git says %q", got, err, want)
			}
		}
		if got, err := m.Changed(t.Context(), first, first); len(got) > 0 || err != nil {
			t.Errorf("nothing changed, but %q, %v", got, err)
		}
		if _, err := m.Changed(t.Context(), strings.Repeat("1", 40), second); err == nil {
			t.Error("the changes since an unknown commit are listed")
		}
	})
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}
