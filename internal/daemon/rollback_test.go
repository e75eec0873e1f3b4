package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"deployhook/internal/deploy"
	"deployhook/internal/web"
)

// now is the id of the release that is current.
func (s *site) now() string {
	s.t.Helper()
	target, err := os.Readlink(s.current())
	if err != nil {
		s.t.Fatal(err)
	}
	return filepath.Base(target)
}

// back rolls back and waits for it.
func (s *site) back(to string) deploy.RollbackReceipt {
	s.t.Helper()
	got, err := s.client.Rollback(s.t.Context(), rollback(to))
	if err != nil {
		s.t.Fatal(err)
	}
	s.want(got.Run, "succeeded")
	return got
}

// deployed pushes texts, one after the other, and gives their releases.
func (s *site) deployed(texts ...string) (runs []int64, releases, commits []string) {
	s.t.Helper()
	for _, text := range texts {
		id := s.push(text)
		s.want(id, "succeeded")
		runs, releases, commits = append(runs, id), append(releases, s.now()), append(commits, s.last)
	}
	return runs, releases, commits
}

func refusal(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("it is done; want a refusal that says %q", want)
		return
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the refusal %q does not say %q", err, w)
		}
	}
}

func TestRollbackPopsAndToPushes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(""))
	_, r, _ := s.deployed("one", "two", "three")
	got := s.back("")
	if got.From != r[2] || got.Target != r[1] {
		t.Errorf("the receipt is %+v, want %s to %s", got, r[2], r[1])
	}
	s.wantLive("two")
	if got = s.back(""); got.From != r[1] || got.Target != r[0] { // pops: two is no longer below
		t.Errorf("the second receipt is %+v, want %s to %s", got, r[1], r[0])
	}
	s.wantLive("one")
	_, err := s.client.Rollback(t.Context(), rollback(""))
	refusal(t, err, "shop has no earlier release that was live")
	s.back(r[2]) // --to pushes: one lies below now
	s.wantLive("three")
	if got = s.back(""); got.Target != r[0] {
		t.Errorf("after --to the target is %s, want %s", got.Target, r[0])
	}
	s.wantLive("one")
	_, err = s.client.Rollback(t.Context(), rollback(r[0]))
	refusal(t, err, "release "+r[0]+" is current already")
	_, err = s.client.Rollback(t.Context(), rollback("20200101T000000Z-1234567"))
	refusal(t, err, "not found", "deployhook releases shop lists those that were live")
	_, err = s.client.Rollback(t.Context(), rollback("../../etc"))
	refusal(t, err, "not found")
}

func TestRollbackOfWhatNeverLivedIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(""))
	_, err := s.client.Rollback(t.Context(), rollback(""))
	refusal(t, err, "no earlier release that was live")
	s.deployed("one")
	_, err = s.client.Rollback(t.Context(), rollback(""))
	refusal(t, err, "no earlier release that was live")
	s.want(s.push("crash"), "failed")
	list, err := s.client.Releases(t.Context(), "shop")
	if err != nil || len(list) != 2 || list[0].State != "bad" {
		t.Fatalf("the releases are %+v, %v", list, err)
	}
	_, err = s.client.Rollback(t.Context(), rollback(list[0].ID))
	refusal(t, err, "not found")
	s.wantLive("one")
}

func TestRollbackToAReleaseWhoseTreeIsGoneIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(""))
	_, r, _ := s.deployed("one", "two")
	if err := os.RemoveAll(s.path("srv/releases/" + r[0])); err != nil {
		t.Fatal(err)
	}
	_, err := s.client.Rollback(t.Context(), rollback(""))
	refusal(t, err, "no earlier release that was live")
	_, err = s.client.Rollback(t.Context(), rollback(r[0]))
	refusal(t, err, "release "+r[0], "not found")
	if list, err := s.client.Releases(t.Context(), "shop"); err != nil || len(list) != 1 || list[0].ID != r[1] {
		t.Errorf("the releases are %+v, %v", list, err)
	}
	s.wantLive("two")
}

func TestRollbackThatCannotRestartPutsItselfBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(`
      deploy:
        release: ` + s.path("srv") + `
        steps: [ { run: "cp index.txt built.txt" } ]
        restart: '! grep -qx "$(cat index.txt)" ` + s.path("broken") + `'
`))
	s.write("broken", "")
	s.deployed("one", "two")
	s.write("broken", "one\n")
	got, err := s.client.Rollback(t.Context(), rollback(""))
	if err != nil {
		t.Fatal(err)
	}
	r := s.want(got.Run, "failed")
	if !strings.Contains(why(r), got.From+" is current again") {
		t.Errorf("the error is %q", why(r))
	}
	s.wantLive("two")
	// It failed, so nothing is held.
	_, err = s.client.Hold(t.Context(), "unhold", "shop", "")
	refusal(t, err, "shop is not held")
}

func TestHoldOfARollbackKeepsTheCommitAndWhatLedToIt(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(""))
	runs, r, commits := s.deployed("one", "two", "three")
	back := s.back(r[0])
	held := fmt.Sprintf("held since rollback %d; unhold shop", back.Run)
	s.wantLive("one")
	check := func() {
		t.Helper()
		// The commit itself: a retry is refused at once, a delivery canceled.
		_, err := s.client.Retry(t.Context(), runs[2], false)
		refusal(t, err, fmt.Sprintf("held since rollback %d", back.Run), "unhold shop")
		// One between it and the target.
		again, err := s.client.Retry(t.Context(), runs[1], false)
		if err != nil {
			t.Fatal(err)
		}
		if run := s.want(again, "canceled"); text(run.Jobs[1].Cause) != held || why(run) != held || run.Jobs[0].State != "succeeded" {
			t.Errorf("a retry of the commit between: %q, %+v", why(run), run.Jobs)
		}
		s.n++
		if run := s.want(s.sendAs(fmt.Sprint("new-", s.n), commits[0], commits[1]).Runs[0], "canceled"); why(run) != held {
			t.Errorf("a delivery of the commit between: %q", why(run))
		}
		if run := s.want(s.sendAs(fmt.Sprint("again-", s.n), commits[1], commits[2]).Runs[0], "canceled"); why(run) != held {
			t.Errorf("a delivery of the commit: %q", why(run))
		}
		s.wantLive("one")
	}
	check()
	s.stop()
	s.start(s.config("")) // the hold survives a restart
	check()
	// The target itself may be deployed again, and ends no hold: it is no
	// other commit that a push brought after the rollback.
	again, err := s.client.Retry(t.Context(), runs[0], false)
	if err != nil {
		t.Fatal(err)
	}
	s.want(again, "succeeded")
	check()
	// A replay is refused as a retry is.
	d, err := s.client.Deliveries(t.Context(), web.Query{Limit: 50})
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range d {
		if len(one.Runs) > 0 && one.Runs[0] == runs[2] {
			_, err := s.client.Replay(t.Context(), one.ID, false)
			refusal(t, err, fmt.Sprintf("held since rollback %d", back.Run))
		}
	}
	// --force goes past it, and the hold stays for those without.
	forced, err := s.client.Retry(t.Context(), runs[1], true)
	if err != nil {
		t.Fatal(err)
	}
	s.want(forced, "succeeded")
	s.wantLive("two")
	// A push with another commit ends it.
	s.want(s.push("four"), "succeeded")
	s.wantLive("four")
	_, err = s.client.Hold(t.Context(), "unhold", "shop", "")
	refusal(t, err, "shop is not held")
}

func TestUnholdEndsTheHoldOfARollback(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(""))
	runs, _, _ := s.deployed("one", "two")
	s.back("")
	s.hold("unhold", "")
	again, err := s.client.Retry(t.Context(), runs[1], false)
	if err != nil {
		t.Fatal(err)
	}
	s.want(again, "succeeded")
	s.wantLive("two")
}

func TestSecondRollbackFreesNothingOfTheFirst(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(""))
	runs, r, _ := s.deployed("one", "two", "three")
	first := s.back("")
	second := s.back("")
	s.wantLive("one")
	_, err := s.client.Retry(t.Context(), runs[2], false)
	refusal(t, err, fmt.Sprintf("held since rollback %d", first.Run))
	_, err = s.client.Retry(t.Context(), runs[1], false)
	refusal(t, err, fmt.Sprintf("held since rollback %d", second.Run))
	// Going forward again by name frees what was gone to.
	s.back(r[2])
	s.wantLive("three")
	again, err := s.client.Retry(t.Context(), runs[2], false)
	if err != nil {
		t.Fatal(err)
	}
	s.want(again, "succeeded")
}

func TestRetryOfARunByHandIsHeldToo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(""))
	s.deployed("one")
	s.last = s.commit("two")
	id, err := s.client.Trigger(t.Context(), trigger("main", "", false))
	if err != nil {
		t.Fatal(err)
	}
	s.want(id, "succeeded")
	s.commit("three")
	third, err := s.client.Trigger(t.Context(), trigger("main", "", false))
	if err != nil {
		t.Fatal(err)
	}
	s.want(third, "succeeded")
	list, err := s.client.Releases(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	back := s.back(list[2].ID)
	s.wantLive("one")
	again, err := s.client.Retry(t.Context(), id, false)
	if err != nil {
		t.Fatal(err)
	}
	if r := s.want(again, "canceled"); why(r) != fmt.Sprintf("held since rollback %d; unhold shop", back.Run) {
		t.Errorf("the retry: %q", why(r))
	}
	// A new run by hand is a person's word.
	if id, err = s.client.Trigger(t.Context(), trigger("main", "", false)); err != nil {
		t.Fatal(err)
	}
	s.want(id, "succeeded")
	s.wantLive("three")
}

func TestRollbackClearsThePath(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(`
      test: { steps: [ { run: 'if grep -q slow index.txt; then ` + s.gate("test") + `; fi' } ] }
      deploy:
        release: ` + s.path("srv") + `
        steps: [ { run: 'cp index.txt built.txt; if grep -q hang index.txt; then touch ` + s.path("hangs") + `; sleep 1000; fi' } ]
`))
	_, r, _ := s.deployed("one", "two")
	hangs := s.push("hang")
	s.until("a deploy runs its steps", func() bool { _, err := os.Stat(s.path("hangs")); return err == nil })
	waits := s.push("waits")
	s.untilJob(waits, "deploy", "waiting")
	slow := s.push("slow")
	s.untilJob(slow, "test", "running")
	got, err := s.client.Rollback(t.Context(), rollback(""))
	if err != nil {
		t.Fatal(err)
	}
	if got.From != r[1] || got.Target != r[0] {
		t.Errorf("the receipt is %+v", got)
	}
	s.want(got.Run, "succeeded")
	s.wantLive("one")
	s.write("test", "")
	why := fmt.Sprintf("rolled back by run %d", got.Run)
	for _, id := range []int64{hangs, waits, slow} {
		run := s.want(id, "canceled")
		if text(run.Jobs[1].Cause) != why || text(run.Cause) != why {
			t.Errorf("run %d: %q, %q, want %q", id, text(run.Cause), text(run.Jobs[1].Cause), why)
		}
	}
	if run, err := s.client.Run(t.Context(), slow); err != nil || run.Jobs[0].State != "succeeded" {
		t.Errorf("the test of a run that was rolled back was ended: %+v, %v", run.Jobs, err)
	}
	// What comes later is deployed.
	s.want(s.push("later"), "succeeded")
	s.wantLive("later")
}

// slowSwitch is a pipeline whose restart waits for a file when the text is slow.
func (s *site) slowSwitch() string {
	return s.config(`
      deploy:
        release: ` + s.path("srv") + `
        steps: [ { run: "cp index.txt built.txt" } ]
        restart: 'if grep -q slow index.txt; then touch ` + s.path("switched") + `; ` + s.gate("go") + `; ! grep -q fails index.txt; fi'
`)
}

func TestRollbackDuringASwitchNamesBothCandidatesAndWaitsWithTo(t *testing.T) {
	for _, end := range []string{"lives", "fails"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.start(s.slowSwitch())
			_, r, _ := s.deployed("one", "two")
			slow := s.push("slow " + end)
			s.until("the deploy is past its switch", func() bool { _, err := os.Stat(s.path("switched")); return err == nil })
			_, err := s.client.Rollback(t.Context(), rollback(""))
			refusal(t, err, fmt.Sprintf("run %d is switching from %s to ", slow, r[1]), "rollback shop --to "+r[1], "rollback shop --to "+r[0])
			if j := s.job(slow, "deploy"); j.State != "running" {
				t.Errorf("the refused rollback changed the deploy: %s", j.State)
			}
			got, err := s.client.Rollback(t.Context(), rollback(r[1]))
			if err != nil {
				t.Fatal(err)
			}
			s.until("the rollback waits", func() bool {
				return strings.HasPrefix(text(s.job(got.Run, "deploy").WaitingFor), fmt.Sprintf("run %d job deploy holds ", slow))
			})
			next := s.push("next") // behind the rollback in line
			s.untilJob(next, "deploy", "waiting")
			s.write("go", "")
			s.want(slow, map[string]string{"lives": "succeeded", "fails": "failed"}[end])
			s.want(got.Run, "succeeded")
			s.want(next, "succeeded")
			s.wantLive("next")
			if run, err := s.client.Run(t.Context(), got.Run); err != nil || run.Ended.After(*s.job(next, "deploy").Hosts[0].Steps[0].Started) {
				t.Errorf("the rollback did not go first: %v", err)
			}
		})
	}
}

func TestRollbackTakesBackWhatWasCurrentWhenItWasAccepted(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.slowSwitch())
	s.deployed("one", "two", "three")
	accepted, refused := 0, 0
	for i := range 8 {
		// A deploy of its own, then one that a rollback meets somewhere on its way.
		s.want(s.push(fmt.Sprint("before ", i)), "succeeded")
		from := s.now()
		id := s.push(fmt.Sprint("met ", i))
		s.until("the deploy is at its moment", func() bool {
			j := s.job(id, "deploy")
			switch {
			case i%4 == 0 || deploy.State(j.State).Terminal():
				return true
			case i%4 == 1:
				return j.State == "running"
			}
			return len(j.Hosts) > 0 && len(j.Hosts[0].Steps) >= i%4-1 // the step, or the restart, has begun
		})
		got, err := s.client.Rollback(t.Context(), rollback(""))
		met := s.ended(id)
		if err != nil {
			refused++
			refusal(t, err, "rollback shop --to ")
			continue
		}
		accepted++
		s.want(got.Run, "succeeded")
		if met.State == "succeeded" && got.From == from {
			t.Errorf("run %d went live between %s and the rollback that was to take that back", id, from)
		}
		if now := s.now(); now != got.Target {
			t.Errorf("current is %s, want %s", now, got.Target)
		}
	}
	t.Logf("%d rollbacks were accepted, %d refused", accepted, refused)
}

func TestRollbackDuringTheFirstSwitchSaysThatThereIsNothingBelow(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.slowSwitch())
	id := s.push("slow")
	s.until("the deploy is past its switch", func() bool { _, err := os.Stat(s.path("switched")); return err == nil })
	_, err := s.client.Rollback(t.Context(), rollback(""))
	refusal(t, err, fmt.Sprintf("run %d is switching from nothing to ", id), "no earlier release was live", fmt.Sprintf("deployhook cancel %d", id))
	if _, err := s.client.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	r := s.want(id, "canceled")
	if !strings.HasPrefix(why(r), "by ") || !strings.Contains(why(r), "this was the first release, so current is removed again") {
		t.Errorf("the cause is %q", why(r))
	}
	if _, err := os.Lstat(s.current()); !os.IsNotExist(err) {
		t.Errorf("current: %v", err)
	}
}

func TestOfTwoRollbacksTheLaterCounts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.slowSwitch())
	_, r, _ := s.deployed("one", "two", "three")
	slow := s.push("slow")
	s.until("the deploy is past its switch", func() bool { _, err := os.Stat(s.path("switched")); return err == nil })
	first, err := s.client.Rollback(t.Context(), rollback(r[0]))
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.client.Rollback(t.Context(), rollback(r[1]))
	if err != nil {
		t.Fatal(err)
	}
	s.write("go", "")
	s.want(slow, "succeeded")
	if run := s.want(first.Run, "canceled"); why(run) != fmt.Sprintf("rolled back by run %d", second.Run) {
		t.Errorf("the first: %q", why(run))
	}
	s.want(second.Run, "succeeded")
	s.wantLive("two")
}

func TestLockSurvivesARestartAndStopsRollbacksWithoutForce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(""))
	_, r, _ := s.deployed("one", "two")
	s.hold("lock", "sale until Monday")
	_, err := s.client.Hold(t.Context(), "lock", "shop", "mine")
	refusal(t, err, "shop has a lock by ", "sale until Monday")
	s.stop()
	s.start(s.config(""))
	id := s.push("three")
	s.until("the deploy waits for the lock", func() bool {
		j := s.job(id, "deploy")
		return j.State == "waiting" && strings.HasPrefix(text(j.WaitingFor), "lock by ") && strings.HasSuffix(text(j.WaitingFor), ": sale until Monday")
	})
	if j := s.job(id, "test"); j.State != "succeeded" {
		t.Errorf("under a lock the test is %s", j.State)
	}
	_, err = s.client.Rollback(t.Context(), rollback(""))
	refusal(t, err, "shop is locked by ", "sale until Monday", "--force")
	if j := s.job(id, "deploy"); j.State != "waiting" {
		t.Errorf("the refused rollback changed the deploy: %s", j.State)
	}
	c := rollback("")
	c.Force = true
	got, err := s.client.Rollback(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	s.want(got.Run, "succeeded")
	if s.now() != r[0] {
		t.Errorf("%s is current, want %s", s.now(), r[0])
	}
	_, err = s.client.Hold(t.Context(), "lock", "shop", "")
	refusal(t, err, "sale until Monday") // the lock is still there
	s.hold("unlock", "")
	s.want(id, "canceled")
}

func TestRollbackGoesPastAHoldByHand(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(""))
	s.deployed("one", "two")
	s.hold("hold", "moving")
	id := s.push("three")
	s.untilJob(id, "test", "waiting")
	s.back("")
	s.wantLive("one")
	s.hold("unhold", "")
	if r := s.ended(id); r.Jobs[0].State != "succeeded" || r.Jobs[1].State != "canceled" || !strings.HasPrefix(text(r.Jobs[1].Cause), "rolled back by run ") {
		t.Errorf("the run that was accepted before the rollback: %+v", r.Jobs)
	}
}

func TestHoldIsSaidByWhatWaitedForSomethingElse(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(`
      deploy:
        release: ` + s.path("srv") + `
        steps: [ { run: 'cp index.txt built.txt; ` + s.gate("go") + `' } ]
`))
	one := s.push("one")
	s.untilJob(one, "deploy", "running")
	two := s.push("two")
	s.until("the second waits for the first", func() bool {
		return strings.HasPrefix(text(s.job(two, "deploy").WaitingFor), fmt.Sprintf("run %d job deploy holds ", one))
	})
	s.hold("hold", "moving")
	s.until("the second waits for the hold", func() bool {
		r, err := s.client.Run(t.Context(), two)
		return err == nil && strings.HasPrefix(text(r.WaitingFor), "hold by ") && text(r.Jobs[0].WaitingFor) == text(r.WaitingFor)
	})
	s.write("go", "")
	s.want(one, "succeeded")
	s.hold("unhold", "")
	s.want(two, "succeeded")
}

func TestKilledRollbackIsFinishedAndHolds(t *testing.T) {
	for _, point := range []string{"before-intent", "intent-written", "linked", "before-live-line", "live-line", "intent-removed"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.start(s.config(""))
			runs, r, _ := s.deployed("one", "two")
			s.stop()
			s.start(s.config(""), "LANG=both@"+point)
			got, err := s.client.Rollback(t.Context(), rollback(""))
			if err != nil {
				t.Fatal(err)
			}
			s.died()
			s.start(s.config(""))
			s.want(got.Run, "succeeded")
			if s.now() != r[0] {
				t.Errorf("%s is current, want %s", s.now(), r[0])
			}
			_, err = s.client.Retry(t.Context(), runs[1], false)
			refusal(t, err, fmt.Sprintf("held since rollback %d", got.Run))
		})
	}
}

func TestSeveralReleaseJobsAreNamed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(`
      api: { release: ` + s.path("api") + ` }
      site: { release: ` + s.path("srv") + ` }
      docs: { steps: [ { run: "true" } ] }
`))
	s.want(s.push("one"), "succeeded")
	s.want(s.push("two"), "succeeded")
	_, err := s.client.Rollback(t.Context(), rollback(""))
	refusal(t, err, "shop has several release jobs (api, site): say which with --job")
	c := rollback("")
	c.Job = "docs"
	_, err = s.client.Rollback(t.Context(), c)
	refusal(t, err, "shop has no release job docs")
	c.Job = "api"
	got, err := s.client.Rollback(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	s.want(got.Run, "succeeded")
	list, err := s.client.Releases(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	current := map[string]string{}
	for _, r := range list {
		if r.Current {
			current[r.Path] = r.ID
		}
	}
	if len(list) != 4 || current[s.path("api")] != got.Target || current[s.path("srv")] != s.now() {
		t.Errorf("the releases are %+v", list)
	}
}
