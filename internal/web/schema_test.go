package web

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"deployhook/internal/deploy"
)

var update = flag.Bool("update", false, "write the schema of webhooks anew")

// schemaVersion is in the name of the file and in its $id. A field that is
// added keeps it; one that goes, or means something else, does not.
const schemaVersion = "v1"

// schemaOf is the JSON schema of a type of views.go.
func schemaOf(t reflect.Type) map[string]any {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case t.Kind() == reflect.Pointer:
		s := schemaOf(t.Elem())
		s["type"] = []any{s["type"], "null"}
		return s
	case t.Kind() == reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem())}
	case t.Kind() == reflect.Struct:
		properties, required := map[string]any{}, []any{}
		for i := range t.NumField() {
			name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			properties[name] = schemaOf(t.Field(i).Type)
			if !strings.Contains(options, "omit") {
				required = append(required, name)
			}
		}
		return map[string]any{"type": "object", "properties": properties, "required": required}
	case t.Kind() == reflect.String:
		return map[string]any{"type": "string"}
	case t.Kind() == reflect.Bool:
		return map[string]any{"type": "boolean"}
	}
	return map[string]any{"type": "integer"}
}

func webhookSchema(t *testing.T) []byte {
	t.Helper()
	data := schemaOf(reflect.TypeFor[Run]())
	var states []any
	for _, s := range States {
		states = append(states, s)
	}
	data["properties"].(map[string]any)["state"].(map[string]any)["enum"] = states
	var types []any
	for _, s := range append(states, string(deploy.Recovered), string(deploy.Superseded), string(deploy.RolledBack), string(deploy.NeedsApproval)) {
		types = append(types, "run."+s.(string))
	}
	b, err := json.MarshalIndent(map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:deployhook:webhook:" + schemaVersion,
		"title": "The body of a webhook about a run", "type": "object", "required": []any{"type", "timestamp", "data"},
		"properties": map[string]any{
			"type": map[string]any{"type": "string", "enum": types}, "timestamp": map[string]any{"type": "string", "format": "date-time"}, "data": data,
		},
	}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

func TestPublishedSchemaIsThatOfWebhooks(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "webhook-"+schemaVersion+".schema.json")
	want := webhookSchema(t)
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what the program sends (%v): go test ./internal/web -run Schema -update", path, err)
	}
}
