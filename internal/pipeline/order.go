package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/git"
)

// beginTries bounds how often the end of an older job is tried, while others
// change its state at the same time.
const beginTries = 20

// begin marks the job as begun and ends the older deploy jobs of its lane. It
// gives the reason for which the job gives way instead.
func (j *job) begin(ctx context.Context, mirror *git.Mirror) (why string, err error) {
	var older []deploy.JobRef
	for _, o := range j.over {
		way, err := j.meets(ctx, mirror, o.Run)
		if err != nil {
			return "", err
		}
		switch way {
		case giveWay:
			return fmt.Sprintf("superseded by run %d, whose commit comes after this one", o.Run), nil
		case goFirst:
			older = append(older, o)
		}
	}
	move := deploy.Move{
		Run: j.run.ID, Job: j.key.job, Attempt: j.attempt, From: deploy.Running, To: deploy.Running, Begin: true, At: time.Now(),
	}
	if err := j.engine.Store.Apply(ctx, move); err != nil {
		return "", fmt.Errorf("beginning the job: %w", err)
	}
	j.begun = true
	for _, o := range older {
		cause := fmt.Sprintf("superseded by run %d; retry %d brings it back", j.run.ID, o.Run)
		if err := j.engine.cancelWaiting(ctx, o.Run, o.Job, cause); err != nil {
			return "", err
		}
	}
	return "", nil
}

// cancelWaiting ends a job that no worker has claimed, in whichever state of
// waiting it is by now.
func (e *Engine) cancelWaiting(ctx context.Context, id int64, name, cause string) error {
	for range beginTries {
		run, err := e.Store.Run(ctx, id)
		if err != nil {
			return err
		}
		var move *deploy.Move
		for _, m := range deploy.CancelMoves(run, cause, time.Now()) {
			if m.Job == name {
				move = &m
			}
		}
		if move == nil {
			return nil // it has begun, or has ended
		}
		if err := e.Store.Apply(ctx, *move); !errors.Is(err, deploy.ErrStale) {
			return err
		}
	}
	return fmt.Errorf("ending run %d job %s: %w", id, name, deploy.ErrStale)
}

// way is what becomes of a job of the lane that was accepted before this one.
type way int

const (
	goFirst way = iota // that one ends
	leaveIt            // both stay: that one comes after this one
	giveWay            // this one ends
)

// meets decides between this job and an older one of its lane. Git decides
// which comes after which, where it can be asked: else the order of the
// deliveries does, and the log says so.
func (j *job) meets(ctx context.Context, mirror *git.Mirror, id int64) (way, error) {
	other, err := j.engine.Store.Run(ctx, id)
	if err != nil {
		return leaveIt, err
	}
	if j.run.Force || other.Commit == j.run.Commit {
		return goFirst, nil
	}
	later, known, err := j.ancestor(ctx, mirror, j.run.Commit, other.Commit, other.Ref)
	if err != nil {
		return leaveIt, err
	}
	if !known {
		j.note(fmt.Sprintf("git cannot tell whether run %d is older: the order of the deliveries decides", id))
	}
	if !later {
		return goFirst, nil
	}
	if still, err := j.stillThere(ctx, mirror); err != nil || still {
		return goFirst, err // the ref was set back on purpose
	}
	for i := range other.Jobs {
		if o := &other.Jobs[i]; o.Name == j.key.job && o.Ready {
			return giveWay, nil
		}
	}
	return leaveIt, nil // it may still fail its tests
}

// ancestor says whether commit is a proper ancestor of another, which ref
// pointed to, and whether git could tell.
func (j *job) ancestor(ctx context.Context, mirror *git.Mirror, commit, other, ref string) (is, known bool, err error) {
	if other == "" {
		return false, false, nil
	}
	if other == commit {
		return false, true, nil
	}
	// The mirror may have been made anew since it had the other one.
	if _, err := mirror.Fetch(ctx, other, ref); err != nil {
		return false, false, ctx.Err()
	}
	is, err = mirror.IsAncestor(ctx, commit, other)
	if errors.Is(err, git.ErrHistory) {
		return false, false, nil
	}
	return is, err == nil, err
}

// stillThere says whether the run's ref was forced or made anew, and still
// points to its commit at the remote: then it goes back on purpose.
func (j *job) stillThere(ctx context.Context, mirror *git.Mirror) (bool, error) {
	if !j.run.Forced {
		return false, nil
	}
	tip, err := mirror.Resolve(ctx, j.run.Ref)
	if errors.Is(err, git.ErrNoRef) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	commit, err := mirror.Fetch(ctx, tip, j.run.Ref)
	return err == nil && commit == j.run.Commit, nil
}

// unwanted gives the reason for which the commit must not be deployed now: one
// that contains it, or that was pushed after it, is live on one of the hosts, or
// it was rolled back from.
func (j *job) unwanted(ctx context.Context, mirror *git.Mirror) (string, error) {
	if why, err := j.held(ctx, mirror); err != nil || why != "" {
		return why, err
	}
	asked := map[deploy.ReleaseLine]bool{} // hosts have the same one, as a rule
	for _, p := range j.left() {
		line := lineOf(p.found, current(p.found)) // without a repository when it was adopted and nothing said which
		if line == nil || asked[*line] {
			continue
		}
		asked[*line] = true
		if why, err := j.behind(ctx, mirror, line); err != nil || why != "" {
			return why, err
		}
	}
	return "", nil
}

// behind gives the reason for which the commit must not go over what is live.
func (j *job) behind(ctx context.Context, mirror *git.Mirror, line *deploy.ReleaseLine) (string, error) {
	if j.run.Force || line.Repository != "" && line.Repository != j.run.Repository || line.Commit == j.run.Commit {
		return "", nil
	}
	back, known, err := j.ancestor(ctx, mirror, j.run.Commit, line.Commit, "")
	if err != nil {
		return "", err
	}
	why := fmt.Sprintf("already live in %s: its commit %s contains %s", line.Release, short(line.Commit), short(j.run.Commit))
	if !back {
		why, err = j.late(ctx, mirror, line, known)
	}
	if err != nil || why == "" {
		return "", err
	}
	if still, err := j.stillThere(ctx, mirror); err != nil || still {
		return "", err
	}
	return why, nil
}

// late gives the reason for which a commit that is no ancestor of the live one
// is older all the same: neither contains the other, or git cannot tell, and
// the order of their lane says so.
func (j *job) late(ctx context.Context, mirror *git.Mirror, line *deploy.ReleaseLine, known bool) (string, error) {
	if known {
		forward, _, err := j.ancestor(ctx, mirror, line.Commit, j.run.Commit, j.run.Ref)
		if err != nil || forward {
			return "", err
		}
	} else {
		j.note(fmt.Sprintf("git cannot tell whether %s is older than what is live: the order of the deliveries decides", short(j.run.Commit)))
	}
	other, err := j.engine.Store.Run(ctx, line.Run)
	if errors.Is(err, deploy.ErrNotFound) {
		return "", nil // of a database before this one
	}
	if err != nil {
		return "", err
	}
	// The run of a line may be another daemon's: only its commit tells.
	if line.Daemon != j.engine.Store.Daemon() || other.Commit != line.Commit || !deploy.InLane(other, j.run) || !deploy.Newer(other, j.run) {
		return "", nil
	}
	why := fmt.Sprintf("superseded by run %d, which is live and comes after it in line", other.ID)
	if !known {
		why += ": git cannot tell which commit is older"
	}
	return why, nil
}

// note keeps a sentence for the log of the next step, once: on the first host,
// as it is about all of them.
func (j *job) note(text string) { j.parts[0].note(text) }

func (p *jobPart) note(text string) {
	if !slices.Contains(p.notes, text) {
		p.notes = append(p.notes, text)
	}
}
