package host_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
)

// activated is what systemd does for a socket unit with Accept=yes: a process
// of its own for each connection, which is its standard input.
type activated struct {
	path  string
	state string

	mu    sync.Mutex
	procs []*exec.Cmd
}

// activate listens on a local socket and starts an agent a connection, of this
// user or of another.
func activate(t *testing.T, change func(*exec.Cmd)) *activated {
	t.Helper()
	needsRoot(t, "listens as root, as systemd does")
	dir, err := os.MkdirTemp("", "dh")
	if err != nil {
		t.Fatal(err)
	}
	a := &activated{path: filepath.Join(dir, "agent.sock"), state: filepath.Join(dir, "state")}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(a.state, 0o700)); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: a.path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			f, err := conn.File()
			conn.Close()
			if err != nil {
				t.Error(err)
				return
			}
			cmd := exec.Command("/proc/self/exe", "agent", "root")
			cmd.Stdin, cmd.Env = f, []string{"DEPLOYHOOK_AGENT_STATE=" + a.state, "PATH=" + os.Getenv("PATH"), "HOME=" + dir}
			if change != nil {
				change(cmd)
			}
			err = cmd.Start()
			f.Close()
			if err != nil {
				t.Error(err)
				return
			}
			a.mu.Lock()
			a.procs = append(a.procs, cmd)
			a.mu.Unlock()
			all.Go(func() { _ = cmd.Wait() })
		}
	})
	t.Cleanup(func() {
		l.Close()
		a.mu.Lock()
		for _, cmd := range a.procs {
			time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		}
		a.mu.Unlock()
		all.Wait()
		os.RemoveAll(dir)
	})
	return a
}

// hosts is a near end whose agents of both kinds come from the socket.
func (a *activated) hosts(t *testing.T) *host.Hosts {
	t.Helper()
	h := host.New(host.Options{Sockets: map[deploy.AgentKind]string{deploy.TestAgent: a.path, deploy.DeployAgent: a.path}, Version: "1.2", Log: quiet()})
	t.Cleanup(h.Close)
	return h
}

func TestAgentOfALocalSocketDoesItsJobAndEnds(t *testing.T) {
	a := activate(t, nil)
	h := a.hosts(t)
	for i := range 5 {
		c := openOf(t, h)
		ws, err := c.OpenWorkspace(t.Context(), fmt.Sprintf("%d-test-1", i))
		if err != nil {
			t.Fatal(err)
		}
		err = c.Put(t.Context(), func(fn func(deploy.TreeFile, io.Reader) error) error {
			return fn(deploy.TreeFile{Path: "a", Mode: deploy.TreePlain, Size: 300_000}, strings.NewReader(strings.Repeat("x", 300_000)))
		})
		if err != nil {
			t.Fatal(err)
		}
		res, o := run(t, c, host.Step{Dir: ws, Command: `echo $PPID; wc -c < a; (setsid sleep 1000 &); exit 7`})
		if res.ExitCode == nil || *res.ExitCode != 7 || !strings.HasSuffix(o.stdout(), "\n300000\n") || len(res.LeftOver) != 1 {
			t.Errorf("got %+v and %q", res, o.stdout())
		}
		pid, _, _ := strings.Cut(o.stdout(), "\n")
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		// Close has waited for its exit.
		if list, _ := filepath.Glob(filepath.Join(a.state, "*", "*")); len(list) > 2 { // those of the one kept ahead
			t.Errorf("%q are left", list)
		}
		if _, err := os.Stat(ws); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the workspace is still there: %v", err)
		}
		// Its descriptors are closed a moment before it is a zombie.
		if err := os.WriteFile(filepath.Join(a.state, "pid"), []byte(pid), 0o644); err != nil {
			t.Fatal(err)
		}
		assertGone(t, filepath.Join(a.state, "pid"))
	}
}

func TestAgentOfALocalSocketThatIsKilledOrStopped(t *testing.T) {
	t.Parallel()
	a := activate(t, nil)
	h := a.hosts(t)
	for signal, want := range map[string]string{
		"KILL": "the agent ended during the job (it was killed: a step did it, or the machine is out of memory; the journal of its unit says more)",
		"TERM": "the agent ended during the job (it was told to stop)",
		"STOP": "the agent ended during the job (it did not answer any more)",
	} {
		dir := t.TempDir()
		c := openOf(t, h)
		ws, err := c.OpenWorkspace(t.Context(), "1-test-1")
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Step(t.Context(), host.Step{ID: "1", Dir: dir,
			Command: `(setsid sh -c 'trap "" TERM; echo $$ > away; exec sleep 1000' &); until [ -s away ]; do sleep 0.01; done; echo $$ > pid; kill -` + signal + ` $PPID; sleep 1000`}, func(uint8, []byte) {})
		if !errors.Is(err, host.ErrGone) || err.Error() != want {
			t.Errorf("%s: %v, want %q", signal, err, want)
		}
		c.Close()
		assertGone(t, filepath.Join(dir, "pid"))
		assertGone(t, filepath.Join(dir, "away"))
		if _, err := os.Stat(ws); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the workspace is still there: %v", signal, err)
		}
	}
}

// socketDaemon is a daemon whose agents come from a local socket; it runs a
// step until it is killed.
func socketDaemon() {
	h := host.New(host.Options{Sockets: map[deploy.AgentKind]string{deploy.TestAgent: os.Args[2]}, State: os.Args[3], Log: quiet()})
	c, err := h.Open(context.Background(), nil, deploy.TestAgent)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	_, _ = c.Step(context.Background(), host.Step{ID: "1", Dir: os.Args[3],
		Command: `setsid sh -c 'trap "" TERM; echo $$ > away; exec sleep 1000' & until [ -s away ]; do sleep 0.01; done; echo $$ > pid; echo $PPID > agent; echo ready; sleep 1000`},
		func(_ uint8, b []byte) { os.Stdout.Write(b) })
}

// The next daemon opens no agent as long as one of the daemon before it lives,
// and has one ended that a step has stopped.
func TestAgentsOfAKilledDaemonEndBeforeTheNextDaemonBegins(t *testing.T) {
	t.Parallel()
	for _, stopped := range []bool{false, true} {
		a, dir := activate(t, nil), t.TempDir()
		cmd := exec.Command("/proc/self/exe", "socketdaemon", a.path, dir)
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
		if stopped {
			stop(t, filepath.Join(dir, "agent"))
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		openOf(t, a.hosts(t))
		for _, file := range []string{"pid", "away"} {
			if runs(t, filepath.Join(dir, file)) {
				t.Errorf("stopped %v: %s of the daemon before lives beside an agent of the next one", stopped, file)
			}
		}
		// To give its mark back is the last but one thing that an agent does.
		assertGone(t, filepath.Join(dir, "agent"))
	}
}

// runs says whether the process whose id is in file runs.
func runs(t *testing.T, file string) bool {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b, err = os.ReadFile("/proc/" + strings.TrimSpace(string(b)) + "/stat")
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// stop stops the process whose id is in file.
func stop(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}

func TestLocalSocketThatCannotBeUsedIsExplained(t *testing.T) {
	needsRoot(t, "listens as root, as systemd does")
	dir, err := os.MkdirTemp("", "dh")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(dir, "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	foreign := filepath.Join(dir, "foreign")
	other := exec.Command("/proc/self/exe", "listener", foreign)
	other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	stdout, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	if _, err := io.ReadFull(stdout, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	broken := activate(t, func(cmd *exec.Cmd) { cmd.Path, cmd.Args = "/bin/false", []string{"false"} })
	stranger := activate(t, func(cmd *exec.Cmd) { cmd.Args = []string{cmd.Args[0], "agent", "nobody"} })
	stateless := activate(t, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "DEPLOYHOOK_AGENT_STATE=/dev/null/x") })
	for path, want := range map[string]string{
		filepath.Join(dir, "absent"): "the agent socket " + filepath.Join(dir, "absent") + " is not there: sudo systemctl enable --now deployhook-test.socket deployhook-agent.socket makes both",
		dead:                         "the agent socket " + dead + " is dead: sudo systemctl restart deployhook-test.socket deployhook-agent.socket",
		foreign:                      "the agent socket " + foreign + " is not root's, but of user 65534: it would be told the jobs' secrets; only one that systemd made is used",
		broken.path:                  "starting an agent at " + broken.path + ": no agent answered: EOF; the journal of its unit says more",
		stranger.path:                "starting an agent at " + stranger.path + ": deployhook agent: user 0 has connected, and only user 65534 may",
		stateless.path:               "starting an agent at " + stateless.path + ": deployhook agent: making a directory to work in: mkdir /dev/null: not a directory",
	} {
		h := host.New(host.Options{Sockets: map[deploy.AgentKind]string{deploy.DeployAgent: path}, State: t.TempDir(), Log: quiet()})
		_, err := h.Open(t.Context(), nil, deploy.DeployAgent)
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		h.Close()
	}
}

// listener listens on a local socket until it is killed.
func listener() {
	l, err := net.Listen("unix", os.Args[2])
	fmt.Println("ready", err)
	for err == nil {
		_, err = l.Accept()
	}
}

// A test job's agent and a deploy job's agent are two users on one machine:
// each kind goes to its own socket.
func TestEachKindOfAgentHasItsOwnUser(t *testing.T) {
	users := map[deploy.AgentKind]uint32{deploy.TestAgent: 65533, deploy.DeployAgent: 65534}
	o := host.Options{Sockets: map[deploy.AgentKind]string{}, Log: quiet()}
	for kind, uid := range users {
		a := activate(t, func(cmd *exec.Cmd) {
			state := strings.TrimPrefix(cmd.Env[0], "DEPLOYHOOK_AGENT_STATE=")
			exe := filepath.Join(filepath.Dir(state), "exe")
			if _, err := os.Stat(exe); err != nil {
				b, err := os.ReadFile("/proc/self/exe")
				// A process that is started meanwhile would hold it open for writing: it could not be run.
				syscall.ForkLock.RLock()
				defer syscall.ForkLock.RUnlock()
				if err := errors.Join(err, os.WriteFile(exe, b, 0o755), os.Chown(state, int(uid), int(uid))); err != nil {
					t.Error(err)
				}
			}
			cmd.Path = exe
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		})
		o.Sockets[kind] = a.path
	}
	h := host.New(o)
	defer h.Close()
	h.Warm()
	for kind, uid := range users {
		for range 2 {
			c, err := h.Open(t.Context(), nil, kind)
			if err != nil {
				t.Fatal(err)
			}
			ws, err := c.OpenWorkspace(t.Context(), "1-x-1")
			if err != nil {
				t.Fatal(err)
			}
			if res, got := run(t, c, host.Step{Dir: ws, Command: "id -u"}); got.stdout() != fmt.Sprintln(uid) {
				t.Errorf("a step of kind %s runs as %s, want %d: %+v", kind, got.stdout(), uid, res)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestDescriptorsStayFewOverManyJobsOfALocalSocket(t *testing.T) {
	a := activate(t, nil)
	h := a.hosts(t)
	job := func(i int) {
		c, err := h.Open(t.Context(), nil, deploy.DeployAgent)
		if err != nil {
			t.Fatal(err)
		}
		command := "true"
		if i%10 == 3 {
			command = "kill -KILL $PPID"
		}
		_, err = c.Step(t.Context(), host.Step{ID: "1", Dir: "/", Shell: "sh", Command: command}, func(uint8, []byte) {})
		if err != nil && !errors.Is(err, host.ErrGone) {
			t.Fatal(err)
		}
		c.Close()
	}
	for i := range 5 {
		job(i)
	}
	before := descriptors()
	for i := range 40 {
		job(i)
	}
	h.Close()
	// This process has a descriptor for each agent that it starts as systemd
	// does, until it has seen its exit.
	assertDescriptors(t, before)
	if left, _ := filepath.Glob(filepath.Join(a.state, "*", "*")); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}
