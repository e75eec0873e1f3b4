package main

import (
	"testing"

	"deployhook/internal/web"
)

func TestFailedStepIsTheOneThatTheJobFailedFor(t *testing.T) {
	text := func(s string) *string { return &s }
	steps := func(names ...string) []web.Host {
		h := web.Host{Name: "local", Steps: []web.Step{{Name: "fine", State: "succeeded"}}}
		for _, n := range names {
			h.Steps = append(h.Steps, web.Step{Name: n, State: "failed"})
		}
		return []web.Host{h}
	}
	for name, tt := range map[string]struct {
		run             web.Run
		job, host, step string
	}{
		"named by the error": {web.Run{Jobs: []web.Job{{Name: "a", State: "succeeded"}, {Name: "b", State: "failed", Error: text("step two: exit status 1"), Hosts: steps("one", "two", "three")}}}, "b", "local", "two"},
		"not named":          {web.Run{Jobs: []web.Job{{Name: "b", State: "failed", Error: text("disk full"), Hosts: steps("one", "two")}}}, "b", "local", "two"},
		"no step failed":     {web.Run{Jobs: []web.Job{{Name: "b", State: "failed", Error: text("disk full"), Hosts: steps()}}}, "", "", ""},
		"let pass":           {web.Run{Jobs: []web.Job{{Name: "b", State: "succeeded", Hosts: steps("one")}}}, "", "", ""},
		"on one of several hosts": {web.Run{Jobs: []web.Job{{Name: "b", State: "failed", Error: text("web2: step one: exit status 1"), Hosts: []web.Host{
			{Name: "web1", Steps: steps("one")[0].Steps}, {Name: "web2", Steps: steps("one")[0].Steps}, {Name: "web3", Steps: steps("one")[0].Steps},
		}}}}, "b", "web2", "one"},
	} {
		if job, host, step := failedStep(tt.run); job != tt.job || host != tt.host || step != tt.step {
			t.Errorf("%s: the failed step is %q of %q on %q, want %q of %q on %q", name, step, job, host, tt.step, tt.job, tt.host)
		}
	}
}

func TestStandingSaysWhatRunsOrWhatItWaitsFor(t *testing.T) {
	why := "hold by alice: moving the database"
	for want, run := range map[string]web.Run{
		"run 7: job test is running":                                  {ID: 7, State: "running", Jobs: []web.Job{{Name: "test", State: "running"}, {Name: "deploy", State: "queued"}}},
		"run 7: job deploy waits: hold by alice: moving the database": {ID: 7, State: "waiting", Jobs: []web.Job{{Name: "deploy", State: "waiting", WaitingFor: &why}}},
		"run 7 succeeded":                                             {ID: 7, State: "succeeded", Jobs: []web.Job{{Name: "test", State: "succeeded"}}},
	} {
		if got := standing(run); got != want {
			t.Errorf("standing = %q, want %q", got, want)
		}
	}
}

func TestFailedRunSaysWhyAndWhatNext(t *testing.T) {
	text := func(s string) *string { return &s }
	for want, run := range map[string]web.Run{
		"run 7: job test: exit status 1": {ID: 7, State: "failed", Error: text("job test: exit status 1"), Cause: text("x")},
		"run 7 canceled: by alice":       {ID: 7, State: "canceled", Cause: text("by alice")},
		"run 7 skipped":                  {ID: 7, State: "skipped"},
	} {
		err := failedRun(run)
		if err.Error() != want || hint(err) != "deployhook run 7 shows what failed, deployhook logs 7 all of it" {
			t.Errorf("the error is %q with the hint %q, want %q", err, hint(err), want)
		}
	}
}
