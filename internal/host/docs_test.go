package host

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestSentencesOnThePageOfHostsAreThoseOfTheProgram(t *testing.T) {
	page, err := os.ReadFile("../../docs/hosts.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("ssh*.go")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(b)
	}
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(string(page), -1)
	if len(rows) < 15 {
		t.Fatalf("the page has %d sentences", len(rows))
	}
	for _, row := range rows {
		if !strings.Contains(source.String(), row[1]) {
			t.Errorf("docs/hosts.md explains %q, which is not said", row[1])
		}
	}
	for word := range notKept {
		if !strings.Contains(string(page), "`"+word+"`") {
			t.Errorf("docs/hosts.md does not name %s", word)
		}
	}
}
