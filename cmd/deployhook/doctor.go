package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"deployhook/internal/config"
	"deployhook/internal/doctor"
	"deployhook/internal/web"
)

func (a *app) doctorCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Look whether everything is as it must be, and say what to type",
		Long: "Look at the config, secrets, users, units, agents, repositories, disks, the way\n" +
			"that GitHub takes, and say for each whether it is ok. What is wrong comes last,\n" +
			"with what to type. Nothing is changed. Root sees most; others are told what\n" +
			"they could not see. With a failure the exit code is 1.",
		Example:           "  sudo deployhook doctor",
		Args:              args(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			checks := a.examine(c.Context())
			if err := c.Context().Err(); err != nil {
				return err
			}
			if asJSON {
				if err := a.json(checks); err != nil {
					return err
				}
			} else {
				a.printChecks(checks)
			}
			return a.verdict(checks)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// examine looks at the installation that this config belongs to.
func (a *app) examine(ctx context.Context) []doctor.Check {
	client, err := a.client()
	if err != nil { // what is wrong with the file is said with the config
		client = web.Dial(defaultSocket)
	}
	return doctor.Run(ctx, doctor.Options{Config: config.Find(a.config), Client: client, Version: version, UID: os.Geteuid()})
}

// lookAfter says what is not right yet after init: much of it is what only a
// person can do, so that it is no failure of init.
func (a *app) lookAfter(ctx context.Context) {
	checks := a.examine(ctx)
	if ctx.Err() != nil {
		return
	}
	open := slices.DeleteFunc(checks, func(c doctor.Check) bool { return c.State == doctor.OK })
	if len(open) == 0 {
		fmt.Fprintln(a.out, "deployhook doctor finds nothing that is not as it must be.")
		return
	}
	fmt.Fprintln(a.out, "\nWhat deployhook doctor still finds:")
	a.printChecks(open)
	fmt.Fprintln(a.out, "When that is done, look again: sudo deployhook doctor")
}

// verdict is the error of a look that found a failure.
func (a *app) verdict(checks []doctor.Check) error {
	n := map[doctor.State]int{}
	for _, c := range checks {
		n[c.State]++
	}
	a.say(fmt.Sprintf("%s, %s, %d ok", counted(n[doctor.Failure], "failure"), counted(n[doctor.Warning], "warning"), n[doctor.OK]))
	if n[doctor.Failure] > 0 {
		a.say("hint: do what stands behind ->, then look again")
		return errSilent
	}
	return nil
}

// printChecks prints a line for each check, or more where it is long; what is
// wrong comes last, where a terminal stands still.
func (a *app) printChecks(checks []doctor.Check) {
	names := 0
	for _, c := range checks {
		names = max(names, width(c.Name))
	}
	const states = len("failure")
	indent := strings.Repeat(" ", states+2+names+2)
	for _, state := range []doctor.State{doctor.OK, doctor.Warning, doctor.Failure} {
		for _, c := range checks {
			if c.State != state {
				continue
			}
			head := a.state(string(state)) + strings.Repeat(" ", states-len(state)+2) + c.Name + strings.Repeat(" ", names-width(c.Name)+2)
			for i, line := range wrapped(plain(&c.Text), tableWidth-len(indent)) {
				if i > 0 {
					head = indent
				}
				fmt.Fprintln(a.out, head+line)
			}
			printFix(a.out, indent, c.Fix)
		}
	}
}

// printFix prints what to type, unbroken, for copying.
func printFix(w io.Writer, indent, fix string) {
	for line := range strings.Lines(fix) {
		fmt.Fprintln(w, indent+"-> "+plain(&line))
	}
}

// wrapped breaks a sentence at spaces into lines of at most n columns; a word
// that is longer has a line of its own.
func wrapped(text string, n int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case width(line)+1+width(word) > n:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
