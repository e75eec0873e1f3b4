package daemon_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"deployhook/internal/web"
)

func TestReleaseIsPreparedOnAllHostsAndThenSwitchedOneAfterTheOther(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	f.start(f.config(""))
	r := f.want(f.push("one"), "succeeded")
	f.everywhere("one")
	var last web.Step
	for i, h := range r.Jobs[0].Hosts {
		if h.Name != f.hosts[i].Name || len(h.Steps) != 2 || h.Steps[1].Name != "restart" {
			t.Fatalf("the hosts of the job are %+v", r.Jobs[0].Hosts)
		}
		restart := h.Steps[1]
		for _, o := range r.Jobs[0].Hosts {
			if restart.Started.Before(*o.Steps[0].Ended) {
				t.Errorf("%s was restarted before %s was prepared", h.Name, o.Name)
			}
		}
		if i > 0 && restart.Started.Before(*last.Ended) {
			t.Errorf("%s was restarted beside the one before it", h.Name)
		}
		last = restart
	}
	list, err := f.client.Releases(t.Context(), "shop")
	if err != nil || len(list) != 3 || list[0].ID != list[1].ID || list[1].ID != list[2].ID {
		t.Errorf("the releases are %+v, %v", list, err)
	}
	if text := f.logOf(r.ID); strings.Contains(text, "warning") {
		t.Errorf("the log is\n%s", text)
	}
}

// saying says of a text that it has all of these.
func saying(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%q does not say %q", text, w)
		}
	}
}

// states are those of the last release on each host.
func (f *fleet) states() string {
	f.t.Helper()
	list, err := f.client.Releases(f.t.Context(), "shop")
	if err != nil {
		f.t.Fatal(err)
	}
	var states []string
	for _, r := range list {
		if r.ID == list[0].ID {
			states = append(states, r.Host+" "+string(r.State))
		}
	}
	slices.Sort(states)
	return strings.Join(states, ", ")
}

func TestHostThatFailsKeepsTheOldReleaseOnAll(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	f.start(f.config(`
      deploy:
        hosts: [web1, web2, web3]
        release: ` + f.path("srv") + `
        steps: [ { run: 'cp index.txt built.txt; ! grep -q "bad.*$DEPLOYHOOK_HOST" index.txt' } ]
        restart: '` + f.restarts() + `; ! grep -q "crash.*$DEPLOYHOOK_HOST" index.txt'
`))
	f.want(f.push("one"), "succeeded")

	// It is not prepared on one: nothing is switched anywhere.
	r := f.want(f.push("bad-web2"), "failed")
	f.everywhere("one")
	saying(t, why(r), "job deploy: web2: step cp index.txt built.txt", "exit status 1")
	if got := f.restarted(0); got != "one" {
		t.Errorf("web1 was restarted on %q", got)
	}
	if got := f.states(); got != "web1 bad, web2 bad, web3 bad" {
		t.Errorf("the release is %s", got)
	}
	two := f.want(f.push("bad-web1-web3"), "failed")
	saying(t, why(two), "web1: step", "; web3: step")

	// It does not restart on one: all that were switched go back.
	r = f.want(f.push("crash-web2"), "failed")
	f.everywhere("one")
	saying(t, why(r), "job deploy: web2: restart: exit status 1; on web1, web2 ", " is current again")
	for i, want := range []string{"one crash-web2 one", "one crash-web2 one", "one"} {
		if got := f.restarted(i); got != want {
			t.Errorf("%s was restarted on %q, want %q", f.hosts[i].Name, got, want)
		}
	}
	if got := f.states(); got != "web1 bad, web2 bad, web3 bad" {
		t.Errorf("the release is %s", got)
	}

	// A rollback goes to one release on all, and puts itself back on all.
	f.want(f.push("two"), "succeeded")
	f.want(f.push("three"), "succeeded")
	got, err := f.client.Rollback(t.Context(), rollback(""))
	if err != nil {
		t.Fatal(err)
	}
	f.want(got.Run, "succeeded")
	f.everywhere("two")
	root := f.hosts[1].Root
	one := ""
	list, err := f.client.Releases(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		if r.State == "live" {
			one = r.ID // the oldest
		}
	}
	if err := os.RemoveAll(filepath.Join(root, "releases", one)); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"", one} {
		_, err = f.client.Rollback(t.Context(), rollback(to))
		refusal(t, err, "host web2: ")
	}
	f.everywhere("two")
}

func TestTestJobRunsOnAllHostsSideBySide(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	f.start(f.config(`
      test:
        hosts: [web1, web2, local]
        steps:
          - name: meet
            run: 'touch ` + f.path("at-$DEPLOYHOOK_HOST") + `; for i in $(seq 6000); do [ -e ` + f.path("at-web1") + ` ] && [ -e ` + f.path("at-web2") + ` ] && [ -e ` + f.path("at-local") + ` ] && exit; sleep 0.01; done; exit 9'
          - name: look
            run: 'echo "on $DEPLOYHOOK_HOST"; cat index.txt; ! grep -q "bad.*$DEPLOYHOOK_HOST" index.txt'
`))
	r := f.want(f.push("one"), "succeeded")
	for i, name := range []string{"web1", "web2", "local"} {
		h := r.Jobs[0].Hosts[i]
		if h.Name != name || len(h.Steps) != 2 {
			t.Errorf("%s has %+v", name, h)
		}
		var lines []string
		_, err := f.client.Lines(t.Context(), r.ID, web.LogQuery{Host: name, Step: "look"}, func(some []web.Line) error {
			for _, l := range some {
				lines = append(lines, l.Text)
			}
			return nil
		})
		if got := strings.Join(lines, " "); err != nil || got != "on "+name+" one" {
			t.Errorf("%s printed %q, %v", name, got, err)
		}
	}
	_, err := f.client.Lines(t.Context(), r.ID, web.LogQuery{Host: "web3"}, func([]web.Line) error { return nil })
	refusal(t, err, `no host "web3"`)
	r = f.want(f.push("bad-web2"), "failed")
	saying(t, why(r), "job test: web2: step look: exit status 1")
}

func TestKilledAtAnyMomentOfASwitchTheHostsHaveOneReleaseInTheEnd(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	f.start(f.config(""))
	live := "one"
	f.want(f.push(live), "succeeded")
	n := 0
	for _, k := range []struct {
		host   int
		who    string
		points []string
		text   string // crash: the restart on web2 fails
	}{
		{0, "daemon", []string{"prepared-line", "before-intent", "intent-written", "linked", "phase-proving", "before-live-line", "live-line"}, "new"},
		{1, "daemon", []string{"made", "intent-written", "linked", "phase-proving", "before-live-line", "live-line", "intent-removed"}, "new"},
		{0, "both", []string{"linked", "live-line"}, "new"},
		{1, "both", []string{"intent-written", "linked", "live-line"}, "new"},
		{0, "daemon", []string{"undo-intent", "undo-linked", "undone"}, "crash-web2"},
		{1, "daemon", []string{"undo-intent", "undo-linked", "bad-line", "undone"}, "crash-web2"},
	} {
		for _, point := range k.points {
			n++
			text := fmt.Sprintf("%s-%d", k.text, n)
			f.failAt(k.host, k.who, point)
			id := f.push(text)
			f.died()
			f.start(f.config(""))
			r := f.ended(id)
			want := "succeeded"
			if strings.HasPrefix(text, "crash") {
				want = "failed"
			}
			if r.State != want {
				t.Fatalf("%s on %s at %s: the run is %s (%s)\n%s", k.who, f.hosts[k.host].Name, point, r.State, why(r), f.log)
			}
			if want == "succeeded" {
				live = text
			}
			f.everywhere(live)
			if t.Failed() {
				t.Fatalf("%s on %s at %s", k.who, f.hosts[k.host].Name, point)
			}
		}
	}
}

func TestAgentThatIsKilledDuringASwitchIsReopenedAndSettled(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	f.start(f.config(""))
	f.want(f.push("one"), "succeeded")
	live := "one"
	for i, k := range []struct {
		host  int
		point string
		state string
	}{
		{1, "before-intent", "failed"}, // it was not begun there, so the other goes back
		{0, "linked", "succeeded"},
		{1, "linked", "succeeded"},
		{0, "live-line", "succeeded"},
		{1, "live-line", "succeeded"},
	} {
		text := fmt.Sprintf("new-%d", i)
		f.failAt(k.host, "agent", k.point)
		r := f.want(f.push(text), k.state)
		if k.state == "succeeded" {
			live = text
		} else {
			saying(t, why(r), "web2: ", "is current again")
		}
		f.everywhere(live)
		if t.Failed() {
			t.Fatalf("%s at %s: %s", f.hosts[k.host].Name, k.point, why(r))
		}
	}
}

func TestHostThatIsDownFailsItsJobsAlone(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	config := f.config("") + ""
	config = strings.Replace(config, "hosts:\n  web1", `  other:
    on: { hook: { name: webhook } }
    jobs: { one: { hosts: [web1], steps: [ { run: "true" } ] } }
hosts:
  web1`, 1)
	f.start(config)
	f.want(f.push("one"), "succeeded")
	f.hosts[1].Down()
	r := f.want(f.push("two"), "failed")
	saying(t, why(r), "job deploy: ", "web2: ", "refuses the connection")
	f.everywhere("one")
	cmd := trigger("", "", false)
	cmd.Pipeline = "other"
	id, err := f.client.Trigger(t.Context(), cmd)
	if err != nil {
		t.Fatal(err)
	}
	f.want(id, "succeeded")
	_, err = f.client.Rollback(t.Context(), rollback(""))
	refusal(t, err, "web2: ")
	list, err := f.client.Releases(t.Context(), "shop")
	refusal(t, err, "web2: ")
	if len(list) != 1 || list[0].Host != "web1" || !list[0].Current {
		t.Errorf("beside it the releases are %+v", list)
	}
	reports, err := f.client.Agents(t.Context())
	if err != nil || len(reports) != 4 || reports[2].Error != "" || reports[2].Host != "web1" || len(reports[2].Paths) != 1 || !strings.Contains(reports[3].Error, "refuses the connection") {
		t.Errorf("the agents are %+v, %v", reports, err)
	}
	f.hosts[1].Up()
	f.want(f.push("three"), "succeeded")
	f.everywhere("three")
}

func TestUnfinishedSwitchWaitsForAHostThatIsAway(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	f.start(f.config(""))
	f.want(f.push("one"), "succeeded")
	f.failAt(0, "daemon", "linked")
	id := f.push("two")
	f.died()
	f.hosts[1].Down()
	// Today's file has web2 no more: what is unfinished there is settled all the same.
	web2 := f.hosts[1].YAML()
	today := strings.Replace(strings.Replace(f.config(""), web2, "", 1), "[web1, web2]", "[web1]", 1)
	f.start(today)
	next := f.push("three")
	f.until("the next deploy says what it waits for", func() bool {
		w := text(f.job(next, "deploy").WaitingFor)
		return strings.HasPrefix(w, fmt.Sprintf("web2: unfinished switch of run %d", id)) && strings.HasSuffix(w, "deployhook unlock web2:"+f.path("srv")+" --abandon")
	})
	_, err := f.client.Abandon(t.Context(), "web1", f.path("srv"))
	refusal(t, err, fmt.Sprintf("run %d job deploy is using web1:", id)) // it is web2 that is waited for
	f.hosts[1].Up()
	f.want(id, "succeeded")
	f.want(next, "succeeded")
	f.wantOn("three", "two")
	f.stop()
	f.start(f.config(""))
	f.want(f.push("four"), "succeeded")
	f.everywhere("four")

	// It never comes back.
	f.failAt(0, "daemon", "linked")
	id = f.push("five")
	f.died()
	f.hosts[1].Down()
	f.start(f.config(""))
	f.until("the host can be abandoned", func() bool {
		_, err := f.client.Abandon(t.Context(), "web2", f.path("srv"))
		return err == nil
	})
	r := f.want(id, "lost")
	saying(t, why(r), "web2:"+f.path("srv")+" could not be reached", "was abandoned by ", "; on web1 it ended succeeded")
	f.hosts[1].Up()
	f.want(f.push("six"), "succeeded")
	f.everywhere("six")
}

func TestHostsOfAnotherClockAreDeployedToAndRolledBackAsOthers(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	const year = 365 * 24 * time.Hour
	// The clocks of the hosts are behind, then ahead: they were set meanwhile.
	for i, ahead := range []time.Duration{20 * year, -20 * year} {
		f.start(f.config(strings.Replace(`
      deploy:
        hosts: [web1, web2]
        release: { path: SRV, keep: 2, keep_failed: 0 }
        steps: [ { run: "cp index.txt built.txt" } ]
        restart: '`+f.restarts()+`; ! grep -q "crash.*$DEPLOYHOOK_HOST" index.txt'
`, "SRV", f.path("srv"), 1)), "CLOCK_AHEAD="+ahead.String())
		texts := []string{"one", "two", "three"}
		if i > 0 {
			texts = []string{"four", "five", "six"}
		}
		for _, text := range texts {
			f.want(f.push(text), "succeeded")
		}
		f.everywhere(texts[2])
		f.want(f.push("crash-web2 "+texts[0]), "failed")
		f.everywhere(texts[2])
		list, err := f.client.Releases(t.Context(), "shop")
		if err != nil || len(list) != 4 || !list[0].Current || !list[1].Current {
			t.Errorf("the releases are %+v, %v", list, err)
		}
		got, err := f.client.Rollback(t.Context(), rollback(""))
		if err != nil {
			t.Fatal(err)
		}
		f.want(got.Run, "succeeded")
		f.everywhere(texts[1])
		agents, err := f.client.Agents(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range agents {
			switch off := time.Duration(a.ClockMS)*time.Millisecond + ahead; {
			case a.Local() && a.ClockMS != 0, !a.Local() && off.Abs() > time.Minute:
				t.Errorf("the clock of %s is said to be %d ms ahead, and it is %v behind", a.Host, a.ClockMS, ahead)
			}
		}
		for _, h := range f.hosts {
			b, err := os.ReadFile(filepath.Join(h.Root, ".deployhook/releases.ndjson"))
			want := time.Now().UTC().Add(ahead).Format("2006")[:3] // the decade
			if n := strings.Count(string(b), `"time":"`+want); err != nil || n < 12 {
				t.Errorf("%d lines of the journal are of %s, %v:\n%s", n, want, err, b)
			}
		}
		f.stop()
	}
}

func TestReloadThatTakesAHostOutLeavesRunsOfItToTheirFile(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	jobs := func(hosts, build string) string {
		return f.config(`
      deploy:
        hosts: [` + hosts + `]
        release: ` + f.path("srv") + `
        steps: [ { run: 'cp index.txt built.txt; ` + build + `' } ]
        restart: '` + f.restarts() + `'
`)
	}
	f.start(jobs("web1, web2", `touch `+f.path("testing")+`; while ! test -e `+f.path("go")+`; do sleep 0.02; done`))
	one := f.push("one")
	f.testing()
	today := strings.Replace(jobs("web1", "true"), f.hosts[1].YAML(), "", 1)
	f.write("deploy.yaml", today)
	if _, err := f.client.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.write("go", "")
	f.want(one, "succeeded")
	f.wantOn("one", "one")
	f.want(f.push("two"), "succeeded")
	f.wantOn("two", "one")
	list, err := f.client.Releases(t.Context(), "shop")
	if err != nil || len(list) != 2 || list[0].Host != "web1" || list[1].Host != "web1" {
		t.Errorf("the releases are %+v, %v", list, err)
	}
}

func TestCachesOfAHostStayThere(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	config := f.config(`
      test: { hosts: [web1, web2], steps: [ { name: cached, run: 'echo "$DEPLOYHOOK_HOST finds $(cat kept/text || echo nothing)"; mkdir -p kept; echo "$(cat index.txt) of $DEPLOYHOOK_HOST" > kept/text' } ] }
`)
	f.start(strings.Replace(config, "on: { push: { branches: [main] } }", "on: push\n    cache: [kept]", 1))
	found := func(text string) string {
		t.Helper()
		id := f.want(f.pushTo("refs/heads/main", text, defaults("main")), "succeeded").ID
		lines := slices.DeleteFunc(strings.Split(f.printed(id, "test", "cached"), "\n"), func(l string) bool { return !strings.Contains(l, " finds ") })
		slices.Sort(lines)
		return strings.Join(lines, ", ")
	}
	for _, tt := range []struct{ push, want string }{
		{"one", "web1 finds nothing, web2 finds nothing"},
		{"two", "web1 finds one of web1, web2 finds one of web2"},
	} {
		if got := found(tt.push); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.push, got, tt.want)
		}
	}
	hosts := func() string {
		t.Helper()
		r, err := f.client.Caches(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, set := range r.Sets {
			list = append(list, fmt.Sprintf("%s has %d of %s", set.Host, set.Files, set.Kind))
		}
		for _, silent := range r.Silent {
			list = append(list, silent.Host+" is silent")
		}
		slices.Sort(list)
		return strings.Join(list, ", ")
	}
	if got, want := hosts(), "web1 has 1 of branch, web2 has 1 of branch"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	f.hosts[1].Down()
	if got, want := hosts(), "web1 has 1 of branch, web2 is silent"; got != want {
		t.Errorf("with web2 down %q, want %q", got, want)
	}
	f.hosts[1].Up()
	if got, want := found("three"), "web1 finds two of web1, web2 finds two of web2"; got != want {
		t.Errorf("after web2 was down: %q, want %q", got, want)
	}
}

// newest is the name of the release that was made last.
func (f *fleet) newest() string {
	f.t.Helper()
	list, err := f.client.Releases(f.t.Context(), "shop")
	if len(list) == 0 {
		f.t.Fatal(err)
	}
	return list[0].ID
}

// stands are the hosts of a job as `run ID --json` shows them: state, phase,
// and the beginning of the error.
func stands(j web.Job) string {
	var list []string
	for _, h := range j.Hosts {
		s := h.Name + " " + h.State + " " + text(h.Phase)
		if h.Error != nil {
			s += " (" + text(h.Error) + ")"
		}
		list = append(list, s)
	}
	return strings.Join(list, "; ")
}

func TestRunSaysOfEachHostHowFarItCame(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	f.start(f.config(`
      test:
        hosts: [web1, web2, web3]
        steps: [ { run: '! grep -q "untested.*$DEPLOYHOOK_HOST" index.txt' } ]
      deploy:
        hosts: [web1, web2, web3]
        release: ` + f.path("srv") + `
        steps:
          - { name: build, run: 'cp index.txt built.txt; ! grep -q "bad.*$DEPLOYHOOK_HOST" index.txt' }
          - { name: meddle, run: 'if grep -q "moved.*$DEPLOYHOOK_HOST" index.txt; then ln -sfn elsewhere ` + f.current() + `; fi' }
        restart: '` + f.restarts() + `; ! grep -q "crash.*$DEPLOYHOOK_HOST" index.txt && if grep -q "gone.*$DEPLOYHOOK_HOST" index.txt; then kill -9 $PPID; fi'
`))
	r := f.want(f.push("one"), "succeeded")
	wantStands := func(what string, r web.Run, job int, want string) {
		t.Helper()
		if got := stands(r.Jobs[job]); got != want {
			t.Errorf("%s: the hosts stand\n%s, want\n%s", what, got, want)
		}
	}
	wantStands("tested", r, 0, "web1 succeeded ; web2 succeeded ; web3 succeeded ")
	wantStands("deployed", r, 1, "web1 succeeded live; web2 succeeded live; web3 succeeded live")

	r = f.want(f.push("untested web2"), "failed")
	wantStands("a test that fails on one", r, 0, "web1 succeeded ; web2 failed  (step ! grep -q \"untested.*$DEPLOYHOOK_HOST\" index.txt: exit status 1); web3 succeeded ")
	wantStands("what needs it", r, 1, "web1 skipped ; web2 skipped ; web3 skipped ")

	r = f.want(f.push("bad web2"), "failed")
	wantStands("a step that fails on one", r, 1, "web1 canceled prepared; web2 failed preparing (step build: exit status 1); web3 canceled prepared")

	r = f.want(f.push("crash web2"), "failed")
	wantStands("a restart that fails on one", r, 1, "web1 canceled put_back; web2 failed put_back (restart: exit status 1); web3 canceled prepared")

	// What somebody did to current on one host keeps its switch from being begun.
	current := filepath.Join(f.hosts[1].Root, "current")
	was, err := os.Readlink(current)
	if err != nil {
		t.Fatal(err)
	}
	r = f.want(f.push("moved web2"), "failed")
	wantStands("a switch that is refused on one", r, 1, "web1 canceled put_back; web2 failed prepared (switching to "+f.newest()+
		": "+f.path("srv")+"/current points to \"elsewhere\", which is no release: move it away first); web3 canceled prepared")
	if err := errors.Join(os.Remove(current), os.Symlink(was, current)); err != nil {
		t.Fatal(err)
	}

	f.failAt(1, "agent", "linked")
	r = f.wantLong(f.push("two"), "succeeded")
	wantStands("an agent that is killed and comes again", r, 1, "web1 succeeded live; web2 succeeded live; web3 succeeded live")

	r = f.wantLong(f.push("gone web2"), "failed")
	wantStands("an agent that each restart kills", r, 1,
		"web1 canceled put_back; web2 failed put_back (the agent ended during the job (it was ended by SIGKILL: a step did it, or the machine is out of memory)); web3 canceled prepared")

	f.hosts[1].Down()
	r = f.want(f.push("three"), "failed")
	wantStands("a host that is down", r, 1, "web1 skipped ; web2 skipped ; web3 skipped ")
	if got := stands(r.Jobs[0]); !strings.HasPrefix(got, "web1 skipped ; web2 failed  (host web2: ") || !strings.HasSuffix(got, "; web3 skipped ") {
		t.Errorf("the test on a host that is down: %s", got)
	}
	f.hosts[1].Up()

	// It is written down as it comes: after a crash nothing is forgotten.
	f.failAt(1, "daemon", "linked")
	id := f.push("crash web3")
	f.died()
	f.start(f.config(""))
	r = f.wantLong(id, "failed")
	wantStands("the daemon killed in the switch", r, 1, "web1 canceled put_back; web2 canceled put_back; web3 failed put_back (restart: exit status 1)")
	f.everywhere("two")
}

func TestFirstCopyOverASlowLineIsSaidOnTheRunAndCanBeCanceled(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	p := f.behind(0)
	lacks := func() {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(f.hosts[0].Home, ".cache", "deployhook")); err != nil {
			t.Fatal(err)
		}
	}
	f.start(f.config(""))
	copied := func(id int64) (web.Run, web.Step) {
		t.Helper()
		r, err := f.client.Run(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range r.Jobs {
			for _, h := range j.Hosts {
				if len(h.Steps) > 0 && h.Steps[0].Name == "copy the agent's program" {
					return r, h.Steps[0]
				}
			}
		}
		return r, web.Step{}
	}

	// What is quick is not worth a step.
	lacks()
	r := f.wantLong(f.push("one"), "succeeded")
	if _, st := copied(r.ID); st.Name != "" && r.Ended.Sub(*r.Started) < 10*time.Second {
		t.Errorf("a run of %v has a step for the copy: %+v", r.Ended.Sub(*r.Started), st)
	}

	exe, _ := ownProgram()
	st, err := os.Stat(exe)
	if err != nil {
		t.Fatal(err)
	}
	p.Limit(st.Size() / 40) // a half or a third of it is sent
	lacks()
	id := f.push("two")
	f.untilLong("the copy is said", func() bool { _, st := copied(id); return st.State == "running" })
	f.untilLong("the copy is whole", func() bool { _, st := copied(id); return st.State == "succeeded" })
	p.Limit(0)
	f.wantLong(id, "succeeded")
	f.everywhere("two")
	saying(t, f.logOf(id), " MB have come, ", " KB a second; about ", " are left")

	p.Limit(st.Size() / 1000)
	lacks()
	id = f.push("three")
	f.untilLong("the copy is said", func() bool { _, st := copied(id); return st.State == "running" })
	began := time.Now()
	if _, err := f.client.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	f.want(id, "canceled")
	if _, st := copied(id); st.State != "canceled" || time.Since(began) > time.Minute {
		t.Errorf("the copy is %+v, %v after the cancel", st, time.Since(began))
	}
	p.Limit(0)
	f.wantLong(f.push("four"), "succeeded")
	f.everywhere("four")
}
