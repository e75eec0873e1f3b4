package host_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
	"deployhook/internal/host/hosttest"
)

// privateKey writes a private key as ssh-keygen does, and gives its path and
// its public half.
func privateKey(t *testing.T, key any, passphrase string) (string, ssh.PublicKey) {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return name, signer.PublicKey()
}

func newRSA(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newECDSA(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func text(key ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) }

// reaches opens an agent and ends it.
func reaches(t *testing.T, what string, far *deploy.Host) {
	t.Helper()
	c, err := near(t).Open(t.Context(), far, deploy.TestAgent)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if err := c.Close(); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// certificate signs a key with a CA of its own, and gives that one's public half.
func certificate(t *testing.T, key ssh.PublicKey, kind uint32, name string, until time.Time) (*ssh.Certificate, ssh.PublicKey) {
	t.Helper()
	ca, err := ssh.NewSignerFromKey(newECDSA(t))
	if err != nil {
		t.Fatal(err)
	}
	c := &ssh.Certificate{
		Key: key, CertType: kind, ValidPrincipals: []string{name}, ValidAfter: uint64(time.Now().Add(-time.Hour).Unix()), ValidBefore: uint64(until.Unix()),
		Permissions: ssh.Permissions{Extensions: map[string]string{"permit-pty": ""}},
	}
	if err := c.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	return c, ca.PublicKey()
}

func TestLoginWithEachKindOfKey(t *testing.T) {
	s := hosttest.Start(t, hosttest.Options{Config: []string{"TrustedUserCAKeys " + filepath.Join(t.TempDir(), "ca")}})
	far := s.Host()
	rsaFile, rsaKey := privateKey(t, newRSA(t), "")
	ecdsaFile, ecdsaKey := privateKey(t, newECDSA(t), "")
	certFile, certKey := privateKey(t, newECDSA(t), "")
	lockedFile, _ := privateKey(t, newECDSA(t), "hunter2")
	strangerFile, strangerKey := privateKey(t, newECDSA(t), "")
	oldFile, oldKey := privateKey(t, newECDSA(t), "")
	cert, ca := certificate(t, certKey, ssh.UserCert, s.User, time.Now().Add(time.Hour))
	old, _ := certificate(t, oldKey, ssh.UserCert, s.User, time.Now().Add(-time.Minute))
	s.Write("authorized_keys", strings.Join([]string{text(s.Login), text(rsaKey), text(ecdsaKey), "cert-authority " + text(ca)}, "\n")+"\n")
	public := s.Write("public", text(s.Login)+"\n")
	for name, content := range map[string]string{certFile: text(cert), oldFile: text(old)} {
		if err := os.WriteFile(name+"-cert.pub", []byte(content+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for what, file := range map[string]string{"ed25519": s.Identity, "RSA": rsaFile, "ECDSA": ecdsaFile, "a certificate": certFile} {
		far.Identity = &deploy.Secret{File: file}
		reaches(t, what, far)
	}
	for what, tt := range map[string]struct{ file, want string }{
		"a passphrase":       {lockedFile, "the identity_file of web1 has a passphrase, which nobody is there to type: make a key of its own with ssh-keygen -t ed25519 -N '', or give it to an SSH agent"},
		"the public half":    {public, "the identity_file of web1 is the public half: the private one is wanted"},
		"no key":             {filepath.Join(s.Dir, "sshd_config"), "the identity_file of web1 cannot be read: it must be a private key without a passphrase"},
		"no file":            {"/no/such/key", "reading its identity_file: open /no/such/key: no such file or directory"},
		"a stranger":         {strangerFile, "does not let " + s.User + " in: permission denied; add this key to " + s.User + "'s ~/.ssh/authorized_keys there: " + text(strangerKey)},
		"an old certificate": {oldFile, "-cert.pub was valid until "},
	} {
		far.Identity = &deploy.Secret{File: tt.file}
		if err := sentence(t, near(t), far); !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", what, err, tt.want)
		}
	}
}

// sshAgent is an SSH agent with keys, as ssh-agent is.
func sshAgent(t *testing.T, keys ...any) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "dh")
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	for _, key := range keys {
		if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", filepath.Join(dir, "agent"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); os.RemoveAll(dir) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(ring, c); c.Close() }()
		}
	}()
	return l.Addr().String()
}

func TestLoginWithTheKeysOfAnSSHAgent(t *testing.T) {
	s := hosttest.Start(t, hosttest.Options{})
	key := newRSA(t)
	_, public := privateKey(t, key, "")
	s.Write("authorized_keys", text(public)+"\n")
	far := s.Host()
	far.Identity = nil
	t.Setenv("HOME", t.TempDir())
	t.Setenv("SSH_AUTH_SOCK", sshAgent(t, newECDSA(t), key))
	reaches(t, "the agent's second key", far)
	t.Setenv("SSH_AUTH_SOCK", sshAgent(t, newECDSA(t), newECDSA(t), newECDSA(t), newECDSA(t), newECDSA(t), newECDSA(t), newECDSA(t), newECDSA(t), key))
	if err := sentence(t, near(t), far); !strings.Contains(err.Error(), "after too many keys: name the right one with identity_file in hosts.web1") {
		t.Errorf("many keys: %v", err)
	}
	t.Setenv("SSH_AUTH_SOCK", filepath.Join(t.TempDir(), "none"))
	if err := sentence(t, near(t), far); !strings.Contains(err.Error(), "there is no private key to log in with: write identity_file in hosts.web1, with a key that stands in "+s.User+"'s authorized_keys there") {
		t.Errorf("no key: %v", err)
	}
	// What ssh takes when nothing is said.
	if err := os.MkdirAll(filepath.Join(os.Getenv("HOME"), ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(os.Getenv("HOME"), ".ssh", "id_rsa"), pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	reaches(t, "~/.ssh/id_rsa", far)
}

func TestOnlyTheKnownHostIsTalkedTo(t *testing.T) {
	s := hosttest.Start(t, hosttest.Options{Config: []string{"HostKey " + rsaHostKey(t)}})
	addr := fmt.Sprintf("[127.0.0.1]:%d", s.Port)
	_, other := privateKey(t, newECDSA(t), "")
	t.Setenv("HOME", t.TempDir())
	with := func(hostKey, lines string) *deploy.Host {
		far := s.Host()
		far.HostKey, far.KnownHosts = hostKey, lines
		return far
	}
	reaches(t, "host_key", with(s.HostKey, ""))
	reaches(t, "known_hosts", with("", "# ours\n"+addr+" "+s.HostKey+"\n"))
	reaches(t, "a pattern", with("", "127.0.0.* "+s.HostKey))
	for what, tt := range map[string]struct {
		far     *deploy.Host
		want    string
		changed bool
	}{
		"unknown":         {with("", ""), "the host key of 127.0.0.1:" + fmt.Sprint(s.Port) + " is not known; if ssh-keygen -l there shows SHA256:", false},
		"changed":         {with(text(other), ""), "is not the one that is known: the machine was set up anew, or this is another one; if ssh-keygen -l there shows SHA256:", true},
		"changed in file": {with("", addr+" "+text(other)), "is not the one that is known", true},
		"revoked":         {with("", addr+" "+s.HostKey+"\n@revoked * "+s.HostKey), " is refused: ", false},
		"no key":          {with("ssh-ed25519 nonsense", ""), "host_key of hosts.web1 is none: it looks like ssh-ed25519 AAAA…", false},
		"broken lines":    {with("", addr+" ssh-ed25519 nonsense"), "the known_hosts of hosts.web1 cannot be read: ", false},
	} {
		err := sentence(t, near(t), tt.far)
		if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", what, err, tt.want)
		}
		var key *host.HostKeyError
		if !asHostKey(err, &key) {
			continue
		}
		if key.Changed != tt.changed {
			t.Errorf("%s: changed is %v", what, key.Changed)
		}
		if what != "revoked" && !strings.HasSuffix(err.Error(), "write in hosts.web1: "+key.Line) {
			t.Errorf("%s: %v does not end with the line to write, %q", what, err, key.Line)
		}
		// The line that it gives is the one that helps.
		if line, ok := strings.CutPrefix(key.Line, "host_key: "); ok {
			reaches(t, what+", mended", with(line, ""))
		}
	}
	// Nothing was asked of a host that is not known: no login was tried.
	if strings.Count(s.Log(), "Accepted publickey") != 6 {
		t.Errorf("sshd let somebody in who does not know it:\n%s", s.Log())
	}
}

// rsaHostKey is a second host key: the client must ask for the one that is known.
func rsaHostKey(t *testing.T) string {
	name, _ := privateKey(t, newRSA(t), "")
	return name
}

func TestHostsOfACertificateAuthorityAreKnown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name, key := privateKey(t, newECDSA(t), "")
	cert, ca := certificate(t, key, ssh.HostCert, "127.0.0.1", time.Now().Add(time.Hour))
	certFile := filepath.Join(dir, "cert.pub")
	if err := os.WriteFile(certFile, []byte(text(cert)+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := hosttest.Start(t, hosttest.Options{Config: []string{"HostKey " + name, "HostCertificate " + certFile}})
	far := s.Host()
	far.HostKey, far.KnownHosts = "", "@cert-authority 127.0.0.* "+text(ca)
	reaches(t, "a certificate", far)
	far.KnownHosts = "@cert-authority 127.0.0.* " + text(key)
	if err := sentence(t, near(t), far); !strings.Contains(err.Error(), "the host key of 127.0.0.1:") {
		t.Error(err)
	}
}
