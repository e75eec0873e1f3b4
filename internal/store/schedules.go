package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"deployhook/internal/deploy"
)

// waitingMost bounds the runs of a pipeline that its schedules make and that
// have not begun: of queue: latest one is as good as many.
const waitingMost = 100

// Clocks gives the schedules of a config with the last of their times that was
// decided. One that is new begins now, so that nothing of its past is missed;
// what the config does not have any more is forgotten. Last times that
// [deploy.SetRight] finds wrong are written anew.
func (s *Store) Clocks(ctx context.Context, want []deploy.Clock, now time.Time) (all, set []deploy.Clock, err error) {
	var clocks, wrong []deploy.Clock
	err = s.write(ctx, func(t *tx) error {
		clocks = nil
		have := map[deploy.Clock]time.Time{}
		err := t.each(func(rows *sql.Rows) error {
			var c deploy.Clock
			var last int64
			err := rows.Scan(&c.Pipeline, &c.Schedule, &last)
			have[c] = timeOf(last)
			return err
		}, `SELECT pipeline, schedule, last_ms FROM schedules`)
		if err != nil {
			return err
		}
		for _, c := range want {
			key := deploy.Clock{Pipeline: c.Pipeline, Schedule: c.Schedule}
			last, known := have[key]
			delete(have, key)
			if !known {
				last = now
				if err := t.setClock(key, now); err != nil {
					return err
				}
			}
			key.Last = last
			clocks = append(clocks, key)
		}
		for key := range have {
			if err := t.exec(`DELETE FROM schedules WHERE pipeline = ? AND schedule = ?`, key.Pipeline, key.Schedule); err != nil {
				return err
			}
		}
		wrong = deploy.SetRight(clocks, now)
		for _, c := range wrong {
			if err := t.setClock(c, now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, err // the writer may still be at it
	}
	return clocks, wrong, nil
}

func (t *tx) setClock(c deploy.Clock, last time.Time) error {
	return t.exec(`INSERT OR REPLACE INTO schedules (pipeline, schedule, last_ms) VALUES (?, ?, ?)`, c.Pipeline, c.Schedule, ms(last))
}

// Tick notes that a time of a schedule was decided, and makes the runs that it
// starts, in one transaction. [deploy.ErrStale]: it was decided before, or there
// is no such schedule. [deploy.ErrLocked]: nothing starts, because runs that
// schedules of the pipeline made still wait; the time counts as decided.
func (s *Store) Tick(ctx context.Context, k deploy.Tick, runs []deploy.NewRun) ([]int64, error) {
	var ids []int64
	var waits error
	err := s.write(ctx, func(t *tx) error {
		ids, waits = nil, nil
		n, err := t.changed(`UPDATE schedules SET last_ms = ? WHERE pipeline = ? AND schedule = ? AND last_ms < ?`,
			ms(k.Due), k.Pipeline, k.Schedule, ms(k.Due))
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("schedule %s of %s: %w", k.Schedule, k.Pipeline, deploy.ErrStale)
		}
		for i := range runs {
			if waits, err = t.waiting(&runs[i]); err != nil {
				return err
			}
			if waits != nil {
				continue
			}
			t.w.order++
			id, err := t.newRun(&runs[i], 0, t.w.order, time.Now())
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
		return nil
	})
	if err != nil {
		return nil, err // the writer may still be at it
	}
	return ids, waits
}

// waiting says whether enough runs wait that schedules of a pipeline made.
func (t *tx) waiting(r *deploy.NewRun) (error, error) {
	most := 1
	if r.Queue == deploy.QueueAll {
		most = waitingMost
	}
	var count int
	var oldest sql.NullInt64
	_, err := t.row(`SELECT count(*), min(id) FROM runs WHERE pipeline = ? AND event = 'schedule' AND state IN ('queued', 'waiting')`,
		[]any{r.Pipeline}, &count, &oldest)
	if err != nil || count < most {
		return nil, err
	}
	return fmt.Errorf("%w: run %d of an earlier time has not begun", deploy.ErrLocked, oldest.Int64), nil
}

// Follow has next give the runs that follow a run of a pipeline that has
// succeeded: they are made in the transaction that settles it. next is called
// by the goroutine that writes and must not ask the store anything.
func (s *Store) Follow(next func(*deploy.Run) []deploy.NewRun) { s.follow.Store(&next) }

// follow makes the runs that follow one that has succeeded just now. They
// stand where it stood in line.
func (t *tx) follow(run int64, at time.Time) error {
	next := t.w.follow.Load()
	if next == nil {
		return nil
	}
	r, err := scanOne(t, run)
	if err != nil {
		return err
	}
	for _, n := range (*next)(r) {
		if _, err := t.newRun(&n, 0, r.Order, at); err != nil {
			return err
		}
	}
	return nil
}

// scanOne reads a run that is there, without its jobs.
func scanOne(t *tx, id int64) (*deploy.Run, error) {
	var found *deploy.Run
	err := t.each(func(rows *sql.Rows) error {
		r, err := scanRun(rows)
		found = &r
		return err
	}, `SELECT `+runColumns+` FROM runs WHERE id = ?`, id)
	if err == nil && found == nil {
		err = fmt.Errorf("run %d: %w", id, deploy.ErrNotFound)
	}
	return found, err
}
