package main

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) releasesCommand() *cobra.Command {
	var limit int
	var before string
	var asJSON bool
	c := &cobra.Command{
		Use:   "releases PIPELINE",
		Short: "List the releases of a pipeline, the newest first",
		Long: "List the releases of a pipeline, the newest first, as its hosts have them. The\n" +
			"star stands at the one that is there now; those that are live were live\n" +
			"and healthy, so rollback --to takes them. Hosts that cannot be asked are\n" +
			"named, and the exit status is 1.",
		Example:           "  deployhook releases shop",
		Args:              args("PIPELINE"),
		ValidArgsFunction: a.completePipelines,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkLimit(limit); err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			list, err := cl.ReleasesBefore(c.Context(), args[0], limit, before)
			if err != nil && len(list) == 0 {
				return err
			}
			if asJSON {
				return cmp.Or(a.json(list), err)
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
				run := "-" // adopted from another tool
				if r.Run > 0 {
					run = fmt.Sprint(r.Run)
				}
				rows = append(rows, []string{mark, r.ID, string(r.State), run, r.Host + ":" + r.Path})
			}
			table(a.out, a.state, rows)
			if len(list) >= limit {
				a.older(list[len(list)-1].ID)
			}
			return err // the hosts that are not in the list
		},
	}
	c.Flags().IntVar(&limit, "limit", 50, "how many, at most 1000")
	c.Flags().StringVar(&before, "before", "", "only those below this release in the list")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	completes(c, "before", a.completeReleases)
	return c
}
