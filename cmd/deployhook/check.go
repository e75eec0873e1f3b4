package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"deployhook/internal/config"
)

func (a *app) checkCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Say what deploy.yaml means, and everything that is wrong with it",
		Long: "Read deploy.yaml, print what was understood, with what was defaulted, and warn\n" +
			"where something is worth a word. All errors come at once; with one, the exit\n" +
			"code is 1.",
		Example: "  deployhook check\n  deployhook check ./deploy.yaml.example",
		Args:    args("[FILE]"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return []cobra.Completion{"yaml", "yml", "example"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(c *cobra.Command, args []string) error {
			path := config.Find(a.config)
			if len(args) == 1 {
				path = args[0]
			}
			f, errs, warnings, err := checked(c.Context(), path)
			if err != nil {
				return err
			}
			if asJSON {
				if err := a.json(checkView(path, f, errs, warnings)); err != nil {
					return err
				}
			} else {
				if f != nil {
					config.Describe(a.out, f)
				}
				for _, w := range warnings {
					fmt.Fprintf(a.err, "warning: %s\n", w)
				}
				if len(errs) > 0 {
					fmt.Fprintln(a.err, errs.Error())
					fmt.Fprintf(a.err, "deployhook: %s\n", counted(len(errs), "error"))
				}
			}
			if len(errs) > 0 {
				return errSilent
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// checked reads a config and its secrets. The file is nil when it cannot be
// understood.
func checked(ctx context.Context, path string) (f *config.File, errs, warnings config.Problems, err error) {
	f, err = config.Load(path, nil)
	if errors.As(err, &errs) {
		return nil, errs, nil, nil
	}
	if err != nil {
		return nil, nil, nil, err
	}
	errs, unread := config.CheckSecrets(ctx, f)
	pair, odd := config.CheckTLS(ctx, f, time.Now())
	errs = append(errs, pair...)
	warnings = slices.Concat(f.Warnings, unread, odd)
	// What this user cannot read the daemon may: serve refuses it, check warns.
	errs = slices.DeleteFunc(errs, func(p config.Problem) bool {
		if p.Unread {
			p.Message += "; the daemon does not start unless it can read it"
			warnings = append(warnings, p)
		}
		return p.Unread
	})
	return f, errs, warnings, nil
}

// problem is something that is wrong, or worth a word, for programs.
type problem struct {
	File    string  `json:"file"`
	Line    *int    `json:"line"` // from 1; null for the file as a whole
	Column  *int    `json:"column"`
	Path    *string `json:"path"` // pipelines.shop.jobs.deploy.needs
	Message string  `json:"message"`
}

// checkResult is what check --json prints.
type checkResult struct {
	File      string            `json:"file"`
	Errors    []problem         `json:"errors"`
	Warnings  []problem         `json:"warnings"`
	Hooks     []string          `json:"hooks"`
	Pipelines []checkedPipeline `json:"pipelines"`
}

type checkedPipeline struct {
	Name       string   `json:"name"`
	Repository *string  `json:"repository"`
	Jobs       []string `json:"jobs"` // in the order written
}

func checkView(path string, f *config.File, errs, warnings config.Problems) checkResult {
	v := checkResult{File: path, Errors: problems(errs), Warnings: problems(warnings), Hooks: []string{}, Pipelines: []checkedPipeline{}}
	if f == nil {
		return v
	}
	v.Hooks = append(v.Hooks, hookNames(f, nil)...)
	for _, p := range f.Deploy.Pipelines {
		jobs := []string{}
		for i := range p.Jobs {
			jobs = append(jobs, p.Jobs[i].Name)
		}
		v.Pipelines = append(v.Pipelines, checkedPipeline{Name: p.Name, Repository: orNull(p.Repository), Jobs: jobs})
	}
	return v
}

func problems(list config.Problems) []problem {
	views := []problem{}
	for _, p := range list {
		views = append(views, problem{File: p.File, Line: orNull(p.Line), Column: orNull(p.Column), Path: orNull(p.Path), Message: p.Message})
	}
	return views
}

// orNull is null in JSON for what is not there.
func orNull[T comparable](v T) *T {
	if v == *new(T) {
		return nil
	}
	return &v
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
