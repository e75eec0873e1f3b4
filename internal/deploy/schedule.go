package deploy

import (
	"fmt"
	"slices"
	"time"
)

// JobRef names a job of a run as it was seen.
type JobRef struct {
	Run     int64
	Job     string
	Attempt int
	State   State
}

// Claim is a job to start now.
type Claim struct {
	Run     int64
	Job     string
	Attempt int // as seen: the claim makes it one more
	From    State
	Deploys bool
	Locks   []string
	// Supersedes are the older deploy jobs of the lane that have not begun:
	// when this one begins, they end.
	Supersedes []JobRef
}

// Next is what to do now.
type Next struct {
	Claims []Claim
	Waits  []Move // jobs whose waiting, or its reason, has changed
}

// candidate is a ready job that is not running.
type candidate struct {
	run *Run
	job *RunJob
}

// Schedule chooses which jobs start now, for so many free workers, and says of
// the others what they wait for. It reads one snapshot; a claim counts only
// once it is made by compare and set.
//
// Rollbacks go first, then what is older; of several ready deploy jobs of one
// lane with queue: latest only the newest goes. A job that waits for a lock
// keeps it from those behind it, so that nobody waits for ever.
func Schedule(a *Active, workers int, now time.Time) Next {
	var next Next
	taken := map[string]string{} // lock -> the sentence for who waits for it
	for name, h := range a.Locks {
		taken[name] = lockSentence(name, h)
	}
	ready := candidates(a)
	oldest := oldestOf(a)
	newest := map[string]*Run{} // by lane and job
	for _, c := range ready {
		if key := laneOf(c); key != "" && (newest[key] == nil || Newer(c.run, newest[key])) {
			newest[key] = c.run
		}
	}
	for _, c := range ready {
		locks := locksOf(c.job)
		why := holdSentence(a.Holds, c)
		for _, h := range c.job.Hosts {
			if why == "" {
				why = a.Away[h]
			}
		}
		if why == "" {
			if top := newest[laneOf(c)]; laneOf(c) != "" && top != c.run {
				// It ends when the newer one begins, and must not hold it up.
				next.wait(c, fmt.Sprintf("run %d, which is newer", top.ID), now)
				continue
			}
		}
		if top := oldest[orderedLaneOf(c)]; why == "" && top != nil && top != c.run {
			next.wait(c, fmt.Sprintf("run %d, which is before it", top.ID), now)
			continue
		}
		if why == "" {
			for _, l := range locks {
				if why = taken[l]; why != "" {
					break
				}
			}
			for _, l := range locks {
				if taken[l] == "" {
					taken[l] = fmt.Sprintf("run %d, which is before it in line for %s", c.run.ID, l)
				}
			}
		}
		if why == "" && workers > 0 {
			workers--
			next.Claims = append(next.Claims, Claim{
				Run: c.run.ID, Job: c.job.Name, Attempt: c.job.Attempt, From: c.job.State, Deploys: c.job.Deploys, Locks: locks,
				Supersedes: superseded(a, c),
			})
			for _, l := range locks {
				taken[l] = lockSentence(l, LockHolder{Run: c.run.ID, Job: c.job.Name})
			}
			continue
		}
		next.wait(c, why, now)
	}
	return next
}

// candidates are the ready jobs in the order in which they may go.
func candidates(a *Active) []candidate {
	var list []candidate
	for i := range a.Runs {
		for k := range a.Runs[i].Jobs {
			j := &a.Runs[i].Jobs[k]
			if j.Ready && (j.State == Queued || j.State == Waiting) {
				list = append(list, candidate{&a.Runs[i], j})
			}
		}
	}
	slices.SortStableFunc(list, func(x, y candidate) int {
		if rx, ry := x.run.Event == Rollback, y.run.Event == Rollback; rx != ry {
			if rx {
				return -1
			}
			return 1
		}
		if Newer(x.run, y.run) {
			return 1
		}
		if Newer(y.run, x.run) {
			return -1
		}
		return 0
	})
	return list
}

// InLane says whether two runs are of one lane: of a pipeline and a ref.
func InLane(a, b *Run) bool {
	return a.Pipeline == b.Pipeline && a.Ref == b.Ref && a.Ref != ""
}

// Newer says whether a stands after b in their lane. A retry that kept its
// place is newer than the run that it retries.
func Newer(a, b *Run) bool {
	if a.Order != b.Order {
		return a.Order > b.Order
	}
	return a.ID > b.ID
}

// laneOf is the lane and job in which only the newest deploy goes; empty where
// all go.
func laneOf(c candidate) string { return laneWith(c, QueueLatest) }

// orderedLaneOf is the lane and job in which every deploy goes, each after
// those before it; empty elsewhere.
func orderedLaneOf(c candidate) string { return laneWith(c, QueueAll) }

func laneWith(c candidate, q QueuePolicy) string {
	if !c.job.Deploys || c.run.Queue != q || c.run.Ref == "" || c.run.Event == Rollback {
		return ""
	}
	return c.run.Pipeline + "\x00" + c.run.Ref + "\x00" + c.job.Name
}

// oldestOf finds, for each lane and job with queue: all, the oldest run whose
// deploy is still to come or runs: those after it wait for it, also while it
// is being tested.
func oldestOf(a *Active) map[string]*Run {
	oldest := map[string]*Run{}
	for i := range a.Runs {
		r := &a.Runs[i]
		for k := range r.Jobs {
			key := orderedLaneOf(candidate{r, &r.Jobs[k]})
			if key == "" || r.Jobs[k].State.Terminal() {
				continue
			}
			if oldest[key] == nil || Newer(oldest[key], r) {
				oldest[key] = r
			}
		}
	}
	return oldest
}

// superseded lists the deploy jobs that end when c begins: the same job of
// older runs of the lane, ready or not, that has not begun.
func superseded(a *Active, c candidate) []JobRef {
	key := laneOf(c)
	if key == "" {
		return nil
	}
	var refs []JobRef
	for i := range a.Runs {
		r := &a.Runs[i]
		if r.ID == c.run.ID || !Newer(c.run, r) {
			continue
		}
		for k := range r.Jobs {
			j := &r.Jobs[k]
			if j.Begun || j.State != Queued && j.State != Waiting || laneOf(candidate{r, j}) != key {
				continue
			}
			refs = append(refs, JobRef{r.ID, j.Name, j.Attempt, j.State})
		}
	}
	return refs
}

// locksOf are the locks that a job takes when it is claimed.
func locksOf(j *RunJob) []string {
	var locks []string
	if j.Group != "" {
		locks = append(locks, GroupLock(j.Group))
	}
	if j.Path != "" {
		for _, h := range j.Hosts {
			locks = append(locks, PathLock(h, j.Path))
		}
	}
	return locks
}

// holdSentence says which hold keeps a job back; empty = none. A rollback by
// hand goes past all of them: the command asked for --force where that is due.
func holdSentence(holds []Hold, c candidate) string {
	if c.run.Event == Rollback {
		return ""
	}
	for _, h := range holds {
		if h.Pipeline != c.run.Pipeline {
			continue
		}
		if h.Kind == HoldAll || h.Kind == HoldDeploys && c.job.Deploys {
			return h.Sentence()
		}
	}
	return ""
}

// Sentence is what a job that a hold keeps back waits for: "hold by alice: reason".
func (h Hold) Sentence() string {
	s := string(h.Kind) + " by " + h.By
	if h.Reason != "" {
		s += ": " + h.Reason
	}
	return s
}

func lockSentence(name string, h LockHolder) string {
	if h.Blocked != "" {
		return h.Blocked
	}
	return fmt.Sprintf("run %d job %s holds %s", h.Run, h.Job, name)
}

// wait notes what a job waits for, when that is news. One that only waits for
// a worker is queued.
func (n *Next) wait(c candidate, why string, now time.Time) {
	state := Waiting
	if why == "" {
		state = Queued
	}
	if c.job.State == state && c.job.WaitingFor == why {
		return
	}
	n.Waits = append(n.Waits, Move{
		Run: c.run.ID, Job: c.job.Name, Attempt: c.job.Attempt, From: c.job.State, To: state, Waiting: why, At: now,
	})
}
