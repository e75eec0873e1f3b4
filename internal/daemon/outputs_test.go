package daemon_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
)

// outputsOf are the outputs of a job of a run.
func (s *site) outputsOf(run int64, job string) map[string]string {
	s.t.Helper()
	all, err := s.client.Outputs(s.t.Context(), run)
	if err != nil {
		s.t.Fatal(err)
	}
	return all[job]
}

func TestOutputsOfAJobReachLaterJobs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(`
      build:
        steps:
          - run: 'test ! -s "$DEPLOYHOOK_OUTPUT"; echo "version=1.$(cat index.txt)" >> "$DEPLOYHOOK_OUTPUT"; echo old=1 >> "$DEPLOYHOOK_OUTPUT"'
          - run: 'test ! -s "$DEPLOYHOOK_OUTPUT"; printf "old=2\nnotes<<END\nfirst = 1\n  second\nEND\nmy-key=\"; touch pwned\"\n" >> "$DEPLOYHOOK_OUTPUT"'
          - { run: 'echo broken=yes >> "$DEPLOYHOOK_OUTPUT"; exit 3', continue_on_error: true }
          - { run: 'rm "$DEPLOYHOOK_OUTPUT"' }
      skipped:
        if: needs.build.outputs.version == "2.0"
        steps: [ { run: "false" } ]
      deploy:
        needs: [build]
        if: needs.build.outputs.version startsWith "1." && needs.build.outputs.nothing == nil
        release: ` + s.path("srv") + `
        env: { VERSION: "v${{ needs.build.outputs.version }}", NOTES: "${{ needs.build.outputs.notes }}", KEY: '${{ needs.build.outputs["my-key"] }}' }
        steps:
          - run: 'cp index.txt built.txt; printf "%s|%s|%s|%s" "$VERSION" "$NOTES" "$KEY" "$OLD" > ` + s.path("got") + `'
            env: { OLD: "${{ needs.build.outputs.old }},${{ needs.build.outputs.broken }},${{ needs.build.outputs.nothing }}" }
        restart: 'echo at=restart >> "$DEPLOYHOOK_OUTPUT"'
      last:
        env: { AT: "${{ needs.deploy.outputs.at }} ${{ needs.build.outputs.version }}" }
        steps: [ { run: 'printf %s "$AT" > ` + s.path("last") + `' } ]
`))
	id := s.push("one")
	s.want(id, "succeeded")
	for file, want := range map[string]string{"got": "v1.one|first = 1\n  second|\"; touch pwned\"|2,yes,", "last": "restart 1.one"} {
		if b, err := os.ReadFile(s.path(file)); err != nil || string(b) != want {
			t.Errorf("%s is %q, %v, want %q", file, b, err, want)
		}
	}
	if got := s.outputsOf(id, "build"); len(got) != 5 || got["notes"] != "first = 1\n  second" {
		t.Errorf("the outputs are %q", got)
	}
}

func TestBadOutputsAreOneSentenceOfTheStep(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var jobs strings.Builder
	want := map[string]string{}
	add := func(name, run, text string) {
		fmt.Fprintf(&jobs, "\n      %s: { needs: [], secrets: { PASS: { environment: OTHER_SECRET } }, steps: [ { name: write, run: '%s' } ] }", name, run)
		want[name] = text
	}
	add("line", `printf "a=1\nno line\n" > "$DEPLOYHOOK_OUTPUT"`, "line 2 of $DEPLOYHOOK_OUTPUT is not KEY=value")
	add("name", `echo "a b=1" > "$DEPLOYHOOK_OUTPUT"`, "line 1 of $DEPLOYHOOK_OUTPUT is not KEY=value: a name begins with")
	add("block", `printf "a=1\n\nb<<END\nx\n" > "$DEPLOYHOOK_OUTPUT"`, "line 3 of $DEPLOYHOOK_OUTPUT begins a block that no line ends")
	add("large", `head -c 70000 /dev/zero | tr "\0" x > "$DEPLOYHOOK_OUTPUT"`, "are over 64 KiB")
	add("many", `for i in $(seq 65); do echo "k$i=1"; done > "$DEPLOYHOOK_OUTPUT"`, "has more than 64 outputs")
	add("nul", `printf "a=\0b\n" > "$DEPLOYHOOK_OUTPUT"`, "has a NUL byte")
	add("link", `ln -sf /etc/passwd "$DEPLOYHOOK_OUTPUT"`, "is no file any more, but a link")
	add("fifo", `rm "$DEPLOYHOOK_OUTPUT"; mkfifo "$DEPLOYHOOK_OUTPUT"`, "is no file any more")
	add("secret", `echo "token=x-$PASS" > "$DEPLOYHOOK_OUTPUT"`, "the output token holds a secret")
	add("encoded", `echo "token=$(printf %s "$PASS" | base64)" > "$DEPLOYHOOK_OUTPUT"`, "the output token holds a secret")
	add("failed", `echo "no line" > "$DEPLOYHOOK_OUTPUT"; exit 3`, "exit status 3")
	s.start(strings.Replace(s.config(jobs.String()), "shutdown_grace: 2s", "shutdown_grace: 2s, workers: 4", 1), "OTHER_SECRET=very-secret-text-0123")
	id := s.push("one")
	r := s.want(id, "failed")
	saying(t, why(r), "job line: step write: line 2")
	for _, j := range r.Jobs {
		if got := text(j.Error); !strings.HasPrefix(got, "step write: ") || !strings.Contains(got, want[j.Name]) || strings.Contains(got, "very-secret") {
			t.Errorf("job %s: %q, want %q", j.Name, got, want[j.Name])
		}
		if got := s.outputsOf(id, j.Name); len(got) != 0 {
			t.Errorf("job %s has outputs %q", j.Name, got)
		}
	}
	saying(t, s.logOf(id), "its outputs do not count: line 1 of $DEPLOYHOOK_OUTPUT is not KEY=value")
}

// The job that wrote an output has ended before the kill, or is a deploy whose
// steps are not run again, or one that begins anew.
func TestOutputsSurviveAKill(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	config := s.config(`
      build: { steps: [ { run: 'echo "version=1" >> "$DEPLOYHOOK_OUTPUT"' } ] }
      again:
        steps:
          - run: 'if mkdir ` + s.path("first") + `; then echo "stale=1" >> "$DEPLOYHOOK_OUTPUT"; else echo "fresh=1" >> "$DEPLOYHOOK_OUTPUT"; fi'
          - run: 'if mkdir ` + s.path("at-again") + `; then sleep 60; fi'
      deploy:
        release: ` + s.path("srv") + `
        steps: [ { run: 'cp index.txt built.txt; echo "steps=$(wc -l < ` + s.path("ran") + `)" >> "$DEPLOYHOOK_OUTPUT"' } ]
        restart: 'if mkdir ` + s.path("at-restart") + `; then sleep 60; fi'
      last:
        env: { GOT: '${{ needs.build.outputs.version }} ${{ needs.again.outputs.stale }} ${{ needs.again.outputs.fresh }} ${{ needs.deploy.outputs.steps }}' }
        steps: [ { run: 'printf %s "$GOT" > ` + s.path("last") + `' } ]
`)
	s.write("ran", "one\n")
	s.start(config)
	id := s.push("one")
	for _, at := range []string{"at-again", "at-restart"} {
		s.until("the run is "+at, func() bool { _, err := os.Stat(s.path(at)); return err == nil })
		_ = s.cmd.Process.Kill()
		s.died()
		s.write("ran", "one\ntwo\n")
		s.start(config)
	}
	s.want(id, "succeeded")
	if b, err := os.ReadFile(s.path("last")); err != nil || string(b) != "1  1 2" {
		t.Errorf("the last job got %q, %v, want %q", b, err, "1  1 2")
	}
	s.wantLive("one")
}

func TestOfSeveralHostsTheFirstOneThatWroteAnOutputCounts(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	f.start(f.config(`
      build:
        hosts: [web2, web1, local]
        steps:
          - run: 'echo "all=$DEPLOYHOOK_HOST" >> "$DEPLOYHOOK_OUTPUT"; if [ "$DEPLOYHOOK_HOST" != web2 ]; then echo "some=$DEPLOYHOOK_HOST" >> "$DEPLOYHOOK_OUTPUT"; fi'
      use:
        hosts: [web1]
        env: { GOT: "${{ needs.build.outputs.all }} ${{ needs.build.outputs.some }}" }
        steps: [ { run: 'echo "got $GOT"' } ]
`))
	id := f.push("one")
	f.want(id, "succeeded")
	saying(t, f.logOf(id), "got web2 web1")
}

func TestPayloadIsDataFromTheStepToTheMessage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config("") + `
  pay:
    on: { hook: { name: webhook } }
    jobs:
      enable:
        env: { TEXT: "${{ payload.text }}", LIST: "${{ payload.list }}", NONE: "${{ payload.none.at.all }}" }
        steps: [ { name: take, run: 'printf "%s|%s|%s" "$TEXT" "$LIST" "$NONE" > ` + s.path("got") + `; cp "$DEPLOYHOOK_PAYLOAD_FILE" ` + s.path("payload") + `' } ]
`)
	post := func(body string) string {
		res, err := http.Post("http://"+s.addr+"/hooks/webhook?token="+secret, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusAccepted {
			t.Fatalf("the payload was answered %d", res.StatusCode)
		}
		s.n++
		r := s.ended(int64(s.n))
		return r.State + ": " + why(r)
	}
	body := `{"text": "two\nlines; $(touch pwned) ${{ sha }} \t\"'", "list": [1, {"a": "b"}]}`
	if got := post(body); got != "succeeded: " {
		t.Fatal(got)
	}
	for file, want := range map[string]string{"got": "two\nlines; $(touch pwned) ${{ sha }} \t\"'|[1,{\"a\":\"b\"}]|", "payload": body} {
		if b, err := os.ReadFile(s.path(file)); err != nil || string(b) != want {
			t.Errorf("%s is %q, %v, want %q", file, b, err, want)
		}
	}
	for body, want := range map[string]string{
		`{"text": "` + strings.Repeat("x", 64<<10) + `"}`:   "succeeded: ",
		`{"text": "` + strings.Repeat("x", 64<<10+1) + `"}`: "failed: job enable: step take: env TEXT: ",
		`{"text": "a\u0000b"}`:                              "failed: job enable: step take: env TEXT: payload.text has a NUL byte, which a variable cannot hold",
		`{"none": "text"}`:                                  "failed: job enable: step take: env NONE: payload.none is a string, not an object",
	} {
		if got := post(body); !strings.HasPrefix(got, want) || len(got) > 300 {
			t.Errorf("%.40s gives %.300q, want %q", body, got, want)
		}
	}
}
