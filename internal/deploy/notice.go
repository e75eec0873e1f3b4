package deploy

// Notice is what expressions of a notification see besides the run's words.
type Notice struct {
	Run      int64
	Pipeline string
	State    State
	Change   Change
	Cause    string
	Error    string // of the run, or of the first of its jobs that has one
}

// NoticeScope is what the if and the text of a notification see of a run: its
// own names, needs of all its jobs, and as job the first one that failed.
func NoticeScope(p *Pipeline, run *Run, change Change) *Scope {
	ev := &Event{
		Kind: run.Event, Hook: run.Hook, Repository: run.Repository, Before: run.Before, Commit: run.Commit,
		Actor: run.Actor, Message: run.Message, Inputs: run.Inputs,
	}
	ev.SetRef(run.Ref)
	n := &Notice{Run: run.ID, Pipeline: run.Pipeline, State: run.State, Change: change, Cause: run.Cause, Error: run.Error}
	s := &Scope{Event: ev, SHA: run.Commit, Env: map[string]string{}, Needs: map[string]NeedResult{}, Notice: n}
	for _, v := range p.Env {
		if text, err := v.Value.Expand(s); err == nil {
			s.Env[v.Name] = text
		}
	}
	for i := range run.Jobs {
		j := &run.Jobs[i]
		s.Needs[j.Name] = NeedResult{Result: j.State}
		switch j.State {
		case Failed, Lost:
			if s.Job == "" {
				s.Job = j.Name
			}
			if n.Error == "" {
				n.Error = j.Error
			}
			s.Status.Failed = true
		case Canceled:
			s.Status.Canceled = true
		case Skipped:
			s.Status.Skipped = true
		}
	}
	return s
}
