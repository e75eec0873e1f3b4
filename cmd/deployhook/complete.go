package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"deployhook/internal/config"
	"deployhook/internal/web"
)

// Bounds of what a shell is told while somebody types.
const (
	completeTime = 2 * time.Second
	completeMost = 50 // runs or deliveries
)

// completion gives words with what they are, as cobra wants them.
type completion = func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective)

// firstWord completes the first argument of a command and nothing behind it.
// What goes wrong completes nothing: a shell cannot show it.
func firstWord(words func(ctx context.Context) []cobra.Completion) completion {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(c, words)
	}
}

func complete(c *cobra.Command, words func(ctx context.Context) []cobra.Completion) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(c.Context(), completeTime)
	defer cancel()
	return words(ctx), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// completePipelines gives the pipelines of deploy.yaml.
func (a *app) completePipelines(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return firstWord(func(context.Context) (words []cobra.Completion) {
		f, err := config.Load(config.Find(a.config), nil)
		if err != nil {
			return nil
		}
		for _, p := range f.Deploy.Pipelines {
			words = append(words, cobra.CompletionWithDesc(p.Name, p.Repository))
		}
		return words
	})(c, args, word)
}

// completeRuns gives the newest runs with what became of them.
func (a *app) completeRuns(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return firstWord(func(ctx context.Context) (words []cobra.Completion) {
		cl, err := a.client()
		if err != nil {
			return nil
		}
		list, _ := cl.Runs(ctx, web.Query{Limit: completeMost})
		for _, r := range list {
			words = append(words, cobra.CompletionWithDesc(fmt.Sprint(r.ID), fmt.Sprintf("%s %s: %s", r.Pipeline, r.State, summary(r))))
		}
		return words
	})(c, args, word)
}

// completeDeliveries gives the newest deliveries with their answers.
func (a *app) completeDeliveries(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return firstWord(func(ctx context.Context) (words []cobra.Completion) {
		cl, err := a.client()
		if err != nil {
			return nil
		}
		list, _ := cl.Deliveries(ctx, web.Query{Limit: completeMost})
		for _, d := range list {
			words = append(words, cobra.CompletionWithDesc(fmt.Sprint(d.ID), fmt.Sprintf("%s: %s", d.Hook, plain(&d.Message))))
		}
		return words
	})(c, args, word)
}

// completeReleases gives the releases of the pipeline that stands on the line.
func (a *app) completeReleases(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return complete(c, func(ctx context.Context) (words []cobra.Completion) {
		cl, err := a.client()
		if err != nil || len(args) == 0 {
			return nil
		}
		list, _ := cl.Releases(ctx, args[0])
		for _, r := range list {
			words = append(words, cobra.CompletionWithDesc(r.ID, fmt.Sprintf("%s, run %d", r.State, r.Run)))
		}
		return words
	})
}

// completeRunFlags completes --job and --step with those of the run that
// stands on the line.
func (a *app) completeRunFlags(c *cobra.Command) {
	of := func(words func(r web.Run) []cobra.Completion) completion {
		return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return complete(c, func(ctx context.Context) []cobra.Completion {
				cl, err := a.client()
				if err != nil || len(args) == 0 {
					return nil
				}
				n, err := number(args[0])
				if err != nil {
					return nil
				}
				r, _ := cl.Run(ctx, n)
				return words(r)
			})
		}
	}
	completes(c, "job", of(func(r web.Run) (words []cobra.Completion) {
		for _, j := range r.Jobs {
			words = append(words, cobra.CompletionWithDesc(j.Name, j.State))
		}
		return words
	}))
	completes(c, "step", of(func(r web.Run) (words []cobra.Completion) {
		for _, j := range r.Jobs {
			for _, h := range j.Hosts {
				for _, s := range h.Steps {
					words = append(words, cobra.CompletionWithDesc(s.Name, s.State))
				}
			}
		}
		return words
	}))
}

// completeFromConfig completes a flag with names that deploy.yaml has.
func (a *app) completeFromConfig(c *cobra.Command, flag string, names func(f *config.File, args []string) []string) {
	completes(c, flag, func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return complete(c, func(context.Context) []cobra.Completion {
			f, err := config.Load(config.Find(a.config), nil)
			if err != nil {
				return nil
			}
			return names(f, args)
		})
	})
}

func pipelineNames(f *config.File, _ []string) (names []string) {
	for _, p := range f.Deploy.Pipelines {
		names = append(names, p.Name)
	}
	return names
}

func hookNames(f *config.File, _ []string) (names []string) {
	for _, h := range f.Deploy.Hooks {
		names = append(names, h.Name)
	}
	return names
}

// releaseJobs are the deploy jobs of the pipeline that stands on the line.
func releaseJobs(f *config.File, args []string) (names []string) {
	if len(args) == 0 {
		return nil
	}
	if p := f.Deploy.Pipeline(args[0]); p != nil {
		for i := range p.Jobs {
			if p.Jobs[i].Deploys() {
				names = append(names, p.Jobs[i].Name)
			}
		}
	}
	return names
}

// completes sets what a flag is completed with. It fails for a flag that is
// not there, which is a bug of this program.
func completes(c *cobra.Command, flag string, words completion) {
	if err := c.RegisterFlagCompletionFunc(flag, words); err != nil {
		panic(err)
	}
}
