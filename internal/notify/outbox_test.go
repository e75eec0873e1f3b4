package notify_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/notify"
	"deployhook/internal/store"
)

// outbox is one over a real database, with targets at a server.
type outbox struct {
	*store.Store
	t      *testing.T
	mu     sync.Mutex
	config *deploy.Config
	got    map[string][]string // by path: webhook-ids
	stop   func()
}

func newOutbox(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) *outbox {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s, err := store.Open(t.Context(), t.TempDir(), log)
	if err != nil {
		t.Fatal(err)
	}
	o := &outbox{Store: s, t: t, config: &deploy.Config{Digest: "one"}, got: map[string][]string{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		o.mu.Lock()
		o.got[r.URL.Path] = append(o.got[r.URL.Path], r.Header.Get("webhook-id"))
		o.mu.Unlock()
		answer(w, r)
	}))
	clients := notify.NewClients(nil)
	b := notify.New(notify.Options{
		Store: s, Told: s.Told(), Config: func() *deploy.Config { return o.config }, Client: clients.Client, Log: log,
		Fill:   func(context.Context, *notify.Message) error { return nil },
		Secret: func(context.Context, deploy.Secret) (string, error) { return "", nil },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	o.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { o.stop(); clients.Close(); server.Close(); s.Close() })
	o.config.Targets = append(o.config.Targets, deploy.Target{Literal: server.URL})
	go func() { done <- b.Run(ctx) }()
	return o
}

// targets makes so many, each with its own path.
func (o *outbox) targets(prefix string, n int) (names []string) {
	url := o.config.Targets[0].Literal
	for i := range n {
		name := fmt.Sprint(prefix, i)
		o.config.Targets = append(o.config.Targets, deploy.Target{Name: name, Literal: url + "/" + name})
		names = append(names, deploy.EventTarget(name))
	}
	return names
}

func (o *outbox) add(targets ...string) {
	o.t.Helper()
	if _, _, err := o.AddEvent(o.t.Context(), &deploy.AppEvent{Type: "paid", Data: []byte("1"), Received: time.Now()}, targets); err != nil {
		o.t.Fatal(err)
	}
}

func (o *outbox) until(what string, ok func() bool) {
	o.t.Helper()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		o.mu.Lock()
		done := ok()
		o.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(end) {
			o.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// Targets that never answer, more than may be asked once they have failed: the
// others get theirs meanwhile.
func TestTargetsThatDoNotAnswerDelayNoOther(t *testing.T) {
	t.Parallel()
	o := newOutbox(t, func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/sick") {
			<-r.Context().Done()
		}
	})
	sick, well := o.targets("sick", 150), o.targets("well", 10)
	o.add(sick...)
	o.until("the sick are being sent to", func() bool { return len(o.got) > 0 })
	for range 3 {
		o.add(well...)
	}
	o.until("the others have theirs", func() bool {
		n := 0
		for path, list := range o.got {
			if strings.HasPrefix(path, "/well") && len(list) == 3 {
				n++
			}
		}
		return n == len(well)
	})
	// Ended while it sends, it gives back what it had.
	o.stop()
	left := 0
	for _, state := range []deploy.State{deploy.Queued, deploy.Waiting} {
		list, err := o.Notifications(t.Context(), deploy.NotificationFilter{State: state, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		left += len(list)
	}
	if left != len(sick) {
		t.Errorf("%d of %d wait for the next daemon", left, len(sick))
	}
}

func TestThousandTargetsGetTheirs(t *testing.T) {
	t.Parallel()
	o := newOutbox(t, func(http.ResponseWriter, *http.Request) {})
	all := o.targets("t", 1000)
	o.add(all...)
	o.add(all...)
	o.until("each has both events", func() bool {
		n := 0
		for _, list := range o.got {
			if len(list) == 2 && list[0] != list[1] {
				n++
			}
		}
		return n == len(all)
	})
}

func TestTargetThatFailsRestsAndCostsNothing(t *testing.T) {
	t.Parallel()
	o := newOutbox(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	name := o.targets("bad", 1)[0]
	for range 40 {
		o.add(name)
	}
	o.until("it has failed five times", func() bool { return len(o.got["/bad0"]) >= 5 })
	o.add(name)
	o.stop()
	if n := len(o.got["/bad0"]); n != 5 {
		t.Errorf("it was asked %d times, want 5", n)
	}
}

func TestTargetThatIsNotInTheConfigIsToldNothing(t *testing.T) {
	t.Parallel()
	o := newOutbox(t, func(http.ResponseWriter, *http.Request) {})
	o.add(deploy.EventTarget("removed"))
	o.until("it is canceled", func() bool {
		list, err := o.Notifications(t.Context(), deploy.NotificationFilter{State: deploy.Canceled, Limit: 10})
		return err == nil && len(list) == 1 && list[0].Error == "deploy.yaml has no such target any more"
	})
}
