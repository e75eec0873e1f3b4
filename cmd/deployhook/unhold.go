package main

import "github.com/spf13/cobra"

func (a *app) unholdCommand() *cobra.Command {
	c := &cobra.Command{
		Use:               "unhold PIPELINE",
		Short:             "Let a held pipeline go on",
		Long:              "End a hold by hand, and the one that a rollback left.",
		Example:           "  deployhook unhold shop",
		Args:              args("PIPELINE"),
		ValidArgsFunction: a.completePipelines,
		RunE: func(c *cobra.Command, args []string) error {
			return a.holdOf(c.Context(), "unhold", args[0], "")
		},
	}
	return c
}
