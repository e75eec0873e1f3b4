package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) cancelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cancel RUN",
		Short: "End a run",
		Long: "End a run: jobs that wait at once, jobs that run by ending their steps\n" +
			"(SIGTERM, ten seconds, SIGKILL). A switch that has begun is undone.",
		Example:           "  deployhook cancel 42",
		Args:              args("RUN"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(c *cobra.Command, args []string) error {
			cl, n, err := a.clientFor(args[0])
			if err != nil {
				return err
			}
			text, err := cl.Cancel(c.Context(), n)
			if err == nil {
				fmt.Fprintln(a.out, text)
			}
			return err
		},
	}
}
