// Package hosttest gives tests real hosts: sshd on loopback, each with a home,
// keys and a place for releases of its own, and a proxy that a connection can
// be made bad with.
package hosttest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"deployhook/internal/deploy"
)

// Options say what is special about a host.
type Options struct {
	Name   string   // of the host in deploy.yaml; default web1
	Config []string // further lines of sshd_config
	Bashrc string   // what stands in ~/.bashrc
	Env    []string // further variables of a session, KEY=value without spaces
	// Empty has no program of an agent; else the test's own is there, so that
	// not every test copies it.
	Empty bool

	// Command is what runs in place of what is asked for, which stands in
	// $SSH_ORIGINAL_COMMAND. With Mount or BusyBox it runs in there.
	Command string
	// Mount is a shell command that runs before each session, in a mount
	// namespace of its own: what it mounts nobody else sees. It needs root.
	Mount string
	// BusyBox gives the host a root of its own in which there is BusyBox and
	// nothing else. It needs root.
	BusyBox bool
}

// Server is a host: a running sshd.
type Server struct {
	Name     string
	Address  string
	Port     int
	User     string
	Home     string        // of the user, as this machine sees it
	Root     string        // where releases may stand, as the host sees it
	HostKey  string        // "ssh-ed25519 AAAA…"
	Identity string        // path of the private key that is let in
	Login    ssh.PublicKey // its public half
	Dir      string        // where sshd's files are: authorized_keys, sshd_config

	t       testing.TB
	outside string // the root of a host with BusyBox; else empty
	mu      sync.Mutex
	cmd     *exec.Cmd
	log     *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const sshdPath = "/usr/sbin/sshd"

// Missing fails a test in CI for a tool that is not there, and skips it elsewhere.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("this test needs %s", what)
	}
	t.Skipf("this test needs %s", what)
}

// Start starts a host, which ends with the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if _, err := os.Stat(sshdPath); err != nil {
		Missing(t, "openssh-server (make tools installs it)")
	}
	if (o.Mount != "" || o.BusyBox) && os.Getuid() != 0 {
		Missing(t, "root: it mounts")
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &Server{
		Name: o.Name, Address: "127.0.0.1", Port: freePort(t), User: me.Username, Dir: dir, Home: filepath.Join(dir, "home"),
		Root: filepath.Join(dir, "root"), Identity: filepath.Join(dir, "id"), t: t, log: &lockedBuffer{},
	}
	if s.Name == "" {
		s.Name = "web1"
	}
	for _, d := range []string{s.Home, s.Root} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	hostKey := s.NewKey("host_key")
	s.Login = s.NewKey("id")
	s.HostKey = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(hostKey)))
	s.Write("authorized_keys", string(ssh.MarshalAuthorizedKey(s.Login)))
	if o.Bashrc != "" {
		s.Write("home/.bashrc", o.Bashrc)
	}
	config := []string{
		fmt.Sprintf("ListenAddress 127.0.0.1:%d", s.Port),
		"HostKey " + filepath.Join(dir, "host_key"),
		"AuthorizedKeysFile " + filepath.Join(dir, "authorized_keys"),
		"PidFile none", "StrictModes no", "UsePAM no", "UseDNS no", "PermitRootLogin yes", "MaxStartups 100",
		"PasswordAuthentication no", "KbdInteractiveAuthentication no",
		// What stands in the home of who runs the test is none of its business.
		"SetEnv " + strings.Join(append(o.Env, "HOME="+s.Home), " "), // of two, the first counts
	}
	if session := s.session(o); session != "" {
		config = append(config, "ForceCommand "+session)
	}
	s.Write("sshd_config", strings.Join(append(o.Config, config...), "\n")+"\n")
	if !o.Empty && !o.BusyBox {
		s.seed()
	}
	s.Up()
	t.Cleanup(s.Down)
	return s
}

// ownSum is the SHA-256 of the test's own binary.
var ownSum = sync.OnceValues(func() (string, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
})

// seed puts the test's own binary where an agent's program is looked for.
func (s *Server) seed() {
	s.t.Helper()
	sum, err := ownSum()
	if err != nil {
		s.t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	dir := filepath.Join(s.Home, ".cache", "deployhook")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	name := filepath.Join(dir, "agent-"+sum)
	if os.Link(exe, name) == nil {
		return
	}
	// On another file system.
	syscall.ForkLock.RLock() // a process that is started meanwhile would hold it open for writing
	defer syscall.ForkLock.RUnlock()
	b, err := os.ReadFile(exe)
	if err == nil {
		err = os.WriteFile(name, b, 0o700)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// session is the script that runs in place of what is asked for, if one must.
func (s *Server) session(o Options) string {
	if o.BusyBox {
		s.busyBox()
	}
	command := o.Command
	switch {
	case command == "" && o.Mount == "" && !o.BusyBox:
		return ""
	case command == "":
		command = `exec sh -c "$SSH_ORIGINAL_COMMAND"`
		if o.BusyBox {
			command = fmt.Sprintf(`HOME=/root PATH=/bin SHELL=/bin/sh exec /usr/sbin/chroot %s /bin/sh -c "$SSH_ORIGINAL_COMMAND"`, s.outside)
		}
	}
	mount := o.Mount
	if o.BusyBox {
		mount = strings.TrimPrefix(mount+fmt.Sprintf("\nmount --rbind /proc %[1]s/proc\nmount --rbind /dev %[1]s/dev", s.outside), "\n")
	}
	if mount == "" {
		return s.Write("session", "#!/bin/sh\n"+command+"\n")
	}
	inner := s.Write("mounted", "#!/bin/sh\nset -e\n"+mount+"\n"+command+"\n")
	return s.Write("session", "#!/bin/sh\nexec unshare --mount --propagation private "+inner+"\n")
}

// busyBox makes a root with BusyBox alone.
func (s *Server) busyBox() {
	s.t.Helper()
	box, err := exec.LookPath("busybox")
	if err != nil {
		Missing(s.t, "busybox-static (make tools installs it)")
	}
	s.outside = filepath.Join(s.Dir, "root")
	s.Home = filepath.Join(s.outside, "root")
	for _, d := range []string{"bin", "proc", "dev", "tmp", "srv", "root", "etc"} {
		if err := os.Mkdir(filepath.Join(s.outside, d), 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	b, err := os.ReadFile(box)
	if err != nil {
		s.t.Fatal(err)
	}
	for name, content := range map[string]string{"bin/busybox": string(b), "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"} {
		s.Write(filepath.Join("root", name), content)
	}
	if err := os.Chmod(filepath.Join(s.outside, "bin/busybox"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if out, err := exec.Command("chroot", s.outside, "/bin/busybox", "--install", "-s", "/bin").CombinedOutput(); err != nil {
		Missing(s.t, fmt.Sprintf("a BusyBox that is linked statically (busybox-static): %v %s", err, out))
	}
	s.Root = "/srv"
}

// Outside gives the place on this machine of a path as the host sees it.
func (s *Server) Outside(path string) string { return s.outside + path }

// Write writes one of the host's files, executable, and gives its path.
func (s *Server) Write(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.Dir, name)
	mode := os.FileMode(0o600)
	if strings.HasPrefix(content, "#!") {
		mode = 0o755
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// NewKey makes a key pair among the host's files, and gives the public half.
func (s *Server) NewKey(name string) ssh.PublicKey {
	s.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		s.t.Fatal(err)
	}
	s.Write(name, string(pem.EncodeToMemory(block)))
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		s.t.Fatal(err)
	}
	return key
}

// Up starts sshd, also again after Down, at the same port.
func (s *Server) Up() {
	s.t.Helper()
	if os.Getuid() == 0 {
		// Where sshd of this system separates its privileges.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	before := s.Log()
	cmd := exec.Command(sshdPath, "-D", "-e", "-f", filepath.Join(s.Dir, "sshd_config"))
	cmd.Stderr = s.log
	cmd.WaitDelay = time.Second // its sessions have its stderr, too
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.cmd = cmd
	s.mu.Unlock()
	// Its own word counts: something else could answer at the port.
	for end := time.Now().Add(30 * time.Second); !strings.Contains(s.Log()[len(before):], "Server listening on "); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("sshd does not answer:\n%s", s.Log())
		}
	}
}

// Down ends sshd; sessions go on.
func (s *Server) Down() {
	s.mu.Lock()
	cmd := s.cmd
	s.cmd = nil
	s.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// Log is what sshd said so far.
func (s *Server) Log() string { return s.log.String() }

// Host is the host as deploy.yaml's checked form has it.
func (s *Server) Host() *deploy.Host {
	return &deploy.Host{
		Name: s.Name, Address: s.Address, Port: s.Port, User: s.User, HostKey: s.HostKey, Identity: &deploy.Secret{Name: "hosts." + s.Name + ".identity_file", File: s.Identity},
	}
}

// YAML is the host's entry of the section hosts, indented by two.
func (s *Server) YAML() string {
	return fmt.Sprintf("  %s:\n    address: %s\n    port: %d\n    user: %s\n    identity_file: %s\n    host_key: %s\n",
		s.Name, s.Address, s.Port, s.User, s.Identity, s.HostKey)
}

// freePort finds a port below those that the kernel gives to connections and
// to who asks for any: none of them can take it before sshd does.
func freePort(t testing.TB) int {
	t.Helper()
	const low, high = 12000, 32000
	for range 100 {
		port := low + mathrand.IntN(high-low)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}
