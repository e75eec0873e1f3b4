package host_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
)

// libcSignals are 32 and 33, which the C library keeps for itself and no
// program can set: GNU make leaves them ignored in all that it starts.
const libcSignals = 1<<31 | 1<<32

func TestStepHasNoSignalIgnoredOrBlocked(t *testing.T) {
	_, o := run(t, open(t), host.Step{Command: `grep -E '^Sig(Ign|Blk):' /proc/self/status`})
	for line := range strings.Lines(o.stdout()) {
		f := strings.Fields(line)
		if n, err := strconv.ParseUint(f[1], 16, 64); err != nil || n&^libcSignals != 0 {
			t.Errorf("a step begins with %s", line)
		}
	}
	if res, _ := run(t, open(t), host.Step{Command: `trap 'exit 5' INT; kill -INT $$; exit 6`}); res.ExitCode == nil || *res.ExitCode != 5 {
		t.Errorf("a step cannot trap SIGINT: %+v", res)
	}
}

// onTerminal runs a step where the daemon has a terminal.
func onTerminal() {
	h := host.New(host.Options{State: os.Args[2], Log: quiet()})
	defer h.Close()
	c, err := h.Open(context.Background(), nil, deploy.TestAgent)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	defer c.Close()
	res, err := c.Step(context.Background(), host.Step{ID: "1", Dir: "/", Timeout: 20 * time.Second,
		Command: `read -r -p "Password: " x && echo "read $x"; if ( : < /dev/tty ) 2> /dev/null; then echo "terminal"; fi; echo end`,
	}, func(_ uint8, b []byte) { os.Stderr.Write(b) })
	fmt.Fprintln(os.Stderr, res.TimedOut, res.Error, err)
}

func TestStepThatAsksForAPasswordDoesNotHang(t *testing.T) {
	ptm, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer ptm.Close()
	if err := unix.IoctlSetPointerInt(int(ptm.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ptm.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	pts, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pts.Close()
	cmd := exec.Command("/proc/self/exe", "terminal", t.TempDir())
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = pts, pts, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	if got := stderr.String(); !strings.HasSuffix(got, "end\nfalse  <nil>\n") || strings.Contains(got, "terminal") || strings.Contains(got, "read ") {
		t.Errorf("the step printed\n%s", got)
	}
}

func TestWhatAShellRanHasTheGraceToo(t *testing.T) {
	dir := t.TempDir()
	res, _ := run(t, open(t), host.Step{Dir: dir, Timeout: 500 * time.Millisecond,
		Command: `bash -c 'trap "sleep 0.5; echo well > well; exit" TERM; echo ready > ready; while :; do sleep 0.05; done'; echo never`})
	if !res.TimedOut {
		t.Errorf("got %+v, want a timeout", res)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "well")); string(b) != "well\n" {
		t.Errorf("the child of the shell could not end as it wanted: %v", err)
	}
}

func TestStubbornStepIsKilledAfterTheGrace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	began := time.Now()
	res, _ := run(t, open(t), host.Step{Dir: dir, Timeout: 200 * time.Millisecond,
		Command: `trap "" TERM; echo $$ > pid; (trap "" TERM; sleep 1000) & setsid sh -c 'trap "" TERM; echo $$ > away; exec sleep 1001' & while :; do sleep 1; done`})
	if took := time.Since(began); took < 10*time.Second || took > 40*time.Second || !res.TimedOut || res.Signal != "SIGKILL" || res.ExitCode != nil {
		t.Errorf("ended after %v with %+v", took, res)
	}
	assertGone(t, filepath.Join(dir, "pid"))
	assertGone(t, filepath.Join(dir, "away"))
}

func TestOutputIsWholeHoweverSlowlyItIsRead(t *testing.T) {
	c := open(t)
	n := 0
	res, err := c.Step(t.Context(), host.Step{ID: "1", Dir: t.TempDir(), Command: "head -c 3000000 /dev/zero; printf end"}, func(_ uint8, b []byte) {
		time.Sleep(10 * time.Millisecond) // a slow reader, on purpose
		n += len(b)
	})
	if err != nil || res.ExitCode == nil || n != 3_000_003 {
		t.Errorf("got %d bytes, %+v, %v", n, res, err)
	}
}

func TestTimeoutComesAlsoWhenNobodyReads(t *testing.T) {
	c, dir := open(t), t.TempDir()
	release := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, err := c.Step(t.Context(), host.Step{ID: "1", Dir: dir, Timeout: time.Second, Command: "echo $$ > pid; exec yes"}, func(uint8, []byte) { <-release })
		done <- err
	}()
	end := time.Now().Add(30 * time.Second)
	for {
		if b, err := os.ReadFile(filepath.Join(dir, "pid")); err == nil && len(b) > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the step did not begin")
		}
		time.Sleep(5 * time.Millisecond)
	}
	assertGone(t, filepath.Join(dir, "pid"))
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestStoppedAgentIsNoticedAndEnded(t *testing.T) {
	t.Parallel()
	c, dir := open(t), t.TempDir()
	began := time.Now()
	_, err := c.Step(t.Context(), host.Step{ID: "1", Dir: dir, Command: "echo $$ > pid; kill -STOP $PPID; exec sleep 1000"}, func(uint8, []byte) {})
	if took := time.Since(began); !errors.Is(err, host.ErrGone) || took < 20*time.Second || took > 70*time.Second {
		t.Errorf("after %v: %v", took, err)
	}
	if err == nil || !strings.Contains(err.Error(), "it did not answer any more") {
		t.Errorf("%v is not the sentence for it", err)
	}
	c.Close()
	assertGone(t, filepath.Join(dir, "pid"))
}

// startDaemon starts a daemon that runs a step, and waits for that.
func startDaemon(t *testing.T, state, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "daemon", state, dir)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := io.ReadFull(stdout, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestAgentEndsWhenItsDaemonIsStopped(t *testing.T) {
	t.Parallel()
	state, dir := t.TempDir(), t.TempDir()
	cmd := startDaemon(t, state, dir)
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// The agent that is kept ahead has nothing to end, and waits for its daemon.
	lives := func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = os.Stat("/proc/" + strings.TrimSpace(string(b)))
		return err == nil
	}
	began := time.Now()
	for end := began.Add(90 * time.Second); lives() && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	if took := time.Since(began); took < 20*time.Second {
		t.Errorf("the agent gave its daemon up after %v", took)
	}
	assertGone(t, filepath.Join(dir, "pid"))
	assertGone(t, filepath.Join(dir, "away"))
}

func TestStoppedAgentOfAKilledDaemonIsKilled(t *testing.T) {
	t.Parallel()
	state, dir := t.TempDir(), t.TempDir()
	cmd := startDaemon(t, state, dir)
	marks, err := filepath.Glob(filepath.Join(state, "agents", "*"))
	if err != nil || len(marks) == 0 {
		t.Fatal(marks, err)
	}
	for _, m := range marks {
		b, err := os.ReadFile(m)
		if err != nil {
			continue // the one kept ahead was just being born
		}
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			_ = unix.Kill(pid, unix.SIGSTOP)
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	c := openIn(t, state)
	if _, err := c.OpenWorkspace(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	assertGone(t, filepath.Join(dir, "pid"))
	assertGone(t, filepath.Join(dir, "away"))
}

func TestWhatAKilledAgentLeftIsEndedWhenItsJobEnds(t *testing.T) {
	dir := t.TempDir()
	h := host.New(host.Options{State: t.TempDir(), Log: quiet()})
	defer h.Close()
	for signal, want := range map[string]string{"KILL": "signal: killed", "TERM": "exit status 0"} {
		c := openOf(t, h)
		ws, err := c.OpenWorkspace(t.Context(), "1-test-1")
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Step(t.Context(), host.Step{ID: "1", Dir: dir,
			Command: `(setsid sh -c 'trap "" TERM; echo $$ > away; exec sleep 1000' &); until [ -s away ]; do sleep 0.01; done; echo $$ > pid; kill -` + signal + ` $PPID; sleep 1000`}, func(uint8, []byte) {})
		if !errors.Is(err, host.ErrGone) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", signal, err, want)
		}
		c.Close()
		assertGone(t, filepath.Join(dir, "pid"))
		assertGone(t, filepath.Join(dir, "away"))
		if _, err := os.Stat(ws); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the workspace is still there: %v", signal, err)
		}
		os.Remove(filepath.Join(dir, "away"))
	}
}

func TestManyLeftOverProcessesAreEndedAndCounted(t *testing.T) {
	c := open(t)
	res, o := run(t, c, host.Step{Timeout: time.Minute, Command: `
for i in $(seq 55); do sleep 1000 & done
for i in 1 2 3 4; do (setsid sh -c 'trap "" TERM; while :; do sleep 0.1 & wait; done' &) ; done
echo $PPID`})
	if res.ExitCode == nil || *res.ExitCode != 0 {
		t.Errorf("the result is %+v", res)
	}
	if n := len(res.LeftOver); n != 50 || !strings.HasPrefix(res.LeftOver[49], "and ") {
		t.Errorf("left over are %d: %q", n, res.LeftOver)
	}
	agent, err := strconv.Atoi(strings.TrimSpace(o.stdout()))
	if err != nil {
		t.Fatal(err)
	}
	if kids := children(agent); len(kids) > 0 {
		t.Errorf("the agent still has the children %v", kids)
	}
}

// children lists the processes whose parent is pid, zombies too.
func children(pid int) []string {
	var list []string
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) > 1 && f[1] == strconv.Itoa(pid) {
			list = append(list, string(b[:min(len(b), 60)]))
		}
	}
	return list
}

func TestStatusOfAStepIsNeverLostToItsOrphans(t *testing.T) {
	c := open(t)
	for i := range 30 {
		res, _ := run(t, c, host.Step{ID: strconv.Itoa(i), Command: `for i in 1 2 3 4 5 6 7 8; do (setsid sh -c 'exit 1' & ) ; done; exit 7`})
		if res.ExitCode == nil || *res.ExitCode != 7 {
			t.Fatalf("step %d: %+v", i, res)
		}
	}
}

// descriptors are how many this process has open.
func descriptors() int {
	list, _ := os.ReadDir("/proc/self/fd")
	return len(list)
}

// assertDescriptors waits until no more are open than before.
func assertDescriptors(t *testing.T, before int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); descriptors() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%d descriptors are open, before the jobs %d", descriptors(), before)
			return
		}
	}
}

func TestDescriptorsAndProcessesStayFewOverManyJobs(t *testing.T) {
	state := t.TempDir()
	h := host.New(host.Options{State: state, Log: quiet()})
	defer h.Close()
	job := func(i int) {
		c, err := h.Open(t.Context(), nil, deploy.TestAgent)
		if err != nil {
			t.Fatal(err)
		}
		ws, err := c.OpenWorkspace(t.Context(), fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		command := "(setsid sleep 1000 &) ; exit 0"
		if i%20 == 10 {
			command = "kill -KILL $PPID"
		}
		_, err = c.Step(t.Context(), host.Step{ID: "1", Dir: ws, Shell: "sh", Command: command, Files: map[string][]byte{"DEPLOYHOOK_PAYLOAD_FILE": []byte("{}")}}, func(uint8, []byte) {})
		if err != nil && !errors.Is(err, host.ErrGone) {
			t.Fatal(err)
		}
		c.Close()
	}
	for i := range 5 {
		job(i)
	}
	before, many := descriptors(), 200
	if raced {
		many = 50
	}
	for i := range many {
		job(i)
	}
	h.Close()
	assertDescriptors(t, before) // what an agent complains of is read until it has ended
	for _, c := range children(os.Getpid()) {
		if strings.Contains(c, ") Z ") {
			t.Errorf("a zombie is left: %s", c)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(state, "*", "*")); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}

func TestAgentStaysSmallWhileAStepPrintsMuch(t *testing.T) {
	c := open(t)
	n := 0
	_, err := c.Step(t.Context(), host.Step{ID: "1", Dir: t.TempDir(), Command: "head -c 200000000 /dev/zero | tr '\\0' x; grep VmHWM /proc/$PPID/status >&2"}, func(stream uint8, b []byte) {
		if stream == 1 {
			n += len(b)
			return
		}
		f := strings.Fields(string(b))
		kb, err := strconv.Atoi(f[1])
		t.Logf("the agent took %s kB at most", f[1])
		if err != nil || kb > 30_000 && !raced {
			t.Errorf("the agent took %s kB, want 30,000 at most", f[1])
		}
	})
	if err != nil || n != 200_000_000 {
		t.Errorf("got %d bytes, %v", n, err)
	}
}

func TestWorkspaceGoesWhateverAStepDidToIt(t *testing.T) {
	for what, command := range map[string]string{
		"modes":           "mkdir -p a/b/c; touch a/b/c/d; chmod 0 a/b/c a/b a .",
		"deletes it":      `rm -rf "$PWD"`,
		"a file in place": `d=$PWD; cd /; rm -rf "$d"; echo x > "$d"`,
		"a link in place": `d=$PWD; cd /; rm -rf "$d"; ln -s /etc "$d"`,
		"deletes all":     `d=$(dirname "$PWD"); cd /; rm -rf "$d"`,
		"deep":            `for i in $(seq 200); do mkdir -p dddddddddddddddddddd && cd dddddddddddddddddddd; done; echo x > x`,
		"odd names":       `touch -- -rf ' ' $'a\nb' $'\xff'; mkfifo pipe; mkdir '*'`,
	} {
		state := t.TempDir()
		c := openIn(t, state)
		ws, err := c.OpenWorkspace(t.Context(), "1-test-1")
		if err != nil {
			t.Fatal(err)
		}
		if res, _ := run(t, c, host.Step{Dir: ws, Command: command}); res.Error != "" || res.ExitCode == nil || *res.ExitCode != 0 {
			t.Errorf("%s: %+v", what, res)
		}
		// The next step of the job has an end, too.
		if _, err := c.Step(t.Context(), host.Step{ID: "2", Dir: ws, Command: "true", Shell: "sh {0}", Files: map[string][]byte{"DEPLOYHOOK_PAYLOAD_FILE": []byte("{}")}}, func(uint8, []byte) {}); err != nil && errors.Is(err, host.ErrGone) {
			t.Errorf("%s: the next step: %v", what, err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if left, _ := filepath.Glob(filepath.Join(state, "work", "*")); len(left) > 0 {
			t.Errorf("%s: %q are left", what, left)
		}
		if _, err := os.Stat("/etc/passwd"); err != nil {
			t.Fatal(what, err)
		}
	}
}

// needsRoot skips where a test cannot run, and fails where it must.
func needsRoot(t *testing.T, what string) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("this test " + what + " and needs root")
	}
	t.Skip("this test " + what + " and needs root")
}

func TestWhatAStepMountedIsNotEmptied(t *testing.T) {
	needsRoot(t, "mounts a file system")
	precious := t.TempDir()
	if err := os.WriteFile(filepath.Join(precious, "file"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	h := host.New(host.Options{State: t.TempDir(), Log: quiet()})
	defer h.Close()
	for _, end := range []string{"true", "kill -KILL $PPID"} {
		c := openOf(t, h)
		ws, err := c.OpenWorkspace(t.Context(), "1-test-1")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Step(t.Context(), host.Step{ID: "1", Dir: ws, Env: []string{"PRECIOUS=" + precious},
			Command: `mkdir -p 'root dir/home'; mount --bind "$PRECIOUS" 'root dir/home'; test -e 'root dir/home/file'; ` + end}, func(uint8, []byte) {})
		c.Close()
		if _, err := os.Stat(filepath.Join(precious, "file")); err != nil {
			t.Fatalf("%s: removing the workspace removed what was mounted in it: %v", end, err)
		}
		if _, err := os.Stat(ws); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the workspace is still there: %v", end, err)
		}
	}
}

func TestEveryStepGetsThePayloadAsItCame(t *testing.T) {
	c := open(t)
	for _, size := range []int{10, 300_000} {
		body := bytes.Repeat([]byte("x"), size)
		files := map[string][]byte{"DEPLOYHOOK_PAYLOAD_FILE": body}
		for i, command := range []string{
			`echo changed > "$DEPLOYHOOK_PAYLOAD_FILE"`, `rm "$DEPLOYHOOK_PAYLOAD_FILE"; ln -s /etc/passwd "$DEPLOYHOOK_PAYLOAD_FILE"`,
			`rm "$DEPLOYHOOK_PAYLOAD_FILE"; mkdir "$DEPLOYHOOK_PAYLOAD_FILE"`, `true`,
		} {
			res, o := run(t, c, host.Step{ID: fmt.Sprint(size, i), Command: `wc -c < "$DEPLOYHOOK_PAYLOAD_FILE"; ` + command, Files: files})
			if got := strings.TrimSpace(o.stdout()); res.Error != "" || got != strconv.Itoa(size) {
				t.Errorf("before %q the payload has %s bytes, want %d; %+v", command, got, size, res)
			}
		}
	}
	if st, err := os.Stat("/etc/passwd"); err != nil || st.Size() < 20 {
		t.Fatal("a link in the place of the payload was followed")
	}
}

func TestLongCommandsAndVariables(t *testing.T) {
	c := open(t)
	long := "# " + strings.Repeat("x", 300_000) + "\nfalse | true\n"
	for _, shell := range []string{"", "sh"} {
		want := map[string]int{"": 1, "sh": 0}[shell]
		if res, _ := run(t, c, host.Step{Shell: shell, Command: long}); res.ExitCode == nil || *res.ExitCode != want || res.Error != "" {
			t.Errorf("a command of 300 KB in %q: %+v, want %d", shell, res, want)
		}
	}
	if res, _ := run(t, c, host.Step{Command: "true", Env: []string{"A=x", "BIG=" + strings.Repeat("x", 131_072)}}); res.Error != "the variable BIG has 131072 bytes: one variable holds 128 KiB at most" {
		t.Errorf("a long variable: %+v", res)
	}
	if res, o := run(t, c, host.Step{Command: "echo ${#BIG}", Env: []string{"BIG=" + strings.Repeat("x", 131_000)}}); strings.TrimSpace(o.stdout()) != "131000" {
		t.Errorf("a variable that just fits: %+v", res)
	}
	_, err := c.Step(t.Context(), host.Step{ID: "x", Command: strings.Repeat("x", 2<<20), Dir: "/"}, func(uint8, []byte) {})
	if err == nil || !strings.Contains(err.Error(), "over 1 MiB together") {
		t.Errorf("a step of 2 MiB: %v", err)
	}
}

func TestExitStatusOfAKilledCommandIsExplained(t *testing.T) {
	c := open(t)
	for command, want := range map[string]string{
		"sh -c 'kill -KILL $$'; exit $?": "exit status 137: a command was ended by SIGKILL; was it out of memory?",
		"sh -c 'kill -SEGV $$'; exit $?": "exit status 139: a command was ended by SIGSEGV",
		"exit 200":                       "",
	} {
		if res, _ := run(t, c, host.Step{Command: command}); res.Error != want {
			t.Errorf("%s: %q, want %q", command, res.Error, want)
		}
	}
	if res, _ := run(t, c, host.Step{Command: "kill -36 $$"}); res.Signal != "SIGRTMIN+2" || res.ExitCode != nil {
		t.Errorf("a signal without a name: %+v", res)
	}
}

// steal tries to take the agent over: what it can read is printed.
func steal() {
	pid, _ := strconv.Atoi(os.Args[2])
	for _, name := range []string{"environ", "mem", "fd/0", "maps", "cwd"} {
		if f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, name)); err == nil {
			fmt.Println("opened", name)
			f.Close()
		}
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		fmt.Println("no pidfd:", err)
		return
	}
	for fd := range 20 {
		if _, err := unix.PidfdGetfd(pidfd, fd, 0); err == nil {
			fmt.Println("took descriptor", fd)
		}
	}
	if err := unix.PtraceAttach(pid); err == nil {
		fmt.Println("traces it")
	}
	fmt.Println("done as", os.Getuid())
}

// asNobody becomes another user and then an agent.
func asNobody() {
	const nobody = 65534
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, syscall.Exec(os.Args[2], []string{os.Args[2], "agent", "root"}, os.Environ()))
	os.Exit(1)
}

// nobody opens an agent of a user without rights, and gives the path of the
// test's binary, which it can start.
func nobody(t *testing.T) (*host.Conn, string) {
	t.Helper()
	needsRoot(t, "starts an agent as another user")
	dir, err := os.MkdirTemp("", "dh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	state, exe := filepath.Join(dir, "state"), filepath.Join(dir, "exe")
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(exe, b, 0o755), os.Mkdir(state, 0o777), os.Chmod(state, 0o777)); err != nil {
		t.Fatal(err)
	}
	h := host.New(host.Options{Command: []string{exe, "nobody", exe}, State: state, Log: quiet()})
	t.Cleanup(h.Close)
	c, err := h.Open(t.Context(), nil, deploy.TestAgent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, exe
}

func TestStepCannotTakeItsAgentOver(t *testing.T) {
	c, exe := nobody(t)
	res, o := run(t, c, host.Step{Dir: "/", Command: exe + " steal $PPID"})
	if got := o.stdout(); got != "done as 65534\n" {
		t.Errorf("a step of the same user:\n%s%+v", got, res)
	}
}

func TestPathOfAnotherUserIsRefusedWithTheWayOn(t *testing.T) {
	c, _ := nobody(t)
	dir, err := os.MkdirTemp("", "dh")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(dir, "shop")} {
		_, err := c.OpenRelease(t.Context(), host.OpenRelease{Path: path, Daemon: "me", Run: 1, Job: "deploy"})
		want := fmt.Sprintf("the release path %s cannot be written by nobody: make it with: sudo install -d -o nobody %s", path, path)
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
