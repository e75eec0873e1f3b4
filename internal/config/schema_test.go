package config

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// againstSchema holds a text against the schema as an editor does: read by a
// reader of YAML that knows nothing of ours, and with a validator of its own.
func againstSchema(t *testing.T, text string) []string {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	if err := compiler.AddResource("deploy.schema.json", schema); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile("deploy.schema.json") // holds it against its own schema too
	if err != nil {
		t.Fatal(err)
	}
	b, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if err := compiled.Validate(instance); err != nil {
		return strings.Split(err.Error(), "\n")
	}
	return nil
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

// TestSchemaTakesMergeKeysAsTheyStand is for editors that leave << where it is.
func TestSchemaTakesMergeKeysAsTheyStand(t *testing.T) {
	for _, text := range []string{
		"env: { '<<': { A: b }, B: c }", "pipelines: { '<<': {}, p: { '<<': {}, jobs: { j: { '<<': {}, secrets: { '<<': {} }, steps: [ { '<<': {}, run: x } ] } } } }",
	} {
		if p := againstSchema(t, text); len(p) > 0 {
			t.Errorf("the schema refuses\n%s\n%s", text, strings.Join(p, "\n"))
		}
	}
	if p := againstSchema(t, "pipelines: { p: { jobs: { '<<': {} } } }"); len(p) == 0 {
		t.Error("the schema takes << among jobs")
	}
}

func TestSchemaRefusesWhatTheReaderRefuses(t *testing.T) {
	for _, text := range []string{
		"hoks: {}", "hooks: []", "hooks: { 'a b': {} }", "hooks: { a: { provider: gitlob } }", "notify: []",
		"server: { log: { level: loud } }", "server: { dashboard: off }", "secrets: { a: b }", "secrets: { a: { value: b } }",
		stepText("run: x\nuses: y\n"), stepText("run: x\ndetach: true\n"), stepText("run: x\nretry: 3\n"),
		jobText("steps: [make]\n"), jobText("rollout: {}\nsteps: [ { run: x } ]\n"), jobText("env: { A-B: x }\nsteps: [ { run: x } ]\n"),
		jobText("secrets: { A: [x] }\nsteps: [ { run: x } ]\n"),
		stepText("run: x\ntimeout: 5\n"), stepText("run: x\ntimeout: soon\n"), stepText("run: x\nretry: { limit: 101 }\n"), "server: { workers: 0 }", "server: { listen: '' }",
		pipelineText("depth: -1\nrepository: github.com/a/b\n"), pipelineText("depth: many\nrepository: github.com/a/b\n"),
	} {
		problemsOf(t, text)
		if len(againstSchema(t, text)) == 0 {
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
