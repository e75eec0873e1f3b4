package main

import (
	"context"

	"github.com/spf13/cobra"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
	"deployhook/internal/doctor"
)

func (a *app) hooksTestCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "test NAME",
		Short: "Send a hook a wrong and a right delivery, and say what came back",
		Long: "The daemon sends one of its hooks a delivery with a wrong signature or token and\n" +
			"one with the right one: to server.listen, and to server.url as GitHub would. It\n" +
			"says for each what the sender would see: status, time, TLS, and the answer.\n" +
			"Nothing is stored and nothing starts: the daemon knows its own test when it has\n" +
			"verified it. When one is not answered as it must be, the exit code is 1.",
		Example:           "  deployhook hooks test github",
		Args:              args("NAME"),
		ValidArgsFunction: a.completeHooks,
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			t, err := cl.TestHook(c.Context(), args[0])
			if err != nil {
				return err
			}
			checks := hookChecks(&t)
			if asJSON {
				if err := a.json(t); err != nil {
					return err
				}
			} else {
				a.printChecks(checks)
			}
			return a.verdict(checks)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// hookChecks are the tries of a test as lines of a look.
func hookChecks(t *deploy.HookTest) (checks []doctor.Check) {
	public := false
	for _, try := range t.Tries {
		c := doctor.Check{Name: try.Way + " " + try.Delivery, State: doctor.OK, Text: try.Address + " " + try.Text, Fix: try.Fix}
		if !try.OK {
			c.State = doctor.Failure
		}
		public = public || try.Way == "public"
		checks = append(checks, c)
	}
	if !public {
		checks = append(checks, doctor.Check{
			Name: "public", State: doctor.Warning, Text: "server.url is not set, so the way that the sender takes was not tried",
			Fix: "put into deploy.yaml: server: { url: https://YOUR.NAME }",
		})
	}
	return checks
}

// completeHooks gives the hooks of deploy.yaml.
func (a *app) completeHooks(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return firstWord(func(context.Context) (words []cobra.Completion) {
		f, err := config.Load(config.Find(a.config), nil)
		if err != nil {
			return nil
		}
		for _, h := range f.Deploy.Hooks {
			words = append(words, cobra.CompletionWithDesc(h.Name, h.Provider))
		}
		return words
	})(c, args, word)
}
