package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print a script that completes commands in a shell",
		Long: "Print a script that makes a shell complete commands, flags, pipelines, runs,\n" +
			"releases and jobs. bash needs its package bash-completion.",
		Example: "  deployhook completion bash > /etc/bash_completion.d/deployhook\n" +
			"  deployhook completion zsh > /usr/local/share/zsh/site-functions/_deployhook\n" +
			"  deployhook completion fish > /etc/fish/completions/deployhook.fish",
		Args:      args("SHELL"),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(_ *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return a.root.GenBashCompletionV2(a.out, true)
			case "zsh":
				return a.root.GenZshCompletion(a.out)
			case "fish":
				return a.root.GenFishCompletion(a.out, true)
			}
			return misuse{fmt.Errorf("there is no completion for %q: there are bash, zsh and fish", args[0])}
		},
	}
}
