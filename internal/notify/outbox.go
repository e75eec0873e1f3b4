package notify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"deployhook/internal/deploy"
)

// Bounds of what is sent at once.
const (
	slots     = 512                   // messages, to all targets together: most of these only wait
	riskyMost = 384                   // of these, to targets that are not proven
	badMost   = 128                   // of these, to targets that have failed
	perTarget = 4                     // messages that one target gets at once
	rate      = 50                    // messages a second that one target gets
	pace      = 500                   // messages a second to all: a push is worth more
	burst     = 16                    // of these at once
	ahead     = 16                    // claimed messages of one target
	claimMost = 64                    // messages of one claim: accepts wait for its transaction
	endMost   = 64                    // of one write of what became of them
	passTime  = 25 * time.Millisecond // between two looks at what is due
	sweepTime = 30 * time.Second      // without being told, a look all the same
	holdTime  = 250 * time.Millisecond
	retryTime = time.Second     // before what the database did not take is given to it again
	knownMost = 128             // bodies that are kept in memory
	bodyMost  = 64 << 10        // bytes of a body that is kept in memory
	afterTime = 5 * time.Second // for the last writes of a daemon that stops
)

// Store is the outbox as it is on disk.
type Store interface {
	NotificationsDue(ctx context.Context) ([]deploy.NotifyDue, error)
	ClaimNotifications(ctx context.Context, claims []deploy.NotifyClaim, at time.Time) ([]deploy.Notification, error)
	EndNotifications(ctx context.Context, ends []deploy.NotifyEnd) error
	Telling(ctx context.Context, event int64) (*deploy.Telling, error)
}

// Options are what an outbox needs; all are needed.
type Options struct {
	Store  Store
	Told   <-chan struct{} // signaled when there may be something to send
	Config func() *deploy.Config
	// Fill adds to a message about a run what is known of it: all from Run on.
	Fill   func(ctx context.Context, m *Message) error
	Client func(allowPrivate bool, literal string) *http.Client
	Secret func(ctx context.Context, s deploy.Secret) (string, error)
	Log    *slog.Logger
}

// Outbox sends what waits in the store: at least once, in order for each run
// and target. A daemon that is killed sends again what it was sending.
type Outbox struct {
	o       Options
	senders map[deploy.NotifyKind]Sender
	targets map[string]*target
	order   []*target // by name: they are served in turn
	turn    int       // who is first the next time
	digest  string    // of the config that targets are known under
	next    time.Time // no message before this: the pace
	sending int
	risky   int                // of these, to targets that are not proven
	bad     int                // of these, to targets that have failed
	results chan *result       // never full: as large as there are slots
	ends    []deploy.NotifyEnd // to be written down
	sends   sync.WaitGroup

	mu    sync.Mutex
	known map[int64]*deploy.Telling // what is told to many is read once
}

// target is somebody to be told, as long as there is something to tell.
type target struct {
	name    string
	circuit circuit
	claimed []deploy.Notification // to be sent, of different runs
	sending int
	next    time.Time // no message before this: the rate
	due     time.Time // when the first on disk may be claimed; zero = none is there
	hold    time.Time // nothing could be claimed: what is due waits for what is being sent
	gone    bool
}

// result is what came of a try.
type result struct {
	t      *target
	n      deploy.Notification
	spec   *deploy.Notify
	risky  bool
	bad    bool
	at     time.Time
	took   time.Duration
	answer Answer
	err    error
	over   bool // the target is not in the config any more
}

// New makes an outbox. Nothing is sent before [Outbox.Run].
func New(o Options) *Outbox {
	b := &Outbox{o: o, senders: map[deploy.NotifyKind]Sender{}, targets: map[string]*target{}, results: make(chan *result, slots), known: map[int64]*deploy.Telling{}}
	for kind, sender := range Senders {
		b.senders[kind] = sender(Deps{Client: o.Client, Secret: o.Secret, Log: o.Log})
	}
	return b
}

// Run sends until ctx ends. What is being sent then is broken off, and sent
// again by the next daemon.
func (b *Outbox) Run(ctx context.Context) error {
	sendCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	told, every := true, passTime
	var looked, failed time.Time
	for {
		now := time.Now()
		if told && now.Sub(looked) >= every || now.Sub(looked) >= sweepTime {
			told = false
			if err := b.look(ctx); err != nil && ctx.Err() == nil {
				b.o.Log.Warn("looking for notifications", "err", err)
				told = true
			}
			looked = time.Now()
			every = max(passTime, 10*looked.Sub(now)) // many targets: not all the time
		}
		if now.Sub(failed) >= retryTime && len(b.ends) < endMost+slots {
			short, err := b.claim(ctx, now)
			if err != nil && ctx.Err() == nil {
				b.o.Log.Warn("claiming notifications", "err", err)
				failed = now
			}
			told = told || short
		}
		b.start(sendCtx, time.Now())
		if len(b.ends) >= endMost || len(b.ends) > 0 && (b.sending == 0 || now.Sub(b.ends[0].At) >= passTime) {
			if now.Sub(failed) >= retryTime {
				if err := b.write(ctx); err != nil && ctx.Err() == nil {
					b.o.Log.Warn("writing down what became of notifications", "err", err)
					failed = now
				}
			}
		}
		timer := time.NewTimer(b.wait(time.Now(), looked, failed, every, told))
		select {
		case <-ctx.Done():
			timer.Stop()
			stop()
			return b.finish(ctx)
		case <-b.o.Told:
			told = true
		case r := <-b.results:
			b.done(r)
			for range len(b.results) {
				b.done(<-b.results)
			}
		case <-timer.C:
		}
		timer.Stop()
	}
}

// finish waits for the sends that were broken off and writes down what is known.
func (b *Outbox) finish(ctx context.Context) error {
	b.sends.Wait()
	for range len(b.results) {
		b.done(<-b.results)
	}
	for _, t := range b.order {
		b.release(t)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterTime)
	defer cancel()
	for len(b.ends) > 0 {
		if err := b.write(last); err != nil {
			// Sent again by the next daemon: the receiver drops what it knows.
			b.o.Log.Warn("writing down what became of notifications", "err", err)
			return nil
		}
	}
	return nil
}

// look reads which targets have something to be sent.
func (b *Outbox) look(ctx context.Context) error {
	list, err := b.o.Store.NotificationsDue(ctx)
	if err != nil {
		return err
	}
	cfg := b.o.Config()
	if cfg.Digest != b.digest {
		// What a target did under another config says nothing any more.
		for _, t := range b.order {
			t.circuit = circuit{}
		}
		b.digest = cfg.Digest
	}
	for _, t := range b.order {
		t.due = time.Time{}
	}
	for _, d := range list {
		t := b.targets[d.Target]
		if t == nil {
			t = &target{name: d.Target}
			b.targets[d.Target] = t
			b.order = append(b.order, t)
		}
		t.due, t.gone = d.Next, d.Gone != "" && d.Gone == cfg.Digest
	}
	// Who has nothing to be told and is well needs no memory.
	b.order = slices.DeleteFunc(b.order, func(t *target) bool {
		idle := t.due.IsZero() && t.sending == 0 && len(t.claimed) == 0 && t.circuit.failures == 0 && !t.circuit.rests(time.Now())
		if idle {
			delete(b.targets, t.name)
		}
		return idle
	})
	slices.SortFunc(b.order, func(a, o *target) int { return cmp.Compare(a.name, o.name) })
	return nil
}

// claim takes messages for the targets that can be sent to, in turn. short says
// that there were fewer: only another look says from when there are more.
func (b *Outbox) claim(ctx context.Context, now time.Time) (short bool, err error) {
	var claims []deploy.NotifyClaim
	room := claimMost
	for i := range b.order {
		t := b.order[(b.turn+i)%len(b.order)]
		want := min(t.wants(now), room)
		if want <= 0 {
			continue
		}
		claims = append(claims, deploy.NotifyClaim{Target: t.name, Most: want})
		if room -= want; room == 0 {
			b.turn = (b.turn + i + 1) % len(b.order)
			break
		}
	}
	if len(claims) == 0 {
		return false, nil
	}
	list, err := b.o.Store.ClaimNotifications(ctx, claims, now)
	if err != nil {
		return false, err
	}
	got := map[string]int{}
	for _, n := range list {
		got[n.Target]++
		t := b.targets[n.Target]
		t.claimed = append(t.claimed, n)
	}
	for _, c := range claims {
		if got[c.Target] == c.Most {
			continue
		}
		// The others wait for their time, or for one before them.
		t := b.targets[c.Target]
		t.due, short = time.Time{}, true
		if got[c.Target] == 0 {
			t.hold = now.Add(holdTime)
		}
	}
	return short, nil
}

// wants says how many messages more a target may have in hand.
func (t *target) wants(now time.Time) int {
	switch {
	case t.due.IsZero() || now.Before(t.due) || now.Before(t.hold) || t.gone || t.circuit.rests(now):
		return 0
	case t.circuit.proven:
		// Half of it at once, and not one by one.
		if have := len(t.claimed) + t.sending; have <= ahead/2 {
			return ahead - have
		}
		return 0
	}
	return 1 - len(t.claimed) - t.sending
}

// start sends what is claimed, as far as the bounds allow, to all in turn.
func (b *Outbox) start(ctx context.Context, now time.Time) {
	for progress := true; progress && b.sending < slots; {
		progress = false
		for _, t := range b.order {
			if b.sending == slots || b.next.After(now) || !b.mayStart(t, now) {
				continue
			}
			b.next = later(b.next, now.Add(-burst*time.Second/pace)).Add(time.Second / pace)
			n := t.claimed[0]
			t.claimed = t.claimed[1:]
			t.next = later(t.next, now.Add(-time.Second/rate)).Add(time.Second / rate)
			t.sending++
			b.sending++
			r := result{t: t, n: n, risky: !t.circuit.proven, bad: t.circuit.failures > 0, at: now}
			if r.risky {
				b.risky++
			}
			if r.bad {
				b.bad++
			}
			b.sends.Go(func() { b.send(ctx, &r); b.results <- &r })
			progress = true
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// mayStart says whether a target may be sent to now. Those that are not proven
// have one message each and a part of the slots, and those that have failed a
// part of that: however many do not answer, the others are served.
func (b *Outbox) mayStart(t *target, now time.Time) bool {
	if len(t.claimed) == 0 || t.next.After(now) || t.circuit.rests(now) {
		return false
	}
	if t.circuit.proven {
		return t.sending < perTarget
	}
	return b.mayRisk(t)
}

func (b *Outbox) mayRisk(t *target) bool {
	return t.sending == 0 && b.risky < riskyMost && (t.circuit.failures == 0 || b.bad < badMost)
}

// send makes a try.
func (b *Outbox) send(ctx context.Context, r *result) {
	began := time.Now()
	defer func() { r.took = time.Since(began) }()
	spec, pipeline := b.o.Config().Notified(r.n.Target)
	if spec == nil {
		r.over = true
		return
	}
	r.spec = spec
	ctx, cancel := context.WithTimeout(ctx, SendTime)
	defer cancel()
	m := &Message{Notification: r.n, Spec: spec, Pipeline: pipeline, Attempt: r.n.Attempts + 1}
	told, err := b.telling(ctx, r.n.Event)
	if err != nil {
		r.err = err
		return
	}
	m.Change, m.Type, m.Config, m.Body, m.Created = told.Change, told.Type, told.Config, told.Body, told.At
	if m.Run = nil; r.n.Run != 0 {
		m.Notification.Event = 0
		if r.err = b.o.Fill(ctx, m); r.err != nil {
			return
		}
	}
	sender := b.senders[spec.Kind]
	if sender == nil {
		r.answer.Permanent, r.err = true, fmt.Errorf("notifications by %s are not available in this version", spec.Kind)
		return
	}
	r.answer, r.err = sender.Send(ctx, m)
	if r.err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) && r.answer.Status == 0 && errors.Is(r.err, context.DeadlineExceeded) {
		r.err = fmt.Errorf("no answer within %v", SendTime)
	}
}

// telling gives what is told.
func (b *Outbox) telling(ctx context.Context, event int64) (*deploy.Telling, error) {
	b.mu.Lock()
	l := b.known[event]
	b.mu.Unlock()
	if l != nil {
		return l, nil
	}
	l, err := b.o.Store.Telling(ctx, event)
	if err != nil || len(l.Body) > bodyMost {
		return l, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.known) >= knownMost {
		clear(b.known)
	}
	b.known[event] = l
	return l, nil
}

// done takes what came of a try.
func (b *Outbox) done(r *result) {
	r.t.sending--
	b.sending--
	if r.risky {
		b.risky--
	}
	if r.bad {
		b.bad--
	}
	now := time.Now()
	end := deploy.NotifyEnd{ID: r.n.ID, Attempts: r.n.Attempts, Tries: r.n.Tries, Target: r.n.Target, Run: r.n.Run, Next: now, At: now, To: deploy.Succeeded}
	if errors.Is(r.err, context.Canceled) && r.answer.Status == 0 {
		end.To, end.Error = unsent(&r.n), r.n.Error
		b.ends = append(b.ends, end)
		return
	}
	if r.over {
		end.To, end.Error = deploy.Canceled, "deploy.yaml has no such target any more"
		b.ends = append(b.ends, end)
		return
	}
	end.Tried = true
	try := deploy.NotifyTry{At: r.at.UTC(), TookMS: r.took.Milliseconds(), Status: r.answer.Status, Answer: string(Hide(r.answer.Body))}
	if r.err != nil {
		try.Error, end.Error = r.err.Error(), r.err.Error()
	}
	end.Tries = append(slices.Clone(r.n.Tries), try)
	if n := len(end.Tries) - deploy.NotifyTriesMost; n > 0 {
		end.Tries = end.Tries[n:]
	}
	rested := r.t.circuit.open()
	switch {
	case r.err == nil:
		r.t.circuit.succeeded(r.took)
		if rested {
			b.o.Log.Info("a target of notifications answers again", "target", r.t.name)
		}
	case r.answer.Gone:
		end.To, end.Gone, r.t.gone = deploy.Failed, b.o.Config().Digest, true
		b.release(r.t)
		b.o.Log.Warn("a target of notifications wants nothing more", "target", r.t.name, "err", r.err)
	default:
		if !r.answer.Permanent {
			r.t.circuit.failed(now, r.answer.RetryAfter)
		}
		b.again(&end, r, now)
		if r.t.circuit.rests(now) {
			b.release(r.t)
		}
		if r.t.circuit.open() && !rested {
			b.o.Log.Warn("a target of notifications rests", "target", r.t.name, "err", r.err)
		}
	}
	b.ends = append(b.ends, end)
}

// again says when a message is tried again, if it is.
func (b *Outbox) again(end *deploy.NotifyEnd, r *result, now time.Time) {
	tries := r.n.Attempts + 1
	limit := r.spec.Retry.Limit
	wait := max(rand.N(r.spec.Retry.After(tries)), r.answer.RetryAfter)
	end.To, end.Next = deploy.Waiting, now.Add(wait)
	switch {
	case r.answer.Permanent, limit > 0 && tries > limit:
	case end.Next.After(r.n.Since.Add(deploy.NotifyDays)):
		end.Error += "; three days are over"
	default:
		return
	}
	end.To = deploy.Failed
	b.o.Log.Warn("a notification could not be sent", "target", r.n.Target, "run", r.n.Run, "attempt", tries, "err", r.err)
}

// release gives back what is claimed and not sent.
func (b *Outbox) release(t *target) {
	for _, n := range t.claimed {
		b.ends = append(b.ends, deploy.NotifyEnd{
			ID: n.ID, Attempts: n.Attempts, Tries: n.Tries, Target: n.Target, Run: n.Run, To: unsent(&n), Next: n.Next, Error: n.Error, At: time.Now(),
		})
	}
	t.claimed = nil
}

// unsent is the state of one that is given back.
func unsent(n *deploy.Notification) deploy.State {
	if n.Attempts == 0 {
		return deploy.Queued
	}
	return deploy.Waiting
}

// write writes down what became of messages.
func (b *Outbox) write(ctx context.Context) error {
	n := min(len(b.ends), endMost)
	if err := b.o.Store.EndNotifications(ctx, b.ends[:n]); err != nil {
		return err
	}
	for _, e := range b.ends[:n] {
		if t := b.targets[e.Target]; t != nil {
			t.hold = time.Time{}
		}
	}
	b.ends = slices.Delete(b.ends, 0, n)
	return nil
}

// wait is how long nothing is to be done unless something happens.
func (b *Outbox) wait(now, looked, failed time.Time, every time.Duration, told bool) time.Duration {
	next := looked.Add(sweepTime)
	sooner := func(at time.Time) {
		if at.Before(next) {
			next = at
		}
	}
	if told {
		sooner(looked.Add(every))
	}
	if len(b.ends) > 0 {
		sooner(later(b.ends[0].At.Add(passTime), failed.Add(retryTime)))
	}
	for _, t := range b.order {
		if t.gone {
			continue
		}
		if len(t.claimed) > 0 && (t.circuit.proven && t.sending < perTarget || !t.circuit.proven && b.mayRisk(t)) {
			sooner(later(later(t.next, b.next), t.circuit.until))
		}
		if !t.due.IsZero() && t.sending == 0 && len(t.claimed) == 0 {
			sooner(later(later(later(t.due, t.hold), t.circuit.until), failed.Add(retryTime)))
		}
	}
	return max(next.Sub(now), time.Millisecond)
}
