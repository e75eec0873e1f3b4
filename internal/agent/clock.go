package agent

import (
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"deployhook/internal/agent/wire"
)

// clock is the daemon's: what is written down for it must not depend on how
// the clock of this machine is set, or on when that is corrected. Between two
// requests it goes on by itself; before the first it is this machine's.
type clock struct{ told atomic.Pointer[told] }

// told is what the daemon's clock said, and when that was here.
type told struct{ at, here time.Time }

// hear takes the time that a request came with; what is none changes nothing.
func (c *clock) hear(text string) {
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		c.told.Store(&told{at, time.Now()})
	}
}

func (c *clock) now() time.Time {
	if t := c.told.Load(); t != nil {
		return t.at.Add(time.Since(t.here)) // what has passed is not taken from a clock that may be set meanwhile
	}
	return time.Now()
}

// signed says now and then, while the body of a request is read, how much of
// it has come: the near end hears nothing else meanwhile.
type signed struct {
	io.ReadCloser
	w    http.ResponseWriter
	last time.Time
	came int64 // bytes
	next int64 // of them, at which it is said at once
}

func (s *signed) Read(b []byte) (int, error) {
	n, err := s.ReadCloser.Read(b)
	s.came += int64(n)
	if now := time.Now(); n > 0 && (s.came >= s.next || now.Sub(s.last) >= wire.SignEvery) {
		s.last = now
		for s.next <= s.came {
			s.next *= wire.SignGrowth
		}
		s.w.Header().Set(wire.CameHeader, strconv.FormatInt(s.came, 10))
		s.w.WriteHeader(http.StatusProcessing) // without effect once the answer has begun
		s.w.Header().Del(wire.CameHeader)
	}
	return n, err
}

// timed hears the daemon's clock from each request, and says with the answer
// what this machine's is.
func (c *clock) timed(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.hear(r.Header.Get(wire.TimeHeader))
		w.Header().Set(wire.TimeHeader, time.Now().UTC().Format(time.RFC3339Nano))
		r.Body = &signed{ReadCloser: r.Body, w: w, last: time.Now(), next: wire.SlowPiece}
		h.ServeHTTP(w, r)
	})
}
