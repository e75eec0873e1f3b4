package daemon_test

import (
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"deployhook/internal/deploy"
)

// What ignores a signal hands that on to what it starts: Python would know no
// ctrl-C in a step, and "yes | head" would print an error.
func TestStepsIgnoreNoSignal(t *testing.T) {
	s := newSite(t)
	s.start(s.simple(`
          - name: signals
            run: |
              grep SigIgn /proc/self/status
              set +o pipefail
              yes | head -n 1
`))
	id := s.push("one")
	s.want(id, "succeeded")
	text := s.logOf(id)
	_, mask, _ := strings.Cut(text, "SigIgn:\t")
	mask, _, _ = strings.Cut(mask, "\n")
	ignored, err := strconv.ParseUint(mask, 16, 64)
	// 32 and 33 are the C library's own: GNU make leaves them ignored in all
	// that it starts, and no program can set them.
	if err != nil || ignored&^(1<<31|1<<32) != 0 || strings.Contains(text, "roken pipe") {
		t.Errorf("a step ignores signals:\n%s", text)
	}
}

// A secret's command may print another value each time: what a step got is
// masked, not what was read before.
func TestSecretThatIsNewEachTimeIsMasked(t *testing.T) {
	s := newSite(t)
	s.start(s.config(`
      test:
        secrets: { TOKEN: { command: cat /proc/sys/kernel/random/uuid } }
        steps:
          - { run: 'echo "one $TOKEN"' }
          - { run: 'echo "two $TOKEN"; test -e ` + s.path("second") + ` || { touch ` + s.path("second") + `; exit 1; }', retry: { limit: 1, delay: 1ms } }
      deploy: { release: ` + s.path("srv") + ` }
`))
	id := s.push("one")
	s.want(id, "succeeded")
	text := s.logOf(id)
	if strings.Count(text, "one ***\n") != 1 || strings.Count(text, "two ***\n") != 2 {
		t.Errorf("the log is\n%s", text)
	}
}

// Whoever reads the daemon's log may go away, as tee does at a ctrl-C.
func TestDaemonOutlivesTheReaderOfItsLog(t *testing.T) {
	s := newSite(t)
	if err := os.WriteFile(s.configFile(), []byte(s.config("")), 0o644); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.log = &output{}
	s.cmd = exec.Command("/proc/self/exe", "serve", s.configFile())
	s.cmd.Env = append(os.Environ(), "TEST_SECRET="+secret)
	s.cmd.Stderr = w
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) { _ = cmd.Wait(); close(exited) }(s.cmd, s.exited)
	s.until("the daemon is ready", func() bool {
		res, err := http.Get("http://" + s.addr + "/readyz")
		if err == nil {
			res.Body.Close()
		}
		return err == nil && res.StatusCode == http.StatusOK
	})
	r.Close()
	s.want(s.push("one"), "succeeded")
	s.wantLive("one")
}

func TestManyShortLinesAreReadInSeconds(t *testing.T) {
	s := newSite(t)
	s.start(s.simple(`
          - { name: lines, run: seq 250000 }
`))
	id := s.push("one")
	s.want(id, "succeeded")
	began, lines := time.Now(), 0
	text := s.logOf(id)
	took := time.Since(began)
	for range strings.Lines(text) {
		lines++
	}
	if lines < 250_000 || !strings.Contains(text, "stdout: 250000\n") {
		t.Errorf("%d lines came back, want 250000 and the deploy job's", lines)
	}
	// About 0.2 s on two cores that are free.
	if took > 20*time.Second {
		t.Errorf("they took %v to read", took)
	}
}

func TestBinaryOutputIsKeptAndARunOfItIsReadable(t *testing.T) {
	s := newSite(t)
	s.start(s.simple(`
          - { name: binary, run: 'head -c 3000000 /dev/urandom; exit 4' }
`))
	id := s.push("one")
	r := s.want(id, "failed")
	if r.Error == nil || *r.Error != "job test: step binary: exit status 4" {
		t.Errorf("the run's error is %s", why(r))
	}
	if text := s.logOf(id); !strings.HasSuffix(text, "\ntest/binary deployhook: deployhook: exit status 4\n") || len(text) < 3_000_000 {
		t.Errorf("the log has %d bytes and ends %q", len(text), text[max(0, len(text)-100):])
	}
	if r.Jobs[1].State != string(deploy.Skipped) {
		t.Errorf("the deploy job is %s, want skipped", r.Jobs[1].State)
	}
}
