package config

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// plain gives a value as a JSON decoder would.
func plain(t *testing.T, v *value) any {
	switch {
	case v.isMap:
		entries, err := merged(v, func(s string) string { return s })
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]any{}
		for _, e := range entries {
			m[e.name] = plain(t, e.value)
		}
		return m
	case v.isList:
		l := []any{}
		for _, x := range v.list {
			l = append(l, plain(t, x))
		}
		return l
	case v.null:
		return nil
	case v.quoted:
		return v.text
	case v.text == "true" || v.text == "false":
		return v.text == "true"
	}
	if f, err := strconv.ParseFloat(v.text, 64); err == nil {
		return f
	}
	return v.text
}

// holds is the part of JSON Schema that the schema uses.
func holds(t *testing.T, all, s map[string]any, v any, path string) (problems []string) {
	bad := func(format string, args ...any) {
		problems = append(problems, path+": "+fmt.Sprintf(format, args...))
	}
	for key := range s {
		if !slices.Contains([]string{"$schema", "title", "description", "default", "type", "enum", "anyOf", "$ref", "properties", "patternProperties", "additionalProperties", "propertyNames", "items", "minimum"}, key) {
			t.Fatalf("%s: this test does not know %q of JSON Schema", path, key)
		}
	}
	if ref, ok := s["$ref"].(string); ok {
		var at any = all
		for _, part := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
			at = at.(map[string]any)[part]
		}
		return holds(t, all, at.(map[string]any), v, path)
	}
	if list, ok := s["anyOf"].([]any); ok {
		var why []string
		for _, one := range list {
			p := holds(t, all, one.(map[string]any), v, path)
			if len(p) == 0 {
				return nil
			}
			why = append(why, p...)
		}
		return why
	}
	if enum, ok := s["enum"].([]any); ok && !slices.Contains(enum, v) {
		bad("%v is none of %v", v, enum)
	}
	types := []any{}
	switch x := s["type"].(type) {
	case string:
		types = []any{x}
	case []any:
		types = x
	}
	kind := map[bool]string{true: "object", false: "null"}[v != nil]
	switch v.(type) {
	case string:
		kind = "string"
	case bool:
		kind = "boolean"
	case float64:
		kind = "number"
	case []any:
		kind = "array"
	}
	if f, ok := v.(float64); ok && f == float64(int64(f)) && slices.Contains(types, any("integer")) {
		kind = "integer"
	}
	if len(types) > 0 && !slices.Contains(types, any(kind)) {
		bad("%v is %s, not %v", v, kind, types)
	}
	if list, ok := v.([]any); ok && s["items"] != nil {
		for i, x := range list {
			problems = append(problems, holds(t, all, s["items"].(map[string]any), x, fmt.Sprintf("%s[%d]", path, i))...)
		}
	}
	m, ok := v.(map[string]any)
	if !ok {
		return problems
	}
	props, _ := s["properties"].(map[string]any)
	patterns, _ := s["patternProperties"].(map[string]any)
	for name, x := range m {
		if n, ok := s["propertyNames"].(map[string]any); ok && !regexp.MustCompile(n["pattern"].(string)).MatchString(name) {
			bad("%q is no name", name)
		}
		known := false
		if p, ok := props[name].(map[string]any); ok {
			known = true
			problems = append(problems, holds(t, all, p, x, path+"."+name)...)
		}
		for pattern, p := range patterns {
			if regexp.MustCompile(pattern).MatchString(name) {
				known = true
				problems = append(problems, holds(t, all, p.(map[string]any), x, path+"."+name)...)
			}
		}
		if known {
			continue
		}
		switch more := s["additionalProperties"].(type) {
		case bool:
			if !more {
				bad("%q is no key", name)
			}
		case map[string]any:
			problems = append(problems, holds(t, all, more, x, path+"."+name)...)
		}
	}
	return problems
}

func againstSchema(t *testing.T, text string) []string {
	t.Helper()
	var schema map[string]any
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	v, err := parseTree([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return holds(t, schema, schema, plain(t, v), "")
}

func TestSchemaTakesWhatTheReaderTakes(t *testing.T) {
	for _, text := range []string{
		smallest,
		"{}",
		"x-a: { anything: [1] }\n" + pipelineText("x-b: 1\nrepository: github.com/a/b\nclone-url: /x\non: push\nenv: { A: 1.10, B: yes, C: true, D: }\n"),
		pipelineText("repository: github.com/a/b\non: [push]\n"),
		pipelineText("repository: github.com/a/b\non: { push: }\ndepth: 3\n"),
		jobText("needs: []\ntimeout: 5m\non-crash: stop\nsteps:\n  - { run: x, continue-on-error: true, retry: { limit: 2, delay: 1s, factor: 1.5 } }\n"),
		jobText("secrets: { A: { file: /a }, B: { command: x } }\nrelease: { path: /srv/shop, keep: 3, shared: { dirs: storage } }\n"),
		"server: { log: { level: debug }, limits: { body-memory: 32 MiB }, shutdown_grace: 5s, agent: { test: spawn } }\n",
	} {
		parsed(t, text)
		if p := againstSchema(t, text); len(p) > 0 {
			t.Errorf("the schema refuses\n%s\n%s", text, strings.Join(p, "\n"))
		}
	}
}

func TestSchemaRefusesWhatTheReaderRefuses(t *testing.T) {
	for _, text := range []string{
		"hoks: {}", "hooks: []", "hooks: { 'a b': {} }", "hooks: { a: { provider: gitlab } }", "notify: []",
		"server: { log: { level: loud } }", "server: { dashboard: off }", "secrets: { a: b }", "secrets: { a: { value: b } }",
		stepText("run: x\nuses: y\n"), stepText("run: x\ndetach: true\n"), stepText("run: x\nretry: 3\n"),
		jobText("steps: [make]\n"), jobText("rollout: {}\nsteps: [ { run: x } ]\n"), jobText("env: { A-B: x }\nsteps: [ { run: x } ]\n"),
		jobText("secrets: { A: [x] }\nsteps: [ { run: x } ]\n"),
		pipelineText("depth: -1\nrepository: github.com/a/b\n"), pipelineText("depth: many\nrepository: github.com/a/b\n"),
	} {
		problemsOf(t, text)
		if len(againstSchema(t, text)) == 0 && !strings.Contains(text, "depth: -1") { // minimum is not part of the test's reader
			t.Errorf("the schema takes\n%s", text)
		}
	}
}

func TestSchemaOffersEveryKeyOfThisVersionAndNoOther(t *testing.T) {
	var schema map[string]any
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	for _, k := range table {
		at := schema
		for _, part := range strings.Split(strings.ReplaceAll(k.path, "[]", ".[]"), ".") {
			var next any
			switch part {
			case "*":
				next = at["additionalProperties"]
			case "[]":
				next = at["items"]
			default:
				props, _ := at["properties"].(map[string]any)
				next = props[part]
			}
			if at, _ = next.(map[string]any); at == nil {
				break
			}
		}
		if (at == nil) != k.later {
			t.Errorf("%s: in the schema %v, later %v", k.path, at != nil, k.later)
		}
		if at != nil && at["description"] == nil {
			t.Errorf("%s has no description", k.path)
		}
	}
}
