package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"maps"
	"strings"

	"deployhook/internal/deploy"
)

func (t *tx) saveOutputs(at deploy.StepAt, outputs map[string]string) error {
	if len(outputs) == 0 {
		return nil
	}
	content, err := json.Marshal(outputs)
	if err != nil {
		return err
	}
	return t.exec(`INSERT OR REPLACE INTO outputs (run, job, host, idx, attempt, content) VALUES (?, ?, ?, ?, ?, ?)`,
		at.Run, at.Job, at.Host, at.Index, at.Attempt, string(content))
}

// DropOutputs forgets what earlier attempts at a job wrote on a host.
func (s *Store) DropOutputs(ctx context.Context, at deploy.StepAt) error {
	return s.write(ctx, func(t *tx) error {
		return t.exec(`DELETE FROM outputs WHERE run = ? AND job = ? AND host = ? AND attempt < ?`, at.Run, at.Job, at.Host, at.Attempt)
	})
}

// Outputs gives what the steps of a run wrote for later jobs, by job and name.
func (s *Store) Outputs(ctx context.Context, run int64) (all map[string]map[string]string, err error) {
	err = s.snapshot(ctx, func(t *session) (err error) {
		all, err = t.outputs(run)
		return err
	})
	return all, err
}

func (t *session) outputs(run int64) (map[string]map[string]string, error) {
	jobs := map[string]map[string]map[string]string{} // job, host, name
	hosts := map[string]string{}
	err := t.each(func(rows *sql.Rows) error {
		var job, host, at, content string
		if err := rows.Scan(&job, &at, &host, &content); err != nil {
			return err
		}
		if jobs[job] == nil {
			jobs[job], hosts[job] = map[string]map[string]string{}, at
		}
		if jobs[job][host] == nil {
			jobs[job][host] = map[string]string{}
		}
		var step map[string]string
		err := json.Unmarshal([]byte(content), &step)
		maps.Copy(jobs[job][host], step) // a later step's counts
		return err
	}, `SELECT o.job, j.hosts, o.host, o.content FROM outputs o JOIN jobs j ON j.run = o.run AND j.name = o.job
		WHERE o.run = ? ORDER BY o.job, o.host, o.idx`, run)
	all := map[string]map[string]string{}
	for job, of := range jobs {
		all[job] = deploy.MergeOutputs(strings.Split(hosts[job], ","), of)
	}
	return all, err
}

func (t *session) addOutputs(r *deploy.Run) error {
	all, err := t.outputs(r.ID)
	for i := range r.Jobs {
		r.Jobs[i].Outputs = all[r.Jobs[i].Name]
	}
	return err
}
