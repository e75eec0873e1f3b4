package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deployhook/internal/web"
)

// inPlace is a config that deploys in place to the directory www.
func (s *site) inPlace(more string) string {
	return s.config(`
      test: { steps: [ { run: "! grep -q bad index.txt" } ] }
      deploy:
        release: { path: ` + s.path("www") + `, strategy: in_place }
        steps: [ { run: "cp index.txt built.txt; ! grep -q broken index.txt" } ]
        restart: "! grep -q crash index.txt"
` + more)
}

// wantFiles compares the tracked files of www with those of a commit, as git sees them.
func (s *site) wantFiles(commit string) {
	s.t.Helper()
	for _, name := range strings.Split(s.git("-C", s.repo(), "ls-tree", "-r", "-z", "--name-only", commit), "\x00") {
		if name == "" {
			continue
		}
		want := s.git("-C", s.repo(), "rev-parse", commit+":"+name)
		at := filepath.Join(s.path("www"), name)
		if st, err := os.Lstat(at); err != nil || st.Mode()&os.ModeSymlink == 0 {
			if got := s.git("hash-object", "--no-filters", at); got != want {
				s.t.Errorf("%s is not that of commit %s", name, commit)
			}
		}
	}
}

// put writes a file with the directories on the way to it.
func (s *site) put(name, text string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.write(name, text)
}

// rev is the newest commit of the repository.
func (s *site) rev() string { return s.git("-C", s.repo(), "rev-parse", "HEAD") }

func TestPushIsDeployedInPlace(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.inPlace(""))
	s.put("repo/lib/old.txt", "old\n")
	r := s.want(s.push("one"), "succeeded")
	if got := s.file("www/built.txt"); got != "one" {
		t.Errorf("the step made %q", got)
	}
	if st := r.Jobs[1].Hosts[0].Steps; len(st) != 3 || st[0].Name != "files" || st[2].Name != "restart" {
		t.Errorf("the steps are %+v", st)
	}
	s.put("www/uploads/photo.jpg", "a photo")
	s.put("www/lib/mine.txt", "mine")
	s.remove("repo/lib/old.txt")
	two := s.push("two")
	s.want(two, "succeeded")
	s.wantFiles(s.rev())
	if s.exists("www/lib/old.txt") || s.file("www/uploads/photo.jpg") != "a photo" || s.file("www/lib/mine.txt") != "mine" {
		t.Error("a removed file is there, or an untracked one is not")
	}
	if !strings.Contains(s.logOf(two), "1 written, 1 removed, 0 as they were") {
		t.Errorf("the log does not say what changed:\n%s", s.logOf(two))
	}
	for _, name := range []string{"releases", "shared", "current", ".deployhook"} {
		if s.exists("www/" + name) {
			t.Errorf("%s is among the site's files", name)
		}
	}
	list, err := s.client.Releases(t.Context(), "shop")
	if err != nil || len(list) != 2 || !list[0].Current || list[0].State != "live" || list[0].Commit != s.rev() || list[1].Current || list[1].State != "live" {
		t.Errorf("the releases are %+v, %v", list, err)
	}
	// Changed by hand: it stops, by name, and nothing has changed.
	s.put("www/index.txt", "by hand\n")
	bad := s.want(s.push("three"), "failed")
	if w := why(bad); !strings.Contains(w, "changed by hand: index.txt;") || !strings.Contains(w, "nothing was deployed") || !strings.Contains(w, "release.overwrite: true") {
		t.Errorf("the error is %q", w)
	}
	if got := s.file("www/index.txt"); got != "by hand" {
		t.Errorf("what was changed by hand is %q", got)
	}
	s.stop()
	s.start(strings.Replace(s.inPlace(""), "strategy: in_place", "strategy: in_place, overwrite: true", 1))
	s.want(s.push("four"), "succeeded")
	s.wantFiles(s.rev())
}

func TestFailedStepLeavesTheNewFilesAndSaysHowToGoBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.inPlace(""))
	s.want(s.push("one"), "succeeded")
	one := s.rev()
	for _, text := range []string{"broken", "crash"} {
		bad := s.want(s.push(text), "failed")
		want := "the files in " + s.path("www") + " stay those of commit " + s.rev()[:7] + "; deployhook rollback shop goes to commit " + one[:7]
		if w := why(bad); !strings.Contains(w, want) {
			t.Errorf("%s: the error is %q, want %q", text, w, want)
		}
		s.wantFiles(s.rev())
		list, err := s.client.Releases(t.Context(), "shop")
		if err != nil || list[0].State != "bad" || !list[0].Current || list[0].Commit != s.rev() {
			t.Errorf("%s: the releases are %+v, %v", text, list, err)
		}
	}
	got := s.back("")
	if got.Target == got.From {
		t.Errorf("the rollback is %+v", got)
	}
	s.wantFiles(one)
	if s.file("www/built.txt") != "one" {
		t.Error("the steps did not run for the rollback")
	}
}

func TestRollbackInPlaceDeploysTheEarlierCommitAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.inPlace(""))
	var commits []string
	var runs []int64
	for _, text := range []string{"one", "two", "three"} {
		runs = append(runs, s.push(text))
		s.want(runs[len(runs)-1], "succeeded")
		commits = append(commits, s.rev())
	}
	list, err := s.client.Releases(t.Context(), "shop")
	if err != nil || len(list) != 3 {
		t.Fatalf("the releases are %+v, %v", list, err)
	}
	got := s.back("")
	if got.From != list[0].ID || got.Target != list[1].ID {
		t.Errorf("the receipt is %+v", got)
	}
	s.wantFiles(commits[1])
	r, err := s.client.Run(t.Context(), got.Run)
	if err != nil || r.Event != "rollback" || text(r.Commit) != commits[1] || len(r.Jobs) != 1 {
		t.Errorf("the run is %+v, %v", r, err)
	}
	// It holds the commit, as with releases.
	_, err = s.client.Retry(t.Context(), runs[2], false)
	refusal(t, err, "held since rollback")
	if got = s.back(""); got.Target != list[2].ID { // pops
		t.Errorf("the second receipt is %+v", got)
	}
	s.wantFiles(commits[0])
	_, err = s.client.Rollback(t.Context(), rollback(""))
	refusal(t, err, "shop has no earlier release that was live")
	// --to takes a name of the list, a commit, and the beginning of one.
	if got = s.back(commits[2]); got.Target != list[0].ID {
		t.Errorf("by commit it is %+v", got)
	}
	s.wantFiles(commits[2])
	s.back(commits[0][:7])
	s.wantFiles(commits[0])
	s.back(list[1].ID)
	s.wantFiles(commits[1])
	_, err = s.client.Rollback(t.Context(), rollback(commits[1]))
	refusal(t, err, "is current already")
	for _, bad := range []string{strings.Repeat("a", 40), commits[0][:6], "20200101T000000Z-1234567", "../x"} {
		_, err = s.client.Rollback(t.Context(), rollback(bad))
		refusal(t, err, "not found", "deployhook releases shop lists")
	}
	now, err := s.client.Releases(t.Context(), "shop")
	if err != nil || len(now) != 3 {
		t.Errorf("the list has grown: %+v, %v", now, err)
	}
	// A new push ends the hold.
	s.want(s.push("four"), "succeeded")
	s.wantFiles(s.rev())
	// An older commit never goes over it.
	old := s.sendAs("old", commits[0], commits[1])
	if len(old.Runs) == 1 {
		if r := s.want(old.Runs[0], "canceled"); !strings.Contains(why(r), "already live in") {
			t.Errorf("the older commit: %q", why(r))
		}
	}
	s.wantFiles(s.rev())
}

func TestRetryOfTheSameCommitIsNoStepToGoBackTo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.inPlace(""))
	s.want(s.push("one"), "succeeded")
	one := s.rev()
	two := s.push("two")
	s.want(two, "succeeded")
	again, err := s.client.Retry(t.Context(), two, false)
	if err != nil {
		t.Fatal(err)
	}
	s.want(again, "succeeded")
	s.back("")
	s.wantFiles(one)
	_, err = s.client.Rollback(t.Context(), rollback(""))
	refusal(t, err, "no earlier release")
}

func TestInPlaceIsRepairedAfterAKillAtAnyMoment(t *testing.T) {
	points := []string{
		"in-place-staging", "in-place-wrote-first", "in-place-before-intent", "in-place-intent", "in-place-listed", "in-place-room",
		"in-place-renamed-first", "in-place-renamed", "in-place-removed", "in-place-changed", "in-place-whole", "in-place-proving",
		"in-place-rescanned", "in-place-live", "in-place-ended",
	}
	for _, who := range []string{"daemon", "both"} {
		for i, point := range points {
			if who == "daemon" && i%3 > 0 {
				continue // the agent ends by itself then: fewer ways
			}
			t.Run(who+" at "+point, func(t *testing.T) {
				t.Parallel()
				s := newSite(t)
				s.start(s.inPlace(""))
				s.put("repo/old.txt", "old\n")
				s.want(s.push("one"), "succeeded")
				s.put("www/upload", "mine")
				s.stop()
				s.remove("repo/old.txt")
				s.start(s.inPlace(""), "LANG="+who+"@"+point)
				id := s.push("two")
				s.died()
				s.start(s.inPlace(""))
				s.want(id, "succeeded")
				s.wantFiles(s.rev())
				if s.exists("www/old.txt") || s.file("www/upload") != "mine" {
					t.Error("a removed file is there, or an untracked one is not")
				}
				if left, _ := filepath.Glob(s.path("www/.deployhook*")); len(left) > 0 {
					t.Errorf("%q was left", left)
				}
				list, err := s.client.Releases(t.Context(), "shop")
				if err != nil || !list[0].Current || list[0].State != "live" || list[0].Commit != s.rev() {
					t.Errorf("the releases are %+v, %v", list, err)
				}
				s.back("")
				s.want(s.push("three"), "succeeded")
				s.wantFiles(s.rev())
			})
		}
	}
}

func TestCutInPlaceWithOnCrashStopIsLeftToAPerson(t *testing.T) {
	for _, point := range []string{"in-place-renamed-first", "in-place-proving"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			config := strings.Replace(s.inPlace(""), "deploy:\n        release", "deploy:\n        on_crash: stop\n        release", 1)
			s.start(config)
			s.put("repo/a.txt", "1\n")
			s.want(s.push("one"), "succeeded")
			one := s.rev()
			s.stop()
			s.put("repo/a.txt", "2\n")
			s.start(config, "LANG=both@"+point)
			id := s.push("two")
			s.died()
			s.start(config)
			r := s.want(id, "lost")
			command := "deployhook unlock local:" + s.path("www") + " --abandon"
			if !strings.Contains(why(r), command) || !strings.Contains(why(r), "on_crash is stop") {
				t.Errorf("the error %q does not say how to go on", why(r))
			}
			next := s.push("three")
			s.until("the next deploy says the same", func() bool { return strings.Contains(text(s.job(next, "deploy").WaitingFor), command) })
			if _, err := s.client.Abandon(t.Context(), "local", s.path("www")); err != nil {
				t.Fatal(err)
			}
			s.want(next, "succeeded") // what the cut one put there is no change by hand
			s.wantFiles(s.rev())
			s.back(one)
			s.wantFiles(one)
			_, err := s.client.Abandon(t.Context(), "local", s.path("www"))
			refusal(t, err, "has no unfinished switch")
		})
	}
}

func TestRollbackGoesOverADeployThatWasCutShort(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	config := strings.Replace(s.inPlace(""), "deploy:\n        release", "deploy:\n        on_crash: stop\n        release", 1)
	s.start(config)
	s.put("repo/a.txt", "1\n")
	s.want(s.push("one"), "succeeded")
	one := s.rev()
	s.stop()
	s.put("repo/a.txt", "2\n")
	s.start(config, "LANG=both@in-place-renamed-first")
	id := s.push("two")
	s.died()
	s.start(config)
	s.want(id, "lost")
	if _, err := s.client.Abandon(t.Context(), "local", s.path("www")); err != nil {
		t.Fatal(err)
	}
	s.back("") // to what was live before the cut one
	s.wantFiles(one)
	// What was gone back from is held.
	_, err := s.client.Retry(t.Context(), id, false)
	refusal(t, err, "held since rollback")
}

func TestCancelOfADeployInPlaceLeavesItsFiles(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(`
      deploy:
        release: { path: ` + s.path("www") + `, strategy: in_place }
        steps: [ { run: 'if grep -q slow index.txt; then touch ` + s.path("cut") + `; sleep 1000; fi' } ]
`))
	s.want(s.push("one"), "succeeded")
	one := s.rev()
	id := s.push("slow")
	s.until("the step runs", func() bool { return s.exists("cut") })
	_, err := s.client.Rollback(t.Context(), rollback(""))
	refusal(t, err, "is switching from", "--to")
	if _, err := s.client.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	r := s.want(id, "canceled")
	if w := why(r); !strings.Contains(w, "the files in "+s.path("www")+" stay those of commit "+s.rev()[:7]) || !strings.Contains(w, "deployhook rollback shop goes to commit "+one[:7]) {
		t.Errorf("the cause is %q", w)
	}
	s.wantFiles(s.rev())
	s.back("")
	s.wantFiles(one)
}

func TestExistingCloneIsTakenOver(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.put("repo/config.php", "v1\n")
	s.put("repo/gone.php", "v1\n")
	old := s.commit("one")
	s.git("clone", "-q", s.repo(), s.path("www"))
	s.put("www/upload", "mine")
	s.put("repo/config.php", "v2\n")
	s.remove("repo/gone.php")
	s.start(s.inPlace(""))
	id := s.push("two")
	s.want(id, "succeeded")
	s.wantFiles(s.rev())
	if s.exists("www/gone.php") || s.file("www/upload") != "mine" || s.git("-C", s.path("www"), "rev-parse", "HEAD") != old {
		t.Error("a removed file is there, an untracked one is not, or .git was changed")
	}
	if !strings.Contains(s.logOf(id), "took over the clone of "+old[:7]) {
		t.Errorf("the log does not say so:\n%s", s.logOf(id))
	}
}

func TestCloneWithAChangeByHandStopsTheFirstDeploy(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.put("repo/config.php", "v1\n")
	s.commit("one")
	s.git("clone", "-q", s.repo(), s.path("www"))
	s.put("www/config.php", "by hand\n")
	s.start(s.inPlace(""))
	if w := why(s.want(s.push("two"), "failed")); !strings.Contains(w, "changed by hand: config.php;") {
		t.Errorf("the error is %q", w)
	}
	if s.file("www/config.php") != "by hand" || s.file("www/index.txt") != "one" {
		t.Error("something was changed")
	}
}

func TestTwoDaemonsNeverMixInOneDirectory(t *testing.T) {
	t.Parallel()
	a, b := newSite(t), newSite(t)
	steps := func(s *site, name string) string {
		return s.config(`
      deploy:
        release: { path: ` + a.path("www") + `, strategy: in_place, overwrite: true }
        steps: [ { run: 'echo ` + name + ` >> ` + a.path("order") + `; ` + a.gate("go-"+name) + `; cat index.txt >> ` + a.path("order") + `' } ]
`)
	}
	a.start(steps(a, "a"))
	b.start(steps(b, "b"))
	ida := a.push("one")
	a.until("the first one's step runs", func() bool { return a.file("order") == "a" })
	idb := b.push("two")
	b.untilJob(idb, "deploy", "running")
	b.until("the second one has its agent wait", func() bool { return len(b.agents()) > 0 })
	if a.file("www/index.txt") != "one" {
		t.Error("the second one did not wait")
	}
	a.write("go-a", "")
	a.write("go-b", "")
	a.want(ida, "succeeded")
	b.want(idb, "succeeded")
	if got := a.file("order"); got != "a\none\nb\ntwo" {
		t.Errorf("the order was %q", got)
	}
}

func TestVariablesOfStepsInPlace(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(`
      deploy:
        release: { path: ` + s.path("www") + `, strategy: in_place }
        steps: [ { run: 'pwd; echo "$DEPLOYHOOK_RELEASE|$DEPLOYHOOK_RELEASE_PATH|$DEPLOYHOOK_PREVIOUS_RELEASE|$DEPLOYHOOK_CURRENT_PATH|$DEPLOYHOOK_SHARED_PATH|$DEPLOYHOOK_WORKSPACE"' } ]
        restart: pwd
`))
	s.want(s.push("one"), "succeeded")
	id := s.push("two")
	s.want(id, "succeeded")
	list, err := s.client.Releases(t.Context(), "shop")
	if err != nil || len(list) != 2 {
		t.Fatalf("the releases are %+v, %v", list, err)
	}
	www := s.path("www")
	want := www + "\n" + strings.Join([]string{list[0].ID, www, list[1].ID, www, www, www}, "|") + "\n" + www + "\n"
	if got := s.printed(id, "deploy", ""); !strings.HasSuffix(got, want) {
		t.Errorf("the steps printed %q, want %q", got, want)
	}
}

func TestRestartThatKillsTheDaemonInPlaceHasAnEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	config := s.config(`
      deploy:
        release: { path: ` + s.path("www") + `, strategy: in_place }
        restart: 'if grep -q two index.txt; then echo x >> ` + s.path("tries") + `; kill -9 $(cat ` + s.path("pid") + `); sleep 60; fi'
`)
	s.start(config)
	s.want(s.push("one"), "succeeded")
	s.write("pid", fmt.Sprint(s.cmd.Process.Pid))
	id := s.push("two")
	for range 6 {
		s.died()
		s.start(config)
		s.write("pid", fmt.Sprint(s.cmd.Process.Pid))
		var r web.Run
		ended := false
		for end := time.Now().Add(30 * time.Second); !ended && time.Now().Before(end); {
			select {
			case <-s.exited:
				ended = true
			default:
				if got, err := s.client.Run(t.Context(), id); err == nil && terminal(got.State) {
					r, ended = got, true
				}
			}
		}
		if r.ID != 0 {
			if r.State != "failed" || !strings.Contains(why(r), "the restart ended what was running it, more than once") || !strings.Contains(why(r), "deployhook rollback shop goes to commit") {
				t.Errorf("the run is %s: %q", r.State, why(r))
			}
			return
		}
	}
	t.Errorf("it never ends: %q", s.file("tries"))
}

func TestStopDuringTheStepsInPlaceBeginsAnew(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"kill", "stop"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			config := s.config(`
      deploy:
        release: { path: ` + s.path("www") + `, strategy: in_place }
        steps: [ { run: 'echo "$DEPLOYHOOK_SHA" > lock.json; if grep -q slow index.txt; then touch ` + s.path("cut") + `; ` + s.gate("go") + `; fi' } ]
`)
			s.put("repo/lock.json", "{}\n")
			s.start(config)
			s.want(s.push("one"), "succeeded")
			id := s.push("slow")
			s.until("the step runs", func() bool { return s.exists("cut") })
			if end == "kill" {
				s.kill()
			} else {
				s.stop()
			}
			s.write("go", "")
			s.start(config)
			if r := s.want(id, "succeeded"); r.Jobs[0].Attempt != 2 {
				t.Errorf("it took %d attempts", r.Jobs[0].Attempt)
			}
			if s.file("www/lock.json") != s.rev() || s.file("www/index.txt") != "slow" {
				t.Error("the files are not those of the run")
			}
			// What its step wrote into a tracked file is no change by hand, and
			// the list has one entry a commit.
			s.want(s.push("two"), "succeeded")
			if list, err := s.client.Releases(t.Context(), "shop"); err != nil || len(list) != 3 {
				t.Errorf("the releases are %+v, %v", list, err)
			}
		})
	}
}

func TestDamagedListOfFilesIsLeftToAPerson(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.inPlace(""))
	s.want(s.push("one"), "succeeded")
	lists, err := filepath.Glob(s.path("data/agent/in-place/*/manifest"))
	if err != nil || len(lists) != 1 {
		t.Fatalf("the lists are %q, %v", lists, err)
	}
	if err := os.WriteFile(lists[0], []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := s.want(s.push("two"), "lost")
	command := "deployhook unlock local:" + s.path("www") + " --abandon"
	if w := why(r); !strings.Contains(w, "cannot be read") || !strings.Contains(w, command) {
		t.Errorf("the error is %q", w)
	}
	if s.file("www/index.txt") != "one" {
		t.Error("something was changed")
	}
	if _, err := s.client.Abandon(t.Context(), "local", s.path("www")); err != nil {
		t.Fatal(err)
	}
	// Nothing is known now: what differs is named.
	if w := why(s.want(s.push("three"), "failed")); !strings.Contains(w, "not from a deploy: index.txt;") {
		t.Errorf("the error is %q", w)
	}
	s.put("repo/new.txt", "new\n")
	s.want(s.push("one"), "succeeded") // as it is there
	s.wantFiles(s.rev())
}

func TestStepThatKillsItsAgentInPlaceFailsAndIsRepaired(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(`
      deploy:
        release: { path: ` + s.path("www") + `, strategy: in_place }
        steps: [ { run: 'if grep -q two index.txt; then echo x > index.txt; kill -9 $PPID; sleep 60; fi' } ]
`))
	s.want(s.push("one"), "succeeded")
	r := s.want(s.push("two"), "failed")
	if w := why(r); !strings.Contains(w, "the agent ended during the job") || !strings.Contains(w, "stay those of commit "+s.rev()[:7]) {
		t.Errorf("the error is %q", w)
	}
	s.want(s.push("three"), "succeeded")
	s.wantFiles(s.rev())
}
