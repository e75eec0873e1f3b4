package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
)

// awayEvery is how often a host where no job can start is asked again.
const awayEvery = 30 * time.Second

// away is a host whose agent is of another deployhook.
type away struct {
	why   string
	kind  deploy.AgentKind // of which it was found out
	next  time.Time        // when it is asked again
	asked bool             // it is being asked
}

// setAway keeps jobs from a host until its agent can be talked to again.
func (e *Engine) setAway(name string, kind deploy.AgentKind, why error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.away[name] = &away{why: why.Error(), kind: kind, next: time.Now().Add(awayEvery)}
}

// addAway tells the choice of the next jobs which hosts and paths cannot be
// used now, and why.
func (e *Engine) addAway(ctx context.Context, active *deploy.Active, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, a := range e.away {
		if active.Away == nil {
			active.Away = map[string]string{}
		}
		active.Away[name] = a.why
		if !a.asked && now.After(a.next) {
			a.asked = true
			e.workers.Go(func() { e.ask(ctx, name, a.kind) })
		}
	}
	for k, j := range e.running {
		if !j.unreachable.Load() {
			continue
		}
		why := j.whyUnreachable()
		for lock, h := range active.Locks {
			if h.Run == k.run && h.Job == k.job && h.Blocked == "" {
				h.Blocked = why
				active.Locks[lock] = h
			}
		}
	}
}

// whyUnreachable is what others wait for while a path of the job cannot be
// opened; empty: it can.
func (j *job) whyUnreachable() string {
	for _, p := range j.all() {
		if p.whyAway() != nil {
			return fmt.Sprintf("%s: unfinished switch of run %d; if it cannot be reached any more: deployhook unlock %s:%s --abandon",
				p.host, j.key.run, p.host, j.spec.Release.Path)
		}
	}
	return ""
}

// ask opens an agent on a host that was away; jobs start there again when it
// is one of this deployhook.
func (e *Engine) ask(ctx context.Context, name string, kind deploy.AgentKind) {
	conn, err := e.openOn(ctx, name, kind, nil)
	if err == nil {
		conn.Close()
	}
	e.mu.Lock()
	if errors.Is(err, host.ErrProtocol) {
		e.away[name] = &away{why: err.Error(), kind: kind, next: time.Now().Add(awayEvery)}
	} else {
		delete(e.away, name)
	}
	e.mu.Unlock()
	e.nudge()
}
