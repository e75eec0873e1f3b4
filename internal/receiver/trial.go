package receiver

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"deployhook/internal/deploy"
)

// TrialHeader has the id of a trial. It is no secret that opens anything: a
// trial is verified like every delivery, and the id only keeps it from being
// stored and from starting something.
const TrialHeader = "X-Deployhook-Test"

// trialsMost bounds the trials that are under way at once.
const trialsMost = 64

// trialTaken is what the sender of a right trial is answered.
const trialTaken = "a test, and it is verified: nothing is stored and nothing starts"

// Trial is a delivery that the daemon sends to itself, to see what a sender
// would see. The receiver knows it by an id that it made, once: it is verified
// as every delivery is, and then neither stored nor planned.
type Trial struct {
	rc       *Receiver
	id       string
	hook     string
	header   http.Header
	body     []byte
	mu       sync.Mutex
	outcome  TrialOutcome
	received bool
}

// TrialOutcome is what the receiver knows of a trial.
type TrialOutcome struct {
	From     string // the address that it came from; empty = it did not arrive
	Changed  bool   // its body was another one on arrival
	Verified bool   // its signature, or token, was right
}

// trials are those under way, by id.
type trials struct {
	mu   sync.Mutex
	open map[string]*Trial
}

// Trial makes a delivery for a hook, signed with the hook's secrets when right,
// else with ones that nobody has. It counts until [Trial.Close].
//
// Errors: [deploy.ErrNotFound]; a secret that cannot be read;
// [deploy.ErrRefused] when too many are under way.
func (rc *Receiver) Trial(ctx context.Context, name string, right bool) (*Trial, error) {
	cfg := rc.o.Config()
	hook := cfg.Hook(name)
	if hook == nil {
		var names []string
		for _, h := range cfg.Hooks {
			names = append(names, h.Name)
		}
		return nil, fmt.Errorf("hook %q: %w%s", name, deploy.ErrNotFound, deploy.DidYouMean(name, names))
	}
	t := &Trial{rc: rc, id: randomHex(16), hook: name}
	keys, err := rc.keys(ctx, hook, right)
	if err != nil {
		return nil, fmt.Errorf("hook %s: %w", name, err)
	}
	if t.body, err = json.Marshal(trialBody(hook.Provider, t.id)); err != nil {
		return nil, err
	}
	t.header = sign(hook, keys, t.id, t.body, time.Now())
	t.header.Set("Content-Type", "application/json")
	t.header.Set("User-Agent", "deployhook-test")
	t.header.Set(TrialHeader, t.id)
	rc.trials.mu.Lock()
	defer rc.trials.mu.Unlock()
	if len(rc.trials.open) >= trialsMost {
		return nil, fmt.Errorf("%w: %d tests of hooks are under way: try again in a moment", deploy.ErrRefused, trialsMost)
	}
	if rc.trials.open == nil {
		rc.trials.open = map[string]*Trial{}
	}
	rc.trials.open[t.id] = t
	return t, nil
}

// Close forgets the trial: what comes with its id after that is a delivery
// like every other.
func (t *Trial) Close() {
	t.rc.trials.mu.Lock()
	defer t.rc.trials.mu.Unlock()
	delete(t.rc.trials.open, t.id)
}

// Request is the trial as a request below base, without a slash at its end.
func (t *Trial) Request(ctx context.Context, base string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/hooks/"+t.hook, bytes.NewReader(t.body))
	if err != nil {
		return nil, err
	}
	req.Header = t.header.Clone()
	return req, nil
}

// Outcome is what the receiver knows of the trial by now.
func (t *Trial) Outcome() TrialOutcome {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.outcome
}

// arrived finds the trial that a request is; nil when it is none. Each is
// found once, so that nobody can bring it a second time.
func (rc *Receiver) arrived(r *http.Request, hook string) *Trial {
	id := r.Header.Get(TrialHeader)
	if id == "" {
		return nil
	}
	rc.trials.mu.Lock()
	t := rc.trials.open[id]
	rc.trials.mu.Unlock()
	if t == nil || t.hook != hook {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.received {
		return nil
	}
	t.received = true
	t.outcome.From = rc.address(r)
	return t
}

// compare says whether the body is still the one that was sent. There need be
// no trial.
func (t *Trial) compare(body []byte) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.outcome.Changed = !bytes.Equal(body, t.body)
}

// verified ends a trial whose signature was right.
func (t *Trial) verified() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.outcome.Verified = true
}

// randomHex is n random bytes in hexadecimal.
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it never fails
	return hex.EncodeToString(b)
}
