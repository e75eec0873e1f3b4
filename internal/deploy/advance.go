package deploy

import (
	"fmt"
	"time"
)

// Advance gives the moves of the jobs whose needs have all ended: they become
// ready, or are skipped with the reason. Without an if, a job runs only when
// all that it needs succeeded. A skip may decide further jobs: these moves are
// in the answer too. scope gives what the if of a job sees; its Status is set
// here.
func Advance(run *Run, p *Pipeline, scope func(job string) *Scope, now time.Time) []Move {
	var moves []Move
	state := map[string]State{}
	for _, j := range run.Jobs {
		state[j.Name] = j.State
	}
	decided := map[string]bool{}
	for changed := true; changed; {
		changed = false
		for i := range run.Jobs {
			j := &run.Jobs[i]
			if j.Ready || decided[j.Name] || j.State != Queued && j.State != Waiting || !ended(j.Needs, state) {
				continue
			}
			decided[j.Name], changed = true, true
			m := Move{Run: run.ID, Job: j.Name, Attempt: j.Attempt, From: j.State, To: j.State, Ready: true, Waiting: j.WaitingFor, At: now}
			if why := skipReason(j, p.Job(j.Name), state, scope); why != "" {
				m.Ready, m.To, m.Cause, m.Waiting = false, Skipped, why, ""
				state[j.Name] = Skipped
			}
			moves = append(moves, m)
		}
	}
	return moves
}

func ended(needs []string, state map[string]State) bool {
	for _, n := range needs {
		if !state[n].Terminal() {
			return false
		}
	}
	return true
}

// skipReason says why a job does not run; empty = it does.
func skipReason(j *RunJob, spec *Job, state map[string]State, scope func(string) *Scope) string {
	bad := ""
	var status Status
	for _, n := range j.Needs {
		switch s := state[n]; s {
		case Succeeded:
			continue
		case Canceled:
			status.Canceled = true
			bad = fmt.Sprintf("job %s was canceled", n)
		case Skipped:
			bad = fmt.Sprintf("job %s was skipped", n)
		case Lost:
			status.Failed = true
			bad = fmt.Sprintf("job %s is lost", n)
		default:
			status.Failed = true
			bad = fmt.Sprintf("job %s %s", n, s)
		}
	}
	if spec == nil {
		return "the config has no such job"
	}
	if spec.If == nil || bad != "" && !spec.If.UsesStatus() {
		return bad
	}
	s := scope(j.Name)
	s.Status = status
	for name, st := range state {
		if r, ok := s.Needs[name]; ok {
			r.Result = st
			s.Needs[name] = r
		}
	}
	ok, why := spec.If.Eval(s)
	switch {
	case ok:
		return ""
	case why != "":
		return "its if is false: " + why
	}
	return "its if is false: " + clip(spec.If.Source())
}

// CancelMoves ends every job of a run that no worker has claimed.
func CancelMoves(run *Run, cause string, now time.Time) []Move {
	var moves []Move
	for _, j := range run.Jobs {
		if j.State == Queued || j.State == Waiting {
			moves = append(moves, Move{Run: run.ID, Job: j.Name, Attempt: j.Attempt, From: j.State, To: Canceled, Cause: cause, At: now})
		}
	}
	return moves
}
