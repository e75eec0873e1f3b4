package daemon_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// token is what must stand in no log. It is the generic hook's.
const token = secret

// front is a real server in front of the daemon, with the file that contrib
// has for it.
type front struct {
	s      *site
	name   string
	dir    string // of its logs
	secure string // address for HTTPS
	plain  string // address for HTTP
}

// program finds a program of the system.
func program(t *testing.T, name string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed: scripts/tools", name)
	}
	t.Skipf("%s is not installed: apt-get install %s", name, name)
	return ""
}

// shipped reads a file of contrib and puts the test's own addresses and paths
// in place of those that stand there.
func shipped(t *testing.T, path string, pairs ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../contrib", path))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%s has no %q", path, pairs[i])
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

// given are ports that a test of this process has.
var given sync.Map

// free gives an address that nobody listens on. Its port is none of those that
// the system gives out by itself: to servers and connections of other tests,
// until the test's own server listens there.
func free(t *testing.T) string {
	t.Helper()
	const first, last = 10_000, 30_000
	for range 1000 {
		port := first + rand.IntN(last-first)
		if _, taken := given.LoadOrStore(port, true); taken {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		l.Close()
		return l.Addr().String()
	}
	t.Fatal("no port is free")
	return ""
}

// start runs nginx or Caddy until the test ends.
func (f *front) start() {
	t := f.s.t
	t.Helper()
	f.dir, f.secure, f.plain = f.s.path("front"), free(t), free(t)
	if err := os.Mkdir(f.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	certify(t, f.s.path("cert.pem"), f.s.path("key.pem"), 7)
	var cmd *exec.Cmd
	switch f.name {
	case "nginx":
		path := program(t, "nginx")
		six := func(port string) string { // where there is IPv6
			if l, err := net.Listen("tcp", "[::1]:0"); err == nil {
				l.Close()
				return "listen [::1]:" + port
			}
			return "#"
		}
		_, securePort, _ := net.SplitHostPort(f.secure)
		_, plainPort, _ := net.SplitHostPort(f.plain)
		f.s.write("deployhook.conf", shipped(t, "nginx/deployhook.conf",
			"listen 80;", "listen "+f.plain+";", "listen 443 ssl;", "listen "+f.secure+" ssl;",
			"listen [::]:80", six(plainPort), "listen [::]:443", six(securePort),
			"/etc/letsencrypt/live/deploy.example.com/fullchain.pem", f.s.path("cert.pem"),
			"/etc/letsencrypt/live/deploy.example.com/privkey.pem", f.s.path("key.pem"),
			"/var/log/nginx", f.dir, "http://127.0.0.1:8484", "http://"+f.s.addr))
		user := ""
		if os.Getuid() == 0 {
			user = "user root;\n"
		}
		// What Debian's nginx.conf has around it, with places of the test's own.
		f.s.write("nginx.conf", user+`worker_processes 1;
pid `+f.dir+`/pid;
error_log `+f.dir+`/error.log;
events { worker_connections 256; }
http {
	sendfile on;
	tcp_nopush on;
	default_type application/octet-stream;
	ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;
	ssl_prefer_server_ciphers on;
	access_log `+f.dir+`/access.log;
	gzip on;
	client_body_temp_path `+f.dir+`/body;
	proxy_temp_path `+f.dir+`/proxy;
	fastcgi_temp_path `+f.dir+`/fastcgi;
	uwsgi_temp_path `+f.dir+`/uwsgi;
	scgi_temp_path `+f.dir+`/scgi;
	include `+f.s.path("deployhook.conf")+`;
}
`)
		cmd = exec.Command(path, "-p", f.dir, "-e", filepath.Join(f.dir, "error.log"), "-c", f.s.path("nginx.conf"), "-g", "daemon off;")
	case "caddy":
		path := program(t, "caddy")
		_, securePort, _ := net.SplitHostPort(f.secure)
		_, plainPort, _ := net.SplitHostPort(f.plain)
		text := shipped(t, "caddy/Caddyfile",
			"deploy.example.com {\n", "deploy.example.com {\n\ttls "+f.s.path("cert.pem")+" "+f.s.path("key.pem")+"\n",
			"/var/log/caddy", f.dir, "127.0.0.1:8484", f.s.addr)
		text = strings.Replace(text, "\n{\n", "\n{\n\tadmin off\n\tdefault_bind 127.0.0.1\n\thttp_port "+plainPort+"\n\thttps_port "+securePort+"\n\tskip_install_trust\n", 1)
		f.s.write("Caddyfile", text)
		cmd = exec.Command(path, "run", "--config", f.s.path("Caddyfile"), "--adapter", "caddyfile")
		cmd.Env = append(os.Environ(), "HOME="+f.dir, "XDG_DATA_HOME="+f.dir, "XDG_CONFIG_HOME="+f.dir)
	}
	out, err := os.Create(filepath.Join(f.dir, "output.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := tls.Dial("tcp", f.secure, &tls.Config{InsecureSkipVerify: true, ServerName: "deploy.example.com"}); err == nil {
			c.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s ended:\n%s", f.name, f.logs())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not answer:\n%s", f.name, f.logs())
		}
	}
}

// from is a client with an address of its own on loopback.
func (f *front) from(address string) *http.Client {
	dial := func(ctx context.Context, _, to string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
		if strings.HasSuffix(to, ":80") {
			return d.DialContext(ctx, "tcp", f.plain)
		}
		return d.DialContext(ctx, "tcp", f.secure)
	}
	return &http.Client{
		Timeout:       120 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
	}
}

// near asks the daemon itself.
var near = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

const public = "https://deploy.example.com"

// raw sends bytes as they are and reads one answer, also when the rest of what
// is sent is not taken any more.
func (f *front) raw(head string, body io.Reader) (status int, text string) {
	t := f.s.t
	t.Helper()
	c, err := tls.Dial("tcp", f.secure, &tls.Config{InsecureSkipVerify: true, ServerName: "deploy.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(120 * time.Second))
	go func() {
		if _, err := io.WriteString(c, head); err == nil && body != nil {
			_, _ = io.Copy(c, body)
		}
	}()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

// payment is a payload for the generic hook, with its token in the address.
func payment(t *testing.T, url, id string) *http.Request {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url+"/hooks/webhook?token="+token, strings.NewReader(`{"id":"`+id+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", id)
	req.Header.Set("Referer", "https://example.com/?token="+token)
	return req
}

// logs are all files that the server has written.
func (f *front) logs() string {
	var all strings.Builder
	err := filepath.WalkDir(f.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(path, ".log") {
			return err
		}
		b, err := os.ReadFile(path)
		fmt.Fprintf(&all, "== %s\n%s", filepath.Base(path), b)
		return err
	})
	if err != nil {
		f.s.t.Fatal(err)
	}
	return all.String()
}

// behind is the config of a daemon whose only proxy is at one address.
func behind(s *site) string {
	return strings.Replace(s.config("")+pay, "server: {", "server: { trusted_proxies: 127.0.0.1,", 1)
}

func TestInFront(t *testing.T) {
	for _, name := range []string{"nginx", "caddy"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			f := &front{s: s, name: name}
			f.start()
			s.write("deploy.yaml", behind(s))
			s.begin(exec.Command("/proc/self/exe", "serve", s.configFile()), near, "http://")
			c := f.from("127.0.0.2")

			f.passes(c)
			f.bodies(c)
			f.senders(c)
			f.away(c)

			logs := f.logs()
			for _, where := range []string{logs, s.log.String()} {
				if strings.Contains(where, token) {
					t.Errorf("the token is in a log:\n%s", where)
				}
			}
			if n := strings.Count(logs, "/hooks/webhook"); n < 5 {
				t.Errorf("the log of requests has %d lines of the hook:\n%s", n, logs)
			}
			if t.Failed() {
				t.Logf("the logs of %s:\n%.4000s", name, logs)
			}
		})
	}
}

// passes sends what is passed on, and what is not.
func (f *front) passes(c *http.Client) {
	t := f.s.t
	t.Helper()
	commit := f.s.commit("one")
	if status, message := do(t, c, signed(t, public+"/hooks/github", "1", commit, 0)); status != 202 {
		t.Errorf("a signed push: %d %s", status, message)
	}
	f.s.want(1, "succeeded")
	f.s.wantLive("one")
	if status, message := do(t, c, payment(t, public, "first")); status != 202 {
		t.Errorf("a payload with the token in its address: %d %s", status, message)
	}
	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n"} {
		res, err := c.Get(public + path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 200 || string(b) != want {
			t.Errorf("%s: %d %s", path, res.StatusCode, b)
		}
	}
	// Of these deployhook sees nothing: its own 404 is a sentence.
	for _, path := range []string{"/", "/api/runs", "/hooks", "/healthz/x", "/metrics", "/hooks/../api", "/hooks/%2e%2e/api", "/login?token=" + token, "/.well-known/x"} {
		status, text := f.raw("POST "+path+" HTTP/1.1\r\nHost: deploy.example.com\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", nil)
		if status != 404 || strings.Contains(text, "no such hook") {
			t.Errorf("%s is passed on: %d %s", path, status, text)
		}
	}
	// Mistyped addresses with the token in them.
	for _, head := range []string{
		"POST /hooks/webhook%3Ftoken=" + token, "POST /hooks/webhook&token=" + token, "POST /hooks/webhook/" + token, "GET /hooks/webhook?token=" + token,
		"POST /hooks/webhook?token=" + token + strings.Repeat("&x=y", 20_000),
	} {
		if status, text := f.raw(head+" HTTP/1.1\r\nHost: deploy.example.com\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", nil); status < 400 || status >= 500 {
			t.Errorf("%.60s: %d %s", head, status, text)
		}
	}
	_, _ = f.raw("POST /hooks/webhook?token="+token+" HTTP/9.9\r\nHost: a b\r\n\r\n", nil)
	_, _ = f.raw("POST /hooks/webhook?token="+token+"\x01 HTTP/1.1\r\nHost: deploy.example.com\r\n\r\n", nil)

	// Without HTTPS nothing is taken.
	res, err := c.Do(payment(t, "http://deploy.example.com", "plain"))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if f.name == "nginx" && (res.StatusCode != 403 || !strings.Contains(string(b), "webhooks come over https:// only")) || f.name == "caddy" && res.StatusCode != 308 {
		t.Errorf("without HTTPS: %d %s", res.StatusCode, b)
	}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		if conn, err := tls.Dial("tcp", f.secure, &tls.Config{InsecureSkipVerify: true, ServerName: "deploy.example.com", MinVersion: version, MaxVersion: version}); err == nil {
			conn.Close()
			t.Errorf("%s is spoken", tls.VersionName(version))
		}
	}
}

// bodies sends the largest body that is taken, and larger ones.
func (f *front) bodies(c *http.Client) {
	t := f.s.t
	t.Helper()
	if status, message := do(t, c, signed(t, public+"/hooks/github", "large", "", 25<<20)); status != 200 || !strings.Contains(message, "no pipeline wants branch docs") {
		t.Errorf("25 MiB: %d %s", status, message)
	}
	head := "POST /hooks/webhook?token=" + token + " HTTP/1.1\r\nHost: deploy.example.com\r\nContent-Type: application/json\r\nConnection: close\r\n"
	body := bytes.Repeat([]byte("x"), 26<<20)
	for _, size := range []int{25<<20 + 1, 100_000_000} { // of which nothing comes
		if status, text := f.raw(fmt.Sprint(head, "Content-Length: ", size, "\r\n\r\n"), nil); status != 413 || !strings.Contains(text, `"message":"the body is over 25 MiB"`) {
			t.Errorf("%d bytes: %d %s", size, status, text)
		}
	}
	if status, text := f.raw(fmt.Sprint(head, "Content-Length: ", len(body), "\r\n\r\n"), bytes.NewReader(body)); status != 413 || !strings.Contains(text, `"message":"the body is over 25 MiB"`) {
		t.Errorf("26 MiB: %d %s", status, text)
	}
	if strings.Contains(f.s.log.String(), "status=413") {
		t.Error("the proxy lets deployhook answer, and its answer may be lost while the body is sent")
	}
	var chunks bytes.Buffer
	for range 26 {
		fmt.Fprintf(&chunks, "%x\r\n%s\r\n", 1<<20, body[:1<<20])
	}
	chunks.WriteString("0\r\n\r\n")
	if status, text := f.raw(head+"Transfer-Encoding: chunked\r\n\r\n", &chunks); status != 413 || !strings.Contains(text, `"message":"the body is over 25 MiB"`) {
		t.Errorf("26 MiB in chunks: %d %s", status, text)
	}
}

// senders looks at whom deployhook takes for the sender.
func (f *front) senders(c *http.Client) {
	t := f.s.t
	t.Helper()
	wrong := func(c *http.Client, url string) int {
		req := signed(t, url+"/hooks/github", "w", "", 0)
		req.Header.Set("X-Hub-Signature-256", "sha256="+strings.Repeat("0", 64))
		req.Header.Set("X-Forwarded-For", "198.51.100.7")
		req.Header.Set("Forwarded", "for=198.51.100.7")
		req.Header.Set("X-Real-IP", "198.51.100.7")
		status, _ := do(t, c, req)
		return status
	}
	last := 0
	for n := range 61 {
		if last = wrong(c, public); n == 0 && last != 401 {
			t.Errorf("a wrong signature: %d, want 401", last)
		}
	}
	if last != 429 {
		t.Errorf("the 61st wrong signature of an address: %d, want 429", last)
	}
	if got := wrong(f.from("127.0.0.3"), public); got != 401 {
		t.Errorf("a wrong signature of another address: %d, want 401", got)
	}
	if status, message := do(t, c, payment(t, public, "right")); status != 202 {
		t.Errorf("a right token of the limited address: %d %s", status, message)
	}
	// Who comes without the proxy names nobody else.
	direct := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 4)}}).DialContext}}
	if got := wrong(direct, "http://"+f.s.addr); got != 401 {
		t.Errorf("a wrong signature around the proxy: %d, want 401", got)
	}
	log := f.s.log.String()
	for _, want := range []string{
		`msg="delivery accepted" delivery=1 hook=github status=202 runs=[1] from=127.0.0.2 `,
		`msg="request refused" hook=github status=401 err="wrong signature: the secret here is not the one that signed this body" from=127.0.0.2`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("no %s in deployhook's log", want)
		}
	}
	if strings.Contains(log, "198.51.100.7") {
		t.Errorf("what a sender says of itself is believed:\n%s", log)
	}
}

// away looks at what happens while deployhook restarts, with and without
// systemd's socket, and while something else goes wrong behind the proxy.
func (f *front) away(c *http.Client) {
	t, s := f.s.t, f.s
	t.Helper()
	s.stop()
	status, message := do(t, c, payment(t, public, "down"))
	if status != 503 || !strings.Contains(message, "deployhook does not answer: redeliver it later") {
		t.Errorf("deployhook is down: %d %s", status, message)
	}
	// Something that hangs up in the middle.
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	hung := make(chan struct{})
	go func() {
		defer close(hung)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 100))
			conn.Close()
		}
	}()
	if status, message := do(t, c, payment(t, public, "hangs up")); status != 503 || !strings.Contains(message, "deployhook does not answer") {
		t.Errorf("deployhook hangs up: %d %s", status, message)
	}
	l.Close()
	<-hung

	// systemd's socket, and nobody behind it for a while.
	if l, err = net.Listen("tcp", s.addr); err != nil {
		t.Fatal(err)
	}
	gone := *c
	gone.Timeout = time.Second
	if res, err := gone.Do(payment(t, public, "gone")); err == nil {
		res.Body.Close()
		t.Errorf("a sender that hangs up got %d", res.StatusCode)
	}
	waits := make(chan int, 1)
	req := payment(t, public, "waits")
	go func() {
		res, err := c.Do(req)
		if err != nil {
			waits <- 0
			return
		}
		res.Body.Close()
		waits <- res.StatusCode
	}()
	s.begin(s.passed(l), near, "http://")
	if got := <-waits; got != 202 {
		t.Errorf("a request among a restart behind systemd's socket: %d, want 202", got)
	}
	s.until("the push of the sender that hung up is taken", func() bool { return strings.Count(s.log.String(), `msg="delivery accepted"`) == 2 })
	if status, message := do(t, c, payment(t, public, "gone")); status != 200 || !strings.Contains(message, "this delivery is known") {
		t.Errorf("its redelivery: %d %s", status, message)
	}
	s.stop()
	l.Close()
}
