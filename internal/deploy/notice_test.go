package deploy

import (
	"strings"
	"testing"
)

func TestNotificationsSeeTheirRun(t *testing.T) {
	env, err := CompileTemplate("node-${{ branch }}")
	if err != nil {
		t.Fatal(err)
	}
	p := &Pipeline{Name: "shop", Env: []Variable{{Name: "KIND", Value: env}}}
	run := &Run{
		ID: 42, State: Failed, NewRun: NewRun{Pipeline: "shop", Event: Push, Ref: "refs/heads/main", Commit: "3f2c1ab", Actor: "alice", Message: "Fix"},
		Jobs: []RunJob{
			{NewJob: NewJob{Name: "test"}, State: Succeeded},
			{NewJob: NewJob{Name: "deploy"}, State: Failed, Error: "step migrate: exit status 1"},
			{NewJob: NewJob{Name: "tell"}, State: Skipped},
		},
	}
	s := NotifyScope(p, run, EventOf(run))
	s.Notice.Change = Change(Failed)
	text, err := CompileNoticeTemplate("${{ pipeline }} ${{ run }} ${{ change }}/${{ state }}: ${{ job }}: ${{ error }} (${{ branch }}, ${{ sha }}, ${{ actor }}, ${{ env.KIND }}, ${{ needs.test.result }}, [${{ cause }}])")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := text.Expand(s); err != nil || got != "shop 42 failed/failed: deploy: step migrate: exit status 1 (main, 3f2c1ab, alice, node-main, succeeded, [])" {
		t.Errorf("%q, %v", got, err)
	}
	for src, want := range map[string]bool{
		`state == "failed"`: true, `run > 41`: true, `failure()`: true, `success()`: false, `needs.deploy.result == "failed"`: true,
		`change in ["lost", "recovered"]`: false, `error contains "migrate"`: true, `cause == ""`: true,
	} {
		e, err := CompileNotice(src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if ok, why := e.Eval(s); ok != want || why != "" {
			t.Errorf("%s is %v (%s), want %v", src, ok, why, want)
		}
	}
}

func TestWordsOfNotificationsStandThereAlone(t *testing.T) {
	for src, want := range map[string]string{
		"run":             "run has a meaning only in notify",
		"state == 'x'":    "state has a meaning only in notify",
		"error.message":   "error has a meaning only in notify",
		"pipeline == 'x'": "pipeline has a meaning only in notify",
	} {
		if _, err := CompileExpr(src); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", src, err, want)
		}
	}
	for src, want := range map[string]string{
		"secrets.token":  "secrets are not part of messages: what they say leaves this machine",
		"secret":         "secrets are not part of messages: what they say leaves this machine",
		`changed("a")`:   "changed has no meaning in a notification",
		"error.message":  "error is text and has no members",
		"steps.x":        `unknown name "steps"`,
		"changes == 'x'": `unknown name "changes"`,
	} {
		if _, err := CompileNotice(src); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", src, err, want)
		}
	}
}
