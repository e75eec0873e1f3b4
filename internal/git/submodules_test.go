package git_test

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"deployhook/internal/git"
)

// family is several repositories below one directory.
type family struct {
	t    *testing.T
	root string
}

func (f *family) repo(name string) *repo {
	f.t.Helper()
	r := &repo{f.t, filepath.Join(f.root, name)}
	(&repo{f.t, f.root}).git("init", "-q", "-b", "main", name)
	return r
}

// gitlink adds a submodule's commit, and its entry in .gitmodules.
func (r *repo) gitlink(path, commit, modules string) string {
	r.t.Helper()
	r.write(".gitmodules", modules)
	r.git("add", ".gitmodules")
	r.git("update-index", "--add", "--cacheinfo", "160000,"+commit+","+path)
	r.git("commit", "-q", "--allow-empty", "-m", "submodule "+path)
	return r.git("rev-parse", "HEAD")
}

func entryOf(name, path, url string) string {
	return fmt.Sprintf("[submodule %q]\n\tpath = %s\n\turl = %s\n", name, path, url)
}

func TestSubmodulesComeBelowTheirPaths(t *testing.T) {
	t.Parallel()
	f := &family{t, t.TempDir()}
	inner, lib, shop := f.repo("inner"), f.repo("group/lib"), f.repo("shop")
	innerOld := inner.commit("deep/x", "inner old")
	inner.commit("deep/x", "inner new")
	lib.write(".gitattributes", "tests export-ignore\n")
	lib.write("tests/t", "test")
	lib.commit("a", "lib")
	libCommit := lib.gitlink("vendor/inner", innerOld, entryOf("inner", "vendor/inner", "../../../inner/.git"))
	lib.commit("later", "not pinned")
	shop.write("main", "shop")
	shop.commit("lib.txt", "not lib")
	modules := entryOf("the lib", "libs/lib", "../../group/lib/.git") + entryOf("again", "libs/b", "../../group/lib/.git")
	shop.gitlink("libs/lib", libCommit, modules)
	commit := shop.gitlink("libs/b", libCommit, modules)
	want := map[string]string{
		"main": "file:shop", "lib.txt": "file:not lib", ".gitmodules": "file:" + modules,
		"libs/lib/a": "file:lib", "libs/lib/tests/t": "file:test", "libs/lib/vendor/inner/deep/x": "file:inner old",
		"libs/lib/.gitattributes": "file:tests export-ignore\n", "libs/lib/.gitmodules": "file:" + entryOf("inner", "vendor/inner", "../../../inner/.git"),
	}
	for name, content := range maps.Clone(want) {
		if rest, ok := strings.CutPrefix(name, "libs/lib/"); ok {
			want["libs/b/"+rest] = content
		}
	}
	released := maps.Clone(want)
	delete(released, "libs/lib/tests/t")
	delete(released, "libs/b/tests/t")
	const password = "s3cr3t-t0ken-value"
	s := serve(t, f.root, password)
	for name, r := range map[string]git.Remote{
		"path": {Repository: "example.com/shop", URL: filepath.Join(f.root, "shop", ".git")},
		"http": {Repository: "example.com/shop", URL: s.URL + "/shop/.git", Token: password},
		"one":  {Repository: "example.com/shop", URL: s.URL + "/shop/.git", Token: password, Depth: 1},
	} {
		m := mirrors(t).Mirror(r)
		if _, err := m.Fetch(t.Context(), commit, "refs/heads/main"); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		sameFiles(t, exported(t, m.Export(commit, git.View{})), want)
		sameFiles(t, exported(t, m.Export(commit, git.View{Rules: true})), released)
		assertError(t, m.Export(commit, git.View{Subdir: "libs/lib"}).Bring(t.Context()), "has no directory \"libs/lib\"", password)
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

func TestSubmodulesThatAreRefused(t *testing.T) {
	t.Parallel()
	f := &family{t, t.TempDir()}
	lib := f.repo("lib")
	libCommit := lib.commit("a", "lib")
	s := serve(t, f.root, "")
	var asked sync.Map
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.URL.Path, r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer other.Close()
	all := mirrors(t)
	const of = `the submodule "sub" of example.com/shop: `
	shop := f.repo("shop")
	m := all.Mirror(git.Remote{Repository: "example.com/shop", URL: s.URL + "/shop/.git", Token: "s3cr3t-t0ken-value"})
	for _, tt := range []struct{ modules, want string }{
		{entryOf("sub", "sub", "ext::sh -c touch% /tmp/x"), of + "its url \"ext::sh -c touch% /tmp/x\" would have a program run to fetch it"},
		{entryOf("sub", "sub", "fd::3"), "would have a program run"},
		{entryOf("sub", "sub", "file:///etc"), of + "its url is a path on this machine, which only a repository on this machine may name"},
		{entryOf("sub", "sub", lib.dir), "its url is a path on this machine"},
		{entryOf("sub", "sub", "--upload-pack=touch /tmp/x"), "has a part that begins like an option"},
		{entryOf("sub", "sub", "-u./x"), "has a part that begins like an option"},
		{entryOf("sub", "sub", "ssh://-oProxyCommand=x/y"), "has a part that begins like an option"},
		{entryOf("sub", "sub", "git@-oProxyCommand=x:y/z"), "has a part that begins like an option"},
		{entryOf("sub", "sub", "../-u"), "has a part that begins like an option"},
		{entryOf("sub", "sub", "https://host/a%0ahost=evil"), "its url has control characters in it"},
		{entryOf("sub", "sub", "git://example.com/x"), "its url begins with git:, and only https, http and ssh are fetched"},
		{entryOf("sub", "sub", "git@other.example.com:acme/lib.git"), "its url is ssh at other.example.com, and the key of the repository is sent to no other host, scheme or port: write a relative url, like ../lib.git"},
		{entryOf("sub", "sub", "lib"), "is none: write https://"},
		{entryOf("sub", "sub", "../../../x"), "goes up beyond the repository's host"},
		{entryOf("sub", "sub", "../a/../b"), "leads to no repository"},
		{entryOf("sub", "sub", ".."), "is none: write https://"},
		{entryOf("sub", "sub", ""), ".gitmodules has no url for it"},
		{"[submodule \"sub\"]\n\tpath = sub\n", ".gitmodules has no url for it"},
		{entryOf("../../x", "sub", s.URL+"/lib/.git"), `.gitmodules of example.com/shop: the name "../../x" leads out of where submodules are kept`},
		{entryOf(`..\\x`, "sub", s.URL+"/lib/.git"), "leads out of where submodules are kept"},
		{entryOf("sub", "../sub", s.URL+"/lib/.git"), `the path "../sub" leads out of the repository`},
		{entryOf("sub", "/sub", s.URL+"/lib/.git"), "leads out of the repository"},
		{entryOf("sub", ".git/modules/x", s.URL+"/lib/.git"), "a commit cannot hold .git"},
		{entryOf("sub", "x/.GIT ", s.URL+"/lib/.git"), "a commit cannot hold .git"},
		{entryOf("sub", "sub", "../../none/.git"), of + "fetching 127.0.0.1/none: not found (404)"},
		{entryOf("sub", "sub", other.URL+"/private.git"), of + "fetching 127.0.0.1/private: the server asks for a login (401)"},
		{"[submodule \"sub\"\n", ".gitmodules of example.com/shop: line 1 is not in git's config format"},
		{entryOf("sub", "sub", s.URL+"/lib/.git") + "\tupdate = !touch /tmp/x\n", ""},
		{entryOf("other", "elsewhere", "ext::x"), ""}, // of nothing that is there
		{"", ""},
	} {
		commit := shop.gitlink("sub", libCommit, tt.modules)
		if _, err := m.Fetch(t.Context(), commit, "refs/heads/main"); err != nil {
			t.Fatal(err)
		}
		err := m.Export(commit, git.View{}).Bring(t.Context())
		if tt.want == "" && err != nil {
			t.Errorf("%q: %v", tt.modules, err)
		}
		if tt.want != "" {
			assertError(t, err, tt.want, "s3cr3t")
		}
		if _, err := m.Changed(t.Context(), strings.Repeat("0", 40), commit); err != nil {
			t.Errorf("%q: its paths: %v", tt.modules, err)
		}
	}
	n := 0
	asked.Range(func(path, login any) bool {
		if n++; login != "" {
			t.Errorf("another host was sent a login at %s", path)
		}
		return true
	})
	if n == 0 {
		t.Error("the other host was never asked: the test shows nothing")
	}
}

func TestSubmodulesWithoutEnd(t *testing.T) {
	f := &family{t, t.TempDir()}
	all, err := git.Open(t.TempDir(), slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	r := f.repo("r")
	commit := r.commit("a", "x")
	for range 12 {
		commit = r.gitlink("sub", commit, entryOf("sub", "sub", "../r"))
	}
	deep := all.Mirror(git.Remote{Repository: "example.com/r", URL: r.dir})
	if _, err := deep.Fetch(t.Context(), commit, ""); err != nil {
		t.Fatal(err)
	}
	assertError(t, deep.Export(commit, git.View{}).Bring(t.Context()), "has more than 200 submodules, or more than 10 in one another", "\x00")

	git.SetModulesMost(t, 20)
	wide := f.repo("wide")
	commit = wide.commit("a", "x")
	for i := range 3 {
		modules := ""
		for n := range 3 {
			modules += entryOf(fmt.Sprint(i, n), fmt.Sprint("s", n), "../wide")
		}
		for n := range 3 {
			wide.git("update-index", "--add", "--cacheinfo", "160000,"+commit+",s"+fmt.Sprint(n))
		}
		commit = wide.gitlink("s0", commit, modules)
	}
	m := all.Mirror(git.Remote{Repository: "example.com/wide", URL: wide.dir})
	if _, err := m.Fetch(t.Context(), commit, ""); err != nil {
		t.Fatal(err)
	}
	assertError(t, m.Export(commit, git.View{}).Bring(t.Context()), "has more than 20 submodules", "\x00")
}
