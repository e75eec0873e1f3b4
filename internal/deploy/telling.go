package deploy

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
)

// Happened is a change of a run, as it is about to be written down.
type Happened struct {
	Before State // of the run; empty = it is new
	Waited string
	Run    *Run
	// Relapsed says whether the run of its pipeline and ref that ended before
	// it, succeeded or not, did not succeed.
	Relapsed func() (bool, error)
	// Delivery gives what brought the run about; nil = nothing that is kept.
	Delivery func() (*Delivery, error)
}

// Telling is what some targets are told at once.
type Telling struct {
	Run     int64 // 0 = of an event of the application
	Change  Change
	Type    string
	Config  string
	Body    []byte
	Targets []string
	At      time.Time
}

// Teller says what is told of a change of a run, and to whom. It is asked
// within the transaction of the change, and so must not write.
type Teller interface {
	// Listens says whether anybody is told of a pipeline's runs under a config.
	Listens(config, pipeline string) bool
	Tell(h *Happened) []Telling
}

// approvalWait begins what a run says that waits for a person.
const approvalWait = "approval"

// Changes are what a change of a run is told as, what says most first. None:
// nothing that anybody is told of.
func Changes(h *Happened) ([]Change, error) {
	r := h.Run
	if r.State == Waiting && strings.HasPrefix(r.WaitingFor, approvalWait) && !strings.HasPrefix(h.Waited, approvalWait) {
		return []Change{NeedsApproval, Change(Waiting)}, nil
	}
	if h.Before == r.State || h.Before == Running && !r.State.Terminal() {
		return nil, nil // the second: it begins anew after a crash
	}
	var list []Change
	switch r.State {
	case Succeeded:
		relapsed, err := h.Relapsed()
		if err != nil {
			return nil, err
		}
		if r.Event == Rollback {
			list = append(list, RolledBack)
		}
		if relapsed {
			list = append(list, Recovered)
		}
	case Canceled:
		if strings.HasPrefix(r.Cause, "superseded by ") {
			list = append(list, Superseded)
		}
	}
	return append(list, Change(r.State)), nil
}

// Wants gives the change that an entry of notify is told of: the first that it
// names. why is what is wrong with its if, where that cannot be evaluated.
func (n *Notify) Wants(changes []Change, scope func() *Scope) (c Change, wanted bool, why string) {
	i := slices.IndexFunc(changes, func(c Change) bool { return slices.Contains(n.On, c) })
	if i < 0 {
		return "", false, ""
	}
	if n.If == nil {
		return changes[i], true, ""
	}
	s := scope()
	s.Notice.Change = changes[i]
	ok, why := n.If.Eval(s)
	return changes[i], ok, why
}

// NotifyScope is what the if and the text of an entry of notify see: needs of
// all jobs, and as job the first one that failed. Which change is told is the
// caller's word.
func NotifyScope(p *Pipeline, run *Run, ev *Event) *Scope {
	n := &Notice{Run: run.ID, Pipeline: run.Pipeline, State: run.State, Cause: run.Cause, Error: run.Error}
	s := &Scope{Event: ev, SHA: run.Commit, Env: map[string]string{}, Needs: map[string]NeedResult{}, Notice: n}
	for _, v := range p.Env {
		if text, err := v.Value.Expand(s); err == nil {
			s.Env[v.Name] = text
		}
	}
	for i := range run.Jobs {
		j := &run.Jobs[i]
		s.Needs[j.Name] = NeedResult{Result: j.State}
		if j.State == Failed || j.State == Lost {
			s.Status.Failed = true
			s.Job = cmp.Or(s.Job, j.Name)
			n.Error = cmp.Or(n.Error, j.Error)
		}
		s.Status.Canceled = s.Status.Canceled || j.State == Canceled
		s.Status.Skipped = s.Status.Skipped || j.State == Skipped
	}
	return s
}

// EventOf is what is known of a run's event without its payload.
func EventOf(run *Run) *Event {
	ev := &Event{
		Kind: run.Event, Hook: run.Hook, Name: string(run.Event), Repository: run.Repository, Before: run.Before, After: run.Commit,
		Commit: run.Commit, Forced: run.Forced, Actor: run.Actor, Message: run.Message, Inputs: run.Inputs,
	}
	ev.SetRef(run.Ref)
	return ev
}

// NotifyTarget names an entry of notify among all that is sent to.
func NotifyTarget(pipeline, name string) string { return pipeline + "/" + name }

// eventTargets is before the name of an entry of targets. No pipeline has a
// slash in its name, and none is called so: see [NotifyTarget].
const eventTargets = "targets"

// EventTarget names an entry of targets among all that is sent to.
func EventTarget(name string) string { return eventTargets + "//" + name }

// EventTargets are those that get the application's events of a type.
func (c *Config) EventTargets(kind string) []string {
	var list []string
	for i := range c.Targets {
		if t := &c.Targets[i]; len(t.Events) == 0 || MatchList(t.Events, kind) {
			list = append(list, EventTarget(t.Name))
		}
	}
	return list
}

// Notified finds who is meant by a name of a target, in this config; nil when
// nobody is any more. p is nil for an entry of targets.
func (c *Config) Notified(target string) (n *Notify, p *Pipeline) {
	if name, ok := strings.CutPrefix(target, EventTarget("")); ok {
		for i := range c.Targets {
			if t := &c.Targets[i]; t.Name == name {
				return &Notify{
					Name: t.Name, Kind: NotifyWebhook, URL: t.URL, Literal: t.Literal, Secrets: t.Secrets, Retry: t.Retry, AllowPrivate: t.AllowPrivate,
				}, nil
			}
		}
		return nil, nil
	}
	pipeline, name, _ := strings.Cut(target, "/")
	if p = c.Pipeline(pipeline); p == nil {
		return nil, nil
	}
	for i := range p.Notify {
		if p.Notify[i].Name == name {
			return &p.Notify[i], p
		}
	}
	return nil, nil
}

// How notifications are tried again without a word about it in the config, and
// the longest that one waits for its next try.
const (
	NotifyDelay   = 5 * time.Second
	NotifyFactor  = 2.0
	NotifyLongest = 12 * time.Hour
	NotifyDays    = 72 * time.Hour // how long a notification is tried
)

// After gives the longest time before the try after so many. Who waits takes a
// random part of it, so that many do not come back at once.
func (r NotifyRetry) After(tries int) time.Duration {
	delay, factor := r.Delay, r.Factor
	if delay <= 0 {
		delay = NotifyDelay
	}
	if factor < 1 {
		factor = NotifyFactor
	}
	d := float64(delay) * math.Pow(factor, float64(max(0, tries-1)))
	if d >= float64(NotifyLongest) {
		return NotifyLongest
	}
	return time.Duration(d)
}

// NotifyTry is one try to send a notification.
type NotifyTry struct {
	At     time.Time `json:"at"`
	TookMS int64     `json:"took_ms"`
	Status int       `json:"status"` // 0 = no answer came
	Error  string    `json:"error"`
	Answer string    `json:"answer"` // the first KiB
}

// NotifyTriesMost is how many tries of a notification are kept, the last ones.
const NotifyTriesMost = 20

// NotifyDue says that a target has something to be sent.
type NotifyDue struct {
	Target string
	Next   time.Time // of the first that waits
	Gone   string    // digest of the config under which the target wanted nothing more; empty = it does
}

// NotifyClaim asks for notifications of a target, at most so many.
type NotifyClaim struct {
	Target string
	Most   int
}

// NotifyEnd is what became of a claimed notification. It holds only while the
// notification is running at Attempts.
type NotifyEnd struct {
	ID       int64
	Attempts int // before this try
	Tried    bool
	To       State // succeeded, failed, canceled; waiting for another try at Next
	Next     time.Time
	Error    string
	Tries    []NotifyTry
	Target   string
	Run      int64
	Gone     string // not empty: its target wants nothing more under the config of this digest
	At       time.Time
}

// NotificationFilter narrows a list of notifications, newest first.
type NotificationFilter struct {
	State  State
	Target string
	Run    int64
	Before int64
	Limit  int
}
