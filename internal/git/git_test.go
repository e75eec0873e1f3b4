package git_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/git"
)

// repo is a repository that the git command made.
type repo struct {
	t   testing.TB
	dir string
}

func newRepo(t *testing.T, args ...string) *repo {
	t.Helper()
	r := &repo{t, t.TempDir()}
	r.git(append([]string{"init", "-q", "-b", "main"}, args...)...)
	return r
}

func (r *repo) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (r *repo) write(name, content string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// commit writes a file and commits everything.
func (r *repo) commit(name, content string) string {
	r.t.Helper()
	r.write(name, content)
	r.git("add", "-A")
	r.git("commit", "-q", "-m", "change "+name)
	return r.git("rev-parse", "HEAD")
}

func mirrors(t *testing.T) *git.Mirrors {
	t.Helper()
	m, err := git.Open(t.TempDir(), slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// serve serves repositories below root with git's own HTTP backend. A password
// of "" asks for none.
func serve(t testing.TB, root, password string) *httptest.Server {
	t.Helper()
	backend, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	h := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(backend)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, p, _ := r.BasicAuth(); password != "" && p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// serveOld serves as servers do that know only protocol 0.
func serveOld(t testing.TB, root string) *httptest.Server {
	t.Helper()
	h := serve(t, root, "").Config.Handler
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Git-Protocol")
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// everywhere runs a test over a path and over HTTP, in both protocols.
func everywhere(t *testing.T, r *repo, fn func(t *testing.T, m *git.Mirror)) {
	t.Helper()
	t.Run("path", func(t *testing.T) {
		fn(t, mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: r.dir}))
	})
	t.Run("http", func(t *testing.T) {
		s := serve(t, filepath.Dir(r.dir), "")
		fn(t, mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: s.URL + "/" + filepath.Base(r.dir) + "/.git"}))
	})
	t.Run("protocol 0", func(t *testing.T) {
		s := serveOld(t, filepath.Dir(r.dir))
		fn(t, mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: s.URL + "/" + filepath.Base(r.dir) + "/.git"}))
	})
}

func files(t *testing.T, m *git.Mirror, commit string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := m.Walk(t.Context(), commit, func(f deploy.TreeFile, r io.Reader) error {
		b, err := io.ReadAll(r)
		if int64(len(b)) != f.Size {
			t.Errorf("%q has %d bytes, not %d", f.Path, len(b), f.Size)
		}
		got[f.Path] = string(f.Mode) + ":" + string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestPushedCommitIsFetchedHoweverItWasPushed(t *testing.T) {
	r := newRepo(t)
	first := r.commit("a", "1")
	second := r.commit("a", "2")
	third := r.commit("b", "3")
	r.git("checkout", "-q", "-b", "gone")
	gone := r.commit("c", "gone")
	r.git("checkout", "-q", "main")
	r.git("branch", "-D", "gone")
	r.git("tag", "-a", "v1", "-m", "one", second)
	tag := r.git("rev-parse", "v1")
	r.git("checkout", "-q", "-b", "old", first)
	r.commit("d", "4")
	r.git("checkout", "-q", "main")
	r.git("merge", "-q", "--no-ff", "old", "-m", "merge an old branch")
	merge := r.git("rev-parse", "HEAD")
	r.git("reset", "-q", "--hard", first)
	forced := r.commit("a", "forced")
	r.git("config", "uploadpack.allowAnySHA1InWant", "true")

	everywhere(t, r, func(t *testing.T, m *git.Mirror) {
		for _, tt := range []struct{ name, sha, ref, want string }{
			{"tip", forced, "refs/heads/main", forced},
			{"no tip any more", second, "refs/heads/main", second},
			{"forced away", third, "refs/heads/main", third},
			{"a merge that no branch has", merge, "refs/heads/main", merge},
			{"its branch deleted", gone, "refs/heads/gone", gone},
			{"annotated tag", tag, "refs/tags/v1", second},
			{"without a ref", third, "", third},
		} {
			got, err := m.Fetch(t.Context(), tt.sha, tt.ref)
			if err != nil || got != tt.want {
				t.Errorf("%s: %s, %v; want %s", tt.name, got, err, tt.want)
			}
		}
		if got := files(t, m, third); got["a"] != "file:2" || got["b"] != "file:3" || len(got) != 2 {
			t.Errorf("the files of %s are %v", third, got)
		}
		for _, tt := range []struct {
			a, d string
			want bool
		}{{first, forced, true}, {second, forced, false}, {first, first, true}, {forced, first, false}, {second, merge, true}} {
			if got, err := m.IsAncestor(t.Context(), tt.a, tt.d); got != tt.want || err != nil {
				t.Errorf("IsAncestor(%.7s, %.7s) = %v, %v; want %v", tt.a, tt.d, got, err, tt.want)
			}
		}
		if _, err := m.IsAncestor(t.Context(), strings.Repeat("1", 40), first); !errors.Is(err, git.ErrHistory) {
			t.Errorf("a commit that is not here: %v, want %v", err, git.ErrHistory)
		}
		paths, err := m.Changed(t.Context(), second, merge)
		if err != nil || strings.Join(paths, " ") != "b d" {
			t.Errorf("changed paths are %v, %v", paths, err)
		}
		if paths, err = m.Changed(t.Context(), deploy.ZeroCommit, third); err != nil || strings.Join(paths, " ") != "a b" {
			t.Errorf("paths of a new branch are %v, %v", paths, err)
		}
		for ref, want := range map[string]string{"": forced, "main": forced, "refs/heads/main": forced, "v1": tag} {
			if got, err := m.Resolve(t.Context(), ref); got != want || err != nil {
				t.Errorf("Resolve(%q) = %s, %v; want %s", ref, got, err, want)
			}
		}
		if _, err := m.Resolve(t.Context(), "none"); err == nil || err.Error() != "example.com/r has no none" {
			t.Errorf("an unknown ref: %v", err)
		}
	})
}

func TestServerThatRefusesUnadvertisedObjects(t *testing.T) {
	r := newRepo(t)
	first := r.commit("a", "1")
	r.commit("a", "2")
	r.git("checkout", "-q", "--orphan", "away")
	away := r.commit("z", "z")
	r.git("checkout", "-q", "main")
	r.git("branch", "-D", "away")
	s := serveOld(t, filepath.Dir(r.dir))
	m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: s.URL + "/" + filepath.Base(r.dir) + "/.git"})
	if got, err := m.Fetch(t.Context(), first, "refs/heads/main"); got != first || err != nil {
		t.Errorf("a commit behind the tip: %s, %v", got, err)
	}
	_, err := m.Fetch(t.Context(), away, "refs/heads/away")
	if err == nil || !strings.Contains(err.Error(), "is not in example.com/r any more") {
		t.Errorf("a commit that the server keeps to itself: %v", err)
	}
}

func TestTreesComeAsTheyAre(t *testing.T) {
	r := newRepo(t)
	r.write("plain", "x")
	r.write("dir/run", "#!/bin/sh\n")
	r.write("odd \n name\xff", "odd")
	r.write("-rf", "dash")
	if err := os.Chmod(filepath.Join(r.dir, "dir/run"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(r.dir, "link")); err != nil {
		t.Fatal(err)
	}
	r.write("big", strings.Repeat("0123456789", 600_000))
	commit := r.commit("last", "")
	r.git("checkout", "-q", "--orphan", "empty")
	r.git("rm", "-rfq", ".")
	r.git("commit", "-q", "--allow-empty", "-m", "empty")
	empty := r.git("rev-parse", "HEAD")
	everywhere(t, r, func(t *testing.T, m *git.Mirror) {
		if _, err := m.Fetch(t.Context(), commit, "refs/heads/main"); err != nil {
			t.Fatal(err)
		}
		got := files(t, m, commit)
		for name, want := range map[string]string{"plain": "file:x", "dir/run": "executable:#!/bin/sh\n", "odd \n name\xff": "file:odd", "-rf": "file:dash", "link": "symlink:/etc/passwd", "last": "file:"} {
			if got[name] != want {
				t.Errorf("%q is %q, want %q", name, got[name], want)
			}
		}
		if len(got["big"]) != len("file:")+6_000_000 {
			t.Errorf("the big file has %d bytes", len(got["big"]))
		}
		n, size, err := m.Measure(t.Context(), commit)
		if n != len(got) || size < 6_000_000 || err != nil {
			t.Errorf("measured %d files, %d bytes, %v", n, size, err)
		}
		if _, err := m.Fetch(t.Context(), empty, "refs/heads/empty"); err != nil {
			t.Fatal(err)
		}
		if got := files(t, m, empty); len(got) != 0 {
			t.Errorf("the empty tree has %v", got)
		}
		c, err := m.Commit(t.Context(), commit)
		if err != nil || c.Message != "change last\n" || c.Author != "a" {
			t.Errorf("the commit is %+v, %v", c, err)
		}
	})
}

// plumb makes a commit of a tree that git itself would not make.
func (r *repo) plumb(mode, name, hash string) string {
	r.t.Helper()
	cmd := exec.Command("git", "hash-object", "-t", "tree", "-w", "--stdin", "--literally")
	cmd.Dir = r.dir
	raw, err := exec.Command("sh", "-c", "printf %s "+hash+" | xxd -r -p").Output()
	if err != nil || len(raw) != 20 {
		raw = make([]byte, 20)
		for i := range raw {
			var b byte
			for _, c := range []byte(hash[2*i : 2*i+2]) {
				b = b<<4 | byte(strings.IndexByte("0123456789abcdef", c))
			}
			raw[i] = b
		}
	}
	cmd.Stdin = bytes.NewReader(append([]byte(mode+" "+name+"\x00"), raw...))
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatal(err)
	}
	commit := r.git("commit-tree", "-m", "odd", strings.TrimSpace(string(out)))
	r.git("update-ref", "refs/heads/odd", commit)
	return commit
}

func TestTrapsInTreesAreRefused(t *testing.T) {
	r := newRepo(t)
	r.commit("a", "x")
	blob := r.git("rev-parse", "HEAD:a")
	tree := r.git("rev-parse", "HEAD^{tree}")
	for _, tt := range []struct{ mode, name, hash, want string }{
		{"40000", ".git", tree, "cannot hold .git"},
		{"40000", ".GIT", tree, "cannot hold .git"},
		{"40000", ".git ", tree, "cannot hold .git"},
		{"40000", "git~1", tree, "cannot hold .git"},
		{"40000", ".g\u200cit", tree, "cannot hold .git"},
		{"40000", "..", tree, "not the name of a file"},
		{"100644", "a/../b", blob, "no slash"},
	} {
		commit := r.plumb(tt.mode, tt.name, tt.hash)
		m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: r.dir})
		if _, err := m.Fetch(t.Context(), commit, "refs/heads/odd"); err != nil {
			if !strings.Contains(tt.name, "/") && tt.name != ".." {
				t.Errorf("%q: %v", tt.name, err)
			}
			continue // go-git itself refuses some of these
		}
		err := m.Walk(t.Context(), commit, func(deploy.TreeFile, io.Reader) error { return nil })
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestServersThatRefuseAreExplained(t *testing.T) {
	r := newRepo(t)
	sha := r.commit("a", "1")
	private := serve(t, filepath.Dir(r.dir), "s3cr3t-t0ken-value")
	path := "/" + filepath.Base(r.dir) + "/.git"
	m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: private.URL + path, Token: "s3cr3t-t0ken-value"})
	if got, err := m.Fetch(t.Context(), sha, "refs/heads/main"); got != sha || err != nil {
		t.Errorf("with the right token: %s, %v", got, err)
	}
	m = mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: private.URL + path, Token: "wr0ng-t0ken-value"})
	_, err := m.Fetch(t.Context(), sha, "refs/heads/main")
	assertError(t, err, "asks for a login (401)", "wr0ng-t0ken-value")

	var leaked string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked += r.Header.Get("Authorization")
		w.WriteHeader(http.StatusNotFound)
	}))
	defer other.Close()
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"403": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, "refuses this login (403)"},
		"404": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, "not found (404)"},
		"500": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, "the server answered 500"},
		"cut": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "fetching example.com/r: "},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, strings.Replace(other.URL, "127.0.0.1", "localhost", 1)+r.URL.RequestURI(), http.StatusFound)
		}, "fetching example.com/r: "},
		"nonsense": {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>hello") }, "fetching example.com/r: "},
	} {
		s := httptest.NewServer(tt.handler)
		m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: s.URL + path, Token: "s3cr3t-t0ken-value"})
		_, err := m.Fetch(t.Context(), sha, "refs/heads/main")
		assertError(t, err, tt.want, "s3cr3t-t0ken-value")
		if err != nil && strings.Contains(err.Error(), s.URL) {
			t.Errorf("%s: %v has the address in it", name, err)
		}
		s.Close()
	}
	if leaked != "" {
		t.Error("a redirect to another host took the credentials with it")
	}
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	defer tls.Close()
	m = mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: tls.URL + path})
	_, err = m.Fetch(t.Context(), sha, "refs/heads/main")
	assertError(t, err, "TLS certificate is signed by nobody whom this machine trusts", tls.URL)
}

// quiet takes what servers of tests log of the handshakes that are meant to fail.
var quiet = log.New(io.Discard, "", 0)

func assertError(t *testing.T, err error, want, secret string) {
	t.Helper()
	switch {
	case err == nil || !strings.Contains(err.Error(), want):
		t.Errorf("got %v, want %q", err, want)
	case strings.Contains(err.Error(), secret):
		t.Errorf("%v tells what it must not", err)
	case strings.Contains(err.Error(), "\n"):
		t.Errorf("%q has several lines", err)
	}
}

func TestStalledServerEndsWithTheContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: "http://" + l.Addr().String() + "/r"})
	if _, err := m.Fetch(ctx, strings.Repeat("1", 40), "refs/heads/main"); err == nil {
		t.Error("a server that never answers gave a commit")
	}
}

func TestEmptyAndSHA256RepositoriesAreRefused(t *testing.T) {
	empty := newRepo(t)
	m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: empty.dir})
	_, err := m.Fetch(t.Context(), strings.Repeat("1", 40), "refs/heads/main")
	assertError(t, err, "example.com/r is empty", "\x00")
	wide := newRepo(t, "--object-format=sha256")
	wide.commit("a", "1")
	m = mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: wide.dir})
	_, err = m.Fetch(t.Context(), strings.Repeat("1", 40), "refs/heads/main")
	assertError(t, err, "SHA-256", "\x00")
}

func TestDamagedMirrorIsMadeAnew(t *testing.T) {
	r := newRepo(t)
	first := r.commit("a", "1")
	dir := t.TempDir()
	all, err := git.Open(dir, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	m := all.Mirror(git.Remote{Repository: "example.com/r", URL: r.dir})
	if _, err := m.Fetch(t.Context(), first, "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"*.git/objects/pack/*.pack", "*.git/objects/pack/*.idx", "*.git/config", "*.git/HEAD"} {
		list, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(list) == 0 {
			t.Fatalf("%s: %v, %v", pattern, list, err)
		}
		for _, f := range list {
			_ = os.Chmod(f, 0o644)
			if err := os.WriteFile(f, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		next := r.commit("a", pattern)
		if got, err := m.Fetch(t.Context(), next, "refs/heads/main"); got != next || err != nil {
			t.Errorf("with an empty %s: %s, %v", pattern, got, err)
		}
		if got := files(t, m, next); got["a"] != "file:"+pattern {
			t.Errorf("with an empty %s the files are %v", pattern, got)
		}
	}
}

func TestManyFetchesAtOnce(t *testing.T) {
	r := newRepo(t)
	var commits []string
	for i := range 8 {
		commits = append(commits, r.commit("a", strings.Repeat("x", i)))
	}
	m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: r.dir})
	errs := make(chan error, len(commits))
	for _, c := range commits {
		go func() {
			_, err := m.Fetch(t.Context(), c, "refs/heads/main")
			errs <- err
		}()
	}
	for range commits {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
