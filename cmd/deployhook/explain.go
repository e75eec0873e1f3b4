package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"deployhook/internal/web"
)

func (a *app) explainCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "explain DELIVERY",
		Short: "Say why a delivery started what it started, or nothing",
		Long: "Say for each pipeline why the delivery started it or did not, and what became\n" +
			"of the runs.",
		Example:           "  deployhook explain 17",
		Args:              args("DELIVERY"),
		ValidArgsFunction: a.completeDeliveries,
		RunE: func(c *cobra.Command, args []string) error {
			cl, n, err := a.clientFor(args[0])
			if err != nil {
				return err
			}
			d, err := cl.Delivery(c.Context(), n)
			if err != nil {
				return err
			}
			runs := []web.Run{}
			for _, id := range d.Runs {
				r, err := cl.Run(c.Context(), id)
				if err != nil {
					return err
				}
				runs = append(runs, r)
			}
			if asJSON {
				return a.json(map[string]any{"delivery": d, "runs": runs})
			}
			fmt.Fprintf(a.out, "delivery %d, event %s of hook %s: %s\n", d.ID, plain(&d.Event), d.Hook, plain(&d.Message))
			for _, v := range d.Why {
				word := "not started"
				if v.Run {
					word = "started"
				}
				fmt.Fprintf(a.out, "  pipeline %s %s: %s\n", v.Pipeline, word, plain(&v.Why))
			}
			for _, r := range runs {
				fmt.Fprintf(a.out, "  run %d of %s is %s: %s\n", r.ID, r.Pipeline, a.state(r.State), summary(r))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
