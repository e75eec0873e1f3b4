package main

import "github.com/spf13/cobra"

func (a *app) lockCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "lock PIPELINE",
		Short: "Make a pipeline's release jobs wait",
		Long: "Test jobs run, release jobs wait until deployhook unlock. A second lock fails\n" +
			"and names who holds the first; a lock survives restarts.",
		Example:           "  deployhook lock shop --reason \"sale until Monday\"",
		Args:              args("PIPELINE"),
		ValidArgsFunction: a.completePipelines,
		RunE: func(c *cobra.Command, args []string) error {
			return a.holdOf(c.Context(), "lock", args[0], reason)
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for those who meet it")
	return c
}
