package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"deployhook/internal/web"
)

func (a *app) deliveriesCommand() *cobra.Command {
	var q web.Query
	var asJSON bool
	c := &cobra.Command{
		Use:               "deliveries",
		Short:             "List webhook deliveries, the newest first",
		Example:           "  deployhook deliveries --hook github --limit 10",
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
			list, err := cl.Deliveries(c.Context(), q)
			if err != nil {
				return err
			}
			if asJSON {
				return a.json(list)
			}
			if len(list) == 0 {
				fmt.Fprintln(a.err, "there are no such deliveries")
				return nil
			}
			rows := [][]string{{"DELIVERY", "HOOK", "EVENT", "WHEN", "RUNS", "ANSWER"}}
			for _, d := range list {
				rows = append(rows, []string{fmt.Sprint(d.ID), d.Hook, plain(&d.Event), ago(d.Received, time.Now()), numbers(d.Runs), plain(&d.Message)})
			}
			table(a.out, func(s string) string { return s }, rows)
			if last := list[len(list)-1].ID; len(list) == q.Limit && last > 1 {
				a.older(last)
			}
			return nil
		},
	}
	listFlags(c, &q, &asJSON)
	c.Flags().StringVar(&q.Hook, "hook", "", "only of this hook")
	a.completeFromConfig(c, "hook", hookNames)
	return c
}

func numbers(list []int64) string {
	if len(list) == 0 {
		return "-"
	}
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ","), "[]")
}
