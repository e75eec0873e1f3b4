package main

import "github.com/spf13/cobra"

func (a *app) hooksCommand() *cobra.Command {
	c := &cobra.Command{
		Use:               "hooks",
		Short:             "Test hooks, and set them up at the sender's",
		Example:           "  deployhook hooks",
		Args:              args(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.hooksTestCommand(), a.hooksSetupCommand())
	return c
}
