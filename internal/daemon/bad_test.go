package daemon_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// simple is a pipeline of one deploy job, and of these test steps.
func (s *site) simple(steps string) string {
	return s.config(`
      test:
        steps:` + steps + `
      deploy: { release: ` + s.path("srv") + `, steps: [ { run: "cp index.txt built.txt" } ] }
`)
}

func TestStepsDoWhatTheirKeysSay(t *testing.T) {
	s := newSite(t)
	s.start(s.config(`
      test:
        env: { A: job, B: "1.10" }
        path: [` + s.path("bin") + `]
        steps:
          - { name: env, run: 'test "$A $B $C" = "step 1.10 0644"', env: { A: step, C: 0644 } }
          - { name: again, run: 'echo try; test -e ` + s.path("second") + ` || { touch ` + s.path("second") + `; exit 1; }', retry: { limit: 2, delay: 10ms } }
          - { name: may fail, run: exit 3, continue_on_error: true }
          - { name: never, run: exit 1, if: 'branch == "docs"' }
          - { name: below, run: 'test -e x.txt', working_dir: sub }
          - { name: other shell, run: 'BEGIN { exit 0 }', shell: 'awk -f {0}' }
          - { name: in path, run: tool }
          - { name: no stdin, run: 'read -r x || echo no input' }
      deploy: { release: ` + s.path("srv") + `, steps: [ { run: "cp index.txt built.txt" } ] }
`))
	if err := os.MkdirAll(filepath.Join(s.repo(), "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.repo(), "sub", "x.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(s.path("bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path("bin/tool"), []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	id := s.push("one")
	r := s.want(id, "succeeded")
	states := ""
	for _, st := range r.Jobs[0].Hosts[0].Steps {
		states += st.Name + " " + st.State + "\n"
	}
	want := "env succeeded\nagain succeeded\nmay fail failed\nnever skipped\nbelow succeeded\nother shell succeeded\nin path succeeded\nno stdin succeeded\n"
	if states != want {
		t.Errorf("the steps are\n%s\nwant\n%s", states, want)
	}
	if text := s.logOf(id); !strings.Contains(text, "try 2 of 3") || !strings.Contains(text, "no input") {
		t.Errorf("the log is\n%s", text)
	}
}

func TestFailuresAreOneSentenceOnTheRun(t *testing.T) {
	for name, tt := range map[string]struct{ step, want string }{
		"unknown command": {"no-such-command", "exit status 127: a command was not found; PATH is /"},
		"killed":          {"kill -KILL $$", "ended by SIGKILL"},
		"timeout":         {"sleep 1000", "timed out after 300ms"},
		"kills its agent": {"kill -KILL $PPID; sleep 1000", "the agent ended"},
		"stops its agent": {"kill -STOP $PPID; kill -KILL $PPID; sleep 1000", "the agent ended"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			limit := "5m"
			if name == "timeout" {
				limit = "300ms"
			}
			s.start(s.simple("\n          - { name: bad, run: '" + tt.step + "', timeout: " + limit + " }"))
			r := s.want(s.push("one"), "failed")
			if !strings.HasPrefix(why(r), "job test: step bad: ") || !strings.Contains(why(r), tt.want) || strings.Contains(why(r), "\n") {
				t.Errorf("the error is %q, want %q", why(r), tt.want)
			}
			if _, err := os.Lstat(s.current()); !os.IsNotExist(err) {
				t.Error("something was deployed")
			}
		})
	}
}

func TestBackgroundChildDoesNotKeepAStep(t *testing.T) {
	s := newSite(t)
	s.start(s.simple("\n          - { run: 'sleep 1000 & echo $! > " + s.path("pid") + "' }"))
	id := s.push("one")
	s.want(id, "succeeded")
	if text := s.logOf(id); !strings.Contains(text, "ended what the step left running: ") {
		t.Errorf("the log does not name it:\n%s", text)
	}
	b, err := os.ReadFile(s.path("pid"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/" + strings.TrimSpace(string(b))); !os.IsNotExist(err) {
		t.Error("it still runs")
	}
}

func TestGitServersThatFailFailTheRunOnce(t *testing.T) {
	for status, want := range map[int]string{401: "asks for a login (401)", 404: "not found (404)", 500: "the server answered 500"} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		s := newSite(t)
		s.start(strings.Replace(s.config(""), "clone_url: "+s.repo(), "clone_url: "+srv.URL+"/r.git", 1))
		r := s.want(s.push("one"), "failed")
		if !strings.Contains(why(r), "job test: fetching github.com/acme/shop: "+want[:3]) && !strings.Contains(why(r), want) {
			t.Errorf("%d: %q, want %q", status, why(r), want)
		}
		s.stop()
		srv.Close()
	}
}

func TestReleasePathsThatCannotBeUsed(t *testing.T) {
	for name, tt := range map[string]struct {
		make func(s *site) error
		want string
	}{
		"current is a directory": {func(s *site) error { return os.MkdirAll(s.current(), 0o755) }, "is a directory, not a link to a release: move it away first"},
		"the path is a file":     {func(s *site) error { return os.WriteFile(s.path("srv"), nil, 0o644) }, "srv"},
		"another daemon's switch": {func(s *site) error {
			if err := os.MkdirAll(s.path("srv/.deployhook"), 0o755); err != nil {
				return err
			}
			return os.WriteFile(s.path("srv/.deployhook/intent.json"), []byte(`{"format":1,"daemon":"other","run":1,"job":"x","attempt":1,"from":null,"to":"releases/20260401T101500Z-3f2c1ab","phase":"switching"}`), 0o644)
		}, "another deployhook left an unfinished switch here"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			if err := tt.make(s); err != nil {
				t.Fatal(err)
			}
			s.start(s.config(""))
			id := s.push("one")
			r := s.ended(id)
			if r.State != "failed" && r.State != "lost" || !strings.Contains(why(r), tt.want) || strings.Contains(why(r), "\n") {
				t.Errorf("the run is %s: %q, want %q", r.State, why(r), tt.want)
			}
		})
	}
}

func TestFullDisksFailOneDeployAndNotTheNext(t *testing.T) {
	rooted(t)
	s := newSite(t)
	if err := os.MkdirAll(s.path("srv"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", s.path("srv"), "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(s.path("srv"), syscall.MNT_DETACH) })
	s.start(s.config(""))
	r := s.want(s.push("one"), "failed")
	if !strings.Contains(why(r), "no space left in "+s.path("srv")+": the release needs") {
		t.Errorf("the error is %q", why(r))
	}
	if list, _ := filepath.Glob(s.path("srv/releases/*")); len(list) > 0 {
		t.Errorf("%v is left behind", list)
	}
	if err := syscall.Mount("tmpfs", s.path("srv"), "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	s.want(s.push("two"), "succeeded")
	s.wantLive("two")
}

func TestStopLetsJobsEndAndTheRestGoOn(t *testing.T) {
	s := newSite(t)
	config := s.simple("\n          - { run: 'echo $$ > " + s.path("pid") + "; sleep 0.7' }")
	s.start(config)
	id := s.push("one")
	s.until("the step runs", func() bool { _, err := os.Stat(s.path("pid")); return err == nil })
	s.stop() // within the grace of 2 s the test job ends, and no other begins
	s.start(config)
	r := s.want(id, "succeeded")
	if r.Jobs[0].Attempt != 1 {
		t.Errorf("the test job took %d attempts: it was not let end", r.Jobs[0].Attempt)
	}
	s.stop()
	config = s.simple("\n          - { run: 'test -e " + s.path("go") + " || sleep 1000' }")
	s.start(config)
	id = s.push("two")
	s.until("the step runs", func() bool {
		r, err := s.client.Run(t.Context(), id)
		return err == nil && len(r.Jobs[0].Hosts[0].Steps) == 1
	})
	s.stop() // longer than the grace: started again
	if err := os.WriteFile(s.path("go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s.start(config)
	if r := s.want(id, "succeeded"); r.Jobs[0].Attempt != 2 {
		t.Errorf("the test job took %d attempts", r.Jobs[0].Attempt)
	}
	s.wantLive("two")
}

func TestDaemonThatCannotStartSaysWhy(t *testing.T) {
	s := newSite(t)
	s.start(s.config(""))
	run := func(config string, env ...string) string {
		file := s.path("other.yaml")
		if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe", "serve", file)
		cmd.Env = append(os.Environ(), append([]string{"TEST_SECRET=" + secret}, env...)...)
		done := make(chan string, 1)
		go func() { out, _ := cmd.CombinedOutput(); done <- string(out) }()
		select {
		case out := <-done:
			return out
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			t.Fatal("it started")
			return ""
		}
	}
	other := func(old, new string) string { return strings.Replace(s.config(""), old, new, 1) }
	for name, tt := range map[string]struct{ out, want string }{
		"the same data":   {run(s.config("")), fmt.Sprintf("another deployhook (pid %d) uses the data directory", s.cmd.Process.Pid)},
		"the same port":   {run(other("data: "+s.path("data"), "data: "+s.path("data2"))), "listening on " + s.addr + ": "},
		"a short secret":  {run(s.config(""), "TEST_SECRET=short"), "it has 5 characters, and 16 are the least"},
		"an empty secret": {run(s.config(""), "TEST_SECRET="), "hooks.github.secret: "},
	} {
		if !strings.Contains(tt.out, tt.want) {
			t.Errorf("%s: %q, want %q", name, tt.out, tt.want)
		}
		if strings.Contains(tt.out, secret) {
			t.Errorf("%s: the output tells the secret", name)
		}
	}
	if got := s.push("one"); got != 1 {
		t.Errorf("the first daemon is disturbed: run %d", got)
	}
}

func TestHeldPipelineWaitsAndGoesOn(t *testing.T) {
	s := newSite(t)
	s.start(s.config(""))
	if _, err := s.client.Hold(t.Context(), "hold", "shop", "moving"); err != nil {
		t.Fatal(err)
	}
	id := s.push("one")
	r, err := s.client.Run(t.Context(), id)
	if err != nil || r.State != "waiting" || !strings.HasSuffix(*r.WaitingFor, ": moving") {
		t.Errorf("the run is %+v, %v", r, err)
	}
	if _, err := s.client.Hold(t.Context(), "hold", "shop", "again"); err == nil || !strings.Contains(err.Error(), "moving") {
		t.Errorf("a second hold: %v", err)
	}
	s.stop()
	s.start(s.config("")) // a hold survives a restart
	if r, err := s.client.Run(t.Context(), id); err != nil || r.State != "waiting" {
		t.Errorf("after a restart the run is %+v, %v", r, err)
	}
	if _, err := s.client.Hold(t.Context(), "unhold", "shop", ""); err != nil {
		t.Fatal(err)
	}
	s.want(id, "succeeded")
}

func TestTriggerTakesABranchOrACommit(t *testing.T) {
	s := newSite(t)
	s.start(s.config(""))
	first := s.commit("one")
	s.commit("two")
	for _, tt := range []struct{ branch, sha, live, want string }{
		{"main", "", "two", "succeeded"},
		{"", "", "two", "succeeded"},
		{"none", "", "two", "failed"},
	} {
		id, err := s.client.Trigger(t.Context(), trigger(tt.branch, tt.sha, false))
		if err != nil {
			t.Fatal(err)
		}
		s.want(id, tt.want)
		s.wantLive(tt.live)
	}
	if _, err := s.client.Trigger(t.Context(), trigger("", first, false)); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("an older commit without --force: %v", err)
	}
	id, err := s.client.Trigger(t.Context(), trigger("", first, true))
	if err != nil {
		t.Fatal(err)
	}
	s.want(id, "succeeded")
	s.wantLive("one")
	if _, err := s.client.Trigger(t.Context(), trigger("", "abc", false)); err == nil || !strings.Contains(err.Error(), "40 hexadecimal digits") {
		t.Errorf("half a commit: %v", err)
	}
}

func TestPathsThatThePayloadCutAreDecidedByTheDiff(t *testing.T) {
	s := newSite(t)
	s.start(strings.Replace(s.config(""), "branches: [main]", "branches: [main], paths: [index.txt]", 1))
	first := s.commit("one")
	if err := os.WriteFile(filepath.Join(s.repo(), "other.txt"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.git("-C", s.repo(), "add", "-A")
	s.git("-C", s.repo(), "commit", "-q", "-m", "other")
	other := s.git("-C", s.repo(), "rev-parse", "HEAD")
	third := s.commit("three")
	cut := func(p map[string]any) { p["commits"] = []any{} }
	a := s.send(first, other, cut)
	if r := s.want(a.Runs[0], "skipped"); !strings.Contains(why(r), "no changed path") {
		t.Errorf("only another file has changed: %q", why(r))
	}
	b := s.send(other, third, cut)
	s.want(b.Runs[0], "succeeded")
	s.wantLive("three")
}
