package main

import (
	"os"

	"github.com/spf13/cobra"

	"deployhook/internal/agent"
)

func (a *app) agentCommand() *cobra.Command {
	var o agent.Options
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run steps for a daemon (started by deployhook itself)",
		Long: "The far end: it runs the steps of one job and ends with its connection.\n" +
			"deployhook, systemd or sshd starts it by itself: with a socket as its standard\ninput, or with --ssh between two pipes.",
		Example:           "  deployhook agent --daemon deployhook < SOCKET",
		Args:              args(),
		ValidArgsFunction: cobra.NoFileCompletions,
		Run: func(*cobra.Command, []string) {
			o.Version = version
			os.Exit(agent.Main(o))
		},
	}
	cmd.Flags().StringVar(&o.Daemon, "daemon", "", "User whose connection is taken (default its own)")
	cmd.Flags().BoolVar(&o.SSH, "ssh", false, "Read from standard input and answer on standard output, as sshd wants it")
	return cmd
}
