package daemon_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
)

func TestManyPipelinesRunSideBySideWithinTheWorkers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := os.Mkdir(s.path("at"), 0o755); err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(s.config(""), "shutdown_grace", "workers: 3, shutdown_grace", 1)
	const pipelines, each = 6, 5
	for i := range pipelines {
		// A step notes how many run with it, and waits until it has seen three
		// at once or somebody has.
		config += fmt.Sprintf(`
  p%d:
    on: { hook: { name: webhook } }
    jobs:
      work:
        steps: [ { run: 'cd %s; touch $DEPLOYHOOK_RUN_ID; ls | wc -l >> %s; until test $(sort -n %s | tail -1) -ge 3; do ls | wc -l >> %s; sleep 0.02; done; rm $DEPLOYHOOK_RUN_ID' } ]
`, i, s.path("at"), s.path("seen"), s.path("seen"), s.path("seen"))
	}
	s.start(config)
	var mu sync.Mutex
	var runs []int64
	var all sync.WaitGroup
	for i := range pipelines {
		for range each {
			all.Go(func() {
				c := trigger("", "", false)
				c.Pipeline = fmt.Sprint("p", i)
				id, err := s.client.Trigger(t.Context(), c)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Errorf("trigger: %v", err)
				}
				runs = append(runs, id)
			})
		}
	}
	all.Wait()
	for _, id := range runs {
		s.want(id, "succeeded")
	}
	most := 0
	for line := range strings.Lines(s.file("seen") + "\n") {
		n := 0
		_, _ = fmt.Sscan(line, &n)
		most = max(most, n)
	}
	if most != 3 {
		t.Errorf("%d jobs ran at once, want the 3 of workers", most)
	}
}

func TestDeploysOfOneJobGoOneByOneByThemselves(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(strings.Replace(s.gated("        restart: 'mkdir "+s.path("busy")+" && sleep 0.05 && rmdir "+s.path("busy")+"'\n"), "branches: [main]", "branches: ['**']", 1))
	var runs []int64
	before := zeros()
	for i := range 4 {
		text := fmt.Sprint("n", i)
		commit := s.commit(text)
		runs = append(runs, s.send(before, commit, func(p map[string]any) { p["ref"] = "refs/heads/" + text }).Runs[0])
		s.pass(text)
	}
	for _, id := range runs {
		if r := s.ended(id); r.State != "succeeded" && !strings.HasPrefix(why(r), "already live in ") {
			t.Errorf("run %d is %s: %s", id, r.State, why(r))
		}
	}
	s.wantLive("n3")
}

func TestEventWithoutACommitTakesTheBranchAsItIsThen(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(strings.Replace(strings.Replace(s.gated(""), "    hook: github\n", "    branch: dev\n", 1), "on: { push: { branches: [main] } }", "on: { hook: { name: webhook, if: 'payload.go == true' } }", 1))
	s.commit("main")
	s.git("-C", s.repo(), "checkout", "-q", "-b", "dev")
	commit := s.commit("dev")
	id, err := s.client.Trigger(t.Context(), trigger("", "", false))
	if err != nil {
		t.Fatal(err)
	}
	s.began("dev")
	s.commit("later") // the branch moves on while the test runs
	s.pass("dev")
	r := s.want(id, "succeeded")
	if text(r.Commit) != commit || text(r.Ref) != "refs/heads/dev" {
		t.Errorf("the run is of %s at %s, want %s", text(r.Commit), text(r.Ref), commit)
	}
	s.wantLive("dev")
	s.pass("later")
	if status := s.payload(`{"go":false}`); status != 200 {
		t.Errorf("a payload that nothing wants was answered %d", status)
	}
	if status := s.payload(`{"go":true}`); status != 202 {
		t.Errorf("a payload was answered %d", status)
	}
	s.until("the branch's newest commit is live", func() bool { return s.file("srv/current/built.txt") == "later" })
}

// payload sends JSON to the hook webhook.
func (s *site) payload(body string) int {
	s.t.Helper()
	res, err := http.Post("http://"+s.addr+"/hooks/webhook?token="+secret, "application/json", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}
