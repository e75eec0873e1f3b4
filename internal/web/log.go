package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"deployhook/internal/deploy"
)

// Bounds of the logs that are read at once.
const (
	followEvery = 150 * time.Millisecond // how often a followed log is looked at again
	aliveEvery  = 15 * time.Second       // the longest that a followed log is silent
	logsMost    = 64                     // logs that are read at once
	TailMost    = 1000                   // lines that tail may ask for
)

// log streams a run's output, a JSON object for each piece of it; with follow
// until the run has ended, with tail from so many lines before the end, with
// after from a mark on. An empty line says that the daemon is still there. What
// goes wrong on the way comes as a last object with an error.
func (s *server) log(w http.ResponseWriter, r *http.Request) {
	select {
	case s.logs <- struct{}{}:
		defer func() { <-s.logs }()
	default:
		writeError(w, fmt.Errorf("%w: %d logs are being read already", errBusy, logsMost))
		return
	}
	q := r.URL.Query()
	f := deploy.LogFilter{Job: q.Get("job"), Step: q.Get("step"), Host: q.Get("host")}
	n, err := id(r)
	var run *deploy.Run
	if err == nil {
		run, err = s.oneRun(r, n)
	}
	tail := 0
	if text := q.Get("tail"); text != "" && err == nil {
		if tail, err = strconv.Atoi(text); err != nil || tail < 1 || tail > TailMost {
			err = fmt.Errorf("%w: tail is a number from 1 to %d", deploy.ErrMisuse, TailMost)
		}
	}
	if text := q.Get("after"); text != "" && err == nil {
		if f.After, err = strconv.ParseInt(text, 10, 64); err != nil || f.After < 0 {
			err = fmt.Errorf("%w: after is a mark that a log gave", deploy.ErrMisuse)
		}
	}
	if err == nil {
		err = wanted(run, f)
	}
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	if tail > 0 {
		err = s.last(r.Context(), n, &f, tail, enc)
	}
	if follow := q.Get("follow") == "true"; err == nil && (tail == 0 || follow && !run.State.Terminal()) {
		err = s.stream(w, r, run, f, follow, enc)
	}
	if err != nil && r.Context().Err() == nil {
		end := logPart{Error: err.Error(), Code: codeFailed}
		if errors.Is(err, errStopping) {
			end.Code = codeStopping
		}
		_ = enc.Encode(end)
	}
}

// last sends the last lines of what is there, and moves f behind them.
func (s *server) last(ctx context.Context, run int64, f *deploy.LogFilter, lines int, enc *json.Encoder) error {
	var kept []deploy.LogChunk
	n := 0
	f.Tail = lines
	defer func() { f.Tail = 0 }()
	err := s.Reader.Log(ctx, run, *f, func(c deploy.LogChunk) error {
		f.After = c.ID
		kept, n = append(kept, c), n+len(c.Lines)
		for n-len(kept[0].Lines) >= lines {
			n -= len(kept[0].Lines)
			kept = slices.Delete(kept, 0, 1) // and not kept[1:], which keeps the memory
		}
		return nil
	})
	for i, c := range kept {
		if i == 0 {
			c.Lines = c.Lines[max(0, n-lines):]
		}
		if err := enc.Encode(partOf(&c)); err != nil {
			return err
		}
	}
	return err
}

// wanted refuses the name of a job, host or step that cannot come any more.
func wanted(run *deploy.Run, f deploy.LogFilter) error {
	var jobs, steps, hosts []string
	for _, j := range run.Jobs {
		jobs = append(jobs, j.Name)
		if f.Job == "" || f.Job == j.Name {
			hosts = append(hosts, j.Hosts...)
		}
		for _, h := range j.HostRuns {
			for _, st := range h.Steps {
				if f.Job == "" || f.Job == j.Name {
					steps = append(steps, st.Name)
				}
			}
		}
	}
	if f.Job != "" && !slices.Contains(jobs, f.Job) {
		return hinted{
			fmt.Errorf("%w: run %d has no job %q%s", deploy.ErrNotFound, run.ID, f.Job, deploy.DidYouMean(f.Job, jobs)),
			"its jobs are " + strings.Join(jobs, ", "),
		}
	}
	if f.Host != "" && !slices.Contains(hosts, f.Host) {
		slices.Sort(hosts)
		hosts = slices.Compact(hosts)
		return hinted{
			fmt.Errorf("%w: run %d has no host %q%s", deploy.ErrNotFound, run.ID, f.Host, deploy.DidYouMean(f.Host, hosts)),
			"its hosts are " + strings.Join(hosts, ", "),
		}
	}
	if f.Step != "" && run.State.Terminal() && !slices.Contains(steps, f.Step) {
		return hinted{
			fmt.Errorf("%w: run %d has no step %q%s", deploy.ErrNotFound, run.ID, f.Step, deploy.DidYouMean(f.Step, steps)),
			fmt.Sprintf("deployhook run %d lists its steps", run.ID),
		}
	}
	return nil
}

// errStopping ends a log that is followed when the daemon stops.
var errStopping = errors.New("the daemon stops")

func (s *server) stream(w http.ResponseWriter, r *http.Request, run *deploy.Run, f deploy.LogFilter, follow bool, enc *json.Encoder) error {
	ctx, flush, last := r.Context(), http.NewResponseController(w), time.Now()
	for {
		before := f.After
		err := s.Reader.Log(ctx, run.ID, f, func(c deploy.LogChunk) error {
			f.After = c.ID
			return enc.Encode(partOf(&c))
		})
		// The run was looked at before its log: what an ended one has is all
		// there.
		if err != nil || run.State.Terminal() || !follow {
			return err
		}
		fresh := f.After != before
		if !fresh && time.Since(last) > s.alive {
			if _, err := w.Write([]byte("\n")); err != nil {
				return err
			}
			fresh = true
		}
		if fresh {
			last = time.Now()
			if err := flush.Flush(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.stopping:
			return fmt.Errorf("%w; run %d goes on, or starts again, when it is back", errStopping, run.ID)
		case <-time.After(followEvery):
		}
		if run, err = s.Reader.Run(ctx, run.ID); err != nil {
			return err
		}
	}
}
