package config

import (
	"encoding/json"
	"strings"
)

// Schema is the JSON schema of deploy.yaml, for editors, made from the table.
// Keys whose part comes later are not in it.
func Schema() []byte {
	s := schemaOf(root)
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "deploy.yaml of deployhook"
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(err) // the table is part of this program
	}
	return append(b, '\n')
}

// Forms of a user's names, as in [validName] and [validVariable].
const (
	namePattern     = `^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`
	variablePattern = `^[A-Za-z_][A-Za-z0-9_]{0,127}$`
)

// durationPattern is the form of 90s, 30m and 1h30m.
const durationPattern = `^([0-9]*\.?[0-9]+(ns|us|ms|s|m|h))+$`

// defaultOf is a default as JSON has it: editors write it into the file.
func defaultOf(p *place) any {
	switch p.kind {
	case number, decimal, boolean:
		return json.RawMessage(p.def)
	}
	return p.def
}

// scalars are what YAML may make of a text that stands without quotes.
var scalars = []string{"string", "number", "boolean"}

func schemaOf(p *place) map[string]any {
	s := map[string]any{}
	if p.doc != "" {
		s["description"] = strings.ReplaceAll(p.doc, "`", "")
	}
	if p.def != "" && p.def[0] != '(' {
		s["default"] = defaultOf(p)
	}
	aSecret := map[string]any{"anyOf": []any{
		map[string]any{"type": "string"}, map[string]any{"$ref": "#/properties/secrets/additionalProperties"},
	}}
	switch p.kind {
	case section:
		schemaKeys(s, p, "object")
	case mayBeEmpty:
		schemaKeys(s, p, "object", "null")
	case textOrMap:
		schemaKeys(s, p, "object", "string")
	case names:
		s["type"], s["propertyNames"] = "object", map[string]any{"pattern": namePattern}
		s["additionalProperties"] = schemaOf(p.any)
		if p.path != "pipelines.*.jobs" {
			takeOver(s, namePattern)
		}
	case variables:
		takeOver(s, variablePattern)
		s["type"] = "object"
		s["additionalProperties"] = map[string]any{"type": append([]string{"null"}, scalars...)}
	case secretMap:
		takeOver(s, variablePattern)
		s["type"] = "object"
		s["additionalProperties"] = aSecret
	case secret, keyFile:
		s["anyOf"] = aSecret["anyOf"]
	case secretList:
		s["anyOf"] = append([]any{map[string]any{"type": "array", "items": aSecret, "minItems": 1, "maxItems": secretsMost}}, aSecret["anyOf"].([]any)...)
	case sections:
		s["type"] = "array"
		item := map[string]any{}
		schemaKeys(item, p.item, "object")
		s["items"] = item
	case texts:
		s["type"] = append([]string{"array"}, scalars...)
		s["items"] = map[string]any{"type": scalars}
	case number:
		s["type"] = "integer"
		s["minimum"], s["maximum"] = ranges[p.path][0], ranges[p.path][1]
	case decimal:
		s["type"] = "number"
	case boolean:
		s["type"] = "boolean"
	case duration:
		s["type"], s["pattern"] = "string", durationPattern
	default:
		if len(p.allowed) > 0 {
			s["enum"] = p.allowed
		} else {
			s["type"] = scalars
		}
		if p.kind == line && len(p.allowed) == 0 {
			s["minLength"] = 1
		}
	}
	if p.path == "pipelines.*.on" { // GitHub's short forms
		s["type"], s["items"] = []string{"object", "string", "array"}, map[string]any{"type": "string"}
	}
	return s
}

// takeOver lets << stand among names of the user's: editors see it as a key.
func takeOver(s map[string]any, pattern string) {
	s["propertyNames"] = map[string]any{"pattern": pattern + "|^<<$"}
	s["patternProperties"] = map[string]any{"^<<$": map[string]any{}}
}

// schemaKeys describes the keys of a section. With - for _ they are accepted
// too, but not offered.
func schemaKeys(s map[string]any, p *place, types ...string) {
	props := map[string]any{}
	patterns := map[string]any{"^x-": map[string]any{}, "^<<$": map[string]any{}}
	for _, name := range p.order {
		c := p.children[name]
		if c.later {
			continue
		}
		props[name] = schemaOf(c)
		if dashed := strings.ReplaceAll(name, "_", "-"); dashed != name {
			patterns["^"+dashed+"$"] = props[name]
		}
	}
	s["type"], s["properties"], s["additionalProperties"], s["patternProperties"] = types, props, false, patterns
	if len(types) == 1 {
		s["type"] = types[0]
	}
}
