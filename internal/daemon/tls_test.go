package daemon_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// certify writes a certificate for loopback and its key, signed by itself. Its
// number tells it from others.
func certify(t *testing.T, certificate, key string, number int64) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(number), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		DNSNames: []string{"localhost", "deploy.example.com"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, b := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// secure is a client that asks for no certificate in particular: each test
// looks at the one it got.
func secure(most uint16) *http.Client {
	return &http.Client{Timeout: 90 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: most}, DisableKeepAlives: true, ForceAttemptHTTP2: true,
	}}
}

// begin starts a command that becomes the daemon, and waits until its address,
// https:// or http:// and it, is ready.
func (s *site) begin(cmd *exec.Cmd, c *http.Client, scheme string) {
	s.t.Helper()
	s.log = &output{}
	s.cmd = cmd
	s.cmd.Env = append(os.Environ(), "TEST_SECRET="+secret)
	s.cmd.Stderr = s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for _, f := range cmd.ExtraFiles { // else the socket would outlive its daemon
		f.Close()
	}
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) { _ = cmd.Wait(); close(exited) }(s.cmd, s.exited)
	s.until("the daemon is ready", func() bool {
		res, err := c.Get(scheme + s.addr + "/readyz")
		if err == nil {
			res.Body.Close()
		}
		return err == nil && res.StatusCode == http.StatusOK
	})
}

// tlsConfig is the smallest pipeline behind the server's own certificate.
func (s *site) tlsConfig() string {
	return strings.Replace(s.config(""), "server: {", "server: { tls: { certificate: "+s.path("live/cert.pem")+", key: "+s.path("live/key.pem")+" },", 1)
}

// signed is a signed push as GitHub sends it, filled up to a size: of a commit
// to main, or without one of something that nobody wants.
func signed(t *testing.T, url, id, commit string, size int) *http.Request {
	t.Helper()
	p := map[string]any{
		"ref": "refs/heads/docs", "before": strings.Repeat("a", 40), "after": strings.Repeat("b", 40),
		"repository": map[string]any{"html_url": "https://github.com/acme/shop"}, "fill": "",
	}
	if commit != "" {
		p["ref"], p["after"] = "refs/heads/main", commit
	}
	body, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if size > len(body) {
		p["fill"] = strings.Repeat("x", size-len(body))
		if body, err = json.Marshal(p); err != nil || len(body) != size {
			t.Fatalf("%d bytes, %v", len(body), err)
		}
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-GitHub-Event", "push")
	req.Header.Set("X-GitHub-Delivery", id)
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	return req
}

// do sends a request and gives what was answered, its message or its text.
func do(t *testing.T, c *http.Client, req *http.Request) (status int, message string) {
	t.Helper()
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var a answer
	if json.Unmarshal(b, &a) == nil && a.Message != "" {
		return res.StatusCode, a.Message
	}
	return res.StatusCode, string(b)
}

// number is that of the certificate which is served.
func (s *site) number() int64 {
	c, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return 0
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// renew makes live point to another pair, as certbot does.
func (s *site) renew(name string) {
	s.t.Helper()
	if err := os.Symlink(name, s.path("next")); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(s.path("next"), s.path("live")); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) archive(name string, number int64) {
	s.t.Helper()
	if err := os.Mkdir(s.path(name), 0o755); err != nil {
		s.t.Fatal(err)
	}
	certify(s.t, s.path(name+"/cert.pem"), s.path(name+"/key.pem"), number)
}

func TestCertificateIsServedAndChangedWithoutARestart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.archive("one", 1)
	s.renew("one")
	s.write("deploy.yaml", s.tlsConfig())
	c := secure(0)
	s.begin(exec.Command("/proc/self/exe", "serve", s.configFile()), c, "https://")

	if status, message := do(t, c, signed(t, "https://"+s.addr+"/hooks/github", "1", "", 0)); status != 200 || !strings.Contains(message, "no pipeline wants branch docs") {
		t.Errorf("a signed push: %d %s", status, message)
	}
	res, err := c.Get("https://" + s.addr + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.TLS.Version != tls.VersionTLS13 || res.ProtoMajor != 1 {
		t.Errorf("the server speaks %s, HTTP/%d", tls.VersionName(res.TLS.Version), res.ProtoMajor)
	}
	if _, err := secure(tls.VersionTLS12).Get("https://" + s.addr + "/healthz"); err != nil {
		t.Errorf("TLS 1.2: %v", err)
	}
	if _, err := secure(tls.VersionTLS11).Get("https://" + s.addr + "/healthz"); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.1: %v", err)
	}
	if res, err = http.Get("http://" + s.addr + "/healthz"); err != nil || res.StatusCode != http.StatusBadRequest {
		t.Errorf("without TLS: %v, %v", res, err)
	} else {
		res.Body.Close()
	}

	// A link that points to another pair.
	s.archive("two", 2)
	s.renew("two")
	s.until("the second pair is served", func() bool { return s.number() == 2 })
	s.until("the change is in the log", func() bool { return strings.Contains(s.log.String(), `msg="certificate changed" until=`) })

	// A key of another certificate: the pair before stays, said once.
	const stays = "the new certificate cannot be served, the one before stays"
	s.archive("three", 3)
	key, err := os.ReadFile(s.path("two/key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(s.path("three/key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("three/key.pem", string(key))
	s.renew("three")
	s.until("the bad pair is in the log", func() bool { return strings.Contains(s.log.String(), stays) })
	if n := s.number(); n != 2 {
		t.Errorf("number %d is served, want the one before, 2", n)
	}
	if log := s.log.String(); !strings.Contains(log, "server.tls.key: "+s.path("live/key.pem")+": the key is not that of the certificate") {
		t.Errorf("the log does not say what is wrong:\n%s", log)
	}
	// A reload says so too, and the config in force stays.
	if _, err := s.client.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "server.tls.key: "+s.path("live/key.pem")+": the key is not that of the certificate") {
		t.Errorf("a reload: %v", err)
	}
	// A file that is gone is another sentence.
	if err := os.Remove(s.path("three/cert.pem")); err != nil {
		t.Fatal(err)
	}
	s.until("the missing file is in the log", func() bool { return strings.Contains(s.log.String(), "cert.pem is not there") })
	if n := strings.Count(s.log.String(), stays); n != 2 {
		t.Errorf("two bad pairs were logged %d times", n)
	}

	// Whole again: a reload takes it at once.
	certify(t, s.path("three/cert.pem"), s.path("three/key.pem"), 4)
	if bytes.Equal(good, key) {
		t.Fatal("the keys are equal")
	}
	if _, err := s.client.Reload(t.Context()); err != nil {
		t.Errorf("a reload with a good pair: %v", err)
	}
	if n := s.number(); n != 4 {
		t.Errorf("number %d is served after the reload, want 4", n)
	}
	if strings.Contains(s.log.String(), "PRIVATE KEY") {
		t.Error("a key is in the log")
	}
}

func TestBadPairKeepsTheDaemonFromStarting(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(s *site)
		want  string
	}{
		"the key of another": {func(s *site) { certify(s.t, s.path("other.pem"), s.path("live/key.pem"), 9) },
			"server.tls.key: DIR/live/key.pem: the key is not that of the certificate, or the server's own certificate does not come first in its file"},
		"no key":         {func(s *site) { _ = os.Remove(s.path("live/key.pem")) }, "server.tls.key: DIR/live/key.pem is not there"},
		"no certificate": {func(s *site) { s.write("live/cert.pem", "") }, "server.tls.certificate: DIR/live/cert.pem: it is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.archive("live", 1)
			s.write("deploy.yaml", s.tlsConfig())
			tt.spoil(s)
			cmd := exec.Command("/proc/self/exe", "serve", s.configFile())
			cmd.Env = append(os.Environ(), "TEST_SECRET="+secret)
			out, err := cmd.CombinedOutput()
			got := strings.ReplaceAll(strings.TrimSpace(string(out)), s.dir, "DIR")
			if err == nil || !strings.HasSuffix(got, tt.want) || strings.Contains(got, "\n") || !strings.HasPrefix(got, "deploy.yaml:2:") {
				t.Errorf("%v: %s\nwant %s", err, got, tt.want)
			}
			if _, err := os.Stat(s.path("sock")); err == nil {
				t.Error("it began to listen")
			}
		})
	}
}

func TestCertificateThatHasEndedIsServedAndSaid(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := os.Mkdir(s.path("live"), 0o755); err != nil {
		t.Fatal(err)
	}
	// openssl's form of a key, too, is one.
	private, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(5), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	s.write("live/cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	s.write("live/key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})))
	s.write("deploy.yaml", s.tlsConfig())
	s.begin(exec.Command("/proc/self/exe", "serve", s.configFile()), secure(0), "https://")
	if n := s.number(); n != 5 {
		t.Errorf("number %d is served", n)
	}
	if n := strings.Count(s.log.String(), "the certificate has ended on "); n != 1 {
		t.Errorf("the end is said %d times", n)
	}
}

func TestTLSOnSystemdsSocketLosesNoRequestInARestart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.archive("live", 1)
	s.write("deploy.yaml", s.tlsConfig())
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := secure(0)
	s.begin(s.passed(l), c, "https://")
	got := make(chan []int, 1)
	var answers atomic.Int64
	stop := make(chan struct{})
	go func() {
		var codes []int
		for n := 0; ; n++ {
			select {
			case <-stop:
				got <- codes
				return
			default:
			}
			res, err := c.Do(signed(t, "https://"+s.addr+"/hooks/github", fmt.Sprint("r", n), "", 0))
			if err != nil {
				codes = append(codes, 0)
				continue
			}
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			codes = append(codes, res.StatusCode)
			answers.Add(1)
		}
	}()
	for range 3 {
		have := answers.Load()
		s.until("requests go on", func() bool { return answers.Load() > have+20 })
		s.stop()
		s.begin(s.passed(l), c, "https://")
	}
	close(stop)
	codes := <-got
	if len(codes) < 60 || slices.ContainsFunc(codes, func(c int) bool { return c != 200 }) {
		t.Errorf("%d requests among three restarts were answered %v", len(codes), codes)
	}
}

// passed is the daemon with a socket as systemd passes it; begin starts it.
func (s *site) passed(l net.Listener) *exec.Cmd {
	s.t.Helper()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		s.t.Fatal(err)
	}
	self, err := filepath.EvalSymlinks("/proc/self/exe")
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" serve "$1"`, self, s.configFile())
	cmd.ExtraFiles = []*os.File{socket}
	return cmd
}
