package git_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
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
	"golang.org/x/crypto/ssh/knownhosts"

	"deployhook/internal/git"
)

// sshd starts a real sshd on loopback that lets one key in, with extra lines in
// its config; it gives its address and the known_hosts line of its key.
func sshd(t *testing.T, login ssh.PublicKey, extra ...string) (addr, known string) {
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
SetEnv HOME=%s
%s
`, port, key, authorized, dir, strings.Join(extra, "\n"))) // what stands in ~/.bashrc is none of the test's business
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
		"a passphrase":     {locked(t), known, "the SSH key for example.com/r has a passphrase, which nobody is there to type: make one of its own with ssh-keygen -t ed25519 -N ''"},
		"the public half":  {ssh.MarshalAuthorizedKey(login), known, "the SSH key for example.com/r is the public half: the private one is wanted"},
		"another type":     {key, fmt.Sprintf("[127.0.0.1]:%s %s", port, ssh.MarshalAuthorizedKey(rsaKey(t))), "the host has none of the types of key that known_hosts has for it"},
		"revoked":          {key, "@revoked " + known, "fetching example.com/r: the host key of 127.0.0.1:" + port + " is refused"},
		"broken line":      {key, "@other " + known, "auth.known_hosts of example.com/r cannot be read"},
	} {
		_, err := remote(tt.key, tt.known).Fetch(t.Context(), sha, "refs/heads/main")
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	// The line that the message gives is the one that helps.
	_, err = remote(key, "").Fetch(t.Context(), sha, "refs/heads/main")
	_, line, _ := strings.Cut(err.Error(), "known_hosts: ")
	if got, err := remote(key, line).Fetch(t.Context(), sha, "refs/heads/main"); got != sha || err != nil {
		t.Errorf("with the line %q: %s, %v", line, got, err)
	}
	if got, err := remote(key, "# hashed\n\n"+knownhosts.HashHostname("[127.0.0.1]:"+port)+known[strings.Index(known, " "):]).Fetch(t.Context(), sha, "refs/heads/main"); got != sha || err != nil {
		t.Errorf("with a hashed line: %s, %v", got, err)
	}

	// What is fetched over it is the same as elsewhere.
	second := r.commit("it's! here", "2")
	m := remote(key, known)
	for _, c := range []string{sha, second} {
		if got, err := m.Fetch(t.Context(), c, "refs/heads/main"); got != c || err != nil {
			t.Errorf("%s, %v", got, err)
		}
	}
	if got := files(t, m, second); got["it's! here"] != "file:2" || got["a"] != "file:1" {
		t.Errorf("the files are %v", got)
	}
	shallow := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: fmt.Sprintf("ssh://%s@%s:%s%s", me.Username, host, port, r.dir), SSHKey: key, KnownHosts: []byte(known), Depth: 1})
	for _, c := range []string{second, r.commit("a", "3")} {
		if got, err := shallow.Fetch(t.Context(), c, "refs/heads/main"); got != c || err != nil {
			t.Errorf("at depth 1: %s, %v", got, err)
		}
	}
	if _, err := m.Fetch(t.Context(), strings.Repeat("1", 40), "refs/heads/main"); err == nil || !strings.Contains(err.Error(), "is not in example.com/r any more") {
		t.Errorf("a commit that is not there: %v", err)
	}
	for path, want := range map[string]string{
		"/no/such; touch x": "fetching example.com/r: not found (404): the name is wrong, or the login may not see it",
		newRepo(t).dir:      "example.com/r is empty",
	} {
		m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: fmt.Sprintf("ssh://%s@%s:%s%s", me.Username, host, port, path), SSHKey: key, KnownHosts: []byte(known)})
		_, err := m.Fetch(t.Context(), sha, "refs/heads/main")
		assertError(t, err, want, "\x00")
	}
}

// locked is a private key with a passphrase.
func locked(t *testing.T) []byte {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block)
}

func rsaKey(t *testing.T) ssh.PublicKey {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// A server may stop anywhere, in the handshake too.
func TestSSHServerThatStalls(t *testing.T) {
	git.SetStallTime(t, 300*time.Millisecond)
	_, key := newKey(t)
	for name, says := range map[string]string{"at once": "", "after its name": "SSH-2.0-OpenSSH_9.2\r\n"} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					defer c.Close()
					fmt.Fprint(c, says)
				}
			}()
			m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: "ssh://git@" + l.Addr().String() + "/r", SSHKey: key})
			_, err = m.Fetch(t.Context(), strings.Repeat("1", 40), "refs/heads/main")
			assertError(t, err, "fetching example.com/r: the server stopped sending", "\x00")
			git.SetStallTime(t, time.Hour)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_, err = m.Fetch(ctx, strings.Repeat("1", 40), "refs/heads/main")
			assertError(t, err, "fetching example.com/r: it took longer than there was time for", "\x00")
			git.SetStallTime(t, 300*time.Millisecond)
		})
	}
}
