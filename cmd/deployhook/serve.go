package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"deployhook/internal/config"
	"deployhook/internal/daemon"
)

func (a *app) serveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon: take webhooks in and run jobs",
		Long: "Run the daemon in the foreground, as systemd does. It stops on ctrl-C or\n" +
			"SIGTERM, once running jobs have ended or server.shutdown_grace is over.",
		Example:           "  deployhook serve --config /etc/deployhook/deploy.yaml",
		Args:              args(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			err := daemon.Run(c.Context(), daemon.Options{Config: config.Find(a.config), Flags: c.Flags(), Version: version, Stderr: a.err})
			var p config.Problems
			if errors.As(err, &p) && !slices.ContainsFunc(p, func(x config.Problem) bool { return !strings.HasPrefix(x.File, "--") }) {
				return misuse{err} // of flags alone
			}
			if errors.As(err, &p) {
				return hinted{fmt.Errorf("the config is wrong:\n%w", err), "deployhook check shows the same without starting anything"}
			}
			return err
		},
	}
	config.RegisterFlags(c.Flags())
	return c
}
