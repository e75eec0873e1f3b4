package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// commands are all commands, the root among them.
func commands() []*cobra.Command {
	a := &app{out: &bytes.Buffer{}, err: &bytes.Buffer{}}
	a.root = a.rootCommand()
	return append([]*cobra.Command{a.root}, a.root.Commands()...)
}

func TestEveryHelpEndsWithARealExampleWithin80Columns(t *testing.T) {
	for _, c := range commands() {
		var b bytes.Buffer
		c.SetOut(&b)
		if err := c.Help(); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(b.String(), "Example:\n"+c.Example+"\n") || !strings.HasPrefix(strings.TrimPrefix(c.Example, "  sudo"), " deployhook ") && !strings.HasPrefix(c.Example, "  deployhook ") {
			t.Errorf("the help of %s does not end with an example:\n%s", c.Name(), b.String())
		}
		for line := range strings.Lines(b.String()) {
			if n := width(strings.TrimRight(line, "\n")); n > 80 {
				t.Errorf("the help of %s has a line of %d columns: %s", c.Name(), n, line)
			}
		}
	}
}

// Every example is one that the command line understands.
func TestEveryExampleParses(t *testing.T) {
	for _, c := range commands() {
		for line := range strings.Lines(c.Example) {
			line, _, _ = strings.Cut(line, " > ")
			line, _, _ = strings.Cut(line, " < ")
			words := split(strings.TrimPrefix(strings.TrimSpace(line), "sudo "))
			used, rest, err := commands()[0].Find(words[1:])
			if err != nil {
				t.Errorf("%s: %v", line, err)
				continue
			}
			if c.HasParent() && used.Name() != c.Name() {
				t.Errorf("the example of %s is one of %s", c.Name(), used.Name())
			}
			if err := used.ParseFlags(rest); err != nil {
				t.Errorf("%s: %v", line, err)
			} else if err := used.ValidateArgs(used.Flags().Args()); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
}

// split takes a command line apart, with double quotes.
func split(line string) (words []string) {
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			words = append(words, part)
			continue
		}
		words = append(words, strings.Fields(part)...)
	}
	return words
}

func TestEveryReadHasJSON(t *testing.T) {
	for _, name := range []string{"runs", "run", "logs", "releases", "deliveries", "delivery", "explain", "trigger", "retry", "rollback", "replay", "doctor", "notifications"} {
		c, _, err := commands()[0].Find([]string{name})
		if err != nil || c.Flags().Lookup("json") == nil {
			t.Errorf("%s has no --json (%v)", name, err)
		}
	}
}
