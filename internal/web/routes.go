package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"deployhook/internal/deploy"
)

// routes are all routes of the control socket.
func routes(s *server) http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /api/runs", handle(s.runs))
	m.HandleFunc("GET /api/runs/{id}", handle(s.run))
	m.HandleFunc("GET /api/runs/{id}/log", s.log)
	m.HandleFunc("GET /api/runs/{id}/outputs", handle(s.outputs))
	m.HandleFunc("POST /api/runs/{id}/cancel", handle(s.cancel))
	m.HandleFunc("POST /api/runs/{id}/retry", handle(s.retry))
	m.HandleFunc("POST /api/pipelines/{name}/runs", handle(s.trigger))
	m.HandleFunc("POST /api/pipelines/{name}/rollback", handle(s.rollback))
	m.HandleFunc("GET /api/pipelines/{name}/releases", handle(s.releases))
	m.HandleFunc("POST /api/pipelines/{name}/{hold}", handle(s.hold))
	m.HandleFunc("POST /api/abandon", handle(s.abandon))
	m.HandleFunc("GET /api/deliveries", handle(s.deliveries))
	m.HandleFunc("GET /api/deliveries/{id}", handle(s.delivery))
	m.HandleFunc("POST /api/deliveries/{id}/replay", handle(s.replay))
	m.HandleFunc("GET /api/daemon", handle(func(*http.Request) (deploy.DaemonReport, error) { return s.Report(), nil }))
	m.HandleFunc("GET /api/agents", handle(func(r *http.Request) ([]deploy.AgentReport, error) { return s.Agents(r.Context()), nil }))
	m.HandleFunc("GET /api/caches", handle(func(r *http.Request) (deploy.CacheReport, error) {
		return s.Caches.Caches(r.Context(), r.URL.Query().Get("pipeline"))
	}))
	m.HandleFunc("POST /api/caches/clear", handle(s.clearCaches))
	m.HandleFunc("GET /api/notifications", handle(s.notifications))
	m.HandleFunc("GET /api/notifications/{id}", handle(s.notification))
	m.HandleFunc("POST /api/notifications/{id}/resend", handle(s.resend))
	m.HandleFunc("POST /api/reload", handle(s.reload))
	m.HandleFunc("POST /api/tokens", handle(s.createToken))
	m.HandleFunc("GET /api/tokens", handle(s.listTokens))
	m.HandleFunc("POST /api/tokens/{name}/revoke", handle(s.revokeToken))
	return m
}

// publicRoutes are all routes of the API on the public address.
func publicRoutes(p *Public) {
	p.mux.HandleFunc("POST /api/pipelines/{name}/runs", p.start)
	p.mux.HandleFunc("GET /api/pipelines/{name}/runs", p.list)
	p.mux.HandleFunc("GET /api/runs/{id}", p.one)
	p.mux.HandleFunc("POST /api/events", p.event)
	p.mux.HandleFunc("/api/", p.nothing)
}

func (s *server) runs(r *http.Request) ([]Run, error) {
	return listRuns(r, s.Reader.Runs, r.URL.Query().Get("pipeline"))
}

// listRuns gives the page of runs that a request asks for.
func listRuns(r *http.Request, read func(context.Context, deploy.RunFilter) ([]deploy.Run, error), pipeline string) ([]Run, error) {
	limit, before, err := page(r)
	if err != nil {
		return nil, err
	}
	in, err := state(r.URL.Query().Get("state"))
	if err != nil {
		return nil, err
	}
	list, err := read(r.Context(), deploy.RunFilter{Pipeline: pipeline, State: in, Before: before, Limit: limit})
	views := []Run{}
	for i := range list {
		views = append(views, runView(&list[i]))
	}
	return views, err
}

func (s *server) run(r *http.Request) (Run, error) {
	n, err := id(r)
	if err != nil {
		return Run{}, err
	}
	run, err := s.oneRun(r, n)
	if err != nil {
		return Run{}, err
	}
	return runView(run), nil
}

// outputs gives what the jobs of a run wrote for later ones, by job and name.
func (s *server) outputs(r *http.Request) (map[string]map[string]string, error) {
	n, err := id(r)
	if err != nil {
		return nil, err
	}
	run, err := s.oneRun(r, n)
	if err != nil {
		return nil, err
	}
	all := map[string]map[string]string{}
	for _, j := range run.Jobs {
		if len(j.Outputs) > 0 {
			all[j.Name] = j.Outputs
		}
	}
	return all, nil
}

// oneRun reads a run that somebody asked for by its number.
func (s *server) oneRun(r *http.Request, n int64) (*deploy.Run, error) {
	run, err := s.Reader.Run(r.Context(), n)
	if errors.Is(err, deploy.ErrNotFound) {
		return nil, hinted{fmt.Errorf("run %d: %w", n, err), "deployhook runs lists the runs"}
	}
	if err != nil {
		return nil, fmt.Errorf("run %d: %w", n, err)
	}
	return run, nil
}

type numbered struct {
	Run int64 `json:"run"`
}

type forced struct {
	Force bool `json:"force"`
}

type reasoned struct {
	Reason string `json:"reason"`
}

type done struct {
	Message string `json:"message"`
}

func (s *server) cancel(r *http.Request) (done, error) {
	n, err := id(r)
	if err != nil {
		return done{}, err
	}
	return done{fmt.Sprintf("run %d is being canceled", n)}, s.Commands.Cancel(r.Context(), n, actor(r))
}

func (s *server) retry(r *http.Request) (numbered, error) {
	n, err := id(r)
	if err != nil {
		return numbered{}, err
	}
	q, err := body[forced](r)
	if err != nil {
		return numbered{}, err
	}
	run, err := s.Commands.Retry(r.Context(), deploy.RetryCommand{Run: n, Force: q.Force, Actor: actor(r)})
	return numbered{run}, err
}

func (s *server) trigger(r *http.Request) (numbered, error) {
	c, err := body[deploy.TriggerCommand](r)
	if err != nil {
		return numbered{}, err
	}
	c.Pipeline, c.Actor = r.PathValue("name"), actor(r)
	run, err := s.Commands.Trigger(r.Context(), c)
	return numbered{run}, err
}

func (s *server) rollback(r *http.Request) (deploy.RollbackReceipt, error) {
	c, err := body[deploy.RollbackCommand](r)
	if err != nil {
		return deploy.RollbackReceipt{}, err
	}
	c.Pipeline, c.Actor = r.PathValue("name"), actor(r)
	return s.Commands.Rollback(r.Context(), c)
}

// releases answers with what the hosts have that can be asked, and says of the
// others why they cannot.
func (s *server) releases(r *http.Request) ([]deploy.Release, error) {
	q := r.URL.Query()
	limit, err := limitOf(q)
	if err != nil {
		return nil, err
	}
	list, err := s.Commands.Releases(r.Context(), r.PathValue("name"))
	if err != nil && len(list) == 0 {
		return nil, err
	}
	if before := q.Get("before"); before != "" {
		at := slices.IndexFunc(list, func(r deploy.Release) bool { return r.ID == before })
		if at < 0 && err != nil {
			return nil, fmt.Errorf("%w: no release %s of %s on the hosts that answer; %w", deploy.ErrNotFound, before, r.PathValue("name"), err)
		}
		if at < 0 {
			return nil, fmt.Errorf("%w: no release %s of %s", deploy.ErrNotFound, before, r.PathValue("name"))
		}
		for at < len(list) && list[at].ID == before {
			at++
		}
		list = list[at:]
	}
	list = append([]deploy.Release{}, list[:pageEnd(list, limit)]...) // JSON's [] and not null
	if err != nil {
		return list, incomplete{err}
	}
	return list, nil
}

// pageEnd is where a page ends, about limit: one release has a line for each
// host and its id is the cursor, so that these lines stay together.
func pageEnd(list []deploy.Release, limit int) int {
	end := min(limit, len(list))
	for end > 0 && end < len(list) && list[end].ID == list[end-1].ID {
		end++
	}
	return end
}

func (s *server) hold(r *http.Request) (done, error) {
	q, err := body[reasoned](r)
	if err != nil {
		return done{}, err
	}
	name := r.PathValue("name")
	switch word := r.PathValue("hold"); word {
	case "hold":
		return done{name + " is held: its runs wait"}, endedBy("unhold", name, s.Holds.Hold(r.Context(), name, actor(r), q.Reason))
	case "unhold":
		return done{name + " goes on"}, s.Holds.Unhold(r.Context(), name, actor(r), q.Reason)
	case "lock":
		return done{name + " is locked: its release jobs wait"}, endedBy("unlock", name, s.Holds.Lock(r.Context(), name, actor(r), q.Reason))
	case "unlock":
		return done{name + " is unlocked"}, s.Holds.Unlock(r.Context(), name, actor(r), q.Reason)
	default:
		return done{}, fmt.Errorf("%w: no command %s", deploy.ErrNotFound, word)
	}
}

// endedBy says how the hold or lock that is there already is ended.
func endedBy(word, pipeline string, err error) error {
	if errors.Is(err, deploy.ErrLocked) {
		return hinted{err, fmt.Sprintf("deployhook %s %s ends it", word, pipeline)}
	}
	return err
}

type place struct {
	Host string `json:"host"`
	Path string `json:"path"`
}

func (s *server) abandon(r *http.Request) (done, error) {
	q, err := body[place](r)
	if err != nil {
		return done{}, err
	}
	return done{fmt.Sprintf("the unfinished switch of %s:%s is dropped; current stays where it points", q.Host, q.Path)}, s.Holds.Abandon(r.Context(), q.Host, q.Path, actor(r))
}

func (s *server) deliveries(r *http.Request) ([]Delivery, error) {
	limit, before, err := page(r)
	if err != nil {
		return nil, err
	}
	list, err := s.Reader.Deliveries(r.Context(), deploy.DeliveryFilter{Hook: r.URL.Query().Get("hook"), Before: before, Limit: limit})
	views := []Delivery{}
	for i := range list {
		v := deliveryView(&list[i])
		v.Why = nil
		views = append(views, v)
	}
	return views, err
}

func (s *server) delivery(r *http.Request) (Delivery, error) {
	n, err := id(r)
	if err != nil {
		return Delivery{}, err
	}
	d, err := s.Reader.Delivery(r.Context(), n)
	if errors.Is(err, deploy.ErrNotFound) {
		return Delivery{}, hinted{fmt.Errorf("delivery %d: %w", n, err), "deployhook deliveries lists them"}
	}
	if err != nil {
		return Delivery{}, fmt.Errorf("delivery %d: %w", n, err)
	}
	return deliveryView(d), nil
}

func (s *server) replay(r *http.Request) (Receipt, error) {
	n, err := id(r)
	if err != nil {
		return Receipt{}, err
	}
	q, err := body[forced](r)
	if err != nil {
		return Receipt{}, err
	}
	got, err := s.Replay(r.Context(), n, q.Force, actor(r))
	if got.Runs == nil {
		got.Runs = []int64{}
	}
	return Receipt{Delivery: got.Delivery, Runs: got.Runs, Message: got.Message}, err
}

type ofPipeline struct {
	Pipeline string `json:"pipeline"`
}

func (s *server) clearCaches(r *http.Request) (deploy.CacheReport, error) {
	q, err := body[ofPipeline](r)
	if err != nil {
		return deploy.CacheReport{}, err
	}
	return s.Options.Caches.ClearCaches(r.Context(), q.Pipeline, actor(r))
}

func (s *server) reload(r *http.Request) (done, error) {
	text, err := s.Reload(r.Context())
	return done{text}, err
}
