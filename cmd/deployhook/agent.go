package main

import (
	"os"

	"github.com/spf13/cobra"

	"deployhook/internal/agent"
)

func (a *app) agentCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "agent",
		Short: "Run steps for a daemon (started by deployhook itself)",
		Long: "The far end: it runs the steps of one job and ends with its connection.\n" +
			"deployhook starts it by itself, with a socket as its standard input.",
		Example:           "  deployhook agent < SOCKET",
		Args:              args(),
		ValidArgsFunction: cobra.NoFileCompletions,
		Run:               func(*cobra.Command, []string) { os.Exit(agent.Main(version)) },
	}
}
