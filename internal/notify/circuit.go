package notify

import (
	"math/rand/v2"
	"time"
)

// When a target rests, and how long: it may be back at any time, and asking
// costs a socket and [SendTime].
const (
	failuresMost = 5 // in a row
	restLeast    = 30 * time.Second
	restMost     = 5 * time.Minute
	quick        = 2 * time.Second // an answer that took longer says that the target is in trouble
)

// circuit keeps a target that fails from costing anything: after some failures
// in a row it rests, and then one message at a time finds out whether it is
// back.
type circuit struct {
	failures int
	until    time.Time // it rests until then
	proven   bool      // its last answer was a good one, and came soon
}

// open says whether the target failed so often that it is only asked now and
// then.
func (c *circuit) open() bool { return c.failures >= failuresMost }

// rests says whether nothing is sent now.
func (c *circuit) rests(now time.Time) bool { return now.Before(c.until) }

// succeeded notes an answer that was a good one.
func (c *circuit) succeeded(took time.Duration) {
	*c = circuit{until: c.until, proven: took < quick}
}

// failed notes a try that came to nothing. after is how long the receiver
// wants to be left alone.
func (c *circuit) failed(now time.Time, after time.Duration) {
	c.failures++
	c.proven = false
	if c.open() {
		rest := restMost
		if n := c.failures - failuresMost; n < 4 {
			rest = min(restLeast<<n, restMost)
		}
		c.rest(now.Add(rest/2 + rand.N(rest/2)))
	}
	if after > 0 {
		// An answer for one message must not silence its target for half a day.
		c.rest(now.Add(min(after, time.Hour)))
	}
}

func (c *circuit) rest(until time.Time) {
	if until.After(c.until) {
		c.until = until
	}
}
