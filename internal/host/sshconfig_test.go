package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestJumpsAreReadAsSSHReadsThem(t *testing.T) {
	for text, want := range map[string]hop{
		"bastion": {host: "bastion"}, "deploy@bastion:2222": {host: "bastion", user: "deploy", port: 2222}, "ssh://a@b:22": {host: "b", user: "a", port: 22},
		"[::1]:2222": {host: "::1", port: 2222}, "a@::1": {host: "::1", user: "a"}, "a@b@c": {host: "c", user: "a@b"},
	} {
		p, err := parseJump(text)
		if err != nil || p.host != want.host || p.user != want.user || p.port != want.port {
			t.Errorf("%q: %+v, %v", text, p, err)
		}
	}
	for _, text := range []string{"", "@", "a@", "-oProxyCommand=x", "a@-x", "a:b", "a:0", "a:99999", "a b", "[]:22"} {
		if p, err := parseJump(text); err == nil {
			t.Errorf("%q was read as %+v", text, p)
		}
	}
}

func FuzzSSHConfig(f *testing.F) {
	f.Add("Host web*\n  HostName %h.example.com\n  ProxyJump a@b:22,c\n  IdentityFile \"~/a b\" ~/c\n")
	f.Add("Match host web\n  User x\nHost *\n  UserKnownHostsFile none\n")
	f.Add("Include config\nHost web !x\n Port=1\n")
	f.Add("Host web\nProxyJump web\n")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(strings.ToLower(text), "include") && strings.ContainsAny(text, "/*?[~") {
			return // what else this machine has is none of the test's business
		}
		name := filepath.Join(dir, "config")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := readSSHConfig(name)
		if err != nil {
			return
		}
		p := &hop{name: "web1", place: "hosts.web1", host: "web"}
		jumps, err := c.jumps(p.host, nil)
		if err == nil {
			err = c.apply(p)
		}
		if err != nil {
			if text := err.Error(); len(text) > 10_000 {
				t.Errorf("an error of %d bytes", len(text))
			}
			return
		}
		for _, j := range append(jumps, p) {
			if j.port < 1 || j.port > 65535 || j.user == "" {
				t.Errorf("%+v", j)
			}
		}
	})
}

func FuzzKnownHosts(f *testing.F) {
	f.Add("web1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBowUVsjVw8ZXBcD3TMWnGJpkmuwXtGFid+gbF/yLfws", true)
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBowUVsjVw8ZXBcD3TMWnGJpkmuwXtGFid+gbF/yLfws", false)
	f.Add("@revoked * ssh-rsa AAAA\n|1|x|y ssh-ed25519 AAAA", true)
	f.Fuzz(func(t *testing.T, text string, lines bool) {
		p := &hop{name: "web1", place: "hosts.web1", host: "web1", port: 22, hostKey: text}
		if lines {
			p.hostKey, p.knownLines = "", text
		}
		if text == "" {
			return
		}
		k, err := p.known()
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b") || strings.Contains(err.Error(), "deployhook-known-hosts") {
				t.Errorf("%q is not a sentence", err)
			}
			return
		}
		for _, a := range k.algorithms(p) {
			if strings.HasPrefix(a, "ssh-rsa") || strings.HasPrefix(a, "ssh-dss") {
				t.Errorf("%s is asked for", a)
			}
		}
	})
}
