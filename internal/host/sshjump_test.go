package host_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
	"deployhook/internal/host/hosttest"
)

func TestHostsBehindOthersAreReachedAndEachIsChecked(t *testing.T) {
	t.Parallel()
	outer := hosttest.Start(t, hosttest.Options{Name: "outer"})
	middle := hosttest.Start(t, hosttest.Options{Name: "middle"})
	inner := hosttest.Start(t, hosttest.Options{Name: "inner"})
	closed := hosttest.Start(t, hosttest.Options{Name: "closed", Config: []string{"AllowTcpForwarding no"}})
	chain := func(list ...*hosttest.Server) *deploy.Host {
		var far *deploy.Host
		for _, s := range list {
			next := s.Host()
			next.Jump, far = far, next
		}
		return far
	}
	far := chain(outer, middle, inner)
	far.Keepalive, far.Jump.Keepalive = 50*time.Millisecond, 50*time.Millisecond
	c := openFar(t, near(t), far)
	if _, o := run(t, c, host.Step{Dir: "/", Command: "sleep 0.3; echo $HOME"}); o.stdout() != inner.Home+"\n" {
		t.Errorf("a step ran at %q", o.stdout())
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	bad := chain(outer, middle, inner)
	bad.Jump.HostKey = inner.HostKey
	logins := strings.Count(inner.Log(), "Accepted")
	if err := sentence(t, near(t), bad); !strings.Contains(err.Error(), "host inner: its jump host middle: the host key of 127.0.0.1:") || !strings.Contains(err.Error(), "write in hosts.middle: host_key: "+middle.HostKey) {
		t.Error(err)
	}
	bad = chain(outer, middle, inner)
	bad.HostKey = middle.HostKey
	if err := sentence(t, near(t), bad); !strings.Contains(err.Error(), "host inner: the host key of 127.0.0.1:") || !strings.Contains(err.Error(), "write in hosts.inner: host_key: "+inner.HostKey) {
		t.Error(err)
	}
	if strings.Count(inner.Log(), "Accepted") != logins {
		t.Error("a host was logged in to past one that is not known")
	}
	if err := sentence(t, near(t), chain(closed, inner)); !strings.Contains(err.Error(), "the jump host closed may not lead to 127.0.0.1:") {
		t.Error(err)
	}
	down := chain(outer, inner)
	down.Port = 1
	if err := sentence(t, near(t), down); !strings.Contains(err.Error(), "the jump host outer cannot reach 127.0.0.1:1: ") || !errors.Is(err, host.ErrUnreachable) {
		t.Error(err)
	}
	circle := chain(outer, inner)
	circle.Jump.Jump = circle
	if err := sentence(t, near(t), circle); !strings.Contains(err.Error(), "its jump hosts go round in a circle: inner -> outer -> inner") {
		t.Error(err)
	}
	long := chain(outer, inner)
	for i := range 10 {
		long = &deploy.Host{Name: fmt.Sprint(i), Jump: long, HostKey: inner.HostKey}
	}
	if err := sentence(t, near(t), long); !strings.Contains(err.Error(), "it goes through over 8 hosts") {
		t.Error(err)
	}
}

func TestWhatStandsInSSHConfigCounts(t *testing.T) {
	outer := hosttest.Start(t, hosttest.Options{Name: "outer"})
	inner := hosttest.Start(t, hosttest.Options{Name: "inner"})
	certFile, certKey := privateKey(t, newECDSA(t), "")
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("SSH_AUTH_SOCK", "")
	write := func(name, content string) string {
		path := filepath.Join(home, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	known := write("known hosts", fmt.Sprintf("[127.0.0.1]:%d %s\n[127.0.0.1]:%d %s\ninner-key %s\n", outer.Port, outer.HostKey, inner.Port, inner.HostKey, inner.HostKey))
	cfg := func(more string) *deploy.Host {
		name := write("config", fmt.Sprintf(`# ours
%s
Host web
  HostName 127.0.0.1
  Port %d
  IdentityFile %s
  ProxyJump %s@hop
Host hop
  HostName=127.0.0.1
  Port %d
  IdentityFile %s
Host *
  User %s
  UserKnownHostsFile "~/known hosts" /no/such/file
  IdentitiesOnly yes
  StrictHostKeyChecking no
  ServerAliveInterval 5
`, more, inner.Port, inner.Identity, outer.User, outer.Port, outer.Identity, inner.User))
		return &deploy.Host{Name: "web1", Address: "web", SSHConfig: name}
	}
	reaches(t, "ssh_config", cfg(""))
	if strings.Count(outer.Log(), "Accepted") != 1 {
		t.Errorf("ProxyJump was not gone through:\n%s", outer.Log())
	}
	reaches(t, "an alias for the key", cfg("Host web\n  HostKeyAlias inner-key\n"))
	write("more", "Host web\n  ProxyJump none\n")
	reaches(t, "a file that is included, no jump", cfg("Include "+filepath.Join(home, "more")))
	reaches(t, "tokens", cfg(fmt.Sprintf("Host web\n  IdentityFile %%d/../../%s\n", strings.TrimPrefix(inner.Identity, "/tmp/"))))
	if n := strings.Count(outer.Log(), "Accepted"); n != 3 {
		t.Errorf("the jump host was gone through %d times, want 3", n)
	}
	// What is written in deploy.yaml counts first.
	written := cfg("Host web\n  User nobody\n  Port 1\n")
	written.User, written.Port = inner.User, inner.Port
	reaches(t, "what is written", written)
	cert, ca := certificate(t, certKey, 1, inner.User, time.Now().Add(time.Hour))
	inner.Write("authorized_keys", "cert-authority "+text(ca)+"\n")
	reaches(t, "a certificate", cfg("Host web\n  IdentityFile "+certFile+"\n  CertificateFile "+write("cert.pub", text(cert)+"\n")+"\n"))
	inner.Write("authorized_keys", text(inner.Login)+"\n")
	key := newECDSA(t)
	_, public := privateKey(t, key, "")
	inner.Write("authorized_keys", text(public)+"\n")
	reaches(t, "an agent", cfg("Host web\n  IdentitiesOnly no\n  IdentityAgent "+sshAgent(t, key)+"\n"))

	write("known hosts", fmt.Sprintf("[127.0.0.1]:%d %s\n", inner.Port, inner.HostKey))
	if err := sentence(t, near(t), cfg("")); !strings.Contains(err.Error(), fmt.Sprintf("write in %s: [127.0.0.1]:%d %s", known, outer.Port, outer.HostKey)) {
		t.Errorf("an unknown jump host: %v", err)
	}
	for more, want := range map[string]string{
		"Host web\n  ProxyCommand nc %h %p\n":                    ": ProxyCommand is not supported: take it out for web, or leave ssh_config out",
		"Host *\n  KnownHostsCommand /bin/x\n":                   ": KnownHostsCommand is not supported",
		"Host web\n  PKCS11Provider /lib/x.so\n":                 ": PKCS11Provider is not supported",
		"Host hop\n  ProxyCommand nc %h %p\n":                    ": ProxyCommand is not supported: take it out for hop",
		"Match exec true\n  User nobody\n":                       "of Match, deployhook knows host, originalhost, user, localuser and all",
		"Host web\n  Port many\n":                                `"many" is not a port`,
		"Host web\n  ProxyJump web\n":                            "ProxyJump goes round in a circle: web -> web",
		"Host web\n  ProxyJump hop\nHost hop\n  ProxyJump web\n": "ProxyJump goes round in a circle: web -> hop -> web",
		"Host web\n  ProxyJump -oProxyCommand=x\n":               "names no host",
		"Host web\n  IdentityFile ~/%k\n":                        "%k is not supported",
	} {
		if err := sentence(t, near(t), cfg(more)); !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "host web1: ssh_config of hosts.web1: ") {
			t.Errorf("%q: %v, want %q", more, err, want)
		}
	}
	if err := sentence(t, near(t), &deploy.Host{Name: "web1", SSHConfig: "/no/such/config"}); !strings.Contains(err.Error(), "host web1: ssh_config of hosts.web1: open /no/such/config: no such file or directory") {
		t.Error(err)
	}
}
