package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) reloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Make the daemon read deploy.yaml again",
		Long: "The daemon takes the file when it is good, and keeps the old one when it is\n" +
			"not: then the exit code is 1. Accepted runs go on with the config they were\n" +
			"accepted under.",
		Example:           "  deployhook reload",
		Args:              args(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			text, err := cl.Reload(c.Context())
			if err == nil {
				fmt.Fprintln(a.out, text)
			}
			return err
		},
	}
}
