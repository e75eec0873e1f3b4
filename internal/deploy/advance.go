package deploy

import (
	"fmt"
	"slices"
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
			if why := skipReason(run, j, p.Job(j.Name), state, scope); why != "" {
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
func skipReason(run *Run, j *RunJob, spec *Job, state map[string]State, scope func(string) *Scope) string {
	bad := ""
	for _, n := range j.Needs {
		switch s := state[n]; s {
		case Succeeded:
			continue
		case Canceled, Skipped:
			bad = fmt.Sprintf("job %s was %s", n, s)
		case Lost:
			bad = fmt.Sprintf("job %s is lost", n)
		default:
			bad = fmt.Sprintf("job %s %s", n, s)
		}
		break
	}
	if spec == nil {
		return "the config has no such job"
	}
	if spec.If == nil || bad != "" && !spec.If.UsesStatus() {
		return bad
	}
	s := scope(j.Name)
	s.Status = statusOf(run, j, state)
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

// statusOf is what success(), failure() and canceled() see of the jobs before
// one: of all that it needs, also through others. A job that was skipped
// because of a failure does not hide the failure from those after it.
func statusOf(run *Run, j *RunJob, state map[string]State) Status {
	needs := map[string][]string{}
	for _, other := range run.Jobs {
		needs[other.Name] = other.Needs
	}
	var status Status
	seen := map[string]bool{}
	todo := slices.Clone(j.Needs)
	for len(todo) > 0 {
		n := todo[0]
		todo = todo[1:]
		if seen[n] {
			continue
		}
		seen[n] = true
		todo = append(todo, needs[n]...)
		switch state[n] {
		case Failed, Lost:
			status.Failed = true
		case Canceled:
			status.Canceled = true
		case Skipped:
			status.Skipped = true
		}
	}
	return status
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

// WithoutCleanUp leaves out of the moves that cancel a run the jobs that clean
// up after it: their if has always() or canceled(), and something has begun
// that they may have to clean up after.
func WithoutCleanUp(run *Run, p *Pipeline, moves []Move) []Move {
	if !slices.ContainsFunc(run.Jobs, func(j RunJob) bool { return j.Attempt > 0 }) {
		return moves
	}
	return slices.DeleteFunc(moves, func(m Move) bool {
		spec := p.Job(m.Job)
		return spec != nil && spec.If != nil && spec.If.CleansUp() && !spec.Deploys()
	})
}
