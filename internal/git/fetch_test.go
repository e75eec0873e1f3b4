package git_test

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"deployhook/internal/deploy"
	"deployhook/internal/git"
)

// object writes an object that git itself might refuse to write, and gives its id.
func (r *repo) object(kind, content string) string {
	r.t.Helper()
	raw := fmt.Sprintf("%s %d\x00%s", kind, len(content), content)
	id := fmt.Sprintf("%x", sha1.Sum([]byte(raw)))
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	if _, err := z.Write([]byte(raw)); err != nil {
		r.t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		r.t.Fatal(err)
	}
	dir := filepath.Join(r.dir, ".git", "objects", id[:2])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, id[2:]), b.Bytes(), 0o644); err != nil {
		r.t.Fatal(err)
	}
	return id
}

// treeEntry is one entry of a tree object.
func treeEntry(mode, name, id string) string {
	raw, err := hex.DecodeString(id)
	if err != nil {
		panic(err)
	}
	return mode + " " + name + "\x00" + string(raw)
}

// commitOf makes a commit of a tree object, on no branch.
func (r *repo) commitOf(tree string) string {
	r.t.Helper()
	id := r.object("commit", "tree "+tree+"\nauthor a <a@example.com> 1700000000 +0000\ncommitter a <a@example.com> 1700000000 +0000\n\nodd\n")
	return id
}

// overHTTP gives the mirror of a repository served over HTTP.
func overHTTP(t *testing.T, r *repo, depth int) *git.Mirror {
	t.Helper()
	s := serve(t, filepath.Dir(r.dir), "")
	return mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: s.URL + "/" + filepath.Base(r.dir) + "/.git", Depth: depth})
}

// history makes n commits on main and gives their ids, the oldest first.
func (r *repo) history(n int) []string {
	var list []string
	for i := range n {
		list = append(list, r.commit("a", fmt.Sprint(i)))
	}
	return list
}

func TestDepthCutsTheHistoryAndUnknownAncestryIsSaid(t *testing.T) {
	r := newRepo(t)
	list := r.history(6)
	last := list[5]
	m := overHTTP(t, r, 2)
	if got, err := m.Fetch(t.Context(), last, "refs/heads/main"); got != last || err != nil {
		t.Fatalf("the tip at depth 2: %s, %v", got, err)
	}
	if got, err := m.IsAncestor(t.Context(), list[4], last); !got || err != nil {
		t.Errorf("the parent, which is here: %v, %v", got, err)
	}
	if _, err := m.IsAncestor(t.Context(), list[0], last); !errors.Is(err, git.ErrHistory) {
		t.Errorf("a commit behind the cut: %v, want %v", err, git.ErrHistory)
	}
	if _, err := m.IsAncestor(t.Context(), last, list[4]); !errors.Is(err, git.ErrHistory) {
		t.Errorf("a history that is cut: %v, want %v", err, git.ErrHistory)
	}
	if b, err := os.ReadFile(filepath.Join(m.Dir(), "shallow")); err != nil || strings.TrimSpace(string(b)) != list[4] {
		t.Errorf("the mirror's shallow commits are %q, %v; want %s", b, err, list[4])
	}
	next := r.commit("a", "next")
	if got, err := m.Fetch(t.Context(), next, "refs/heads/main"); got != next || err != nil {
		t.Fatalf("the next push: %s, %v", got, err)
	}
	if got, err := m.IsAncestor(t.Context(), list[4], next); !got || err != nil {
		t.Errorf("across two fetches: %v, %v", got, err)
	}
	if got := files(t, m, next); got["a"] != "file:next" {
		t.Errorf("the files are %v", got)
	}
	// An older commit is fetched by its id.
	r.git("config", "uploadpack.allowAnySHA1InWant", "true")
	if got, err := m.Fetch(t.Context(), list[0], "refs/heads/main"); got != list[0] || err != nil {
		t.Errorf("an older commit: %s, %v", got, err)
	}
}

func TestDepthAndServerThatRefusesUnadvertisedObjects(t *testing.T) {
	r := newRepo(t)
	list := r.history(5)
	s := serveOld(t, filepath.Dir(r.dir))
	m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: s.URL + "/" + filepath.Base(r.dir) + "/.git", Depth: 1})
	if got, err := m.Fetch(t.Context(), list[1], "refs/heads/main"); got != list[1] || err != nil {
		t.Fatalf("three commits behind the tip: %s, %v", got, err)
	}
	if got := files(t, m, list[1]); got["a"] != "file:1" {
		t.Errorf("the files are %v", got)
	}
}

func TestDepthTakenAwayCompletesTheHistory(t *testing.T) {
	r := newRepo(t)
	list := r.history(6)
	s := serve(t, filepath.Dir(r.dir), "")
	url := s.URL + "/" + filepath.Base(r.dir) + "/.git"
	all := mirrors(t)
	one := all.Mirror(git.Remote{Repository: "example.com/r", URL: url, Depth: 1})
	whole := all.Mirror(git.Remote{Repository: "example.com/r", URL: url})
	if _, err := one.Fetch(t.Context(), list[5], "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	next := r.commit("a", "next")
	if _, err := whole.Fetch(t.Context(), next, "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	if got, err := whole.IsAncestor(t.Context(), list[0], next); !got || err != nil {
		t.Errorf("the first commit, after depth was taken away: %v, %v", got, err)
	}
	// And a mirror that is whole stays so.
	last := r.commit("a", "last")
	if _, err := one.Fetch(t.Context(), last, "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	if got, err := one.IsAncestor(t.Context(), list[0], last); !got || err != nil {
		t.Errorf("the first commit, after a fetch with depth: %v, %v", got, err)
	}
}

func TestDepthOfAPathIsTheWholeHistory(t *testing.T) {
	r := newRepo(t)
	list := r.history(3)
	m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: r.dir, Depth: 1})
	if _, err := m.Fetch(t.Context(), list[2], "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	if got, err := m.IsAncestor(t.Context(), list[0], list[2]); !got || err != nil {
		t.Errorf("the first commit: %v, %v", got, err)
	}
}

func TestPathsAreTakenAsTheyAre(t *testing.T) {
	r := newRepo(t)
	sha := r.commit("a", "1")
	for _, name := range []string{"a:b", "git@host:x", "with space", "ü", "%41"} {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.CopyFS(dir, os.DirFS(r.dir)); err != nil {
			t.Fatal(err)
		}
		for _, address := range []string{dir, "file://" + (&url.URL{Path: dir}).EscapedPath()} {
			m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: address})
			if got, err := m.Fetch(t.Context(), sha, "refs/heads/main"); got != sha || err != nil {
				t.Errorf("%s: %s, %v", address, got, err)
			}
		}
	}
}

func TestPathOfAShallowClone(t *testing.T) {
	r := newRepo(t)
	list := r.history(4)
	shallow := &repo{t, t.TempDir()}
	shallow.git("clone", "-q", "--depth", "2", "file://"+r.dir, "c")
	m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: filepath.Join(shallow.dir, "c")})
	if got, err := m.Fetch(t.Context(), list[3], "refs/heads/main"); got != list[3] || err != nil {
		t.Fatalf("the tip: %s, %v", got, err)
	}
	if got, err := m.IsAncestor(t.Context(), list[2], list[3]); !got || err != nil {
		t.Errorf("the parent: %v, %v", got, err)
	}
	if _, err := m.IsAncestor(t.Context(), list[3], list[2]); !errors.Is(err, git.ErrHistory) {
		t.Errorf("a history that is cut: %v, want %v", err, git.ErrHistory)
	}
}

func TestNamesOfRefsAreNeverNamesOfFiles(t *testing.T) {
	r := newRepo(t)
	first := r.commit("a", "1")
	everywhere(t, r, func(t *testing.T, m *git.Mirror) {
		if _, err := m.Fetch(t.Context(), first, "refs/heads/main"); err != nil {
			t.Fatal(err)
		}
		for i, ref := range []string{
			"refs/heads/feature", "refs/heads/feature/x", "refs/heads/Feature", "refs/heads/-rf", "refs/heads/--upload-pack=touch", "refs/heads/$(touch x)",
			"refs/heads/ü\u202e", "refs/heads/it's", "refs/heads/" + strings.Repeat("long/", 190) + "x", "refs/tags/-rf", "refs/heads/../../../../../../tmp/x", "refs/heads/" + strings.Repeat("n", 1000),
		} {
			// git cannot store some of them either: then the commit is on main.
			next := r.commit("a", fmt.Sprintf("%s %d", t.Name(), i))
			if name := strings.TrimPrefix(ref, "refs/heads/"); !strings.Contains(name, "..") && len(name) < 999 && !strings.ContainsAny(name, " $") {
				r.git("update-ref", ref, next)
				defer r.git("update-ref", "-d", ref)
				if strings.HasSuffix(ref, "feature") {
					r.git("update-ref", "-d", ref) // gone, before it becomes a directory
				}
			}
			if got, err := m.Fetch(t.Context(), next, ref); got != next || err != nil {
				t.Errorf("%.60q: %s, %v", ref, got, err)
			}
		}
		err := filepath.WalkDir(m.Dir(), func(path string, _ os.DirEntry, err error) error {
			if name := filepath.Base(path); strings.Contains(name, "rf") || strings.Contains(strings.ToLower(name), "feature") {
				t.Errorf("%s was made of the name of a ref", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestTagsArePeeled(t *testing.T) {
	r := newRepo(t)
	sha := r.commit("dir/a", "1")
	r.git("tag", "-a", "one", "-m", "one", sha)
	r.git("tag", "-a", "two", "-m", "two", "one")
	r.git("tag", "-a", "tree", "-m", "tree", sha+"^{tree}")
	r.git("tag", "-a", "blob", "-m", "blob", sha+":dir/a")
	r.git("tag", "light", sha)
	chain := r.git("rev-parse", "two")
	for i := range 12 {
		name := fmt.Sprintf("chain%d", i)
		r.git("tag", "-a", name, "-m", "chain", chain)
		chain = r.git("rev-parse", name)
	}
	id := func(name string) string { return r.git("rev-parse", name) }
	tree, blob := id(sha+"^{tree}"), id(sha+":dir/a")
	r.git("update-ref", "refs/tags/rawtree", tree)
	everywhere(t, r, func(t *testing.T, m *git.Mirror) {
		for _, tt := range []struct{ name, sha, ref, want, err string }{
			{"annotated", id("one"), "refs/tags/one", sha, ""},
			{"the commit of an annotated tag", sha, "refs/tags/two", sha, ""},
			{"tag of a tag", id("two"), "refs/tags/two", sha, ""},
			{"light", id("light"), "refs/tags/light", sha, ""},
			{"tag of a tree", id("tree"), "refs/tags/tree", "", "example.com/r: what tag tree names is a directory, not a commit"},
			{"tag of a blob", id("blob"), "refs/tags/blob", "", "example.com/r: what tag blob names is a file, not a commit"},
			{"a tree", tree, "refs/tags/rawtree", "", "example.com/r: " + tree + " is a directory, not a commit"},
			{"a blob that is here", blob, "", "", "example.com/r: " + blob + " is a file, not a commit"},
			{"a long chain", chain, "refs/tags/chain11", "", "is more than 10 tags away from a commit"},
		} {
			got, err := m.Fetch(t.Context(), tt.sha, tt.ref)
			if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %q, %v; want %q, %q", tt.name, got, err, tt.want, tt.err)
			}
		}
	})
}

func TestIdsThatAreNoCommits(t *testing.T) {
	r := newRepo(t)
	r.commit("a", "1")
	everywhere(t, r, func(t *testing.T, m *git.Mirror) {
		for sha, want := range map[string]string{
			strings.Repeat("1", 40):      "commit 1111111111111111111111111111111111111111 is not in example.com/r any more: it was removed, or the branch was forced since",
			strings.Repeat("0", 40):      "is not a commit of example.com/r",
			strings.Repeat("1", 64):      "SHA-256 repositories are not supported",
			"":                           `"" is not a commit of example.com/r`,
			"main":                       `"main" is not a commit of example.com/r`,
			"--upload-pack=x":            "is not a commit of example.com/r",
			strings.Repeat("x\n\x1b", 9): "is not a commit of example.com/r",
		} {
			_, err := m.Fetch(t.Context(), sha, "refs/heads/main")
			assertError(t, err, want, "\x1b")
		}
	})
}

func TestManyRefs(t *testing.T) {
	r := newRepo(t)
	first := r.commit("a", "1")
	var b strings.Builder
	b.WriteString("# pack-refs with: peeled fully-peeled sorted \n")
	for i := range 20_000 {
		fmt.Fprintf(&b, "%s refs/heads/b%05d\n", first, i)
	}
	if err := os.WriteFile(filepath.Join(r.dir, ".git/packed-refs"), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	next := r.commit("a", "2")
	everywhere(t, r, func(t *testing.T, m *git.Mirror) {
		if got, err := m.Fetch(t.Context(), next, "refs/heads/main"); got != next || err != nil {
			t.Errorf("among 20,000 refs: %s, %v", got, err)
		}
		if got, err := m.Resolve(t.Context(), "b19999"); got != first || err != nil {
			t.Errorf("the last of them: %s, %v", got, err)
		}
	})
}

func TestDefaultBranchIsAskedForEachTime(t *testing.T) {
	r := newRepo(t)
	first := r.commit("a", "1")
	r.git("checkout", "-q", "-b", "next")
	second := r.commit("a", "2")
	r.git("symbolic-ref", "HEAD", "refs/heads/main")
	everywhere(t, r, func(t *testing.T, m *git.Mirror) {
		defer r.git("symbolic-ref", "HEAD", "refs/heads/main")
		for _, tt := range []struct{ head, want string }{{"main", first}, {"next", second}, {"main", first}} {
			r.git("symbolic-ref", "HEAD", "refs/heads/"+tt.head)
			if got, err := m.Resolve(t.Context(), ""); got != tt.want || err != nil {
				t.Errorf("HEAD at %s: %s, %v; want %s", tt.head, got, err, tt.want)
			}
		}
		r.git("symbolic-ref", "HEAD", "refs/heads/gone")
		_, err := m.Resolve(t.Context(), "")
		assertError(t, err, "example.com/r has no default branch: name one with branch", "\x00")
	})
}

func TestEmptyRepositoryIsSaid(t *testing.T) {
	r := newRepo(t)
	everywhere(t, r, func(t *testing.T, m *git.Mirror) {
		_, err := m.Fetch(t.Context(), strings.Repeat("1", 40), "refs/heads/main")
		assertError(t, err, "example.com/r is empty", "\x00")
		_, err = m.Resolve(t.Context(), "")
		assertError(t, err, "example.com/r is empty", "\x00")
	})
}

func TestSHA256RepositoryIsSaid(t *testing.T) {
	r := newRepo(t, "--object-format=sha256")
	r.commit("a", "1")
	everywhere(t, r, func(t *testing.T, m *git.Mirror) {
		_, err := m.Fetch(t.Context(), strings.Repeat("1", 40), "refs/heads/main")
		assertError(t, err, "fetching example.com/r: it is a SHA-256 repository, which is not supported", "\x00")
		_, err = m.Resolve(t.Context(), "")
		assertError(t, err, "it is a SHA-256 repository, which is not supported", "\x00")
	})
}

func TestForcedAwayTipIsKeptAfterTheSourceForgotIt(t *testing.T) {
	r := newRepo(t)
	first := r.commit("a", "1")
	everywhere(t, r, func(t *testing.T, m *git.Mirror) {
		r.git("reset", "-q", "--hard", first)
		second := r.commit("a", "2")
		if _, err := m.Fetch(t.Context(), second, "refs/heads/main"); err != nil {
			t.Fatal(err)
		}
		r.git("reset", "-q", "--hard", first)
		forced := r.commit("b", t.Name())
		r.git("reflog", "expire", "--expire=now", "--all")
		r.git("gc", "-q", "--prune=now")
		if got, err := m.Fetch(t.Context(), forced, "refs/heads/main"); got != forced || err != nil {
			t.Errorf("after the force push: %s, %v", got, err)
		}
		if got := files(t, m, forced); got["a"] != "file:1" || len(got) != 2 {
			t.Errorf("the files are %v", got)
		}
		// What was deployed before is still here.
		if got := files(t, m, second); got["a"] != "file:2" || len(got) != 1 {
			t.Errorf("the files of the old tip are %v", got)
		}
		if got, err := m.IsAncestor(t.Context(), second, forced); got || err != nil {
			t.Errorf("the old tip is an ancestor: %v, %v", got, err)
		}
	})
}

func TestManyPushesLeaveFewPacks(t *testing.T) {
	git.SetPacksMost(t, 4)
	r := newRepo(t)
	for i := range 40 {
		r.write(fmt.Sprintf("dir%d/f", i), fmt.Sprint(i))
	}
	list := r.history(14)
	m := local(t, r)
	for i, sha := range list {
		if _, err := m.Fetch(t.Context(), sha, "refs/heads/main"); err != nil {
			t.Fatal(err)
		}
		if i%4 != 3 {
			continue
		}
		m.Settle()
		packs, err := filepath.Glob(filepath.Join(m.Dir(), "objects/pack/*"))
		if err != nil || len(packs) > 2*4 {
			t.Errorf("after %d pushes there are %d files, %v", i+1, len(packs), err)
		}
		for _, old := range []string{list[0], list[i/2], sha} {
			if got := files(t, m, old); len(got) != 41 {
				t.Errorf("after %d pushes %s has %d files", i+1, old, len(got))
			}
		}
		if is, err := m.IsAncestor(t.Context(), list[0], sha); !is || err != nil {
			t.Errorf("after %d pushes: %v, %v", i+1, is, err)
		}
	}
	m.Settle()
	(&repo{t, m.Dir()}).git("fsck", "--full", "--strict")
}

// A reader that is at it when packs are made one does not notice.
func TestPacksMadeOneUnderReaders(t *testing.T) {
	git.SetPacksMost(t, 4)
	r := newRepo(t)
	for i := range 40 {
		r.write(fmt.Sprintf("dir%d/f", i), fmt.Sprint(i))
	}
	list := r.history(10)
	m := local(t, r)
	for _, sha := range list[:3] {
		if _, err := m.Fetch(t.Context(), sha, "refs/heads/main"); err != nil {
			t.Fatal(err)
		}
	}
	next, n := 3, 0
	err := m.Walk(t.Context(), list[1], func(deploy.TreeFile, io.Reader) error {
		n++
		if next == len(list) {
			return nil
		}
		_, err := m.Fetch(t.Context(), list[next], "refs/heads/main")
		next++
		return err
	})
	if n != 41 || err != nil {
		t.Errorf("%d files, %v", n, err)
	}
}

func TestManyShallowCommitsAreFetchedAnew(t *testing.T) {
	r := newRepo(t)
	list := r.history(3)
	m := overHTTP(t, r, 1)
	if _, err := m.Fetch(t.Context(), list[1], "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for i := range 1001 {
		fmt.Fprintf(&b, "%040x\n", i+1)
	}
	if err := os.WriteFile(filepath.Join(m.Dir(), "shallow"), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	last := r.commit("a", "last")
	if got, err := m.Fetch(t.Context(), last, "refs/heads/main"); got != last || err != nil {
		t.Fatalf("%s, %v", got, err)
	}
	if b, err := os.ReadFile(filepath.Join(m.Dir(), "shallow")); err != nil || strings.TrimSpace(string(b)) != last {
		t.Errorf("shallow are %q, %v", b, err)
	}
}

func TestPathOfADamagedRepositoryLeavesTheMirrorAlone(t *testing.T) {
	r := newRepo(t)
	first := r.commit("a", "1")
	m := local(t, r)
	if _, err := m.Fetch(t.Context(), first, "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	second := r.commit("b", "2")
	blob := r.git("rev-parse", second+":b")
	if err := os.Remove(filepath.Join(r.dir, ".git/objects", blob[:2], blob[2:])); err != nil {
		t.Fatal(err)
	}
	_, err := m.Fetch(t.Context(), second, "refs/heads/main")
	assertError(t, err, "fetching example.com/r: the repository at clone_url is damaged: object "+blob, "\x00")
	if err := os.RemoveAll(r.dir); err != nil {
		t.Fatal(err)
	}
	if got := files(t, m, first); got["a"] != "file:1" {
		t.Errorf("the mirror has %v", got)
	}
}
