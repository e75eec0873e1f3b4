package doctor

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
	"deployhook/internal/web"
	"deployhook/systemd"
)

// machine is a healthy installation, below a directory, with what its programs
// would say; a test breaks one thing of it.
type machine struct {
	t    *testing.T
	root string
	text string // deploy.yaml
	repo string

	said     map[string]said   // by command line
	owners   map[string][2]int // by file name
	report   deploy.DaemonReport
	agents   []deploy.AgentReport
	untold   []deploy.Notification
	down     bool // the daemon does not run
	shut     bool // deploy.yaml is root's alone
	missing  bool // there is no deploy.yaml
	uid      int
	synced   bool
	clockErr error
	now      func() time.Time
	roots    *x509.CertPool

	forge  http.Handler // of the repository
	public http.Handler // in front of the daemon
	local  http.Handler // on server.listen
	github map[string]any
	status map[string]int // of GitHub's answers, by path
}

type said struct {
	out  string
	code int
}

const (
	etc  = "etc/deployhook/deploy.yaml"
	uidD = 61 // deployhook
	uidT = 62 // deployhook-test
	uidA = 63 // deploy
	gidA = 64 // deployhook-admin
)

const healthyConfig = `server:
  listen: LISTEN
  url: URL
  data: /var/lib/data
  agent: { test: /run/deployhook-agents/test.sock, deploy: /run/deployhook-agents/deploy.sock }
hooks:
  github: { provider: github, secret: { credential: github-webhook } }
pipelines:
  shop:
    repository: github.com/acme/shop
    clone_url: REPO
    auth: { token: { credential: github-token } }
    on: { push: { branches: [main] } }
    jobs:
      test: { steps: [ { run: npm test } ] }
      deploy:
        release: /srv/shop
        steps: [ { run: npm ci } ]
        restart: sudo systemctl restart shop
`

// newMachine makes one in which nothing is wrong.
func newMachine(t *testing.T) *machine {
	t.Helper()
	root, err := os.MkdirTemp("", "dr") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	m := &machine{
		t: t, root: root, text: healthyConfig, said: map[string]said{}, owners: map[string][2]int{}, synced: true, now: time.Now,
		status: map[string]int{}, repo: repository(t),
	}
	exec, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	m.forge = &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(exec)), "git-http-backend"), Root: "/",
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(m.repo), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	m.mode("", 0o755)
	m.write("proc/meminfo", "MemTotal: 2000000 kB\nMemAvailable: 1000000 kB\nSwapTotal: 1000000 kB\nSwapFree: 1000000 kB\n", 0o444)
	m.write("etc/deployhook/credentials/github-webhook", "0123456789abcdef0123456789abcdef\n", 0o600)
	m.write("etc/deployhook/credentials/github-token", "ghp_0123456789abcdef\n", 0o600)
	m.mode("etc/deployhook/credentials", 0o700)
	m.write("run/systemd/system/.keep", "", 0o644)
	m.write("var/lib/data/deployhook.db", "", 0o600)
	m.mode("var/lib/data", 0o750)
	m.owners["data"] = [2]int{uidD, uidD}
	m.owners["deployhook.db"] = [2]int{uidD, uidD}
	m.write("usr/bin/systemctl", "", 0o755)
	for _, name := range ownUnits() {
		b, err := fs.ReadFile(systemd.Units, name)
		if err != nil {
			t.Fatal(err)
		}
		// A package has the program elsewhere.
		m.write("usr/lib/systemd/system/"+name, strings.ReplaceAll(string(b), "/usr/local/bin/", "/usr/bin/"), 0o644)
		m.unit(name, "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no\nResult=success\nMaxConnections=64\n"+
			"Listen=LISTEN (Stream)\nNoNewPrivileges="+map[bool]string{true: "no", false: "yes"}[strings.HasPrefix(name, "deployhook-agent@")]+"\n")
	}
	for _, name := range []string{"test.sock", "deploy.sock"} {
		m.socket("run/deployhook-agents/"+name, 0o660)
		m.owners[name] = [2]int{0, uidD}
	}
	m.owners["control.sock"] = [2]int{uidD, gidA}
	m.user("deployhook", uidD, "deployhook", "deployhook-admin")
	m.user("deployhook-test", uidT, "deployhook-test")
	m.user("deploy", uidA, "deploy")
	m.says("getent group deployhook", "deployhook:x:61:", 0)
	m.says("getent group deployhook-admin", "deployhook-admin:x:64:deployhook", 0)
	m.says("systemctl cat deployhook.service", "# /usr/lib/systemd/system/deployhook.service\n[Service]\n# /etc/systemd/system/deployhook.service.d/c.conf\n[Service]\n"+
		"LoadCredential=github-webhook:/etc/deployhook/credentials/github-webhook\nLoadCredential=github-token:/etc/deployhook/credentials/github-token\n", 0)
	m.says("visudo -c", "", 0)
	m.says("sudo -n -l -U deploy systemctl restart shop", "/usr/bin/systemctl restart shop\n", 0)
	m.says("sudo -n -l -U deploy", "Matching Defaults entries for deploy on vps:\n    env_reset, secure_path=/usr/sbin\\:/usr/bin\n\n"+
		"User deploy may run the following commands on vps:\n    (root) NOPASSWD: /usr/bin/systemctl restart shop\n", 0)
	m.report = deploy.DaemonReport{Version: "1.2.3", PID: 1 << 30, User: "deployhook", Started: time.Now().Add(time.Minute)}
	m.agents = []deploy.AgentReport{
		{Kind: deploy.TestAgent, Socket: "/run/deployhook-agents/test.sock", Version: "1.2.3", User: "deployhook-test", UID: uidT},
		{Kind: deploy.DeployAgent, Socket: "/run/deployhook-agents/deploy.sock", Version: "1.2.3", User: "deploy", UID: uidA,
			Paths: []deploy.Room{{Path: "/srv/shop", Bytes: 10 << 30, Inodes: 1 << 20}}},
	}
	m.local = daemonPages
	m.github = map[string]any{
		"/repos/acme/shop/hooks": []any{map[string]any{
			"id": 7, "active": true, "events": []string{"push"}, "config": map[string]any{"url": "URL/hooks/github?token=hidden-hidden", "insecure_ssl": "0"},
		}},
		"/repos/acme/shop/hooks/7/deliveries":   []any{map[string]any{"id": 9, "delivered_at": "2026-04-01T10:15:00Z", "event": "push", "status": "OK", "status_code": 202}},
		"/repos/acme/shop/hooks/7/deliveries/9": map[string]any{"response": map[string]any{"payload": `{"runs":[],"message":"wrong signature: the secret here is not the one"}`}},
	}
	return m
}

// repository is a bare one with a branch main.
func repository(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "shop.git")
	for _, args := range [][]string{
		{"init", "-q", "--bare", "-b", "main", dir},
		{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit-tree", "-m", "one", "4b825dc642cb6eb9a060e54bf8d69288fbee4904"},
	} {
		cmd := exec.Command("git", args...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("git %q: %v", args, err)
		}
		if len(out) > 0 {
			if err := os.WriteFile(filepath.Join(dir, "refs/heads/main"), out, 0o644); err != nil {
				t.Fatal(err)
			}
		} else if err := exec.Command("git", "-C", dir, "hash-object", "-t", "tree", "-w", "/dev/null").Run(); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// daemonPages are what the daemon serves of what doctor asks for.
var daemonPages http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/healthz":
		fmt.Fprintln(w, "ok")
	case sizePath:
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "{\"bytes\":%d}\n", n)
	default:
		http.NotFound(w, r)
	}
})

func (m *machine) path(name string) string { return filepath.Join(m.root, name) }

func (m *machine) write(name, text string, mode os.FileMode) {
	m.t.Helper()
	m.directory(filepath.Dir(m.path(name)))
	if err := os.WriteFile(m.path(name), []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
	m.mode(name, mode)
}

// directory makes one that all may enter, whatever the umask is now: a daemon of
// another test may be making its control socket.
func (m *machine) directory(path string) {
	m.t.Helper()
	if _, err := os.Stat(path); err == nil {
		return
	}
	m.directory(filepath.Dir(path))
	if err := os.Mkdir(path, 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) mode(name string, mode os.FileMode) {
	m.t.Helper()
	if err := os.Chmod(m.path(name), mode); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) remove(name string) {
	m.t.Helper()
	if err := os.RemoveAll(m.path(name)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) socket(name string, mode os.FileMode) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	l, err := net.Listen("unix", m.path(name))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { l.Close() })
	m.mode(name, mode)
}

// config changes deploy.yaml.
func (m *machine) config(old, new string) {
	m.t.Helper()
	if !strings.Contains(m.text, old) {
		m.t.Fatalf("deploy.yaml has no %q", old)
	}
	m.text = strings.Replace(m.text, old, new, 1)
}

func (m *machine) says(line, out string, code int) { m.said[line] = said{out, code} }

func showLine(name string) string {
	if base, suffix, ok := strings.Cut(name, "@."); ok {
		name = base + "@doctor." + suffix
	}
	return "systemctl show " + name
}

func (m *machine) unit(name, keys string) { m.says(showLine(name), keys, 0) }

// changed replaces a part of what systemd says of a unit.
func (m *machine) changed(name, old, new string) {
	m.t.Helper()
	text := m.said[showLine(name)].out
	if !strings.Contains(text, old) {
		m.t.Fatalf("%s has no %s", name, old)
	}
	m.unit(name, strings.Replace(text, old, new, 1))
}

func (m *machine) user(name string, uid int, groups ...string) {
	m.says("getent passwd "+name, fmt.Sprintf("%s:x:%d:%d::/var/lib/x:/bin/sh\n", name, uid, uid), 0)
	m.says(fmt.Sprint("getent passwd ", uid), fmt.Sprintf("%s:x:%d:%d::/var/lib/x:/bin/sh\n", name, uid, uid), 0)
	m.says("id -G "+name, fmt.Sprint(uid), 0)
	m.says("id -Gn "+name, strings.Join(groups, " "), 0)
}

// command says what the programs of the machine would.
func (m *machine) command(_ context.Context, name string, args ...string) (string, int, error) {
	line := strings.Join(append([]string{name}, args...), " ")
	line, _, _ = strings.Cut(line, " -p LoadState") // the list of properties is long
	if name == "ss" {                               // with a port that is known only now
		line = name
	}
	if s, ok := m.said[line]; ok {
		if s.code < 0 {
			return "", 0, exec.ErrNotFound
		}
		return s.out, s.code, nil
	}
	return "", 2, nil
}

// look starts what the machine serves, and looks at it.
func (m *machine) look() []Check {
	m.t.Helper()
	local := httptest.NewServer(m.local)
	defer local.Close()
	forge := httptest.NewServer(m.forge)
	defer forge.Close()
	front := m.public
	if front == nil {
		front = m.local
	}
	public := httptest.NewTLSServer(front)
	defer public.Close()
	if m.roots == nil {
		m.roots = x509.NewCertPool()
		m.roots.AddCert(public.Certificate())
	}
	listen := local.Listener.Addr().String()
	fill := strings.NewReplacer("LISTEN", listen, "URL", public.URL, "REPO", forge.URL+"/"+filepath.Base(m.repo), "ROOT", m.root)
	if !m.missing {
		m.write(etc, fill.Replace(m.text), 0o644)
	}
	if m.shut {
		m.mode(etc, 0o600)
	}
	for line, s := range m.said {
		m.said[line] = said{fill.Replace(s.out), s.code}
	}
	f, err := config.Load(m.path(etc), nil)
	if m.report.Listen == "" {
		m.report.Listen = listen
	}
	if err == nil && m.report.Digest == "" {
		m.report.Digest = f.Deploy.Digest
	}
	if m.report.Config == "" {
		m.report.Config = m.path(etc)
	}
	socket := m.path("run/deployhook/control.sock")
	if !m.down {
		defer m.serve(socket)()
	}
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/repos/") {
			http.NotFound(w, r) // it came for who had this port before
			return
		}
		if r.Header.Get("Authorization") != "Bearer ghp_0123456789abcdef" {
			m.t.Errorf("GitHub gets %q", r.Header.Get("Authorization"))
		}
		if s := m.status[r.URL.Path]; s != 0 {
			http.Error(w, "{}", s)
			return
		}
		b, err := json.Marshal(m.github[r.URL.Path])
		if err != nil {
			m.t.Error(err)
		}
		_, _ = io.WriteString(w, fill.Replace(string(b)))
	}))
	defer hub.Close()
	return Run(m.t.Context(), Options{
		Config: m.path(etc), Client: web.Dial(socket), Version: "1.2.3", UID: m.uid, Root: m.root, Command: m.command, GitHub: hub.URL,
		roots: m.roots, now: m.now, clock: func() (bool, error) { return m.synced, m.clockErr },
		owner: func(st fs.FileInfo) (uid, gid int) { o := m.owners[st.Name()]; return o[0], o[1] },
	})
}

// serve is the daemon's control socket.
func (m *machine) serve(socket string) (stop func()) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		m.t.Fatal(err)
	}
	l, err := web.Listen(socket)
	if err != nil {
		m.t.Fatal(err)
	}
	s := web.NewServer(web.Options{
		Report: func() deploy.DaemonReport { return m.report },
		Agents: func(context.Context) []deploy.AgentReport { return m.agents },
		Outbox: untold{m: m},
		Log:    slog.New(slog.DiscardHandler),
	})
	var served sync.WaitGroup
	served.Go(func() { _ = s.Serve(l) })
	return func() { s.Close(); served.Wait() }
}

// untold is the outbox of a machine.
type untold struct {
	web.Outbox
	m *machine
}

func (u untold) Notifications(_ context.Context, f deploy.NotificationFilter) (list []deploy.Notification, err error) {
	for _, n := range u.m.untold {
		if n.State == f.State {
			list = append(list, n)
		}
	}
	return list, nil
}
