package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) replayCommand() *cobra.Command {
	var force, asJSON bool
	c := &cobra.Command{
		Use:   "replay DELIVERY",
		Short: "Decide on a stored delivery again, with today's config",
		Long: "Decide on a stored delivery again and print the runs that it started. They keep\n" +
			"the place in line of the first ones, unless --force.",
		Example:           "  deployhook replay 17",
		Args:              args("DELIVERY"),
		ValidArgsFunction: a.completeDeliveries,
		RunE: func(c *cobra.Command, args []string) error {
			cl, n, err := a.clientFor(args[0])
			if err != nil {
				return err
			}
			got, err := cl.Replay(c.Context(), n, force)
			if err != nil {
				return err
			}
			if asJSON {
				return a.json(got)
			}
			for _, run := range got.Runs {
				fmt.Fprintln(a.out, run)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&force, "force", false, "also when an older commit would replace a newer one")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
