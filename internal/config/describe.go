package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"deployhook/internal/deploy"
)

// Describe prints what was understood of a file: what check prints.
func Describe(w io.Writer, f *File) {
	fmt.Fprintf(w, "server    listens on %s, data in %s, %d workers\n", f.Server.Listen, f.Server.Data, f.Server.Workers)
	for _, h := range f.Deploy.Hooks {
		fmt.Fprintf(w, "hook      %s: POST /hooks/%s, %s, verified by %s\n", h.Name, h.Name, h.Provider, verifiedBy(h))
	}
	for i := range f.Deploy.Pipelines {
		describePipeline(w, &f.Deploy.Pipelines[i])
	}
}

func verifiedBy(h deploy.Hook) string {
	switch {
	case h.Secret != nil && h.Token != nil:
		return "signature and token"
	case h.Secret != nil:
		return "signature"
	}
	return "token"
}

func describePipeline(w io.Writer, p *deploy.Pipeline) {
	fmt.Fprintf(w, "pipeline  %s: %s\n", p.Name, started(p))
	if p.Repository != "" {
		fmt.Fprintf(w, "  fetches  %s from %s\n", p.Repository, p.CloneURL)
	} else {
		fmt.Fprintln(w, "  fetches  nothing: jobs start in an empty workspace (default)")
	}
	if p.If != nil {
		fmt.Fprintf(w, "  if       %s\n", p.If.Source())
	}
	if p.Queue == deploy.QueueLatest && p.Repository != "" {
		fmt.Fprintln(w, "  queue    latest: of several pushes to a ref the newest is deployed")
	}
	for i := range p.Jobs {
		j := &p.Jobs[i]
		after := "at once"
		if len(j.Needs) > 0 {
			after = "after " + strings.Join(j.Needs, ", ")
		}
		fmt.Fprintf(w, "  job      %s: %s, on %s, %s, %v a step\n", j.Name, after, strings.Join(j.Hosts, ", "), count2(len(j.Steps), "step"), j.Timeout)
		if r := j.Release; r != nil {
			fmt.Fprintf(w, "           releases to %s, keeps %d and %d failed, group %s\n", r.Path, r.Keep, r.KeepFailed, j.Group)
			for _, d := range r.SharedDirs {
				fmt.Fprintf(w, "           shares directory %s\n", d)
			}
			for _, d := range r.SharedFiles {
				fmt.Fprintf(w, "           shares file %s\n", d)
			}
			restart := "no restart (default)"
			if j.Restart != "" {
				line, _, _ := strings.Cut(j.Restart, "\n")
				restart = "then " + line
			}
			fmt.Fprintf(w, "           %s\n", restart)
		}
	}
}

func count2(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// started says in words what starts a pipeline.
func started(p *deploy.Pipeline) string {
	var by []string
	if t := p.On.Push; t != nil {
		what := "every push"
		var parts []string
		for _, l := range []struct {
			name string
			list []string
		}{{"branches", t.Branches}, {"not branches", t.BranchesIgnore}, {"tags", t.Tags}, {"not tags", t.TagsIgnore}, {"paths", t.Paths}, {"not paths", t.PathsIgnore}} {
			if len(l.list) > 0 {
				parts = append(parts, l.name+" "+strings.Join(l.list, ", "))
			}
		}
		if len(parts) > 0 {
			what = "pushes to " + strings.Join(parts, "; ")
		}
		if p.Hook != "" {
			what += " through hook " + p.Hook
		}
		by = append(by, what)
	}
	if h := p.On.Hook; h != nil {
		what := "payloads of hook " + h.Name
		if h.If != nil {
			what += " if " + h.If.Source()
		}
		by = append(by, what)
	}
	if len(by) == 0 {
		return "only by hand"
	}
	return strings.Join(by, ", or ")
}

// Reference is docs/configuration.md.
func Reference() []byte {
	var b bytes.Buffer
	b.WriteString(`# Configuration reference

Every key of deploy.yaml, made from the same table that reads the file
(` + "`go generate ./internal/config`" + `). ` + "`*`" + ` stands for a name of yours, ` + "`[]`" + ` for an
item of a list. A key marked *later* is known and refused by name: its part is
not in this version. All keys are there since ` + since + `.

- In our own keys ` + "`-`" + ` may stand for ` + "`_`" + `: ` + "`working-dir`" + `.
- Unknown keys are errors with the line and a suggestion; ` + "`deployhook check`" + ` shows all at once.
- Keys that begin with ` + "`x-`" + ` are left alone, so that anchors can stand in them.
- Values of ` + "`env`" + ` keep their literal text: ` + "`1.10`, `0644`, `yes`" + `.

| key | value | default | meaning |
|---|---|---|---|
`)
	for _, k := range table {
		what, def := kindNames[k.kind], k.def
		if len(k.allowed) > 0 {
			what = "`" + strings.Join(k.allowed, "`, `") + "`"
		}
		if k.later {
			what = "*later*"
		}
		if def != "" {
			def = "`" + def + "`"
		}
		doc := strings.ReplaceAll(k.doc, "|", `\|`)
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.path, what, def, doc)
	}
	return b.Bytes()
}

// Schema is the JSON schema of deploy.yaml, for editors.
func Schema() []byte {
	s := schemaOf(root)
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "deploy.yaml of deployhook"
	s["patternProperties"] = map[string]any{"^x-": map[string]any{}}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(err) // the table is part of this program
	}
	return append(b, '\n')
}

func schemaOf(p *place) map[string]any {
	s := map[string]any{}
	if p.doc != "" {
		s["description"] = strings.ReplaceAll(p.doc, "`", "")
	}
	scalar := []string{"string", "number", "boolean"}
	switch p.kind {
	case section, flag, textOrMap:
		props := map[string]any{}
		for _, name := range p.order {
			if c := p.children[name]; !c.later {
				props[name] = schemaOf(c)
				if dashed := strings.ReplaceAll(name, "_", "-"); dashed != name {
					props[dashed] = props[name]
				}
			}
		}
		s["properties"], s["additionalProperties"] = props, false
		s["patternProperties"] = map[string]any{"^x-": map[string]any{}}
		s["type"] = "object"
		if p.kind == flag {
			s["type"] = []string{"object", "null"}
		}
		if p.kind == textOrMap {
			s["type"] = []string{"object", "string"}
		}
		if p.path == "pipelines.*.on" {
			s["type"] = []string{"object", "string", "array"}
		}
	case names:
		s["type"], s["additionalProperties"] = "object", schemaOf(p.any)
	case variables:
		s["type"], s["additionalProperties"] = "object", map[string]any{"type": append(scalar, "null")}
	case secret:
		s["anyOf"] = []any{map[string]any{"type": "string"}, map[string]any{"$ref": "#/properties/secrets/additionalProperties"}}
	case secretMap:
		s["type"] = "object"
		s["additionalProperties"] = map[string]any{"anyOf": []any{map[string]any{"type": "string"}, map[string]any{"$ref": "#/properties/secrets/additionalProperties"}}}
	case sections:
		s["type"] = "array"
		if p.item != nil {
			item := *p.item
			item.kind = section
			s["items"] = schemaOf(&item)
		}
	case texts:
		s["type"] = []string{"array", "string", "number"}
		s["items"] = map[string]any{"type": scalar}
	case number:
		s["type"] = "integer"
	case decimal:
		s["type"] = "number"
	case boolean:
		s["type"] = "boolean"
	case text, duration, size, expression:
		s["type"] = scalar
	}
	if len(p.allowed) > 0 {
		s = map[string]any{"description": s["description"], "enum": p.allowed}
	}
	return s
}
