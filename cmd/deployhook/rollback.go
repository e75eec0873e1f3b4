package main

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"

	"deployhook/internal/deploy"
)

func (a *app) rollbackCommand() *cobra.Command {
	var r deploy.RollbackCommand
	var wait, asJSON bool
	c := &cobra.Command{
		Use:   "rollback PIPELINE",
		Short: "Make an earlier release current again",
		Long: "Point current to the release that was live before, or to the one named with\n" +
			"--to, and restart. The commit rolled back from is then held: it is not deployed\n" +
			"again until a later push brings another one, or deployhook unhold. Where files\n" +
			"are changed in place (strategy: in_place), the earlier commit is deployed again.",
		Example:           "  deployhook rollback shop --wait",
		Args:              args("PIPELINE"),
		ValidArgsFunction: a.completePipelines,
		RunE: func(c *cobra.Command, args []string) error {
			r.Pipeline = args[0]
			cl, err := a.client()
			if err != nil {
				return err
			}
			got, err := cl.Rollback(c.Context(), r)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.err, "%s goes from %s to %s\n", r.Pipeline, cmp.Or(got.From, "no release"), got.Target)
			return a.started(c.Context(), cl, got.Run, wait, asJSON)
		},
	}
	c.Flags().StringVar(&r.Job, "job", "", "the release job, where there are several")
	c.Flags().StringVar(&r.To, "to", "", "the release to go to, or its commit (deployhook releases lists them)")
	completes(c, "to", a.completeReleases)
	a.completeFromConfig(c, "job", releaseJobs)
	c.Flags().BoolVar(&r.Force, "force", false, "although the pipeline is locked")
	c.Flags().BoolVar(&wait, "wait", false, "wait for the end of the run")
	c.Flags().BoolVar(&asJSON, "json", false, "print the run as JSON")
	return c
}
