package host_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
	"deployhook/internal/host/hosttest"
)

// proxied is a host behind a proxy.
func proxied(t *testing.T, s *hosttest.Server) (*deploy.Host, *hosttest.Proxy) {
	t.Helper()
	p := hosttest.NewProxy(t, s)
	far := s.Host()
	far.Port = p.Port
	return far, p
}

// endless is a step that runs until it is ended, with a process that got away
// from its group; ready is closed when both run.
func endless(t *testing.T, c *host.Conn, dir string) (ready <-chan struct{}, result <-chan error) {
	t.Helper()
	began, ended := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() {
		_, err := c.Step(context.Background(), host.Step{ID: "1", Dir: dir,
			Command: `setsid sh -c 'trap "" TERM; echo $$ > away; exec sleep 1000' & until [ -s away ]; do sleep 0.01; done; echo $$ > pid; echo $PPID > agent; echo ready; sleep 1000`},
			func(_ uint8, b []byte) {
				if strings.Contains(string(b), "ready") {
					once.Do(func() { close(began) })
				}
			})
		ended <- err
	}()
	return began, ended
}

func waitFor[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(2 * time.Minute):
		t.Fatalf("%s did not come", what)
		panic("unreachable")
	}
}

func TestLostConnectionIsAFailureAndItsStepsEnd(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{})
	far, p := proxied(t, s)
	h := near(t)
	c := openFar(t, h, far)
	ws, err := c.OpenWorkspace(t.Context(), "1-test-1")
	if err != nil {
		t.Fatal(err)
	}
	ready, result := endless(t, c, s.Root)
	waitFor(t, "the step", ready)
	p.Cut()
	if err := waitFor(t, "its end", result); !errors.Is(err, host.ErrGone) || err.Error() != "the agent ended during the job (the connection to web1 was lost)" {
		t.Errorf("got %v", err)
	}
	if err := c.Close(); err == nil || !strings.HasPrefix(err.Error(), "the exit of the agent on web1 was not seen: ") {
		t.Errorf("Close says %v", err)
	}
	// The next agent comes when the lost one has ended, with all it had started.
	next := openFar(t, h, far)
	for _, file := range []string{"pid", "away", "agent"} {
		assertGone(t, filepath.Join(s.Root, file))
	}
	if _, err := os.Stat(ws); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the workspace of the lost agent: %v", err)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}

func TestLostAgentThatDoesNotEndIsKilledBeforeTheNext(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{})
	far, p := proxied(t, s)
	h := near(t)
	c := openFar(t, h, far)
	ready, result := endless(t, c, s.Root)
	waitFor(t, "the step", ready)
	stop(t, filepath.Join(s.Root, "agent"))
	p.Cut()
	waitFor(t, "its end", result)
	c.Close()
	host.Backdate(h, far.Name, 58*time.Second)
	openFar(t, h, far)
	for _, file := range []string{"pid", "away", "agent"} {
		assertGone(t, filepath.Join(s.Root, file))
	}
}

// Silence takes as long as it takes: all kinds at once.
func TestSilenceIsGivenUpAtEveryStage(t *testing.T) {
	t.Parallel()
	h := near(t)
	var all sync.WaitGroup
	defer all.Wait()
	silent := func(stage string, far *deploy.Host) {
		all.Go(func() {
			c, err := h.Open(t.Context(), far, deploy.DeployAgent)
			if err == nil {
				c.Close()
			}
			if !errors.Is(err, host.ErrUnreachable) || !strings.Contains(err.Error(), "it answered the connection and then said nothing for 15s") {
				t.Errorf("%s: %v", stage, err)
			}
		})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	defer all.Wait()
	none := &deploy.Host{Name: "silent", Address: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port}
	s := hosttest.Start(t, hosttest.Options{})
	none.HostKey, none.Identity, none.User = s.HostKey, s.Host().Identity, s.User
	silent("before the login", none)
	// The login hangs, as one whose home is on a server that is gone.
	silent("before the agent speaks", hosttest.Start(t, hosttest.Options{Name: "hangs", Command: "sleep 100"}).Host())

	far, p := proxied(t, s)
	c := openFar(t, h, far)
	ready, result := endless(t, c, s.Root)
	waitFor(t, "the step", ready)
	p.Freeze()
	began := time.Now()
	err = waitFor(t, "its end", result)
	if took := time.Since(began); !errors.Is(err, host.ErrGone) || took < 10*time.Second {
		t.Errorf("got %v after %v", err, took)
	}
	for _, file := range []string{"pid", "away", "agent"} {
		assertGoneWithin(t, filepath.Join(s.Root, file), time.Minute)
	}
}

func TestSlowLineIsNoFailure(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{})
	far, p := proxied(t, s)
	reaches(t, "the first time", far) // its program is there
	p.Limit(1000)
	c := openFar(t, near(t), far)
	if res, o := run(t, c, host.Step{Dir: "/", Command: "echo slow"}); o.stdout() != "slow\n" {
		t.Errorf("%+v, %q", res, o.stdout())
	}
	p.Limit(0)
}

func TestConnectionCutInATreeIsAFailure(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{})
	far, p := proxied(t, s)
	h := near(t)
	c := openFar(t, h, far)
	if _, err := c.OpenRelease(t.Context(), host.OpenRelease{Path: s.Root, Daemon: "d", Run: 1, Job: "deploy"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Prepare(t.Context(), host.Prepare{Release: goodID, Commit: strings.Repeat("a", 40), Files: 100}); err != nil {
		t.Fatal(err)
	}
	err := c.Put(t.Context(), func(fn func(deploy.TreeFile, io.Reader) error) error {
		for i := range 100 {
			if i == 50 {
				p.Cut()
			}
			if err := fn(deploy.TreeFile{Path: strconv.Itoa(i), Mode: deploy.TreePlain, Size: 1 << 18}, noise(1<<18)); err != nil {
				return err
			}
		}
		return nil
	})
	if !errors.Is(err, host.ErrGone) {
		t.Errorf("got %v", err)
	}
	c.Close()
	// What is half made is found, as after a crash, and the lock is free.
	next := openFar(t, h, far)
	f, err := next.OpenRelease(t.Context(), host.OpenRelease{Path: s.Root, Daemon: "d", Run: 1, Job: "deploy", Attempt: 2})
	if err != nil || f.Current != "" {
		t.Fatalf("%+v, %v", f, err)
	}
	if err := next.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.Root, "releases", "*")); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}

// noise cannot be compressed.
func noise(n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{1}), n)
}

func TestKilledAgentOverSSHIsExplainedAndBuried(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{})
	h := near(t)
	for signal, want := range map[string]string{
		"KILL": "the agent ended during the job (it was ended by SIGKILL: a step did it, or the machine is out of memory)",
		"TERM": "the agent ended during the job (it was told to stop)",
	} {
		t.Run(signal, func(t *testing.T) {
			c, dir := openFar(t, h, s.Host()), t.TempDir()
			_, err := c.Step(t.Context(), host.Step{ID: "1", Dir: dir,
				Command: `(setsid sh -c 'trap "" TERM; echo $$ > away; exec sleep 1000' &); until [ -s away ]; do sleep 0.01; done; echo $$ > pid; kill -` + signal + ` $PPID; sleep 1000`}, func(uint8, []byte) {})
			if !errors.Is(err, host.ErrGone) || err.Error() != want {
				t.Errorf("%v, want %q", err, want)
			}
			c.Close()
			assertGone(t, filepath.Join(dir, "pid"))
			assertGone(t, filepath.Join(dir, "away"))
		})
	}
}

func TestSessionThatIsKilledIsAFailureAndItsStepsEnd(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{})
	h := near(t)
	c := openFar(t, h, s.Host())
	_, err := c.Step(t.Context(), host.Step{ID: "1", Dir: s.Root,
		Command: `(setsid sh -c 'trap "" TERM; echo $$ > away; exec sleep 1000' &); until [ -s away ]; do sleep 0.01; done; echo $$ > pid; read -r _ _ _ sshd _ < /proc/$PPID/stat; kill -KILL "$sshd"; sleep 1000`}, func(uint8, []byte) {})
	if !errors.Is(err, host.ErrGone) || err.Error() != "the agent ended during the job (the connection to web1 was lost)" {
		t.Errorf("got %v", err)
	}
	c.Close()
	openFar(t, h, s.Host())
	assertGone(t, filepath.Join(s.Root, "pid"))
	assertGone(t, filepath.Join(s.Root, "away"))
}

func TestAgentsOfADaemonThatWasKilledEndBeforeTheNextOneBegins(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{})
	far, p := proxied(t, s)
	before := near(t)
	ready, result := endless(t, openFar(t, before, far), s.Root)
	waitFor(t, "the step", ready)
	other := openFar(t, before, far)
	next := near(t) // a daemon that knows nothing of the first one's agents
	opened := make(chan error, 1)
	go func() {
		c, err := next.Open(t.Context(), s.Host(), deploy.DeployAgent)
		if err == nil {
			defer c.Close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Fatalf("an agent was opened beside those of the daemon before: %v", err)
	case <-time.After(2 * time.Second):
	}
	p.Cut() // the kernel does it when a daemon dies
	waitFor(t, "the end of the step", result)
	if err := waitFor(t, "the next agent", opened); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"pid", "away", "agent"} {
		assertGone(t, filepath.Join(s.Root, file))
	}
	_ = other.Close()
}

func TestOnlyWhatIsLackingTravels(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{})
	far, p := proxied(t, s)
	h := near(t)
	var first, second commit
	for i := range 200 {
		b, _ := io.ReadAll(io.LimitReader(rand.NewChaCha8([32]byte{byte(i), 7}), 20_000))
		content := string(b)
		first.add(fmt.Sprintf("d/%d", i), deploy.TreePlain, content)
		if i == 50 {
			content = "changed" + content
		}
		second.add(fmt.Sprintf("d/%d", i), deploy.TreePlain, content)
	}
	first.add("text", deploy.TreePlain, "")
	second.add("text", deploy.TreePlain, strings.Repeat("the same line over and over\n", 100_000))
	deployed := func(id string, c *commit) int64 {
		conn := openFar(t, h, far)
		if _, err := conn.OpenRelease(t.Context(), host.OpenRelease{Path: s.Root, Daemon: "d", Run: 1, Job: "deploy"}); err != nil {
			t.Fatal(err)
		}
		before, _ := p.Bytes()
		c.release(t, conn, id)
		goLive(t, conn, id)
		after, _ := p.Bytes()
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		return after - before
	}
	if n := deployed("20260401T101500Z-3f2c1ab", &first); n < 4_000_000 {
		t.Errorf("the first release took %d bytes: is the proxy passed by?", n)
	}
	// One file of 20 KB, 2.8 MB of text that packs well, and the list.
	if n := deployed("20260402T101500Z-3f2c1ab", &second); n > 60_000 {
		t.Errorf("the second release took %d bytes, want 60,000 at most", n)
	}
	one, err := os.Stat(filepath.Join(s.Root, "releases/20260401T101500Z-3f2c1ab/d/7"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := os.Stat(filepath.Join(s.Root, "current/d/7"))
	if err != nil {
		t.Fatal(err)
	}
	if os.SameFile(one, two) {
		t.Error("an unchanged file is the same one in both releases: a step may edit it")
	}
}
