package packaging

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const labConfig = `server:
  shutdown_grace: 30s
  agent: { test: /run/deployhook-agents/test.sock, deploy: /run/deployhook-agents/deploy.sock }
hooks:
  github: { provider: github, secret: { credential: github-webhook } }
pipelines:
  shop:
    repository: github.com/acme/shop
    clone_url: /srv/git/shop.git
    on:
      push: { branches: [main] }
    jobs:
      test:
        steps:
          - run: test -e server.js
      deploy:
        release: /srv/shop
        steps:
          - run: test -e server.js
  slow:
    jobs:
      wait:
        steps:
          - run: echo begun; until [ -e /opt/gate/go ]; do sleep 0.1; done
`

// TestPackageOnARealSystemd installs the .deb in a clean Debian with a real
// systemd, deploys once, upgrades it while a run is going on, removes and purges
// it, and looks at what is left.
//
// It runs where DEPLOYHOOK_SYSTEMD_LAB names a lab: see systemd/lab_test.go.
func TestPackageOnARealSystemd(t *testing.T) {
	lab := os.Getenv("DEPLOYHOOK_SYSTEMD_LAB")
	if lab == "" {
		t.Skip("DEPLOYHOOK_SYSTEMD_LAB names no lab")
	}
	dir := t.TempDir()
	first := only(t, released(t), "*_amd64.deb")
	second := only(t, built(t, "VERSION=99.0.0", "ARCHS=amd64", "PACKAGERS=deb"), "*_amd64.deb")
	for name, from := range map[string]string{
		"first.deb": first, "first.tar.gz": only(t, released(t), "*-linux-amd64.tar.gz"), "second.deb": second, "postinst": "postinst", "prerm": "prerm", "postrm": "postrm", "test.sh": "testdata/lab.sh",
		"lib.sh": "../systemd/testdata/lib.sh",
	} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if name == "test.sh" {
			mode = 0o755
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(labConfig), 0o644); err != nil {
		t.Fatal(err)
	}
	repo := filepath.Join(t.TempDir(), "shop")
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com",
			"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	git("init", "-q", "-b", "main", repo)
	if err := os.WriteFile(filepath.Join(repo, "server.js"), []byte("// one\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	git("-C", repo, "add", "-A")
	git("-C", repo, "commit", "-q", "-m", "one")
	git("clone", "-q", "--bare", repo, filepath.Join(dir, "root/srv/git/shop.git"))

	ctx, cancel := context.WithTimeout(t.Context(), 18*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(lab, "run"), "-c", "-t", "420", dir, "./test.sh")
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("the lab: %v", err)
	}
	if !strings.Contains(string(out), "all held\n") {
		t.Error("the lab's script did not come to its end")
	}
}
