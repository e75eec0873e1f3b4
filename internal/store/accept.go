package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"deployhook/internal/deploy"
)

// laneWindow is how many pushes of a ref are put in order anew when one comes
// out of order.
const laneWindow = 200

// Accept stores a delivery and the runs that it starts in one transaction, on
// disk before it returns.
//
// A delivery is known by hook and key, with SameBody by hook and body too: a
// second one of a delivery that started runs changes nothing and returns the
// first receipt, as a duplicate. One that started none is planned anew: runs
// are made for it, at its place in the lane unless they are forced. The same key with another body is [deploy.ErrConflict]. A
// disk without room is [deploy.ErrFull].
//
// Older runs of the lane that have not started end when the push goes on from
// the lane's newest, those of pushes that lead up to it. A run that the diff may
// still skip ends none: what they were for would then be nobody's.
func (s *Store) Accept(ctx context.Context, d *deploy.Delivery, runs []deploy.NewRun) (deploy.Receipt, error) {
	body := compress(d.Body)
	var rc deploy.Receipt
	err := s.write(ctx, func(t *tx) error {
		rc = deploy.Receipt{Message: d.Message}
		known, err := t.known(d)
		if err != nil {
			return err
		}
		if known.id != 0 {
			rc.Delivery, rc.Duplicate = known.id, true
			if rc.Runs, err = t.runsOf(known.id); err != nil {
				return err
			}
			if len(rc.Runs) > 0 {
				rc.Message = known.message
				return nil
			}
			if len(runs) == 0 {
				return nil
			}
			rc.Duplicate = false
		}
		return t.accept(d, runs, body, &rc)
	})
	if err != nil {
		return deploy.Receipt{}, err // the writer may still be at it
	}
	return rc, nil
}

// accept writes a delivery that is new, or known without runs (rc.Delivery).
func (t *tx) accept(d *deploy.Delivery, runs []deploy.NewRun, body []byte, rc *deploy.Receipt) error {
	why, err := json.Marshal(d.Why)
	if err != nil {
		return err
	}
	anew := rc.Delivery != 0
	if !anew {
		rc.Delivery, err = t.insert(`INSERT INTO deliveries (hook, key, body_hash, same_body, event, received_ms, message, why, body)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			d.Hook, d.Key, d.BodyHash, d.SameBody, d.Event, ms(d.Received), d.Message, string(why), body)
		if err == nil {
			err = t.remember(d, rc.Delivery)
		}
	} else {
		err = t.exec(`UPDATE deliveries SET event = ?, message = ?, why = ?, body = ? WHERE id = ?`, d.Event, d.Message, string(why), body, rc.Delivery)
	}
	if err != nil {
		return err
	}
	t.w.order++
	order, follows := t.w.order, false
	if d.Push != nil {
		again := anew && slices.ContainsFunc(runs, func(r deploy.NewRun) bool { return r.Force })
		if order, follows, err = t.push(rc.Delivery, d.Push, order, again); err != nil {
			return err
		}
	}
	for i := range runs {
		id, err := t.newRun(&runs[i], rc.Delivery, order, d.Received)
		if err != nil {
			return err
		}
		rc.Runs = append(rc.Runs, id)
	}
	if d.Push != nil {
		// One that leads up to another, accepted before it, is out of order.
		var later int64
		found, err := t.row(`SELECT id FROM pushes WHERE repository = ? AND ref = ? AND before_sha = ? AND id != ? LIMIT 1`,
			[]any{d.Push.Repository, d.Push.Ref, d.Push.After, rc.Delivery}, &later)
		if err != nil {
			return err
		}
		if found {
			last, err := t.reorder(d.Push)
			if err != nil {
				return err
			}
			follows = follows && last == rc.Delivery
		}
	}
	for i := range runs {
		if follows && runs[i].Queue == deploy.QueueLatest && !runs[i].Deferred {
			if err := t.supersede(&runs[i], rc.Runs[i], order, d.Received); err != nil {
				return err
			}
		}
	}
	return nil
}

// push stores where a ref moved, and says whether it goes on from the lane's
// newest push. A delivery that is planned anew keeps its place, unless again.
func (t *tx) push(delivery int64, p *deploy.RefMove, order int64, again bool) (place int64, follows bool, err error) {
	var newest string
	found, err := t.row(`SELECT after_sha FROM pushes WHERE repository = ? AND ref = ? ORDER BY ord DESC LIMIT 1`,
		[]any{p.Repository, p.Ref}, &newest)
	if err != nil {
		return 0, false, err
	}
	if again {
		if err := t.exec(`DELETE FROM pushes WHERE id = ?`, delivery); err != nil {
			return 0, false, err
		}
	}
	n, err := t.changed(`INSERT OR IGNORE INTO pushes (id, repository, ref, before_sha, after_sha, ord) VALUES (?, ?, ?, ?, ?, ?)`,
		delivery, p.Repository, p.Ref, p.Before, p.After, order)
	if err == nil && n == 0 {
		_, err = t.row(`SELECT ord FROM pushes WHERE id = ?`, []any{delivery}, &order)
		return order, false, err
	}
	return order, !found || newest == p.Before, err
}

// reorder puts the last pushes of a lane, and the runs that they started, in
// the order that their commits tell, and gives the newest push.
func (t *tx) reorder(p *deploy.RefMove) (last int64, err error) {
	var ids, orders []int64
	var moves []deploy.RefMove
	err = t.each(func(rows *sql.Rows) error {
		var id, ord int64
		var m deploy.RefMove
		if err := rows.Scan(&id, &ord, &m.Before, &m.After); err != nil {
			return err
		}
		ids, orders, moves = append(ids, id), append(orders, ord), append(moves, m)
		return nil
	}, `SELECT id, ord, before_sha, after_sha FROM (
			SELECT id, ord, before_sha, after_sha FROM pushes WHERE repository = ? AND ref = ? ORDER BY ord DESC LIMIT ?
		) ORDER BY id`, p.Repository, p.Ref, laneWindow)
	if err != nil {
		return 0, err
	}
	slots := sorted(orders)
	for place, k := range deploy.OrderLane(moves) {
		last = ids[k]
		if orders[k] == slots[place] {
			continue
		}
		if err := t.exec(`UPDATE pushes SET ord = ? WHERE id = ?`, slots[place], ids[k]); err != nil {
			return 0, err
		}
		if err := t.exec(`UPDATE runs SET ord = ? WHERE delivery = ? AND delivery != 0 AND (retry_of = 0 OR keep_order = 1)`, slots[place], ids[k]); err != nil {
			return 0, err
		}
	}
	return last, nil
}

// supersede ends the older runs of the lane that have not started a job. A run
// of a push that is not known to lead up to this one stays: it may be newer,
// and come before what lies between. When one of them begins, git decides.
func (t *tx) supersede(r *deploy.NewRun, id, order int64, at time.Time) error {
	var old, pushes []int64
	oldest := order
	err := t.each(func(rows *sql.Rows) error {
		var run, push, ord int64
		err := rows.Scan(&run, &push, &ord)
		old, pushes, oldest = append(old, run), append(pushes, push), min(oldest, ord)
		return err
	}, `SELECT id, CASE WHEN retry_of = 0 OR keep_order = 1 THEN delivery ELSE 0 END, ord FROM runs WHERE pipeline = ? AND ref = ? AND state IN ('queued', 'waiting') AND id != ? AND ord < ? AND event != 'rollback'
			AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.run = runs.id AND attempt > 0)`,
		r.Pipeline, r.Ref, id, order)
	if err != nil || len(old) == 0 {
		return err
	}
	leadUp, err := t.leadUp(r, oldest, order)
	if err != nil {
		return err
	}
	for i, run := range old {
		if pushes[i] != 0 && !leadUp[pushes[i]] {
			continue
		}
		cause := fmt.Sprintf("superseded by run %d; retry %d brings it back", id, run)
		err := t.exec(`UPDATE jobs SET state = 'canceled', cause = ?, waiting_for = '', ended_ms = ? WHERE run = ? AND state IN ('queued', 'waiting') AND attempt = 0`,
			cause, ms(at), run)
		if err != nil {
			return err
		}
		if err := t.settle(run, at); err != nil {
			return err
		}
	}
	return nil
}

// leadUp gives the pushes of a lane that lead up to the one with this order.
func (t *tx) leadUp(r *deploy.NewRun, oldest, order int64) (map[int64]bool, error) {
	var ids []int64
	var moves []deploy.RefMove
	err := t.each(func(rows *sql.Rows) error {
		var id int64
		var m deploy.RefMove
		err := rows.Scan(&id, &m.Before, &m.After)
		ids, moves = append(ids, id), append(moves, m)
		return err
	}, `SELECT id, before_sha, after_sha FROM (
			SELECT id, ord, before_sha, after_sha FROM pushes WHERE repository = ? AND ref = ? AND ord BETWEEN ? AND ? ORDER BY ord DESC LIMIT ?
		) ORDER BY ord`, r.Repository, r.Ref, oldest, order, laneWindow)
	if err != nil {
		return nil, err
	}
	lead := map[int64]bool{}
	for i, is := range deploy.LeadUp(moves) {
		lead[ids[i]] = is
	}
	return lead, nil
}

// newRun inserts a run and its jobs.
func (t *tx) newRun(r *deploy.NewRun, delivery, order int64, at time.Time) (int64, error) {
	inputs := "{}"
	if len(r.Inputs) > 0 {
		b, err := json.Marshal(r.Inputs)
		if err != nil {
			return 0, err
		}
		inputs = string(b)
	}
	state, why, err := t.heldBy(r)
	if err != nil {
		return 0, err
	}
	id, err := t.insert(`INSERT INTO runs (delivery, pipeline, config, event, hook, repository, ref, before_sha, commit_sha, actor,
			message, inputs, queue, deferred, forced, force, retry_of, keep_order, target, pops, ord, state, waiting_for, created_ms, why)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		delivery, r.Pipeline, r.Config, r.Event, r.Hook, r.Repository, r.Ref, r.Before, r.Commit, r.Actor,
		r.Message, inputs, r.Queue, r.Deferred, r.Forced, r.Force, r.RetryOf, r.KeepOrder, r.Target, r.Pops, order, state, why, ms(at), r.Why)
	if err != nil {
		return 0, err
	}
	t.wake = true
	return id, t.newJobs(id, r.Jobs, state, why)
}

// newJobs inserts the jobs of a run in one statement; those that are ready
// begin in a state.
func (t *tx) newJobs(run int64, jobs []deploy.NewJob, state deploy.State, why string) error {
	if len(jobs) == 0 {
		return nil
	}
	args := make([]any, 0, 11*len(jobs))
	for i := range jobs {
		j := &jobs[i]
		jobState, jobWhy := deploy.Queued, ""
		if j.Ready {
			jobState, jobWhy = state, why
		}
		args = append(args, run, j.Name, i, strings.Join(j.Needs, ","), strings.Join(j.Hosts, ","), j.Deploys, j.Path, j.Group, j.Ready, jobState, jobWhy)
	}
	return t.exec(`INSERT INTO jobs (run, name, position, needs, hosts, deploys, path, grp, ready, state, waiting_for) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`+
		strings.Repeat(`, (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, len(jobs)-1), args...)
}

// heldBy gives the state in which a run begins: waiting, where a hold by hand
// keeps its pipeline back and a job of it would be ready.
func (t *tx) heldBy(r *deploy.NewRun) (deploy.State, string, error) {
	if r.Event == deploy.Rollback || !slices.ContainsFunc(r.Jobs, func(j deploy.NewJob) bool { return j.Ready }) {
		return deploy.Queued, "", nil
	}
	if t.w.held == nil {
		holds, err := readHolds(t.session)
		if err != nil {
			return deploy.Queued, "", err
		}
		t.w.held = map[string]string{}
		for _, h := range holds {
			if h.Kind == deploy.HoldAll {
				t.w.held[h.Pipeline] = h.Sentence()
			}
		}
	}
	if why, ok := t.w.held[r.Pipeline]; ok {
		return deploy.Waiting, why, nil
	}
	return deploy.Queued, "", nil
}

// Create makes a run that no delivery brings: by hand, as a retry, as a
// rollback. A retry keeps the delivery of the run that it retries, and with
// KeepOrder its place in the lane. The moves are made in the same transaction.
func (s *Store) Create(ctx context.Context, r deploy.NewRun, cancel []deploy.Move) (int64, error) {
	var id int64
	err := s.write(ctx, func(t *tx) error {
		t.w.order++
		order, now := t.w.order, time.Now()
		var delivery, old int64
		if r.RetryOf != 0 {
			found, err := t.row(`SELECT delivery, ord FROM runs WHERE id = ?`, []any{r.RetryOf}, &delivery, &old)
			if err != nil {
				return err
			}
			if !found {
				return fmt.Errorf("run %d: %w", r.RetryOf, deploy.ErrNotFound)
			}
			if r.KeepOrder {
				order = old
			}
		}
		var err error
		if id, err = t.newRun(&r, delivery, order, now); err != nil {
			return err
		}
		for i := range cancel {
			if err := t.apply(&cancel[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err // the writer may still be at it
	}
	return id, nil
}

// runsOf lists the runs that a delivery started, retries left out.
func (t *tx) runsOf(delivery int64) ([]int64, error) {
	var ids []int64
	err := t.each(func(rows *sql.Rows) error {
		var id int64
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	}, `SELECT id FROM runs WHERE delivery = ? AND delivery != 0 AND retry_of = 0 ORDER BY id`, delivery)
	return ids, err
}

// ms is a time as the database has it: milliseconds, 0 for none.
func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// timeOf is the opposite of ms.
func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
