package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) releasesCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "releases PIPELINE",
		Short:   "List the releases of a pipeline, the newest first",
		Example: "  deployhook releases shop",
		Args:    args("PIPELINE"),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			list, err := cl.Releases(c.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return a.json(list)
			}
			if len(list) == 0 {
				fmt.Fprintf(a.err, "%s has no releases\n", args[0])
				return nil
			}
			rows := [][]string{{"", "RELEASE", "STATE", "RUN", "HOST:PATH"}}
			for _, r := range list {
				mark := ""
				if r.Current {
					mark = "*"
				}
				rows = append(rows, []string{mark, r.ID, string(r.State), fmt.Sprint(r.Run), r.Host + ":" + r.Path})
			}
			table(a.out, a.state, rows)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
