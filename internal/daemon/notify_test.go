package daemon_test

import (
	"errors"
	"net"
	"strings"
	"sync"
	"testing"

	"deployhook/internal/store/storetest"
)

// notifications are what a service tells systemd.
type notifications struct {
	mu   sync.Mutex
	list []string
}

func (n *notifications) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.list...)
}

// count says how many of them have a line.
func (n *notifications) count(line string) (c int) {
	for _, text := range n.all() {
		for l := range strings.SplitSeq(text, "\n") {
			if l == line {
				c++
			}
		}
	}
	return c
}

// listen takes the notifications that come to a socket.
func (n *notifications) listen(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for b := make([]byte, 4096); ; {
			k, err := l.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			n.mu.Lock()
			n.list = append(n.list, string(b[:k]))
			n.mu.Unlock()
		}
	}()
}

// systemd is told when the daemon is ready, what it does, and that it lives as
// long as its writer does.
func TestSystemdIsToldOfReadinessWorkAndAWriterThatHangs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var n notifications
	n.listen(t, s.path("notify"))
	s.start(s.config(`
      test: { steps: [ { run: '`+s.gate("go")+`' } ] }
`), "NOTIFY_SOCKET="+s.path("notify"), "WATCHDOG_USEC=1500000")
	s.until("it says that it is ready", func() bool { return n.count("READY=1") == 1 && n.count("STATUS=1 pipelines, 0 running") > 0 })
	s.until("it says that it lives", func() bool { return n.count("WATCHDOG=1") > 1 })
	id := s.push("one")
	s.until("it says that a job runs", func() bool { return n.count("STATUS=1 pipelines, 1 running") > 0 })
	s.write("go", "")
	s.want(id, "succeeded")

	// Somebody holds the database: nothing can be written.
	unlock := storetest.LockSQLite(t, s.path("data"))
	s.until("the hang is seen", func() bool { return strings.Contains(s.log.String(), "the database did not answer in time") })
	fed := n.count("WATCHDOG=1")
	looks := strings.Count(s.log.String(), "the database did not answer in time")
	s.until("it is seen again", func() bool {
		return strings.Count(s.log.String(), "the database did not answer in time") > looks+1
	})
	if now := n.count("WATCHDOG=1"); now != fed {
		t.Errorf("the watchdog was fed %d times while nothing could be written", now-fed)
	}
	unlock()
	s.until("it says again that it lives", func() bool { return n.count("WATCHDOG=1") > fed })
	s.stop()
	if n.count("STOPPING=1") != 1 {
		t.Errorf("its end was not told: %q", n.all())
	}
}
