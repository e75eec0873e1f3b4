package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"deployhook/internal/deploy"
)

func (a *app) triggerCommand() *cobra.Command {
	var t deploy.TriggerCommand
	var inputs []string
	var wait, asJSON bool
	c := &cobra.Command{
		Use:   "trigger PIPELINE",
		Short: "Start a run by hand",
		Long: "Start a run of a pipeline and print its number. With --wait the exit code is\n" +
			"that of the run: 0 when it succeeded, 1 otherwise; ctrl-C ends the waiting, not\n" +
			"the run.",
		Example:           "  deployhook trigger shop --branch main --wait",
		Args:              args("PIPELINE"),
		ValidArgsFunction: a.completePipelines,
		RunE: func(c *cobra.Command, args []string) error {
			t.Pipeline = args[0]
			if t.Branch != "" && t.SHA != "" {
				return misuse{fmt.Errorf("--branch and --sha do not go together")}
			}
			for _, in := range inputs {
				name, value, ok := strings.Cut(in, "=")
				if !ok || name == "" {
					return misuse{fmt.Errorf("--input wants NAME=VALUE, not %q", in)}
				}
				if t.Inputs == nil {
					t.Inputs = map[string]string{}
				}
				t.Inputs[name] = value
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			run, err := cl.Trigger(c.Context(), t)
			if err != nil {
				return err
			}
			return a.started(c.Context(), cl, run, wait, asJSON)
		},
	}
	c.Flags().StringVar(&t.Branch, "branch", "", "the branch to take (default: the pipeline's)")
	c.Flags().StringVar(&t.SHA, "sha", "", "the commit to take, 40 hexadecimal digits")
	c.Flags().StringArrayVar(&inputs, "input", nil, "NAME=VALUE, as often as needed")
	c.Flags().BoolVar(&t.Force, "force", false, "also when an older commit would replace a newer one")
	c.Flags().BoolVar(&wait, "wait", false, "wait for the end of the run")
	c.Flags().BoolVar(&asJSON, "json", false, "print the run as JSON")
	return c
}
