package host_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
	"deployhook/internal/host/hosttest"
)

// How long the first copy takes on the slow line of a test: longer than
// nothing at all may come, and than a login may take.
const slowCopy = 12 * time.Second

// packedSize is how much of a program is sent, as a quick copy tells.
func packedSize(t *testing.T, h *host.Hosts, far *deploy.Host) (size int64) {
	t.Helper()
	c, err := h.OpenTelling(t.Context(), far, deploy.DeployAgent, func(come, all int64) { size = all })
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	return size
}

func TestFirstCopyGoesOnAsLongAsSomethingComes(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{Empty: true})
	far, p := proxied(t, s)
	far.Keepalive = time.Second // what it asks waits behind the copy, and that is no silence
	h := copies(t, smallProgram(t))
	all := packedSize(t, h, far)
	if err := os.Remove(program(t, s)); err != nil {
		t.Fatal(err)
	}
	p.Limit(all * int64(time.Second) / int64(slowCopy))
	defer p.Limit(0)
	began, told, last := time.Now(), 0, int64(0)
	c, err := h.OpenTelling(t.Context(), far, deploy.DeployAgent, func(come, size int64) {
		if come <= last || size != all || come > size {
			t.Errorf("told of %d of %d after %d", come, size, last)
		}
		last = come
		if told++; come == size {
			p.Limit(0) // the rest is not about the copy
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if took := time.Since(began); last != all || told < int(all>>15) || took < slowCopy*3/4 {
		t.Errorf("%d of %d bytes came, told of %d times, in %v", last, all, told, took)
	}
	if res, o := run(t, c, host.Step{Dir: "/", Command: "echo there"}); o.stdout() != "there\n" {
		t.Errorf("%+v, %q", res, o.stdout())
	}
}

// A tree that takes longer than both ends wait for a word.
func TestTreeOverASlowLineIsNoSilence(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{})
	far, p := proxied(t, s)
	c := openFar(t, near(t), far)
	if _, err := c.OpenRelease(t.Context(), host.OpenRelease{Path: s.Root, Daemon: "d", Run: 1, Job: "deploy"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Prepare(t.Context(), host.Prepare{Release: goodID, Commit: strings.Repeat("a", 40), Files: 1}); err != nil {
		t.Fatal(err)
	}
	const size = 45_000
	p.Limit(1000)
	if _, err := c.Facts(t.Context()); err != nil { // what the proxy had begun to read went at once
		t.Fatal(err)
	}
	began := time.Now()
	err := c.Put(t.Context(), func(fn func(deploy.TreeFile, io.Reader) error) error {
		return fn(deploy.TreeFile{Path: "file", Mode: deploy.TreePlain, Size: size}, noise(size))
	})
	p.Limit(0)
	if took := time.Since(began); err != nil || took < 40*time.Second {
		t.Errorf("after %v: %v", took, err)
	}
	if st, err := os.Stat(filepath.Join(s.Root, "releases", goodID, "file")); err != nil || st.Size() != size {
		t.Errorf("what came is %v, %v", st, err)
	}
}

// What a step prints at once, and takes longer to come than silence would, in
// a connection that is asked besides.
func TestMuchThatIsPrintedOverASlowLineIsNoSilence(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{})
	far, p := proxied(t, s)
	far.Keepalive = time.Second
	c := openFar(t, near(t), far)
	p.Limit(1000)
	if _, err := c.Facts(t.Context()); err != nil { // what the proxy had begun to read went at once
		t.Fatal(err)
	}
	const size = 25_000
	began := time.Now()
	res, o := run(t, c, host.Step{Dir: "/", Command: "head -c " + strconv.Itoa(size) + " /dev/zero",
		Env: []string{"LONG=" + strings.Repeat("x", 20_000), "LONGER=" + strings.Repeat("y", 20_000)}}) // so does what is sent at once
	p.Limit(0)
	if took := time.Since(began); len(o.stdout()) != size || res.ExitCode == nil || *res.ExitCode != 0 || took < 50*time.Second {
		t.Errorf("after %v: %+v, %d bytes", took, res, len(o.stdout()))
	}
}

// Its sshd answers what keeps the connection alive, and the agent does not.
func TestAgentThatIsStoppedIsGivenUpThoughItsHostAnswers(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{})
	far := s.Host()
	far.Keepalive = time.Second
	c := openFar(t, near(t), far)
	ready, result := endless(t, c, s.Root)
	waitFor(t, "the step", ready)
	stop(t, filepath.Join(s.Root, "agent"))
	began := time.Now()
	err := waitFor(t, "its end", result)
	if took := time.Since(began); !errors.Is(err, host.ErrGone) || took < 20*time.Second {
		t.Errorf("after %v: %v", took, err)
	}
	c.Close()
}

func TestCopyThatStallsSaysHowFarItCameAndTheWayByHand(t *testing.T) {
	t.Parallel()
	own := smallProgram(t)
	for what, tt := range map[string]struct {
		stop func(p *hosttest.Proxy)
		want string
	}{
		"a line that falls silent": {(*hosttest.Proxy).Freeze, " when nothing came any more for 10s: is the line cut, or slower than 3276 bytes a second?"},
		"a line that is cut":       {(*hosttest.Proxy).Cut, " when the connection was lost"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := hosttest.Start(t, hosttest.Options{Empty: true})
			far, p := proxied(t, s)
			h := copies(t, own)
			stopped, size := false, int64(0)
			p.Limit(1 << 20) // not all of it is on its way at once
			_, err := h.OpenTelling(t.Context(), far, deploy.DeployAgent, func(come, all int64) {
				if size = all; come > all/4 && !stopped {
					stopped = true
					tt.stop(p)
				}
			})
			p.Limit(0)
			p.Thaw()
			if !errors.Is(err, host.ErrUnreachable) || !strings.Contains(err.Error(), tt.want) ||
				!strings.Contains(err.Error(), fmt.Sprintf(" MB of %.1f MB of the agent's program had come", float64(size)/1e6)) || strings.Contains(err.Error(), ": 0.0 MB") {
				t.Fatalf("got %v", err)
			}
			// What it says to do leaves nothing to copy.
			_, command, _ := strings.Cut(err.Error(), "to copy it by hand: scp -C ")
			from, to, _ := strings.Cut(command, " ")
			_, to, _ = strings.Cut(to, ":")
			if from != own || filepath.Dir(to) != filepath.Join(s.Home, ".cache/deployhook") {
				t.Fatalf("the way by hand is from %s to %s", from, to)
			}
			b, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(to, b, 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
			before, _ := p.Bytes()
			c, err := h.OpenTelling(t.Context(), far, deploy.DeployAgent, func(int64, int64) { t.Error("it is copied again") })
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if after, _ := p.Bytes(); after-before > 50_000 {
				t.Errorf("%d bytes were sent", after-before)
			}
		})
	}
}
