package daemon

import (
	"context"
	"fmt"
	"slices"

	"deployhook/internal/deploy"
	"deployhook/internal/notify"
	"deployhook/internal/web"
)

// teller says what changes of runs are told, as the config says under which a
// run was accepted.
type teller struct{ d *daemon }

// pipelineOf finds the pipeline of a run as it was when the run was accepted;
// nil when it cannot be read any more.
func (t teller) pipelineOf(digest, name string) *deploy.Pipeline {
	cfg, err := t.d.configOf(context.Background(), digest)
	if err != nil {
		t.d.log.Debug("reading the config of a run that may be told of", "pipeline", name, "err", err)
		return nil
	}
	return cfg.Pipeline(name)
}

// Listens is part of [deploy.Teller].
func (t teller) Listens(digest, pipeline string) bool {
	p := t.pipelineOf(digest, pipeline)
	return p != nil && len(p.Notify) > 0
}

// Tell is part of [deploy.Teller]. What goes wrong here must not keep a run from
// ending: it is logged.
func (t teller) Tell(h *deploy.Happened) []deploy.Telling {
	run := h.Run
	p := t.pipelineOf(run.Config, run.Pipeline)
	changes, err := deploy.Changes(h)
	if err != nil || p == nil {
		t.warn(run, err)
		return nil
	}
	var list []deploy.Telling
	var scope *deploy.Scope
	for i := range p.Notify {
		n := &p.Notify[i]
		change, wanted, why := n.Wants(changes, func() *deploy.Scope {
			if scope == nil {
				scope = t.scope(p, h)
			}
			return scope
		})
		if why != "" {
			t.d.log.Debug("an if of notify is false", "pipeline", run.Pipeline, "run", run.ID, "target", n.Name, "err", why)
		}
		if !wanted {
			continue
		}
		at := slices.IndexFunc(list, func(l deploy.Telling) bool { return l.Change == change })
		if at < 0 {
			body, err := web.RunJSON(run)
			if err != nil {
				t.warn(run, err)
				return nil
			}
			at = len(list)
			list = append(list, deploy.Telling{Change: change, Type: "run." + string(change), Config: run.Config, Body: body})
		}
		list[at].Targets = append(list[at].Targets, deploy.NotifyTarget(p.Name, n.Name))
	}
	return list
}

func (t teller) warn(run *deploy.Run, err error) {
	if err != nil {
		t.d.log.Warn("nobody is told of a run", "pipeline", run.Pipeline, "run", run.ID, "err", err)
	}
}

// scope is what an if of notify sees, the payload included where it is kept.
func (t teller) scope(p *deploy.Pipeline, h *deploy.Happened) *deploy.Scope {
	ev := deploy.EventOf(h.Run)
	if h.Run.Delivery == 0 {
		return deploy.NotifyScope(p, h.Run, ev)
	}
	del, err := h.Delivery()
	if err == nil && del != nil {
		if read, err := t.d.readDelivery(context.Background(), h.Run.Config, del); err == nil {
			ev.Payload, ev.Name = read.Payload, read.Name
		}
	}
	return deploy.NotifyScope(p, h.Run, ev)
}

// addEvent stores an event of the application for those who get its type.
func (d *daemon) addEvent(ctx context.Context, e *deploy.AppEvent) (id int64, known bool, err error) {
	return d.store.AddEvent(ctx, e, d.config().EventTargets(e.Type))
}

// tailMost is how many lines of the step that failed a message has.
const tailMost = 20

// fill adds to a message about a run what is known of it.
func (d *daemon) fill(ctx context.Context, m *notify.Message) error {
	if m.Spec.Kind == deploy.NotifyWebhook && m.Spec.Text == nil {
		return nil // its body is all that it says
	}
	run, err := d.store.Run(ctx, m.Notification.Run)
	if err != nil {
		return fmt.Errorf("reading run %d: %w", m.Notification.Run, err)
	}
	m.Run = run
	m.Command = fmt.Sprintf("deployhook run %d", run.ID)
	m.URL = deploy.RunURL(d.file.Load().Server.URL, run.ID)
	d.failing(ctx, m)
	if m.Spec.Text == nil {
		return nil
	}
	ev, _, err := d.event(ctx, run)
	if err != nil || ev == nil {
		ev = deploy.EventOf(run)
	}
	scope := deploy.NotifyScope(m.Pipeline, run, ev)
	scope.Notice.Change = m.Change
	if m.Text, err = m.Spec.Text.Expand(scope); err != nil {
		// The message is worth more than its words: the sender has its own.
		d.log.Debug("the text of a notification", "target", m.Target, "run", run.ID, "err", err)
		m.Text = ""
	}
	return nil
}

// failing finds the step that failed, and its last lines.
func (d *daemon) failing(ctx context.Context, m *notify.Message) {
	bad := func(s deploy.State) bool { return s == deploy.Failed || s == deploy.Lost }
	for _, j := range m.Run.Jobs {
		for _, h := range j.HostRuns {
			for _, s := range h.Steps {
				if !bad(s.State) || m.Step != "" {
					continue
				}
				m.Job, m.Host, m.Step = j.Name, h.Name, s.Name
			}
		}
		if bad(j.State) && m.Job == "" {
			m.Job = j.Name
		}
	}
	if m.Step == "" {
		return
	}
	m.Command = fmt.Sprintf("deployhook logs %d --job %s --host %s", m.Run.ID, m.Job, m.Host)
	err := d.store.Log(ctx, m.Run.ID, deploy.LogFilter{Job: m.Job, Step: m.Step, Host: m.Host, Tail: tailMost}, func(c deploy.LogChunk) error {
		m.Tail = append(m.Tail, c.Lines...)
		if n := len(m.Tail) - tailMost; n > 0 {
			m.Tail = slices.Delete(m.Tail, 0, n)
		}
		return nil
	})
	if err != nil {
		d.log.Debug("reading the last lines for a notification", "run", m.Run.ID, "err", err)
	}
}
