package host_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"deployhook/internal/agent"
	"deployhook/internal/deploy"
	"deployhook/internal/host"
	"deployhook/internal/release"
)

// TestMain lets the test's own binary be the agent, and the daemon that a test
// kills.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "agent" {
		if point := os.Getenv("TMPDIR"); strings.HasPrefix(point, "/failpoint/") {
			release.Failpoint = func(name string) {
				if name == strings.TrimPrefix(point, "/failpoint/") {
					_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				}
			}
		}
		o := agent.Options{Version: "test", SSH: slices.Contains(os.Args, "--ssh")}
		if !o.SSH {
			o.Daemon = strings.Join(os.Args[2:], "")
		}
		exitNow(agent.Main(o))
	}
	if len(os.Args) > 1 {
		if mode := modes[os.Args[1]]; mode != nil {
			mode()
			return
		}
	}
	host.ShortDeadlines(10*time.Second, 18*time.Second, 15*time.Second)
	os.Exit(m.Run())
}

// modes are what else the test's own binary is started as.
var modes = map[string]func(){
	"daemon": daemonToKill, "liar": liar, "steal": steal, "nobody": asNobody, "terminal": onTerminal,
	"socketdaemon": socketDaemon, "listener": listener,
}

// exitNow ends the process at once: with -race the usual way waits a second,
// and a test ends many.
func exitNow(code int) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(code), 0, 0)
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func open(t *testing.T) *host.Conn {
	t.Helper()
	return openIn(t, t.TempDir())
}

func openIn(t *testing.T, state string) *host.Conn {
	t.Helper()
	h := host.New(host.Options{State: state, Log: quiet()})
	t.Cleanup(h.Close)
	return openOf(t, h)
}

func openOf(t *testing.T, h *host.Hosts) *host.Conn {
	t.Helper()
	c, err := h.Open(t.Context(), nil, deploy.TestAgent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// out gathers a step's output.
type out struct {
	mu   sync.Mutex
	text [3]bytes.Buffer
}

func (o *out) write(n uint8, b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text[n].Write(b)
}

func (o *out) stdout() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text[1].String()
}

func run(t *testing.T, c *host.Conn, s host.Step) (host.StepResult, *out) {
	t.Helper()
	o := &out{}
	if s.ID == "" {
		s.ID = "1"
	}
	if s.Dir == "" {
		s.Dir = t.TempDir()
	}
	res, err := c.Step(t.Context(), s, o.write)
	if err != nil {
		t.Fatalf("step %q: %v", s.Command, err)
	}
	return res, o
}

func TestStepGivesOutputAndStatus(t *testing.T) {
	c := open(t)
	res, o := run(t, c, host.Step{Command: "echo out; echo err >&2; echo $A; umask; exit 3", Env: []string{"A=x y"}})
	if res.ExitCode == nil || *res.ExitCode != 3 {
		t.Errorf("exit code is %v, want 3", res.ExitCode)
	}
	if got := o.stdout(); got != "out\nx y\n0022\n" {
		t.Errorf("stdout is %q", got)
	}
	if got := o.text[2].String(); got != "err\n" {
		t.Errorf("stderr is %q", got)
	}
}

func TestStepHasNothingOfTheDaemonsEnvironmentOrFiles(t *testing.T) {
	t.Setenv("DATABASE_PASSWORD", "hunter2")
	c := open(t)
	_, o := run(t, c, host.Step{Command: "env; ls -l /proc/self/fd >&2; ls /proc/self/fd | wc -l; cat"})
	if strings.Contains(o.stdout(), "hunter2") {
		t.Errorf("the step sees the daemon's variables:\n%s", o.stdout())
	}
	lines := strings.Split(strings.TrimSpace(o.stdout()), "\n")
	// 0, 1, 2, and the directory that ls reads.
	if n := strings.TrimSpace(lines[len(lines)-1]); n != "4" {
		t.Errorf("the step has %s descriptors, want 4 with that of ls:\n%s", n, o.text[2].String())
	}
}

func TestPipesFailAndShellsAreChosen(t *testing.T) {
	c := open(t)
	for _, tt := range []struct {
		shell, command string
		code           int
	}{
		{"", "false | true", 1},
		{"", "false; true", 1},
		{"sh", "false | true", 0},
		{"sh", "false; true", 1},
		{"bash", "false | true", 1},
		{"cat {0}", "anything at all", 0},
		{"sh -x", "exit 4", 4},
	} {
		res, _ := run(t, c, host.Step{Shell: tt.shell, Command: tt.command})
		if res.ExitCode == nil || *res.ExitCode != tt.code {
			t.Errorf("%q with shell %q ended with %+v, want %d", tt.command, tt.shell, res, tt.code)
		}
	}
}

func TestFailuresAreOneSentence(t *testing.T) {
	c := open(t)
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		step host.Step
		want string
	}{
		{host.Step{Command: "no-such-command"}, "exit status 127: a command was not found; PATH is /"},
		{host.Step{Command: plain}, "exit status 126: a command is not executable"},
		{host.Step{Command: "true", Dir: "/no/such/dir"}, "the working directory /no/such/dir is not there"},
		{host.Step{Command: "true", Shell: "no-such-shell"}, `the shell "no-such-shell" was not found; PATH is /`},
		{host.Step{Command: "true", Env: []string{"BIG=" + strings.Repeat("x", 200_000)}}, "one variable holds 128 KiB at most"},
	} {
		res, _ := run(t, c, tt.step)
		if !strings.Contains(res.Error, tt.want) || strings.Contains(res.Error, "\n") {
			t.Errorf("%.40q: %q, want %q", tt.step.Command, res.Error, tt.want)
		}
	}
}

func TestSignalIsNamedAndHasNoExitCode(t *testing.T) {
	res, _ := run(t, open(t), host.Step{Command: "kill -KILL $$"})
	if res.ExitCode != nil || res.Signal != "SIGKILL" {
		t.Errorf("got %+v, want SIGKILL and no exit code", res)
	}
}

func TestTimeoutEndsEverything(t *testing.T) {
	dir := t.TempDir()
	began := time.Now()
	res, _ := run(t, open(t), host.Step{Dir: dir, Timeout: 300 * time.Millisecond,
		Command: "sleep 1000 & echo $! > bg; setsid sleep 1001 & echo $! > away; sleep 1002"})
	if !res.TimedOut {
		t.Errorf("got %+v, want a timeout", res)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("ending a willing step took %v", took)
	}
	for _, f := range []string{"bg", "away"} {
		assertGone(t, filepath.Join(dir, f))
	}
}

// assertGone says that the process whose id is in file is no more.
func assertGone(t *testing.T, file string) {
	t.Helper()
	assertGoneWithin(t, file, 10*time.Second)
}

func assertGoneWithin(t *testing.T, file string, most time.Duration) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(most)
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("process %d of %s still lives: %s", pid, filepath.Base(file), stat)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestChildrenLeftOverAreEndedAndNamed(t *testing.T) {
	dir := t.TempDir()
	began := time.Now()
	res, _ := run(t, open(t), host.Step{Dir: dir,
		Command: `(setsid sh -c 'trap "" TERM; echo $$ > one; exec sleep 1000' &); until [ -s one ]; do sleep 0.01; done; sleep 1001 & echo $! > two; echo done`})
	if res.ExitCode == nil || *res.ExitCode != 0 {
		t.Errorf("what is left over must not change the result: %+v", res)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("a child that keeps stdout open kept the step for %v", took)
	}
	if n := len(res.LeftOver); n != 2 {
		t.Errorf("left over are %q, want two", res.LeftOver)
	}
	assertGone(t, filepath.Join(dir, "one"))
	assertGone(t, filepath.Join(dir, "two"))
}

func TestCancelEndsTheStepAndStillTells(t *testing.T) {
	c := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	var once sync.Once
	res, err := c.Step(ctx, host.Step{ID: "1", Command: "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done", Dir: t.TempDir()},
		func(_ uint8, b []byte) {
			if bytes.Contains(b, []byte("ready")) {
				once.Do(cancel)
			}
		})
	if err != nil || !res.Canceled || res.ExitCode == nil || *res.ExitCode != 7 {
		t.Errorf("got %+v, %v", res, err)
	}
	done, cancel2 := context.WithCancel(t.Context())
	cancel2()
	if res, err := c.Step(done, host.Step{ID: "2", Command: "sleep 1000", Dir: t.TempDir()}, func(uint8, []byte) {}); err != nil || !res.Canceled {
		t.Errorf("a step that was canceled before it began: %+v, %v", res, err)
	}
}

func TestStepThatKillsOrStopsItsAgentIsNoSuccess(t *testing.T) {
	c := open(t)
	_, err := c.Step(t.Context(), host.Step{ID: "1", Command: "kill -KILL $PPID; sleep 1000", Dir: t.TempDir()}, func(uint8, []byte) {})
	if !errors.Is(err, host.ErrGone) {
		t.Errorf("got %v, want that the agent is gone", err)
	}
	if err == nil || strings.Contains(err.Error(), "http") {
		t.Errorf("%v is not a sentence for people", err)
	}
}

func TestWhatAKilledAgentLeftIsEndedByTheNext(t *testing.T) {
	state, dir := t.TempDir(), t.TempDir()
	h := host.New(host.Options{State: state, Log: quiet()})
	defer h.Close()
	c, err := h.Open(t.Context(), nil, deploy.TestAgent)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.OpenWorkspace(t.Context(), "1-test-1"); err != nil {
		t.Fatal(err)
	}
	_, err = c.Step(t.Context(), host.Step{ID: "1", Command: "echo $$ > pid; kill -KILL $PPID; sleep 1000", Dir: dir}, func(uint8, []byte) {})
	if !errors.Is(err, host.ErrGone) {
		t.Fatal(err)
	}
	next, err := h.Open(t.Context(), nil, deploy.TestAgent)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	ws, err := next.OpenWorkspace(t.Context(), "1-test-2")
	if err != nil {
		t.Fatal(err)
	}
	assertGone(t, filepath.Join(dir, "pid"))
	if list, _ := filepath.Glob(filepath.Join(state, "work", "*", "*")); len(list) != 1 || list[0] != ws {
		t.Errorf("workspaces are %q, want only %q", list, ws)
	}
}

func TestWorkspaceIsGoneWithTheAgent(t *testing.T) {
	c := open(t)
	ws, err := c.OpenWorkspace(t.Context(), "1-test-1")
	if err != nil {
		t.Fatal(err)
	}
	if res, _ := run(t, c, host.Step{Dir: ws, Command: "mkdir -p a/b && touch a/b/c && chmod 0 a/b"}); res.Error != "" {
		t.Fatal(res.Error)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(ws); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", ws, err)
	}
}

func TestPayloadComesAsAFile(t *testing.T) {
	body := bytes.Repeat([]byte(`{"x":"$(touch pwned)"}`), 100_000)
	c := open(t)
	res, o := run(t, c, host.Step{Command: `wc -c < "$DEPLOYHOOK_PAYLOAD_FILE"`, Files: map[string][]byte{"DEPLOYHOOK_PAYLOAD_FILE": body}})
	if res.Error != "" || strings.TrimSpace(o.stdout()) != strconv.Itoa(len(body)) {
		t.Errorf("got %q, %+v", o.stdout(), res)
	}
}

func tree(files ...string) func(func(deploy.TreeFile, io.Reader) error) error {
	return func(fn func(deploy.TreeFile, io.Reader) error) error {
		for i := 0; i < len(files); i += 3 {
			f := deploy.TreeFile{Path: files[i], Mode: deploy.TreeMode(files[i+1]), Size: int64(len(files[i+2]))}
			if err := fn(f, strings.NewReader(files[i+2])); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestTreeIsWrittenAsItIs(t *testing.T) {
	c := open(t)
	ws, err := c.OpenWorkspace(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Put(t.Context(), tree(
		"a b\n\xff", "file", "odd name", "bin/run", "executable", "#!/bin/sh\n", "deep/er/x", "file", "", "link", "symlink", "/etc/passwd")); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"a b\n\xff": 0o644, "bin/run": 0o755, "deep/er/x": 0o644, "bin": 0o755 | os.ModeDir} {
		st, err := os.Lstat(filepath.Join(ws, name))
		if err != nil || st.Mode() != mode {
			t.Errorf("%q: %v, %v; want %v", name, st, err, mode)
		}
	}
	if target, err := os.Readlink(filepath.Join(ws, "link")); target != "/etc/passwd" || err != nil {
		t.Errorf("link points to %q, %v", target, err)
	}
}

func TestTreeNeverLeavesItsDirectory(t *testing.T) {
	outside := t.TempDir()
	for _, files := range [][]string{
		{"../x", "file", "1"}, {"/etc/x", "file", "1"}, {"a/../../x", "file", "1"}, {".git/config", "file", "1"}, {"a/.GIT/x", "file", "1"},
		{"", "file", "1"}, {"a//b", "file", "1"}, {"./a", "file", "1"}, {"a\x00b", "file", "1"},
		{"l", "symlink", outside, "l/x", "file", "1"}, {"a", "file", "1", "a", "file", "2"},
	} {
		c := open(t)
		if _, err := c.OpenWorkspace(t.Context(), "t"); err != nil {
			t.Fatal(err)
		}
		if err := c.Put(t.Context(), tree(files...)); err == nil {
			t.Errorf("%q was written", files)
		}
		if list, _ := os.ReadDir(outside); len(list) > 0 {
			t.Fatalf("%q wrote outside", files)
		}
	}
}

func TestBrokenTreeIsTheReadersError(t *testing.T) {
	c := open(t)
	if _, err := c.OpenWorkspace(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	damaged := errors.New("object 3f2c is damaged")
	err := c.Put(t.Context(), func(fn func(deploy.TreeFile, io.Reader) error) error {
		if err := fn(deploy.TreeFile{Path: "a", Mode: deploy.TreePlain, Size: 1}, strings.NewReader("x")); err != nil {
			return err
		}
		return damaged
	})
	if !errors.Is(err, damaged) {
		t.Errorf("got %v, want %v", err, damaged)
	}
}

// daemonToKill is a daemon that runs a step until it is killed.
func daemonToKill() {
	h := host.New(host.Options{State: os.Args[2], Log: quiet()})
	c, err := h.Open(context.Background(), nil, deploy.TestAgent)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	_, _ = c.Step(context.Background(), host.Step{ID: "1", Dir: os.Args[3],
		Command: `setsid sh -c 'echo $$ > away; exec sleep 1000' & until [ -s away ]; do sleep 0.01; done; echo $$ > pid; echo ready; sleep 1000`},
		func(_ uint8, b []byte) { os.Stdout.Write(b) })
}

func TestNothingOutlivesAKilledDaemon(t *testing.T) {
	state, dir := t.TempDir(), t.TempDir()
	cmd := exec.Command("/proc/self/exe", "daemon", state, dir)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	old, _ := filepath.Glob(filepath.Join(state, "agents", "*"))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	assertGone(t, filepath.Join(dir, "pid"))
	assertGone(t, filepath.Join(dir, "away"))
	// The next daemon's first agent comes when the old one has ended.
	openIn(t, state)
	for _, mark := range old {
		if _, err := os.Stat(mark); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the agent %s is still there", mark)
		}
	}
}

func BenchmarkStep(b *testing.B) {
	h := host.New(host.Options{State: b.TempDir(), Log: quiet()})
	defer h.Close()
	c, err := h.Open(b.Context(), nil, deploy.TestAgent)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	dir := b.TempDir()
	for i := 0; b.Loop(); i++ {
		if _, err := c.Step(b.Context(), host.Step{ID: strconv.Itoa(i), Command: ":", Shell: "sh", Dir: dir}, func(uint8, []byte) {}); err != nil {
			b.Fatal(err)
		}
	}
}
