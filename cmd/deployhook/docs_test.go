package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const top = "../.."

// pages are README and everything in docs.
func pages(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(top, "docs", "*.md"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	texts := map[string]string{}
	for _, name := range append(names, filepath.Join(top, "README.md")) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(b)
	}
	return texts
}

var link = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

func TestLinksOfThePagesLeadSomewhere(t *testing.T) {
	for name, text := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			}
		}
	}
}

// Who copies a command from a page must not be told that it is misused.
func TestCommandsOfThePagesParse(t *testing.T) {
	n := 0
	for name, text := range pages(t) {
		for line := range strings.Lines(text) {
			line, shown := strings.CutPrefix(strings.TrimSpace(line), "$ deployhook ")
			if !shown {
				continue
			}
			n++
			line, _, _ = strings.Cut(line, " #")
			root := commands()[0]
			used, rest, err := root.Find(split(strings.TrimSpace(line)))
			if err == nil {
				err = used.ParseFlags(rest)
			}
			if err == nil {
				err = used.ValidateArgs(used.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: deployhook %s: %v", name, line, err)
			}
		}
	}
	if n < 10 {
		t.Errorf("the pages show %d commands", n)
	}
}

// foreign are messages of others that troubleshooting.md explains, and shapes
// whose words come from the config.
var foreign = []string{"Failed to set up credentials", "run 41 job deploy holds group shop/deploy", "nothing, it is only queued", "hold by", "lock by"}

// Every message that troubleshooting.md explains is one that the program says.
func TestMessagesInTroubleshootingAreOurs(t *testing.T) {
	var sources strings.Builder
	for _, dir := range []string{"internal", "cmd"} {
		err := filepath.WalkDir(filepath.Join(top, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			b, err := os.ReadFile(path)
			sources.Write(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for line := range strings.Lines(pages(t)[filepath.Join(top, "docs", "troubleshooting.md")]) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		message, _, _ := strings.Cut(strings.TrimPrefix(line, "| `"), "`")
		n++
		if !slices.Contains(foreign, message) && !strings.Contains(sources.String(), message) {
			t.Errorf("nothing says %q", message)
		}
	}
	if n < 30 {
		t.Errorf("the page explains %d messages", n)
	}
}
