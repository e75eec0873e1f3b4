package main

import (
	"bufio"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"deployhook/internal/web"
)

func (a *app) logsCommand() *cobra.Command {
	var q web.LogQuery
	var asJSON bool
	c := &cobra.Command{
		Use:   "logs RUN",
		Short: "Print what a run's steps printed",
		Long: "Print the output of a run's steps, with the time of each line. Control\n" +
			"sequences are left out; colour stays on a terminal. Secrets were masked when it\n" +
			"was written down. With --follow it goes on until the run has ended, also through\n" +
			"a restart of the daemon. The exit code is about the log, not about the run:\n" +
			"deployhook run says what became of that.",
		Example:           "  deployhook logs 42 --job deploy --follow",
		Args:              args("RUN"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(c *cobra.Command, args []string) error {
			n, err := number(args[0])
			if err != nil {
				return err
			}
			if c.Flags().Changed("tail") && (q.Tail < 1 || q.Tail > web.TailMost) {
				return misuse{fmt.Errorf("--tail is a number from 1 to %d", web.TailMost)}
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			printed, err := a.lines(c.Context(), cl, n, q, asJSON)
			if err != nil || asJSON {
				return err
			}
			if q.Follow && terminal(a.err) || !printed {
				r, err := cl.Run(c.Context(), n)
				if err != nil {
					return err
				}
				a.say(outcome(r, printed))
			}
			return nil
		},
	}
	c.Flags().StringVar(&q.Job, "job", "", "only of this job")
	c.Flags().StringVar(&q.Step, "step", "", "only of this step")
	c.Flags().StringVar(&q.Host, "host", "", "only on this host")
	c.Flags().IntVar(&q.Tail, "tail", 0, "only so many of the last lines, at most 1000")
	c.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on until the run has ended")
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a line")
	a.completeRunFlags(c)
	return c
}

// writeMost is how much of a log is written at once, in bytes.
const writeMost = 64 << 10

// lines prints a run's lines, and says whether there were any. Who follows a
// run follows it through a restart of the daemon.
func (a *app) lines(ctx context.Context, cl *web.Client, run int64, q web.LogQuery, asJSON bool) (printed bool, err error) {
	w := bufio.NewWriterSize(a.out, writeMost)
	p := &printer{colour: a.colored(), times: true, headings: true, emit: func(line []byte) {
		_, _ = w.Write(line)
		_ = w.WriteByte('\n')
	}}
	show := func(lines []web.Line) error {
		for _, l := range lines {
			printed = true
			if !asJSON {
				p.line(l)
				continue
			}
			b, err := encode(l, "")
			if err != nil {
				return err
			}
			_, _ = w.Write(b)
		}
		return w.Flush()
	}
	gone := absence{a: a, run: run}
	for {
		before := q.After
		q.After, err = cl.Lines(ctx, run, q, show)
		if q.After != before {
			gone.over()
			q.Tail = 0 // shown already
		}
		if err == nil || !q.Follow || !web.Away(err) || ctx.Err() != nil || !gone.wait(ctx) {
			break
		}
	}
	p.end()
	if ferr := w.Flush(); err == nil {
		err = ferr
	}
	return printed, err
}

// outcome says how a run stands whose log was shown, or has nothing to show.
func outcome(r web.Run, printed bool) string {
	if !printed {
		return "nothing was printed; " + standing(r)
	}
	return standing(r)
}
