package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"deployhook/internal/deploy"
	"deployhook/internal/web"
)

// notifiedMost bounds how many notifications are looked at of a kind, the newest.
const notifiedMost = 1000

// checkNotify asks the daemon which targets of notify and targets do not take
// what they are told.
func (e *exam) checkNotify(ctx context.Context) (found []Check) {
	switch {
	case e.file == nil:
		return e.needsConfig()
	case !tells(e.file.Deploy):
		return ok("nobody is told anything: there is neither notify nor targets")
	}
	if _, err := e.daemon(); err != nil {
		return warn("not looked at: only the daemon knows what waits, and it could not be asked", e.startIt())
	}
	waiting, err := e.Client.Notifications(ctx, web.Query{State: string(deploy.Waiting), Limit: notifiedMost})
	if err != nil {
		return warn("what waits to be told could not be read: "+err.Error(), "")
	}
	dead, err := e.Client.Notifications(ctx, web.Query{State: string(deploy.Failed), Limit: notifiedMost})
	if err != nil {
		return warn("what is dead could not be read: "+err.Error(), "")
	}
	for _, t := range byTarget(waiting) {
		found = append(found, warn(fmt.Sprintf("%s does not take what it is told: %s, the first since %s; the last answer: %s",
			t.name, waits(t.count), t.oldest.Created.Format("2006-01-02 15:04 MST"), why(t.newest)),
			fmt.Sprintf("deployhook notifications %d", t.newest.ID))...)
	}
	for _, t := range byTarget(dead) {
		found = append(found, warn(fmt.Sprintf("%s was not told of %s, and is tried no more; the last answer: %s", t.name, counted(t.count, "change"), why(t.newest)),
			fmt.Sprintf("deployhook notifications --failed --target %s\ndeployhook notifications resend %d", t.name, t.newest.ID))...)
	}
	if len(found) == 0 {
		return ok("all targets take what they are told")
	}
	return found
}

// tells says whether anybody is told anything.
func tells(cfg *deploy.Config) bool {
	return len(cfg.Notify)+len(cfg.Targets) > 0 || slices.ContainsFunc(cfg.Pipelines, func(p deploy.Pipeline) bool { return len(p.Notify) > 0 })
}

// unsent is what one target did not take.
type unsent struct {
	name           string
	count          int
	newest, oldest *web.Notification
}

// byTarget puts together, by the name of the target, what was tried and not
// taken; list begins with the newest.
func byTarget(list []web.Notification) (targets []*unsent) {
	by := map[string]*unsent{}
	for i := range list {
		n := &list[i]
		if n.Attempts == 0 {
			continue // it only has not been its turn
		}
		t := by[n.Target]
		if t == nil {
			t = &unsent{name: n.Target, newest: n}
			by[n.Target] = t
			targets = append(targets, t)
		}
		t.count++
		t.oldest = n
	}
	slices.SortFunc(targets, func(a, b *unsent) int { return strings.Compare(a.name, b.name) })
	return targets
}

func waits(n int) string {
	if n == 1 {
		return "1 notification waits"
	}
	return fmt.Sprintf("%d notifications wait", n)
}

func why(n *web.Notification) string {
	if n.Error == nil {
		return "none"
	}
	return *n.Error
}
