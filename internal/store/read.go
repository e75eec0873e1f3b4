package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"deployhook/internal/deploy"
)

// listMost bounds a list, whatever is asked for.
const listMost = 1000

func limit(n int) int {
	if n <= 0 || n > listMost {
		return listMost
	}
	return n
}

func sorted(list []int64) []int64 {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

const runColumns = `id, delivery, pipeline, config, event, hook, repository, ref, before_sha, commit_sha, actor, message, inputs, queue,
	deferred, forced, force, retry_of, keep_order, target, pops, ord, state, cause, error, waiting_for, created_ms, started_ms, ended_ms, why`

func scanRun(rows interface{ Scan(...any) error }) (deploy.Run, error) {
	var r deploy.Run
	var inputs string
	var created, started, ended int64
	err := rows.Scan(&r.ID, &r.Delivery, &r.Pipeline, &r.Config, &r.Event, &r.Hook, &r.Repository, &r.Ref, &r.Before, &r.Commit, &r.Actor,
		&r.Message, &inputs, &r.Queue, &r.Deferred, &r.Forced, &r.Force, &r.RetryOf, &r.KeepOrder, &r.Target, &r.Pops, &r.Order,
		&r.State, &r.Cause, &r.Error, &r.WaitingFor, &created, &started, &ended, &r.Why)
	if err != nil {
		return r, err
	}
	r.Created, r.Started, r.Ended = timeOf(created), timeOf(started), timeOf(ended)
	if inputs != "{}" {
		err = json.Unmarshal([]byte(inputs), &r.Inputs)
	}
	return r, err
}

const jobColumns = `run, name, needs, hosts, deploys, path, grp, ready, begun, state, cause, error, attempt, release, waiting_for, started_ms, ended_ms`

func scanJob(rows *sql.Rows) (run int64, j deploy.RunJob, err error) {
	var needs, hosts string
	var started, ended int64
	err = rows.Scan(&run, &j.Name, &needs, &hosts, &j.Deploys, &j.Path, &j.Group, &j.Ready, &j.Begun, &j.State, &j.Cause, &j.Error,
		&j.Attempt, &j.Release, &j.WaitingFor, &started, &ended)
	j.Needs, j.Hosts = list(needs), list(hosts)
	j.Started, j.Ended = timeOf(started), timeOf(ended)
	return run, j, err
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// readRuns reads runs with their jobs. where is SQL about the table runs,
// written here and never from outside.
func readRuns(t *session, steps bool, where string, args ...any) ([]deploy.Run, error) {
	list := []deploy.Run{}
	at := map[int64]int{}
	err := t.each(func(rows *sql.Rows) error {
		r, err := scanRun(rows)
		at[r.ID] = len(list)
		list = append(list, r)
		return err
	}, `SELECT `+runColumns+` FROM runs `+where, args...)
	if err != nil || len(list) == 0 {
		return list, err
	}
	err = t.each(func(rows *sql.Rows) error {
		run, j, err := scanJob(rows)
		if i, ok := at[run]; ok {
			list[i].Jobs = append(list[i].Jobs, j)
		}
		return err
	}, `SELECT `+jobColumns+` FROM jobs WHERE run IN (SELECT id FROM runs `+where+`) ORDER BY run, position`, args...)
	if err != nil || !steps {
		return list, err
	}
	err = t.each(func(rows *sql.Rows) error { return scanStep(rows, list, at) },
		`SELECT run, job, attempt, host, idx, name, state, exit_code, signal, error, tries, started_ms, ended_ms
		FROM steps WHERE run IN (SELECT id FROM runs `+where+`) ORDER BY run, job, attempt, host, idx`, args...)
	for i := range list {
		for k := range list[i].Jobs {
			hostRuns(&list[i].Jobs[k])
		}
	}
	return list, err
}

// scanStep puts a step of a job's last attempt with steps where it belongs.
func scanStep(rows *sql.Rows, list []deploy.Run, at map[int64]int) error {
	var run int64
	var job, host string
	var attempt int
	var st deploy.RunStep
	var code sql.NullInt64
	var started, ended int64
	err := rows.Scan(&run, &job, &attempt, &host, &st.Index, &st.Name, &st.State, &code, &st.Signal, &st.Error, &st.Tries, &started, &ended)
	if err != nil {
		return err
	}
	st.Started, st.Ended = timeOf(started), timeOf(ended)
	if code.Valid {
		n := int(code.Int64)
		st.ExitCode = &n
	}
	i, ok := at[run]
	if !ok {
		return nil
	}
	for k := range list[i].Jobs {
		j := &list[i].Jobs[k]
		if j.Name != job || attempt != j.Attempt {
			continue
		}
		h := slices.IndexFunc(j.HostRuns, func(h deploy.RunHost) bool { return h.Name == host })
		if h < 0 {
			h = len(j.HostRuns)
			j.HostRuns = append(j.HostRuns, deploy.RunHost{Name: host})
		}
		j.HostRuns[h].Steps = append(j.HostRuns[h].Steps, st)
	}
	return nil
}

// hostRuns fills in the hosts on which nothing ran yet, and how each stands, in
// the order of the job's hosts.
func hostRuns(j *deploy.RunJob) {
	for _, name := range j.Hosts {
		if !slices.ContainsFunc(j.HostRuns, func(h deploy.RunHost) bool { return h.Name == name }) {
			j.HostRuns = append(j.HostRuns, deploy.RunHost{Name: name})
		}
	}
	place := func(h deploy.RunHost) int { return slices.Index(j.Hosts, h.Name) }
	slices.SortStableFunc(j.HostRuns, func(a, b deploy.RunHost) int { return place(a) - place(b) })
	for i := range j.HostRuns {
		j.HostRuns[i].State = j.State
	}
}

// Run gives a run whole; [deploy.ErrNotFound] when there is none.
func (s *Store) Run(ctx context.Context, id int64) (*deploy.Run, error) {
	var list []deploy.Run
	err := s.snapshot(ctx, func(t *session) (err error) {
		list, err = readRuns(t, true, `WHERE id = ?`, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, deploy.ErrNotFound
	}
	return &list[0], nil
}

// Runs lists runs whole, the newest first.
func (s *Store) Runs(ctx context.Context, f deploy.RunFilter) ([]deploy.Run, error) {
	where, args := []string{"1"}, []any{}
	if f.Pipeline != "" {
		where, args = append(where, "pipeline = ?"), append(args, f.Pipeline)
	}
	if f.State != "" {
		where, args = append(where, "state = ?"), append(args, string(f.State))
	}
	if f.Before > 0 {
		where, args = append(where, "id < ?"), append(args, f.Before)
	}
	var list []deploy.Run
	err := s.snapshot(ctx, func(t *session) (err error) {
		list, err = readRuns(t, true, "WHERE "+strings.Join(where, " AND ")+" ORDER BY id DESC LIMIT ?", append(args, limit(f.Limit))...)
		return err
	})
	return list, err
}

// Unfinished gives everything that is not terminal, in one snapshot.
func (s *Store) Unfinished(ctx context.Context) (*deploy.Active, error) {
	return s.active(ctx, `WHERE state IN ('queued', 'waiting', 'running')`)
}

// Active is [Store.Unfinished] without the runs that a hold keeps waiting, once
// they say so: nothing can be decided of them until it ends, and there may be
// thousands.
func (s *Store) Active(ctx context.Context) (*deploy.Active, error) {
	return s.active(ctx, `WHERE state IN ('queued', 'waiting', 'running')
		AND NOT (state = 'waiting' AND event != 'rollback' AND waiting_for LIKE 'hold by %'
			AND pipeline IN (SELECT pipeline FROM holds WHERE kind = 'hold'))`)
}

func (s *Store) active(ctx context.Context, where string) (*deploy.Active, error) {
	a := &deploy.Active{Locks: map[string]deploy.LockHolder{}}
	err := s.snapshot(ctx, func(t *session) (err error) {
		if a.Runs, err = readRuns(t, false, where); err != nil {
			return err
		}
		err = t.each(func(rows *sql.Rows) error {
			var name string
			var h deploy.LockHolder
			err := rows.Scan(&name, &h.Run, &h.Job, &h.Blocked)
			a.Locks[name] = h
			return err
		}, `SELECT name, run, job, blocked FROM locks`)
		if err != nil {
			return err
		}
		a.Holds, err = readHolds(t)
		return err
	})
	return a, err
}

// Holds lists what keeps pipelines back.
func (s *Store) Holds(ctx context.Context) (list []deploy.Hold, err error) {
	err = s.snapshot(ctx, func(t *session) (err error) {
		list, err = readHolds(t)
		return err
	})
	return list, err
}

func readHolds(t *session) ([]deploy.Hold, error) {
	var list []deploy.Hold
	err := t.each(func(rows *sql.Rows) error {
		var h deploy.Hold
		var since int64
		err := rows.Scan(&h.Pipeline, &h.Kind, &h.By, &h.Reason, &h.Commit, &h.Target, &h.Run, &h.Order, &since)
		h.Since = timeOf(since)
		list = append(list, h)
		return err
	}, `SELECT pipeline, kind, actor, reason, commit_sha, target_sha, run, ord, since_ms FROM holds ORDER BY pipeline, kind, run`)
	return list, err
}

const deliveryColumns = `id, hook, key, body_hash, same_body, event, received_ms, message, why`

// Delivery gives a delivery with its body (nil when it was removed, as old
// ones are); [deploy.ErrNotFound] when there is none.
func (s *Store) Delivery(ctx context.Context, id int64) (*deploy.Delivery, error) {
	var body []byte
	d, err := scanDelivery(s.read.QueryRowContext(ctx, `SELECT `+deliveryColumns+`, body FROM deliveries WHERE id = ?`, id), &body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, deploy.ErrNotFound
	}
	if err != nil {
		return nil, s.explain(err)
	}
	if d.Body, err = decompress(body); err != nil {
		return nil, fmt.Errorf("reading the body of delivery %d: %w", id, err)
	}
	return &d, s.explain(s.startedBy(ctx, []*deploy.Delivery{&d}))
}

// Event gives the delivery that a run came from, a retry's being that of the
// run it retries; [deploy.ErrNotFound] for a run that a command made.
func (s *Store) Event(ctx context.Context, run int64) (*deploy.Delivery, error) {
	var id int64
	err := s.read.QueryRowContext(ctx, `SELECT delivery FROM runs WHERE id = ?`, run).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) || err == nil && id == 0 {
		return nil, deploy.ErrNotFound
	}
	if err != nil {
		return nil, s.explain(err)
	}
	return s.Delivery(ctx, id)
}

// Deliveries lists deliveries without their bodies, the newest first.
func (s *Store) Deliveries(ctx context.Context, f deploy.DeliveryFilter) ([]deploy.Delivery, error) {
	where, args := []string{"1"}, []any{}
	if f.Hook != "" {
		where, args = append(where, "hook = ?"), append(args, f.Hook)
	}
	if f.Before > 0 {
		where, args = append(where, "id < ?"), append(args, f.Before)
	}
	rows, err := s.read.QueryContext(ctx, `SELECT `+deliveryColumns+` FROM deliveries WHERE `+strings.Join(where, " AND ")+
		` ORDER BY id DESC LIMIT ?`, append(args, limit(f.Limit))...)
	if err != nil {
		return nil, s.explain(err)
	}
	list := []deploy.Delivery{}
	err = scanAll(rows, func(rows *sql.Rows) error {
		d, err := scanDelivery(rows)
		list = append(list, d)
		return err
	})
	if err != nil {
		return nil, s.explain(err)
	}
	var refs []*deploy.Delivery
	for i := range list {
		refs = append(refs, &list[i])
	}
	return list, s.explain(s.startedBy(ctx, refs))
}

func scanDelivery(row interface{ Scan(...any) error }, more ...any) (deploy.Delivery, error) {
	var d deploy.Delivery
	var received int64
	var why string
	err := row.Scan(append([]any{&d.ID, &d.Hook, &d.Key, &d.BodyHash, &d.SameBody, &d.Event, &received, &d.Message, &why}, more...)...)
	if err != nil {
		return d, err
	}
	d.Received = timeOf(received)
	return d, json.Unmarshal([]byte(why), &d.Why)
}

// startedBy fills in the runs of deliveries.
func (s *Store) startedBy(ctx context.Context, list []*deploy.Delivery) error {
	for _, d := range list {
		rows, err := s.read.QueryContext(ctx, `SELECT id FROM runs WHERE delivery = ? AND delivery != 0 ORDER BY id`, d.ID)
		if err != nil {
			return err
		}
		err = scanAll(rows, func(rows *sql.Rows) error {
			var id int64
			err := rows.Scan(&id)
			d.Runs = append(d.Runs, id)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
