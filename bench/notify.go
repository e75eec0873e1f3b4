package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The rows of notifications: what sick targets cost the others, what sending
// costs accepts, how fast events of the application are taken, and what is left
// of them after kill -9.

const (
	targets   = 50
	timingOut = 5
	failing   = 5
	perTarget = 2000 // events: 100,000 notifications
	kills     = 10
	paced     = 20 * time.Millisecond // between two accepts whose time is taken
	patience  = 10 * time.Minute
)

// receiver takes webhooks; what comes to /sick/… is not answered, or with 500.
type receiver struct {
	listener net.Listener
	server   *http.Server
	url      string
	ended    chan struct{}

	mu    sync.Mutex
	count map[string]int                  // by path
	ids   map[string]map[string]string    // by path: webhook-id -> what it told
	order map[string]map[float64][]string // by path and run: types, repeats left out
	wrong []string
	keep  bool
}

func newReceiver(keep bool) (*receiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &receiver{
		listener: l, url: "http://" + l.Addr().String(), ended: make(chan struct{}), keep: keep,
		count: map[string]int{}, ids: map[string]map[string]string{}, order: map[string]map[float64][]string{},
	}
	r.server = &http.Server{Handler: r}
	go func() { _ = r.server.Serve(l) }()
	return r, nil
}

func (r *receiver) close() {
	close(r.ended)
	r.server.Close()
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	switch {
	case strings.HasPrefix(q.URL.Path, "/timeout/"):
		select {
		case <-r.ended:
		case <-q.Context().Done():
		}
		return
	case strings.HasPrefix(q.URL.Path, "/failing/"):
		w.WriteHeader(http.StatusInternalServerError)
		return
	case q.URL.Path == "/slow":
		time.Sleep(2 * time.Second)
		return
	}
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count[q.URL.Path]++
	if r.keep {
		r.remember(q.URL.Path, q.Header.Get("webhook-id"), body)
	}
}

// remember notes what an id told, and in which order a run was told of.
func (r *receiver) remember(path, id string, body []byte) {
	var p struct {
		Type string
		Data any
	}
	if err := json.Unmarshal(body, &p); err != nil {
		r.wrong = append(r.wrong, "a body that is no JSON")
		return
	}
	if r.ids[path] == nil {
		r.ids[path], r.order[path] = map[string]string{}, map[float64][]string{}
	}
	run, of := p.Data.(map[string]any)
	told := fmt.Sprint(p.Type, " ", p.Data)
	if of {
		told = fmt.Sprint(p.Type, " ", run["id"])
	}
	was, known := r.ids[path][id]
	if known && was != told {
		r.wrong = append(r.wrong, "an id that told two things: "+id)
	}
	r.ids[path][id] = told
	if n, ok := run["id"].(float64); ok && !known {
		r.order[path][n] = append(r.order[path][n], p.Type)
	}
}

// teller is a daemon that tells a receiver.
type teller struct {
	*process
	name, config, token string
	client              *http.Client
}

// tellerConfig has a target for each path, and a pipeline that tells them all.
func tellerConfig(dir, addr, url string, paths []string, notify bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "server: { listen: %q, data: %s/data, socket: %s/sock, log: { level: error } }\n", addr, dir, dir)
	b.WriteString("hooks: { in: { provider: generic, token: { environment: BENCH_SECRET } } }\npipelines:\n  tell:\n    on: { hook: { name: in, if: \"payload.run == true\" } }\n")
	b.WriteString("    concurrency: { queue: all }\n    jobs: { go: { steps: [ { run: \"true\" } ] } }\n")
	if notify {
		b.WriteString("    notify:\n")
		for i, p := range paths {
			fmt.Fprintf(&b, "      - { name: n%d, webhook: \"%s%s\", secret: { environment: BENCH_SECRET }, on: [queued, running, succeeded] }\n", i, url, p)
		}
	}
	b.WriteString("targets:\n")
	for i, p := range paths {
		fmt.Fprintf(&b, "  t%d: { url: \"%s%s\", secret: { environment: BENCH_SECRET } }\n", i, url, p)
	}
	return b.String()
}

// teller starts a daemon that tells the receiver at url.
func (b *bench) teller(name, url string, paths []string, notify bool) (*teller, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	t := &teller{
		name: name, config: tellerConfig(filepath.Join(b.dir, name), addr, url, paths, notify),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128}},
	}
	if t.process, err = b.serve(name, addr, t.config); err != nil {
		return nil, err
	}
	out, err := b.command(name, "token", "create", "bench", "--action", "events", "--json")
	if err != nil {
		t.end()
		return nil, fmt.Errorf("making a token: %w", err)
	}
	var made struct{ Value string }
	if err := json.Unmarshal(out, &made); err != nil {
		t.end()
		return nil, err
	}
	t.token = made.Value
	return t, nil
}

func (d *teller) post(path, key, body string) (int, error) {
	req, err := http.NewRequest(http.MethodPost, "http://"+d.addr+path, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	req.Header.Set("Authorization", "Bearer "+d.token)
	if strings.HasPrefix(path, "/hooks/") {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	res, err := d.client.Do(req)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return res.StatusCode, nil
}

// events measures POST /api/events at 64 connections, one target being told.
func (b *bench) events() error {
	r, err := newReceiver(false)
	if err != nil {
		return err
	}
	defer r.close()
	d, err := b.teller("events", r.url, []string{"/one"}, false)
	if err != nil {
		return err
	}
	defer d.end()
	const load = 10 * time.Second
	var mu sync.Mutex
	var all []time.Duration
	var bad atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for w := range 64 {
		wg.Go(func() {
			var own []time.Duration
			for i := 0; time.Since(began) < load; i++ {
				at := time.Now()
				status, err := d.post("/api/events", fmt.Sprint(w, "-", i), `{"type":"payment.approved","data":{"order":42,"course":"go","user":"alice@example.com"}}`)
				if err != nil || status != http.StatusAccepted {
					bad.Add(1)
					continue
				}
				own = append(own, time.Since(at))
			}
			mu.Lock()
			all = append(all, own...)
			mu.Unlock()
		})
	}
	wg.Wait()
	took := time.Since(began)
	if bad.Load() > 0 {
		return fmt.Errorf("%d events were refused", bad.Load())
	}
	b.row("POST /api/events, durable, 64 connections", fmt.Sprintf("%.0f/s, p50 %s, p99 %s", float64(len(all))/took.Seconds(), ms(percentile(all, 50)), ms(percentile(all, 99))), "", "", "≥ 2,000/s, p99 < 60 ms")
	_, peak := d.memory()
	b.row("memory of the daemon meanwhile, at most", fmt.Sprintf("%.0f MB", peak), "", "", "< 120 MB")
	return nil
}

// direct holds the application's own request against one that waits for a
// receiver that needs 2 s.
func (b *bench) direct() error {
	r, err := newReceiver(false)
	if err != nil {
		return err
	}
	defer r.close()
	d, err := b.teller("direct", r.url, []string{"/slow"}, false)
	if err != nil {
		return err
	}
	defer d.end()
	var direct, handed []time.Duration
	for i := range 5 {
		at := time.Now()
		res, err := http.Post(r.url+"/slow", "application/json", strings.NewReader(`{}`))
		if err != nil {
			return err
		}
		res.Body.Close()
		direct = append(direct, time.Since(at))
		at = time.Now()
		if status, err := d.post("/api/events", fmt.Sprint(i), `{"type":"payment.approved","data":{}}`); err != nil || status != http.StatusAccepted {
			return fmt.Errorf("an event was answered %d: %w", status, err)
		}
		handed = append(handed, time.Since(at))
	}
	slow, fast := percentile(direct, 50), percentile(handed, 50)
	b.row("the application's own request, receiver needing 2 s", fmt.Sprintf("%s instead of %s: 1/%.0f", ms(fast), ms(slow), slow.Seconds()/fast.Seconds()), "", "", "≤ 1/50")
	return nil
}

// paths are those of healthy targets, and of sick ones.
func paths(healthy, timeouts, fails int) (list []string) {
	for i := range healthy {
		list = append(list, fmt.Sprint("/well/", i))
	}
	for i := range timeouts {
		list = append(list, fmt.Sprint("/timeout/", i))
	}
	for i := range fails {
		list = append(list, fmt.Sprint("/failing/", i))
	}
	return list
}

// accepts takes the time of deliveries, one after the other, until stop.
func (d *teller) accepts(stop <-chan struct{}) (list []time.Duration, err error) {
	tick := time.NewTicker(paced)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return list, nil
		case <-tick.C:
		}
		at := time.Now()
		status, err := d.post("/hooks/in", "", fmt.Sprintf(`{"run":false,"n":%d}`, i))
		if err != nil || status != http.StatusOK {
			return nil, fmt.Errorf("a delivery was answered %d: %w", status, err)
		}
		list = append(list, time.Since(at))
	}
}

// during measures accepts beside fn.
func (d *teller) during(fn func() error) ([]time.Duration, error) {
	stop := make(chan struct{})
	var list []time.Duration
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { list, err = d.accepts(stop) })
	failed := fn()
	close(stop)
	wg.Wait()
	return list, errors.Join(failed, err)
}

// sick measures how long healthy targets take for theirs, with and without
// sick ones beside them, and what accepts take meanwhile.
func (b *bench) sick() error {
	var took [2]time.Duration
	var idle, busy []time.Duration
	for i, list := range [][]string{paths(targets-timingOut-failing, 0, 0), paths(targets-timingOut-failing, timingOut, failing)} {
		r, err := newReceiver(false)
		if err != nil {
			return err
		}
		d, err := b.teller(fmt.Sprint("sick", i), r.url, list, false)
		if err != nil {
			return err
		}
		if idle, err = d.during(func() error { time.Sleep(15 * time.Second); return nil }); err != nil {
			return err
		}
		began := time.Now()
		for n := range perTarget {
			if status, err := d.post("/api/events", "", fmt.Sprintf(`{"type":"payment.approved","data":%d}`, n)); err != nil || status != http.StatusAccepted {
				return fmt.Errorf("an event was answered %d: %w", status, err)
			}
		}
		if busy, err = d.during(func() error { return r.await(targets-timingOut-failing, perTarget) }); err != nil {
			return err
		}
		took[i] = time.Since(began)
		fmt.Fprintf(os.Stderr, "%d targets: %v, accepts idle p50 %s p99 %s, meanwhile p50 %s p99 %s\n", len(list), took[i].Round(time.Millisecond),
			ms(percentile(idle, 50)), ms(percentile(idle, 99)), ms(percentile(busy, 50)), ms(percentile(busy, 99)))
		d.end()
		r.close()
	}
	ratio := func(a, b time.Duration) string { return fmt.Sprintf("%.2f", a.Seconds()/b.Seconds()) }
	b.row("100,000 notifications to 50 targets, 5 time out, 5 answer 500: time of the healthy, with over without the sick",
		fmt.Sprintf("%s (%.1f s, %.1f s)", ratio(took[1], took[0]), took[1].Seconds(), took[0].Seconds()), "", "", "≤ 1.2")
	for _, p := range []struct {
		name string
		at   int
	}{{"p50", 50}, {"p99", 99}} {
		a, o := percentile(busy, p.at), percentile(idle, p.at)
		b.row("accept "+p.name+" meanwhile over idle", fmt.Sprintf("%s (%s, %s)", ratio(a, o), ms(a), ms(o)), "", "", "≤ 1.3")
	}
	return nil
}

// await waits until so many targets have got so many each.
func (r *receiver) await(healthy, each int) error {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		r.mu.Lock()
		done := 0
		for _, n := range r.count {
			if n >= each {
				done++
			}
		}
		r.mu.Unlock()
		if done >= healthy {
			return nil
		}
	}
	return fmt.Errorf("not all had arrived after %v", patience)
}

// kills ends the daemon ten times while it sends events and changes of runs.
func (b *bench) kills() error {
	const killEvents, killRuns = 1700, 100 // and three changes of each run
	r, err := newReceiver(true)
	if err != nil {
		return err
	}
	defer r.close()
	list := paths(targets, 0, 0)
	d, err := b.teller("kills", r.url, list, true)
	if err != nil {
		return err
	}
	defer func() { d.end() }()
	for n := range killRuns {
		if status, err := d.post("/hooks/in", "", fmt.Sprintf(`{"run":true,"n":%d}`, n)); err != nil || status != http.StatusAccepted {
			return fmt.Errorf("a delivery was answered %d: %w", status, err)
		}
	}
	for n := range killEvents {
		if status, err := d.post("/api/events", "", fmt.Sprintf(`{"type":"payment.approved","data":%d}`, n)); err != nil || status != http.StatusAccepted {
			return fmt.Errorf("an event was answered %d: %w", status, err)
		}
	}
	for range kills {
		time.Sleep(2 * time.Second)
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
		if d.process, err = b.serve(d.name, d.addr, d.config); err != nil {
			return err
		}
	}
	whole := func() (missing, late, ids, repeats int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, p := range list {
			told := map[string]bool{}
			for _, what := range r.ids[p] {
				told[what] = true
			}
			for n := range killEvents {
				if !told[fmt.Sprint("payment.approved ", n)] {
					missing++
				}
			}
			for n := 1; n <= killRuns; n++ {
				if !told[fmt.Sprint("run.succeeded ", n)] && !told[fmt.Sprint("run.failed ", n)] {
					missing++
				}
				if !told[fmt.Sprint("run.queued ", n)] {
					missing++
				}
				types := r.order[p][float64(n)]
				if at := slices.Index(types, "run.queued"); at > 0 {
					late++
				}
				if at := slices.Index(types, "run.succeeded"); at >= 0 && at != len(types)-1 {
					late++
				}
			}
			ids += len(r.ids[p])
			repeats += r.count[p] - len(r.ids[p])
		}
		return missing, late, ids, repeats
	}
	var missing, late, ids, repeats int
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Second) {
		if missing, late, ids, repeats = whole(); missing == 0 {
			break
		}
	}
	r.mu.Lock()
	wrong := len(r.wrong)
	r.mu.Unlock()
	b.row(fmt.Sprintf("kill -9, %d times during %d notifications", kills, ids),
		fmt.Sprintf("%d missing, %d ids that told two things, %d out of order, %d sent again", missing, wrong, late, repeats), "", "", "none, none, none")
	return nil
}
