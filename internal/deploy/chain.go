package deploy

import "fmt"

// Follow gives the runs of the pipelines that a run of another, which has
// succeeded, starts. A rollback starts none: what it put back has been followed
// before.
func Follow(cfg *Config, run *Run) Decision {
	if run.Event == Rollback {
		return Decision{Message: "a rollback starts no other pipeline"}
	}
	ev := &Event{
		Kind: Chained, Pipeline: run.Pipeline, Repository: run.Repository, Before: run.Before, After: run.Commit, Commit: run.Commit,
		Forced: run.Forced, Actor: run.Actor, Message: run.Message, Why: fmt.Sprintf("run %d of %s succeeded", run.ID, run.Pipeline),
	}
	ev.SetRef(run.Ref)
	return Plan(cfg, ev)
}
