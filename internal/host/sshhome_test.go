package host_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
	"deployhook/internal/host/hosttest"
)

// program is the agent's program on a host.
func program(t *testing.T, s *hosttest.Server) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(s.Home, ".cache/deployhook/agent-*"))
	if err != nil || len(list) != 1 {
		t.Fatalf("programs on the host: %q, %v", list, err)
	}
	return list[0]
}

func TestProgramIsCopiedOnceAndItsContentCheckedEachTime(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{Empty: true})
	far, p := proxied(t, s)
	h := copies(t, smallProgram(t))
	reaches := func(what string) {
		c, err := h.Open(t.Context(), far, deploy.TestAgent)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		c.Close()
	}
	reaches("the first time")
	first, _ := p.Bytes()
	reaches("the second time")
	second, _ := p.Bytes()
	if first < 1_000_000 || second-first > 50_000 {
		t.Errorf("the first login took %d bytes, the second %d", first, second-first)
	}
	name := program(t, s)
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	witness := filepath.Join(s.Home, "ran")
	forged := append([]byte("#!/bin/sh\ntouch "+witness+"\nexit 1\n"), make([]byte, len(whole))...)[:len(whole)]
	for what, content := range map[string][]byte{
		"of the right size": forged, "cut short": whole[:len(whole)/2], "empty": {}, "one byte other": append(bytes.Clone(whole[:len(whole)-1]), whole[len(whole)-1]+1),
	} {
		if err := os.WriteFile(name, content, 0o700); err != nil {
			t.Fatal(err)
		}
		reaches(what)
		if b, err := os.ReadFile(program(t, s)); err != nil || !bytes.Equal(b, whole) {
			t.Errorf("%s: the program was not put right: %d bytes, %v", what, len(b), err)
		}
	}
	if _, err := os.Stat(witness); err == nil {
		t.Error("a program that is not ours was run")
	}
}

func TestProgramsThatNobodyUsesGo(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{Empty: true})
	dir := filepath.Join(s.Home, ".cache/deployhook")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	days := func(n int) time.Time { return time.Now().AddDate(0, 0, -n) }
	for name, age := range map[string]time.Time{
		"agent-old": days(31), "agent-young": days(29), "agent-later": days(-4000), ".new-half": days(2), ".new-now": days(0), "other": days(90),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(dir, name), age, age); err != nil {
			t.Fatal(err)
		}
	}
	h := copies(t, smallProgram(t))
	c := openFar(t, h, s.Host())
	gone := func() bool {
		for _, name := range []string{"agent-old", ".new-half"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				return false
			}
		}
		return true
	}
	for end := time.Now().Add(30 * time.Second); !gone(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what nobody used for 30 days is still there")
		}
	}
	for _, name := range []string{"agent-young", "agent-later", ".new-now", "other"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	c.Close()
	// One that is in use stays, whatever the clock over there says.
	for _, name := range []string{"agent-young", "agent-later"} {
		os.Remove(filepath.Join(dir, name))
	}
	name := program(t, s)
	if err := os.Chtimes(name, days(400), days(400)); err != nil {
		t.Fatal(err)
	}
	openFar(t, h, s.Host())
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		st, err := os.Stat(name)
		if err == nil && time.Since(st.ModTime()) < time.Hour {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("its use was not noted: %v, %v", st, err)
		}
	}
}

func TestProgramOfAnotherArchitectureComesFromBesideOurs(t *testing.T) {
	t.Parallel()
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	machine := map[string]string{"amd64": "aarch64", "arm64": "x86_64"}[runtime.GOARCH]
	dir := t.TempDir()
	own, err := os.ReadFile(smallProgram(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"deployhook", "deployhook-linux-" + other} {
		if err := os.WriteFile(filepath.Join(dir, name), own, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Told apart by their content.
	f, err := os.OpenFile(filepath.Join(dir, "deployhook-linux-"+other), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, "other"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	s := hosttest.Start(t, hosttest.Options{Empty: true, Env: []string{"PATH=" + fakes(t, map[string]string{"uname": "echo Linux " + machine}) + ":/usr/bin:/bin"}})
	openFar(t, copies(t, filepath.Join(dir, "deployhook")), s.Host())
	if b, err := os.ReadFile(program(t, s)); err != nil || !strings.HasSuffix(string(b), "other") {
		t.Errorf("the wrong program was copied: %d bytes, %v", len(b), err)
	}
}

func TestLoginThatPrintsMuchIsSkipped(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{
		Bashrc: "echo Welcome to web1; printf 'no newline, deployhook-far '; seq 5000; printf '> '; export FROM_BASHRC=yes\n",
		Config: []string{"MaxSessions 1"},
	})
	h := near(t)
	a, b := openFar(t, h, s.Host()), openFar(t, h, s.Host()) // each over a connection of its own
	for _, c := range []*host.Conn{a, b} {
		if _, o := run(t, c, host.Step{Dir: "/", Command: "echo $FROM_BASHRC"}); strings.TrimSpace(o.stdout()) != "" {
			t.Errorf("a step has a variable that it was not given: %q", o.stdout())
		}
	}
	endlessly := hosttest.Start(t, hosttest.Options{Bashrc: "yes noise\n"})
	if err := sentence(t, near(t), endlessly.Host()); !strings.Contains(err.Error(), "no agent answered within the first 64 KiB") {
		t.Error(err)
	}
}

// smallProgram is an agent that needs nothing of a host, as deployhook does,
// and is copied sooner.
func smallProgram(t testing.TB) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "deployhook")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", name, "deployhook/internal/host/testdata/agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return name
}

// copies is a near end that copies that program.
func copies(t *testing.T, name string) *host.Hosts {
	t.Helper()
	h := host.New(host.Options{State: t.TempDir(), Log: quiet(), Secret: readSecret, Version: "1.2", Program: name})
	t.Cleanup(h.Close)
	return h
}

func TestHostWithBusyBoxAndNothingElse(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{BusyBox: true})
	h := copies(t, smallProgram(t))
	for n := range 2 {
		c := openFar(t, h, s.Host())
		if _, err := c.OpenRelease(t.Context(), host.OpenRelease{Path: "/srv", Daemon: "d", Run: int64(n + 1), Job: "deploy"}); err != nil {
			t.Fatal(err)
		}
		var site commit
		site.add("index.html", deploy.TreePlain, "hello")
		site.add("bin/run", deploy.TreeExecutable, fmt.Sprint("#!/bin/sh\necho ", n))
		id := fmt.Sprintf("2026040%dT101500Z-3f2c1ab", n+1)
		if sent := site.release(t, c, id); len(sent) != 2-n {
			t.Errorf("release %d: %q were sent", n, sent)
		}
		goLive(t, c, id)
		f, err := c.Facts(t.Context())
		if err != nil || f.Shell != "sh" {
			t.Errorf("%+v, %v", f, err)
		}
		// Without bash a step is one of sh -e.
		res, o := run(t, c, host.Step{Dir: "/srv/current", Command: "(setsid sleep 1000 &); ./bin/run; false; echo not reached"})
		if o.stdout() != fmt.Sprintln(n) || res.ExitCode == nil || *res.ExitCode != 1 || len(res.LeftOver) != 1 {
			t.Errorf("%+v, %q", res, o.stdout())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if target, err := os.Readlink(s.Outside("/srv/current")); err != nil || target != "releases/20260402T101500Z-3f2c1ab" {
		t.Errorf("current is %q, %v", target, err)
	}
}

func TestSecretsAreInNoCommandLineAndNoEnvironmentButTheSteps(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{})
	c := openFar(t, near(t), s.Host())
	const secret = "correct-horse-battery"
	// While the step runs it looks at every process of this machine: only its
	// own environment has the secret. It asks in pieces, not to find itself.
	look := `printf '%s' "$TOKEN" | md5sum; a=correct-horse; b=-battery
for f in /proc/[0-9]*/cmdline; do tr '\0' ' ' < "$f" 2> /dev/null | grep -q -e "$a$b" && echo "command line $f"; done
for p in /proc/[0-9]*; do tr '\0' '\n' < "$p/environ" 2> /dev/null | grep -q -e "$a$b" && tr '\0' '\n' < "$p/environ" | grep -q DEPLOYHOOK_MARKER= || { tr '\0' '\n' < "$p/environ" 2> /dev/null | grep -q -e "$a$b" && echo "environment $p"; }; done
exit 0`
	if _, o := run(t, c, host.Step{Dir: "/", Command: look + " # " + secret}); !strings.Contains(o.stdout(), "command line /proc/") {
		t.Errorf("a secret in a command was not found:\n%s", o.stdout())
	}
	res, o := run(t, c, host.Step{ID: "2", Dir: "/", Command: look, Env: []string{"TOKEN=" + secret}})
	lines := strings.Split(strings.TrimSpace(o.stdout()), "\n")
	if res.ExitCode == nil || *res.ExitCode != 0 || len(lines) != 1 || !strings.HasSuffix(lines[0], " -") {
		t.Errorf("%+v\n%s%s", res, o.stdout(), o.text[2].String())
	}
	if strings.Contains(s.Log(), secret) {
		t.Error("the log of sshd has the secret")
	}
}
