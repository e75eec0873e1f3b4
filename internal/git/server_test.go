package git_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"deployhook/internal/git"
)

// through puts a proxy before a git server that changes what it answers.
func through(t *testing.T, to string, change func(*http.Response) error) *httptest.Server {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	p := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(u) },
		ModifyResponse: change,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	return s
}

func isPack(r *http.Response) bool { return strings.HasSuffix(r.Request.URL.Path, "/git-upload-pack") }

func TestPackCutOrDamagedOnTheWay(t *testing.T) {
	r := newRepo(t)
	r.write("big", strings.Repeat("0123456789abcdef", 1000)+fmt.Sprint(time.Now()))
	sha := r.commit("a", "1")
	s := serve(t, filepath.Dir(r.dir), "")
	for name, tt := range map[string]struct {
		change func(b []byte) (io.Reader, bool) // and whether the length is said
		want   string
	}{
		"cut in the middle of a known length": {func(b []byte) (io.Reader, bool) { return bytes.NewReader(b[:len(b)/2]), true }, "fetching example.com/r: the connection was cut"},
		"cut between two packets":             {func(b []byte) (io.Reader, bool) { return bytes.NewReader(b[:8]), false }, "fetching example.com/r: the connection was cut"},
		"a bit flipped": {func(b []byte) (io.Reader, bool) {
			b[len(b)-60] ^= 1
			return bytes.NewReader(b), false
		}, "fetching example.com/r: what the server sent is damaged: "},
		"a wrong checksum": {func(b []byte) (io.Reader, bool) {
			b[len(b)-20] ^= 1
			return bytes.NewReader(b), false
		}, "fetching example.com/r: what the server sent is damaged: "},
		"something else":  {func([]byte) (io.Reader, bool) { return strings.NewReader("0008NAK\nPACKgarbage"), false }, "fetching example.com/r: "},
		"nothing":         {func([]byte) (io.Reader, bool) { return strings.NewReader(""), false }, "fetching example.com/r: the connection was cut"},
		"an error packet": {func([]byte) (io.Reader, bool) { return strings.NewReader("0018ERR access\x1b[31m denied"), false }, "fetching example.com/r: "},
	} {
		t.Run(name, func(t *testing.T) {
			p := through(t, s.URL, func(res *http.Response) error {
				if !isPack(res) {
					return nil
				}
				b, err := io.ReadAll(res.Body)
				if err != nil {
					return err
				}
				body, said := tt.change(b)
				res.Body = io.NopCloser(body)
				res.Header.Del("Content-Length")
				if said {
					res.Header.Set("Content-Length", fmt.Sprint(len(b)))
				}
				return nil
			})
			m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: p.URL + "/" + filepath.Base(r.dir) + "/.git", Token: "s3cr3t-t0ken-value"})
			_, err := m.Fetch(t.Context(), sha, "refs/heads/main")
			assertError(t, err, tt.want, p.URL)
			assertError(t, err, tt.want, "\x1b")
			left, err := filepath.Glob(filepath.Join(m.Dir(), "objects", "pack", "*"))
			if err != nil || len(left) > 0 {
				t.Errorf("the mirror has %v, %v", left, err)
			}
		})
	}
}

func TestStallEndsLongBeforeTheDeadline(t *testing.T) {
	git.SetStallTime(t, 300*time.Millisecond)
	r := newRepo(t)
	sha := r.commit("a", "1")
	s := serve(t, filepath.Dir(r.dir), "")
	for name, stall := range map[string]func(*http.Response) bool{
		"before the refs": func(res *http.Response) bool { return !isPack(res) },
		"in the pack":     isPack,
	} {
		t.Run(name, func(t *testing.T) {
			end := make(chan struct{})
			p := through(t, s.URL, func(res *http.Response) error {
				if stall(res) {
					first := io.LimitReader(res.Body, 10)
					res.Body = io.NopCloser(io.MultiReader(first, waiting(end)))
				}
				return nil
			})
			defer close(end) // before the proxy waits for its answers
			m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: p.URL + "/" + filepath.Base(r.dir) + "/.git"})
			_, err := m.Fetch(t.Context(), sha, "refs/heads/main")
			assertError(t, err, "fetching example.com/r: the server stopped sending: nothing came for 300ms", p.URL)
		})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: "http://" + l.Addr().String() + "/r"})
	_, err = m.Resolve(t.Context(), "main")
	assertError(t, err, "the server stopped sending", l.Addr().String())
}

// waiting reads nothing until it is closed.
type waiting chan struct{}

func (w waiting) Read([]byte) (int, error) {
	<-w
	return 0, io.EOF
}

func TestRedirects(t *testing.T) {
	r := newRepo(t)
	sha := r.commit("a", "1")
	const token = "s3cr3t-t0ken-value"
	home, away := serve(t, filepath.Dir(r.dir), token), serve(t, filepath.Dir(r.dir), "")
	path := "/" + filepath.Base(r.dir) + "/.git"
	var leaked atomic.Int64
	spy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != "" {
			leaked.Add(1)
		}
		w.Header().Set("WWW-Authenticate", "Basic")
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer spy.Close()
	port := func(s *httptest.Server) string { return s.URL[strings.LastIndex(s.URL, ":"):] }
	for _, tt := range []struct{ name, to, want string }{
		{"renamed at home", path, ""},
		{"to another host that is open", "http://localhost" + port(away) + path, ""},
		{"to another host that wants a login", "http://localhost" + port(spy) + path, "the server redirects to localhost, where the login is not sent: if that is right, write that address as clone_url"},
		{"to another port that wants a login", "http://127.0.0.1" + port(spy) + path, "the server redirects to 127.0.0.1, where the login is not sent"},
		{"to itself for ever", "/old", "fetching example.com/r: "},
		{"to a file", "file:///etc/passwd", "fetching example.com/r: "},
		{"to another protocol", "ftp://127.0.0.1/x", "fetching example.com/r: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			front := through(t, home.URL, nil)
			old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if rest, ok := strings.CutPrefix(req.URL.Path, "/old"); ok {
					w.Header().Set("Location", tt.to+rest+"?"+req.URL.RawQuery)
					w.WriteHeader(http.StatusMovedPermanently)
					return
				}
				front.Config.Handler.ServeHTTP(w, req)
			}))
			defer old.Close()
			m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: old.URL + "/old", Token: token})
			got, err := m.Fetch(t.Context(), sha, "refs/heads/main")
			if tt.want == "" {
				if got != sha || err != nil {
					t.Errorf("%s, %v", got, err)
				}
				return
			}
			assertError(t, err, tt.want, token)
			assertError(t, err, tt.want, old.URL)
		})
	}
	if leaked.Load() > 0 {
		t.Error("a redirect took the credentials with it")
	}
}

func TestUserAndTokenAreSent(t *testing.T) {
	var user, pass string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, pass, _ = r.BasicAuth()
		w.WriteHeader(http.StatusForbidden)
	}))
	defer s.Close()
	for _, tt := range []struct{ name, token, user, pass string }{
		{"", "a-token", "x-access-token", "a-token"}, {"oauth2", "a:b@c/d", "oauth2", "a:b@c/d"}, {"", "", "", ""}, {"alone", "", "", ""},
	} {
		m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: s.URL + "/r", Username: tt.name, Token: tt.token})
		_, err := m.Resolve(t.Context(), "main")
		assertError(t, err, "fetching example.com/r: the server refuses this login (403): the token may not read the repository", "a:b@c")
		if user != tt.user || pass != tt.pass {
			t.Errorf("%+v: the server got %q, %q", tt, user, pass)
		}
	}
}

// certificate makes one for the names, signed by itself.
func certificate(t *testing.T, end time.Time, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: end.Add(-48 * time.Hour), NotAfter: end,
		DNSNames: names, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestCertificatesThatAreNotTaken(t *testing.T) {
	r := newRepo(t)
	sha := r.commit("a", "1")
	backend := serve(t, filepath.Dir(r.dir), "")
	path := "/" + filepath.Base(r.dir) + "/.git"
	for name, tt := range map[string]struct {
		cert tls.Certificate
		want string
	}{
		"self-signed": {certificate(t, time.Now().Add(time.Hour), "localhost"), "the server's TLS certificate is signed by nobody whom this machine trusts: install"},
		"expired":     {certificate(t, time.Now().Add(-time.Hour), "localhost"), "the server's TLS certificate has expired, or this machine's clock is wrong"},
		"wrong name":  {certificate(t, time.Now().Add(time.Hour), "other.example.com"), `the server's TLS certificate is for another name than "localhost"`},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewUnstartedServer(backend.Config.Handler)
			s.TLS = &tls.Config{Certificates: []tls.Certificate{tt.cert}}
			s.Config.ErrorLog = quiet
			s.StartTLS()
			defer s.Close()
			m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: strings.Replace(s.URL, "127.0.0.1", "localhost", 1) + path})
			_, err := m.Fetch(t.Context(), sha, "refs/heads/main")
			assertError(t, err, "fetching example.com/r: "+tt.want, s.URL)
		})
	}
	m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: strings.Replace(backend.URL, "http:", "https:", 1) + path})
	_, err := m.Fetch(t.Context(), sha, "refs/heads/main")
	assertError(t, err, "the server does not speak TLS there", backend.URL)
}

func TestServersThatAreNotThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>hello") }))
	defer page.Close()
	for url, want := range map[string]string{
		"http://" + addr + "/r":                      "fetching example.com/r: cannot connect to " + addr + ": connection refused",
		"https://no-such-host.invalid/r":             `fetching example.com/r: the host name "no-such-host.invalid" cannot be resolved`,
		page.URL + "/r":                              "fetching example.com/r: what answers at this address does not speak git: is the address right?",
		filepath.Join(t.TempDir(), "no", "such"):     "fetching example.com/r: there is no git repository at clone_url",
		"ftp://example.com/r":                        "example.com/r cannot be fetched over ftp: https, ssh and paths can",
		"http://user:passw0rd-secret@" + addr + "/r": "fetching example.com/r: cannot connect to",
	} {
		m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: url})
		_, err := m.Fetch(t.Context(), strings.Repeat("1", 40), "refs/heads/main")
		assertError(t, err, want, "passw0rd")
		_, err = m.Resolve(t.Context(), "main")
		assertError(t, err, want, "passw0rd")
	}
}

func TestServerThatRepeatsTheCredentials(t *testing.T) {
	const token = "s3cr3t/t0ken value"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, p, _ := r.BasicAuth()
		text := "ERR " + p + " " + r.Header.Get("Authorization") + " " + url.QueryEscape(p) + "\n"
		fmt.Fprintf(w, "001e# service=git-upload-pack\n0000%04x%s", len(text)+4, text)
	}))
	defer s.Close()
	m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: s.URL + "/r", Token: token})
	_, err := m.Fetch(t.Context(), strings.Repeat("1", 40), "refs/heads/main")
	assertError(t, err, "fetching example.com/r: the server says: *** Basic *** ***", token)
}

func TestCanceledFetchIsNoError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if c, err := l.Accept(); err == nil {
			defer c.Close()
			cancel()
			<-t.Context().Done()
		}
	}()
	m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: "http://" + l.Addr().String() + "/r"})
	if _, err := m.Fetch(ctx, strings.Repeat("1", 40), ""); err != context.Canceled {
		t.Errorf("a canceled fetch gives %v", err)
	}
}

func TestTransportsNeverRunGit(t *testing.T) {
	r := newRepo(t)
	sha := r.commit("a", "1")
	m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: r.dir})
	t.Setenv("PATH", t.TempDir())
	if got, err := m.Fetch(t.Context(), sha, "refs/heads/main"); got != sha || err != nil {
		t.Errorf("a path, without git: %s, %v", got, err)
	}
	if got := files(t, m, sha); got["a"] != "file:1" {
		t.Errorf("the files are %v", got)
	}
	if _, err := os.Stat(filepath.Join(m.Dir(), "hooks")); err == nil {
		t.Error("the mirror has hooks")
	}
}
