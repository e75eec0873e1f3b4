package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"deployhook/internal/deploy"
)

// Bounds of the logs that are read at once.
const (
	followEvery = 150 * time.Millisecond // how often a followed log is looked at again
	aliveEvery  = 15 * time.Second       // the longest that a followed log is silent
	logsMost    = 64                     // logs that are read at once
)

// logEnd is the last line of a log that is not whole.
type logEnd struct {
	Error string `json:"error"`
}

// log streams a run's output, a JSON object a line; with follow until the run
// has ended. An empty line says that the daemon is still there. What goes
// wrong on the way comes as a last object with an error.
func (s *server) log(w http.ResponseWriter, r *http.Request) {
	select {
	case s.logs <- struct{}{}:
		defer func() { <-s.logs }()
	default:
		writeError(w, fmt.Errorf("%w: %d logs are being read already", errBusy, logsMost))
		return
	}
	q := r.URL.Query()
	f := deploy.LogFilter{Job: q.Get("job"), Step: q.Get("step")}
	n, err := id(r)
	var run *deploy.Run
	if err == nil {
		run, err = s.oneRun(r, n)
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
	if err := s.stream(w, r, run, f, q.Get("follow") == "true", enc); err != nil && r.Context().Err() == nil {
		_ = enc.Encode(logEnd{err.Error()})
	}
}

// wanted refuses the name of a job or step that cannot come any more.
func wanted(run *deploy.Run, f deploy.LogFilter) error {
	var jobs, steps []string
	for _, j := range run.Jobs {
		jobs = append(jobs, j.Name)
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
	if f.Step != "" && run.State.Terminal() && !slices.Contains(steps, f.Step) {
		return hinted{
			fmt.Errorf("%w: run %d has no step %q%s", deploy.ErrNotFound, run.ID, f.Step, deploy.DidYouMean(f.Step, steps)),
			fmt.Sprintf("deployhook run %d lists its steps", run.ID),
		}
	}
	return nil
}

func (s *server) stream(w http.ResponseWriter, r *http.Request, run *deploy.Run, f deploy.LogFilter, follow bool, enc *json.Encoder) error {
	ctx, flush, last := r.Context(), http.NewResponseController(w), time.Now()
	for {
		before := f.After
		err := s.Reader.Log(ctx, run.ID, f, func(c deploy.LogChunk) error {
			f.After = c.ID
			for i := range c.Lines {
				if err := enc.Encode(lineView(&c, &c.Lines[i])); err != nil {
					return err
				}
			}
			return nil
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
			return fmt.Errorf("the daemon stops; run %d goes on, or starts again, when it is back", run.ID)
		case <-time.After(followEvery):
		}
		if run, err = s.Reader.Run(ctx, run.ID); err != nil {
			return err
		}
	}
}

var streams = []string{"deployhook", "stdout", "stderr"} // by LogLine.Stream

func lineView(c *deploy.LogChunk, l *deploy.LogLine) Line {
	return Line{
		Time: l.Time.UTC(), Job: c.At.Job, Attempt: c.At.Attempt, Host: c.At.Host, Step: c.StepName,
		Stream: streams[min(int(l.Stream), len(streams)-1)], Text: string(l.Text), Open: l.Open,
	}
}
