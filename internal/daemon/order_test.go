package daemon_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// gated is a pipeline whose test job waits for a file of its commit's own
// text, so that a test says which test ends when.
func (s *site) gated(more string) string {
	return s.config(`
      test:
        steps: [ { run: 'touch "` + s.path("began-") + `$(cat index.txt)"; until test -e "` + s.path("go-") + `$(cat index.txt)"; do sleep 0.02; done; ! grep -q bad index.txt' } ]
      deploy:
        release: ` + s.path("srv") + `
        steps: [ { run: "cp index.txt built.txt" } ]
` + more)
}

// pass lets the test of a commit end.
func (s *site) pass(text string) { s.write("go-"+text, "") }

func (s *site) began(text string) {
	s.t.Helper()
	s.until("the test of "+text+" runs", func() bool { _, err := os.Stat(s.path("began-" + text)); return err == nil })
}

func (s *site) hold(word, reason string) {
	s.t.Helper()
	if _, err := s.client.Hold(s.t.Context(), word, "shop", reason); err != nil {
		s.t.Fatal(err)
	}
}

func zeros() string { return strings.Repeat("0", 40) }

func forced(p map[string]any) { p["forced"] = true }

func TestOfTwentyPushesAtOnceTheNewestIsLive(t *testing.T) {
	for _, order := range []string{"in order", "at once", "the other way round", "in any order"} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.start(s.config(""))
			s.want(s.push("zero"), "succeeded")
			const n = 20
			commits := []string{s.last}
			for i := range n {
				commits = append(commits, s.commit(fmt.Sprint("n", i)))
			}
			places := rand.Perm(n)
			for i := range places {
				switch order {
				case "in order", "at once":
					places[i] = i
				case "the other way round":
					places[i] = n - 1 - i
				}
			}
			runs := make([]int64, n)
			var all sync.WaitGroup
			var mu sync.Mutex
			for _, i := range places {
				send := func() {
					a := s.sendAs(fmt.Sprint("push-", i), commits[i], commits[i+1])
					mu.Lock()
					defer mu.Unlock()
					if a.status != 202 || len(a.Runs) != 1 {
						t.Errorf("push %d was answered %+v", i, a)
						return
					}
					runs[i] = a.Runs[0]
				}
				if order == "in order" || order == "the other way round" {
					send()
				} else {
					all.Go(send)
				}
			}
			all.Wait()
			if t.Failed() {
				return
			}
			s.want(runs[n-1], "succeeded")
			for i, id := range runs[:n-1] {
				r := s.ended(id)
				switch {
				case r.State == "succeeded": // it was first, and the newer one went over it
				case r.State == "canceled" && strings.HasPrefix(why(r), "superseded by run "):
				case r.State == "canceled" && strings.HasPrefix(why(r), "already live in "):
				default:
					t.Errorf("run %d of push %d is %s: %s", id, i, r.State, why(r))
				}
			}
			s.wantLive(fmt.Sprint("n", n-1))
		})
	}
}

func TestOlderPushThatTestsLongerNeverEndsOverTheNewer(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.gated(""))
	old := s.push("old")
	s.began("old")
	young := s.push("new")
	s.began("new")
	s.pass("new")
	s.want(young, "succeeded")
	s.wantLive("new")
	s.pass("old")
	s.want(old, "canceled")
	j := s.job(old, "deploy")
	if want := fmt.Sprintf("superseded by run %d; retry %d brings it back", young, old); text(j.Cause) != want {
		t.Errorf("the older deploy's cause is %q, want %q", text(j.Cause), want)
	}
	s.wantLive("new")
}

func TestQueuedRunsEndWhenTheLaneGoesOn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(strings.Replace(s.gated(""), "shutdown_grace", "workers: 1, shutdown_grace", 1))
	first := s.push("first")
	s.began("first")
	second := s.push("second") // the only worker is busy: nothing of it has started
	s.untilJob(second, "test", "queued")
	third := s.push("third")
	r := s.want(second, "canceled")
	if want := fmt.Sprintf("superseded by run %d; retry %d brings it back", third, second); why(r) != want {
		t.Errorf("the cause is %q, want %q", why(r), want)
	}
	for _, j := range r.Jobs {
		if j.State != "canceled" || text(j.Cause) != why(r) {
			t.Errorf("job %s is %s: %q", j.Name, j.State, text(j.Cause))
		}
	}
	// The one that had started goes on.
	if j := s.job(first, "test"); j.State != "running" {
		t.Errorf("the first one's test is %s", j.State)
	}
	s.pass("first")
	s.pass("second")
	s.pass("third")
	s.want(first, "succeeded")
	s.want(third, "succeeded")
	s.wantLive("third")
	if _, err := s.client.Retry(t.Context(), second, false); err == nil || !strings.Contains(err.Error(), "already live in") || !strings.Contains(err.Error(), "--force") {
		t.Errorf("a retry of the superseded one, which third contains: %v", err)
	}
}

func TestSupersedingStaysInsideItsLane(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(strings.Replace(s.gated(""), "branches: [main]", "branches: [main, other]", 1))
	s.pass("zero")
	s.want(s.push("zero"), "succeeded")
	main := s.push("main")
	s.began("main")
	s.git("-C", s.repo(), "checkout", "-q", "-b", "other")
	commit := s.commit("other")
	other := s.send(zeros(), commit, func(p map[string]any) { p["ref"] = "refs/heads/other" }).Runs[0]
	s.began("other")
	s.pass("other")
	s.want(other, "succeeded")
	if j := s.job(main, "deploy"); j.State != "queued" {
		t.Errorf("the deploy of another branch ended it: %s %q", j.State, text(j.Cause))
	}
	s.pass("main")
	// It is an ancestor of what is live at the same path.
	if r := s.want(main, "canceled"); !strings.HasPrefix(why(r), "already live in ") {
		t.Errorf("the cause is %q", why(r))
	}
}

func TestQueueAllDeploysEachInItsOrder(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(strings.Replace(s.gated("        restart: cat index.txt >> "+s.path("order")), "    jobs:", "    concurrency: { queue: all }\n    jobs:", 1))
	var runs []int64
	for _, text := range []string{"a", "b", "c"} {
		runs = append(runs, s.push(text))
		s.began(text)
	}
	s.pass("c")
	s.pass("b")
	s.until("the last one waits for the first", func() bool {
		return text(s.job(runs[2], "deploy").WaitingFor) == fmt.Sprintf("run %d, which is before it", runs[0])
	})
	s.pass("a")
	for _, id := range runs {
		s.want(id, "succeeded")
	}
	if got := s.file("order"); got != "a\nb\nc" {
		t.Errorf("the order is %q", got)
	}
}

func TestWaitersSayWhoHoldsTheGroup(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(`
      deploy:
        concurrency: { group: machine }
        release: `+s.path("srv")+`
        steps: [ { run: 'cp index.txt built.txt; `+s.gate("go")+`' } ]
`) + `
  pay:
    on: { hook: { name: webhook } }
    jobs:
      enable: { concurrency: { group: machine }, steps: [ { run: "true" } ] }
`)
	id := s.push("one")
	s.untilJob(id, "deploy", "running")
	cmd := trigger("", "", false)
	cmd.Pipeline = "pay"
	pay, err := s.client.Trigger(t.Context(), cmd)
	if err != nil {
		t.Fatal(err)
	}
	s.until("the other pipeline waits", func() bool {
		r, err := s.client.Run(t.Context(), pay)
		return err == nil && r.State == "waiting" && text(r.WaitingFor) == fmt.Sprintf("run %d job deploy holds group machine", id) &&
			text(r.Jobs[0].WaitingFor) == text(r.WaitingFor)
	})
	next := s.push("two")
	s.until("the next push waits", func() bool {
		return text(s.job(next, "deploy").WaitingFor) == fmt.Sprintf("run %d job deploy holds group machine", id)
	})
	s.write("go", "")
	s.want(id, "succeeded")
	r := s.want(pay, "succeeded")
	s.want(next, "succeeded")
	if r.WaitingFor != nil || r.Jobs[0].WaitingFor != nil {
		t.Errorf("the run has ended and waits for %v", r.WaitingFor)
	}
	s.wantLive("two")
}

func TestRefSetBackOnPurposeGoesBackWhileItPointsThere(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.gated(""))
	s.pass("first")
	firstRun := s.push("first")
	s.want(firstRun, "succeeded")
	first := s.last
	// second is being tested when main is forced back to first: first's own
	// run again, and second must end.
	second := s.push("second")
	s.began("second")
	tip := s.last
	s.git("-C", s.repo(), "reset", "-q", "--hard", first)
	back := s.send(tip, first, forced).Runs[0]
	s.hold("lock", "")
	s.pass("second")
	s.until("both wait", func() bool {
		return s.job(second, "deploy").WaitingFor != nil && s.job(back, "deploy").WaitingFor != nil
	})
	s.hold("unlock", "")
	s.want(back, "succeeded")
	if r := s.want(second, "canceled"); why(r) != fmt.Sprintf("superseded by run %d; retry %d brings it back", back, second) {
		t.Errorf("the cause is %q", why(r))
	}
	s.wantLive("first")
	// second again, by name; then main is forced back and moves on before that run begins.
	s.git("-C", s.repo(), "reset", "-q", "--hard", tip)
	s.want(s.send(first, tip).Runs[0], "succeeded")
	s.wantLive("second")
	s.hold("hold", "")
	late := s.send(tip, first, forced).Runs[0] // the remote does not point there
	s.hold("unhold", "")
	if r := s.want(late, "canceled"); !strings.HasPrefix(why(r), "already live in ") {
		t.Errorf("a forced push whose ref has moved on: %q", why(r))
	}
	// And where the branch is gone meanwhile.
	s.git("-C", s.repo(), "checkout", "-q", "--detach")
	s.git("-C", s.repo(), "branch", "-q", "-D", "main")
	gone := s.send(zeros(), first, func(p map[string]any) { p["created"] = true }).Runs[0]
	if r := s.want(gone, "canceled"); !strings.HasPrefix(why(r), "already live in ") {
		t.Errorf("a ref made anew and gone: %q", why(r))
	}
	s.wantLive("second")
}

func TestDeliveryThatComesLateNeverGoesOverADivergedNewerOne(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(""))
	s.want(s.push("base"), "succeeded")
	base := s.last
	a := s.commit("a")
	s.git("-C", s.repo(), "reset", "-q", "--hard", base)
	b := s.commit("b")
	// main went base > a, and was forced to b; the delivery of a comes last.
	s.want(s.send(a, b, forced).Runs[0], "succeeded")
	s.wantLive("b")
	late := s.send(base, a)
	if r := s.want(late.Runs[0], "canceled"); !strings.HasPrefix(why(r), "superseded by run ") || !strings.Contains(why(r), "comes after it in line") {
		t.Errorf("the late one: %q", why(r))
	}
	s.wantLive("b")
	// A retry keeps the place of its original, but for --force.
	again, err := s.client.Retry(t.Context(), late.Runs[0], false)
	if err == nil {
		if r := s.want(again, "canceled"); !strings.Contains(why(r), "comes after it in line") {
			t.Errorf("the retry: %q", why(r))
		}
	}
	again, err = s.client.Retry(t.Context(), late.Runs[0], true)
	if err != nil {
		t.Fatal(err)
	}
	r := s.want(again, "succeeded")
	if r.RetryOf == nil || *r.RetryOf != late.Runs[0] {
		t.Errorf("the retry names %v", r.RetryOf)
	}
	s.wantLive("a")
}

func TestShortHistoryStillTellsWhichCommitIsOlder(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(strings.Replace(strings.Replace(s.gated(""), "clone_url: "+s.repo(), "clone_url: "+s.serveGit(), 1), "    on: { push", "    depth: 1\n    on: { push", 1))
	s.pass("base")
	s.want(s.push("base"), "succeeded")
	old := s.push("old")
	s.began("old")
	s.hold("lock", "")
	s.pass("old")
	s.until("the older one waits", func() bool { return s.job(old, "deploy").WaitingFor != nil })
	s.commit("between") // is never fetched: the history has a gap
	young := s.push("new")
	s.pass("new")
	s.until("the newer one waits", func() bool { return s.job(young, "deploy").WaitingFor != nil })
	s.hold("unlock", "")
	s.want(young, "succeeded")
	if r := s.want(old, "canceled"); !strings.HasPrefix(why(r), "superseded by run ") {
		t.Errorf("the older one: %q", why(r))
	}
	// One that comes late, and stands before what is live by its commits alone.
	middle := s.commit("middle")
	s.commit("another between")
	last := s.commit("last")
	s.pass("middle")
	s.pass("last")
	s.want(s.send(middle, last).Runs[0], "succeeded")
	s.wantLive("last")
	late := s.send(s.last, middle)
	if r := s.want(late.Runs[0], "canceled"); !strings.HasPrefix(why(r), "already live in ") {
		t.Errorf("the late one: %q", why(r))
	}
	s.wantLive("last")
}

func TestWhereACommitIsLostTheOrderOfTheDeliveriesDecidesAndTheLogSaysSo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	config := s.gated("")
	s.start(config)
	s.pass("base")
	s.want(s.push("base"), "succeeded")
	base := s.last
	old := s.push("old")
	s.began("old")
	s.hold("lock", "")
	s.pass("old")
	s.until("the older one waits", func() bool { return s.job(old, "deploy").WaitingFor != nil })
	s.stop()
	// Nobody has the older commit any more.
	if err := os.RemoveAll(s.path("data/git")); err != nil {
		t.Fatal(err)
	}
	s.git("-C", s.repo(), "reset", "-q", "--hard", base)
	s.git("-C", s.repo(), "reflog", "expire", "--expire=now", "--all")
	s.git("-C", s.repo(), "gc", "-q", "--prune=now")
	s.start(config)
	young := s.push("new")
	s.pass("new")
	s.until("the newer one waits", func() bool { return s.job(young, "deploy").WaitingFor != nil })
	s.hold("unlock", "")
	s.want(young, "succeeded")
	s.wantLive("new")
	if r := s.want(old, "canceled"); !strings.HasPrefix(why(r), "superseded by run ") {
		t.Errorf("the older one: %q", why(r))
	}
	want := fmt.Sprintf("git cannot tell whether run %d is older: the order of the deliveries decides", old)
	if log := s.logOf(young); !strings.Contains(log, want) {
		t.Errorf("the log does not say %q:\n%s", want, log)
	}
}

func TestLateNewerCommitThatIsStillTestedStaysInLine(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.gated(""))
	s.pass("base")
	s.want(s.push("base"), "succeeded")
	first := s.commit("first")
	second := s.commit("second")
	// second's delivery comes first, and nothing in the deliveries says that
	// first stands before it; git knows.
	newer := s.send(strings.Repeat("e", 40), second).Runs[0]
	s.began("second")
	older := s.send(strings.Repeat("d", 40), first).Runs[0]
	s.pass("first")
	s.want(older, "succeeded")
	s.wantLive("first")
	s.pass("second")
	s.want(newer, "succeeded")
	s.wantLive("second")
}

func TestTwoPipelinesOfOnePathShareItsLock(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	job := func(name string) string {
		return `
      ` + name + `:
        release: ` + s.path("srv") + `
        concurrency: { group: ` + name + ` }
        steps: [ { run: 'cp index.txt built.txt; mkdir ` + s.path("busy") + ` && sleep 0.1 && rmdir ` + s.path("busy") + `' } ]
`
	}
	s.start(s.config(job("one")) + `
  second:
    repository: github.com/acme/shop
    clone_url: ` + s.repo() + `
    hook: github
    on: { push: { branches: [main] } }
    jobs:` + job("two"))
	for i := range 3 {
		before := s.last
		if before == "" {
			before = zeros()
		}
		s.last = s.commit(fmt.Sprint("n", i))
		a := s.send(before, s.last)
		if len(a.Runs) != 2 {
			t.Fatalf("the push was answered %+v", a)
		}
		for _, id := range a.Runs {
			s.want(id, "succeeded")
		}
	}
	if list, _ := filepath.Glob(s.path("srv/releases/*")); len(list) < 5 {
		t.Errorf("the releases are %v", list)
	}
}

// sendAs sends a push under a delivery id of its own; it may be called from
// several goroutines.
func (s *site) sendAs(id, before, after string) answer {
	p := map[string]any{
		"ref": "refs/heads/main", "before": before, "after": after,
		"repository":  map[string]any{"html_url": "https://github.com/acme/shop"},
		"sender":      map[string]any{"login": "alice"},
		"head_commit": map[string]any{"id": after, "message": "change"},
		"commits":     []any{map[string]any{"id": after, "modified": []string{"index.txt"}}},
	}
	body, err := json.Marshal(p)
	if err != nil {
		return answer{}
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	req, err := http.NewRequest(http.MethodPost, "http://"+s.addr+"/hooks/github", bytes.NewReader(body))
	if err != nil {
		return answer{}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-GitHub-Event", "push")
	req.Header.Set("X-GitHub-Delivery", id)
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	res, err := http.DefaultClient.Do(req)
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

// serveGit serves the repository over HTTP, as a forge does, and gives its
// address. It stalls while the file "stall" is there.
func (s *site) serveGit() string {
	s.t.Helper()
	s.git("-C", s.repo(), "config", "uploadpack.allowAnySHA1InWant", "true")
	backend := &cgi.Handler{
		Path: filepath.Join(s.git("--exec-path"), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + s.dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "PATH=" + os.Getenv("PATH")},
	}
	over := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.exists("stall") {
			s.write("stalled", "")
			<-over
			return
		}
		backend.ServeHTTP(w, r)
	}))
	s.t.Cleanup(srv.Close)
	s.t.Cleanup(func() { close(over) })
	return srv.URL + "/repo/.git"
}
