package store

import (
	"context"
	"database/sql"
	"time"

	"deployhook/internal/deploy"
)

// What is kept without being asked: the rest goes by itself, a little at each
// call of Trim.
const (
	keepBodies = 10_000               // deliveries whose body stays, the newest
	keepLogs   = 1_000                // runs whose log stays, the newest
	keepHashes = 365 * 24 * time.Hour // how long a redelivery is known
	trimStep   = 200                  // rows of a kind that one call removes
	keepTicks  = 200                  // runs of a pipeline that schedules made, the newest
	trimRuns   = 20                   // runs that one call removes: each has jobs, steps and a log
)

// Trim removes what is too old to be kept: bodies of deliveries, logs of runs,
// Idempotency-Keys, runs that schedules made, and after a year deliveries
// themselves. It does a little at a time, so that nothing waits for it, and
// says whether there is more to do.
func (s *Store) Trim(ctx context.Context, now time.Time) (more bool, err error) {
	var some bool
	err = s.write(ctx, func(t *tx) error {
		total, err := t.trimDeliveries(ms(now.Add(-keepHashes)))
		if err != nil {
			return err
		}
		for _, q := range []struct {
			query string
			args  []any
		}{
			{`UPDATE deliveries SET body = NULL WHERE id IN (SELECT id FROM deliveries WHERE body IS NOT NULL AND id <= (SELECT max(id) FROM deliveries) - ? LIMIT ?)`,
				[]any{keepBodies, trimStep}},
			{`DELETE FROM logs WHERE id IN (SELECT id FROM logs WHERE run <= (SELECT max(id) FROM runs) - ?
				AND run NOT IN (SELECT id FROM runs WHERE state IN ('queued', 'waiting', 'running')) LIMIT ?)`,
				[]any{keepLogs, trimStep}},
			{`DELETE FROM requests WHERE (token, key) IN (SELECT token, key FROM requests WHERE made_ms < ? LIMIT ?)`,
				[]any{ms(now.Add(-keepRequests)), trimStep}},
		} {
			n, err := t.changed(q.query, q.args...)
			if err != nil {
				return err
			}
			total += n
		}
		n, err := t.trimScheduled()
		if err != nil {
			return err
		}
		some = total+n > 0
		return nil
	})
	if err != nil {
		return false, err // the writer may still be at it
	}
	left, err := s.trimNotifications(ctx, now)
	return some || left, err
}

// trimScheduled removes the oldest runs of pipelines that schedules have made
// too many of. Those that have not ended stay, and those that a lock or what is
// live names.
func (t *tx) trimScheduled() (total int64, err error) {
	var names []string
	err = t.each(func(rows *sql.Rows) error {
		var name string
		err := rows.Scan(&name)
		names = append(names, name)
		return err
	}, `SELECT pipeline FROM runs WHERE event = 'schedule' GROUP BY pipeline HAVING count(*) > ?`, keepTicks)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		n, err := t.changed(`DELETE FROM runs WHERE id IN (SELECT id FROM runs WHERE event = 'schedule' AND pipeline = ?
				AND id <= (SELECT id FROM runs WHERE event = 'schedule' AND pipeline = ? ORDER BY id DESC LIMIT 1 OFFSET ?)
				AND state NOT IN ('queued', 'waiting', 'running')
				AND id NOT IN (SELECT run FROM locks) AND id NOT IN (SELECT run FROM live) ORDER BY id LIMIT ?)`,
			name, name, keepTicks, trimRuns)
		if err != nil {
			return total, err
		}
		total += n
	}
	return total, nil
}

// trimDeliveries removes deliveries older than a moment, and what they were
// known by.
func (t *tx) trimDeliveries(before int64) (int64, error) {
	var old []deploy.Delivery
	err := t.each(func(rows *sql.Rows) error {
		var d deploy.Delivery
		err := rows.Scan(&d.ID, &d.Hook, &d.Key, &d.BodyHash, &d.SameBody)
		old = append(old, d)
		return err
	}, `SELECT id, hook, key, body_hash, same_body FROM deliveries WHERE received_ms < ?
		AND id NOT IN (SELECT delivery FROM runs WHERE state IN ('queued', 'waiting', 'running')) LIMIT ?`, before, trimStep)
	if err != nil {
		return 0, err
	}
	for i := range old {
		if err := t.forget(&old[i]); err != nil {
			return 0, err
		}
		if err := t.exec(`DELETE FROM deliveries WHERE id = ?`, old[i].ID); err != nil {
			return 0, err
		}
	}
	return int64(len(old)), nil
}
