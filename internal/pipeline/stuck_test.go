package pipeline

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// A worker that hangs is found by its overdue sign of life; one that runs a
// long step is not taken for it.
func TestWorkerThatHangsIsFound(t *testing.T) { synctest.Test(t, workerHangs) }

func workerHangs(t *testing.T) {
	e := New(Options{Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	hangs, end := make(chan struct{}), make(chan struct{})
	const step = 3 * time.Hour
	e.start(t.Context(), e.newJob(7, "test", 1), func(j *job, _ context.Context) outcome {
		p := &jobPart{job: j, host: "web1"}
		other := &jobPart{job: j, host: "web2"}
		j.mu.Lock()
		j.parts = []*jobPart{p, other}
		j.mu.Unlock()
		p.beat(step) // as before a step with that timeout
		other.beat(0)
		other.rest() // a short step beside it
		<-hangs
		p.rest()
		<-end
		return outcome{state: "running"}
	})
	synctest.Wait()
	look := func(after time.Duration, want string) {
		t.Helper()
		time.Sleep(after)
		synctest.Wait()
		if got := e.Stuck(time.Now()); got != want {
			t.Errorf("stuck is %q, want %q", got, want)
		}
	}
	look(0, "")
	look(step+goesOn-time.Minute, "")
	close(hangs) // the step has ended, and the job goes on
	look(goesOn-time.Minute, "")
	look(2*time.Minute, "run 7 job test")
	close(end)
	synctest.Wait()
	look(0, "")
}
