package git_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"deployhook/internal/git"
)

// sshd starts a real sshd on loopback that lets one key in; it gives its
// address and the known_hosts line of its key.
func sshd(t *testing.T, login ssh.PublicKey) (addr, known string) {
	t.Helper()
	bin := "/usr/sbin/sshd"
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("this test needs openssh-server: %v (make tools installs it)", err)
	}
	dir := t.TempDir()
	hostKey, hostPEM := newKey(t)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := write("host_key", string(hostPEM))
	authorized := write("authorized_keys", string(ssh.MarshalAuthorizedKey(login)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(addr)
	conf := write("sshd_config", fmt.Sprintf(`ListenAddress 127.0.0.1:%s
HostKey %s
AuthorizedKeysFile %s
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
`, port, key, authorized))
	if os.Getuid() == 0 {
		// Where sshd of this system separates its privileges.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(bin, "-D", "-e", "-f", conf)
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatalf("sshd does not answer: %v", err)
		}
	}
	return addr, fmt.Sprintf("[127.0.0.1]:%s %s", port, ssh.MarshalAuthorizedKey(hostKey))
}

func newKey(t *testing.T) (ssh.PublicKey, []byte) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(block)
}

func TestSSHWantsTheRightKeyOnBothSides(t *testing.T) {
	r := newRepo(t)
	sha := r.commit("a", "1")
	login, key := newKey(t)
	other, otherKey := newKey(t)
	addr, known := sshd(t, login)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(addr)
	remote := func(key []byte, known string) *git.Mirror {
		return mirrors(t).Mirror(git.Remote{
			Repository: "example.com/r", URL: fmt.Sprintf("ssh://%s@%s:%s%s", me.Username, host, port, r.dir), SSHKey: key, KnownHosts: []byte(known),
		})
	}
	if got, err := remote(key, known).Fetch(t.Context(), sha, "refs/heads/main"); got != sha || err != nil {
		t.Fatalf("with the right keys: %s, %v", got, err)
	}
	if got, err := remote(key, known).Resolve(t.Context(), "main"); got != sha || err != nil {
		t.Errorf("Resolve: %s, %v", got, err)
	}
	changed := fmt.Sprintf("[127.0.0.1]:%s %s", port, ssh.MarshalAuthorizedKey(other))
	for name, tt := range map[string]struct {
		key   []byte
		known string
		want  string
	}{
		"another key":      {otherKey, known, "the server refuses this SSH key: add its public half as a deploy key"},
		"unknown host":     {key, "", "is not known: compare it with what the host's owner publishes, then add to known_hosts: [127.0.0.1]:" + port + " ssh-ed25519 "},
		"changed host key": {key, changed, "has changed: when that is right, replace its line in known_hosts by: [127.0.0.1]:" + port},
		"no key":           {nil, known, "needs auth.ssh_key"},
		"no key at all":    {[]byte("-----BEGIN nonsense"), known, "cannot be read: it must be a private key without a passphrase"},
	} {
		_, err := remote(tt.key, tt.known).Fetch(t.Context(), sha, "refs/heads/main")
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}
