package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/doctor"
	"deployhook/internal/setup"
	"deployhook/internal/web"
)

var update = flag.Bool("update", false, "write docs/commands.md anew")

const referenceHead = `# Commands

Made from the program itself: ` + "`make docs`" + ` writes this page, and a test compares it.

- Every command takes ` + "`--config FILE`" + `; without it the file is ` + "`$DEPLOYHOOK_CONFIG`, `./deploy.yaml` or\n  `/etc/deployhook/deploy.yaml`" + `, the first that is there. The daemon's control socket is found by it
  (` + "`server.socket`" + `), also while the file has errors. Who can open the socket may do everything: the
  group ` + "`deployhook-admin`" + `, or the daemon's own where there is no such group.
- Results go to standard output, everything else to standard error: progress, hints, errors.
- Exit codes: **0** done, **1** failed, **2** misused (a wrong flag, a number that is none), **130**
  ended by ctrl-C. ` + "`trigger`, `retry` and `rollback` with `--wait`" + ` exit with the run's outcome: 0 when it
  succeeded, else 1; ctrl-C ends the waiting and not the run.
- Every command that reads has ` + "`--json`" + `, with the facts of the section [JSON](#json).
- Lists are the newest first and bounded: ` + "`--limit` (50, at most 1000) and `--before`" + ` with the last number
  or release of the page before.
- Colour and progress are for terminals; ` + "`NO_COLOR`, `CLICOLOR=0` and `TERM=dumb`" + ` turn colour off. Tables
  fit into 80 columns. What outsiders wrote, and what steps printed, is shown without control sequences.
- Shells complete commands, pipelines, runs with what became of them, releases and jobs:
  ` + "`deployhook completion bash > /etc/bash_completion.d/deployhook`" + `; zsh and fish likewise.

`

// shapes are the objects of --json.
var shapes = []struct {
	title string
	of    any
	about map[string]string
}{
	{"A run: `run`, `trigger`, `retry`, `rollback`; `runs` is an array of them", web.Run{}, map[string]string{
		"id": "its number", "pipeline": "", "state": "`queued`, `waiting`, `running`, `succeeded`, `failed`, `canceled`, `skipped` or `lost`",
		"cause": "why it was canceled or skipped: `superseded by run 43`, `by alice`", "error": "one sentence, of `failed` and `lost`",
		"event": "`push`, `hook`, `schedule`, `manual`, `release`, `workflow_run`, `pipeline` or `rollback`", "ref": "`refs/heads/main`", "commit": "40 hexadecimal digits", "actor": "who pushed or asked",
		"message": "of the head commit", "why": "what brought it about, where no delivery says so: `schedule 0 2 * * *, due at 2026-04-01T02:00:00Z`, `run 41 of build succeeded`", "retry_of": "the run that it retries", "waiting_for": "a sentence: for what, and who holds it",
		"config": "digest of the config that it was accepted under", "delivery": "the delivery that started it", "created": "", "started": "", "ended": "", "jobs": "in the order written",
	}},
	{"A job of a run", web.Job{}, map[string]string{
		"name": "", "state": "as of a run", "cause": "", "error": "", "attempt": "from 1; 0 before it began", "waiting_for": "", "hosts": "",
	}},
	{"A job on one host", web.Host{}, map[string]string{"name": "`local`", "state": "", "steps": "of the last attempt; `restart` is one"}},
	{"A step", web.Step{}, map[string]string{
		"name": "or its command's first line", "state": "", "exit_code": "null also when a signal ended it", "signal": "`SIGKILL`", "error": "", "started": "", "ended": "",
	}},
	{"A line: `logs` prints one object a line", web.Line{}, map[string]string{
		"time": "when it came", "job": "", "attempt": "", "host": "", "step": "", "stream": "`stdout`, `stderr`, or `deployhook` for its own words",
		"text": "without its newline; bytes that are no UTF-8 are U+FFFD", "open": "absent, or true: the next line of this stream continues it",
	}},
	{"A release: `releases` is an array", deploy.Release{}, map[string]string{
		"id": "its directory below `releases/`", "host": "", "path": "of the release job", "commit": "", "run": "that made it, or made it current last",
		"state": "`preparing`, `prepared`, `live` or `bad`", "current": "whether `current` points to it",
	}},
	{"A delivery: `delivery`; `deliveries` is an array of them without `why`", web.Delivery{}, map[string]string{
		"id": "the number that `explain` and `replay` take", "hook": "", "delivery": "the sender's id", "event": "", "received": "", "runs": "numbers",
		"message": "what the sender was answered", "why": "a sentence for each pipeline: `{pipeline, run, why}`",
	}},
	{"`replay`", web.Receipt{}, map[string]string{"delivery": "", "runs": "that it started", "message": ""}},
	{"`check`", checkResult{}, map[string]string{
		"file": "", "errors": "`{file, line, column, path, message}`; line, column and path may be null", "warnings": "the same", "hooks": "names",
		"pipelines": "`{name, repository, jobs}`",
	}},
	{"A set of a cache: `cache` and `cache clear` print an array", deploy.CacheSet{}, map[string]string{
		"pipeline": "", "host": "", "user": "that its jobs run as", "kind": "`branch` or `others`", "dirs": "relative to the workspace", "files": "directories and links among them",
		"bytes": "", "used": "by a job, the last time",
	}},
	{"A hook: `hooks` prints an array", hookView{}, map[string]string{
		"name": "", "provider": "", "url": "for the sender; a token in it is left out", "verified": "what a delivery must have, each a phrase; all of them are needed",
		"allow": "networks that may send", "ranges": "published lists that may send too: `{name, networks, fetched}`; `fetched` is null before `hooks ranges`",
		"pipelines": "that listen to it",
	}},
	{"A line of `doctor`, which is an array of them", doctor.Check{}, map[string]string{
		"name": "what was looked at, as in [doctor](doctor.md); a name may come more than once", "state": "`ok`, `warning` or `failure`", "text": "one sentence",
		"fix": "what to type, one command a line; may be empty",
	}},
	{"`hooks test`", deploy.HookTest{}, map[string]string{"hook": "", "provider": "", "tries": "in the order sent"}},
	{"A try of `hooks test`", deploy.HookTry{}, map[string]string{
		"way": "`local`, server.listen, or `public`, server.url", "address": "", "delivery": "`wrong` or `right`: its signature or token", "ok": "whether it was answered as it must be",
		"status": "of the answer; 0 where there was none", "message": "what was answered, or why nothing was", "took_ms": "milliseconds", "tls": "version and end of the certificate; empty without TLS",
		"from": "the address that the daemon saw; empty when it did not arrive", "text": "one sentence", "fix": "what to do, a line each; may be empty",
	}},
	{"`hooks setup`", setup.WebhookPlan{}, map[string]string{
		"repository": "`OWNER/REPO`", "address": "where the webhook goes, without its query", "id": "GitHub's number; 0 where it is not made yet",
		"changes": "`{setting, have, want}`, never a secret", "others": "numbers of more webhooks that go to the same address",
	}},
	{"`version`", build{}, map[string]string{"version": "", "commit": "of the sources", "changed": "whether they differed from it", "go": "", "system": "`linux/amd64`"}},
}

func reference(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(referenceHead)
	all := commands()[1:]
	for _, g := range groups {
		fmt.Fprintf(&b, "## %s\n\n", g.title)
		for _, name := range g.names {
			found := false
			for _, c := range all {
				// A command of a command stands behind it.
				path := strings.TrimPrefix(c.CommandPath(), "deployhook ")
				if path != name && !strings.HasPrefix(path, name+" ") {
					continue
				}
				found = true
				var help bytes.Buffer
				c.SetOut(&help)
				if err := c.Help(); err != nil {
					t.Fatal(err)
				}
				// What every command has stands at the top of the page.
				text := help.String()
				if from, to := strings.Index(text, "\nFlags of every command:"), strings.Index(text, "\nExample:"); from >= 0 {
					text = text[:from] + text[to:]
				}
				fmt.Fprintf(&b, "### %s\n\n```\n%s```\n\n", path, text)
			}
			if !found {
				t.Errorf("the page has a command %s that is not there", name)
			}
		}
	}
	for _, c := range all {
		if c.GroupID == "" && !c.Parent().HasParent() {
			t.Errorf("the command %s is in no group", c.Name())
		}
	}
	b.WriteString("## JSON\n\nKeys stay; new ones may come. A key whose value is not known is null. Times are RFC 3339 in UTC.\n" +
		"`explain` prints `{\"delivery\": …, \"runs\": […]}` of the objects below.\n\n")
	for _, s := range shapes {
		fmt.Fprintf(&b, "### %s\n\n| key | value | |\n|---|---|---|\n", s.title)
		typ := reflect.TypeOf(s.of)
		for i := range typ.NumField() {
			name, rest, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if name == "-" {
				continue
			}
			about, ok := s.about[name]
			if !ok {
				t.Errorf("%s: nothing is said of %s", s.title, name)
			}
			kind := kindOf(typ.Field(i).Type)
			if strings.Contains(rest, "omitempty") {
				kind += ", may be absent"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, kind, about)
		}
		b.WriteString("\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func kindOf(t reflect.Type) string {
	switch {
	case t == reflect.TypeOf(time.Time{}):
		return "time"
	case t.Kind() == reflect.Pointer:
		return kindOf(t.Elem()) + " or null"
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Slice:
		return "array"
	}
	return "number"
}

func TestReferenceIsThePageOfCommands(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "commands.md")
	want := reference(t)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the program says: make docs", path)
	}
}
