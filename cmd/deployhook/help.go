package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"deployhook/internal/deploy"
)

// usage is how every help reads: it ends with a real example.
const usage = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND{{else}}{{.UseLine}}{{end}}{{range $group := .Groups}}

{{.Title}}:{{range $.Commands}}{{if eq .GroupID $group.ID}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsagesWrapped 80 | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Flags of every command:
{{.InheritedFlags.FlagUsagesWrapped 80 | trimTrailingWhitespaces}}{{end}}

Example:
{{.Example}}
`

// groups are the sections in which commands are listed, and their order within.
var groups = []struct {
	title string
	names []string
}{
	{"Looking", []string{"runs", "run", "logs", "releases", "deliveries", "delivery", "explain", "cache", "hooks"}},
	{"Acting", []string{"trigger", "retry", "cancel", "rollback", "replay"}},
	{"Keeping back", []string{"hold", "unhold", "lock", "unlock"}},
	{"The daemon and its file", []string{"init", "adopt", "serve", "check", "doctor", "reload", "token", "schema", "version", "completion", "help", "agent"}},
}

// grouped puts the commands into their groups.
func grouped(root *cobra.Command) {
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, c := range root.Commands() {
			if slices.Contains(g.names, c.Name()) {
				c.GroupID = g.title
			}
		}
	}
}

func (a *app) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Show how a command is used",
		Example: "  deployhook help rollback",
		Args:    args("[COMMAND]"),
		ValidArgsFunction: firstWord(func(context.Context) (words []cobra.Completion) {
			for _, c := range a.root.Commands() {
				words = append(words, cobra.CompletionWithDesc(c.Name(), c.Short))
			}
			return words
		}),
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := a.root.Find(args)
			if err != nil || len(rest) > 0 {
				return a.noCommand(args[0])
			}
			return c.Help()
		},
	}
}

// noCommand is the error for a command that is not there.
func (a *app) noCommand(word string) error {
	var names []string
	for _, c := range a.root.Commands() {
		names = append(names, c.Name())
	}
	return misuse{fmt.Errorf("there is no command %q%s", word, deploy.DidYouMean(word, names))}
}

// args checks the number of arguments, by their names in the message. Those in
// brackets may be left out.
func args(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > len(names) {
			return misuse{fmt.Errorf("%q is one word too many", args[len(names)])}
		}
		if len(args) < len(names) && !strings.HasPrefix(names[len(args)], "[") {
			return misuse{fmt.Errorf("%s is missing", names[len(args)])}
		}
		return nil
	}
}
