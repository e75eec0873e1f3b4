package daemon_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/web"
)

// An agent of another deployhook: LANG is the variable that reaches it.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "agent" && os.Getenv("LANG") == "other@protocol" {
		conn := os.NewFile(0, "connection")
		fmt.Fprintln(conn, "deployhook-agent 99 1.3 abc")
		_, _ = conn.Read(make([]byte, 1))
		os.Exit(0)
	}
}

func rooted(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("this test mounts a file system and needs root")
	}
	t.Skip("this test mounts a file system and needs root")
}

func TestAgentOfAnotherProtocolMakesJobsWait(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(""), "LANG=other@protocol")
	id := s.push("one")
	s.until("the run waits", func() bool {
		r, err := s.client.Run(t.Context(), id)
		return err == nil && r.State == "waiting" && r.WaitingFor != nil && *r.WaitingFor == "restart deployhook: agent 1.3, daemon test"
	})
	if r, err := s.client.Run(t.Context(), id); err != nil || r.Jobs[0].Attempt > 1 {
		t.Errorf("the job is tried again and again: %+v, %v", r, err)
	}
	if _, err := s.client.Releases(t.Context(), "shop"); err == nil || !strings.Contains(err.Error(), "restart deployhook: agent 1.3, daemon test") {
		t.Errorf("a command that needs an agent: %v", err)
	}
	if _, err := s.client.Cancel(t.Context(), s.push("two")); err != nil {
		t.Errorf("a waiting run cannot be canceled: %v", err)
	}
	s.stop()
	s.start(s.config(""))
	if r := s.ended(id); r.State != "succeeded" && r.State != "canceled" {
		t.Errorf("after the restart the run is %s: %s", r.State, why(r))
	}
}

// journal reads the daemon's id from the lines of a path.
func (s *site) daemonID() string {
	s.t.Helper()
	b, err := os.ReadFile(s.path("srv/.deployhook/releases.ndjson"))
	if err != nil {
		s.t.Fatal(err)
	}
	var l deploy.ReleaseLine
	if err := json.Unmarshal(bytes.SplitN(b, []byte("\n"), 2)[0], &l); err != nil {
		s.t.Fatal(err)
	}
	return l.Daemon
}

func TestJournalThatIsNotUnderstoodIsLeftToAPerson(t *testing.T) {
	t.Parallel()
	const none = "releases/20200101T000000Z-1234567"
	for name, tt := range map[string]struct{ intent, want string }{
		"another daemon":   {`{"format":1,"daemon":"other","run":2,"job":"deploy","attempt":1,"from":"CURRENT","to":"` + none + `","phase":"switching"}`, "another deployhook left an unfinished switch here"},
		"a newer format":   {`{"format":2,"daemon":"DAEMON","more":true}`, "intent.json has format 2, this deployhook writes 1"},
		"an unknown key":   {`{"format":1,"daemon":"DAEMON","run":2,"job":"deploy","attempt":1,"from":"CURRENT","to":"` + none + `","phase":"switching","more":1}`, "intent.json has keys or values that this deployhook does not know"},
		"an unknown phase": {`{"format":1,"daemon":"DAEMON","run":2,"job":"deploy","attempt":1,"from":"CURRENT","to":"` + none + `","phase":"flying"}`, "unknown phase"},
		"garbage":          {"\x00\x01", "intent.json is not JSON"},
		"nothing in it":    {"", "intent.json is not JSON"},
		"another run":      {`{"format":1,"daemon":"DAEMON","run":99,"job":"deploy","attempt":1,"from":"CURRENT","to":"` + none + `","phase":"switching"}`, "an unfinished switch of run 99 job deploy is here"},
		"no release":       {`{"format":1,"daemon":"DAEMON","run":2,"job":"deploy","attempt":1,"from":"CURRENT","to":"releases/../../etc","phase":"switching"}`, "names releases that are none"},
		"moved by hand":    {`{"format":1,"daemon":"DAEMON","run":2,"job":"deploy","attempt":1,"from":"CURRENT","to":"` + none + `","phase":"proving"}`, "which is not what the switch of run 2 left"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.start(s.config(""))
			s.want(s.push("one"), "succeeded")
			current, err := os.Readlink(s.current())
			if err != nil {
				t.Fatal(err)
			}
			intent := strings.NewReplacer("DAEMON", s.daemonID(), "CURRENT", current).Replace(tt.intent)
			file := s.path("srv/.deployhook/intent.json")
			if err := os.WriteFile(file, []byte(intent), 0o644); err != nil {
				t.Fatal(err)
			}
			r := s.want(s.push("two"), "lost")
			command := "deployhook unlock local:" + s.path("srv") + " --abandon"
			if !strings.Contains(why(r), tt.want) || !strings.HasSuffix(why(r), command) || strings.Contains(why(r), "\n") {
				t.Errorf("the error is %q, want %q and how to go on", why(r), tt.want)
			}
			if b, err := os.ReadFile(file); string(b) != intent {
				t.Errorf("the journal was touched: %q, %v", b, err)
			}
			if to, _ := os.Readlink(s.current()); to != current {
				t.Errorf("current was moved to %s", to)
			}
			next := s.push("three")
			s.until("the next deploy waits for the path", func() bool {
				r, err := s.client.Run(t.Context(), next)
				return err == nil && r.WaitingFor != nil && strings.HasSuffix(*r.WaitingFor, command)
			})
			s.stop()
			s.start(s.config("")) // what is blocked stays so
			if r, err := s.client.Run(t.Context(), next); err != nil || terminal(r.State) {
				t.Errorf("after a restart the next run is %+v, %v", r, err)
			}
			if _, err := s.client.Abandon(t.Context(), "local", s.path("srv")); err != nil {
				t.Fatal(err)
			}
			s.want(next, "succeeded")
			s.wantLive("three")
			if _, err := s.client.Abandon(t.Context(), "local", s.path("srv")); err == nil || !strings.Contains(err.Error(), "has no unfinished switch") {
				t.Errorf("a second unlock: %v", err)
			}
		})
	}
}

func TestRestartThatKillsItsAgentHasAnEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	config := s.config(`
      deploy:
        release: ` + s.path("srv") + `
        steps: [ { run: "cp index.txt built.txt" } ]
        restart: 'if grep -q crash index.txt || test -e ` + s.path("kill") + `; then kill -KILL $PPID; sleep 1000; fi'
`)
	s.start(config)
	s.want(s.push("one"), "succeeded")
	r := s.want(s.push("crash"), "failed")
	s.wantLive("one")
	if !strings.Contains(why(r), "is current again") || strings.Contains(why(r), "failed too") {
		t.Errorf("the error is %q", why(r))
	}
	if err := os.WriteFile(s.path("kill"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r = s.want(s.push("two"), "failed") // the old release's restart does it too
	s.wantLive("one")
	if !strings.Contains(why(r), "is current again, but its restart failed too: the agent ended during the job") {
		t.Errorf("the error is %q", why(r))
	}
	os.Remove(s.path("kill"))
	s.want(s.push("three"), "succeeded")
	s.wantLive("three")
}

// launch starts the daemon without waiting for it.
func (s *site) launch(config string) {
	s.t.Helper()
	if err := os.WriteFile(s.configFile(), []byte(config), 0o644); err != nil {
		s.t.Fatal(err)
	}
	s.log = &output{}
	s.cmd = exec.Command("/proc/self/exe", "serve", s.configFile())
	s.cmd.Env = append(os.Environ(), "TEST_SECRET="+secret)
	s.cmd.Stderr = s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) { _ = cmd.Wait(); close(exited) }(s.cmd, s.exited)
}

func TestRestartThatKillsTheDaemonHasAnEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	config := s.config(`
      deploy:
        release: ` + s.path("srv") + `
        steps: [ { run: "cp index.txt built.txt" } ]
        restart: 'if test -e ` + s.path("kill") + `; then sleep 0.3; kill -KILL $(sed "s/.*) . //; s/ .*//" /proc/$PPID/stat); sleep 1000; fi'
`)
	s.start(config)
	s.want(s.push("one"), "succeeded")
	if err := os.WriteFile(s.path("kill"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	id := s.push("two")
	s.died()
	var r web.Run
	starts := 0
	for end := time.Now().Add(90 * time.Second); !terminal(r.State); {
		if time.Now().After(end) {
			t.Fatalf("after %d starts the run has no end: %+v", starts, r)
		}
		s.launch(config)
		starts++
		for dead := false; !dead && !terminal(r.State); {
			select {
			case <-s.exited:
				s.cmd, dead = nil, true
			case <-time.After(5 * time.Millisecond):
				r, _ = s.client.Run(t.Context(), id)
			}
		}
	}
	if r.State != "lost" || !strings.Contains(why(r), "deployhook ended 3 times during the restart; look at ") || starts > 5 {
		t.Errorf("after %d starts the run is %s: %s", starts, r.State, why(r))
	}
	if got := s.live(); got != "one" && got != "two" {
		t.Errorf("%q is live", got)
	}
	os.Remove(s.path("kill"))
	if _, err := s.client.Abandon(t.Context(), "local", s.path("srv")); err != nil {
		t.Fatal(err)
	}
	s.want(s.push("three"), "succeeded")
	s.wantLive("three")
}

// agents lists the process ids of the daemon's children.
func (s *site) agents() []int {
	var pids []int
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) > 1 && f[1] == strconv.Itoa(s.cmd.Process.Pid) {
			pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

// wholeAndOfItsCommit fails unless current, where there is one, points to a
// whole release with the content of the commit in its name.
func (s *site) wholeAndOfItsCommit() {
	s.t.Helper()
	target, err := os.Readlink(s.current())
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		s.t.Fatal(err)
	}
	text := s.live()
	_, short, _ := strings.Cut(target, "-")
	short, _, _ = strings.Cut(short, "-")
	if want := s.git("-C", s.repo(), "show", short+":index.txt"); text != want {
		s.t.Fatalf("current points to %s, whose content is %q, not %q", target, text, want)
	}
}

func TestCurrentIsWholeAfterKillsAtRandomMoments(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	s := newSite(t)
	config := s.config(`
      test: { steps: [ { run: "test -s index.txt" } ] }
      deploy:
        release: { path: ` + s.path("srv") + `, keep: 2 }
        steps: [ { run: "cp index.txt built.txt" } ]
        restart: "! grep -q crash index.txt"
`)
	s.start(config)
	ids := []int64{s.push("first")}
	s.want(ids[0], "succeeded")
	rounds, pushes := 14, 3
	if raced { // every process starts many times slower
		rounds = 6
	}
	for round := range rounds {
		for n := range pushes {
			text := fmt.Sprintf("round %d push %d", round, n)
			if rnd.IntN(4) == 0 {
				text += " crash"
			}
			ids = append(ids, s.push(text))
		}
		timer := time.NewTimer(time.Duration(rnd.IntN(500)) * time.Millisecond)
		for kill := false; !kill; {
			select {
			case <-timer.C:
				kill = true
			default:
				s.wholeAndOfItsCommit() // while it is being switched, too
			}
		}
		who := rnd.IntN(3)
		agents := s.agents()
		if who > 0 {
			for _, pid := range agents {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if who != 1 {
			_ = s.cmd.Process.Kill()
			s.died()
			s.wholeAndOfItsCommit()
			s.start(config)
		}
	}
	for _, id := range ids {
		r := s.ended(id)
		if r.State == "lost" {
			t.Errorf("run %d is lost: %s", id, why(r))
		}
	}
	s.wholeAndOfItsCommit()
	last := s.push("last")
	s.want(last, "succeeded")
	s.wantLive("last")
	s.clean()
	if left, _ := filepath.Glob(s.path("srv/.deployhook/trash-*")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	list, err := s.client.Releases(t.Context(), "shop")
	if err != nil || len(list) > 5 {
		t.Errorf("%d releases are kept, want 2 that were live, 2 that failed, and a rollback target: %+v, %v", len(list), list, err)
	}
	dirs, _ := os.ReadDir(s.path("srv/releases"))
	if len(dirs) != len(list) {
		t.Errorf("there are %d directories for %d releases", len(dirs), len(list))
	}
}

// clean waits until no workspace and no agent but the one kept ahead is left.
func (s *site) clean() {
	s.t.Helper()
	var work, marks []string
	defer func() {
		if s.t.Failed() {
			s.t.Logf("left are %q and %q", work, marks)
		}
	}()
	s.until("no workspace is left", func() bool {
		work, _ = filepath.Glob(s.path("data/agent/work/*"))
		marks, _ = filepath.Glob(s.path("data/agent/agents/*"))
		// The mark of an agent that was killed while it was made is left for a
		// minute: until then nobody can tell it from one that is being made.
		marks = slices.DeleteFunc(marks, func(name string) bool { return strings.HasSuffix(name, ".new") })
		return len(work) == 0 && len(marks) <= 1
	})
}

func TestManyJobsLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config("") + `
  small:
    on: { hook: { name: webhook } }
    jobs:
      one:
        on_crash: stop
        steps: [ { run: 'touch x; (setsid sleep 1000 &); test "$RANDOM" -gt 3000 || kill -KILL $PPID' } ]
`)
	post := func(n int) {
		for i := range n {
			res, err := http.Post("http://"+s.addr+"/hooks/webhook?token="+secret, "application/json", strings.NewReader(fmt.Sprintf(`{"n":%d}`, i)))
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != http.StatusAccepted {
				t.Fatalf("a request was answered %d", res.StatusCode)
			}
		}
		s.until("all runs have ended", func() bool {
			for _, state := range []deploy.State{deploy.Queued, deploy.Waiting, deploy.Running} {
				list, err := s.client.Runs(t.Context(), web.Query{State: string(state), Limit: 1})
				if err != nil || len(list) > 0 {
					return false
				}
			}
			return true
		})
		s.clean()
	}
	// The database's own are left out: its pool of readers, bounded, opens and
	// closes connections of three descriptors each as they are asked for.
	fds := func() (open []string) {
		list, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.cmd.Process.Pid))
		for _, fd := range list {
			if to, err := os.Readlink(fd); err == nil && !strings.Contains(to, ".db") {
				open = append(open, to)
			}
		}
		return open
	}
	post(10)
	// The agent that is kept ahead is among what is counted, and comes a moment
	// after the last job took the one before it.
	s.until("an agent is kept ahead", func() bool { return len(s.agents()) == 1 })
	before := fds()
	many := 200
	if raced {
		many = 50
	}
	post(many)
	var after []string
	defer func() {
		if t.Failed() {
			t.Logf("open before: %q\nopen after: %q", before, after)
		}
	}()
	s.until("no more descriptors are open than before", func() bool { after = fds(); return len(after) <= len(before)+2 })
	// Between an agent's end and the daemon's wait for it there is a moment.
	s.until("no zombie is left", func() bool {
		return !slices.ContainsFunc(s.agents(), func(pid int) bool {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return err == nil && strings.Contains(string(b), ") Z ")
		})
	})
}

func TestStepsThatTamperWithTheReleasePathFailTheirRunOnly(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ step, want string }{
		"removes the journal":  {"rm -rf ../../.deployhook", "was taken away while the path was in use"},
		"removes its release":  {`rm -rf "$DEPLOYHOOK_RELEASE_PATH"`, ""},
		"moves current":        {`ln -sfn ../x ../../current`, "current points to"},
		"current a directory":  {`rm ../../current; mkdir ../../current`, "is a directory, not a link to a release"},
		"removes current":      {`rm ../../current`, "was pointed to nothing while the release was being made"},
		"writes an intent":     {`echo '{}' > ../../.deployhook/intent.json`, "intent.json has format 0"},
		"a pipe for an intent": {`mkfifo ../../.deployhook/intent.json`, "intent.json is not a file"},
		"a pipe for the lines": {`rm ../../.deployhook/releases.ndjson; mkfifo ../../.deployhook/releases.ndjson`, "releases.ndjson is not a file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			config := s.config(`
      deploy:
        release: ` + s.path("srv") + `
        steps: [ { run: 'cp index.txt built.txt; grep -q bad index.txt || exit 0; cp -a ../../current ` + s.path("kept") + `; ` + strings.ReplaceAll(tt.step, "'", "''") + `' } ]
`)
			s.start(config)
			s.want(s.push("one"), "succeeded")
			r := s.ended(s.push("bad"))
			if r.State != "failed" && r.State != "lost" || !strings.Contains(why(r), tt.want) || strings.Contains(why(r), "\n") {
				t.Errorf("the run is %s: %q, want %q", r.State, why(r), tt.want)
			}
			// A person puts things right; deployhook goes on.
			to, err := os.Readlink(s.path("kept"))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.RemoveAll(s.current()), os.Symlink(to, s.current())); err != nil {
				t.Fatal(err)
			}
			if st, err := os.Lstat(s.path("srv/.deployhook/releases.ndjson")); err == nil && !st.Mode().IsRegular() {
				os.Remove(s.path("srv/.deployhook/releases.ndjson"))
			}
			if _, err := os.Lstat(s.path("srv/.deployhook/intent.json")); err == nil || r.State == "lost" {
				if _, err := s.client.Abandon(t.Context(), "local", s.path("srv")); err != nil {
					t.Fatal(err)
				}
			}
			os.Remove(s.path("kept"))
			s.wantLive("one")
			s.want(s.push("two"), "succeeded")
			s.wantLive("two")
		})
	}
}

func TestStepThatFillsTheDiskDoesNotEndDeploying(t *testing.T) {
	t.Parallel()
	rooted(t)
	s := newSite(t)
	if err := os.MkdirAll(s.path("srv"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", s.path("srv"), "tmpfs", 0, "size=20m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(s.path("srv"), syscall.MNT_DETACH) })
	s.start(s.config(`
      deploy:
        release: ` + s.path("srv") + `
        steps: [ { run: 'cp index.txt built.txt; if grep -q full index.txt; then cat /dev/zero > big; fi' } ]
        restart: |
          if grep -q late index.txt; then
            cat /dev/zero > ../../big || true
            yes "" | head -c 8192 >> ../../.deployhook/releases.ndjson || true
          fi
`))
	s.want(s.push("one"), "succeeded")
	s.want(s.push("full"), "failed")
	s.wantLive("one")
	s.want(s.push("two"), "succeeded")
	s.wantLive("two")
	// Full between the switch and its record: it is recorded when there is room.
	id := s.push("late")
	s.until("the disk is full", func() bool { st, err := os.Stat(s.path("srv/big")); return err == nil && st.Size() > 10<<20 })
	s.until("the record was tried", func() bool { return strings.Contains(s.log.String(), "no space left in "+s.path("srv")) })
	s.wantLive("late")
	if err := syscall.Mount("tmpfs", s.path("srv"), "tmpfs", syscall.MS_REMOUNT, "size=256m"); err != nil {
		t.Fatal(err)
	}
	r := s.ended(id)
	if r.State != "succeeded" && r.State != "lost" {
		t.Errorf("the run is %s: %s", r.State, why(r))
	}
	os.Remove(s.path("srv/big"))
	if r.State == "lost" {
		if _, err := s.client.Abandon(t.Context(), "local", s.path("srv")); err != nil {
			t.Fatal(err)
		}
	}
	s.want(s.push("three"), "succeeded")
	s.wantLive("three")
}

// unfinished leaves a switch whose path cannot be opened, and starts again.
func (s *site) unfinished(config string) int64 {
	s.t.Helper()
	s.start(config)
	s.want(s.push("one"), "succeeded")
	s.stop()
	s.start(config, "LANG=both@linked")
	id := s.push("two")
	s.died()
	if err := errors.Join(os.Rename(s.path("srv/.deployhook"), s.path("away")), os.WriteFile(s.path("srv/.deployhook"), nil, 0o644)); err != nil {
		s.t.Fatal(err)
	}
	s.start(config) // READY does not wait for it
	return id
}

func (s *site) unfinishedConfig() string {
	return strings.Replace(s.config(""), "server: {", "server: { workers: 1,", 1) + `
  small:
    on: { hook: { name: webhook } }
    jobs: { one: { steps: [ { run: "true" } ] } }
`
}

func TestUnreachableSwitchHoldsUpOnlyItsPath(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	id := s.unfinished(s.unfinishedConfig())
	next := s.push("three")
	s.until("the next deploy waits for the path", func() bool {
		r, err := s.client.Run(t.Context(), next)
		return err == nil && r.WaitingFor != nil && strings.HasPrefix(*r.WaitingFor, fmt.Sprintf("local: unfinished switch of run %d", id))
	})
	res, err := http.Post("http://"+s.addr+"/hooks/webhook?token="+secret, "application/json", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	var a answer
	err = json.NewDecoder(res.Body).Decode(&a)
	res.Body.Close()
	if err != nil || len(a.Runs) != 1 {
		t.Fatal(a, err)
	}
	s.want(a.Runs[0], "succeeded") // with its one worker
	if err := errors.Join(os.Remove(s.path("srv/.deployhook")), os.Rename(s.path("away"), s.path("srv/.deployhook"))); err != nil {
		t.Fatal(err)
	}
	s.want(id, "succeeded")
	s.want(next, "succeeded")
	s.wantLive("three")
}

func TestUnreachableSwitchCanBeAbandoned(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	id := s.unfinished(s.unfinishedConfig())
	s.until("the path was tried", func() bool { return strings.Contains(s.log.String(), "an unfinished switch cannot be reached") })
	if _, err := s.client.Abandon(t.Context(), "local", s.path("srv")); err != nil {
		t.Fatal(err)
	}
	if r := s.want(id, "lost"); !strings.Contains(why(r), "was abandoned by ") || !strings.Contains(why(r), "look at what is current there") {
		t.Errorf("the error is %q", why(r))
	}
	// Its journal comes back: the next deploy finds the switch, and touches nothing.
	if err := errors.Join(os.Remove(s.path("srv/.deployhook")), os.Rename(s.path("away"), s.path("srv/.deployhook"))); err != nil {
		t.Fatal(err)
	}
	if r := s.want(s.push("three"), "lost"); !strings.Contains(why(r), fmt.Sprintf("an unfinished switch of run %d job deploy is here", id)) {
		t.Errorf("the error is %q", why(r))
	}
	if _, err := s.client.Abandon(t.Context(), "local", s.path("srv")); err != nil {
		t.Fatal(err)
	}
	s.want(s.push("four"), "succeeded")
	s.wantLive("four")
}

func TestAbandonedSwitchCanBeRolledBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.extra = "        on_crash: stop\n"
	s.start(s.config(""))
	s.want(s.push("one"), "succeeded")
	s.stop()
	s.start(s.config(""), "LANG=both@linked")
	id := s.push("two")
	s.died()
	s.start(s.config(""))
	s.want(id, "lost")
	if _, err := s.client.Abandon(t.Context(), "local", s.path("srv")); err != nil {
		t.Fatal(err)
	}
	s.wantLive("two")
	got, err := s.client.Rollback(t.Context(), rollback(""))
	if err != nil {
		t.Fatal(err)
	}
	s.want(got.Run, "succeeded")
	s.wantLive("one")
}

func TestCrashStopBeforeTheSwitchStopsTheNextDeployToo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	config := s.config(`
      deploy:
        release: ` + s.path("srv") + `
        on_crash: stop
        steps: [ { run: 'cp index.txt built.txt; if grep -q migrate index.txt; then touch ` + s.path("half") + `; sleep 1000; fi' } ]
`)
	s.start(config)
	s.want(s.push("one"), "succeeded")
	for n, end := range []func(){func() { _ = s.cmd.Process.Kill(); s.died() }, s.stop} {
		id := s.push(fmt.Sprint("migrate ", n))
		s.until("half of the migration is done", func() bool { _, err := os.Stat(s.path("half")); return err == nil })
		os.Remove(s.path("half"))
		end()
		s.start(config)
		r := s.want(id, "lost")
		command := "deployhook unlock local:" + s.path("srv") + " --abandon"
		if !strings.Contains(why(r), "on_crash is stop: nobody knows how far its steps came") || !strings.HasSuffix(why(r), command) {
			t.Errorf("the error is %q", why(r))
		}
		next := s.push(fmt.Sprint("next ", n))
		s.until("the next deploy waits", func() bool {
			r, err := s.client.Run(t.Context(), next)
			return err == nil && r.WaitingFor != nil && strings.HasSuffix(*r.WaitingFor, command)
		})
		if _, err := s.client.Abandon(t.Context(), "local", s.path("srv")); err != nil {
			t.Fatal(err)
		}
		s.want(next, "succeeded")
		s.wantLive(fmt.Sprint("next ", n))
	}
}

func TestFailedReleasesNeverPushTheGoodOnesOut(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(strings.Replace(s.config(""), "release: "+s.path("srv"), "release: { path: "+s.path("srv")+", keep: 2 }", 1))
	for _, text := range []string{"one", "two"} {
		s.want(s.push(text), "succeeded")
	}
	for n := range 4 {
		s.want(s.push(fmt.Sprint("crash ", n)), "failed")
	}
	list, err := s.client.Releases(t.Context(), "shop")
	if err != nil || len(list) != 4 {
		t.Errorf("there are %d releases, want 2 good ones and 2 failed: %+v, %v", len(list), list, err)
	}
	got, err := s.client.Rollback(t.Context(), rollback(""))
	if err != nil {
		t.Fatal(err)
	}
	s.want(got.Run, "succeeded")
	s.wantLive("one")
}

func TestLongValuesAreCutOrRefusedInOneSentence(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(`
      test: { steps: [ { run: 'test "${#DEPLOYHOOK_MESSAGE}" -eq 16384; env | wc -c' } ] }
      deploy: { release: ` + s.path("srv") + `, env: { BIG: "${{ payload.big }}" }, steps: [ { name: big, run: "cp index.txt built.txt" } ] }
`))
	sha := s.commit("one")
	a := s.send(strings.Repeat("0", 40), sha, func(p map[string]any) {
		p["head_commit"] = map[string]any{"id": sha, "message": strings.Repeat("m", 1<<20)}
		p["big"] = strings.Repeat("x", 200_000)
	})
	r := s.want(a.Runs[0], "failed")
	if !strings.HasPrefix(why(r), "job deploy: step big: env BIG: ") || strings.Contains(why(r), "\n") || len(why(r)) > 500 {
		t.Errorf("the error is %q", why(r))
	}
}

func TestErrorsOfPruningAreAWarningOnASucceededRun(t *testing.T) {
	t.Parallel()
	rooted(t)
	s := newSite(t)
	s.start(strings.Replace(s.config(""), "release: "+s.path("srv"), "release: { path: "+s.path("srv")+", keep: 1, keep_failed: 0 }", 1))
	s.want(s.push("one"), "succeeded")
	oldest, err := filepath.EvalSymlinks(s.current())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", oldest, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(oldest, syscall.MNT_DETACH) })
	s.want(s.push("two"), "succeeded")
	r := s.want(s.push("three"), "succeeded")
	s.wantLive("three")
	steps := r.Jobs[1].Hosts[0].Steps
	last := steps[len(steps)-1]
	if last.Name != "prune" || last.Error == nil || !strings.Contains(*last.Error, "warning: removing old releases: removing release "+filepath.Base(oldest)) {
		t.Errorf("the last step is %+v", last)
	}
	if !strings.Contains(s.logOf(r.ID), "deployhook: a warning: removing old releases: ") {
		t.Errorf("the log does not say it:\n%s", s.logOf(r.ID))
	}
}

func TestReleaseOfATakenNameGetsTheNextOne(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(""))
	before := s.commit("one")
	// Whatever second it will be, the name is taken, by somebody else's files.
	var taken []string
	for n := range 120 {
		dir := filepath.Join(s.path("srv/releases"), deploy.ReleaseID(time.Now().Add(time.Duration(n)*time.Second), before, 1))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		taken = append(taken, dir)
	}
	s.last = before
	s.want(s.send(strings.Repeat("0", 40), before).Runs[0], "succeeded")
	s.wantLive("one")
	if target, _ := os.Readlink(s.current()); !strings.HasSuffix(target, before[:7]+"-2") {
		t.Errorf("current points to %s, want a name that ends in -2", target)
	}
	for _, dir := range taken {
		list, err := os.ReadDir(dir)
		if err != nil || len(list) > 0 {
			t.Fatalf("%s was used or removed: %v, %v", dir, list, err)
		}
	}
}

func TestReleasesShareNoFileAndHaveTheirModes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(""))
	if err := errors.Join(os.WriteFile(filepath.Join(s.repo(), "run.sh"), []byte("#!/bin/sh\n"), 0o777), os.Symlink("/etc/passwd", filepath.Join(s.repo(), "link"))); err != nil {
		t.Fatal(err)
	}
	inode := map[uint64]string{}
	for _, text := range []string{"one", "two"} {
		s.want(s.push(text), "succeeded")
		dir, err := filepath.EvalSymlinks(s.current())
		if err != nil {
			t.Fatal(err)
		}
		modes := map[string]fs.FileMode{}
		err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			st, err := d.Info()
			if err != nil {
				return err
			}
			modes[strings.TrimPrefix(path, dir)] = st.Mode()
			sys := st.Sys().(*syscall.Stat_t)
			if other := inode[sys.Ino]; other != "" {
				t.Errorf("%s and %s are one file", path, other)
			}
			inode[sys.Ino] = path
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if modes[""] != 0o755|fs.ModeDir || modes["/index.txt"] != 0o644 || modes["/run.sh"] != 0o755 || modes["/link"]&fs.ModeSymlink == 0 {
			t.Errorf("the modes are %v", modes)
		}
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(s.current()), "current", "index.txt"), []byte("edited"), 0o644); err != nil {
		t.Fatal(err)
	}
	list, err := s.client.Releases(t.Context(), "shop")
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	b, err := os.ReadFile(filepath.Join(s.path("srv/releases"), list[1].ID, "index.txt"))
	if err != nil || string(b) != "one\n" {
		t.Errorf("editing one release changed another: %q, %v", b, err)
	}
}

// switching pushes a text whose restart waits, and waits until it does.
func (s *site) switching(text string) int64 {
	s.t.Helper()
	os.Remove(s.path("go"))
	os.Remove(s.path("waits"))
	id := s.push(text)
	s.until("the switch is made", func() bool { _, err := os.Stat(s.path("waits")); return err == nil })
	return id
}

func (s *site) waitingRestart() string {
	return s.config(`
      deploy:
        release: ` + s.path("srv") + `
        steps: [ { run: "cp index.txt built.txt" } ]
        restart: 'if grep -q wait index.txt; then touch ` + s.path("waits") + `; until test -e ` + s.path("go") + `; do sleep 0.02; done; fi; ! grep -q crash index.txt'
`)
}

func TestRollbackDuringASwitchNamesBothCandidates(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.waitingRestart())
	var names []string
	for _, text := range []string{"one", "two"} {
		s.want(s.push(text), "succeeded")
		to, err := os.Readlink(s.current())
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.Base(to))
	}
	id := s.switching("wait three")
	_, err := s.client.Rollback(t.Context(), rollback(""))
	if err == nil || !strings.Contains(err.Error(), "--to "+names[1]) || !strings.Contains(err.Error(), "--to "+names[0]) {
		t.Errorf("a rollback without a target: %v; want %v named", err, names)
	}
	got, err := s.client.Rollback(t.Context(), rollback(names[0]))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.client.Run(t.Context(), got.Run); err != nil || terminal(r.State) {
		t.Errorf("the rollback did not wait: %+v, %v", r, err)
	}
	if err := os.WriteFile(s.path("go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s.want(id, "succeeded")
	s.want(got.Run, "succeeded")
	s.wantLive("one")
}

func TestCancelAfterTheSwitchPutsTheOldReleaseBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.waitingRestart())
	s.want(s.push("one"), "succeeded")
	id := s.switching("wait two")
	s.wantLive("wait two")
	if _, err := s.client.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	r := s.want(id, "canceled")
	s.wantLive("one")
	if !strings.Contains(why(r), "is current again") {
		t.Errorf("the cause is %q", why(r))
	}
	if _, err := os.Stat(s.path("srv/.deployhook/intent.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the intent is still there: %v", err)
	}
	s.want(s.push("three"), "succeeded")
}

func TestSecondDaemonOnAPathWaitsAndNamesTheFirst(t *testing.T) {
	t.Parallel()
	s, other := newSite(t), newSite(t)
	s.start(s.waitingRestart())
	s.want(s.push("one"), "succeeded")
	s.switching("wait two")
	// Another daemon with another data directory and the same release path.
	other.start(strings.ReplaceAll(other.config(""), other.path("srv"), s.path("srv")))
	id := other.push("foreign")
	var r web.Run
	for end := time.Now().Add(2 * time.Minute); !terminal(r.State) && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		r, _ = other.client.Run(t.Context(), id) // it waits a minute for the lock
	}
	r = other.want(id, "failed")
	if !strings.Contains(why(r), s.path("srv")+" is in use by run 2 job deploy (agent pid ") {
		t.Errorf("the error is %q", why(r))
	}
	s.wantLive("wait two")
	if err := os.WriteFile(s.path("go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s.want(2, "succeeded")
}

func TestOutputOfEveryKindIsKept(t *testing.T) {
	much := "200000000"
	if raced { // the memory is not looked at, and all is many times slower
		much = "10000000"
	}
	s := newSite(t)
	s.start(s.config(`
      test:
        steps:
          - { name: no newline, run: 'printf "no newline"' }
          - { name: binary, run: 'head -c 100000 /dev/urandom; printf "\nbinary end\n"' }
          - { name: long line, run: 'head -c 1000000 /dev/zero | tr "\0" x; echo; echo long end' }
          - { name: much, run: '(yes "a line of some length that is not very short" || true) | head -c ` + much + `; echo; echo much end' }
          - { name: memory, run: 'grep VmHWM /proc/$PPID/status /proc/$(sed "s/.*) . //; s/ .*//" /proc/$PPID/stat)/status' }
      deploy: { release: ` + s.path("srv") + ` }
`))
	id := s.push("one")
	s.want(id, "succeeded")
	var last []string
	var sizes []int
	err := s.client.Log(t.Context(), id, "test", "", false, func(l web.Line) error {
		if i := strings.Index(l.Text, "VmHWM:"); i >= 0 {
			kb, err := strconv.Atoi(strings.Fields(l.Text[i:])[1])
			sizes = append(sizes, kb)
			return err
		}
		for _, want := range []string{"no newline", "binary end", "long end", "much end"} {
			if strings.HasSuffix(l.Text, want) && !slices.Contains(last, want) {
				last = append(last, want)
			}
		}
		return nil
	})
	if err != nil || strings.Join(last, ", ") != "no newline, binary end, long end, much end" {
		t.Errorf("the log has the ends %q, %v", last, err)
	}
	t.Logf("agent and daemon took %v kB", sizes)
	// The daemon is this test's program, which is half as large again as
	// deployhook: go run ./bench output measures that one.
	if len(sizes) != 2 || !raced && (sizes[0] > 30_000 || sizes[1] > 66_000) {
		t.Errorf("agent and daemon took %v kB, want 30,000 and 66,000 at most", sizes)
	}
}

func TestReleaseIsItsCommitWhateverWasDoneToTheOneBefore(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for name, text := range map[string]string{"stepped.txt": "stepped\n", "live.txt": "live\n", "gone.txt": "gone\n"} {
		if err := os.WriteFile(filepath.Join(s.repo(), name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.start(s.config(`
      deploy:
        release: ` + s.path("srv") + `
        steps: [ { run: 'cat stepped.txt live.txt; echo by a step >> stepped.txt' } ]
`))
	s.want(s.push("one"), "succeeded")
	current := s.path("srv/current")
	if err := os.WriteFile(filepath.Join(current, "live.txt"), []byte("by the application\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(current, "gone.txt")); err != nil {
		t.Fatal(err)
	}
	s.want(s.push("two"), "succeeded")
	for name, want := range map[string]string{"stepped.txt": "stepped\nby a step\n", "live.txt": "live\n", "gone.txt": "gone\n", "index.txt": "two\n"} {
		if b, err := os.ReadFile(filepath.Join(current, name)); string(b) != want || err != nil {
			t.Errorf("%s is %q, %v; want %q", name, b, err, want)
		}
	}
}
