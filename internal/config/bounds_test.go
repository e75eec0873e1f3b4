package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// unreadable are texts that are no deploy.yaml at all.
func unreadable() map[string]struct{ text, want string } {
	deep := func(n int) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(strings.Repeat(" ", i) + "a:\n")
		}
		return b.String()
	}
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'z'; c++ {
		bomb += string(c) + ": &" + string(c) + " [" + strings.Repeat("*"+string(c-1)+",", 10) + "]\n"
	}
	return map[string]struct{ text, want string }{
		"empty":                  {"", "deploy.yaml: the file is empty: begin with hooks and pipelines, or copy deploy.yaml.example"},
		"blank":                  {"\n  \n\n", "the file is empty"},
		"comments":               {"# hello\n", "the file is empty"},
		"a document mark":        {"---\n", "the file is empty"},
		"binary":                 {"\x7fELF\x02\x01\x01\x00\x00", "deploy.yaml: this is not a text file in UTF-8"},
		"Latin-1":                {"# caf\xe9\n", "this is not a text file in UTF-8"},
		"10 MB":                  {strings.Repeat("# x\n", 2_500_000), "the file is larger than 1 MiB"},
		"tab":                    {"hooks:\n\tgithub: {}\n", "deploy.yaml:2:1: a tab indents this line: YAML wants spaces"},
		"several documents":      {"a: 1\n---\nb: 2\n", "deploy.yaml:2:1: a second document begins here: deploy.yaml is one document, without ---"},
		"end of a document":      {"a: 1\n...\nb: 2\n", "deploy.yaml:3:1: a second document begins here"},
		"1 MiB and a byte":       {strings.Repeat("#", 1<<20) + "\n", "the file is larger than 1 MiB"},
		"null tag":               {"a: !!null x\n", "deploy.yaml:1:4: tags have no meaning here"},
		"set tag":                {"a: !!set { b, c }\n", "deploy.yaml:1:4: tags have no meaning here"},
		"long tag":               {"a: !<tag:yaml.org,2002:str> x\n", "tags have no meaning here"},
		"lone tag":               {"a: ! x\n", "deploy.yaml:1:4: tags have no meaning here"},
		"brace in text":          {"a: { b: ${C} }\n", "put text with { } [ ] or a comma in quotes"},
		"UTF-16":                 {"\xff\xfea\x00:\x00", "this is not a text file in UTF-8"},
		"text":                   {"hello", "deploy.yaml:1:1: sections like hooks and pipelines are wanted here, not text"},
		"list":                   {"- a\n", "sections like hooks and pipelines are wanted here, not a list"},
		"open quote":             {"a: 'x\n", "this is not YAML: could not find end character of single-quoted text"},
		"open bracket":           {"a: [1, 2\n", "this is not YAML"},
		"colon in text":          {"a: b: c\n", "put a value with a colon and a space in quotes"},
		"bad indentation":        {"a:\n   b: 1\n  c: 2\n", "3:3: this is not YAML"},
		"key of a list":          {"[a]: b\n", "this is not YAML"},
		"key that is an alias":   {"a: &x 1\n*x : 2\n", "a key is a plain word here"},
		"? key":                  {"? a\n: b\n", "a key is a plain word here"},
		"tag":                    {"a: !secret x\n", "tags have no meaning here"},
		"binary tag":             {"a: !!binary aGk=\n", "tags have no meaning here"},
		"unknown anchor":         {"a: *b\n", "there is no anchor of this name before it"},
		"anchor within itself":   {"a: &a [*a]\n", "there is no anchor of this name before it"},
		"merge within itself":    {"a: &a\n  <<: *a\n", "there is no anchor of this name before it"},
		"alias bomb":             {bomb, "with its aliases the file has more than 50000 values"},
		"100,000 brackets":       {strings.Repeat("[", 100_000), "this is more than 64 levels deep"},
		"100,000 maps":           {strings.Repeat("{a: ", 100_000), "this is more than 64 levels deep"},
		"100,000 dashes":         {strings.Repeat("- ", 100_000), "this is more than 64 levels deep"},
		"wide dashes":            {strings.Repeat("-   ", 100_000), "this is more than 64 levels deep"},
		"100,000 question marks": {strings.Repeat("? ", 100_000), "this is more than 64 levels deep"},
		"1,000 levels":           {deep(1_000), "this is more than 64 levels deep"},
		"100,000 tags":           {"a: " + strings.Repeat("!!str ", 100_000) + "x", "the file has too many tags and anchors"},
		"100,000 anchors":        {"a: " + strings.Repeat("&a ", 100_000) + "x", "the file has too many tags and anchors"},
		"200,000 keys":           {strings.Repeat("a: b\n", 200_000), "the file has more than 50000 words and signs"},
		"400,000 texts":          {"a: [" + strings.Repeat("a,", 400_000) + "]", "the file has more than 50000 words and signs"},
		"a long colon":           {"a" + strings.Repeat(":", 1_000_000), ": unknown key"},
	}
}

func TestUnreadableFilesGetOneSentenceSoon(t *testing.T) {
	for name, tt := range unreadable() {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			got := problemsOf(t, tt.text)
			if len(got) != 1 || !strings.Contains(got[0], tt.want) {
				t.Errorf("got %.300q, want one problem with %q", got, tt.want)
			}
			if n := len(strings.Join(got, "\n")); n > 1000 {
				t.Errorf("the sentence has %d bytes", n)
			}
			// Unbounded, some of these take the parser more than a minute.
			if took := time.Since(began); took > 45*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestWhatLooksBadAndIsGood(t *testing.T) {
	for name, text := range map[string]string{
		"tabs in a command":           jobText("steps:\n  - run: |\n      cat <<-EOF\n      \ttext\n      EOF\n"),
		"brackets in a command":       jobText("steps:\n  - run: |\n" + strings.Repeat("      echo '[[[{'\n", 200)),
		"dashes in a command":         jobText("steps:\n  - run: |\n      " + strings.Repeat("- ", 500) + "\n"),
		"CR LF":                       strings.ReplaceAll(smallest, "\n", "\r\n"),
		"a byte order mark":           "\ufeff" + smallest,
		"a document mark":             "---\n" + smallest,
		"a document's end":            smallest + "...\n",
		"a YAML version":              "%YAML 1.2\n---\n" + smallest,
		"tags that say nothing":       jobText("steps: [ { run: !!str x } ]\n"),
		"a secret's text in quotes":   jobText("steps: [ { run: '*x' } ]\n"),
		"1 MiB":                       smallest + strings.Repeat("#", 1<<20-len(smallest)),
		"a byte order mark and 1 MiB": "\ufeff" + smallest + strings.Repeat("#", 1<<20-len(smallest)),
		"tags that repeat":            jobText("timeout: !!str 5m\nsteps: !!seq [ !!map { run: x, retry: { limit: !!int 3 } } ]\n"),
		"a mark at the end":           smallest + "---\n",
		"anchors across sections":     "secrets: { a: &a { file: /a } }\nenv: &e { A: '1' }\n" + pipelineText("env: { <<: *e, B: '2' }\non: { hook: { name: github } }\n"),
		"one pipeline for two":        hooksPart + "pipelines: { a: &a { jobs: { j: { steps: [ { run: x } ] } } }, b: *a }\n",
		"pipelines taken over":        "x-p: &p { a: { jobs: { j: { steps: [ { run: x } ] } } } }\npipelines: { <<: *p }\n",
		"jobs of another":             "x-j: &j { a: { steps: [ { run: x } ] } }\npipelines: { p: { jobs: *j } }\n",
		"names like values":           "pipelines: { 1: { jobs: { true: { steps: [ { run: 5 } ] }, null: { needs: 'true', steps: [ { run: true } ] } } }, Shop: { jobs: { SHOP: { steps: [ { run: x } ] } } } }\n",
		"all kinds of dashes":         jobText("working-dir: a\non-crash: stop\nsteps: [ { run: x, continue-on-error: true, working-dir: b } ]\n"),
		"nothing on":                  pipelineText("on: []\n"),
		"a block for a line":          jobText("release: >\n  /srv/shop\n"),
		"needs of needs":              jobText("steps: [ { run: x } ]\n") + "      k: { steps: [ { run: x } ] }\n      l: { if: needs.j.result == 'failed', steps: [ { run: x } ] }\n",
		"status of a job with -":      jobText("steps: [ { run: x } ]\n") + "      my-job: { steps: [ { run: x } ] }\n      l:\n        if: needs[\"my-job\"].result == 'failed'\n        steps: [ { run: x } ]\n",
		"a thousand comments":         strings.Repeat("# a line\n", 100_000) + smallest,
	} {
		if f, err := Parse("deploy.yaml", []byte(text)); err != nil || f.Deploy == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLargestGoodFileIsReadSoon(t *testing.T) {
	var b strings.Builder
	b.WriteString(hooksPart + "pipelines:\n")
	for i := range 1000 {
		b.WriteString("  p" + strings.Repeat("x", i%10) + string(rune('a'+i%26)) + time.Duration(i).String() + ": { jobs: { j: { steps: [ { run: make } ] } } }\n")
	}
	began := time.Now()
	f := parsed(t, b.String())
	if n := len(f.Deploy.Pipelines); n != 1000 {
		t.Errorf("%d pipelines", n)
	}
	if took := time.Since(began); took > 45*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestFilesThatCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none.yaml"), nil); err == nil || !strings.Contains(err.Error(), "none.yaml is not there: copy deploy.yaml.example to it, or name another file with --config") {
		t.Errorf("missing: %v", err)
	}
	if _, err := Load(dir, nil); err == nil || !strings.Contains(err.Error(), "is a directory: name the file in it") {
		t.Errorf("a directory: %v", err)
	}
	big := filepath.Join(dir, "big.yaml")
	if err := os.WriteFile(big, []byte(strings.Repeat("# x\n", 2_500_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(big, nil)
	var p Problems
	if !errors.As(err, &p) || len(p) != 1 || !strings.HasPrefix(p[0].String(), "big.yaml: the file is larger than 1 MiB") {
		t.Errorf("10 MB: %v", err)
	}
	if os.Geteuid() != 0 { // root reads everything
		shut := filepath.Join(dir, "shut.yaml")
		if err := os.WriteFile(shut, nil, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(shut, nil); err == nil || !strings.Contains(err.Error(), "cannot be read by this user") {
			t.Errorf("no permission: %v", err)
		}
	}
}

func TestMessagesHoldNoControlCharacters(t *testing.T) {
	for _, p := range problemsOf(t, "\"a\\e[31m\\nb\": 1\nhooks: { \"x\\ry\": {} }\n") {
		if strings.ContainsAny(p, "\x1b\n\r") {
			t.Errorf("%q", p)
		}
	}
}
