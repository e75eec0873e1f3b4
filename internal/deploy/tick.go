package deploy

import (
	"fmt"
	"time"
)

// ScheduleTrigger starts a pipeline at the times of a schedule.
type ScheduleTrigger struct {
	Cron *Cron
}

// Clock is a schedule of a pipeline, and the last of its times that was decided.
type Clock struct {
	Pipeline string
	Schedule string // as [Cron.String]
	Last     time.Time
}

// Tick is a time of a schedule that has come.
type Tick struct {
	Pipeline string
	Schedule string    // as [Cron.String]
	Due      time.Time // the last one, where several have come
	Missed   int       // those before it that nothing was done for, up to missedMost
	Late     time.Duration
}

// Bounds of what is told of missed ticks, and what is not yet late.
const (
	missedMost = 1000
	lateAfter  = time.Minute
)

// clockAhead is how far the last tick may lie ahead of the clock before it is
// taken for one of a clock that was wrong.
const clockAhead = 24 * time.Hour

// Clocks are the schedules of all pipelines, in their order.
func (c *Config) Clocks() (list []Clock) {
	for _, p := range c.Pipelines {
		for _, s := range p.On.Schedules {
			list = append(list, Clock{Pipeline: p.Name, Schedule: s.Cron.String()})
		}
	}
	return list
}

// schedule finds one of the pipeline's by its text; nil when there is none.
func (p *Pipeline) schedule(text string) *Cron {
	for _, s := range p.On.Schedules {
		if s.Cron.String() == text {
			return s.Cron
		}
	}
	return nil
}

// Due gives the ticks that have come by now and are not decided yet, at most
// one of each schedule, and when the next one comes; zero when none does. Of
// several that were missed only the last is given: what it starts makes up for
// all of them.
func Due(cfg *Config, clocks []Clock, now time.Time) (ticks []Tick, next time.Time) {
	for _, k := range clocks {
		p := cfg.Pipeline(k.Pipeline)
		if p == nil {
			continue
		}
		cron := p.schedule(k.Schedule)
		if cron == nil {
			continue
		}
		at := cron.Next(k.Last)
		if !at.IsZero() && !at.After(now) {
			t := Tick{Pipeline: k.Pipeline, Schedule: k.Schedule, Due: at}
			for t.Missed < missedMost {
				later := cron.Next(t.Due)
				if later.IsZero() || later.After(now) {
					break
				}
				t.Due, t.Missed = later, t.Missed+1
			}
			if t.Missed == missedMost {
				t.Due = cron.last(t.Due, now)
			}
			t.Late = now.Sub(t.Due)
			ticks = append(ticks, t)
			at = cron.Next(now)
		}
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return ticks, next
}

// last gives the last time up to now; known is one of them.
func (c *Cron) last(known, now time.Time) time.Time {
	for back := time.Minute; back < now.Sub(known); back *= 60 {
		at := c.Next(now.Add(-back))
		if at.IsZero() || at.After(now) {
			continue
		}
		known = at
		break
	}
	for {
		later := c.Next(known)
		if later.IsZero() || later.After(now) {
			return known
		}
		known = later
	}
}

// Event is what a tick means.
func (t *Tick) Event() *Event {
	return &Event{Kind: Scheduled, Pipeline: t.Pipeline, Schedule: t.Schedule, Why: t.sentence()}
}

// sentence says which time it is, and whether it is late.
func (t *Tick) sentence() string {
	s := fmt.Sprintf("schedule %s, due at %s", t.Schedule, t.Due.UTC().Format(time.RFC3339))
	if t.Missed == 0 && t.Late < lateAfter {
		return s
	}
	s += fmt.Sprintf(", late by %v", t.Late.Round(time.Second))
	switch {
	case t.Missed >= missedMost:
		s += fmt.Sprintf("; %d times or more before it were missed", missedMost)
	case t.Missed > 1:
		s += fmt.Sprintf("; %d times before it were missed", t.Missed)
	case t.Missed == 1:
		s += "; the time before it was missed"
	}
	return s
}

// SetRight gives clocks whose last tick lies more than a day ahead of now the
// time of now: it was noted while the clock was wrong, and nothing would run
// until then.
func SetRight(clocks []Clock, now time.Time) (wrong []Clock) {
	for i := range clocks {
		if clocks[i].Last.Sub(now) > clockAhead {
			clocks[i].Last = now
			wrong = append(wrong, clocks[i])
		}
	}
	return wrong
}
