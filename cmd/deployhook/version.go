package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set when a release is built: -ldflags "-X main.version=1.2.3".
var version = "0.1.0-dev"

// build is what this binary was made of.
type build struct {
	Version string  `json:"version"`
	Commit  *string `json:"commit"`  // of the sources; null when git did not say
	Changed bool    `json:"changed"` // the sources were not those of the commit
	Go      string  `json:"go"`
	System  string  `json:"system"` // linux/amd64
}

func (a *app) versionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:               "version",
		Short:             "Print the version",
		Example:           "  deployhook version",
		Args:              args(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			b := thisBuild()
			if asJSON {
				return a.json(b)
			}
			from := ""
			if b.Commit != nil {
				from = " commit " + short(b.Commit)
			}
			if b.Changed {
				from += " and changes"
			}
			_, err := fmt.Fprintf(a.out, "deployhook %s%s %s %s\n", b.Version, from, b.Go, b.System)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func thisBuild() build {
	b := build{Version: version, Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = &s.Value
		case "vcs.modified":
			b.Changed = s.Value == "true"
		}
	}
	return b
}
