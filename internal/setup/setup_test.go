package setup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"deployhook/systemd"
)

// machine is a directory that stands for a machine; what init would run is
// written down, and answered.
type machine struct {
	*Machine
	t   *testing.T
	ran []string
	on  bool             // the units are enabled and run
	say map[string]error // of commands, by their beginning
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, say: map[string]error{}}
	binary := filepath.Join(t.TempDir(), "deployhook")
	if err := os.WriteFile(binary, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	m.Machine = &Machine{Root: t.TempDir(), Binary: binary, Units: systemd.Units, Run: m.run}
	for _, name := range []string{"visudo", "systemctl", "sudo"} {
		m.put("/usr/bin/"+name, "", 0o755)
	}
	m.put("/etc/passwd", "root:x:0:0::/root:/bin/bash\n", 0o644)
	m.put("/etc/group", "root:x:0:\n", 0o644)
	if err := os.MkdirAll(m.at("/run/systemd/system"), 0o755); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) put(path, text string, mode fs.FileMode) {
	m.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(m.at(path)), 0o755), os.WriteFile(m.at(path), []byte(text), mode)); err != nil {
		m.t.Fatal(err)
	}
}

// run does what a command would: users, directories.
func (m *machine) run(_ context.Context, name string, args ...string) (string, error) {
	line := strings.Join(append([]string{filepath.Base(name)}, args...), " ")
	m.ran = append(m.ran, strings.ReplaceAll(line, m.Root, ""))
	for begin, err := range m.say {
		if strings.HasPrefix(line, begin) {
			return "", err
		}
	}
	switch {
	case name == "systemctl" && strings.HasPrefix(args[0], "is-") && !m.on:
		return "", errors.New("inactive")
	case name == "systemctl" && args[0] == "enable":
		m.on = true
	case name == "systemd-sysusers":
		m.put("/etc/passwd", "root:x:0:0::/root:/bin/bash\ndeployhook:x:1:1:::\ndeployhook-test:x:2:2:::\ndeploy:x:3:3:::\n", 0o644)
		m.put("/etc/group", "root:x:0:\ndeployhook-admin:x:9:deployhook\n", 0o644)
	case name == "usermod":
		m.put("/etc/group", "root:x:0:\ndeployhook-admin:x:9:deployhook,"+args[2]+"\n", 0o644)
	case name == "install":
		return "", os.MkdirAll(m.at(args[len(args)-1]), 0o755)
	}
	return "", nil
}

func (m *machine) plan(a *Answers) *Plan {
	m.t.Helper()
	p, err := m.Plan(m.t.Context(), Options{Answers: a, Admin: "alice"})
	if err != nil {
		m.t.Fatal(err)
	}
	return p
}

func (m *machine) do(p *Plan) {
	m.t.Helper()
	if err := p.Do(m.t.Context(), func(Action) {}); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) file(path string) string {
	m.t.Helper()
	s, err := m.read(path)
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

// all lists what is on the machine.
func (m *machine) all() []string {
	m.t.Helper()
	var list []string
	err := filepath.WalkDir(m.Root, func(path string, _ fs.DirEntry, err error) error {
		list = append(list, strings.TrimPrefix(path, m.Root))
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return list
}

func shop() *Answers {
	return &Answers{Repository: "https://github.com/acme/shop.git", Test: `npm ci && echo "a: b" # c`, Build: "npm ci --omit=dev",
		Restart: "sudo systemctl restart shop", URL: "https://deploy.example.com"}
}

func TestInitMakesAllThatAServerNeeds(t *testing.T) {
	m := newMachine(t)
	p := m.plan(shop())
	before := m.all()
	if got := m.all(); !slices.Equal(got, before) {
		t.Errorf("a plan has changed something: %q", got)
	}
	m.do(p)
	for path, mode := range map[string]fs.FileMode{
		"/etc/deployhook": fs.ModeDir | 0o755, "/etc/deployhook/credentials": fs.ModeDir | 0o700, "/etc/deployhook/deploy.yaml": 0o644,
		"/etc/deployhook/credentials/github-webhook": 0o600, "/etc/deployhook/credentials/shop-deploy-key": 0o600,
		"/etc/sudoers.d/deployhook": 0o440, "/usr/local/bin/deployhook": 0o755, "/etc/systemd/system/deployhook-agent@.service": 0o644,
		"/etc/systemd/system/deployhook.service.d/50-init.conf": 0o644, "/etc/sysusers.d/deployhook.conf": 0o644, "/etc/deployhook/init.list": 0o600,
	} {
		if st, err := os.Stat(m.at(path)); err != nil || st.Mode() != mode {
			t.Errorf("%s: %v, %v; want %v", path, st, err, mode)
		}
	}
	if got := m.file("/etc/sudoers.d/deployhook"); !strings.HasSuffix(got, "\ndeploy ALL=(root) NOPASSWD: /usr/bin/systemctl restart shop\n") {
		t.Errorf("sudoers: %s", got)
	}
	if got := m.file("/etc/deployhook/deploy.yaml"); !strings.Contains(got, `- run: "npm ci && echo \"a: b\" # c"`) {
		t.Errorf("deploy.yaml:\n%s", got)
	}
	secret := strings.TrimSpace(m.file("/etc/deployhook/credentials/github-webhook"))
	if len(secret) != 64 {
		t.Errorf("the secret is %q", secret)
	}
	want := []string{
		"systemctl is-active --quiet deployhook.service", "systemctl is-enabled --quiet deployhook.socket deployhook-test.socket deployhook-agent.socket deployhook.service",
		"systemd-sysusers deployhook.conf", "usermod -aG deployhook-admin alice", "install -d -o deploy -g deploy /srv/shop",
		"visudo -c -q -f /etc/deployhook/sudoers.new", "systemctl daemon-reload",
		"systemctl enable --now deployhook.socket deployhook-test.socket deployhook-agent.socket deployhook.service",
	}
	if !slices.Equal(m.ran, want) {
		t.Errorf("ran\n%s", strings.Join(m.ran, "\n"))
	}
	shown, hidden := strings.Join(p.Forge(true), "\n"), strings.Join(p.Forge(false), "\n")
	for _, w := range []string{"  Payload URL         https://deploy.example.com/hooks/github\n", "  Secret              " + secret + "\n",
		"The deploy key of shop: https://github.com/acme/shop/settings/keys/new\n", "  Key                 ssh-ed25519 AAAA", "  Content type        application/json\n"} {
		if !strings.Contains(shown, w) {
			t.Errorf("%q is not among the values for the forms:\n%s", w, shown)
		}
	}
	if strings.Contains(hidden, secret) || !strings.Contains(hidden, "sudo cat /etc/deployhook/credentials/github-webhook") {
		t.Errorf("into a file goes\n%s", hidden)
	}
	if got := p.First(); got != "sudo deployhook trigger shop --branch main --wait" {
		t.Errorf("the first deploy is %q", got)
	}
}

func TestInitTwiceChangesNothing(t *testing.T) {
	m := newMachine(t)
	m.do(m.plan(shop()))
	secret, key := m.file("/etc/deployhook/credentials/github-webhook"), m.file("/etc/deployhook/credentials/shop-deploy-key")
	m.put(Config, m.file(Config)+"# by hand\n", 0o644)
	m.ran = nil
	for _, a := range []*Answers{nil, shop(), {Repository: "github.com/other/thing"}} {
		p := m.plan(a)
		if n := p.Todo(); n != 0 {
			t.Errorf("the second time %d things are to do: %+v", n, p.Actions)
		}
		m.do(p)
	}
	if m.file("/etc/deployhook/credentials/github-webhook") != secret || m.file("/etc/deployhook/credentials/shop-deploy-key") != key ||
		!strings.HasSuffix(m.file(Config), "# by hand\n") {
		t.Error("what was there has been written anew")
	}
	for _, c := range m.ran {
		if !strings.Contains(c, " is-") {
			t.Errorf("ran %s", c)
		}
	}
}

// After a change of deploy.yaml init brings what it names now.
func TestInitFollowsTheConfig(t *testing.T) {
	m := newMachine(t)
	m.do(m.plan(shop()))
	m.put(Config, m.file(Config)+`  blog:
    repository: github.com/acme/blog
    auth: { ssh_key: { credential: blog-key } }
    hook: github
    on: { push: { branches: [main] } }
    jobs:
      deploy:
        release: /opt/blog
        secrets: { TOKEN: { credential: blog-token } }
        restart: sudo systemctl reload blog:x,y=1
      odd:
        secrets: { TOKEN: { credential: blog-token } }
        steps: [ { run: "sudo sh -c 'echo $TOKEN'" } ]
`, 0o644)
	m.ran = nil
	p := m.plan(nil)
	m.do(p)
	if got := m.file("/etc/sudoers.d/deployhook"); !strings.HasSuffix(got, "restart shop\ndeploy ALL=(root) NOPASSWD: /usr/bin/systemctl reload blog\\:x\\,y\\=1\n") {
		t.Errorf("sudoers: %s", got)
	}
	if got := m.file("/etc/systemd/system/deployhook.service.d/50-init.conf"); !strings.Contains(got, "LoadCredential=blog-key:") || strings.Contains(got, "blog-token") {
		t.Errorf("drop-in: %s", got)
	}
	if got := m.file("/etc/systemd/system/deployhook-test@.service.d/50-init.conf"); !strings.HasSuffix(got, "[Service]\nInaccessiblePaths=-/opt/blog\n") {
		t.Errorf("drop-in of test jobs: %s", got)
	}
	notes := strings.Join(p.Notes, "\n")
	if !strings.Contains(notes, "the credential blog-token is not there: sudo install -m 0600 /dev/stdin /etc/deployhook/credentials/blog-token") ||
		!strings.Contains(notes, `no sudo line was made for "sudo sh -c 'echo $TOKEN'"`) {
		t.Errorf("notes: %s", notes)
	}
	if !slices.Contains(m.ran, "systemctl restart deployhook.service") {
		t.Errorf("a new credential needs a restart; ran %q", m.ran)
	}
	// With the missing value there it is handed over too.
	m.put("/etc/deployhook/credentials/blog-token", "value\n", 0o600)
	m.do(m.plan(nil))
	if got := m.file("/etc/systemd/system/deployhook.service.d/50-init.conf"); !strings.Contains(got, "LoadCredential=blog-token:/etc/deployhook/credentials/blog-token\n") {
		t.Errorf("drop-in: %s", got)
	}
}

func TestRemoveTakesBackWhatInitMadeAndNamesTheRest(t *testing.T) {
	m := newMachine(t)
	before := m.all()
	if _, err := m.Removal(); err == nil {
		t.Error("where init has made nothing, nothing can be removed")
	}
	m.do(m.plan(shop()))
	m.put("/etc/deployhook/mine", "x", 0o644)
	m.put(Config, m.file(Config)+"# by hand\n", 0o644)
	m.put("/srv/shop/releases/x", "", 0o644)
	m.put("/var/lib/deployhook/db", "", 0o644)
	r, err := m.Removal()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Do(t.Context(), func(Action) {}); err != nil {
		t.Fatal(err)
	}
	left := strings.Join(r.Leaves, "\n")
	var extra []string
	for _, path := range m.all() {
		if !slices.Contains(before, path) {
			extra = append(extra, path)
			named := false
			for p := path; p != "/"; p = filepath.Dir(p) {
				named = named || strings.Contains(left, p+":")
			}
			if st, err := os.Stat(m.at(path)); err == nil && !named && !st.IsDir() {
				t.Errorf("%s is left and not named:\n%s", path, left)
			}
		}
	}
	for _, gone := range []string{"/etc/deployhook/credentials", "/etc/sudoers.d/deployhook", "/etc/systemd/system/deployhook.service", "/etc/systemd/system/deployhook.service.d", "/usr/local/bin/deployhook", "/etc/deployhook/init.list"} {
		if slices.Contains(extra, gone) {
			t.Errorf("%s is still there", gone)
		}
	}
	for _, w := range []string{Config + ": it was changed after init made it", "/srv/shop: it is not empty", "/var/lib/deployhook: data", "users deployhook, deployhook-test, deploy and group deployhook-admin", "/etc/deployhook: it is not empty"} {
		if !strings.Contains(left, w) {
			t.Errorf("%q is not said:\n%s", w, left)
		}
	}
	if !slices.Contains(m.ran, "systemctl disable --now deployhook.socket deployhook-test.socket deployhook-agent.socket deployhook.service") {
		t.Errorf("ran %q", m.ran)
	}
	if _, err := m.Removal(); err == nil {
		t.Error("it can be removed twice")
	}
}

// A line that visudo refuses is not written: it would end sudo for everybody.
func TestBadSudoLineIsNotWritten(t *testing.T) {
	m := newMachine(t)
	m.say["visudo"] = errors.New("visudo: parse error")
	p := m.plan(shop())
	if err := p.Do(t.Context(), func(Action) {}); err == nil || !strings.Contains(err.Error(), "was not written") {
		t.Errorf("got %v", err)
	}
	if m.has("/etc/sudoers.d/deployhook") || m.has("/etc/deployhook/sudoers.new") {
		t.Error("something of it is there")
	}
	// What was made until then can be taken back, and init goes on from there.
	delete(m.say, "visudo")
	m.do(m.plan(shop()))
	if !m.has("/etc/sudoers.d/deployhook") {
		t.Error("it did not go on")
	}
}

func TestInitWithoutSudoSaysSo(t *testing.T) {
	m := newMachine(t)
	if err := os.Remove(m.at("/usr/bin/visudo")); err != nil {
		t.Fatal(err)
	}
	p := m.plan(shop())
	if p.Lacks == nil || p.Do(t.Context(), func(Action) {}) == nil || m.has(Config) {
		t.Error("it was begun without sudo")
	}
	a := shop()
	a.Restart = ""
	if p := m.plan(a); p.Lacks != nil {
		t.Errorf("without sudo in deploy.yaml none is needed: %v", p.Lacks)
	}
}

func TestUnitsOfAPackageStay(t *testing.T) {
	m := newMachine(t)
	m.Binary = "/usr/bin/deployhook"
	entries, err := systemd.Units.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".sysusers") {
			m.put("/usr/lib/sysusers.d/deployhook.conf", "x", 0o644)
		} else {
			m.put("/usr/lib/systemd/system/"+e.Name(), "x", 0o644)
		}
	}
	m.do(m.plan(shop()))
	for _, path := range []string{"/usr/local/bin/deployhook", "/etc/sysusers.d", "/etc/systemd/system/deployhook.service"} {
		if m.has(path) {
			t.Errorf("%s was made beside the package's", path)
		}
	}
}

func TestBadAnswersAreNamedByTheirFlags(t *testing.T) {
	for _, tt := range []struct {
		change func(*Answers)
		want   string
	}{
		{func(a *Answers) { a.Repository = "shop" }, "--repository: "},
		{func(a *Answers) { a.Path = "srv/shop" }, "--path: "},
		{func(a *Answers) { a.Path = "/" }, "--path: "},
		{func(a *Answers) { a.URL = "deploy.example.com" }, "--url: "},
		{func(a *Answers) { a.Name = "my shop" }, "--name: "},
		{func(a *Answers) { a.Branch = "!" }, "--branch: "},
		{func(a *Answers) { a.Restart = "echo ${{ sha }}" }, "--restart: "},
		{func(a *Answers) { a.Test = "echo ${{ sha }}" }, "--test: "},
	} {
		a := shop()
		tt.change(a)
		if _, err := a.YAML(); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %s", a, err, tt.want)
		}
	}
	if _, err := (&Answers{}).YAML(); !errors.Is(err, ErrNoRepository) {
		t.Errorf("no answers: %v", err)
	}
}

func TestAddressesOfARepositoryAreItsName(t *testing.T) {
	for _, address := range []string{"github.com/acme/shop", "https://github.com/acme/shop", "git@github.com:acme/shop.git", "ssh://git@github.com/acme/shop.git", "https://github.com/acme/shop.git/"} {
		a := &Answers{Repository: address}
		text, err := a.YAML()
		if err != nil || !strings.Contains(text, "    repository: github.com/acme/shop\n") || !strings.Contains(text, "release: /srv/shop\n") {
			t.Errorf("%s: %v\n%s", address, err, text)
		}
	}
}
