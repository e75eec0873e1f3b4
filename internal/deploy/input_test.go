package deploy

import (
	"errors"
	"maps"
	"strings"
	"testing"
)

func withInputs() *Pipeline {
	text := func(s string) *string { return &s }
	return &Pipeline{Name: "shop", On: Triggers{Inputs: []Input{
		{Name: "target", Type: ChoiceInput, Options: []string{"staging", "production"}, Required: true},
		{Name: "count", Type: NumberInput, Default: text("3")},
		{Name: "dry", Type: BooleanInput, Default: text("false")},
		{Name: "note", Type: StringInput},
	}}}
}

func TestInputsAreAsDeclaredOrRefused(t *testing.T) {
	for _, tt := range []struct {
		given map[string]string
		want  map[string]string
		err   string
	}{
		{map[string]string{"target": "staging"}, map[string]string{"target": "staging", "count": "3", "dry": "false"}, ""},
		{map[string]string{"target": "production", "count": "-1.5", "dry": "true", "note": ""},
			map[string]string{"target": "production", "count": "-1.5", "dry": "true", "note": ""}, ""},
		{nil, nil, "input target of shop is missing"},
		{map[string]string{"target": "live"}, nil, `input target is one of staging, production, not "live"`},
		{map[string]string{"target": "staging", "count": "many"}, nil, `input count is a number, not "many"`},
		{map[string]string{"target": "staging", "count": "NaN"}, nil, "is a number"},
		{map[string]string{"target": "staging", "count": "0x10"}, nil, "is a number"},
		{map[string]string{"target": "staging", "count": "1e999"}, nil, "is a number"},
		{map[string]string{"target": "staging", "dry": "yes"}, nil, `input dry is true or false, not "yes"`},
		{map[string]string{"target": "staging", "nope": "1", "also": "2"}, nil, `shop declares no input "also": it has target, count, dry, note`},
		{map[string]string{"target": "staging", "note": strings.Repeat("x", 70_000)}, nil, "input note is over 64 KiB"},
		{map[string]string{"target": "staging", "note": "a\x00b"}, nil, "has a NUL byte"},
	} {
		got, err := CheckInputs(withInputs(), tt.given)
		if tt.err == "" && (err != nil || !maps.Equal(got, tt.want)) {
			t.Errorf("%v gives %v, %v; want %v", tt.given, got, err, tt.want)
		}
		if tt.err != "" && (!errors.Is(err, ErrMisuse) || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%.80v gives %v, want %q", tt.given, err, tt.err)
		}
	}
	if _, err := CheckInputs(&Pipeline{Name: "plain"}, map[string]string{"a": "b"}); !errors.Is(err, ErrMisuse) || !strings.Contains(err.Error(), "plain declares no inputs") {
		t.Errorf("without on.manual: %v", err)
	}
	if got, err := CheckInputs(&Pipeline{Name: "plain"}, nil); err != nil || len(got) > 0 {
		t.Errorf("nothing is given: %v, %v", got, err)
	}
}

func TestInputsHaveTheirTypeInExpressions(t *testing.T) {
	s := &Scope{Inputs: TypedInputs(withInputs(), map[string]string{"target": "staging", "count": "3", "dry": "false", "old": "x"})}
	for _, src := range []string{`inputs.count + 1 == 4`, `!inputs.dry`, `inputs.target == "staging"`, `inputs.note == nil`, `inputs.old == "x"`} {
		e, err := CompileExpr(src)
		if err != nil {
			t.Fatal(err)
		}
		if ok, why := e.Eval(s); !ok {
			t.Errorf("%s is false: %s", src, why)
		}
	}
	tmpl, err := CompileTemplate("${{ inputs.count }} ${{ inputs.dry }} ${{ inputs.note }}")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tmpl.Expand(s); got != "3 false " || err != nil {
		t.Errorf("expands to %q, %v", got, err)
	}
}
