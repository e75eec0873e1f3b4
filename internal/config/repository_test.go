package config

import (
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skeema/knownhosts"
)

const aHostKey = " ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"

func TestLinesOfKnownHosts(t *testing.T) {
	for line, good := range map[string]bool{
		"": true, "# comment": true, "example.com" + aHostKey: true, "[example.com]:2222,192.0.2.1" + aHostKey + " comment": true,
		"|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg=" + aHostKey: true, "@revoked example.com" + aHostKey: true,
		"@cert-authority *.example.com" + aHostKey: true, "*.example.com,!a.example.com" + aHostKey: true,
		"@other example.com" + aHostKey: false, "|1|x|y" + aHostKey: false, "|2|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg=" + aHostKey: false,
		"[example.com" + aHostKey: false, "!" + aHostKey: false, "example.com": false, "example.com ssh-ed25519 AAAA": false, "-----BEGIN OPENSSH PRIVATE KEY-----": false,
	} {
		if err := knownHost(line); (err == nil) != good {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// What check takes, the fetch takes.
func FuzzKnownHost(f *testing.F) {
	for _, s := range []string{"", "a", "#", "@", "|1|", "!", "[", ",", "example.com", "@revoked example.com", "[::1]:22", "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg="} {
		f.Add(s + aHostKey)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if strings.Contains(line, "\n") || line != strings.TrimSpace(line) || knownHost(line) != nil {
			return
		}
		name := filepath.Join(t.TempDir(), "known_hosts")
		if err := os.WriteFile(name, []byte("github.com"+aHostKey+"\n"+line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := knownhosts.NewDB(name); err != nil {
			t.Errorf("%q is taken, and then: %v", line, err)
		}
	})
}

func TestLoginsInAddressesAreRefusedWithTheBetterWay(t *testing.T) {
	const literal = "Hunter2Hunter2Hunter2"
	for _, address := range []string{
		"https://me:" + literal + "@github.com/acme/shop", "https://" + literal + "@github.com/acme/shop.git", "http://:" + literal + "@github.com/acme/shop",
		"ssh://git:" + literal + "@github.com/acme/shop", "me:" + literal + "@github.com:acme/shop", "https://me:" + literal + "@github.com:x/acme", "HTTPS://me:" + literal + "@github.com/acme/shop",
		"https://github.com/acme/shop?token=" + literal, "https://github.com/acme/shop#" + literal, "https//me:" + literal + "@github.com/acme/shop", "https://me:" + literal + "%zz@github.com/acme/shop",
		"me:" + literal + "@github.com/acme/shop", "git://me:" + literal + "@github.com/acme/shop", " https://me:" + literal + "@github.com/acme/shop x",
	} {
		for _, text := range []string{pipelineText("repository: '" + address + "'\n"), pipelineText("repository: github.com/acme/shop\nclone_url: '" + address + "'\n")} {
			_, err := Parse("deploy.yaml", []byte(text))
			if err == nil {
				t.Errorf("%s is taken", address)
				continue
			}
			if strings.Contains(err.Error(), literal) {
				t.Errorf("%v repeats what it must not", err)
			}
			if u, perr := url.Parse(address); perr == nil && u.User != nil && (u.Scheme == "https" || u.Scheme == "http") && !strings.Contains(err.Error(), "use auth.token") {
				t.Errorf("%v does not say what is better", err)
			}
		}
	}
}

func FuzzRepository(f *testing.F) {
	for _, s := range []string{
		"github.com/acme/shop", "https://GitHub.com/acme/Shop.git", "git@github.com:acme/shop.git", "ssh://git@example.com:2222/acme/shop", "dev.azure.com/o/p/_git/r",
		"acme/shop", "/srv/git/shop.git", "file:///srv/git/shop.git", "", "::", "http://[::1", "https://user:pass@example.com/a", "git@-oProxyCommand=x:y", "localhost/x", "example.com:8080/a/b", "a.b/../c", "https://h/%2e%2e/x", "a%0000.0000000/0000", "@@:0",
	} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, text string, overSSH bool) {
		id, address, err := repositoryOf(text, overSSH)
		if err != nil {
			if s := err.Error(); s == "" || strings.ContainsAny(s, "\n\r\x1b") {
				t.Errorf("%q is no sentence", s)
			}
			return
		}
		host, repo, _ := strings.Cut(id, "/")
		if id != strings.ToLower(id) || host == "" || repo == "" || strings.HasPrefix(id, "-") || strings.Contains(id, "@") && !strings.Contains(repo, "@") {
			t.Errorf("%q is the identity %q", text, id)
		}
		if err := checkAddress(address); err != nil || path.IsAbs(address) || strings.HasPrefix(address, "-") {
			t.Errorf("%q is fetched from %q: %v", text, address, err)
		}
	})
}
