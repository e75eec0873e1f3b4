package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) holdCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:               "hold PIPELINE",
		Short:             "Make a pipeline's runs wait",
		Long:              "Pushes still become runs, and these wait until deployhook unhold.",
		Example:           "  deployhook hold shop --reason \"moving the database\"",
		Args:              args("PIPELINE"),
		ValidArgsFunction: a.completePipelines,
		RunE: func(c *cobra.Command, args []string) error {
			return a.holdOf(c.Context(), "hold", args[0], reason)
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for those who meet it")
	return c
}

// holdOf carries out hold, unhold, lock or unlock.
func (a *app) holdOf(ctx context.Context, word, pipeline, reason string) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	text, err := cl.Hold(ctx, word, pipeline, reason)
	if err == nil {
		fmt.Fprintln(a.out, text)
	}
	return err
}
