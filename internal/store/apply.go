package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"deployhook/internal/deploy"
)

// Apply makes moves in one transaction, all or none. [deploy.ErrStale]: a job
// is not in the state and attempt that a move names any more. [deploy.ErrLocked]:
// a claim wants a lock that is held.
//
// A claim takes its locks; leaving running gives them back, but for the
// locks that a move names in BlockedAt. The runs of the jobs are settled.
func (s *Store) Apply(ctx context.Context, moves ...deploy.Move) error {
	if len(moves) == 0 {
		return nil
	}
	return s.write(ctx, func(t *tx) error { return t.moves(moves) })
}

// Claim is [Store.Apply] for one claim. taken is called as soon as the job is
// the caller's, before that is on disk; when it cannot be written, Claim
// returns an error although taken was called.
func (s *Store) Claim(ctx context.Context, m deploy.Move, taken func()) error {
	return s.write(ctx, func(t *tx) error {
		if err := t.moves([]deploy.Move{m}); err != nil {
			return err
		}
		taken()
		return nil
	})
}

func (t *tx) moves(moves []deploy.Move) error {
	for i := range moves {
		if err := t.apply(&moves[i]); err != nil {
			return err
		}
	}
	var settled []int64
	for _, m := range moves {
		if slices.Contains(settled, m.Run) {
			continue
		}
		settled = append(settled, m.Run)
		if err := t.settle(m.Run, m.At); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) apply(m *deploy.Move) error {
	if m.From != m.To && !deploy.CanMove(m.From, m.To) {
		return fmt.Errorf("run %d job %s: %s cannot become %s", m.Run, m.Job, m.From, m.To)
	}
	claim := m.To == deploy.Running && m.From != deploy.Running
	var started, ended int64
	if claim {
		started = ms(m.At)
	}
	if m.To.Terminal() {
		ended = ms(m.At)
	}
	n, err := t.changed(`UPDATE jobs SET state = ?, ready = max(ready, ?), begun = max(begun, ?),
			release = CASE WHEN ? = '' THEN release ELSE ? END, cause = CASE WHEN ? THEN cause ELSE ? END, error = ?, waiting_for = ?, attempt = attempt + ?,
			started_ms = CASE WHEN started_ms = 0 THEN ? ELSE started_ms END, ended_ms = ?
		WHERE run = ? AND name = ? AND state = ? AND attempt = ?`,
		m.To, m.Ready, m.Begin, m.Release, m.Release, m.From == m.To && m.Cause == "", m.Cause, m.Error, m.Waiting, claim, started, ended,
		m.Run, m.Job, m.From, m.Attempt)
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("run %d job %s: %w", m.Run, m.Job, deploy.ErrStale)
	}
	t.wake = true
	switch {
	case claim:
		return t.take(m)
	case m.From == deploy.Running && m.To != deploy.Running:
		return t.giveBack(m)
	}
	return nil
}

// take gets a claim's locks, or none.
func (t *tx) take(m *deploy.Move) error {
	for _, name := range m.Locks {
		n, err := t.changed(`INSERT OR IGNORE INTO locks (name, run, job) VALUES (?, ?, ?)`, name, m.Run, m.Job)
		if err != nil {
			return err
		}
		if n == 1 {
			continue
		}
		var run int64
		var job string
		if _, err := t.row(`SELECT run, job FROM locks WHERE name = ?`, []any{name}, &run, &job); err != nil {
			return err
		}
		return fmt.Errorf("%w: run %d job %s holds %s", deploy.ErrLocked, run, job, name)
	}
	return nil
}

func (t *tx) giveBack(m *deploy.Move) error {
	for name, sentence := range m.BlockedAt {
		if err := t.exec(`UPDATE locks SET blocked = ? WHERE name = ? AND run = ? AND job = ?`, sentence, name, m.Run, m.Job); err != nil {
			return err
		}
	}
	return t.exec(`DELETE FROM locks WHERE run = ? AND job = ? AND blocked = ''`, m.Run, m.Job)
}

// settle derives a run's state from its jobs.
func (t *tx) settle(run int64, at time.Time) error {
	var states []deploy.State
	type fact struct {
		name, cause, err, waiting string
		state                     deploy.State
	}
	var facts []fact
	err := t.each(func(rows *sql.Rows) error {
		var f fact
		if err := rows.Scan(&f.name, &f.state, &f.cause, &f.err, &f.waiting); err != nil {
			return err
		}
		states, facts = append(states, f.state), append(facts, f)
		return nil
	}, `SELECT name, state, cause, error, waiting_for FROM jobs WHERE run = ? ORDER BY position`, run)
	if err != nil {
		return err
	}
	state := deploy.Settle(states)
	var cause, fault, waiting string
	for _, f := range facts {
		switch {
		case f.state == deploy.Waiting && waiting == "":
			waiting = f.waiting
		case state.Terminal() && f.state == state && cause == "" && fault == "":
			cause = f.cause
			if f.err != "" {
				fault = "job " + f.name + ": " + f.err
			}
		}
	}
	var started, ended int64
	if state != deploy.Queued && state != deploy.Waiting {
		started = ms(at)
	}
	if state.Terminal() {
		ended = ms(at)
	}
	var before deploy.State
	if _, err := t.row(`SELECT state FROM runs WHERE id = ?`, []any{run}, &before); err != nil {
		return err
	}
	err = t.exec(`UPDATE runs SET state = ?, cause = ?, error = ?, waiting_for = ?, ended_ms = ?,
			started_ms = CASE WHEN started_ms = 0 AND EXISTS (SELECT 1 FROM jobs WHERE jobs.run = runs.id AND attempt > 0) THEN ? ELSE started_ms END
		WHERE id = ?`, state, cause, fault, waiting, ended, started, run)
	if err != nil || state != deploy.Succeeded || before == state {
		return err
	}
	return t.follow(run, at)
}

// SetCommit writes the commit that a run's ref meant when it was asked, and
// whether its start is still to be decided.
func (s *Store) SetCommit(ctx context.Context, run int64, commit, message string, deferred bool) error {
	return s.write(ctx, func(t *tx) error {
		t.wake = true
		n, err := t.changed(`UPDATE runs SET commit_sha = ?, message = ?, deferred = ? WHERE id = ?`, commit, message, deferred, run)
		if err == nil && n == 0 {
			return fmt.Errorf("run %d: %w", run, deploy.ErrNotFound)
		}
		return err
	})
}

// SaveConfig keeps a config's text for the runs accepted under it.
func (s *Store) SaveConfig(ctx context.Context, digest, text string) error {
	return s.write(ctx, func(t *tx) error {
		return t.exec(`INSERT OR IGNORE INTO configs (digest, text) VALUES (?, ?)`, digest, text)
	})
}

// ConfigText gives the text of a config by its digest.
func (s *Store) ConfigText(ctx context.Context, digest string) (string, error) {
	var text string
	err := s.read.QueryRowContext(ctx, `SELECT text FROM configs WHERE digest = ?`, digest).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("config %s: %w", digest, deploy.ErrNotFound)
	}
	return text, s.explain(err)
}

// AddHold keeps a pipeline back; [deploy.ErrLocked] when it is already, with
// the one who did it. Holds of rollbacks stand beside each other: one that went
// back further must not free what the one before it holds. Of two from the same
// commit the later counts, and what a rollback went to is held no more.
func (s *Store) AddHold(ctx context.Context, h deploy.Hold) error {
	return s.write(ctx, func(t *tx) error {
		t.wake, t.w.held = true, nil
		if h.Kind == deploy.HoldRollback {
			if err := t.exec(`DELETE FROM holds WHERE pipeline = ? AND kind = ? AND run != ? AND commit_sha IN (?, ?)`,
				h.Pipeline, h.Kind, h.Run, h.Commit, h.Target); err != nil {
				return err
			}
		}
		n, err := t.changed(`INSERT OR IGNORE INTO holds (pipeline, kind, actor, reason, commit_sha, target_sha, run, ord, since_ms)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, h.Pipeline, h.Kind, h.By, h.Reason, h.Commit, h.Target, h.Run, h.Order, ms(h.Since))
		if err != nil || n == 1 {
			return err
		}
		var by, reason string
		var since int64
		if _, err := t.row(`SELECT actor, reason, since_ms FROM holds WHERE pipeline = ? AND kind = ?`, []any{h.Pipeline, h.Kind}, &by, &reason, &since); err != nil {
			return err
		}
		if reason != "" {
			reason = ": " + reason
		}
		return fmt.Errorf("%w: %s has a %s by %s since %s%s", deploy.ErrLocked, h.Pipeline, h.Kind, by, timeOf(since).Format(time.RFC3339), reason)
	})
}

// RemoveHold ends a hold; [deploy.ErrNotFound] when there is none.
func (s *Store) RemoveHold(ctx context.Context, pipeline string, kind deploy.HoldKind) error {
	return s.write(ctx, func(t *tx) error {
		t.wake, t.w.held = true, nil
		return t.mustChange(`DELETE FROM holds WHERE pipeline = ? AND kind = ?`, pipeline, kind)
	})
}

// FreeLock takes a lock from whoever holds it: for a path whose unfinished
// switch was given up.
func (s *Store) FreeLock(ctx context.Context, lock string) error {
	return s.write(ctx, func(t *tx) error {
		t.wake = true
		return t.mustChange(`DELETE FROM locks WHERE name = ?`, lock)
	})
}

func (t *tx) mustChange(query string, args ...any) error {
	n, err := t.changed(query, args...)
	if err == nil && n == 0 {
		return deploy.ErrNotFound
	}
	return err
}

// SetLive notes what was seen to be live.
func (s *Store) SetLive(ctx context.Context, l deploy.Live) error {
	return s.write(ctx, func(t *tx) error {
		return t.exec(`INSERT OR REPLACE INTO live (host, path, release, repository, commit_sha, run, seen_ms) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			l.Host, l.Path, l.Release, l.Repository, l.Commit, l.Run, ms(l.Seen))
	})
}

// Live gives what was last seen to be live; [deploy.ErrNotFound] when nothing was.
func (s *Store) Live(ctx context.Context, host, path string) (*deploy.Live, error) {
	l := &deploy.Live{Host: host, Path: path}
	var seen int64
	err := s.read.QueryRowContext(ctx, `SELECT release, repository, commit_sha, run, seen_ms FROM live WHERE host = ? AND path = ?`, host, path).
		Scan(&l.Release, &l.Repository, &l.Commit, &l.Run, &seen)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, deploy.ErrNotFound
	}
	l.Seen = timeOf(seen)
	return l, s.explain(err)
}
