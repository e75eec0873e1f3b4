package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"deployhook/internal/web"
)

// number reads the number of a run, a delivery or a notification.
func number(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 {
		return 0, misuse{fmt.Errorf("%q is not a number", s)}
	}
	return n, nil
}

// clientFor is the client of a command that is about the number in a word.
func (a *app) clientFor(word string) (*web.Client, int64, error) {
	n, err := number(word)
	if err != nil {
		return nil, 0, err
	}
	cl, err := a.client()
	return cl, n, err
}

// moment is a time for people.
func moment(t time.Time) string { return t.Format("2006-01-02 15:04:05Z") }

// How much of a failed step's output run shows, and of how many pieces, of
// which a line may have several, it is put together.
const (
	tailLines  = 20
	tailPieces = 200
)

// outputWidth is how much of a job's output run shows, in columns.
const outputWidth = 60

func (a *app) runCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:               "run RUN",
		Short:             "Show one run: what failed first, then its jobs and steps",
		Example:           "  deployhook run 42",
		Args:              args("RUN"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(c *cobra.Command, args []string) error {
			cl, n, err := a.clientFor(args[0])
			if err != nil {
				return err
			}
			r, err := cl.Run(c.Context(), n)
			if err != nil {
				return err
			}
			if asJSON {
				return a.json(r)
			}
			if err := a.failure(c, cl, r); err != nil {
				return err
			}
			outputs, err := cl.Outputs(c.Context(), n)
			if err != nil {
				return err
			}
			a.show(r, outputs)
			if terminal(a.err) && (r.State == "failed" || r.State == "lost") {
				a.say(fmt.Sprintf("hint: deployhook logs %d shows all of it, deployhook retry %d makes it anew", n, n))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// failure prints the last lines of the step that failed.
func (a *app) failure(c *cobra.Command, cl *web.Client, r web.Run) error {
	job, host, step := failedStep(r)
	if step == "" {
		return nil
	}
	var last []string
	p := &printer{colour: a.colored(), emit: func(line []byte) {
		if last = append(last, string(line)); len(last) > tailLines {
			last = last[1:]
		}
	}}
	_, err := cl.Lines(c.Context(), r.ID, web.LogQuery{Job: job, Host: host, Step: step, Tail: tailPieces}, func(lines []web.Line) error {
		for _, l := range lines {
			p.line(l)
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.end()
	fmt.Fprintf(a.out, "job %s%s, step %s: the last lines\n", plain(&job), on(host), plain(&step))
	if len(last) == 0 {
		fmt.Fprintln(a.out, "  (it printed nothing)")
	}
	for _, l := range last {
		fmt.Fprintf(a.out, "  | %s\n", l)
	}
	fmt.Fprintln(a.out)
	return nil
}

// failedStep names the step that a run failed for, which its job's error
// names too: others may have failed and were let pass.
func failedStep(r web.Run) (job, host, step string) {
	for _, j := range r.Jobs {
		if j.State != "failed" && j.State != "lost" {
			continue
		}
		for _, h := range j.Hosts {
			for _, s := range h.Steps {
				if s.State != "failed" && s.State != "lost" {
					continue
				}
				job, host, step = j.Name, h.Name, s.Name
				if j.Error != nil && strings.Contains(*j.Error, at(j, h)+"step "+s.Name+":") {
					return job, host, step
				}
			}
		}
		if step != "" {
			return job, host, step
		}
	}
	return "", "", ""
}

// at is what an error of a job begins with that is about a host.
func at(j web.Job, h web.Host) string {
	if len(j.Hosts) == 1 {
		return ""
	}
	return h.Name + ": "
}

// on names a host that is not this machine.
func on(host string) string {
	if host == "local" {
		return ""
	}
	return " on " + plain(&host)
}

// phases say how far a deploy came on a host.
var phases = map[string]string{
	"preparing": "the release is not whole", "prepared": "prepared and not switched", "switching": "in the middle of the switch",
	"switched": "switched", "live": "live", "put_back": "put back",
}

// standing says how a host stands among those of its job.
func (a *app) standing(j web.Job, h web.Host) string {
	if len(j.Hosts) == 1 || h.State == "" {
		return ""
	}
	text := ": " + a.state(h.State)
	if h.Phase != nil {
		how, ok := phases[*h.Phase]
		if !ok { // of a later version
			how = plain(h.Phase)
		}
		text += ", " + how
	}
	if h.Error != nil {
		text += ": " + plain(h.Error)
	}
	return text
}

// show prints a run; outputs are what its jobs wrote for later ones, by job.
func (a *app) show(r web.Run, outputs map[string]map[string]string) {
	fmt.Fprintf(a.out, "run %d of %s: %s\n", r.ID, r.Pipeline, a.state(r.State))
	row := func(name string, s *string) {
		if s != nil && *s != "" {
			fmt.Fprintf(a.out, "  %-9s %s\n", name, plain(s))
		}
	}
	row("error", r.Error)
	row("cause", r.Cause)
	row("waits for", r.WaitingFor)
	row("event", &r.Event)
	row("why", r.Why)
	row("ref", r.Ref)
	row("commit", r.Commit)
	row("message", r.Message)
	row("by", r.Actor)
	if r.RetryOf != nil {
		fmt.Fprintf(a.out, "  %-9s run %d\n", "retry of", *r.RetryOf)
	}
	if r.Delivery != nil {
		fmt.Fprintf(a.out, "  %-9s %d\n", "delivery", *r.Delivery)
	}
	fmt.Fprintf(a.out, "  %-9s %s\n", "created", moment(r.Created))
	switch {
	case r.Started != nil && r.Ended != nil:
		fmt.Fprintf(a.out, "  %-9s %s\n", "took", took(r.Started, r.Ended))
	case r.Started != nil:
		fmt.Fprintf(a.out, "  %-9s %s\n", "started", moment(*r.Started))
	}
	for _, j := range r.Jobs {
		note := ""
		for _, s := range []*string{j.Error, j.Cause, j.WaitingFor} {
			if s != nil {
				note = ": " + plain(s)
				break
			}
		}
		if j.Attempt > 1 {
			note = fmt.Sprintf(", attempt %d", j.Attempt) + note
		}
		fmt.Fprintf(a.out, "job %s %s%s\n", j.Name, a.state(j.State), note)
		for _, h := range j.Hosts {
			if len(j.Hosts) > 1 || h.Name != "local" {
				fmt.Fprintf(a.out, "  on %s%s\n", plain(&h.Name), a.standing(j, h))
			}
			for _, s := range h.Steps {
				note := ""
				if s.Error != nil {
					note = ": " + plain(s.Error)
				}
				// Padded before it is painted: colours have no width.
				state := strings.Replace(fmt.Sprintf("%-9s", s.State), s.State, a.state(s.State), 1)
				fmt.Fprintf(a.out, "  %s %6s  %s%s\n", state, took(s.Started, s.Ended), plain(&s.Name), note)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(outputs[j.Name])) {
			fmt.Fprintf(a.out, "  output %s: %s\n", name, outputLine(outputs[j.Name][name]))
		}
	}
}

// outputLine shows an output on one line.
func outputLine(value string) string {
	first, _, more := strings.Cut(value, "\n")
	shown := cutTo(plain(&first), outputWidth)
	if more && !strings.HasSuffix(shown, "…") {
		shown += " …"
	}
	return shown
}
