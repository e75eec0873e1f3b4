package daemon_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"deployhook/internal/agent"
	"deployhook/internal/daemon"
	"deployhook/internal/deploy"
	"deployhook/internal/release"
	"deployhook/internal/web"
)

const secret = "a-secret-of-many-characters"

// TestMain lets the test's own binary be the daemon and its agents, so that a
// test can kill them as a power cut would.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "agent" {
		failpoint(os.Getenv("LANG"))
		farFailpoint(os.Getenv("FAILPOINT"))
		exitNow(agent.Main(agent.Options{Version: "test", SSH: slices.Contains(os.Args, "--ssh")}))
	}
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := daemon.Run(ctx, daemon.Options{Config: os.Args[2], Version: "test", Stderr: os.Stderr, Clock: clockAhead(os.Getenv("CLOCK_AHEAD"))}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			exitNow(1)
		}
		exitNow(0)
	}
	os.Exit(m.Run())
}

// exitNow ends the process at once: with -race the usual way waits a second,
// and a test ends many.
func exitNow(code int) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(code), 0, 0)
}

// failpoint ends the daemon at a moment of a switch, alone or together with
// the agent. LANG carries it: an agent gets no other variable that is free.
func failpoint(lang string) {
	who, point, ok := strings.Cut(lang, "@")
	if !ok {
		return
	}
	release.Failpoint = func(name string) {
		if name != point {
			return
		}
		_ = syscall.Kill(os.Getppid(), syscall.SIGKILL)
		if who == "both" {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}
}

// output is what a daemon prints, read while it prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// site is a repository, a config and a daemon.
type site struct {
	t      *testing.T
	dir    string
	addr   string
	extra  string // lines of the deploy job
	client *web.Client
	cmd    *exec.Cmd
	log    *output
	exited chan struct{}
	last   string // commit of the last push
	n      int
}

func newSite(t *testing.T) *site {
	t.Helper()
	// A socket's path is short; t.TempDir's is not always.
	dir, err := os.MkdirTemp("", "dh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &site{t: t, dir: dir, addr: free(t), client: web.Dial(filepath.Join(dir, "sock"))}
	s.git("init", "-q", "-b", "main", s.repo())
	t.Cleanup(s.stop)
	return s
}

func (s *site) repo() string            { return filepath.Join(s.dir, "repo") }
func (s *site) path(elem string) string { return filepath.Join(s.dir, elem) }
func (s *site) current() string         { return s.path("srv/current") }
func (s *site) configFile() string      { return s.path("deploy.yaml") }
func (s *site) git(args ...string) string {
	s.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// config is the smallest whole pipeline; jobs may replace its jobs.
func (s *site) config(jobs string) string {
	if jobs == "" {
		jobs = `
      test: { steps: [ { run: "! grep -q bad index.txt" } ] }
      deploy:
        release: ` + s.path("srv") + `
        steps: [ { run: "cp index.txt built.txt" } ]
        restart: "! grep -q crash index.txt"
` + s.extra
	}
	return fmt.Sprintf(`
server: { listen: "%s", data: %s, socket: %s, shutdown_grace: 2s }
hooks:
  github: { provider: github, secret: { environment: TEST_SECRET } }
  webhook: { provider: generic, token: { environment: TEST_SECRET } }
pipelines:
  shop:
    repository: github.com/acme/shop
    clone_url: %s
    hook: github
    on: { push: { branches: [main] } }
    jobs:%s
`, s.addr, s.path("data"), s.path("sock"), s.repo(), jobs)
}

// start runs the daemon and waits until it is ready.
func (s *site) start(config string, env ...string) {
	s.t.Helper()
	if err := os.WriteFile(s.configFile(), []byte(config), 0o644); err != nil {
		s.t.Fatal(err)
	}
	s.log = &output{}
	s.cmd = exec.Command("/proc/self/exe", "serve", s.configFile())
	s.cmd.Env = append(os.Environ(), append([]string{"TEST_SECRET=" + secret}, env...)...)
	s.cmd.Stderr = s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) { _ = cmd.Wait(); close(exited) }(s.cmd, s.exited)
	s.until("the daemon is ready", func() bool {
		res, err := http.Get("http://" + s.addr + "/readyz")
		if err != nil {
			return false
		}
		res.Body.Close()
		d, err := s.client.Daemon(s.t.Context())
		return res.StatusCode == http.StatusOK && err == nil && d.PID == s.cmd.Process.Pid
	})
}

// stop ends the daemon as systemd does.
func (s *site) stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(30 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.exited
		s.t.Error("the daemon did not stop")
	}
	s.cmd = nil
	if strings.Contains(s.log.String(), "DATA RACE") || strings.Contains(s.log.String(), "panic: ") {
		s.t.Error("the daemon raced or panicked")
	}
	if s.t.Failed() {
		s.t.Logf("the daemon's log:\n%s", s.log)
	}
}

// died waits for a daemon that was killed.
func (s *site) died() {
	s.t.Helper()
	select {
	case <-s.exited:
		s.cmd = nil
	case <-time.After(60 * time.Second):
		s.t.Fatal("the daemon was not killed at that point")
	}
}

func (s *site) until(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("waited in vain until %s\n%s", what, s.log)
		}
		select {
		case <-s.exited:
			s.t.Fatalf("the daemon ended before %s:\n%s", what, s.log)
		default:
		}
	}
}

// commit changes index.txt.
func (s *site) commit(text string) string {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.repo(), "index.txt"), []byte(text+"\n"), 0o644); err != nil {
		s.t.Fatal(err)
	}
	s.git("-C", s.repo(), "add", "-A")
	s.git("-C", s.repo(), "commit", "-q", "-m", text)
	return s.git("-C", s.repo(), "rev-parse", "HEAD")
}

type answer struct {
	status   int
	Delivery int64
	Runs     []int64
	Message  string
}

// send sends the webhook of a push of main from one commit to another.
func (s *site) send(before, after string, change ...func(map[string]any)) answer {
	s.t.Helper()
	s.n++
	p := map[string]any{
		"ref": "refs/heads/main", "before": before, "after": after, "n": s.n,
		"repository":  map[string]any{"html_url": "https://github.com/acme/shop"},
		"sender":      map[string]any{"login": "alice"},
		"head_commit": map[string]any{"id": after, "message": "change"},
		"commits":     []any{map[string]any{"id": after, "modified": []string{"index.txt"}}},
	}
	for _, c := range change {
		c(p)
	}
	return s.deliver("push", p)
}

// deliver sends the webhook of an event as GitHub does.
func (s *site) deliver(event string, payload map[string]any) answer {
	s.t.Helper()
	s.n++
	body, err := json.Marshal(payload)
	if err != nil {
		s.t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	req, err := http.NewRequest(http.MethodPost, "http://"+s.addr+"/hooks/github", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-GitHub-Event", event)
	req.Header.Set("X-GitHub-Delivery", fmt.Sprint(event, s.n))
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	a := answer{status: res.StatusCode}
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		s.t.Fatal(err)
	}
	return a
}

// push commits a text and sends its webhook; it gives the run's number.
func (s *site) push(text string) int64 {
	s.t.Helper()
	before := s.last
	if before == "" {
		before = strings.Repeat("0", 40)
	}
	s.last = s.commit(text)
	a := s.send(before, s.last)
	if a.status != http.StatusAccepted || len(a.Runs) != 1 {
		s.t.Fatalf("the push was answered %+v", a)
	}
	return a.Runs[0]
}

func terminal(state string) bool {
	return slices.Contains([]string{"succeeded", "failed", "canceled", "skipped", "lost"}, state)
}

// ended waits for a run's end.
func (s *site) ended(id int64) web.Run {
	s.t.Helper()
	var r web.Run
	s.until(fmt.Sprintf("run %d has ended", id), func() bool {
		var err error
		r, err = s.client.Run(s.t.Context(), id)
		return err == nil && terminal(r.State)
	})
	return r
}

func (s *site) want(id int64, state string) web.Run {
	s.t.Helper()
	r := s.ended(id)
	if r.State != state {
		s.t.Fatalf("run %d is %s (%s), want %s\n%s", id, r.State, why(r), state, s.logOf(id))
	}
	return r
}

func why(r web.Run) string {
	for _, p := range []*string{r.Error, r.Cause, r.WaitingFor} {
		if p != nil {
			return *p
		}
	}
	return ""
}

func (s *site) logOf(id int64) string {
	var b strings.Builder
	_ = s.client.Log(s.t.Context(), id, "", "", false, func(l web.Line) error {
		fmt.Fprintf(&b, "%s/%s %s: %s\n", l.Job, l.Step, l.Stream, l.Text)
		return nil
	})
	return b.String()
}

// live is what the current release says; it must be whole.
func (s *site) live() string {
	s.t.Helper()
	target, err := os.Readlink(s.current())
	if err != nil {
		s.t.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(s.dir, "srv", target, "index.txt"))
	if err != nil {
		s.t.Fatalf("current points to %s, which is not whole: %v", target, err)
	}
	built, err := os.ReadFile(filepath.Join(s.dir, "srv", target, "built.txt"))
	if err != nil || !bytes.Equal(index, built) {
		s.t.Fatalf("current points to %s, whose steps did not all run: %v", target, err)
	}
	return strings.TrimSpace(string(index))
}

func (s *site) wantLive(text string) {
	s.t.Helper()
	if got := s.live(); got != text {
		s.t.Fatalf("%q is live, want %q\n%s", got, text, s.log)
	}
}

func TestPushIsTestedThenDeployed(t *testing.T) {
	s := newSite(t)
	s.start(s.config(""))
	r := s.want(s.push("one"), "succeeded")
	s.wantLive("one")
	if len(r.Jobs) != 2 || r.Jobs[0].Name != "test" || r.Jobs[1].Name != "deploy" {
		t.Fatalf("the jobs are %+v", r.Jobs)
	}
	if !r.Jobs[0].Hosts[0].Steps[0].Ended.Before(*r.Jobs[1].Hosts[0].Steps[0].Started) {
		t.Error("the deploy job began before the test job had ended")
	}
	if steps := r.Jobs[1].Hosts[0].Steps; len(steps) != 2 || steps[1].Name != "restart" || steps[1].ExitCode == nil || *steps[1].ExitCode != 0 {
		t.Errorf("the steps of the deploy job are %+v", steps)
	}
	if *r.Commit != s.last || r.Event != "push" || *r.Actor != "alice" {
		t.Errorf("the run is %+v", r)
	}
}

func TestFailedTestIsNeverDeployed(t *testing.T) {
	s := newSite(t)
	s.start(s.config(""))
	s.want(s.push("one"), "succeeded")
	r := s.want(s.push("bad"), "failed")
	s.wantLive("one")
	if d := r.Jobs[1]; d.State != "skipped" || d.Cause == nil || *d.Cause != "job test failed" {
		t.Errorf("the deploy job is %+v", d)
	}
	if why(r) != "job test: step ! grep -q bad index.txt: exit status 1" {
		t.Errorf("the run's error is %q", why(r))
	}
}

func TestFailingRestartPutsTheOldReleaseBack(t *testing.T) {
	s := newSite(t)
	s.start(s.config(""))
	r := s.want(s.push("crash at first"), "failed")
	if _, err := os.Lstat(s.current()); !os.IsNotExist(err) {
		t.Errorf("current is there after the first release ever failed: %v", err)
	}
	if !strings.Contains(why(r), "first release") {
		t.Errorf("the error is %q", why(r))
	}
	s.want(s.push("one"), "succeeded")
	r = s.want(s.push("crash"), "failed")
	s.wantLive("one")
	steps := r.Jobs[1].Hosts[0].Steps
	if n := len(steps); n != 3 || steps[1].State != "failed" || steps[2].State != "succeeded" || steps[2].Name != "restart" {
		t.Errorf("the old release was not restarted: %+v", steps)
	}
	list, err := s.client.Releases(t.Context(), "shop")
	if err != nil || len(list) != 3 || list[0].State != "bad" || list[0].Current || !list[1].Current {
		t.Errorf("the releases are %+v, %v", list, err)
	}
}

func TestNewestOfSeveralPushesIsDeployed(t *testing.T) {
	s := newSite(t)
	s.start(s.config(""))
	s.want(s.push("zero"), "succeeded")
	if _, err := s.client.Hold(t.Context(), "lock", "shop", "wait"); err != nil {
		t.Fatal(err)
	}
	var runs []int64
	for i := range 5 {
		runs = append(runs, s.push(fmt.Sprint("n", i)))
	}
	s.until("all tests have ended", func() bool {
		r, err := s.client.Run(t.Context(), runs[4])
		return err == nil && r.Jobs[0].State == "succeeded" && r.WaitingFor != nil
	})
	r, err := s.client.Run(t.Context(), runs[4])
	if err != nil || *r.WaitingFor != "lock by root: wait" && !strings.HasPrefix(*r.WaitingFor, "lock by ") {
		t.Errorf("the newest waits for %v, %v", r.WaitingFor, err)
	}
	if _, err := s.client.Hold(t.Context(), "unlock", "shop", ""); err != nil {
		t.Fatal(err)
	}
	s.want(runs[4], "succeeded")
	s.wantLive("n4")
	for _, id := range runs[:4] {
		r := s.want(id, "canceled")
		if !strings.Contains(why(r), "superseded by run ") {
			t.Errorf("run %d: %q", id, why(r))
		}
	}
}

func TestOlderCommitNeverReplacesANewerOne(t *testing.T) {
	s := newSite(t)
	s.start(s.config(""))
	first, second := s.commit("first"), s.commit("second")
	s.last = second
	s.want(s.send(first, second).Runs[0], "succeeded")
	s.wantLive("second")
	// The delivery of the first push comes late.
	late := s.send(strings.Repeat("e", 40), first)
	r := s.want(late.Runs[0], "canceled")
	if !strings.Contains(why(r), "already live in") {
		t.Errorf("the late run: %q", why(r))
	}
	s.wantLive("second")
	if _, err := s.client.Retry(t.Context(), late.Runs[0], false); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("a retry without --force: %v", err)
	}
	id, err := s.client.Retry(t.Context(), late.Runs[0], true)
	if err != nil {
		t.Fatal(err)
	}
	s.want(id, "succeeded")
	s.wantLive("first")
	s.want(s.send(first, second).Runs[0], "succeeded")
	// Forced back on purpose: the remote still points there.
	s.git("-C", s.repo(), "reset", "-q", "--hard", first)
	forced := s.send(second, first, func(p map[string]any) { p["forced"] = true })
	s.want(forced.Runs[0], "succeeded")
	s.wantLive("first")
}

func TestRollbackGoesBackAndHolds(t *testing.T) {
	s := newSite(t)
	s.start(s.config(""))
	s.want(s.push("one"), "succeeded")
	second := s.push("two")
	s.want(second, "succeeded")
	got, err := s.client.Rollback(t.Context(), rollback(""))
	if err != nil {
		t.Fatal(err)
	}
	s.want(got.Run, "succeeded")
	s.wantLive("one")
	// The commit rolled back from is held, for redelivery and retry.
	if _, err := s.client.Retry(t.Context(), second, false); err == nil || !strings.Contains(err.Error(), "held since rollback") {
		t.Errorf("a retry of what was rolled back from: %v", err)
	}
	again := s.send(strings.Repeat("d", 40), s.last)
	if r := s.want(again.Runs[0], "canceled"); !strings.Contains(why(r), fmt.Sprintf("held since rollback %d; unhold shop", got.Run)) {
		t.Errorf("the redelivery: %q", why(r))
	}
	if _, err := s.client.Rollback(t.Context(), rollback("20200101T000000Z-1234567")); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("a rollback to what is not there: %v", err)
	}
	if _, err := s.client.Rollback(t.Context(), rollback("")); err == nil {
		t.Error("there is nothing below the first release, and a rollback went there")
	}
	// A later push ends the hold.
	s.want(s.push("three"), "succeeded")
	s.wantLive("three")
	if _, err := s.client.Hold(t.Context(), "unhold", "shop", ""); err == nil {
		t.Error("the hold is still there")
	}
}

func TestNothingAcceptedIsLostToAKill(t *testing.T) {
	s := newSite(t)
	s.start(s.config(`
      test: { steps: [ { run: "sleep 0.3" } ] }
      deploy: { release: ` + s.path("srv") + `, steps: [ { run: "cp index.txt built.txt" } ] }
`))
	var runs []int64
	for i := range 6 {
		runs = append(runs, s.push(fmt.Sprint("n", i)))
	}
	_ = s.cmd.Process.Kill()
	s.died()
	s.start(s.config(`
      test: { steps: [ { run: "true" } ] }
      deploy: { release: ` + s.path("srv") + `, steps: [ { run: "cp index.txt built.txt" } ] }
`))
	for _, id := range runs[:5] {
		if r := s.ended(id); r.State != "succeeded" && r.State != "canceled" {
			t.Errorf("run %d is %s: %s", id, r.State, why(r))
		}
	}
	s.want(runs[5], "succeeded")
	s.wantLive("n5")
}

// points are the moments of a deploy at which a test ends everything.
var points = []string{
	"made", "synced", "prepared-line", "before-intent", "intent-written", "temporary-link", "linked", "phase-proving",
	"before-live-line", "live-line", "intent-removed",
}

// undoPoints are those of a release whose restart fails.
var undoPoints = []string{"undo-intent", "undo-linked", "bad-line", "undone"}

func TestCurrentIsWholeAfterAKillAtAnyMoment(t *testing.T) {
	type kill struct{ who, point, text string }
	var kills []kill
	for _, who := range []string{"daemon", "both"} {
		for _, p := range points {
			kills = append(kills, kill{who, p, "two"})
		}
		for _, p := range undoPoints {
			kills = append(kills, kill{who, p, "crash"})
		}
	}
	for _, k := range kills {
		t.Run(k.who+"@"+k.point, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.start(s.config(""))
			s.want(s.push("one"), "succeeded")
			s.stop()
			s.start(s.config(""), "LANG="+k.who+"@"+k.point)
			id := s.push(k.text)
			s.died()
			before := s.live()
			if before != "one" && before != k.text {
				t.Errorf("%q is live after the kill", before)
			}
			s.start(s.config(""))
			r := s.ended(id)
			want := map[string]string{"two": "succeeded", "crash": "failed"}[k.text]
			if r.State != want {
				t.Errorf("the run is %s (%s), want %s\n%s", r.State, why(r), want, s.log)
			}
			s.wantLive(map[string]string{"succeeded": "two", "failed": "one"}[want])
			s.want(s.push("three"), "succeeded")
			s.wantLive("three")
			if list, _ := filepath.Glob(s.path("srv/.current-*")); len(list) > 0 {
				t.Errorf("%v is left behind", list)
			}
		})
	}
}

func TestCrashStopLeavesItToAPerson(t *testing.T) {
	s := newSite(t)
	s.extra = "        on_crash: stop\n"
	s.start(s.config(""))
	s.want(s.push("one"), "succeeded")
	s.stop()
	s.start(s.config(""), "LANG=both@linked")
	id := s.push("two")
	s.died()
	s.start(s.config(""))
	r := s.want(id, "lost")
	command := "deployhook unlock local:" + s.path("srv") + " --abandon"
	if !strings.Contains(why(r), command) {
		t.Errorf("%q does not say how to go on", why(r))
	}
	next := s.push("three")
	s.until("the next deploy waits for the path", func() bool {
		r, err := s.client.Run(t.Context(), next)
		return err == nil && r.WaitingFor != nil && strings.Contains(*r.WaitingFor, command)
	})
	if _, err := s.client.Abandon(t.Context(), "local", s.path("srv")); err != nil {
		t.Fatal(err)
	}
	s.want(next, "succeeded")
	s.wantLive("three")
}

func TestCancelEndsWhatRuns(t *testing.T) {
	s := newSite(t)
	s.start(s.config(`
      test: { steps: [ { run: "echo $$ > ` + s.path("pid") + `; setsid sleep 1000 & sleep 1001" } ] }
      deploy: { release: ` + s.path("srv") + ` }
`))
	id := s.push("one")
	s.until("the step runs", func() bool {
		b, err := os.ReadFile(s.path("pid"))
		return err == nil && len(b) > 0
	})
	if _, err := s.client.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	r := s.want(id, "canceled")
	if !strings.HasPrefix(why(r), "by ") {
		t.Errorf("the cause is %q", why(r))
	}
	b, err := os.ReadFile(s.path("pid"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/" + strings.TrimSpace(string(b))); !os.IsNotExist(err) {
		t.Errorf("the step still runs: %v", err)
	}
	if _, err := s.client.Cancel(t.Context(), id); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("a second cancel: %v", err)
	}
}

func TestSecretsStayOutOfLogsAndTheEnvironment(t *testing.T) {
	s := newSite(t)
	s.start(s.config(`
      test:
        secrets: { KEY: { environment: TEST_SECRET } }
        steps:
          - name: print
            run: echo "key $KEY"; printf '%s' "$KEY" | base64; env; unset DEPLOYHOOK_STEP; printf a-secret-of-; sleep 0.4; echo many-characters
      deploy: { release: ` + s.path("srv") + ` }
`))
	id := s.push("one")
	s.want(id, "succeeded")
	text := s.logOf(id)
	for _, leak := range []string{secret, "YS1zZWNyZXQtb2YtbWFueS", "TEST_SECRET", "many-characters"} {
		if strings.Contains(text, leak) {
			t.Errorf("the log has %q:\n%s", leak, text)
		}
	}
	if !strings.Contains(text, "key ***") {
		t.Errorf("the log does not show the mask:\n%s", text)
	}
}

func TestOutsidersTextIsDataOnly(t *testing.T) {
	s := newSite(t)
	s.start(s.config(`
      test:
        env: { WHO: "${{ payload.sender.login }}", BRANCH: "${{ branch }}" }
        steps: [ { run: 'printf "%s|%s|%s\n" "$WHO" "$DEPLOYHOOK_MESSAGE" "$DEPLOYHOOK_SHA"; test "$(wc -c < $DEPLOYHOOK_PAYLOAD_FILE)" -gt 100' } ]
`))
	sha := s.commit("one")
	a := s.send(strings.Repeat("0", 40), sha, func(p map[string]any) {
		p["sender"] = map[string]any{"login": "$(touch " + s.path("pwned") + ")"}
		p["head_commit"] = map[string]any{"id": sha, "message": "`touch " + s.path("pwned") + "`\x00;\n\"'"}
	})
	s.want(a.Runs[0], "succeeded")
	if _, err := os.Stat(s.path("pwned")); !os.IsNotExist(err) {
		t.Error("an outsider's text was run")
	}
	if text := s.logOf(a.Runs[0]); !strings.Contains(text, "$(touch ") || !strings.Contains(text, sha) {
		t.Errorf("the log is\n%s", text)
	}
}

func TestReloadTakesAGoodFileAndKeepsTheOldForABadOne(t *testing.T) {
	s := newSite(t)
	s.start(s.config(""))
	s.want(s.push("one"), "succeeded")
	if err := os.WriteFile(s.configFile(), []byte("pipelines: 1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "deploy.yaml:1:12: pipelines: a section is wanted here") {
		t.Errorf("a bad file: %v", err)
	}
	s.want(s.push("two"), "succeeded")
	if err := os.WriteFile(s.configFile(), []byte(strings.ReplaceAll(s.config(""), "branches: [main]", "branches: [other]")), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := s.send(s.last, s.commit("three")); a.status != 200 || a.Message != "no pipeline wants branch main: shop wants other" {
		t.Errorf("after the reload: %+v", a)
	}
}

func TestPaymentEnablesACourse(t *testing.T) {
	s := newSite(t)
	s.start(s.config("") + `
  pay:
    on: { hook: { name: webhook, if: 'payload.type == "payment.approved"' } }
    jobs:
      enable:
        env: { COURSE: "${{ payload.course }}" }
        steps: [ { run: 'echo "$COURSE" >> ` + s.path("courses") + `' } ]
`)
	post := func(token, body string) int {
		res, err := http.Post("http://"+s.addr+"/hooks/webhook?token="+token, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, res.Body)
		return res.StatusCode
	}
	if got := post("wrong", `{"type":"payment.approved","course":"forged"}`); got != 401 {
		t.Errorf("a forged payment was answered %d", got)
	}
	if got := post(secret, `{"type":"payment.refused","course":"refused"}`); got != 200 {
		t.Errorf("a refused payment was answered %d", got)
	}
	if got := post(secret, `{"type":"payment.approved","course":"go; touch `+s.path("pwned")+`"}`); got != 202 {
		t.Errorf("a payment was answered %d", got)
	}
	s.until("the course is enabled", func() bool {
		b, _ := os.ReadFile(s.path("courses"))
		return string(b) == "go; touch "+s.path("pwned")+"\n"
	})
	if strings.Contains(s.log.String(), secret) {
		t.Error("the daemon's log tells the token")
	}
}

func rollback(to string) deploy.RollbackCommand {
	return deploy.RollbackCommand{Pipeline: "shop", To: to}
}

func trigger(branch, sha string, force bool) deploy.TriggerCommand {
	return deploy.TriggerCommand{Pipeline: "shop", Branch: branch, SHA: sha, Force: force}
}
