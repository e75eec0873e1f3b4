package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) unlockCommand() *cobra.Command {
	var abandon bool
	c := &cobra.Command{
		Use:   "unlock PIPELINE | HOST:PATH --abandon",
		Short: "End a lock, or give up an unfinished switch",
		Long: "End a pipeline's lock. With HOST:PATH and --abandon, drop the journal of a\n" +
			"switch that nobody could finish: current stays where it points, and the path is\n" +
			"free again.",
		Example:           "  deployhook unlock shop\n  deployhook unlock local:/srv/shop --abandon",
		Args:              args("PIPELINE or HOST:PATH"),
		ValidArgsFunction: a.completePipelines,
		RunE: func(c *cobra.Command, args []string) error {
			host, path, isPath := strings.Cut(args[0], ":")
			if isPath != abandon || isPath && !strings.HasPrefix(path, "/") {
				return misuse{fmt.Errorf("--abandon goes with HOST:PATH, like local:/srv/shop, and only with it")}
			}
			if !isPath {
				return a.holdOf(c.Context(), "unlock", args[0], "")
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			text, err := cl.Abandon(c.Context(), host, path)
			if err == nil {
				fmt.Fprintln(a.out, text)
			}
			return err
		},
	}
	c.Flags().BoolVar(&abandon, "abandon", false, "drop the unfinished switch of HOST:PATH")
	return c
}
