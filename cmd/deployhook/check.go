package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"deployhook/internal/config"
)

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Say what deploy.yaml means, and everything that is wrong with it",
		Long: "Read deploy.yaml, print what was understood, with what was defaulted, and warn\n" +
			"where something is worth a word. All errors come at once; with one, the exit\n" +
			"code is 1.",
		Example: "  deployhook check\n  deployhook check ./deploy.yaml.example",
		Args:    args("[FILE]"),
		RunE: func(c *cobra.Command, args []string) error {
			path := config.Find(a.config)
			if len(args) == 1 {
				path = args[0]
			}
			f, err := config.Load(path, nil)
			var p config.Problems
			if errors.As(err, &p) {
				fmt.Fprintln(a.err, p.Error())
				fmt.Fprintf(a.err, "deployhook: %s\n", counted(len(p), "error"))
				return errSilent
			}
			if err != nil {
				return err
			}
			config.Describe(a.out, f)
			errs, warnings := config.CheckSecrets(c.Context(), f)
			// What this user cannot read the daemon may: serve refuses it, check warns.
			errs = slices.DeleteFunc(errs, func(p config.Problem) bool {
				if p.Unread {
					p.Message += "; the daemon does not start unless it can read it"
					warnings = append(warnings, p)
				}
				return p.Unread
			})
			for _, w := range append(f.Warnings, warnings...) {
				fmt.Fprintf(a.err, "warning: %s\n", w)
			}
			if len(errs) > 0 {
				fmt.Fprintln(a.err, errs.Error())
				fmt.Fprintf(a.err, "deployhook: %s\n", counted(len(errs), "error"))
				return errSilent
			}
			return nil
		},
	}
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
