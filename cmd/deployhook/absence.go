package main

import (
	"context"
	"fmt"
	"time"
)

// Bounds of waiting for a run.
const (
	waitEvery = 200 * time.Millisecond // how often it is looked at
	goneMost  = 2 * time.Minute        // how long the daemon may be away: it may be restarting
)

// absence is the time in which the daemon does not answer somebody who waits
// for a run.
type absence struct {
	a     *app
	run   int64
	since time.Time // zero: it answers
}

// over notes that the daemon answered.
func (g *absence) over() { g.since = time.Time{} }

// wait says so once when the daemon is away, waits a little, and says whether
// asking again is of use.
func (g *absence) wait(ctx context.Context) bool {
	if g.since.IsZero() {
		g.since = time.Now()
		g.a.say(fmt.Sprintf("the daemon does not answer: waiting up to %v for it, since run %d goes on or starts again with it", goneMost, g.run))
	}
	if time.Since(g.since) > goneMost {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(waitEvery):
		return true
	}
}
