package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
)

// jobPart is a job on one of its hosts.
type jobPart struct {
	*job
	host string
	log  *slog.Logger

	conn   *host.Conn    // nil while there is none
	found  *deploy.Found // what its path looked like when it was opened
	clone  string        // in place: the commit of a clone that was there before deployhook
	next   int           // index of the next step
	notes  []string      // sentences for the log of the next step
	masked int           // how many secrets the log of the running step masks
	due    atomic.Int64  // ms until which the running step must have said that it goes on; 0 = none runs

	// env of a release, filled as it becomes known.
	workspace, release, releasePath, previous string

	staged host.InPlaceStaged

	// How the host stands, for people.
	phase   deploy.HostPhase
	failure error        // what went wrong on it; nil = nothing
	done    deploy.State // how a test job ended there

	// Of the switch.
	what         deploy.Recovery // what the journal asked for
	tried        bool            // this daemon has begun it here
	switched     bool            // current points to the job's release, or may
	there        bool            // nothing is left to do on this host
	back         string          // what is current again; empty = nothing was put back
	restartsLost int             // restarts that ended what was running them
	oldLost      error           // how the restart of the old release ended its agent

	away      error  // why its path cannot be opened now; guarded by job.mu
	gaveUp    string // who abandons its host; guarded by job.mu
	abandoned error  // why its host counts no more
	blocked   bool   // only a person can say what goes on there
}

// split makes the parts of a job whose config is known.
func (j *job) split() {
	if j.parts != nil {
		return
	}
	var parts []*jobPart
	for _, name := range j.spec.Hosts {
		p := &jobPart{job: j, host: name, log: j.log}
		if j.far() {
			p.log = j.log.With("host", name)
		}
		parts = append(parts, p)
	}
	j.turns = make(chan struct{}, treesAtOnce)
	j.mu.Lock()
	j.parts = parts
	j.mu.Unlock()
}

// all are the parts of the job, for who is not the job itself: none before its
// config is known.
func (j *job) all() []*jobPart {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.parts
}

// setAway notes why the path of a part cannot be opened now; nil = it can.
func (p *jobPart) setAway(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = err
}

// whyAway is what setAway noted.
func (p *jobPart) whyAway() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.away
}

// far says whether a sentence about the job must say of which host it is.
func (j *job) far() bool { return len(j.spec.Hosts) > 1 || j.spec.Hosts[0] != deploy.Local }

// active are the parts of the job but those that were abandoned or are blocked.
func (j *job) active() []*jobPart {
	var list []*jobPart
	for _, p := range j.parts {
		if p.abandoned == nil && !p.blocked {
			list = append(list, p)
		}
	}
	return list
}

// each does something on all hosts side by side, and waits for all of them.
func (j *job) each(fn func(*jobPart) error) error { return eachOf(j.active(), fn) }

func eachOf(parts []*jobPart, fn func(*jobPart) error) error {
	do := func(p *jobPart) error {
		err := fn(p)
		p.fail(err)
		return p.named(err)
	}
	if len(parts) == 1 {
		return do(parts[0])
	}
	errs := make([]error, len(parts))
	var all sync.WaitGroup
	for i, p := range parts {
		all.Go(func() { errs[i] = do(p) })
	}
	all.Wait()
	return both(errs...)
}

// treesAtOnce bounds on how many hosts the tree of one job is sent side by
// side: each takes memory for what is on its way.
const treesAtOnce = 16

// inTurn sends the tree to a host when few enough others are at it.
func (p *jobPart) inTurn(ctx context.Context, send func() error) error {
	select {
	case p.turns <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-p.turns }()
	return send()
}

// every is each for what ends with an outcome: that of the job is the worst.
func (j *job) every(fn func(*jobPart) outcome) outcome {
	parts := j.active()
	outs := make([]outcome, len(parts))
	_ = eachOf(parts, func(p *jobPart) error {
		out := fn(p)
		p.ended(out)
		outs[p.place(parts)] = out
		return nil
	})
	return worst(parts, outs)
}

func (p *jobPart) place(parts []*jobPart) int {
	for i, o := range parts {
		if o == p {
			return i
		}
	}
	return -1
}

// gravest orders the states that an attempt may end in.
var gravest = []deploy.State{deploy.Running, deploy.Lost, deploy.Failed, deploy.Canceled, deploy.Queued, deploy.Waiting, deploy.Succeeded}

// worst puts the outcomes of parts together.
func worst(parts []*jobPart, outs []outcome) outcome {
	var all outcome
	for _, state := range gravest {
		var texts []error
		for i, o := range outs {
			if o.state != state {
				continue
			}
			all.state = state
			all.cause, all.waiting = first(all.cause, o.cause), first(all.waiting, o.waiting)
			switch err := errors.New(o.err); {
			case o.err == "":
			case o.blocked != nil: // it names the hosts
				all.err = o.err
			default:
				texts = append(texts, parts[i].named(err))
			}
			all.block(o.blocked)
		}
		if all.state != "" {
			if err := both(texts...); err != nil && all.err != "" {
				all.err += "; " + err.Error()
			} else if err != nil {
				all.err = err.Error()
			}
			return all
		}
	}
	return outcome{state: deploy.Succeeded}
}

// named puts the name of its host before an error, where that tells something
// and stands there not yet.
func (p *jobPart) named(err error) error {
	if err == nil || !p.far() || startsWithHost(err.Error(), p.host) {
		return err
	}
	return fmt.Errorf("%s: %w", p.host, err)
}

func startsWithHost(text, name string) bool {
	return strings.HasPrefix(strings.TrimPrefix(text, "host "), name+": ")
}

// errorsShown bounds how many hosts' errors a sentence tells of.
const errorsShown = 3

// severalErrors are those of several hosts, in one sentence.
type severalErrors []error

func (e severalErrors) Error() string {
	var b strings.Builder
	for i, err := range e {
		if i == errorsShown {
			fmt.Fprintf(&b, "; and %d more", len(e)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(err.Error())
	}
	return b.String()
}

func (e severalErrors) Unwrap() []error { return e }

// both puts errors into one sentence, each once; nil when there is none.
func both(errs ...error) error {
	var list severalErrors
	for _, err := range errs {
		if err != nil && !slices.ContainsFunc(list, func(e error) bool { return e.Error() == err.Error() }) {
			list = append(list, err)
		}
	}
	switch len(list) {
	case 0:
		return nil
	case 1:
		return list[0]
	}
	return list
}

// names lists the hosts of parts for a sentence.
func names(parts []*jobPart) string {
	var list []string
	for _, p := range parts {
		list = append(list, p.host)
	}
	return joined(list)
}

// hangUp ends the agent of a part; one that has none is left alone.
func (p *jobPart) hangUp() {
	conn := p.conn
	if p.conn = nil; conn == nil {
		return
	}
	if err := conn.Close(); err != nil {
		p.log.Warn("closing the agent", "err", err)
	}
}

// hangUp ends all agents of the job.
func (j *job) hangUp() {
	var all sync.WaitGroup
	for _, p := range j.parts {
		all.Go(p.hangUp)
	}
	all.Wait()
}
