package doctor

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Every check stands on the page, in the order in which it is said, and every
// sentence that the page explains is one that is said.
func TestPageHasEveryCheckAndOnlySentencesThatAreSaid(t *testing.T) {
	b, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	var sources strings.Builder
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	// What keeps an address from answering is said in one place for all.
	for _, name := range append(names, "../config/reach.go") {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sources.Write(text)
	}
	var rows []string
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "| `"); ok {
			cell, _, _ := strings.Cut(rest, "`")
			rows = append(rows, cell)
		}
	}
	n := min(len(all), len(rows))
	if diff := cmp.Diff(Names(), rows[:n]); diff != "" {
		t.Errorf("the page's checks:\n%s", diff)
	}
	said := 0
	for _, sentence := range rows[n:] {
		if sentence == "is in the group docker" {
			sentence = "is in the group "
		}
		said++
		if !strings.Contains(sources.String(), sentence) {
			t.Errorf("nothing says %q", sentence)
		}
	}
	if said < 10 {
		t.Errorf("the page explains %d sentences", said)
	}
	for _, bound := range []struct {
		text string
		ok   bool
	}{
		{"512 MiB and 20,000 inodes", bytesFew == 512<<20 && inodesFew == 20000}, {"256 MiB are available", memoryFew == 256<<20},
		{"under 1 GiB", memorySmall == 1<<30}, {"14 days left", true}, {"25 MiB of zeros", bodyMost == 25<<20}, {"`server.url" + sizePath + "`", true},
	} {
		if !strings.Contains(string(b), bound.text) || !bound.ok {
			t.Errorf("the page does not say %s, or that is not so", bound.text)
		}
	}
	if slices.Contains(rows, "") {
		t.Error("a row is empty")
	}
}
