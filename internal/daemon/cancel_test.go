package daemon_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func (s *site) cancel(id int64) {
	s.t.Helper()
	if _, err := s.client.Cancel(s.t.Context(), id); err != nil {
		s.t.Fatal(err)
	}
}

// exists says whether a file is there.
func (s *site) exists(name string) bool {
	_, err := os.Lstat(s.path(name))
	return err == nil
}

func TestCancelOfWhatHasNotBegunActsAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(strings.Replace(s.gated(""), "shutdown_grace", "workers: 1, shutdown_grace", 1))
	one := s.push("one")
	s.began("one")
	// Queued: the only worker is busy.
	queued, err := s.client.Trigger(t.Context(), trigger("main", "", false))
	if err != nil {
		t.Fatal(err)
	}
	s.until("the second run has its commit", func() bool {
		r, err := s.client.Run(t.Context(), queued)
		return err == nil && r.Commit != nil
	})
	s.cancel(queued)
	r := s.want(queued, "canceled")
	for _, j := range r.Jobs {
		if j.State != "canceled" || !strings.HasPrefix(text(j.Cause), "by ") || j.Attempt != 0 {
			t.Errorf("job %s: %+v", j.Name, j)
		}
	}
	if r.Started != nil || r.Ended == nil {
		t.Errorf("the run started %v and ended %v", r.Started, r.Ended)
	}
	// Waiting: the deploy job waits for a lock.
	s.hold("lock", "")
	s.pass("one")
	s.untilJob(one, "deploy", "waiting")
	s.cancel(one)
	r = s.want(one, "canceled")
	if r.Jobs[0].State != "succeeded" || r.Jobs[1].State != "canceled" || r.WaitingFor != nil || r.Jobs[1].WaitingFor != nil {
		t.Errorf("the run is %+v", r)
	}
	_, err = s.client.Cancel(t.Context(), one)
	refusal(t, err, fmt.Sprintf("run %d has ended: it is canceled", one))
	_, err = s.client.Cancel(t.Context(), 999)
	refusal(t, err, "run 999", "not found")
	_, err = s.client.Retry(t.Context(), 999, false)
	refusal(t, err, "run 999", "not found")
}

func TestStepThatIgnoresSIGTERMIsKilled(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.simple("\n          - { name: deaf, run: 'trap \"\" TERM; echo $$ > " + s.path("pid") + "; while true; do sleep 0.1; done' }"))
	id := s.push("one")
	s.until("the step runs", func() bool { return s.file("pid") != "" })
	began := time.Now()
	s.cancel(id)
	r := s.want(id, "canceled")
	if took := time.Since(began); took < 9*time.Second {
		t.Errorf("it was ended after %v: SIGTERM has 10 s", took)
	}
	st := r.Jobs[0].Hosts[0].Steps[0]
	if st.State != "canceled" || st.ExitCode != nil || text(st.Signal) != "SIGKILL" || !strings.HasPrefix(text(st.Error), "canceled by ") {
		t.Errorf("the step is %+v", st)
	}
	if _, err := os.Stat("/proc/" + s.file("pid")); !os.IsNotExist(err) {
		t.Errorf("it still runs: %v", err)
	}
}

func TestCancelHoldsThroughAKill(t *testing.T) {
	deaf := `if grep -q slow index.txt; then trap "" TERM; touch `
	for where, config := range map[string]func(s *site) string{
		"test": func(s *site) string {
			return `
      test: { steps: [ { run: '` + deaf + s.path("runs") + `; while true; do sleep 0.1; done; fi' } ] }
      deploy: { release: ` + s.path("srv") + `, steps: [ { run: "cp index.txt built.txt" } ] }
`
		},
		"deploy": func(s *site) string {
			return `
      deploy: { release: ` + s.path("srv") + `, steps: [ { run: 'cp index.txt built.txt; ` + deaf + s.path("runs") + `; while true; do sleep 0.1; done; fi' } ] }
`
		},
		"restart": func(s *site) string {
			return `
      deploy:
        release: ` + s.path("srv") + `
        steps: [ { run: "cp index.txt built.txt" } ]
        restart: 'cd ` + s.path("srv/current") + `; ` + deaf + s.path("runs") + `; while true; do sleep 0.1; done; fi'
`
		},
	} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			text := s.config(config(s))
			s.start(text)
			s.want(s.push("one"), "succeeded")
			id := s.push("slow")
			s.until("the step runs", func() bool { return s.exists("runs") })
			s.cancel(id)
			name := "deploy"
			if where == "test" {
				name = where
			}
			job := s.job(id, name)
			if job.State != "running" || job.Cause == nil || !strings.HasPrefix(*job.Cause, "being canceled by ") {
				t.Errorf("after the cancel the job is %+v", job)
			}
			s.kill()
			s.start(text)
			r := s.want(id, "canceled")
			if !strings.HasPrefix(why(r), "by ") {
				t.Errorf("the cause is %q", why(r))
			}
			s.wantLive("one")
			s.want(s.push("two"), "succeeded")
			s.wantLive("two")
		})
	}
}

// A cancel that comes while the start settles what the kill left is for the
// attempt that follows too.
func TestCancelWhileAJobIsSettledIsForItsNextAttemptToo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	text := s.config(`
      test: { steps: [ { run: 'touch ` + s.path("runs") + `; sleep 1000' } ] }
`)
	s.start(text)
	for i := range 8 {
		_ = os.Remove(s.path("runs"))
		id := s.push(fmt.Sprint("change ", i))
		s.until("the step runs", func() bool { return s.exists("runs") })
		s.kill()
		s.start(text)
		for range i { // at another moment each time
			s.job(id, "test")
		}
		s.cancel(id)
		if r := s.want(id, "canceled"); !strings.HasPrefix(why(r), "by ") {
			t.Errorf("the cause is %q", why(r))
		}
	}
}

func TestCancelDuringTheSwitchActsByUndoing(t *testing.T) {
	for _, when := range []string{"the restart", "the first release's restart"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.start(s.slowSwitch())
			first := when != "the restart"
			if !first {
				s.want(s.push("one"), "succeeded")
			}
			id := s.push("slow")
			s.until("the deploy is past its switch", func() bool { return s.exists("switched") })
			s.cancel(id)
			r := s.want(id, "canceled")
			if first {
				if s.exists("srv/current") || !strings.Contains(why(r), "this was the first release, so current is removed again") {
					t.Errorf("the cause is %q", why(r))
				}
				return
			}
			s.wantLive("one")
			if !strings.HasPrefix(why(r), "by ") || !strings.HasSuffix(why(r), s.now()+" is current again") {
				t.Errorf("the cause is %q", why(r))
			}
			steps := r.Jobs[0].Hosts[0].Steps
			if len(steps) != 3 || steps[1].State != "canceled" || steps[2].Name != "restart" || steps[2].State != "succeeded" {
				t.Errorf("the steps are %+v", steps)
			}
			s.want(s.push("two"), "succeeded")
			s.wantLive("two")
		})
	}
}

func TestCancelThatTheRestartOutlivesIsStillUndone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	// The restart ignores the cancel and succeeds.
	s.start(s.config(`
      deploy:
        release: ` + s.path("srv") + `
        steps: [ { run: "cp index.txt built.txt" } ]
        restart: 'trap "touch ` + s.path("asked") + `" TERM; if grep -q slow index.txt; then touch ` + s.path("switched") + `; until test -e ` + s.path("asked") + `; do sleep 0.02; done; fi'
`))
	s.want(s.push("one"), "succeeded")
	id := s.push("slow")
	s.until("the deploy is past its switch", func() bool { return s.exists("switched") })
	s.cancel(id)
	s.want(id, "canceled")
	s.wantLive("one")
}

func TestWhatCleansUpRunsAfterACancel(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(`
      test:
        steps:
          - { name: work, run: 'touch ` + s.path("works") + `; sleep 1000' }
          - { name: next, run: "true" }
          - { name: clean, run: 'echo cleaned > ` + s.path("cleaned") + `', if: always() }
          - { name: on failure, run: "true", if: failure() }
          - { name: on cancel, run: "true", if: canceled() }
      deploy: { release: ` + s.path("srv") + ` }
      tidy: { needs: [test], if: always(), steps: [ { run: 'touch ` + s.path("tidied") + `' } ] }
      tell: { needs: [test], if: canceled(), steps: [ { run: "true" } ] }
      alarm: { needs: [test], if: failure(), steps: [ { run: "true" } ] }
`))
	id := s.push("one")
	s.until("the step runs", func() bool { return s.exists("works") })
	s.cancel(id)
	r := s.want(id, "canceled")
	if !strings.HasPrefix(why(r), "by ") {
		t.Errorf("the cause is %q", why(r))
	}
	states := ""
	for _, st := range r.Jobs[0].Hosts[0].Steps {
		states += st.Name + " " + st.State + "\n"
	}
	if want := "work canceled\nnext skipped\nclean succeeded\non failure skipped\non cancel succeeded\n"; states != want {
		t.Errorf("the steps are\n%s\nwant\n%s", states, want)
	}
	for name, want := range map[string]string{"test": "canceled", "deploy": "canceled", "tidy": "succeeded", "tell": "succeeded", "alarm": "canceled"} {
		if j := s.job(id, name); j.State != want {
			t.Errorf("job %s is %s (%s), want %s", name, j.State, text(j.Cause), want)
		}
	}
	if !s.exists("cleaned") || !s.exists("tidied") {
		t.Error("it was not cleaned up")
	}
}

func TestSecondCancelEndsTheCleaningUpToo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(`
      test:
        steps:
          - { name: work, run: 'touch ` + s.path("works") + `; sleep 1000' }
          - { name: clean, run: 'touch ` + s.path("cleans") + `; sleep 1000', if: always() }
      tidy: { if: always(), steps: [ { run: 'touch ` + s.path("tidied") + `' } ] }
`))
	id := s.push("one")
	s.until("the step runs", func() bool { return s.exists("works") })
	s.cancel(id)
	s.until("it cleans up", func() bool { return s.exists("cleans") })
	s.cancel(id)
	s.want(id, "canceled")
	if s.exists("tidied") {
		t.Error("a job began after the second cancel")
	}
}

func TestSupersededDeployTellsTheJobsAfterIt(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.gated("      tell: { if: canceled(), steps: [ { run: 'true' } ] }\n      after: { needs: [deploy], steps: [ { run: 'true' } ] }\n"))
	s.hold("lock", "")
	s.pass("one")
	s.pass("two")
	one := s.push("one")
	s.untilJob(one, "deploy", "waiting")
	two := s.push("two")
	s.untilJob(two, "deploy", "waiting")
	s.hold("unlock", "")
	s.want(two, "succeeded")
	s.want(one, "canceled")
	if tell, after := s.job(one, "tell"), s.job(one, "after"); tell.State != "succeeded" || after.State != "skipped" || text(after.Cause) != "job deploy was canceled" {
		t.Errorf("tell is %s, after is %s: %q", tell.State, after.State, text(after.Cause))
	}
	if tell := s.job(two, "tell"); tell.State != "skipped" || text(tell.Cause) != "its if is false: canceled()" {
		t.Errorf("tell of the newer run is %s: %q", tell.State, text(tell.Cause))
	}
}
