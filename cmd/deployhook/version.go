package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set when a release is built: -ldflags "-X main.version=1.2.3".
var version = "0.1.0-dev"

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  deployhook version",
		Args:    args(),
		RunE: func(*cobra.Command, []string) error {
			commit, changed := "", ""
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					switch {
					case s.Key == "vcs.revision":
						commit = " commit " + s.Value[:min(12, len(s.Value))]
					case s.Key == "vcs.modified" && s.Value == "true":
						changed = " and changes"
					}
				}
			}
			_, err := fmt.Fprintf(a.out, "deployhook %s%s%s %s %s/%s\n", version, commit, changed, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
