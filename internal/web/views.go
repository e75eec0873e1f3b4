// Package web serves the control socket and has the client that the command
// line uses.
package web

import (
	"time"

	"deployhook/internal/deploy"
)

// Run is a run as `run ID --json` shows it.
type Run struct {
	ID         int64      `json:"id"`
	Pipeline   string     `json:"pipeline"`
	State      string     `json:"state"`
	Cause      *string    `json:"cause"`
	Error      *string    `json:"error"`
	Event      string     `json:"event"`
	Why        *string    `json:"why"` // what brought it about, where no delivery says so
	Ref        *string    `json:"ref"`
	Commit     *string    `json:"commit"`
	Actor      *string    `json:"actor"`
	Message    *string    `json:"message"`
	RetryOf    *int64     `json:"retry_of"`
	WaitingFor *string    `json:"waiting_for"`
	Config     string     `json:"config"`
	Delivery   *int64     `json:"delivery"`
	Created    time.Time  `json:"created"`
	Started    *time.Time `json:"started"`
	Ended      *time.Time `json:"ended"`
	Jobs       []Job      `json:"jobs"`
}

// Job is a job of a run.
type Job struct {
	Name       string  `json:"name"`
	State      string  `json:"state"`
	Cause      *string `json:"cause"`
	Error      *string `json:"error"`
	Attempt    int     `json:"attempt"`
	WaitingFor *string `json:"waiting_for"`
	Hosts      []Host  `json:"hosts"`
}

// Host is a job on one host.
type Host struct {
	Name  string `json:"name"`
	State string `json:"state"`
	Steps []Step `json:"steps"`
}

// Step is a step on one host.
type Step struct {
	Name     string     `json:"name"`
	State    string     `json:"state"`
	ExitCode *int       `json:"exit_code"`
	Signal   *string    `json:"signal"`
	Error    *string    `json:"error"`
	Started  *time.Time `json:"started"`
	Ended    *time.Time `json:"ended"`
}

// Delivery is a delivery as `deliveries --json` shows it.
type Delivery struct {
	ID       int64            `json:"id"`
	Hook     string           `json:"hook"`
	Delivery *string          `json:"delivery"` // the provider's id
	Event    string           `json:"event"`
	Received time.Time        `json:"received"`
	Runs     []int64          `json:"runs"`
	Message  string           `json:"message"`
	Why      []deploy.Verdict `json:"why,omitempty"`
}

// Line is one line of a log.
type Line struct {
	Time    time.Time `json:"time"`
	Job     string    `json:"job"`
	Attempt int       `json:"attempt"`
	Host    string    `json:"host"`
	Step    string    `json:"step"`
	Stream  string    `json:"stream"` // stdout, stderr or deployhook
	Text    string    `json:"text"`
	Open    bool      `json:"open,omitempty"` // the next line of this step continues it
}

// Receipt is what a replay started.
type Receipt struct {
	Delivery int64   `json:"delivery"`
	Runs     []int64 `json:"runs"`
	Message  string  `json:"message"`
}

func opt(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func optID(n int64) *int64 {
	if n == 0 {
		return nil
	}
	return &n
}

func optTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func runView(r *deploy.Run) Run {
	v := Run{
		ID: r.ID, Pipeline: r.Pipeline, State: string(r.State), Cause: opt(r.Cause), Error: opt(r.Error), Event: string(r.Event), Why: opt(r.Why),
		Ref: opt(r.Ref), Commit: opt(r.Commit), Actor: opt(r.Actor), Message: opt(r.Message), RetryOf: optID(r.RetryOf),
		WaitingFor: opt(r.WaitingFor), Config: r.Config, Delivery: optID(r.Delivery),
		Created: r.Created.UTC(), Started: optTime(r.Started), Ended: optTime(r.Ended), Jobs: []Job{},
	}
	for _, j := range r.Jobs {
		jv := Job{Name: j.Name, State: string(j.State), Cause: opt(j.Cause), Error: opt(j.Error), Attempt: j.Attempt, WaitingFor: opt(j.WaitingFor), Hosts: []Host{}}
		for _, h := range j.HostRuns {
			hv := Host{Name: h.Name, State: string(h.State), Steps: []Step{}}
			for _, s := range h.Steps {
				hv.Steps = append(hv.Steps, Step{
					Name: s.Name, State: string(s.State), ExitCode: s.ExitCode, Signal: opt(s.Signal), Error: opt(s.Error),
					Started: optTime(s.Started), Ended: optTime(s.Ended),
				})
			}
			jv.Hosts = append(jv.Hosts, hv)
		}
		v.Jobs = append(v.Jobs, jv)
	}
	return v
}

func deliveryView(d *deploy.Delivery) Delivery {
	v := Delivery{ID: d.ID, Hook: d.Hook, Delivery: opt(d.Key), Event: d.Event, Received: d.Received.UTC(), Runs: d.Runs, Message: d.Message, Why: d.Why}
	if v.Runs == nil {
		v.Runs = []int64{}
	}
	return v
}
