package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deployhook/internal/deploy"
)

// memory is a store and an engine in memory.
type memory struct {
	mu         sync.Mutex
	runs       map[int64]*deploy.Run
	chunks     []deploy.LogChunk
	deliveries []deploy.Delivery
	asked      any    // the last filter or command
	actor      string // of the last command
	err        error  // what commands give
	logErr     error  // what a log gives at its end
	releases   []deploy.Release
	read       chan struct{}
}

func (m *memory) Run(_ context.Context, id int64) (*deploy.Run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.runs[id] == nil {
		return nil, deploy.ErrNotFound
	}
	r := *m.runs[id]
	return &r, nil
}

func (m *memory) Runs(_ context.Context, f deploy.RunFilter) ([]deploy.Run, error) {
	m.asked = f
	return nil, m.err
}

func (m *memory) Log(_ context.Context, run int64, f deploy.LogFilter, fn func(deploy.LogChunk) error) error {
	m.mu.Lock()
	chunks := slices.Clone(m.chunks)
	m.mu.Unlock()
	for _, c := range chunks {
		if c.ID > f.After && (f.Job == "" || f.Job == c.At.Job) && (f.Step == "" || f.Step == c.StepName) {
			if err := fn(c); err != nil {
				return err
			}
		}
	}
	select {
	case m.read <- struct{}{}:
	default:
	}
	return m.logErr
}

func (m *memory) Deliveries(_ context.Context, f deploy.DeliveryFilter) ([]deploy.Delivery, error) {
	m.asked = f
	return m.deliveries, m.err
}

func (m *memory) Delivery(_ context.Context, id int64) (*deploy.Delivery, error) {
	for i := range m.deliveries {
		if m.deliveries[i].ID == id {
			return &m.deliveries[i], nil
		}
	}
	return nil, deploy.ErrNotFound
}

func (m *memory) command(asked any, actor string) (int64, error) {
	m.asked, m.actor = asked, actor
	return 42, m.err
}

func (m *memory) Trigger(_ context.Context, c deploy.TriggerCommand) (int64, error) {
	return m.command(c, c.Actor)
}

func (m *memory) Retry(_ context.Context, c deploy.RetryCommand) (int64, error) {
	return m.command(c, c.Actor)
}

func (m *memory) Cancel(_ context.Context, run int64, actor string) error {
	_, err := m.command(run, actor)
	return err
}

func (m *memory) Rollback(_ context.Context, c deploy.RollbackCommand) (deploy.RollbackReceipt, error) {
	run, err := m.command(c, c.Actor)
	return deploy.RollbackReceipt{Run: run, From: "b", Target: "a"}, err
}

func (m *memory) Releases(_ context.Context, pipeline string) ([]deploy.Release, error) {
	m.asked = pipeline
	return m.releases, m.err
}

func (m *memory) held(word, pipeline, actor, reason string) error {
	_, err := m.command(word+" "+pipeline+" "+reason, actor)
	return err
}

func (m *memory) Hold(_ context.Context, pipeline, actor, reason string) error {
	return m.held("hold", pipeline, actor, reason)
}

func (m *memory) Unhold(_ context.Context, pipeline, actor, reason string) error {
	return m.held("unhold", pipeline, actor, reason)
}

func (m *memory) Lock(_ context.Context, pipeline, actor, reason string) error {
	return m.held("lock", pipeline, actor, reason)
}

func (m *memory) Unlock(_ context.Context, pipeline, actor, reason string) error {
	return m.held("unlock", pipeline, actor, reason)
}

func (m *memory) Abandon(_ context.Context, host, path, actor string) error {
	return m.held("abandon", host, actor, path)
}

// serve serves m on a socket of its own and gives a client, the socket and the
// server.
func serve(t *testing.T, m *memory) (*Client, string, *http.Server) {
	t.Helper()
	dir, err := os.MkdirTemp("", "web") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "control.sock")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(Options{
		Reader: m, Commands: m, Holds: m, Log: slog.New(slog.DiscardHandler),
		Replay: func(_ context.Context, delivery int64, force bool, actor string) (deploy.Receipt, error) {
			_, err := m.command(fmt.Sprint("replay ", delivery, force), actor)
			return deploy.Receipt{Delivery: delivery, Message: "nothing"}, err
		},
		Reload: func(context.Context) (string, error) { return "in force", m.err },
	})
	served := make(chan struct{})
	go func() { defer close(served); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-served })
	return Dial(socket), socket, s
}

func someRun() *deploy.Run {
	at := time.Date(2026, 4, 1, 10, 15, 0, 0, time.FixedZone("CEST", 2*3600))
	code := 3
	r := &deploy.Run{ID: 7, State: deploy.Failed, Error: "job test: step two: exit status 3", Created: at, Started: at.Add(time.Second), Ended: at.Add(2 * time.Second)}
	r.Pipeline, r.Config, r.Event, r.Ref, r.Commit, r.Actor = "shop", "c0ffee", deploy.Push, "refs/heads/main", strings.Repeat("a", 40), "alice"
	test := deploy.RunJob{State: deploy.Failed, Error: "step two: exit status 3", Attempt: 1, HostRuns: []deploy.RunHost{{
		Name: "local", State: deploy.Failed,
		Steps: []deploy.RunStep{{Name: "two", State: deploy.Failed, ExitCode: &code, Error: "exit status 3", Started: at, Ended: at.Add(time.Second)}},
	}}}
	test.Name = "test"
	job := deploy.RunJob{State: deploy.Skipped, Cause: "job test failed"}
	job.Name = "deploy"
	r.Jobs = []deploy.RunJob{test, job}
	return r
}

const someRunJSON = `{"id":7,"pipeline":"shop","state":"failed","cause":null,"error":"job test: step two: exit status 3","event":"push","why":null,
"ref":"refs/heads/main","commit":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","actor":"alice","message":null,"retry_of":null,"waiting_for":null,
"config":"c0ffee","delivery":null,"created":"2026-04-01T08:15:00Z","started":"2026-04-01T08:15:01Z","ended":"2026-04-01T08:15:02Z","jobs":[
{"name":"test","state":"failed","cause":null,"error":"step two: exit status 3","attempt":1,"waiting_for":null,"hosts":[{"name":"local","state":"failed",
"steps":[{"name":"two","state":"failed","exit_code":3,"signal":null,"error":"exit status 3","started":"2026-04-01T08:15:00Z","ended":"2026-04-01T08:15:01Z"}]}]},
{"name":"deploy","state":"skipped","cause":"job test failed","error":null,"attempt":0,"waiting_for":null,"hosts":[]}]}`

func TestRunIsOneObjectWithNullWhereNothingIsAndTimesInUTC(t *testing.T) {
	c, _, _ := serve(t, &memory{runs: map[int64]*deploy.Run{7: someRun()}})
	run, err := c.Run(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(run)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.ReplaceAll(someRunJSON, "\n", ""); string(got) != want {
		t.Errorf("the run is\n%s\nwant\n%s", got, want)
	}
}

func TestListsAreArraysAlsoWhenEmpty(t *testing.T) {
	_, socket, _ := serve(t, &memory{})
	for _, path := range []string{"/api/runs", "/api/deliveries", "/api/pipelines/shop/releases"} {
		if got := raw(t, socket, "GET", path, ""); got != "200 []\n" {
			t.Errorf("GET %s gives %q, want an empty array", path, got)
		}
	}
}

// raw sends a request and gives status and body.
func raw(t *testing.T, socket, method, path, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://x"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := Dial(socket).http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d %s", res.StatusCode, b)
}

func TestListsAreBoundedAndHaveACursor(t *testing.T) {
	m := &memory{}
	c, socket, _ := serve(t, m)
	if _, err := c.Runs(t.Context(), Query{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(deploy.RunFilter{Limit: 50}, m.asked); diff != "" {
		t.Errorf("without a word the store is asked for (-want +got)\n%s", diff)
	}
	if _, err := c.Runs(t.Context(), Query{Pipeline: "a&b", State: "failed", Limit: 1000, Before: 9}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(deploy.RunFilter{Pipeline: "a&b", State: deploy.Failed, Limit: 1000, Before: 9}, m.asked); diff != "" {
		t.Errorf("the filter arrives as (-want +got)\n%s", diff)
	}
	if _, err := c.Deliveries(t.Context(), Query{Hook: "github", Limit: 1, Before: 2}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(deploy.DeliveryFilter{Hook: "github", Limit: 1, Before: 2}, m.asked); diff != "" {
		t.Errorf("the filter arrives as (-want +got)\n%s", diff)
	}
	for query, want := range map[string]string{
		"limit=0": "limit is a number from 1 to 1000", "limit=1001": "limit is a number", "limit=x": "limit is a number",
		"before=0": "before is a number above 0", "before=-1": "before is", "before=99999999999999999999": "before is",
		"state=faild": `did you mean \"failed\"?`,
	} {
		got := raw(t, socket, "GET", "/api/runs?"+query, "")
		if !strings.HasPrefix(got, "400 ") || !strings.Contains(got, want) {
			t.Errorf("%s is answered %q, want 400 and %q", query, got, want)
		}
	}
}

func TestErrorsComeOutOfTheClientAsTheyWentIntoTheServer(t *testing.T) {
	for _, tt := range []struct {
		err    error
		kind   error
		status int
		want   string
		hint   string
	}{
		{fmt.Errorf("%w: shop has no repository", deploy.ErrMisuse), deploy.ErrMisuse, 400, "shop has no repository", ""},
		{fmt.Errorf("%w: no pipeline %q", deploy.ErrNotFound, "x"), deploy.ErrNotFound, 404, `no pipeline "x"`, ""},
		{fmt.Errorf("%w: release x; deployhook releases lists them", deploy.ErrNotFound), deploy.ErrNotFound, 404, "not found: release x; deployhook releases lists them", ""},
		{fmt.Errorf("%w: already live", deploy.ErrRefused), deploy.ErrRefused, 409, "already live", ""},
		{fmt.Errorf("%w: shop has a lock by bob", deploy.ErrLocked), deploy.ErrLocked, 409, "shop has a lock by bob", "deployhook unlock shop ends it"},
		{fmt.Errorf("moving: %w", deploy.ErrStale), deploy.ErrStale, 409, "moving: the state has changed meanwhile", "somebody was first: look again, then try again"},
		{fmt.Errorf("storing: %w", deploy.ErrFull), deploy.ErrFull, 507, "storing: no space left", ""},
		{errors.New("opening an agent: exec format error"), nil, 500, "opening an agent: exec format error", ""},
	} {
		c, socket, _ := serve(t, &memory{err: tt.err})
		_, err := c.Hold(t.Context(), "lock", "shop", "")
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%v comes out as %v (%T)", tt.err, err, err)
			continue
		}
		if e.Message != tt.want || e.Hint != tt.hint {
			t.Errorf("%v comes out as %q with the hint %q, want %q and %q", tt.err, e.Message, e.Hint, tt.want, tt.hint)
		}
		for _, kind := range []error{deploy.ErrMisuse, deploy.ErrNotFound, deploy.ErrRefused, deploy.ErrLocked, deploy.ErrStale, deploy.ErrFull} {
			if got := errors.Is(err, kind); got != (kind == tt.kind) {
				t.Errorf("errors.Is(%q, %v) = %v", err, kind, got)
			}
		}
		if got := raw(t, socket, "POST", "/api/pipelines/shop/lock", "{}"); !strings.HasPrefix(got, fmt.Sprint(tt.status)) {
			t.Errorf("%v is answered %q, want %d", tt.err, got, tt.status)
		}
	}
}

func TestCommandsArriveWithTheUserThatTheKernelNames(t *testing.T) {
	m := &memory{deliveries: []deploy.Delivery{{ID: 3}}}
	c, socket, _ := serve(t, m)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for _, tt := range []struct {
		do   func() (any, error)
		want any
		got  any
	}{
		{func() (any, error) {
			return c.Trigger(ctx, deploy.TriggerCommand{Pipeline: "shop", Branch: "main", Actor: "mallory"})
		}, deploy.TriggerCommand{Pipeline: "shop", Branch: "main", Actor: me.Username}, int64(42)},
		{func() (any, error) { return c.Retry(ctx, 7, true) }, deploy.RetryCommand{Run: 7, Force: true, Actor: me.Username}, int64(42)},
		{func() (any, error) { return c.Cancel(ctx, 7) }, int64(7), "run 7 is being canceled"},
		{func() (any, error) { return c.Rollback(ctx, deploy.RollbackCommand{Pipeline: "a b?", To: "x"}) },
			deploy.RollbackCommand{Pipeline: "a b?", To: "x", Actor: me.Username}, deploy.RollbackReceipt{Run: 42, From: "b", Target: "a"}},
		{func() (any, error) { return c.Hold(ctx, "hold", "shop", "why") }, "hold shop why", "shop is held: its runs wait"},
		{func() (any, error) { return c.Hold(ctx, "unhold", "shop", "") }, "unhold shop ", "shop goes on"},
		{func() (any, error) { return c.Hold(ctx, "lock", "shop", "why") }, "lock shop why", "shop is locked: its release jobs wait"},
		{func() (any, error) { return c.Hold(ctx, "unlock", "shop", "") }, "unlock shop ", "shop is unlocked"},
		{func() (any, error) { return c.Abandon(ctx, "local", "/srv/shop") }, "abandon local /srv/shop", "the unfinished switch of local:/srv/shop is dropped; current stays where it points"},
		{func() (any, error) { return c.Replay(ctx, 3, true) }, "replay 3 true", Receipt{Delivery: 3, Runs: []int64{}, Message: "nothing"}},
	} {
		m.asked, m.actor = nil, ""
		got, err := tt.do()
		if err != nil {
			t.Errorf("%v: %v", tt.want, err)
			continue
		}
		if diff := cmp.Diff(tt.want, m.asked); diff != "" {
			t.Errorf("the command arrives as (-want +got)\n%s", diff)
		}
		if m.actor != me.Username {
			t.Errorf("%v: the actor is %q, want %q", tt.want, m.actor, me.Username)
		}
		if diff := cmp.Diff(tt.got, got); diff != "" {
			t.Errorf("%v: the answer is (-want +got)\n%s", tt.want, diff)
		}
	}
	if got := raw(t, socket, "POST", "/api/pipelines/shop/explode", "{}"); !strings.HasPrefix(got, "404 ") {
		t.Errorf("an unknown command is answered %q, want 404", got)
	}
}

func TestBadRequestsAreRefusedWithOneSentence(t *testing.T) {
	m := &memory{}
	_, socket, _ := serve(t, m)
	for body, want := range map[string]string{
		"": "reading the request", "{": "reading the request", `{"x":1}`: "unknown field", `{} {}`: "something follows its JSON",
		`{"reason":"` + strings.Repeat("a", requestMost) + `"}`: "it is over 256 KiB",
	} {
		got := raw(t, socket, "POST", "/api/pipelines/shop/hold", body)
		if !strings.HasPrefix(got, "400 ") || !strings.Contains(got, want) {
			t.Errorf("the body %.40q is answered %q, want 400 and %q", body, got, want)
		}
	}
	if m.asked != nil {
		t.Errorf("a bad request was carried out: %v", m.asked)
	}
	if got := raw(t, socket, "POST", "/api/runs/0/cancel", ""); !strings.HasPrefix(got, "400 ") {
		t.Errorf("run 0 is answered %q, want 400", got)
	}
}

func TestNamesThatPathsWouldLoseAreNoPipelines(t *testing.T) {
	m := &memory{}
	c, _, _ := serve(t, m)
	for _, name := range []string{"", ".", "..", "a/b", "../runs"} {
		if _, err := c.Trigger(t.Context(), deploy.TriggerCommand{Pipeline: name}); !errors.Is(err, deploy.ErrNotFound) {
			t.Errorf("triggering %q gives %v, want not found", name, err)
		}
	}
	if m.asked != nil {
		t.Errorf("%v was carried out", m.asked)
	}
}

func TestDeliveryListLeavesTheReasonsToOneDelivery(t *testing.T) {
	d := deploy.Delivery{ID: 3, Hook: "github", Key: "k", Event: "push", Received: time.Unix(0, 0), Message: "m", Why: []deploy.Verdict{{Pipeline: "shop", Run: true, Why: "w"}}, Runs: []int64{9}}
	c, socket, _ := serve(t, &memory{deliveries: []deploy.Delivery{d}})
	want := `200 [{"id":3,"hook":"github","delivery":"k","event":"push","received":"1970-01-01T00:00:00Z","runs":[9],"message":"m"}]` + "\n"
	if got := raw(t, socket, "GET", "/api/deliveries", ""); got != want {
		t.Errorf("the list is %s, want %s", got, want)
	}
	one, err := c.Delivery(t.Context(), 3)
	if err != nil || len(one.Why) != 1 {
		t.Errorf("delivery 3 is %v, %v, want one reason", one, err)
	}
	_, err = c.Delivery(t.Context(), 4)
	var e *Error
	if !errors.As(err, &e) || e.Message != "delivery 4: not found" || e.Hint != "deployhook deliveries lists them" {
		t.Errorf("delivery 4 gives %#v", err)
	}
}

func line(id int64, job, step, text string) deploy.LogChunk {
	return deploy.LogChunk{
		ID: id, At: deploy.StepAt{Run: 7, Job: job, Attempt: 1, Host: "local"}, StepName: step,
		Lines: []deploy.LogLine{{Time: time.Unix(0, 0), Stream: 1, Text: []byte(text)}},
	}
}

func TestFollowedLogEndsWithItsRunAndLosesNothing(t *testing.T) {
	run := someRun()
	run.State = deploy.Running
	m := &memory{runs: map[int64]*deploy.Run{7: run}, chunks: []deploy.LogChunk{line(1, "test", "one", "a")}, read: make(chan struct{}, 1)}
	c, _, _ := serve(t, m)
	var got []string
	done := make(chan error, 1)
	first := make(chan struct{})
	go func() {
		done <- c.Log(t.Context(), 7, "", "", true, func(l Line) error {
			if got = append(got, l.Text); len(got) == 1 {
				close(first)
			}
			return nil
		})
	}()
	wait(t, first, "the first line")
	m.mu.Lock()
	m.chunks = append(m.chunks, line(2, "test", "one", "b"), line(3, "deploy", "two", "c"))
	m.runs[7].State = deploy.Succeeded
	m.mu.Unlock()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the log did not end with its run")
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, got); diff != "" {
		t.Errorf("the lines are (-want +got)\n%s", diff)
	}
}

func wait(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s did not come within 10s", what)
	}
}

func TestShutdownEndsAFollowedLogWithASentence(t *testing.T) {
	run := someRun()
	run.State = deploy.Running
	m := &memory{runs: map[int64]*deploy.Run{7: run}, read: make(chan struct{}, 1)}
	c, _, s := serve(t, m)
	done := make(chan error, 1)
	go func() { done <- c.Log(t.Context(), 7, "", "", true, func(Line) error { return nil }) }()
	wait(t, m.read, "the first look")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown = %v, want none: a followed log kept it", err)
	}
	if err := <-done; err == nil || err.Error() != "the daemon stops; run 7 goes on, or starts again, when it is back" {
		t.Errorf("the log ends with %v", err)
	}
}

func TestLogThatIsCutShortIsAnError(t *testing.T) {
	m := &memory{runs: map[int64]*deploy.Run{7: someRun()}, chunks: []deploy.LogChunk{line(1, "test", "two", "a")}, logErr: errors.New("log chunk 2 is damaged")}
	c, _, _ := serve(t, m)
	var got []string
	err := c.Log(t.Context(), 7, "", "", false, func(l Line) error { got = append(got, l.Text); return nil })
	if err == nil || err.Error() != "log chunk 2 is damaged" || len(got) != 1 {
		t.Errorf("the log gives %q and %v, want its line and the error", got, err)
	}
}

func TestLogOfAJobOrStepThatIsNotThereIsRefused(t *testing.T) {
	m := &memory{runs: map[int64]*deploy.Run{7: someRun()}, chunks: []deploy.LogChunk{line(1, "test", "two", "a"), line(2, "deploy", "x", "b")}}
	c, _, _ := serve(t, m)
	for _, tt := range []struct{ job, step, want, hint string }{
		{"tset", "", `run 7 has no job "tset"; did you mean "test"?`, "its jobs are test, deploy"},
		{"", "tow", `run 7 has no step "tow"; did you mean "two"?`, "deployhook run 7 lists its steps"},
		{"deploy", "two", `run 7 has no step "two"`, "deployhook run 7 lists its steps"},
	} {
		err := c.Log(t.Context(), 7, tt.job, tt.step, false, func(Line) error { return nil })
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, deploy.ErrNotFound) || e.Message != tt.want || e.Hint != tt.hint {
			t.Errorf("job %q step %q gives %#v, want %q and %q", tt.job, tt.step, err, tt.want, tt.hint)
		}
	}
	var got []string
	if err := c.Log(t.Context(), 7, "test", "two", false, func(l Line) error { got = append(got, l.Text); return nil }); err != nil || len(got) != 1 {
		t.Errorf("job test step two gives %q, %v, want one line", got, err)
	}
}

func TestTailGivesTheLastLinesAndFollowGoesOnBehindThem(t *testing.T) {
	many := line(2, "test", "two", "b0")
	for _, text := range []string{"b1", "b2", "b3"} {
		many.Lines = append(many.Lines, deploy.LogLine{Time: time.Unix(0, 0), Stream: 1, Text: []byte(text)})
	}
	m := &memory{runs: map[int64]*deploy.Run{7: someRun()}, chunks: []deploy.LogChunk{line(1, "test", "two", "a"), many, line(3, "deploy", "x", "c"), {ID: 4}}}
	c, _, _ := serve(t, m)
	for _, tt := range []struct {
		q    LogQuery
		want []string
	}{
		{LogQuery{Tail: 1}, []string{"c"}},
		{LogQuery{Tail: 3}, []string{"b2", "b3", "c"}},
		{LogQuery{Tail: 5}, []string{"b0", "b1", "b2", "b3", "c"}},
		{LogQuery{Tail: 1000}, []string{"a", "b0", "b1", "b2", "b3", "c"}},
		{LogQuery{Tail: 2, Job: "test"}, []string{"b2", "b3"}},
		{LogQuery{Tail: 2, Follow: true}, []string{"b3", "c"}},
		{LogQuery{After: 2}, []string{"c"}},
		{LogQuery{After: 4, Follow: true}, nil},
	} {
		var got []string
		after, err := c.Lines(t.Context(), 7, tt.q, func(lines []Line) error {
			for _, l := range lines {
				got = append(got, l.Text)
			}
			return nil
		})
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("%+v gives %v (-want +got)\n%s", tt.q, err, diff)
		}
		if tt.q.Job == "" && tt.q.Tail == 0 && after != 4 {
			t.Errorf("%+v ends at the mark %d, want 4", tt.q, after)
		}
	}
	for _, q := range []LogQuery{{Tail: TailMost + 1}, {Tail: 1, After: -1}} {
		if _, err := c.Lines(t.Context(), 7, q, func([]Line) error { return nil }); !errors.Is(err, deploy.ErrMisuse) {
			t.Errorf("%+v gives %v, want it to be refused", q, err)
		}
	}
}

// What a reader had no mark for comes again from a mark on: nothing is lost to
// a restart of the daemon and nothing is shown twice.
func TestLogGoesOnFromAMarkOnAnotherDaemon(t *testing.T) {
	run := someRun()
	run.State = deploy.Running
	m := &memory{runs: map[int64]*deploy.Run{7: run}, chunks: []deploy.LogChunk{line(1, "test", "two", "a"), line(2, "test", "two", "b")}, read: make(chan struct{}, 1)}
	c, _, first := serve(t, m)
	var got []string
	keep := func(lines []Line) error {
		for _, l := range lines {
			got = append(got, l.Text)
		}
		return nil
	}
	type end struct {
		after int64
		err   error
	}
	done := make(chan end, 1)
	go func() {
		after, err := c.Lines(t.Context(), 7, LogQuery{Follow: true}, keep)
		done <- end{after, err}
	}()
	wait(t, m.read, "the first look")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := first.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	e := <-done
	if !Away(e.err) || e.after != 2 {
		t.Fatalf("the log ends with %v at the mark %d, want that the daemon is away, at 2", e.err, e.after)
	}
	m.mu.Lock()
	m.chunks = append(m.chunks, line(3, "test", "two", "c"))
	run.State = deploy.Succeeded
	m.mu.Unlock()
	again, _, _ := serve(t, m)
	if _, err := again.Lines(t.Context(), 7, LogQuery{Follow: true, After: e.after}, keep); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestReleasesAreBoundedAndHaveACursor(t *testing.T) {
	m := &memory{}
	for i := range 60 {
		m.releases = append(m.releases, deploy.Release{ID: fmt.Sprintf("r%02d", i), Host: "local"})
		if i == 1 {
			m.releases = append(m.releases, deploy.Release{ID: "r01", Host: "web-1"})
		}
	}
	c, socket, _ := serve(t, m)
	for _, tt := range []struct {
		limit       int
		before      string
		n           int
		first, last string
	}{
		{0, "", 50, "r00", "r48"},
		{1000, "", 61, "r00", "r59"},
		{2, "", 3, "r00", "r01"}, // both hosts of r01
		{2, "r01", 2, "r02", "r03"},
		{5, "r57", 2, "r58", "r59"},
		{5, "r59", 0, "", ""},
	} {
		list, err := c.ReleasesBefore(t.Context(), "shop", tt.limit, tt.before)
		if err != nil || len(list) != tt.n {
			t.Fatalf("limit %d before %q gives %d releases, %v, want %d", tt.limit, tt.before, len(list), err, tt.n)
		}
		if tt.n > 0 && (list[0].ID != tt.first || list[tt.n-1].ID != tt.last) {
			t.Errorf("limit %d before %q gives %s to %s, want %s to %s", tt.limit, tt.before, list[0].ID, list[tt.n-1].ID, tt.first, tt.last)
		}
	}
	if _, err := c.ReleasesBefore(t.Context(), "shop", 5, "nope"); !errors.Is(err, deploy.ErrNotFound) {
		t.Errorf("before a release that is not there gives %v", err)
	}
	if got := raw(t, socket, "GET", "/api/pipelines/shop/releases?limit=1001", ""); !strings.HasPrefix(got, "400 ") {
		t.Errorf("limit 1001 is answered %q, want 400", got)
	}
}

// serveLog serves s.log alone at /ID, on the socket that it gives.
func serveLog(t *testing.T, s *server) string {
	t.Helper()
	m := http.NewServeMux()
	m.HandleFunc("GET /{id}", s.log)
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Server{Handler: m}
	served := make(chan struct{})
	go func() { defer close(served); _ = h.Serve(l) }()
	t.Cleanup(func() { h.Close(); <-served })
	return socket
}

func TestLogsThatAreReadAtOnceAreBounded(t *testing.T) {
	s := &server{Options: Options{Reader: &memory{}}, logs: make(chan struct{}, 1)}
	s.logs <- struct{}{}
	socket := serveLog(t, s)
	if got := raw(t, socket, "GET", "/7", ""); !strings.HasPrefix(got, "503 ") {
		t.Errorf("a log beyond the bound is answered %q, want 503", got)
	}
	<-s.logs
	if got := raw(t, socket, "GET", "/7", ""); !strings.HasPrefix(got, "404 ") {
		t.Errorf("with a free place the log is answered %q, want 404: there is no run 7", got)
	}
}

func TestSilentFollowedLogSaysThatTheDaemonIsThere(t *testing.T) {
	run := someRun()
	run.State = deploy.Running
	s := &server{Options: Options{Reader: &memory{runs: map[int64]*deploy.Run{7: run}}}, logs: make(chan struct{}, 1), alive: time.Millisecond}
	socket := serveLog(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://x/7?follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := Dial(socket).http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var b [1]byte
	if _, err := io.ReadFull(res.Body, b[:]); err != nil || b[0] != '\n' {
		t.Errorf("a silent log gives %q, %v, want an empty line", b, err)
	}
}

func TestSocketIsForItsOwnerAndGroupOnly(t *testing.T) {
	_, socket, _ := serve(t, &memory{})
	st, err := os.Stat(socket)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o660 {
		t.Errorf("the socket's mode is %v, want 0660", st.Mode().Perm())
	}
}

func TestListenReplacesALeftoverAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if _, err := Listen(socket); err == nil || !strings.Contains(err.Error(), "another daemon serves the control socket") {
		t.Errorf("a second Listen gives %v", err)
	}
	l.Close() // the file stays, as after kill -9
	again, err := Listen(socket)
	if err != nil {
		t.Fatalf("a leftover is not replaced: %v", err)
	}
	again.Close()

	if err := os.WriteFile(socket, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(socket); err == nil || !strings.Contains(err.Error(), "is there and is no socket") {
		t.Errorf("Listen over a file gives %v", err)
	}
	if b, err := os.ReadFile(socket); err != nil || !bytes.Equal(b, []byte("precious")) {
		t.Errorf("the file is now %q, %v", b, err)
	}
	if _, err := Listen(filepath.Join(dir, "none", "s")); err == nil || !strings.Contains(err.Error(), "is not there: make it, or set server.socket") {
		t.Errorf("Listen in no directory gives %v", err)
	}
}

func TestClientSaysWhyNoDaemonAnswers(t *testing.T) {
	dir := t.TempDir()
	gone := filepath.Join(dir, "gone")
	l, err := net.Listen("unix", gone)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	for socket, want := range map[string]string{
		filepath.Join(dir, "none"): "connect: the socket is not there",
		gone:                       "connect: connection refused",
	} {
		_, err := Dial(socket).Runs(t.Context(), Query{})
		var u *Unreachable
		if !errors.As(err, &u) || u.Err.Error() != want || u.Hint == "" {
			t.Errorf("%s gives %v, want %q and a hint", socket, err, want)
		}
		if !strings.Contains(fmt.Sprint(err), "no daemon answers on "+socket) {
			t.Errorf("%v does not name the socket %s", err, socket)
		}
	}
	if _, err := os.Stat(gone); errors.Is(err, fs.ErrNotExist) {
		t.Error("asking removed the socket")
	}
}

func TestAnswerThatIsNoneOfOursIsAnError(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/runs/1":
			http.Redirect(w, r, "/api/runs/2", http.StatusFound)
		case "/api/runs/3":
			fmt.Fprint(w, `{"id":`)
		default:
			http.NotFound(w, r)
		}
	})}
	served := make(chan struct{})
	go func() { defer close(served); _ = h.Serve(l) }()
	defer func() { h.Close(); <-served }()
	c := Dial(filepath.Join(dir, "s"))
	for run, want := range map[int64]string{
		1: "the daemon answered 302 Found", 3: "reading the daemon's answer: unexpected EOF", 4: "the daemon answered 404 Not Found",
	} {
		if _, err := c.Run(t.Context(), run); err == nil || err.Error() != want {
			t.Errorf("run %d gives %v, want %q", run, err, want)
		}
	}
}

func TestReleasesOfTheHostsThatAnswerAreListed(t *testing.T) {
	m := &memory{err: errors.New("web2: host web2: it refuses the connection")}
	c, _, _ := serve(t, m)
	if list, err := c.Releases(t.Context(), "shop"); err == nil || err.Error() != m.err.Error() || list != nil {
		t.Errorf("with no host that answers the releases are %+v, %v", list, err)
	}
	m.releases = []deploy.Release{{ID: "r2", Host: "web1"}, {ID: "r1", Host: "web1"}}
	list, err := c.Releases(t.Context(), "shop")
	if err == nil || err.Error() != m.err.Error() || len(list) != 2 {
		t.Errorf("with one that does not the releases are %+v, %v", list, err)
	}
	if list, err = c.ReleasesBefore(t.Context(), "shop", 5, "r1"); err == nil || err.Error() != m.err.Error() || list == nil || len(list) != 0 {
		t.Errorf("at the list's end they are %+v, %v", list, err)
	}
	// It may be one of the host that is not there.
	if _, err := c.ReleasesBefore(t.Context(), "shop", 5, "nope"); !errors.Is(err, deploy.ErrNotFound) || !strings.Contains(err.Error(), m.err.Error()) {
		t.Errorf("before a release that is not there gives %v", err)
	}
}
