package main

import (
	"github.com/spf13/cobra"
)

func (a *app) retryCommand() *cobra.Command {
	var force, wait, asJSON bool
	c := &cobra.Command{
		Use:   "retry RUN",
		Short: "Make a new run like one that has ended",
		Long: "Make a new run of the same commit, with today's config, and print its number.\n" +
			"It keeps its place in line: an older commit does not replace a newer one\n" +
			"without --force.",
		Example:           "  deployhook retry 42 --wait",
		Args:              args("RUN"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(c *cobra.Command, args []string) error {
			cl, n, err := a.clientFor(args[0])
			if err != nil {
				return err
			}
			run, err := cl.Retry(c.Context(), n, force)
			if err != nil {
				return err
			}
			return a.started(c.Context(), cl, run, wait, asJSON)
		},
	}
	c.Flags().BoolVar(&force, "force", false, "also when an older commit would replace a newer one, or the commit is held")
	c.Flags().BoolVar(&wait, "wait", false, "wait for the end of the run")
	c.Flags().BoolVar(&asJSON, "json", false, "print the run as JSON")
	return c
}
