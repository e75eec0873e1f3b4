package config

import (
	"bytes"
	"fmt"
	"strings"
)

// Reference is docs/configuration.md, made from the table.
func Reference() []byte {
	var b bytes.Buffer
	b.WriteString(referenceHead)
	for _, part := range []struct{ title, prefix, text string }{
		{"server", "server", "`DEPLOYHOOK_SERVER_LOG_LEVEL=debug` and `--server-log-level debug` stand for `server: { log: { level: debug } }`; an empty variable counts as none."},
		{"secrets", "secrets", "A value never stands in deploy.yaml: it is read where it is used, each time anew. At most 64 KiB; one newline at its end is taken away. Values under 6 bytes are not masked in logs."},
		{"hooks", "hooks", ""},
		{"hosts", "hosts", "Where jobs run besides this machine. Everything that logs in as one user is one trust domain."},
		{"env and defaults", "env|defaults", ""},
		{"pipelines.NAME", "pipelines", "Keys of `pipelines.NAME` itself and of what starts it."},
		{"pipelines.NAME.jobs.NAME", "pipelines.*.jobs", "A job without `release` is a test job: it gets a fresh workspace of the commit. A job with `release` is a deploy job."},
		{"pipelines.NAME.jobs.NAME.steps[]", "pipelines.*.jobs.*.steps[]", "A step runs in a process group of its own, with its standard input closed. What it leaves running is ended with it."},
	} {
		fmt.Fprintf(&b, "\n## %s\n", part.title)
		if part.text != "" {
			fmt.Fprintf(&b, "\n%s\n", part.text)
		}
		b.WriteString("\n| key | value | default | meaning |\n|---|---|---|---|\n")
		for _, k := range table {
			if !k.later && inPart(k.path, part.prefix) {
				writeKey(&b, k)
			}
		}
	}
	writeLanguage(&b)
	b.WriteString("\n## Later\n\nThese keys are known and refused by name, `not available in this version`: they are never\naccepted and ignored. So is `database: postgres://`.\n\n| key | meaning |\n|---|---|\n")
	for _, k := range table {
		if k.later {
			fmt.Fprintf(&b, "| `%s` | %s |\n", written(k.path), cell(k.doc))
		}
	}
	return b.Bytes()
}

const referenceHead = `# Configuration reference

Every key of deploy.yaml, made from the table that also reads the file
(` + "`go test ./internal/config -update`" + ` writes this page). All keys are there since
` + since + `.

- ` + "`NAME`" + ` stands for a name of yours: letters, digits, ` + "`-`" + ` and ` + "`_`" + `, at most 64. ` + "`[]`" + ` is an
  item of a list; a list of one text may be written without the list.
- In our own keys ` + "`-`" + ` may stand for ` + "`_`" + `: ` + "`working-dir`" + `. Keys that begin with ` + "`x-`" + ` are left
  alone, so that anchors can stand in them; among names of yours ` + "`x-`" + ` is a name.
- Unknown keys, and keys written twice, are errors with the line. ` + "`deployhook check`" + ` shows
  all errors of a file at once, and what was understood; ` + "`deployhook schema`" + ` prints a JSON
  schema, with which editors complete keys.
- ` + "`<<`" + ` takes over the keys of another section, but not among jobs: their order counts.
- Values of ` + "`env`" + ` keep their literal text: ` + "`1.10`, `0644`, `yes`, `null`" + `. ` + "`${{ }}`" + ` stands in
  them and nowhere else; see [expressions](#expressions).
- A duration is ` + "`90s`, `30m`, `1h30m`" + `; a size ` + "`64 MiB`" + `.
- Bounds: 1 MiB, 50,000 words and signs, 64 levels, 50,000 values with aliases counted as
  often as they are used.
`

// inPart says whether a key belongs to a part of the page: to the longest
// prefix that has a part.
func inPart(path, prefix string) bool {
	const jobs, steps = "pipelines.*.jobs", "pipelines.*.jobs.*.steps[]"
	below := func(p string) bool {
		return path == p || strings.HasPrefix(path, p+".") || strings.HasPrefix(path, p+"[")
	}
	switch prefix {
	case "pipelines":
		return below(prefix) && !below(jobs)
	case jobs:
		return below(prefix) && !below(steps)
	}
	for p := range strings.SplitSeq(prefix, "|") {
		if below(p) {
			return true
		}
	}
	return false
}

// written is a path as a person would write it.
func written(path string) string { return strings.ReplaceAll(path, "*", "NAME") }

func cell(doc string) string { return strings.ReplaceAll(doc, "|", `\|`) }

func writeKey(b *bytes.Buffer, k key) {
	what, def := kindNames[k.kind], k.def
	if r, ok := ranges[k.path]; ok {
		what += fmt.Sprintf(", %d to %d", r[0], r[1])
	}
	if len(k.allowed) > 0 {
		what = "`" + strings.Join(k.allowed, "`, `") + "`"
	}
	if words, ok := strings.CutPrefix(def, "("); ok {
		def = strings.TrimSuffix(words, ")")
	} else if def != "" {
		def = "`" + def + "`"
	}
	fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", written(k.path), what, def, cell(k.doc))
}
