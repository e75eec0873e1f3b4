package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The README of the example is run as it is printed, elsewhere: in a directory
// and at ports of the test.
func TestExpressAppDoesWhatItsREADMESays(t *testing.T) {
	for _, tool := range []string{"node", "curl", "git", "bash"} {
		needed(t, tool, exec.Command(tool, "--version"))
	}
	find := exec.Command("node", "-e", `require("express")`)
	find.Env = append(os.Environ(), "NODE_PATH=/usr/share/nodejs")
	needed(t, "node-express", find)
	dir, err := os.MkdirTemp("", "ex") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	port := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, p, _ := net.SplitHostPort(l.Addr().String())
		return p
	}
	app, hooks := port(), port()
	elsewhere := strings.NewReplacer("/tmp/express-app", dir+"/made", "127.0.0.1:3000", "127.0.0.1:"+app, "127.0.0.1:8484", "127.0.0.1:"+hooks)
	var script strings.Builder
	for _, name := range []string{"server.js", "package.json", "deploy.yaml", "keep", "README.md"} {
		b, err := os.ReadFile(filepath.Join(top, "examples", "express-app", name))
		if err != nil {
			t.Fatal(err)
		}
		text := elsewhere.Replace(string(b))
		if name == "README.md" {
			for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(text, -1) {
				for line := range strings.Lines(block[1]) {
					script.WriteString("echo '> " + strings.ReplaceAll(strings.TrimSpace(line), "'", `'\''`) + "'\n" + line + "echo\n")
				}
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script.String())
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PORT="+app, "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	// What each command printed, by the part of the command that tells it.
	said := map[string][]string{}
	for part := range strings.SplitSeq(string(out), "\n> ") {
		line, rest, _ := strings.Cut(part, "\n")
		for _, key := range []string{"pay_1", "pay_2", "runs --pipeline", "cat ", "healthz", "3000/", app + "/", "trigger app", "rollback app"} {
			if strings.Contains(line, key) {
				said[key] = append(said[key], rest)
				break
			}
		}
	}
	for _, want := range []struct {
		key string
		n   int
		has string
	}{
		{"pay_1", 0, `"runs":[1]`}, {"pay_1", 1, "this delivery is known"}, {"runs --pipeline", 0, "payment"}, {"pay_2", 0, "wrong token"}, {"cat ", 0, "go\n"},
		{"healthz", 0, "not deployed"}, {"trigger app", 0, "succeeded"}, {"healthz", 1, `"version":"`}, {app + "/", 0, "Lessons"}, {"rollback app", 0, "succeeded"}, {app + "/", 1, "Courses"},
	} {
		if list := said[want.key]; len(list) <= want.n || !strings.Contains(list[want.n], want.has) {
			t.Errorf("%s, time %d, printed %q, want %q", want.key, want.n+1, list, want.has)
		}
	}
	if strings.Contains(strings.Join(said["cat "], ""), "rust") {
		t.Error("a payment with a wrong token was handed on")
	}
	if err != nil || t.Failed() {
		t.Errorf("the commands: %v\n%s", err, out)
	}
	if _, err := os.Stat(dir + "/made"); err == nil {
		t.Error("something is left")
	}
}

// needed skips a test whose tool is missing; CI must have it.
func needed(t *testing.T, name string, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Run(); err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing: make tools installs it", name)
	}
	t.Skipf("%s is missing (as root: make tools)", name)
}
