package main

import (
	"os"

	"github.com/spf13/cobra"

	"deployhook/internal/agent"
)

func (a *app) agentCommand() *cobra.Command {
	var daemon string
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run steps for a daemon (started by deployhook itself)",
		Long: "The far end: it runs the steps of one job and ends with its connection.\n" +
			"deployhook or systemd starts it by itself, with a socket as its standard input.",
		Example:           "  deployhook agent --daemon deployhook < SOCKET",
		Args:              args(),
		ValidArgsFunction: cobra.NoFileCompletions,
		Run:               func(*cobra.Command, []string) { os.Exit(agent.Main(agent.Options{Version: version, Daemon: daemon})) },
	}
	cmd.Flags().StringVar(&daemon, "daemon", "", "User whose connection is taken (default its own)")
	return cmd
}
