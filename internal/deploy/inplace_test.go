package deploy_test

import (
	"strings"
	"testing"

	"deployhook/internal/deploy"
)

func TestRecoverInPlaceReadsTheJournal(t *testing.T) {
	const from, to = "releases/20260401T101500Z-aaaaaaa", "releases/20260401T101600Z-bbbbbbb"
	intent := func(change func(*deploy.Intent)) *deploy.Intent {
		in := &deploy.Intent{Format: deploy.IntentFormat, Daemon: "me", Run: 7, Job: "deploy", From: from, To: to, Phase: deploy.Switching}
		change(in)
		return in
	}
	live := []deploy.ReleaseLine{{Release: "20260401T101600Z-bbbbbbb", State: deploy.ReleaseLive, Daemon: "me", Run: 7, Job: "deploy"}}
	for name, tt := range map[string]struct {
		found deploy.Found
		want  deploy.Recovery
		why   string
	}{
		"nothing":               {deploy.Found{}, deploy.RecoverNothing, ""},
		"live":                  {deploy.Found{Current: to, Lines: live}, deploy.RecoverSuccess, ""},
		"live, intent left":     {deploy.Found{Current: to, Lines: live, Intent: intent(func(in *deploy.Intent) { in.Phase = deploy.Proving })}, deploy.RecoverSuccess, ""},
		"before a file changed": {deploy.Found{Current: from, Intent: intent(func(*deploy.Intent) {})}, deploy.RecoverDrop, ""},
		"while files changed":   {deploy.Found{Current: to, Half: true, Intent: intent(func(*deploy.Intent) {})}, deploy.RecoverDrop, ""},
		"the restart":           {deploy.Found{Current: to, Intent: intent(func(in *deploy.Intent) { in.Phase = deploy.Proving })}, deploy.RecoverProve, ""},
		"first deploy":          {deploy.Found{Current: to, Intent: intent(func(in *deploy.Intent) { in.From = "" })}, deploy.RecoverDrop, ""},
		"another run":           {deploy.Found{Current: to, Intent: intent(func(in *deploy.Intent) { in.Run = 6 })}, deploy.RecoverNothing, ""},
		"another job":           {deploy.Found{Current: to, Intent: intent(func(in *deploy.Intent) { in.Job = "other" })}, deploy.RecoverNothing, ""},
		"another daemon":        {deploy.Found{Intent: intent(func(in *deploy.Intent) { in.Daemon = "other" })}, deploy.RecoverBlocked, "another deployhook"},
		"another format":        {deploy.Found{Intent: intent(func(in *deploy.Intent) { in.Format = 9 })}, deploy.RecoverBlocked, "format 9"},
		"names that are none":   {deploy.Found{Intent: intent(func(in *deploy.Intent) { in.To = "../x" })}, deploy.RecoverBlocked, "releases that are none"},
		"cannot be read":        {deploy.Found{Foreign: "it is cut short"}, deploy.RecoverBlocked, "it is cut short"},
	} {
		got, why := deploy.RecoverInPlace(&tt.found, "me", 7, "deploy")
		if got != tt.want || !strings.Contains(why, tt.why) || (why == "") != (tt.why == "") {
			t.Errorf("%s: %s %q, want %s %q", name, got, why, tt.want, tt.why)
		}
	}
}
