package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra/doc"
)

// The generator of man pages is part of the tests, so that it is not part of the
// program; make dist runs this one with -share.
var share = flag.String("share", "", "write man pages and completions below this directory")

// manTail is what the page of the program says beside what cobra knows.
const manTail = `# EXIT STATUS
0 done, 1 failed, 2 misused, 130 ended by ctrl-C. With **--wait**, 0 when the run succeeded.

# ENVIRONMENT
**DEPLOYHOOK_CONFIG**
: The file deploy.yaml, when there is no **--config**.

**DEPLOYHOOK_SERVER_LISTEN** and its like
: Keys of the section server: see deploy.yaml(5).

# FILES
**/etc/deployhook/deploy.yaml**
: What a push or a payload starts: see deploy.yaml(5). An example is
/usr/share/doc/deployhook/deploy.yaml.example.

**/var/lib/deployhook**
: Database, mirrors and workspaces.

**/run/deployhook/control.sock**
: Where the other commands reach the daemon; it is for the group deployhook-admin.
`

// manPages writes a page for each command, and deploy.yaml(5), into dir.
func manPages(t *testing.T, dir string) {
	t.Helper()
	seconds, err := strconv.ParseInt(cmp.Or(os.Getenv("SOURCE_DATE_EPOCH"), "0"), 10, 64)
	if err != nil {
		t.Fatalf("SOURCE_DATE_EPOCH: %v", err)
	}
	date := time.Unix(seconds, 0).UTC()
	write := func(section, name string, page []byte) {
		t.Helper()
		path := filepath.Join(dir, "man"+section, name+"."+section)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, page, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range commands() {
		c.DisableAutoGenTag = true
		var b bytes.Buffer
		if err := doc.GenMan(c, &doc.GenManHeader{Section: "1", Date: &date, Source: "deployhook", Manual: "deployhook"}, &b); err != nil {
			t.Fatal(err)
		}
		page := b.Bytes()
		if !c.HasParent() {
			page = withTail(page)
		}
		write("1", strings.ReplaceAll(c.CommandPath(), " ", "-"), page)
	}
	page, err := os.ReadFile(filepath.Join(top, "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	head := fmt.Sprintf("%% \"DEPLOY.YAML\" \"5\" \"%s\" \"deployhook\" \"deployhook\"\n"+
		"# NAME\ndeploy.yaml \\- what deployhook does when a push or a payload comes\n", date.Format("Jan 2006"))
	write("5", "deploy.yaml", md2man.Render([]byte(head+asDefinitions(string(page))+"\n# SEE ALSO\ndeployhook(1), deployhook-check(1)\n")))
}

// withTail puts manTail before the last section of a page, SEE ALSO.
func withTail(page []byte) []byte {
	const last = "\n.SH SEE ALSO\n"
	head, also, _ := bytes.Cut(page, []byte(last))
	_, tail, _ := bytes.Cut(md2man.Render([]byte("% \"x\" \"1\"\n"+manTail)), []byte("\n.SH"))
	return slices.Concat(head, []byte("\n.SH"), bytes.TrimRight(tail, "\n"), []byte(last+"\\fBdeploy.yaml(5)\\fP, "), bytes.TrimPrefix(also, []byte(".PP\n")))
}

// ofThePage is what configuration.md says of itself and of its own places.
var ofThePage = regexp.MustCompile(`, made from the table[^)]*\)|\[([a-z]+)\]\(#[a-z-]+\)`)

// asDefinitions turns the page's tables, which a terminal has no room for, into
// lists of definitions, and its sections into those of a man page.
func asDefinitions(page string) string {
	var b strings.Builder
	page = ofThePage.ReplaceAllString(page, "$1")
	for line := range strings.Lines(page) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "# "):
			b.WriteString("# DESCRIPTION\n")
			continue
		case strings.HasPrefix(line, "## "):
			b.WriteString("#" + strings.ToUpper(line[2:]) + "\n")
			continue
		case !strings.HasPrefix(line, "| "):
			if !strings.HasPrefix(line, "|--") {
				b.WriteString(line + "\n")
			}
			continue
		}
		cells := strings.Split(strings.Trim(strings.ReplaceAll(line, `\|`, "\x00"), "|"), "|")
		for i, c := range cells {
			cells[i] = strings.TrimSpace(strings.ReplaceAll(c, "\x00", "|"))
		}
		if !strings.HasPrefix(cells[0], "`") {
			continue // the head of a table
		}
		about := cells[len(cells)-1]
		if len(cells) == 4 {
			kind := cells[1]
			if cells[2] != "" {
				kind += "; default " + cells[2]
			}
			about = "(" + kind + ") " + about
		}
		fmt.Fprintf(&b, "**%s**\n: %s\n\n", strings.Trim(cells[0], "`"), about)
	}
	return b.String()
}

func TestManPagesAndCompletionsForAPackage(t *testing.T) {
	dir := *share
	if dir == "" {
		dir = t.TempDir()
	}
	manPages(t, filepath.Join(dir, "man"))
	for path, shell := range map[string]string{
		"bash-completion/completions/deployhook":    "bash",
		"zsh/site-functions/_deployhook":            "zsh",
		"fish/vendor_completions.d/deployhook.fish": "fish",
	} {
		var script, errs bytes.Buffer
		if code := run([]string{"completion", shell}, &script, &errs); code != exitDone || script.Len() < 1000 {
			t.Fatalf("completion %s: exit %d, %d bytes, %s", shell, code, script.Len(), errs.String())
		}
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, script.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	pages, err := filepath.Glob(filepath.Join(dir, "man", "man1", "*.1"))
	if err != nil || len(pages) != len(commands()) {
		t.Errorf("%d pages for %d commands (%v)", len(pages), len(commands()), err)
	}
	for name, words := range map[string][]string{
		"man1/deployhook.1":          {".TH DEPLOYHOOK 1 ", ".SH EXIT STATUS", ".SH FILES", "/etc/deployhook/deploy.yaml", "deployhook-rollback(1)"},
		"man1/deployhook-rollback.1": {".SH SYNOPSIS", "deployhook rollback PIPELINE", ".SH OPTIONS", ".SH EXAMPLE"},
		"man5/deploy.yaml.5":         {".TH DEPLOY.YAML 5 ", "pipelines.NAME.jobs.NAME.release.keep", "DEPLOYHOOK_RUN_ID", ".SH EXPRESSIONS"},
	} {
		b, err := os.ReadFile(filepath.Join(dir, "man", name))
		if err != nil {
			t.Fatal(err)
		}
		page := strings.NewReplacer(`\-`, "-", `"`, "").Replace(string(b))
		for _, w := range words {
			if !strings.Contains(page, w) {
				t.Errorf("%s lacks %q", name, w)
			}
		}
		if strings.Contains(page, "|---|") || strings.Contains(page, "spf13") {
			t.Errorf("%s has what was not meant for it", name)
		}
		if mandoc, err := exec.LookPath("mandoc"); err == nil {
			if out, err := exec.Command(mandoc, "-T", "lint", "-W", "error", filepath.Join(dir, "man", name)).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
		}
	}
}
