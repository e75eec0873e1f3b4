package deploy

// State is where a run, a job or a step stands.
type State string

// The states. Succeeded, failed, canceled, skipped and lost are terminal.
const (
	Queued    State = "queued"    // waits for its needs or for a worker
	Waiting   State = "waiting"   // for a lock, a hold, a host: RunJob.WaitingFor says which
	Running   State = "running"   // claimed by a worker
	Succeeded State = "succeeded" // done, and all is well
	Failed    State = "failed"    // Error says why
	Canceled  State = "canceled"  // Cause says by whom or by what
	Skipped   State = "skipped"   // was never to run: Cause says why
	Lost      State = "lost"      // the daemon died and nobody knows whether it finished
)

// Terminal says whether s is final.
func (s State) Terminal() bool {
	switch s {
	case Succeeded, Failed, Canceled, Skipped, Lost:
		return true
	}
	return false
}

// moves is the one table of legal moves. Running goes back to queued when the
// daemon died during the job and on_crash says rerun.
var moves = map[State][]State{
	Queued:  {Waiting, Running, Canceled, Skipped, Failed},
	Waiting: {Queued, Running, Canceled, Skipped, Failed},
	Running: {Succeeded, Failed, Canceled, Skipped, Lost, Queued, Waiting},
}

// CanMove says whether a job may go from one state to another.
func CanMove(from, to State) bool {
	for _, s := range moves[from] {
		if s == to {
			return true
		}
	}
	return false
}

// Settle gives a run's state from those of its jobs. While one is not
// terminal: running if a job runs or has ended, else waiting if one waits,
// else queued. When all are: lost over failed over canceled over succeeded;
// all skipped is skipped.
func Settle(jobs []State) State {
	var seen [8]bool
	index := map[State]int{Queued: 0, Waiting: 1, Running: 2, Succeeded: 3, Failed: 4, Canceled: 5, Skipped: 6, Lost: 7}
	for _, s := range jobs {
		seen[index[s]] = true
	}
	has := func(s State) bool { return seen[index[s]] }
	if has(Queued) || has(Waiting) || has(Running) {
		switch {
		case has(Running) || has(Succeeded) || has(Failed) || has(Canceled) || has(Skipped) || has(Lost):
			return Running
		case has(Waiting):
			return Waiting
		}
		return Queued
	}
	for _, s := range []State{Lost, Failed, Canceled, Succeeded} {
		if has(s) {
			return s
		}
	}
	return Skipped
}
