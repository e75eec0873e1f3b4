package daemon_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"deployhook/internal/web"
)

// pay is a pipeline without a repository, started by the hook webhook.
const pay = `
  pay:
    on: { hook: { name: webhook } }
    jobs: { enable: { steps: [ { run: "true" } ] } }
`

// payment posts a payload with an id of its own; status is 0 when there was no
// answer.
func (s *site) payment(c *http.Client, id string) answer {
	req, err := http.NewRequest(http.MethodPost, "http://"+s.addr+"/hooks/webhook", strings.NewReader(`{"id":"`+id+`"}`))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Deployhook-Token", secret)
	req.Header.Set("Idempotency-Key", id)
	res, err := c.Do(req)
	if err != nil {
		return answer{}
	}
	defer res.Body.Close()
	a := answer{status: res.StatusCode}
	if json.NewDecoder(res.Body).Decode(&a) != nil {
		return answer{}
	}
	return a
}

func TestWhatWasAnsweredSurvivesAKillAmongRequests(t *testing.T) {
	s := newSite(t)
	s.start(s.config("") + pay)
	for round := range 3 {
		var mu sync.Mutex
		taken, given := map[string]answer{}, map[string]bool{}
		var senders sync.WaitGroup
		var answers atomic.Int64
		for k := range 8 {
			senders.Go(func() {
				c := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{}}
				defer c.CloseIdleConnections()
				for n := 0; ; n++ {
					id := fmt.Sprintf("%d-%d-%d", round, k, n)
					a := s.payment(c, id)
					answers.Add(1)
					mu.Lock()
					if a.status == 202 {
						taken[id] = a
					} else {
						given[id] = true
					}
					mu.Unlock()
					if a.status == 0 {
						return
					}
				}
			})
		}
		s.until("some are answered", func() bool { return answers.Load() > 50 })
		_ = s.cmd.Process.Kill()
		s.died()
		senders.Wait()
		s.start(s.config("") + pay)
		for id, a := range taken {
			d, err := s.client.Delivery(t.Context(), a.Delivery)
			if err != nil || *d.Delivery != id || len(d.Runs) != 1 || d.Runs[0] != a.Runs[0] {
				t.Fatalf("%s was answered %+v and is %+v, %v", id, a, d, err)
			}
			if r := s.ended(a.Runs[0]); r.State == "lost" || r.State == "canceled" {
				t.Errorf("run %d is %s: %s", r.ID, r.State, why(r))
			}
		}
		// What got no answer may be there or not: sent again there is one run.
		for id := range given {
			first := s.payment(http.DefaultClient, id)
			again := s.payment(http.DefaultClient, id)
			if first.status != 202 && first.status != 200 || again.status != 200 || len(again.Runs) != 1 || again.Runs[0] != first.Runs[0] {
				t.Errorf("%s sent again: %+v, %+v", id, first, again)
			}
		}
	}
}

// GitHub gives up after 10 s, a running job may go on for the grace.
func TestPushDuringADrainBehindSystemdsSocketIsAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s.write("deploy.yaml", strings.Replace(s.slowSwitch(), "shutdown_grace: 2s", "shutdown_grace: 25s", 1))
	s.begin(s.passed(l), http.DefaultClient, "http://")
	slow := s.push("slow")
	s.until("the deploy is past its switch", func() bool { return s.exists("switched") })
	stopped := make(chan struct{})
	go func() { s.stop(); close(stopped) }()
	s.until("it drains", func() bool { return strings.Contains(s.log.String(), "msg=stopping") })
	next := s.push("two") // a push that was not answered 202 fails the test
	select {
	case <-stopped:
		t.Fatal("it did not wait for the running job")
	default:
	}
	s.write("go", "")
	<-stopped
	s.begin(s.passed(l), http.DefaultClient, "http://")
	s.want(slow, "succeeded")
	s.want(next, "succeeded")
	s.wantLive("two")
}

func TestRestartBehindSystemdsSocketLosesNoRequest(t *testing.T) {
	s := newSite(t)
	l, err := net.Listen("tcp", s.addr) // as systemd does, for both daemons
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.configFile(), []byte(s.config("")+pay), 0o644); err != nil {
		t.Fatal(err)
	}
	start := func() {
		s.log = &output{}
		s.cmd = exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" serve "$1"`, self, s.configFile())
		s.cmd.Env = append(os.Environ(), "TEST_SECRET="+secret)
		s.cmd.ExtraFiles, s.cmd.Stderr = []*os.File{socket}, s.log
		if err := s.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		s.exited = make(chan struct{})
		go func(cmd *exec.Cmd, exited chan struct{}) { _ = cmd.Wait(); close(exited) }(s.cmd, s.exited)
	}
	start()
	ctx, cancel := context.WithCancel(t.Context())
	var senders sync.WaitGroup
	var answers atomic.Int64
	for k := range 8 {
		senders.Go(func() {
			// Half of them keep their connections. Such a one can be closed in
			// the moment in which a request comes: the client sends it again,
			// and it may be known by then.
			keep := k%2 == 0
			c := &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{DisableKeepAlives: !keep}}
			defer c.CloseIdleConnections()
			for n := 0; ctx.Err() == nil; n++ {
				if a := s.payment(c, fmt.Sprintf("%d-%d", k, n)); a.status != 202 && !(keep && a.status == 200 && len(a.Runs) == 1) {
					t.Errorf("a request among restarts was answered %+v", a)
					return
				}
				answers.Add(1)
			}
		})
	}
	for round := range 3 {
		have := answers.Load()
		s.until("requests go on", func() bool { return answers.Load() > have+20 || t.Failed() })
		// One whose headers are not whole when the daemon is told to stop.
		half, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = half.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := fmt.Fprintf(half, "POST /hooks/webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nIdempotency-Key: half-%d\r\n", round); err != nil {
			t.Fatal(err)
		}
		// Those before it are answered: it has been taken out of the queue.
		have = answers.Load()
		s.until("requests go on", func() bool { return answers.Load() > have+20 || t.Failed() })
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		for !strings.Contains(s.log.String(), "msg=stopping") {
			select {
			case <-s.exited:
				t.Fatalf("round %d: it did not wait for a request that had begun:\n%s", round, s.log)
			case <-time.After(5 * time.Millisecond):
			}
		}
		if _, err := fmt.Fprintf(half, "X-Deployhook-Token: %s\r\n\r\n{}", secret); err != nil {
			t.Error(err)
		}
		if line, err := bufio.NewReader(half).ReadString('\n'); err != nil || !strings.Contains(line, " 202 ") {
			t.Errorf("round %d: what came while it stops was answered %q, %v", round, line, err)
		}
		half.Close()
		s.stop()
		if !strings.Contains(s.log.String(), "stopped") {
			t.Errorf("round %d: it did not stop in its order:\n%s", round, s.log)
		}
		start()
	}
	have := answers.Load()
	s.until("requests go on", func() bool { return answers.Load() > have+20 || t.Failed() })
	cancel()
	senders.Wait()
}

func TestDaemonThatDrainsRefusesWithATime(t *testing.T) {
	s := newSite(t)
	s.start(s.simple("\n          - { run: 'touch " + s.path("runs") + "; while ! test -e " + s.path("go") + "; do sleep 0.05; done' }"))
	s.push("one")
	s.until("the step runs", func() bool { _, err := os.Stat(s.path("runs")); return err == nil })
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	body := `{"id":"x"}`
	var res *http.Response
	s.until("deliveries are refused", func() bool {
		req, err := http.NewRequest(http.MethodPost, "http://"+s.addr+"/hooks/webhook?token="+secret, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if res, err = http.DefaultClient.Do(req); err != nil {
			return false
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode == 503 && strings.Contains(string(b), "deployhook is stopping: redeliver in a moment")
	})
	if res.Header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 503} {
		r, err := http.Get("http://" + s.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != want {
			t.Errorf("%s while it stops: %d, want %d", path, r.StatusCode, want)
		}
	}
	if err := os.WriteFile(s.path("go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.exited:
		s.cmd = nil
	case <-time.After(30 * time.Second):
		t.Error("it did not stop after its job had ended")
	}
}

func TestAddressesBesideTheHooksAreAnsweredToo(t *testing.T) {
	s := newSite(t)
	s.start(s.config(""))
	for path, want := range map[string]int{"/": 404, "/hooks": 404, "/hooks/": 404, "//hooks/webhook": 404, "/x/../hooks/webhook": 404, "/webhook": 404, "/healthz": 405, "/hooks/webhook": 401} {
		req, err := http.NewRequest(http.MethodPost, "http://"+s.addr+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != want || want == 404 && !strings.Contains(string(b), `"message":"there is no such hook: the path is /hooks/ and a name`) {
			t.Errorf("%s: %d %s, want %d", path, res.StatusCode, b, want)
		}
	}
}

// any starts a pipeline that only shows what it was given, for every ref.
func (s *site) any() string {
	return strings.Replace(s.config(`
      show:
        steps:
          - { run: 'printf "%s\n" "ref=$DEPLOYHOOK_REF" "branch=$DEPLOYHOOK_BRANCH" "tag=$DEPLOYHOOK_TAG" "sha=$DEPLOYHOOK_SHA" "index=$(cat index.txt)"' }
`), "branches: [main]", `branches: ["**"], tags: ["**"]`, 1)
}

func TestNamesOfBranchesAreOnlyData(t *testing.T) {
	s := newSite(t)
	s.start(s.any())
	sha := s.commit("one")
	for _, name := range []string{
		"$(touch " + s.path("pwned") + ")", "`touch " + s.path("pwned") + "`", "../../etc", "-rf", "--upload-pack=touch " + s.path("pwned"),
		`"quotes" 'of' \"all\"`, "a\nb", "a;b|c&d", strings.Repeat("x", 1000), "ünï/日本", "a..b", "x.lock", "@{", "\x1b[31mred", "%s%n", "refs/heads/main", "HEAD",
	} {
		a := s.send(strings.Repeat("0", 40), sha, func(p map[string]any) { p["ref"] = "refs/heads/" + name })
		if a.status != 202 || strings.ContainsAny(a.Message, "\x1b\n") {
			t.Errorf("%q: %+v", name, a)
			continue
		}
		r := s.want(a.Runs[0], "succeeded")
		if log := s.logOf(r.ID); !strings.Contains(log, "sha="+sha) || !strings.Contains(log, "index=one") || !strings.Contains(log, "branch="+strings.Split(name, "\n")[0][:1]) {
			t.Errorf("%q: the log is\n%s", name, log)
		}
	}
	// A NUL cannot stand in a variable, nor a branch have one: it ends somehow.
	a := s.send(strings.Repeat("0", 40), sha, func(p map[string]any) { p["ref"] = "refs/heads/a\x00b" })
	if a.status != 202 || strings.Contains(a.Message, "\x00") {
		t.Errorf("a NUL in a branch: %+v", a)
	} else if r := s.ended(a.Runs[0]); strings.ContainsAny(why(r), "\n\x00") {
		t.Errorf("a NUL in a branch: %s %q", r.State, why(r))
	}
	if _, err := os.Stat(s.path("pwned")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("an outsider's text was run")
	}
}

func TestEveryKindOfPushTakesItsOwnCommit(t *testing.T) {
	s := newSite(t)
	s.start(s.any())
	zero := strings.Repeat("0", 40)
	in := func(args ...string) string { return s.git(append([]string{"-C", s.repo()}, args...)...) }
	ref := func(name string) func(map[string]any) { return func(p map[string]any) { p["ref"] = name } }
	check := func(what string, a answer, sha, index string) {
		t.Helper()
		if a.status != 202 || len(a.Runs) != 1 {
			t.Fatalf("%s: %+v", what, a)
		}
		r := s.want(a.Runs[0], "succeeded")
		if log := s.logOf(r.ID); *r.Commit != sha || !strings.Contains(log, "sha="+sha+"\n") || !strings.Contains(log, "index="+index+"\n") {
			t.Errorf("%s: commit %s, want %s\n%s", what, *r.Commit, sha, log)
		}
	}
	one := s.commit("one")
	check("new branch", s.send(zero, one, func(p map[string]any) { p["created"] = true }), one, "one")
	in("tag", "light")
	check("tag", s.send(zero, one, ref("refs/tags/light")), one, "one")
	in("tag", "-a", "-m", "release", "noted")
	object := in("rev-parse", "noted")
	check("annotated tag", s.send(zero, object, ref("refs/tags/noted"), func(p map[string]any) { p["head_commit"] = map[string]any{"id": one, "message": "x"} }), one, "one")
	check("tag object alone", s.send(zero, object, ref("refs/tags/noted"), func(p map[string]any) { p["head_commit"] = nil }), one, "one")
	in("checkout", "-q", "-b", "side")
	side := s.commit("side")
	in("checkout", "-q", "main")
	two := s.commit("two")
	in("merge", "-q", "--no-ff", "-s", "ours", "-m", "merge", "side")
	merge := in("rev-parse", "HEAD")
	check("merge", s.send(one, merge), merge, "two")
	check("the branch that was merged", s.send(one, side, ref("refs/heads/side")), side, "side")
	in("reset", "-q", "--hard", one)
	forced := s.commit("forced")
	check("forced", s.send(merge, forced, func(p map[string]any) { p["forced"] = true }), forced, "forced")
	check("no tip any more", s.send(one, two), two, "two")
	// The payload's head is not what moved the branch.
	check("another head", s.send(two, forced, func(p map[string]any) { p["head_commit"] = map[string]any{"id": one, "message": "x"} }), forced, "forced")

	var stream strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&stream, "commit refs/heads/main\ncommitter a <a@example.com> %d +0000\ndata 1\nx\n", 1_800_000_000+i)
		if i == 0 {
			fmt.Fprintf(&stream, "from %s\n", forced)
		}
	}
	stream.WriteString("M 644 inline index.txt\ndata 4\nmany\n")
	cmd := exec.Command("git", "-C", s.repo(), "fast-import", "--quiet")
	cmd.Stdin = strings.NewReader(stream.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	list := []any{}
	for _, sha := range strings.Fields(in("rev-list", "--reverse", forced+"..main")) {
		list = append(list, map[string]any{"id": sha, "message": strings.Repeat("m", 200), "modified": []string{"index.txt"}})
	}
	if len(list) != 2000 {
		t.Fatalf("there are %d commits", len(list))
	}
	many := in("rev-parse", "main")
	check("2,000 commits", s.send(forced, many, func(p map[string]any) { p["commits"] = list }), many, "many")

	in("branch", "-D", "side")
	if a := s.send(side, zero, ref("refs/heads/side"), func(p map[string]any) { p["deleted"], p["head_commit"] = true, nil }); a.status != 200 || a.Message != "branch side was deleted: nothing to deploy" {
		t.Errorf("deleted: %+v", a)
	}
	gone := s.send(zero, strings.Repeat("12", 20))
	if r := s.want(gone.Runs[0], "failed"); strings.Contains(why(r), "\n") || !strings.Contains(why(r), strings.Repeat("12", 20)[:7]) {
		t.Errorf("a commit that is not there: %q", why(r))
	}
}

func TestReplayNeedsForceToGoBackwards(t *testing.T) {
	s := newSite(t)
	s.start(s.config(""))
	s.want(s.push("one"), "succeeded")
	s.want(s.push("two"), "succeeded")
	if _, err := s.client.Replay(t.Context(), 1, false); err == nil || !strings.Contains(err.Error(), "already live in") || !strings.Contains(err.Error(), "--force") {
		t.Errorf("a replay of what is older: %v", err)
	}
	if list, err := s.client.Runs(t.Context(), web.Query{Limit: 10}); err != nil || len(list) != 2 {
		t.Errorf("there are %d runs, %v", len(list), err)
	}
	again, err := s.client.Replay(t.Context(), 2, false)
	if err != nil || len(again.Runs) != 1 {
		t.Fatalf("a replay of what is live: %+v, %v", again, err)
	}
	s.want(again.Runs[0], "succeeded")
	forced, err := s.client.Replay(t.Context(), 1, true)
	if err != nil || len(forced.Runs) != 1 {
		t.Fatalf("with force: %+v, %v", forced, err)
	}
	s.want(forced.Runs[0], "succeeded")
	s.wantLive("one")
	s.want(s.push("three"), "succeeded")
	back, err := s.client.Rollback(t.Context(), rollback(""))
	if err != nil {
		t.Fatal(err)
	}
	s.want(back.Run, "succeeded")
	if _, err := s.client.Replay(t.Context(), 3, false); err == nil || !strings.Contains(err.Error(), "held since rollback") {
		t.Errorf("a replay of what was rolled back from: %v", err)
	}
}

func TestPushThatTheDiffSkipsTakesNoOlderOneAway(t *testing.T) {
	s := newSite(t)
	s.start(strings.Replace(s.config(""), "branches: [main]", "branches: [main], paths: [index.txt]", 1))
	if _, err := s.client.Hold(t.Context(), "hold", "shop", ""); err != nil {
		t.Fatal(err)
	}
	zero := s.commit("zero")
	one := s.commit("one")
	a := s.send(zero, one)
	if err := os.WriteFile(filepath.Join(s.repo(), "other.txt"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.git("-C", s.repo(), "add", "-A")
	s.git("-C", s.repo(), "commit", "-q", "-m", "other")
	b := s.send(one, s.git("-C", s.repo(), "rev-parse", "HEAD"), func(p map[string]any) { p["commits"] = []any{} })
	if _, err := s.client.Hold(t.Context(), "unhold", "shop", ""); err != nil {
		t.Fatal(err)
	}
	s.want(b.Runs[0], "skipped")
	s.want(a.Runs[0], "succeeded")
	s.wantLive("one")
}

func TestFullDataDiskRefusesAndLosesNothing(t *testing.T) {
	rooted(t)
	s := newSite(t)
	if err := os.MkdirAll(s.path("data"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", s.path("data"), "tmpfs", 0, "size=16m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(s.path("data"), syscall.MNT_DETACH) })
	s.start(s.config("") + pay)
	first := s.payment(http.DefaultClient, "first")
	s.want(first.Runs[0], "succeeded")
	fill, err := os.Create(s.path("data/fill"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = fill.Write(make([]byte, 4096))
	}
	fill.Close()
	// Pages that the database has already may take some; then it is full.
	var refused answer
	id := ""
	s.until("the disk is full", func() bool {
		id += "x"
		pad := strings.Repeat("0123456789abcdef", 100)
		refused = s.payment(http.DefaultClient, id+pad[:200])
		return refused.status == 503
	})
	if refused.Message != "no space left on the server: redeliver it later" {
		t.Errorf("the answer is %+v", refused)
	}
	if err := os.Remove(s.path("data/fill")); err != nil {
		t.Fatal(err)
	}
	pad := strings.Repeat("0123456789abcdef", 100)
	again := s.payment(http.DefaultClient, id+pad[:200])
	if again.status != 202 || len(again.Runs) != 1 {
		t.Fatalf("sent again with room: %+v", again)
	}
	s.want(again.Runs[0], "succeeded")
	if d, err := s.client.Delivery(t.Context(), first.Delivery); err != nil || d.Runs[0] != first.Runs[0] {
		t.Errorf("the first delivery is %+v, %v", d, err)
	}
}

func TestNoSecretStandsInLogOrData(t *testing.T) {
	const token = "t0ken+/of=the&address"
	s := newSite(t)
	s.start(fmt.Sprintf(`
server: { listen: "%s", data: %s, socket: %s, log: { level: debug } }
hooks:
  github: { provider: github, secret: { environment: TEST_SECRET }, token: { environment: TEST_TOKEN } }
  webhook: { provider: generic, token: { environment: TEST_TOKEN } }
pipelines:
  shop:
    repository: github.com/acme/shop
    clone_url: %s
    hook: github
    on: { push: { branches: [main] } }
    jobs: { test: { steps: [ { run: "true" } ] } }
  pay:
    on: { hook: { name: webhook } }
    jobs: { enable: { steps: [ { run: "true" } ] } }
`, s.addr, s.path("data"), s.path("sock"), s.repo()), "TEST_TOKEN="+token)
	query := "?x=query-string&token=" + url.QueryEscape(token)
	post := func(path, event, body string) int {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(body))
		req, err := http.NewRequest(http.MethodPost, "http://"+s.addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-GitHub-Event", event)
		req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		if bytes.Contains(b, []byte(token)) || bytes.Contains(b, []byte(secret)) {
			t.Errorf("the answer tells it: %s", b)
		}
		return res.StatusCode
	}
	sha := s.commit("one")
	push := `{"ref":"refs/heads/main","before":"` + strings.Repeat("0", 40) + `","after":"` + sha + `","repository":{"html_url":"https://github.com/acme/shop"},"commits":[]}`
	for _, tt := range []struct {
		path, event, body string
		want              int
	}{
		{"/hooks/github" + query, "push", push, 202},
		{"/hooks/github" + query, "ping", `{"zen":"` + secret + `","hook":{"config":{"url":"https://x/hooks/github` + query + `"}}}`, 200},
		{"/hooks/webhook" + query, "", `{"a":1}`, 202},
		{"/hooks/webhook" + query + "&token=x", "", `{"a":1}`, 401},
		{"/hooks/webhook" + query + "x", "", `{"a":1}`, 401},
		{"/hooks/webhook/" + url.PathEscape(token), "", `{"a":1}`, 404},
		{"/hooks/webhook&token=" + url.PathEscape(token), "", `{"a":1}`, 404},
		{"/hooks/webhook%3Ftoken=" + url.PathEscape(token), "", `{"a":1}`, 404},
		{"/hooks/none" + query, "", `{"a":1}`, 404},
		{"/hooks/webhook" + query + ";", "", `not JSON`, 401},
		{"/hooks/webhook" + query, "", `not JSON ` + token, 400},
	} {
		if got := post(tt.path, tt.event, tt.body); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.path, got, tt.want)
		}
	}
	s.until("both runs have ended", func() bool {
		list, err := s.client.Runs(t.Context(), web.Query{Limit: 10})
		return err == nil && len(list) == 2 && terminal(list[0].State) && terminal(list[1].State)
	})
	log := s.log
	s.stop()
	words := []string{secret, token, url.QueryEscape(token), url.PathEscape(token), "query-string"}
	look := func(where string, b []byte) {
		for _, w := range words {
			if bytes.Contains(b, []byte(w)) {
				t.Errorf("%s tells %q", where, w)
			}
		}
	}
	look("the log", []byte(log.String()))
	files := 0
	err := filepath.WalkDir(s.path("data"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		files++
		look(path, b)
		return err
	})
	if err != nil || files == 0 {
		t.Errorf("%d files, %v", files, err)
	}
}
