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

// machine is what is copied into a lab: units, programs, and a script.
type machine struct {
	t   *testing.T
	lab string
	dir string
}

// inLab makes a machine whose script is a file of testdata.
//
// It runs where DEPLOYHOOK_SYSTEMD_LAB names the directory of a lab whose
// program run boots a systemd, copies a directory into it and runs a command
// there; .ci/run names it. The first time the lab makes its root, which takes
// minutes.
func inLab(t *testing.T, script string) *machine {
	t.Helper()
	lab := os.Getenv("DEPLOYHOOK_SYSTEMD_LAB")
	if lab == "" {
		t.Skip("DEPLOYHOOK_SYSTEMD_LAB names no lab")
	}
	m := &machine{t: t, lab: lab, dir: t.TempDir()}
	m.write("test.sh", m.read("testdata/"+script), 0o755)
	m.write("lib.sh", m.read("testdata/lib.sh"), 0o644)
	return m
}

func (m *machine) write(path, text string, mode os.FileMode) {
	m.t.Helper()
	path = filepath.Join(m.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) read(path string) string {
	m.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b)
}

func (m *machine) command(dir string, env []string, name string, args ...string) {
	m.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// build puts the binary at a path.
func (m *machine) build(path string) {
	m.t.Helper()
	m.command("..", []string{"CGO_ENABLED=0"}, "go", "build", "-o", filepath.Join(m.dir, path), "./cmd/deployhook")
}

// units puts all units, and the users, at a directory.
func (m *machine) units(dir string) {
	m.t.Helper()
	for _, pattern := range []string{"*.service", "*.socket", "*.sysusers"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			m.t.Fatal(pattern, err)
		}
		for _, name := range names {
			m.write(filepath.Join(dir, name), m.read(name), 0o644)
		}
	}
}

// repository puts a repository with one commit at /srv/git/shop.git.
func (m *machine) repository() {
	m.t.Helper()
	repo := filepath.Join(m.t.TempDir(), "shop")
	env := []string{
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
	}
	m.command("", env, "git", "init", "-q", "-b", "main", repo)
	if err := os.WriteFile(filepath.Join(repo, "server.js"), []byte("// one\n"), 0o644); err != nil {
		m.t.Fatal(err)
	}
	m.command(repo, env, "git", "add", "-A")
	m.command(repo, env, "git", "commit", "-q", "-m", "one")
	m.command(repo, env, "git", "clone", "-q", "--bare", repo, filepath.Join(m.dir, "root/srv/git/shop.git"))
}

// run boots the lab and runs the script, whose last line says that all held.
func (m *machine) run(env []string, flags ...string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 18*time.Minute)
	defer cancel()
	args := append(flags, m.dir, "env")
	cmd := exec.CommandContext(ctx, filepath.Join(m.lab, "run"), append(append(args, env...), "./test.sh")...)
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	m.t.Logf("%s", out)
	if err != nil {
		m.t.Fatalf("the lab: %v", err)
	}
	if !strings.Contains(string(out), "all held\n") {
		m.t.Error("the lab's script did not come to its end")
	}
}

// TestFirstDeployOnARealSystemd does what docs/vps.md says, command by command,
// and then what happens to a service: pushes, reloads, a hang,
// kill -9, a stop.
func TestFirstDeployOnARealSystemd(t *testing.T) {
	m := inLab(t, "lab.sh")
	m.build("deployhook")
	m.page()
	m.run(nil, "-c", "-t", "420")
}

// page brings what docs/vps.md says, and what it takes as there.
func (m *machine) page() {
	m.t.Helper()
	page := m.read("../docs/vps.md")
	console, files := blocks(page)
	m.write("doc.sh", console, 0o755)
	m.write("deploy.yaml", files[1], 0o644)
	m.write("token.yaml", files[2], 0o644)
	m.write("root/etc/systemd/system/shop.service", files[0], 0o644)
	m.write("root/usr/local/bin/enable-course", "#!/bin/sh\necho \"$1 is enabled\"\n", 0o755)
	// Stand-ins for what the page takes as installed.
	m.write("root/usr/bin/node", "#!/bin/sh\nexec sleep infinity\n", 0o755)
	m.write("root/usr/bin/npm", "#!/bin/sh\necho \"npm $*\"\n", 0o755)
	m.repository()
}

// TestPageWithThePackageOnARealSystemd does what docs/vps.md says with the
// package that the page begins with. DEPLOYHOOK_DIST names the directory that
// make dist has made.
func TestPageWithThePackageOnARealSystemd(t *testing.T) {
	m := inLab(t, "lab.sh")
	dist := os.Getenv("DEPLOYHOOK_DIST")
	if dist == "" {
		t.Skip("DEPLOYHOOK_DIST names no packages: make dist")
	}
	debs, err := filepath.Glob(filepath.Join(dist, "*_amd64.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatal(debs, err)
	}
	m.write("package.deb", m.read(debs[0]), 0o644)
	m.page()
	m.run(nil, "-c", "-t", "300")
}

// TestUsersOnARealSystemd runs jobs through the units' sockets, and has their
// steps try what they must not be able to do.
func TestUsersOnARealSystemd(t *testing.T) {
	m := inLab(t, "users.sh")
	m.build("deployhook")
	m.units(".")
	m.repository()
	m.run([]string{"PUSHES=2000", "RESTARTS=20"}, "-c", "-t", "600")
}

// TestLimitsOnARealSystemd runs jobs that want more than they may have; the
// kernel that keeps them from it is the lab's own.
func TestLimitsOnARealSystemd(t *testing.T) {
	m := inLab(t, "limits.sh")
	m.build("deployhook")
	m.units(".")
	m.run(nil, "-t", "600")
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

// before is what the test's script does where the page says it in words.
func before(what string) string { return "sudo bash \"${0%/*}/before.sh\" " + what + "\n" }

// commandOf is a line of the script.
func commandOf(line string) string {
	switch {
	case strings.HasPrefix(line, "sudo apt install"):
		return before("program") // the package has a test of its own
	case strings.HasPrefix(line, "sudo deployhook trigger"):
		return before("trigger") + line
	case strings.TrimSpace(line) == "sudo deployhook init":
		return before("token") + line
	case strings.HasPrefix(line, "curl -i "):
		return "until [ \"$(curl -s http://127.0.0.1:8484/readyz)\" = ready ]; do sleep 0.1; done\nTOKEN=$(sudo cat /etc/deployhook/credentials/webhook-token)\n" + elsewhere.Replace(line)
	}
	return line
}
