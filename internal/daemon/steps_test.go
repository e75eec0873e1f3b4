package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"deployhook/internal/web"
)

// printed is what a run's steps printed, by step.
func (s *site) printed(id int64, job, step string) string {
	s.t.Helper()
	var b strings.Builder
	err := s.client.Log(s.t.Context(), id, job, step, false, func(l web.Line) error {
		if l.Stream == "stdout" {
			b.WriteString(l.Text + "\n")
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return b.String()
}

// file is what a file holds, without the newline at its end; empty when it is
// not there.
func (s *site) file(name string) string {
	b, _ := os.ReadFile(s.path(name))
	return strings.TrimSuffix(string(b), "\n")
}

// gate is a command that waits until a file is there.
func (s *site) gate(name string) string {
	return "until test -e " + s.path(name) + "; do sleep 0.02; done"
}

// job is a job of a run as it is now.
func (s *site) job(id int64, name string) web.Job {
	s.t.Helper()
	r, err := s.client.Run(s.t.Context(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	i := slices.IndexFunc(r.Jobs, func(j web.Job) bool { return j.Name == name })
	if i < 0 {
		s.t.Fatalf("run %d has no job %s", id, name)
	}
	return r.Jobs[i]
}

func (s *site) untilJob(id int64, name, state string) {
	s.t.Helper()
	s.until(fmt.Sprintf("job %s of run %d is %s", name, id, state), func() bool { return s.job(id, name).State == state })
}

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

// environ is what env -0 printed, by name.
func environ(b []byte) map[string]string {
	env := map[string]string{}
	for kv := range strings.SplitSeq(string(b), "\x00") {
		if name, value, ok := strings.Cut(kv, "="); ok {
			env[name] = value
		}
	}
	return env
}

func TestEveryVariableOfAStepHasItsValue(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	config := s.config(`
      test:
        steps: [ { name: look, run: 'env -0 > ` + s.path("test.env") + `; cat "${DEPLOYHOOK_PAYLOAD_FILE:-/dev/null}" > ` + s.path("payload") + `; pwd; umask' } ]
      deploy:
        release: ` + s.path("srv") + `
        steps: [ { name: build, run: 'cp index.txt built.txt; env -0 > ` + s.path("deploy.env") + `; pwd' } ]
        restart: 'env -0 > ` + s.path("restart.env") + `; pwd'
`)
	s.start(strings.Replace(config, "shutdown_grace: 2s", "shutdown_grace: 2s, url: https://ci.example.com/", 1), "DAEMONS_OWN=secret-of-the-daemon", "DEPLOYHOOK_X=1")
	s.want(s.push("one"), "succeeded")
	first, err := os.Readlink(s.current())
	if err != nil {
		t.Fatal(err)
	}
	before := s.last
	message := strings.Repeat("é", 9000) // 18 KB: cut at 16 KiB, on the border of a character
	after := s.commit("two")
	s.last = after
	id := s.send(before, after, func(p map[string]any) { p["head_commit"].(map[string]any)["message"] = message }).Runs[0]
	s.want(id, "succeeded")
	second, err := os.Readlink(s.current())
	if err != nil {
		t.Fatal(err)
	}

	common := map[string]string{
		"CI": "true", "DEPLOYHOOK": "true",
		"DEPLOYHOOK_RUN_ID": fmt.Sprint(id), "DEPLOYHOOK_PIPELINE": "shop", "DEPLOYHOOK_HOST": "local", "DEPLOYHOOK_EVENT": "push",
		"DEPLOYHOOK_SHA": after, "DEPLOYHOOK_BEFORE": before, "DEPLOYHOOK_REF": "refs/heads/main", "DEPLOYHOOK_BRANCH": "main", "DEPLOYHOOK_TAG": "",
		"DEPLOYHOOK_REPO": "github.com/acme/shop", "DEPLOYHOOK_ACTOR": "alice", "DEPLOYHOOK_MESSAGE": strings.Repeat("é", 8192),
		"DEPLOYHOOK_ENVIRONMENT": "", "DEPLOYHOOK_RUN_URL": fmt.Sprintf("https://ci.example.com/runs/%d", id),
	}
	of := func(name string, more map[string]string) map[string]string {
		t.Helper()
		b, err := os.ReadFile(s.path(name))
		if err != nil {
			t.Fatal(err)
		}
		env := environ(b)
		for _, want := range []map[string]string{common, more} {
			for k, v := range want {
				if got, ok := env[k]; !ok || got != v {
					t.Errorf("%s: %s is %.100q (there: %v), want %.100q", name, k, got, ok, v)
				}
			}
		}
		allowed := []string{"PATH", "HOME", "LANG", "USER", "SHELL", "TMPDIR", "CI", "DEPLOYHOOK", "PWD", "OLDPWD", "SHLVL", "_"}
		for k := range env {
			if !slices.Contains(allowed, k) && (!strings.HasPrefix(k, "DEPLOYHOOK_") || k == "DEPLOYHOOK_X") {
				t.Errorf("%s: the step has %s, which is the daemon's", name, k)
			}
		}
		return env
	}
	env := of("test.env", map[string]string{"DEPLOYHOOK_JOB": "test", "DEPLOYHOOK_STEP": "look"})
	if dir, _, _ := strings.Cut(s.printed(id, "test", ""), "\n"); env["DEPLOYHOOK_WORKSPACE"] != dir || dir == "" {
		t.Errorf("the workspace is %q, the step ran in %q", env["DEPLOYHOOK_WORKSPACE"], dir)
	}
	if !strings.HasSuffix(s.printed(id, "test", ""), "\n0022\n") {
		t.Errorf("the umask is not 022: %q", s.printed(id, "test", ""))
	}
	if !strings.Contains(s.file("payload"), `"login":"alice"`) {
		t.Errorf("the payload's file holds %.100q", s.file("payload"))
	}
	if _, err := os.Stat(env["DEPLOYHOOK_WORKSPACE"]); !os.IsNotExist(err) {
		t.Errorf("the workspace is still there: %v", err)
	}
	release := s.path("srv/" + second)
	places := map[string]string{
		"DEPLOYHOOK_JOB": "deploy", "DEPLOYHOOK_WORKSPACE": release, "DEPLOYHOOK_RELEASE": filepath.Base(second), "DEPLOYHOOK_RELEASE_PATH": release,
		"DEPLOYHOOK_PREVIOUS_RELEASE": filepath.Base(first), "DEPLOYHOOK_CURRENT_PATH": s.current(), "DEPLOYHOOK_SHARED_PATH": s.path("srv/shared"),
	}
	places["DEPLOYHOOK_STEP"] = "build"
	of("deploy.env", places)
	places["DEPLOYHOOK_STEP"] = "restart"
	of("restart.env", places)

	// A run by hand: who, and no payload.
	by, err := s.client.Trigger(t.Context(), trigger("main", "", false))
	if err != nil {
		t.Fatal(err)
	}
	r := s.want(by, "succeeded")
	common = map[string]string{"DEPLOYHOOK_EVENT": "manual", "DEPLOYHOOK_RUN_ID": fmt.Sprint(by), "DEPLOYHOOK_BEFORE": "", "DEPLOYHOOK_BRANCH": "main",
		"DEPLOYHOOK_SHA": after, "DEPLOYHOOK_ACTOR": text(r.Actor), "DEPLOYHOOK_MESSAGE": "two\n"}
	if env := of("test.env", nil); env["DEPLOYHOOK_PAYLOAD_FILE"] != "" || env["DEPLOYHOOK_ACTOR"] == "" {
		t.Errorf("by hand: payload file %q, actor %q", env["DEPLOYHOOK_PAYLOAD_FILE"], env["DEPLOYHOOK_ACTOR"])
	}
	// A tag, and a rollback.
	s.stop()
	s.start(strings.Replace(config, "branches: [main]", "tags: ['v*']", 1))
	s.git("-C", s.repo(), "tag", "-a", "-m", "v", "v1.2")
	tag := s.git("-C", s.repo(), "rev-parse", "v1.2")
	a := s.send(strings.Repeat("0", 40), tag, func(p map[string]any) {
		p["ref"], p["head_commit"] = "refs/tags/v1.2", map[string]any{"id": after, "message": "two"}
	})
	s.want(a.Runs[0], "succeeded")
	common = map[string]string{"DEPLOYHOOK_TAG": "v1.2", "DEPLOYHOOK_BRANCH": "", "DEPLOYHOOK_REF": "refs/tags/v1.2", "DEPLOYHOOK_SHA": after, "DEPLOYHOOK_RUN_URL": ""}
	of("test.env", nil)
	back, err := s.client.Rollback(t.Context(), rollback(filepath.Base(first)))
	if err != nil {
		t.Fatal(err)
	}
	s.want(back.Run, "succeeded")
	common = map[string]string{"DEPLOYHOOK_EVENT": "rollback", "DEPLOYHOOK_SHA": before, "DEPLOYHOOK_RELEASE": filepath.Base(first),
		"DEPLOYHOOK_RELEASE_PATH": s.path("srv/" + first), "DEPLOYHOOK_JOB": "deploy", "DEPLOYHOOK_STEP": "restart"}
	of("restart.env", nil)
}

func TestTheNearestValueOfAVariableCounts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	config := s.config(`
      test:
        env: { B: job, C: job, D: job, E: "${{ env.A }}-${{ env.B }}" }
        secrets: { S: { environment: TEST_SECRET } }
        path: [/opt/one, /opt/two]
        steps:
          - { name: first, run: 'echo "$A $B $C $D $E"; test "$S" = ` + secret + ` && echo same; echo "$PATH"', env: { C: step, N: "${{ env.B }}" } }
          - { name: second, run: 'echo "$A $B $C"' }
`)
	config = "env: { A: top, B: top, C: top, D: top }\n" + strings.Replace(config, "    on: { push", "    env: { B: pipeline, C: pipeline, D: pipeline }\n    on: { push", 1)
	s.start(config)
	id := s.push("one")
	s.want(id, "succeeded")
	lines := strings.Split(s.printed(id, "test", "first"), "\n")
	if lines[0] != "top job step job top-job" || lines[1] != "same" || !strings.HasPrefix(lines[2], "/opt/one:/opt/two:/") {
		t.Errorf("the first step printed %q", lines)
	}
	if got := s.printed(id, "test", "second"); got != "top job job\n" {
		t.Errorf("the second step printed %q: the first one's own variables must be gone", got)
	}
}

func TestDirectoriesAndShellsAreTheStepsThenTheJobs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, dir := range []string{"job", "step"} {
		if err := os.MkdirAll(filepath.Join(s.repo(), dir), 0o755); err != nil {
			t.Fatal(err)
		}
		s.write("repo/"+dir+"/here.txt", dir)
	}
	s.start(s.config(`
      test:
        working_dir: job
        shell: sh
        steps:
          - { name: jobs, run: 'cat here.txt; test -z "$BASH_VERSION" && echo sh' }
          - { name: steps, run: 'cat here.txt; test -n "$BASH_VERSION" && echo bash', working_dir: step, shell: bash }
      deploy:
        release: ` + s.path("srv") + `
        working_dir: job
        steps:
          - { name: pipe fails, run: 'false | true', continue_on_error: true }
          - { name: stops at once, run: 'false; echo went on', continue_on_error: true }
          - { name: where, run: 'cat here.txt; pwd' }
        restart: cat job/here.txt
`))
	id := s.push("one")
	r := s.want(id, "succeeded")
	for step, want := range map[string]string{"jobs": "jobsh\n", "steps": "stepbash\n", "stops at once": ""} {
		job := "test"
		if step == "stops at once" {
			job = "deploy"
		}
		if got := s.printed(id, job, step); got != want {
			t.Errorf("step %s printed %q, want %q", step, got, want)
		}
	}
	steps := r.Jobs[1].Hosts[0].Steps
	if steps[0].State != "failed" || steps[1].State != "failed" || steps[3].State != "succeeded" {
		t.Errorf("without a shell it is not bash -eo pipefail: %+v", steps)
	}
	if got := s.printed(id, "deploy", "where"); !regexp.MustCompile(`^job/.*/releases/[^/]+/job\n$`).MatchString(got) {
		t.Errorf("the deploy job's step ran in %q", got)
	}
}

func TestRetryWaitsLongerEachTime(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(`
      test:
        steps:
          - { name: flaky, run: 'date +%s%N >> ` + s.path("times") + `; test "$(wc -l < ` + s.path("times") + `)" -ge 4', retry: { limit: 5, delay: 100ms, factor: 3 } }
          - { name: never, run: exit 7, retry: { limit: 1, delay: 1ms } }
`))
	id := s.push("one")
	r := s.want(id, "failed")
	if why(r) != "job test: step never: exit status 7" {
		t.Errorf("the error is %q", why(r))
	}
	var times []int64
	for line := range strings.Lines(s.file("times") + "\n") {
		var n int64
		if _, err := fmt.Sscan(line, &n); err != nil {
			t.Fatal(err)
		}
		times = append(times, n/1e6)
	}
	if len(times) != 4 {
		t.Fatalf("%d tries, want 4", len(times))
	}
	for i, least := range []int64{100, 300, 900} {
		if got := times[i+1] - times[i]; got < least {
			t.Errorf("try %d came %d ms after the one before, want at least %d", i+2, got, least)
		}
	}
	log := s.logOf(id)
	for _, want := range []string{"exit status 1; try 2 of 6 in 100ms", "try 3 of 6 in 300ms", "try 4 of 6 in 900ms", "exit status 7; try 2 of 2 in 1ms"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
}

func TestCancelWhileARetryWaitsStartsNoOther(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(`
      test:
        steps: [ { name: flaky, run: 'echo x >> ` + s.path("tries") + `; exit 1', retry: { limit: 3, delay: 10m } } ]
`))
	id := s.push("one")
	s.until("the retry waits", func() bool { return strings.Contains(s.logOf(id), "try 2 of 4 in 10m0s") })
	if _, err := s.client.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	s.want(id, "canceled")
	if got := s.file("tries"); got != "x" {
		t.Errorf("the tries are %q", got)
	}
}

func TestStepIfsSeeStatusNeedsAndPaths(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(`
      test: { steps: [ { run: "true" } ] }
      check:
        steps:
          - { name: changed, run: "true", if: 'changed("index.txt")' }
          - { name: not changed, run: "true", if: 'changed("docs/**")' }
          - { name: needs, run: "true", if: 'needs.test.result == "succeeded"' }
          - { name: may fail, run: exit 1, continue_on_error: true }
          - { name: still fine, run: "true", if: success() }
          - { name: fails, run: exit 4 }
          - { name: after, run: "true" }
          - { name: never mind the branch, run: "true", if: 'branch == "main"' }
          - { name: on failure, run: "true", if: failure() }
          - { name: in any case, run: "true", if: always() }
          - { name: not canceled, run: "true", if: canceled() }
          - { name: wrong path, run: "true", if: 'always() && payload.sender.login.name == "x"' }
      tell: { if: failure(), steps: [ { run: "true" } ] }
      deploy: { needs: [check], release: ` + s.path("srv") + ` }
      on_change: { needs: [test], if: 'changed("**.txt")', steps: [ { run: "true" } ] }
      on_docs: { needs: [test], if: 'changed("docs/**")', steps: [ { run: "true" } ] }
`))
	s.want(s.push("zero"), "failed")
	id := s.push("one")
	r := s.want(id, "failed")
	states := ""
	for _, st := range r.Jobs[1].Hosts[0].Steps {
		states += fmt.Sprintf("%s %s %s\n", st.Name, st.State, text(st.Error))
	}
	want := `changed succeeded 
not changed skipped if is false
needs succeeded 
may fail failed exit status 1
still fine succeeded 
fails failed exit status 4
after skipped a step before it failed
never mind the branch skipped a step before it failed
on failure succeeded 
in any case succeeded 
not canceled skipped if is false
wrong path skipped if is false: payload.sender.login is a string, not an object: there is no payload.sender.login.name
`
	if states != want {
		t.Errorf("the steps are\n%s\nwant\n%s", states, want)
	}
	for name, want := range map[string]string{
		"tell": "succeeded ", "deploy": "skipped job check failed", "on_change": "succeeded ", "on_docs": `skipped its if is false: changed("docs/**")`,
	} {
		if j := s.job(id, name); j.State+" "+text(j.Cause) != want {
			t.Errorf("job %s is %s (%s), want %s", name, j.State, text(j.Cause), want)
		}
	}
	if why(r) != "job check: step fails: exit status 4" {
		t.Errorf("the run's error is %q", why(r))
	}
}

func TestNeedsMakeAGraphAndNoneStartsAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(strings.Replace(s.config(`
      lint: { steps: [ { run: 'touch `+s.path("lint")+`; `+s.gate("unit")+`' } ] }
      unit: { needs: [], steps: [ { run: 'touch `+s.path("unit")+`; `+s.gate("lint")+`' } ] }
      both: { needs: [lint, unit], steps: [ { run: "true" } ] }
      deploy: { release: `+s.path("srv")+` }
`), "shutdown_grace", "workers: 4, shutdown_grace", 1))
	// lint and unit wait for each other: both must run at once.
	r := s.want(s.push("one"), "succeeded")
	end := r.Jobs[2].Hosts[0].Steps[0].Started
	for _, j := range r.Jobs[:2] {
		if !j.Hosts[0].Steps[0].Ended.Before(*end) {
			t.Errorf("job both began before %s had ended", j.Name)
		}
	}
}

func TestSecretThatChangesDuringAJobIsTheNewOneAndMasked(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write("key", "the-first-value-of-it")
	s.start(s.config(`
      test:
        secrets: { KEY: { file: ` + s.path("key") + ` } }
        steps:
          - { name: one, run: 'echo "it is $KEY"; ` + s.gate("go") + `' }
          - { name: two, run: 'echo "it is $KEY"; printf %s "$KEY" > ` + s.path("seen") + `' }
`))
	id := s.push("one")
	s.until("the first step runs", func() bool { return strings.Contains(s.printed(id, "", ""), "it is ***") })
	s.write("key", "another-value-than-before")
	s.write("go", "")
	s.want(id, "succeeded")
	if got := s.file("seen"); got != "another-value-than-before" {
		t.Errorf("the second step had %q", got)
	}
	if log := s.logOf(id); strings.Contains(log, "value") || strings.Count(log, "it is ***") != 2 {
		t.Errorf("the log is\n%s", log)
	}
}
