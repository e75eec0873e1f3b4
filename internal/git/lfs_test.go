package git_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"deployhook/internal/git"
)

// lfsRepo is a repository whose pointers the git-lfs client made.
func lfsRepo(t *testing.T) *repo {
	t.Helper()
	if _, err := exec.LookPath("git-lfs"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("this test needs git-lfs: %v (make tools installs it)", err)
		}
		t.Skip("git-lfs is not installed")
	}
	r := newRepo(t)
	r.git("lfs", "install", "--local", "--skip-smudge")
	r.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
	return r
}

// lfsServer serves a repository below a root with its LFS files beside it.
type lfsServer struct {
	*httptest.Server
	repo *repo

	mu     sync.Mutex
	asked  []int             // how many contents each batch asked for
	got    []string          // paths of downloads
	logins map[string]string // of the last request to each kind of path
	change func(answer map[string]any)
	handle func(w http.ResponseWriter, r *http.Request) bool
}

func serveLFS(t *testing.T, r *repo, password string) *lfsServer {
	t.Helper()
	s := &lfsServer{repo: r, logins: map[string]string{}}
	backend := serve(t, filepath.Dir(r.dir), password)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s.mu.Lock()
		handle, change := s.handle, s.change
		s.mu.Unlock()
		if handle != nil && handle(w, req) {
			return
		}
		switch {
		case strings.HasSuffix(req.URL.Path, "/info/lfs/objects/batch"):
			s.batch(w, req, password, change)
		case strings.HasPrefix(req.URL.Path, "/store/"):
			s.mu.Lock()
			s.got = append(s.got, req.URL.Path)
			s.logins["store"] = req.Header.Get("Authorization") + req.Header.Get("X-Key")
			s.mu.Unlock()
			oid := filepath.Base(req.URL.Path)
			http.ServeFile(w, req, filepath.Join(r.dir, ".git", "lfs", "objects", oid[:2], oid[2:4], oid))
		default:
			backend.Config.Handler.ServeHTTP(w, req)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *lfsServer) batch(w http.ResponseWriter, req *http.Request, password string, change func(map[string]any)) {
	var ask struct {
		Operation string
		Transfers []string
		Objects   []struct {
			Oid  string
			Size int64
		}
	}
	_, p, _ := req.BasicAuth()
	err := json.NewDecoder(req.Body).Decode(&ask)
	switch {
	case password != "" && p != password:
		w.WriteHeader(http.StatusUnauthorized)
		return
	case err != nil || ask.Operation != "download" || len(ask.Objects) > 100 || req.Header.Get("Accept") != "application/vnd.git-lfs+json":
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.asked = append(s.asked, len(ask.Objects))
	s.mu.Unlock()
	objects := []any{}
	for _, o := range ask.Objects {
		objects = append(objects, map[string]any{"oid": o.Oid, "size": o.Size, "actions": map[string]any{"download": map[string]any{
			"href": s.URL + "/store/" + o.Oid, "header": map[string]string{"X-Key": "key-of-" + o.Oid[:4]},
		}}})
	}
	answer := map[string]any{"transfer": "basic", "objects": objects}
	if change != nil {
		change(answer)
	}
	w.Header().Set("Content-Type", "application/vnd.git-lfs+json")
	_ = json.NewEncoder(w).Encode(answer)
}

func (s *lfsServer) mirror(t *testing.T, token string) *git.Mirror {
	t.Helper()
	return mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: s.URL + "/" + filepath.Base(s.repo.dir) + "/.git", Token: token})
}

func TestLFSFilesComeInThePlaceOfTheirPointers(t *testing.T) {
	t.Parallel()
	const password = "s3cr3t-t0ken-value"
	r := lfsRepo(t)
	want := map[string]string{}
	add := func(name, content string) {
		r.write(name, content)
		want[name] = "file:" + content
	}
	for i := range 150 {
		add(fmt.Sprintf("dir%d/%03d.bin", i%3, i), strings.Repeat(fmt.Sprint(i), 100+i))
	}
	add("big.bin", strings.Repeat("0123456789abcdef", 400_000))
	add("empty.bin", "")
	add("same.bin", strings.Repeat("7", 107))
	// What only looks like a pointer, and one that no attribute makes one.
	looks := "version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("a", 64) + "\nsize 12345\n"
	add("pointer.txt", looks)
	add("plain/.gitattributes", "*.bin -filter\n")
	add("plain/a.bin", looks)
	add("out/.gitattributes", "ignored.bin export-ignore\n")
	add("out/ignored.bin", "not released")
	want[".gitattributes"] = "file:*.bin filter=lfs diff=lfs merge=lfs -text\n"
	commit := r.commit("last", "x")
	want["last"] = "file:x"
	if got := r.git("cat-file", "-p", "HEAD:big.bin"); !strings.HasPrefix(got, "version https://git-lfs") {
		t.Fatalf("the client made no pointer: %q", got)
	}
	s := serveLFS(t, r, password)
	for name, m := range map[string]*git.Mirror{"http": s.mirror(t, password), "path": local(t, r)} {
		if _, err := m.Fetch(t.Context(), commit, "refs/heads/main"); err != nil {
			t.Fatal(err)
		}
		released := maps.Clone(want)
		delete(released, "out/ignored.bin")
		sameFiles(t, exported(t, m.Export(commit, git.View{Rules: true})), released)
		if name == "http" {
			if fmt.Sprint(s.asked) != "[100 51]" || len(s.got) != 151 {
				t.Errorf("the server was asked for %v contents, %d were fetched", s.asked, len(s.got))
			}
			if got := s.logins["store"]; !strings.Contains(got, "key-of-") {
				t.Errorf("a download has the login %q", got)
			}
		}
		sameFiles(t, exported(t, m.Export(commit, git.View{})), want)
		if err := m.Export(commit, git.View{}).Bring(t.Context()); err != nil {
			t.Error(err)
		}
		if name == "http" && fmt.Sprint(s.asked) != "[100 51 1]" {
			t.Errorf("after all is here the server was asked for %v contents", s.asked)
		}
		// A damaged cache is found.
		for _, f := range cached(t, m) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			b[0]++
			if err := os.WriteFile(f, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		x := m.Export(commit, git.View{Subdir: "dir1"})
		for range 50 {
			err := x.Walk(t.Context(), drain)
			assertError(t, err, "the LFS file in the cache is damaged; a retry fetches it anew", m.Dir())
		}
		if err := x.Walk(t.Context(), drain); err != nil {
			t.Errorf("after all that was damaged is gone: %v", err)
		}
	}
}

// cached lists the LFS files that are kept.
func cached(t *testing.T, m *git.Mirror) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(strings.TrimSuffix(m.Dir(), ".git")+".lfs", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	half, err := filepath.Glob(filepath.Join(strings.TrimSuffix(m.Dir(), ".git")+".lfs", "*.part"))
	if err != nil || len(half) > 0 {
		t.Errorf("half a file stays: %v, %v", half, err)
	}
	return list
}

func TestLFSServersThatLie(t *testing.T) {
	t.Parallel()
	const password, secret = "s3cr3t-t0ken-value", "key-of-"
	r := lfsRepo(t)
	commit := r.commit("a.bin", "the content")
	oid := strings.TrimPrefix(strings.Split(r.git("cat-file", "-p", "HEAD:a.bin"), "\n")[1], "oid sha256:")
	s := serveLFS(t, r, password)
	var leaked []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		leaked = append(leaked, req.Header.Get("Authorization")+req.Header.Get("X-Key")+req.Header.Get("Referer"))
		fmt.Fprint(w, "the content")
	}))
	defer other.Close()
	away := strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
	object := func(fn func(o, download map[string]any)) func(map[string]any) {
		return func(answer map[string]any) {
			for _, o := range answer["objects"].([]any) {
				o := o.(map[string]any)
				fn(o, o["actions"].(map[string]any)["download"].(map[string]any))
			}
		}
	}
	store := func(fn http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, req *http.Request) bool {
			if strings.HasPrefix(req.URL.Path, "/store/") {
				fn(w, req)
				return true
			}
			return false
		}
	}
	batch := func(fn http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, req *http.Request) bool {
			if strings.HasSuffix(req.URL.Path, "/batch") || strings.HasPrefix(req.URL.Path, "/again") {
				fn(w, req)
				return true
			}
			return false
		}
	}
	say := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	const of = "fetching the LFS files of example.com/r: "
	for name, tt := range map[string]struct {
		change func(map[string]any)
		handle func(http.ResponseWriter, *http.Request) bool
		want   string // empty: it works
	}{
		"the truth":       {nil, nil, ""},
		"another content": {nil, store(say("The content")), of + `"a.bin": what the server sent has another SHA-256 than the pointer says`},
		"too short":       {nil, store(say("the")), of + `"a.bin": what the server sent has 3 bytes, and the pointer says 11`},
		"nothing":         {nil, store(say("")), of + `"a.bin": what the server sent has 0 bytes`},
		"too long":        {nil, store(say(strings.Repeat("the content", 1000))), of + `"a.bin": what the server sent is more than the 11 bytes that the pointer says`},
		"cut": {nil, store(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "11")
			fmt.Fprint(w, "the")
			panic(http.ErrAbortHandler)
		}), of + "the connection was cut"},
		"404 for the content": {nil, store(status(404)), of + `"a.bin": the server does not have it (404): git lfs push --all`},
		"507":                 {nil, store(status(507)), of + `"a.bin": the LFS server has used up its storage or bandwidth (507)`},
		"429":                 {nil, batch(status(429)), of + "the LFS server has been asked too much for now (429)"},
		"500":                 {nil, store(status(500)), of + `"a.bin": the LFS server answered 500`},
		"403":                 {nil, store(status(403)), of + "the server refuses this login (403)"},
		"no LFS there":        {nil, batch(status(404)), of + "there is no LFS server beside the repository (404)"},
		"a page":              {nil, batch(say("<html>hello")), of + "the LFS server's answer is not what the batch API says"},
		"numbers for words":   {nil, batch(say(`{"objects": 3}`)), of + "the LFS server's answer is not what the batch API says"},
		"much": {nil, batch(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"x":"`)
			_, _ = io.Copy(w, io.LimitReader(endless{}, 9<<20))
		}), of + "the LFS server's answer is longer than 8388608 bytes"},
		"nothing about it": {nil, batch(say(`{"objects":[]}`)), of + `"a.bin": the LFS server says nothing of it`},
		"no actions":       {object(func(o, _ map[string]any) { delete(o, "actions") }), nil, of + `"a.bin": the LFS server does not say where it is`},
		"another size":     {object(func(o, _ map[string]any) { o["size"] = 12 }), nil, of + `"a.bin": the LFS server has 12 bytes of it, and its pointer says 11`},
		"an error":         {object(func(o, _ map[string]any) { o["error"] = map[string]any{"code": 422, "message": "no\nwords"} }), nil, of + `"a.bin": the LFS server says (422): no`},
		"not there":        {object(func(o, _ map[string]any) { o["error"] = map[string]any{"code": 404} }), nil, of + `"a.bin": the LFS server does not have it (404): git lfs push --all`},
		"another transfer": {func(a map[string]any) { a["transfer"] = "tus" }, nil, of + `the LFS server wants the transfer "tus"`},
		"a file's address": {object(func(_, d map[string]any) { d["href"] = "file:///etc/passwd" }), nil, of + `"a.bin": the LFS server names an address that is none`},
		"no address":       {object(func(_, d map[string]any) { d["href"] = "http://[" }), nil, of + `"a.bin": the LFS server names an address that is none`},
		"a path":           {object(func(_, d map[string]any) { d["href"] = "/store/" + oid }), nil, ""},
		"another host":     {object(func(_, d map[string]any) { d["href"] = away; delete(d, "header") }), nil, ""},
		"a redirect away":  {nil, store(func(w http.ResponseWriter, req *http.Request) { http.Redirect(w, req, away, http.StatusFound) }), ""},
		"redirects without end": {nil, store(func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, req.URL.Path+"x", http.StatusFound)
		}), of + `"a.bin": the server redirects more than 5 times`},
		"a batch elsewhere": {nil, batch(func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, away+"/again", http.StatusTemporaryRedirect)
		}), of + "the server redirects to localhost"},
		"a batch redirected": {nil, batch(func(w http.ResponseWriter, req *http.Request) { http.Redirect(w, req, "/again", http.StatusFound) }), of + "the server redirects in a way that loses what it was asked"},
		"headers without number": {object(func(_, d map[string]any) {
			h := map[string]string{}
			for i := range 100 {
				h[fmt.Sprint("X-", i)] = "x"
			}
			d["header"] = h
		}), nil, of + `"a.bin": the LFS server wants more than 64 headers`},
		"a header that is none": {object(func(_, d map[string]any) { d["header"] = map[string]string{"X-Key": "a\r\nb"} }), nil, of},
	} {
		s.mu.Lock()
		s.change, s.handle = tt.change, tt.handle
		s.mu.Unlock()
		m := s.mirror(t, password)
		if _, err := m.Fetch(t.Context(), commit, "refs/heads/main"); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		x := m.Export(commit, git.View{})
		if tt.want == "" {
			if got := exported(t, x); got["a.bin"] != "file:the content" {
				t.Errorf("%s: the file is %q", name, got["a.bin"])
			}
			continue
		}
		_, _, err := x.Measure(t.Context())
		for _, never := range []string{password, secret, s.URL, oid} {
			assertError(t, err, tt.want, never)
		}
		if list := cached(t, m); len(list) > 0 {
			t.Errorf("%s: %v stays", name, list)
		}
		if t.Failed() {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if len(leaked) != 2 || strings.Join(leaked, "") != "" {
		t.Errorf("another host was told %q", leaked)
	}
	m := s.mirror(t, "")
	if _, err := m.Fetch(t.Context(), commit, "refs/heads/main"); err == nil {
		t.Error("without a token the commit comes")
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte("x"), len(p))), nil }

func TestLFSAddressesOfARepository(t *testing.T) {
	t.Parallel()
	r := lfsRepo(t)
	s := serveLFS(t, r, "")
	for text, want := range map[string]string{
		"[lfs]\n\turl = " + s.URL + "/elsewhere/info/lfs/\n":         "",
		"[lfs]\n\turl = \"" + s.URL + "\"/x/info/lfs ; there":        "",
		"[lfs]\n\tconcurrenttransfers = 3\n":                         "",
		"[lfs]\nurl = https://other.example.com/info/lfs":            "lfs.url in .lfsconfig leads to another host, other.example.com, where nothing is fetched from",
		"[lfs]\nurl = " + strings.Replace(s.URL, "http", "https", 1): "leads to another host",
		"[lfs]\nurl = file:///srv/lfs":                               "is no address of an LFS server",
		"[lfs]\nurl = --upload-pack=x":                               "is no address of an LFS server",
		"[lfs\nurl = x":                                              ".lfsconfig cannot be read: line 1 is not in git's config format",
	} {
		r.write(".lfsconfig", text)
		commit := r.commit("a.bin", "content for "+text)
		m := s.mirror(t, "")
		if _, err := m.Fetch(t.Context(), commit, "refs/heads/main"); err != nil {
			t.Fatal(err)
		}
		err := m.Export(commit, git.View{}).Bring(t.Context())
		if want != "" {
			assertError(t, err, want, "\x00")
		} else if err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// What is beyond the bound goes, the longest unused first, and never what the
// commit needs.
func TestLFSFilesThatAreKeptHaveABound(t *testing.T) {
	git.SetLFSCacheMost(t, 3000)
	r := lfsRepo(t)
	m := local(t, r)
	for i := range 6 {
		commit := r.commit("a.bin", strings.Repeat(fmt.Sprint(i), 1000))
		if _, err := m.Fetch(t.Context(), commit, "refs/heads/main"); err != nil {
			t.Fatal(err)
		}
		if err := m.Export(commit, git.View{}).Bring(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(cached(t, m)); n != min(i+1, 3) {
			t.Errorf("after %d files %d are kept", i+1, n)
		}
	}
	commit := r.commit("b.bin", strings.Repeat("b", 9000))
	if _, err := m.Fetch(t.Context(), commit, "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	if got := exported(t, m.Export(commit, git.View{})); len(got["b.bin"]) != 9005 || len(got["a.bin"]) != 1005 {
		t.Errorf("the files are %d and %d bytes long", len(got["a.bin"]), len(got["b.bin"]))
	}
}

func TestLFSOverSSH(t *testing.T) {
	t.Parallel()
	r := lfsRepo(t)
	commit := r.commit("a.bin", "the content")
	s := serveLFS(t, r, "")
	login, key := newKey(t)
	dir := t.TempDir()
	answer := filepath.Join(dir, "answer")
	script := "#!/bin/sh\n[ \"$2\" = download ] && [ -d \"$1\" ] || exit 3\ncat '" + answer + "'\n[ -s '" + answer + "' ] || { echo 'remote: LFS is switched off' >&2; exit 1; }\n"
	if err := os.WriteFile(filepath.Join(dir, "git-lfs-authenticate"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	forced := filepath.Join(dir, "forced")
	if err := os.WriteFile(forced, []byte("#!/bin/sh\nPATH='"+dir+"':$PATH\neval \"$SSH_ORIGINAL_COMMAND\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	addr, known := sshd(t, login, "ForceCommand "+forced)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		`{"href": "` + s.URL + `/x/info/lfs", "header": {"Authorization": "RemoteAuth s3cr3t-w0rd"}, "expires_in": 60}`: "",
		`{"href": "file:///x"}`:                "git-lfs-authenticate names no LFS server over there",
		`hello`:                                "what git-lfs-authenticate says over there is not what it should be",
		``:                                     "the server says: LFS is switched off",
		`{"x":"` + strings.Repeat("x", 70_000): "git-lfs-authenticate says more than 65536 bytes",
	} {
		if err := os.WriteFile(answer, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: fmt.Sprintf("ssh://%s@127.0.0.1:%s%s", me.Username, port, r.dir), SSHKey: key, KnownHosts: []byte(known)})
		if _, err := m.Fetch(t.Context(), commit, "refs/heads/main"); err != nil {
			t.Fatal(err)
		}
		x := m.Export(commit, git.View{})
		if want != "" {
			assertError(t, x.Bring(t.Context()), "fetching the LFS files of example.com/r: "+want, "s3cr3t")
			continue
		}
		if got := exported(t, x); got["a.bin"] != "file:the content" {
			t.Errorf("the file is %q", got["a.bin"])
		}
	}
}
