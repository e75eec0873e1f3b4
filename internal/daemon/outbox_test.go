package daemon_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"deployhook/internal/deploy"
	"deployhook/internal/web"
)

// received is one webhook as a receiver got it.
type received struct {
	ID, Type string
	Data     web.Run
	Raw      json.RawMessage
}

// receivers takes webhooks, each address for itself.
type receivers struct {
	*httptest.Server
	mu      sync.Mutex
	got     map[string][]received // by path
	answers sync.Map              // path -> status
	bad     atomic.Int64          // whose signature does not verify
}

func newReceivers(t *testing.T) *receivers {
	rs := &receivers{got: map[string][]received{}}
	wh, err := standardwebhooks.NewWebhookRaw([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	rs.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			return // the daemon was killed
		}
		if wh.Verify(b, r.Header) != nil {
			rs.bad.Add(1)
		}
		var p struct {
			Type string
			Data json.RawMessage
		}
		_ = json.Unmarshal(b, &p)
		got := received{ID: r.Header.Get("webhook-id"), Type: p.Type, Raw: p.Data}
		_ = json.Unmarshal(p.Data, &got.Data)
		rs.mu.Lock()
		rs.got[r.URL.Path] = append(rs.got[r.URL.Path], got)
		rs.mu.Unlock()
		if status, ok := rs.answers.Load(r.URL.Path); ok {
			w.WriteHeader(status.(int))
			fmt.Fprintf(w, "no thanks, said %s", r.URL.Path)
		}
	}))
	t.Cleanup(rs.Close)
	return rs
}

// types are the types that came to a path, repeats left out.
func (rs *receivers) types(path string) (list []string) {
	seen := map[string]bool{}
	for _, g := range rs.at(path) {
		if !seen[g.ID] {
			list = append(list, g.Type)
		}
		seen[g.ID] = true
	}
	return list
}

func (rs *receivers) at(path string) []received {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return slices.Clone(rs.got[path])
}

// notifying adds notify and targets to a config.
func notifying(config, url string) string {
	return config + `    notify:
      - { name: all, webhook: "` + url + `/all", secret: { environment: TEST_SECRET }, on: [queued, running, succeeded, failed] }
      - { name: short, webhook: "` + url + `/short", secret: { environment: TEST_SECRET } }
      - { name: never, webhook: "` + url + `/never", secret: { environment: TEST_SECRET }, on: [failed], if: "branch == 'other'" }
      - { name: refusing, webhook: "` + url + `/refusing-0123456789", secret: { environment: TEST_SECRET }, on: [succeeded], retry: { delay: 1h } }
      - { name: leaving, webhook: "` + url + `/leaving", secret: { environment: TEST_SECRET }, on: [succeeded] }
targets:
  partner: { url: "` + url + `/partner", secret: { environment: TEST_SECRET }, events: ["payment.*"] }
  books: { url: "` + url + `/books", secret: { environment: TEST_SECRET } }
`
}

// eventsToken is one that may hand in events.
func (s *site) eventsToken() string {
	s.t.Helper()
	return s.token(web.TokenCommand{Name: "shop", Actions: []deploy.Action{deploy.ActionEvents}})
}

// event hands in an event of the application.
func (s *site) event(token, key, body string) (status int, event int64) {
	req, err := http.NewRequest(http.MethodPost, "http://"+s.addr+"/api/events", strings.NewReader(body))
	if err != nil {
		s.t.Error(err)
		return 0, 0
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, 0
	}
	defer res.Body.Close()
	var a struct{ Event int64 }
	_ = json.NewDecoder(res.Body).Decode(&a)
	return res.StatusCode, a.Event
}

func TestWhatBecomesOfARunIsToldInOrder(t *testing.T) {
	t.Parallel()
	rs := newReceivers(t)
	rs.answers.Store("/refusing-0123456789", 503)
	rs.answers.Store("/leaving", 410)
	s := newSite(t)
	s.start(notifying(s.config(""), rs.URL))
	one := s.push("one")
	s.want(one, "succeeded")
	s.want(s.push("bad"), "failed")
	s.want(s.push("three"), "succeeded")
	s.until("all is told", func() bool {
		return len(rs.types("/all")) == 9 && len(rs.types("/short")) == 2 && len(rs.at("/leaving")) == 1
	})
	want := []string{"run.queued", "run.running", "run.succeeded"}
	var first []string
	for _, g := range rs.at("/all") {
		if g.Data.ID == one {
			first = append(first, g.Type)
			if "run."+g.Data.State != g.Type {
				t.Errorf("the body of %s is of a run that is %s", g.Type, g.Data.State)
			}
		}
	}
	if !slices.Equal(first, want) {
		t.Errorf("of run %d was told %q, want %q", one, first, want)
	}
	if got := rs.types("/short"); !slices.Equal(got, []string{"run.failed", "run.recovered"}) {
		t.Errorf("without on was told %q", got)
	}
	if got := rs.types("/never"); len(got) > 0 {
		t.Errorf("against its if was told %q", got)
	}
	if rs.bad.Load() > 0 {
		t.Errorf("%d signatures do not verify", rs.bad.Load())
	}
	// A target that answers 503 is tried again later, one that answers 410 is not.
	list := s.notifications(web.Query{Target: "shop/refusing"})
	if len(list) != 2 || list[1].State != "waiting" || list[1].Attempts == 0 {
		t.Fatalf("what is refused is %+v", list)
	}
	n, err := s.client.Notification(t.Context(), list[1].ID)
	if err != nil || len(n.Tries) == 0 || n.Tries[0].Status != 503 || n.Tries[0].Answer != "no thanks, said ***" || strings.Contains(*n.Error, "refusing-0123456789") {
		t.Errorf("its tries are %+v, %v", n, err)
	}
	gone := s.notifications(web.Query{Target: "shop/leaving"})
	if len(gone) != 2 || gone[1].State != "failed" || gone[0].Attempts != 0 {
		t.Errorf("after 410 there is %+v", gone)
	}
	// Resent by hand it keeps its id, and a target that is there again gets it.
	rs.answers.Delete("/refusing-0123456789")
	before := len(rs.at("/refusing-0123456789"))
	if _, err := s.client.Resend(t.Context(), list[1].ID); err != nil {
		t.Fatal(err)
	}
	s.until("it is sent again", func() bool { return len(rs.at("/refusing-0123456789")) > before })
	for _, g := range rs.at("/refusing-0123456789")[before:] {
		if g.Data.ID == one && g.ID != list[1].Key {
			t.Errorf("the id has changed from %s to %s", list[1].Key, g.ID)
		}
	}
	// Another config: the target that wanted nothing more is asked again.
	rs.answers.Delete("/leaving")
	if err := os.WriteFile(s.configFile(), []byte(notifying(s.config(""), rs.URL)+"# changed\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.until("what waited is sent", func() bool { return len(rs.at("/leaving")) == 2 })
}

func (s *site) notifications(q web.Query) []web.Notification {
	s.t.Helper()
	list, err := s.client.Notifications(s.t.Context(), q)
	if err != nil {
		s.t.Fatal(err)
	}
	return list
}

func TestEventsOfTheApplicationReachTheirTargets(t *testing.T) {
	t.Parallel()
	rs := newReceivers(t)
	s := newSite(t)
	s.start(notifying(s.config(""), rs.URL))
	token := s.eventsToken()
	for _, tt := range []struct {
		token, key, body string
		status           int
	}{
		{token, "a", `{"type":"payment.approved","data":{"order":42}}`, 202},
		{token, "a", `{"type":"payment.approved","data":{"order":42}}`, 200},
		{token, "a", `{"type":"payment.approved","data":{"order":43}}`, 409},
		{token, "", `{"type":"course.created","data":null}`, 202},
		{token, "", `{"type":"course.created"}`, 400},
		{token, "", `{"type":"no spaces","data":1}`, 400},
		{token, "", `{"type":"x","data":1}{}`, 400},
		{token, "", `{"type":"x","data":"` + strings.Repeat("x", 257<<10) + `"}`, 413},
		{"wrong", "", `{"type":"x","data":1}`, 401},
	} {
		if status, _ := s.event(tt.token, tt.key, tt.body); status != tt.status {
			t.Errorf("%.60s was answered %d, want %d", tt.body, status, tt.status)
		}
	}
	s.until("all is told", func() bool { return len(rs.at("/books")) == 2 && len(rs.at("/partner")) == 1 })
	if g := rs.at("/partner")[0]; g.Type != "payment.approved" || string(g.Raw) != `{"order":42}` || g.ID == "" {
		t.Errorf("the partner got %+v", g)
	}
	if rs.bad.Load() > 0 {
		t.Errorf("%d signatures do not verify", rs.bad.Load())
	}
	for _, n := range s.notifications(web.Query{}) {
		if n.Run != nil || n.Event == nil || !strings.HasPrefix(n.Target, "targets/") {
			t.Errorf("listed is %+v", n)
		}
	}
}

func TestKilledOutboxLosesNothingAndKeepsIdsAndOrder(t *testing.T) {
	t.Parallel()
	rs := newReceivers(t)
	s := newSite(t)
	config := strings.Replace(s.config("\n      go: { steps: [ { run: \"true\" } ] }\n"), "hook: github", "hook: github\n    concurrency: { queue: all }", 1)
	config = notifying(config, rs.URL)
	s.start(config)
	token := s.eventsToken()
	sha := s.commit("one")
	keys := map[string]bool{}
	before := strings.Repeat("0", 40)
	runs := map[int64]bool{}
	for round := range 4 {
		for i := range 25 {
			key := fmt.Sprint(round, "-", i)
			if status, _ := s.event(token, key, `{"type":"payment.approved","data":"`+key+`"}`); status == 202 {
				keys[`"`+key+`"`] = true
			}
		}
		if a := s.send(before, sha); a.status == 202 {
			runs[a.Runs[0]] = true
		}
		before, sha = sha, s.commit(fmt.Sprint("commit ", round))
		_ = s.cmd.Process.Signal(syscall.SIGKILL)
		s.died()
		s.start(config)
	}
	if len(keys) != 100 {
		t.Fatalf("%d events were accepted", len(keys))
	}
	for id := range runs {
		s.ended(id)
	}
	s.until("all is told", func() bool {
		return len(rs.types("/partner")) == len(keys) && len(rs.types("/books")) == len(keys) && len(s.notifications(web.Query{State: "queued", Limit: 1})) == 0 &&
			len(s.notifications(web.Query{State: "running", Limit: 1})) == 0
	})
	ids := map[string]string{}
	for _, g := range rs.at("/partner") {
		if was, ok := ids[g.ID]; ok && was != string(g.Raw) {
			t.Errorf("the id %s was used for %s and %s", g.ID, was, g.Raw)
		}
		ids[g.ID] = string(g.Raw)
		delete(keys, string(g.Raw))
	}
	if len(keys) > 0 || len(ids) != 100 {
		t.Errorf("%d ids; missing are %v", len(ids), keys)
	}
	order := map[string]int{"run.queued": 1, "run.running": 2, "run.succeeded": 3, "run.failed": 3}
	last, seen := map[int64]int{}, map[string]bool{}
	for _, g := range rs.at("/all") {
		if !seen[g.ID] && order[g.Type] < last[g.Data.ID] {
			t.Errorf("run %d: %s came late", g.Data.ID, g.Type)
		}
		seen[g.ID] = true
		last[g.Data.ID] = order[g.Type]
	}
	for id := range runs {
		if last[id] != 3 {
			t.Errorf("the end of run %d was not told", id)
		}
	}
}
