package daemon_test

import (
	"os"
	"strings"
	"testing"
)

// kill ends the daemon as a power cut would.
func (s *site) kill() {
	s.t.Helper()
	_ = s.cmd.Process.Kill()
	s.died()
}

func TestOnCrashSaysWhatBecomesOfACutJob(t *testing.T) {
	for _, end := range []string{"kill", "stop"} {
		for _, policy := range []string{"rerun", "stop"} {
			t.Run(end+", on_crash "+policy, func(t *testing.T) {
				t.Parallel()
				s := newSite(t)
				config := s.config(`
      test:
        on_crash: ` + policy + `
        steps:
          - { name: before, run: "true" }
          - { name: cut, run: 'echo x >> ` + s.path("tries") + `; ` + s.gate("go") + `' }
      deploy: { release: ` + s.path("srv") + `, steps: [ { run: "cp index.txt built.txt" } ] }
`)
				s.start(config)
				id := s.push("one")
				s.until("the step runs", func() bool {
					r, err := s.client.Run(t.Context(), id)
					// Its record is written beside it.
					return err == nil && s.file("tries") == "x" && len(r.Jobs[0].Hosts) > 0 && len(r.Jobs[0].Hosts[0].Steps) == 2
				})
				if end == "kill" {
					s.kill()
				} else {
					s.stop() // the step is longer than the grace
				}
				s.write("go", "")
				s.start(config)
				if policy == "rerun" {
					r := s.want(id, "succeeded")
					if r.Jobs[0].Attempt != 2 || s.file("tries") != "x\nx" || len(r.Jobs[0].Hosts[0].Steps) != 2 {
						t.Errorf("the job took %d attempts: %+v", r.Jobs[0].Attempt, r.Jobs[0].Hosts)
					}
					s.wantLive("one")
					return
				}
				r := s.want(id, "lost")
				j := r.Jobs[0]
				if j.State != "lost" || !strings.Contains(text(j.Error), "on_crash is stop") || why(r) != "job test: "+text(j.Error) {
					t.Errorf("the job is %s: %q, the run says %q", j.State, text(j.Error), why(r))
				}
				if d := r.Jobs[1]; d.State != "skipped" || text(d.Cause) != "job test is lost" {
					t.Errorf("the deploy job is %s: %q", d.State, text(d.Cause))
				}
				st := j.Hosts[0].Steps[1]
				switch {
				case end == "kill" && (st.State != "lost" || text(st.Error) == "" || st.Ended == nil):
					t.Errorf("the step is %+v", st)
				case end == "stop" && st.State != "canceled":
					t.Errorf("the step is %+v", st)
				}
				if s.exists("srv/current") || s.file("tries") != "x" {
					t.Error("it went on")
				}
				again, err := s.client.Retry(t.Context(), id, false)
				if err != nil {
					t.Fatal(err)
				}
				s.want(again, "succeeded")
			})
		}
	}
}

func TestCutDeployWithOnCrashStopKeepsItsPath(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	config := s.config(`
      deploy:
        on_crash: stop
        release: ` + s.path("srv") + `
        steps: [ { run: 'cp index.txt built.txt; if grep -q slow index.txt; then touch ` + s.path("cut") + `; sleep 1000; fi' } ]
`)
	s.start(config)
	s.want(s.push("one"), "succeeded")
	id := s.push("slow")
	s.until("the step runs", func() bool { return s.exists("cut") })
	s.kill()
	s.start(config)
	r := s.want(id, "lost")
	command := "deployhook unlock local:" + s.path("srv") + " --abandon"
	if !strings.Contains(why(r), command) || !strings.Contains(why(r), "on_crash is stop") {
		t.Errorf("the error %q does not say how to go on", why(r))
	}
	s.wantLive("one")
	next := s.push("two")
	s.until("the next deploy says the same", func() bool { return strings.Contains(text(s.job(next, "deploy").WaitingFor), command) })
	s.stop()
	s.start(config) // it stays so
	s.until("the next deploy still waits", func() bool { return strings.Contains(text(s.job(next, "deploy").WaitingFor), command) })
	if _, err := s.client.Abandon(t.Context(), "local", s.path("srv")); err != nil {
		t.Fatal(err)
	}
	s.want(next, "succeeded")
	s.wantLive("two")
}

func TestStopDuringASwitchUndoesItAndBeginsAnew(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.slowSwitch())
	s.want(s.push("one"), "succeeded")
	id := s.push("slow")
	s.until("the deploy is past its switch", func() bool { return s.exists("switched") })
	s.stop() // longer than the grace
	s.wantLive("one")
	s.write("go", "")
	s.start(s.slowSwitch())
	if r := s.want(id, "succeeded"); r.Jobs[0].Attempt != 2 {
		t.Errorf("the deploy took %d attempts", r.Jobs[0].Attempt)
	}
	s.wantLive("slow")
}

func TestStopWithinItsGraceLetsASwitchEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	config := strings.Replace(s.slowSwitch(), "shutdown_grace: 2s", "shutdown_grace: 25s", 1)
	s.start(config)
	s.want(s.push("one"), "succeeded")
	id := s.push("slow")
	s.until("the deploy is past its switch", func() bool { return s.exists("switched") })
	waits := s.push("two") // not before: it would supersede what has not begun
	s.untilJob(waits, "deploy", "waiting")
	stopped := make(chan struct{})
	go func() { s.stop(); close(stopped) }()
	s.until("it drains", func() bool { return strings.Contains(s.log.String(), "msg=stopping") })
	if a := s.send(s.last, strings.Repeat("a", 40)); a.status != 503 {
		t.Errorf("a push while it drains was answered %+v", a)
	}
	s.write("go", "")
	<-stopped
	s.wantLive("slow") // and no other job has begun
	s.start(config)
	if r := s.want(id, "succeeded"); r.Jobs[0].Attempt != 1 {
		t.Errorf("the deploy took %d attempts", r.Jobs[0].Attempt)
	}
	s.want(waits, "succeeded")
	s.wantLive("two")
}

func TestAcceptedRunsKeepTheirConfigAlsoAfterARestart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	config := func(word string) string {
		return s.config(`
      test: { steps: [ { run: 'echo ` + word + `; ` + s.gate("go") + `' } ] }
      deploy:
        release: ` + s.path("srv") + `
        steps: [ { run: 'cp index.txt built.txt; echo ` + word + ` > word.txt' } ]
        restart: echo ` + word + `
`)
	}
	s.start(config("old"))
	s.hold("lock", "")
	id := s.push("one")
	s.untilJob(id, "test", "running")
	// Another config, by a reload and by a restart.
	s.write("deploy.yaml", config("new"))
	if _, err := s.client.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.write("go", "")
	s.untilJob(id, "deploy", "waiting")
	if got := s.printed(id, "test", ""); got != "old\n" {
		t.Errorf("the test printed %q", got)
	}
	s.stop()
	s.start(strings.Replace(config("newer"), "shop:", "shop2:", 1)) // its pipeline is even gone
	if _, err := s.client.Hold(t.Context(), "unlock", "shop", ""); err != nil {
		t.Fatal(err)
	}
	r := s.want(id, "succeeded")
	if got := s.printed(id, "deploy", "restart"); got != "old\n" || s.file("srv/current/word.txt") != "old" {
		t.Errorf("the deploy was of the config %q", got)
	}
	s.stop()
	s.start(config("last"))
	two := s.push("two")
	r2 := s.want(two, "succeeded")
	if text(&r.Config) == text(&r2.Config) || s.file("srv/current/word.txt") != "last" {
		t.Errorf("the configs are %v and %v", r.Config, r2.Config)
	}
	// A rollback's restart is today's; a retry is planned with today's config.
	s.stop()
	s.start(config("today"))
	back := s.back("")
	if got := s.printed(back.Run, "deploy", "restart"); got != "today\n" {
		t.Errorf("the rollback's restart printed %q", got)
	}
}

func TestActivationThatCannotWorkFailsOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(`
      deploy:
        release: ` + s.path("srv") + `
        steps: [ { run: 'cp index.txt built.txt; echo x >> ` + s.path("tries") + `; rm -f ` + s.current() + `; mkdir -p ` + s.current() + `' } ]
`))
	r := s.want(s.push("one"), "failed")
	if !strings.Contains(why(r), "is a directory, not a link to a release: move it away first") || strings.Contains(why(r), "\n") {
		t.Errorf("the error is %q", why(r))
	}
	if got := s.file("tries"); got != "x" {
		t.Errorf("the steps ran %d times", strings.Count(got, "x"))
	}
}

func TestUnfinishedSwitchThatCannotBeReachedSaysSoAndGoesOnWhenItComesBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(""))
	s.want(s.push("one"), "succeeded")
	s.stop()
	s.start(s.config(""), "LANG=both@linked")
	id := s.push("two")
	s.died()
	// The path is away: what is there cannot be opened.
	s.rename("srv", "away")
	s.write("srv", "not a directory")
	s.start(strings.Replace(s.config(""), "shutdown_grace", "workers: 1, shutdown_grace", 1) + `
  other:
    on: { hook: { name: webhook } }
    jobs: { one: { steps: [ { run: "true" } ] } }
`)
	next := s.push("three")
	s.until("the next deploy says what it waits for", func() bool {
		w := text(s.job(next, "deploy").WaitingFor)
		return strings.HasPrefix(w, "local: unfinished switch of run ") && strings.HasSuffix(w, "deployhook unlock local:"+s.path("srv")+" --abandon")
	})
	cmd := trigger("", "", false)
	cmd.Pipeline = "other" // nobody else waits for it
	other, err := s.client.Trigger(t.Context(), cmd)
	if err != nil {
		t.Fatal(err)
	}
	s.want(other, "succeeded")
	s.remove("srv")
	s.rename("away", "srv")
	s.want(id, "succeeded")
	s.want(next, "succeeded")
	s.wantLive("three")
}

func (s *site) rename(from, to string) {
	s.t.Helper()
	if err := os.Rename(s.path(from), s.path(to)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) remove(name string) {
	s.t.Helper()
	if err := os.Remove(s.path(name)); err != nil {
		s.t.Fatal(err)
	}
}

func TestStopWhileADiffIsFetchedLosesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	config := strings.Replace(s.config(`
      test: { steps: [ { run: "touch `+s.path("stall")+`" } ] }
      deploy: { if: 'changed("index.txt")', release: `+s.path("srv")+`, steps: [ { run: "cp index.txt built.txt" } ] }
`), "clone_url: "+s.repo(), "clone_url: "+s.serveGit(), 1)
	s.start(config)
	s.last = s.commit("one")
	id := s.send(strings.Repeat("e", 40), s.last).Runs[0] // what it was before must be asked for
	s.until("the server is asked and stalls", func() bool { return s.exists("stalled") })
	if j := s.job(id, "test"); j.State != "succeeded" {
		t.Errorf("the test job waits for the diff: it is %s", j.State)
	}
	s.stop()
	s.remove("stall")
	s.start(config)
	s.want(id, "succeeded")
	s.wantLive("one")
}

func TestStopWhileACommitIsAskedForLosesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	config := strings.Replace(s.config(""), "clone_url: "+s.repo(), "clone_url: "+s.serveGit(), 1)
	s.start(config)
	s.commit("one")
	s.write("stall", "")
	id, err := s.client.Trigger(t.Context(), trigger("main", "", false))
	if err != nil {
		t.Fatal(err)
	}
	s.until("the server is asked and stalls", func() bool { return s.exists("stalled") })
	s.stop()
	s.remove("stall")
	s.start(config)
	s.want(id, "succeeded")
	s.wantLive("one")
}
