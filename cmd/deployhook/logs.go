package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"deployhook/internal/web"
)

func (a *app) logsCommand() *cobra.Command {
	var job, step string
	var follow, asJSON bool
	c := &cobra.Command{
		Use:   "logs RUN",
		Short: "Print what a run's steps printed",
		Long: "Print the output of a run's steps, with the time of each line. Control\n" +
			"sequences are left out; colour stays on a terminal. Secrets were masked when it\n" +
			"was written down.",
		Example: "  deployhook logs 42 --job deploy --follow",
		Args:    args("RUN"),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := number(args[0])
			if err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			if asJSON {
				return cl.Log(c.Context(), n, job, step, follow, func(l web.Line) error { return a.jsonLine(l) })
			}
			p := &printer{colour: a.colored(), times: true, headings: true, emit: func(line string) { fmt.Fprintln(a.out, line) }}
			err = cl.Log(c.Context(), n, job, step, follow, p.line)
			p.end()
			return err
		},
	}
	c.Flags().StringVar(&job, "job", "", "only of this job")
	c.Flags().StringVar(&step, "step", "", "only of this step")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the run has ended")
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a line")
	return c
}
