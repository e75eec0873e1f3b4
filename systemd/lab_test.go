package systemd

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestFirstDeployOnARealSystemd boots a real systemd, does what
// docs/first-deploy.md says, command by command, and then what happens to a
// service: pushes, reloads, a hang, kill -9, a stop.
//
// It runs where DEPLOYHOOK_SYSTEMD_LAB names the directory of a lab whose
// program run boots a systemd, copies a directory into it and runs a command
// there; .ci/run names it. The first time the lab makes its root, which takes
// minutes.
func TestFirstDeployOnARealSystemd(t *testing.T) {
	lab := os.Getenv("DEPLOYHOOK_SYSTEMD_LAB")
	if lab == "" {
		t.Skip("DEPLOYHOOK_SYSTEMD_LAB names no lab")
	}
	dir := t.TempDir()
	// The page's commands find these where its reader is: in the home directory.
	home := filepath.Join(dir, "home")
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	read := func(path string) string {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	command := func(dir string, env []string, name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	command("..", []string{"CGO_ENABLED=0"}, "go", "build", "-o", filepath.Join(home, "deployhook"), "./cmd/deployhook")
	write("home/deployhook.service", read("deployhook.service"), 0o644)

	page := read("../docs/first-deploy.md")
	console, files := blocks(page)
	write("doc.sh", console, 0o755)
	write("deploy.yaml", strings.Replace(files[0], "    on:\n", "    clone_url: /srv/git/shop.git\n    on:\n", 1), 0o644)
	write("token.yaml", files[2], 0o644)
	write("root/etc/systemd/system/shop.service", files[1], 0o644)
	write("root/usr/local/bin/enable-course", "#!/bin/sh\necho \"$1 is enabled\"\n", 0o755)
	// Stand-ins for what the page takes as installed.
	write("root/usr/bin/node", "#!/bin/sh\nexec sleep infinity\n", 0o755)
	write("root/usr/bin/npm", "#!/bin/sh\necho \"npm $*\"\n", 0o755)
	write("root/usr/local/bin/ssh-keygen", "#!/bin/sh\nfor last; do :; done\necho key > \"$last\" && echo key > \"$last.pub\"\n", 0o755)
	write("test.sh", read("testdata/lab.sh"), 0o755)

	repo := filepath.Join(t.TempDir(), "shop")
	env := []string{
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
	}
	command("", env, "git", "init", "-q", "-b", "main", repo)
	if err := os.WriteFile(filepath.Join(repo, "server.js"), []byte("// one\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	command(repo, env, "git", "add", "-A")
	command(repo, env, "git", "commit", "-q", "-m", "one")
	command(repo, env, "git", "clone", "-q", "--bare", repo, filepath.Join(dir, "root/srv/git/shop.git"))

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

// blocks takes a page apart: the commands of its console blocks as one shell
// script, as they stand but for what needs another machine, and its other
// blocks in their order.
func blocks(page string) (script string, files []string) {
	var b strings.Builder
	b.WriteString("#!/bin/bash\nset -eu -o pipefail\nTOKEN=\nrun() { echo \"+ $*\" >&2; }\n")
	kind, text := "", ""
	for line := range strings.Lines(page) {
		switch fence, ok := strings.CutPrefix(line, "```"); {
		case ok && kind == "":
			if kind = strings.TrimSpace(fence); kind == "" {
				kind = "text"
			}
			text = ""
		case ok:
			if kind == "yaml" || kind == "ini" {
				files = append(files, text)
			}
			kind = ""
		case kind == "console" && strings.HasPrefix(line, "$ "):
			b.WriteString(commandOf(strings.TrimPrefix(line, "$ ")))
		case kind == "console" && strings.HasPrefix(line, "    "):
			b.WriteString(elsewhere.Replace(line)) // goes on with the command before
		case kind != "":
			text += line
		}
	}
	return b.String(), files
}

// elsewhere turns the address of the page into that of the lab.
var elsewhere = strings.NewReplacer("https://deploy.example.com", "http://127.0.0.1:8484")

// commandOf is a line of the script. before_NAME are functions of the test's
// script that do what the page says in words.
func commandOf(line string) string {
	switch {
	case strings.HasPrefix(line, "make build"), strings.HasPrefix(line, "scp "):
		return ""
	case strings.HasPrefix(line, "sudo systemctl reload"):
		return "before_token\n" + line
	case strings.HasPrefix(line, "deployhook check"):
		return "before_check\n" + line
	case strings.HasPrefix(line, "curl -i "):
		return "TOKEN=$(cat /etc/deployhook/webhook-token)\n" + elsewhere.Replace(line)
	}
	return line
}
