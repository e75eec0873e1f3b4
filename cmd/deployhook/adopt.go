package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"deployhook/internal/adopt"
	"deployhook/internal/deploy"
)

func (a *app) adoptCommand() *cobra.Command {
	var userName string
	var dry bool
	c := &cobra.Command{
		Use:   "adopt PATH",
		Short: "Take over a tree of Capistrano or Deployer, or a plain clone",
		Long: "Take over what another tool deployed to PATH, and print the pipeline to put\n" +
			"into deploy.yaml. What is live is not touched: of a tree with releases/ and\n" +
			"current the journal in PATH/.deployhook is written, so that releases and\n" +
			"rollback know what is there; of a clone nothing is written. The daemon need\n" +
			"not run. A second time changes nothing.",
		Example: "  deployhook adopt /srv/shop --dry-run\n  deployhook adopt /srv/shop --user deploy > shop.yaml",
		Args:    args("PATH"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(c *cobra.Command, args []string) error {
			if args[0] == "" {
				return misuse{errors.New("PATH is empty")}
			}
			s, err := adopt.Look(c.Context(), args[0])
			if err != nil {
				return err
			}
			u, err := adopt.UserOf(userName, s.Path)
			if err != nil {
				return err
			}
			if s.Tool == adopt.Ours {
				a.say(fmt.Sprintf("%s is deployhook's own already; live is %s: nothing to do", s.Path, s.Current))
				return nil
			}
			text, err := s.Pipeline()
			if err != nil {
				return err
			}
			lines, err := s.Plan()
			if err == nil && !dry && len(lines) > 0 {
				if me := os.Geteuid(); me != 0 && me != u.UID {
					return fmt.Errorf("only root can give the journal to %s: sudo deployhook adopt %s, or --user with your own name when deploys run as you", u.Name, s.Path)
				}
				lines, err = s.Write(c.Context(), u)
			}
			if err != nil {
				return err
			}
			a.sayAdopted(s, u, lines, dry)
			_, err = fmt.Fprint(a.out, text)
			return err
		},
	}
	c.Flags().StringVar(&userName, "user", "", "user that deploys (default deploy, else the owner of PATH)")
	c.Flags().BoolVar(&dry, "dry-run", false, "say what would be written, and write nothing")
	return c
}

// adoptedShown is how many releases adopt shows, the newest ones.
const adoptedShown = 20

// sayAdopted says what was found, what was written, and what is left to do.
func (a *app) sayAdopted(s *adopt.Site, u *adopt.User, lines []deploy.ReleaseLine, dry bool) {
	commit := "an unknown commit"
	if s.Commit != "" {
		commit = fmt.Sprintf("commit %.7s", s.Commit)
	}
	if s.Tool == adopt.Clone {
		a.say(fmt.Sprintf("%s is a clone of %s; nothing is written: the first deploy takes it over, and leaves what is not tracked", s.Path, commit))
	} else {
		a.say(fmt.Sprintf("%s is a tree of %s; live is %s, %s", s.Path, s.Tool, s.Current, commit))
	}
	journal := filepath.Join(s.Path, ".deployhook", "releases.ndjson")
	switch {
	case s.Known:
		a.say("it is adopted already: nothing is written")
	case dry && len(lines) > 0:
		a.say(fmt.Sprintf("would write %s, for user %s, with:", journal, u.Name))
	case len(lines) > 0:
		a.say(fmt.Sprintf("wrote %s, for user %s, with:", journal, u.Name))
	}
	a.sayReleases(lines, s.Current)
	if !s.Known {
		for i, l := range s.Left {
			if i == adoptedShown {
				a.say(fmt.Sprintf("left alone: %d more", len(s.Left)-i))
				break
			}
			a.say(fmt.Sprintf("left alone: releases/%s: %s", adopt.Shown(l.Name), l.Why))
		}
		for _, n := range s.Notes {
			a.say("note: " + n)
		}
	}
	if n := len(s.Changed); n > 0 {
		a.say(fmt.Sprintf("changed by hand, which stops the first deploy (put them back, move them away, or write overwrite: true): %s", adopt.Listed(s.Changed)))
	}
	if s.Removed > 0 {
		a.say(fmt.Sprintf("%s removed by hand, which the first deploy brings back", counted(s.Removed, "tracked file")))
	}
	if commands := s.Chown(u); len(commands) > 0 {
		a.say(u.Name + " cannot write there yet, as deploys must:")
		for _, c := range commands {
			a.say("  " + c)
		}
	}
	a.say("next: put this into deploy.yaml, deployhook check, deployhook reload, and deploy with nothing else there")
}

// sayReleases shows what the journal is told, each release once.
func (a *app) sayReleases(lines []deploy.ReleaseLine, current string) {
	var once []deploy.ReleaseLine
	for _, l := range lines {
		if !l.Pops {
			once = append(once, l)
		}
	}
	if more := len(once) - adoptedShown; more > 0 {
		a.say(fmt.Sprintf("  %d older ones, and", more))
		once = once[more:]
	}
	for _, l := range once {
		text := "  releases/" + l.Release + "  " + string(l.State)
		if l.Commit != "" {
			text += "  " + l.Commit[:7]
		}
		if l.Release == current {
			text += "  (current)"
		}
		a.say(text)
	}
}
