package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"deployhook/internal/web"
)

// listFlags adds the flags that every list has.
func listFlags(c *cobra.Command, q *web.Query, asJSON *bool) {
	c.Flags().IntVar(&q.Limit, "limit", 50, "how many, at most 1000")
	c.Flags().Int64Var(&q.Before, "before", 0, "only those with a smaller number")
	c.Flags().BoolVar(asJSON, "json", false, "print JSON")
}

func checkLimit(n int) error {
	if n < 1 || n > 1000 {
		return misuse{errors.New("--limit is a number from 1 to 1000")}
	}
	return nil
}

func checkPage(c *cobra.Command, q web.Query) error {
	if err := checkLimit(q.Limit); err != nil {
		return err
	}
	if q.Before < 1 && c.Flags().Changed("before") {
		return misuse{errors.New("--before is a number above 0")}
	}
	return nil
}

// older says how a list goes on that was cut at its limit.
func (a *app) older(last any) { fmt.Fprintf(a.err, "older ones: --before %v\n", last) }

func (a *app) runsCommand() *cobra.Command {
	var q web.Query
	var asJSON bool
	c := &cobra.Command{
		Use:               "runs",
		Short:             "List runs, the newest first",
		Example:           "  deployhook runs --pipeline shop --state failed",
		Args:              args(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkPage(c, q); err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			list, err := cl.Runs(c.Context(), q)
			if err != nil {
				return err
			}
			if asJSON {
				return a.json(list)
			}
			if len(list) == 0 {
				fmt.Fprintln(a.err, "there are no such runs")
				return nil
			}
			rows := [][]string{{"RUN", "PIPELINE", "STATE", "COMMIT", "WHEN", "WHAT"}}
			for _, r := range list {
				rows = append(rows, []string{fmt.Sprint(r.ID), r.Pipeline, r.State, short(r.Commit), ago(r.Created, time.Now()), summary(r)})
			}
			table(a.out, a.state, rows)
			if last := list[len(list)-1].ID; len(list) == q.Limit && last > 1 {
				a.older(last)
			}
			return nil
		},
	}
	listFlags(c, &q, &asJSON)
	c.Flags().StringVar(&q.Pipeline, "pipeline", "", "only of this pipeline")
	c.Flags().StringVar(&q.State, "state", "", "only in this state")
	a.completeFromConfig(c, "pipeline", pipelineNames)
	completes(c, "state", cobra.FixedCompletions(web.States, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// summary says of a run what matters most.
func summary(r web.Run) string {
	for _, s := range []*string{r.Error, r.Cause, r.WaitingFor, r.Message} {
		if s != nil {
			return plain(s)
		}
	}
	return r.Event
}
