package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
)

func (a *app) cacheCommand() *cobra.Command {
	var pipeline string
	var asJSON bool
	c := &cobra.Command{
		Use:   "cache [clear [PIPELINE]]",
		Short: "List what test jobs keep for those after them, or clear it",
		Long: "List the caches of test jobs, the last used first: on which host, of which user,\n" +
			"and whether of the pipeline's branch or of other refs. With clear they are\n" +
			"removed, of one pipeline or of all; jobs that run keep what they took. A host\n" +
			"that does not answer is named, and the exit code is 1.",
		Example: "  deployhook cache\n  deployhook cache clear shop",
		Args: func(c *cobra.Command, words []string) error {
			switch {
			case len(words) > 0 && words[0] != "clear":
				return misuse{fmt.Errorf("%q is not a word of cache%s", words[0], deploy.DidYouMean(words[0], []string{"clear"}))}
			case len(words) > 0 && c.Flags().Changed("pipeline"):
				return misuse{fmt.Errorf("--pipeline goes with the list; write cache clear %s", pipeline)}
			}
			return args("[clear]", "[PIPELINE]")(c, words)
		},
		RunE: func(c *cobra.Command, words []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if len(words) == 0 {
				r, err := cl.Caches(c.Context(), pipeline)
				if err != nil {
					return err
				}
				return a.printCaches(r, asJSON, "there are no caches")
			}
			r, err := cl.ClearCaches(c.Context(), strings.Join(words[1:], ""))
			if err != nil {
				return err
			}
			if !asJSON && len(r.Sets) > 0 {
				fmt.Fprintln(a.err, "removed:")
			}
			return a.printCaches(r, asJSON, "there was nothing to remove")
		},
	}
	c.ValidArgsFunction = func(c *cobra.Command, words []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return complete(c, func(context.Context) []cobra.Completion {
			f, err := config.Load(config.Find(a.config), nil)
			switch {
			case len(words) == 0:
				return []cobra.Completion{"clear"}
			case err != nil || len(words) > 1:
				return nil
			}
			return pipelineNames(f, nil)
		})
	}
	c.Flags().StringVar(&pipeline, "pipeline", "", "only of this pipeline")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	a.completeFromConfig(c, "pipeline", pipelineNames)
	return c
}

// printCaches prints sets; hosts that did not answer are an error.
func (a *app) printCaches(r deploy.CacheReport, asJSON bool, none string) error {
	switch {
	case asJSON:
		if err := a.json(r.Sets); err != nil {
			return err
		}
	case len(r.Sets) == 0 && len(r.Silent) == 0:
		fmt.Fprintln(a.err, none)
	case len(r.Sets) > 0:
		rows := [][]string{{"PIPELINE", "HOST", "USER", "SET", "SIZE", "FILES", "USED"}}
		for _, s := range r.Sets {
			rows = append(rows, []string{plain(&s.Pipeline), s.Host, plain(&s.User), string(s.Kind), sizeOf(s.Bytes), fmt.Sprint(s.Files), ago(s.Used, time.Now())})
		}
		table(a.out, func(s string) string { return s }, rows)
	}
	var err error
	for _, s := range r.Silent {
		if err != nil {
			a.say(err.Error())
		}
		err = fmt.Errorf("%s was not asked: %s", s.Host, strings.TrimPrefix(s.Error, "host "+s.Host+": "))
	}
	return err
}

// sizeOf is a number of bytes as people read it.
func sizeOf(bytes int64) string {
	for _, u := range []struct {
		name string
		n    int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if bytes >= u.n {
			return fmt.Sprintf("%.1f %s", float64(bytes)/float64(u.n), u.name)
		}
	}
	return fmt.Sprintf("%d B", bytes)
}
