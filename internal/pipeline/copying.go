package pipeline

import (
	"context"
	"time"

	"deployhook/internal/deploy"
)

// What is said of copying the agent's program to a host: nothing where it is
// quick, and then not more than a person reads.
const (
	copyQuick = 10 * time.Second
	copyEvery = time.Minute
	copyName  = "copy the agent's program"
)

// copying tells on the run how far the agent's program has come to a host, as
// a step of its own.
type copying struct {
	p     *jobPart
	began time.Time
	said  time.Time
	log   *stepLog // nil: nothing was said yet
	st    deploy.RunStep
}

// tell takes how much has come. It is a sign of life of the job, too: this may
// take longer than all else.
func (c *copying) tell(come, all int64) {
	c.p.beat(0)
	now := time.Now()
	if now.Sub(c.began) < copyQuick || now.Sub(c.said) < copyEvery && come < all {
		return
	}
	c.said = now
	if c.log == nil {
		c.st = deploy.RunStep{Index: c.p.next, Name: copyName, State: deploy.Running, Tries: 1, Started: c.began}
		c.p.next++
		c.log = newStepLog(context.Background(), c.p.engine.Store, c.p.at(c.st.Index), c.p.learn())
		c.save()
	}
	rate := float64(come) / now.Sub(c.began).Seconds()
	left := time.Duration(float64(all-come) / rate * float64(time.Second)).Round(time.Second)
	c.log.say("deployhook: %.1f MB of %.1f MB have come, %.1f KB a second; about %v are left", float64(come)/1e6, float64(all)/1e6, rate/1e3, left)
}

// end ends the step, if there is one.
func (c *copying) end(ctx context.Context, err error) {
	c.p.rest()
	if c.log == nil {
		return
	}
	c.st.State, c.st.Ended = deploy.Succeeded, time.Now()
	switch {
	case err != nil && ctx.Err() != nil:
		c.st.State, c.st.Error = deploy.Canceled, context.Cause(ctx).Error()
	case err != nil:
		c.st.State, c.st.Error = deploy.Failed, err.Error()
	}
	if c.st.Error != "" {
		c.log.say("deployhook: %s", c.st.Error)
	}
	if err := c.log.close(); err != nil {
		c.p.log.Error("writing a step's log", "step", copyName, "err", err)
	}
	c.save()
}

func (c *copying) save() {
	err := c.p.engine.Store.SaveStep(context.Background(), c.p.at(c.st.Index), c.st)
	if err != nil {
		c.p.log.Error("recording a step", "step", copyName, "err", err)
	}
}

// connect opens the agent of a part.
func (p *jobPart) connect(ctx context.Context) error {
	c := &copying{p: p, began: time.Now()}
	conn, err := p.engine.openTelling(ctx, p.host, p.spec.Agent(), p.run, c.tell)
	c.end(ctx, err)
	if err == nil {
		p.conn = conn
	}
	return err
}
