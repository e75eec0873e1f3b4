package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"deployhook/internal/config"
)

func (a *app) hooksRangesCommand() *cobra.Command {
	var api string
	c := &cobra.Command{
		Use:   "ranges",
		Short: "Fetch the networks that GitHub sends webhooks from",
		Long: "Fetch the networks that GitHub publishes as those of its webhooks, for hooks\n" +
			"with allow: [github], and keep them in the data directory. The daemon takes\n" +
			"them within a second. They change now and then: run this as the user of the\n" +
			"daemon, from a timer. Without internet the file ranges.json of another server\n" +
			"may be copied.",
		Example: "  sudo deployhook hooks ranges",
		Args:    args(),
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := config.Load(config.Find(a.config), nil)
			if err != nil {
				return err
			}
			if _, err := os.Stat(f.Server.Data); errors.Is(err, fs.ErrNotExist) {
				return hinted{fmt.Errorf("%s is not there: the data directory is made when the daemon is installed", f.Server.Data), "deployhook init"}
			}
			r, err := config.FetchRanges(c.Context(), api)
			if err != nil {
				return hinted{err, "without internet copy " + config.RangesFile(f.Server.Data) + " from a server that has it"}
			}
			if err := config.WriteRanges(f.Server.Data, r); err != nil {
				if errors.Is(err, fs.ErrPermission) {
					return hinted{err, "sudo -u deployhook deployhook hooks ranges"}
				}
				return err
			}
			fmt.Fprintf(a.out, "%s of github are in %s\n", counted(len(r["github"].Networks), "network"), config.RangesFile(f.Server.Data))
			return nil
		},
	}
	c.Flags().StringVar(&api, "api", config.RangesAPI, "address of the API")
	// For tests, and GitHub Enterprise Server, which answers in the same form.
	_ = c.Flags().MarkHidden("api")
	return c
}
