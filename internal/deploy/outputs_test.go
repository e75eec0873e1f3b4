package deploy_test

import (
	"maps"
	"strings"
	"testing"

	"deployhook/internal/deploy"
)

func TestOutputsAreLinesAndBlocks(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"":                                {},
		"\n \n":                           {},
		"a=1":                             {"a": "1"},
		"a=1\nb=2\n":                      {"a": "1", "b": "2"},
		"a=1\n\na=2\n":                    {"a": "2"},
		"a=":                              {"a": ""},
		"a= x = y ":                       {"a": " x = y "},
		"a=b<<c\n":                        {"a": "b<<c"},
		"a<<E\nE\n":                       {"a": ""},
		"a<<E\nx=1\n\n y\nE\nb=2\n":       {"a": "x=1\n\n y", "b": "2"},
		"a<<=\n1\n=\n":                    {"a": "1"},
		"_A-9=ü\n":                        {"_A-9": "ü"},
		strings.Repeat("n", 128) + "=1\n": {strings.Repeat("n", 128): "1"},
	} {
		if got, err := deploy.ParseOutputs([]byte(text)); err != nil || !maps.Equal(got, want) {
			t.Errorf("%q gives %q, %v, want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"a=1\nb":                           "line 2 of $DEPLOYHOOK_OUTPUT is not KEY=value",
		"=1":                               "line 1 of $DEPLOYHOOK_OUTPUT is not KEY=value: a name begins",
		"1a=1":                             "line 1 ",
		"a b=1":                            "line 1 ",
		" a=1":                             "line 1 ",
		"a.b=1":                            "line 1 ",
		"\n\na<<":                          "line 3 of $DEPLOYHOOK_OUTPUT begins a block and has no word behind <<",
		"a<<E\nx\nE ":                      "line 1 of $DEPLOYHOOK_OUTPUT begins a block that no line ends",
		"<<E\nE\n":                         "line 1 ",
		"a=\x00":                           "has a NUL byte",
		"a=\xff":                           "is not UTF-8",
		strings.Repeat("n", 129) + "=1\n":  "line 1 ",
		"a=" + strings.Repeat("x", 64<<10): "are over 64 KiB",
	} {
		got, err := deploy.ParseOutputs([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || got != nil {
			t.Errorf("%.20q gives %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestOutputsOfAJobAreBoundedOverItsStepsAndHosts(t *testing.T) {
	sizes := deploy.OutputSizes{}
	half := map[string]string{"a": strings.Repeat("x", 40<<10)}
	for range 3 { // the same name from several hosts is one output
		if err := sizes.Add(half); err != nil {
			t.Fatal(err)
		}
	}
	if err := sizes.Add(map[string]string{"b": strings.Repeat("x", 40<<10)}); err == nil || !strings.Contains(err.Error(), "64 KiB") {
		t.Errorf("80 KiB of outputs: %v", err)
	}
	sizes = deploy.OutputSizes{}
	for i := range 64 {
		if err := sizes.Add(map[string]string{strings.Repeat("n", i+1): ""}); err != nil {
			t.Fatal(err)
		}
	}
	if err := sizes.Add(map[string]string{"one-more": ""}); err == nil || !strings.Contains(err.Error(), "more than 64 outputs") {
		t.Errorf("65 outputs: %v", err)
	}
}

func FuzzParseOutputs(f *testing.F) {
	for _, seed := range []string{"a=1\nb=2\n", "a<<E\nx\nE\nb=", "a<<\n", "=\n", "\xff", "a=\x00", "a<<=\n=\n=", "a<<E\r\nE\r\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		outputs, err := deploy.ParseOutputs(text)
		if err != nil {
			if len(err.Error()) > 300 || strings.ContainsAny(err.Error(), "\n\x00") || outputs != nil {
				t.Fatalf("%q beside %q", outputs, err)
			}
			return
		}
		total := 0
		for name, value := range outputs {
			total += len(name) + len(value)
			if name == "" || strings.ContainsAny(name, "= \n<\x00") || strings.Contains(value, "\x00") {
				t.Fatalf("%q = %q", name, value)
			}
		}
		if total > len(text) || len(outputs) > deploy.OutputsMost {
			t.Fatalf("%d outputs of %d bytes from %d", len(outputs), total, len(text))
		}
		// Written as lines where they can be, they come back.
		var again strings.Builder
		for name, value := range outputs {
			if !strings.Contains(value, "\n") {
				again.WriteString(name + "=" + value + "\n")
			}
		}
		back, err := deploy.ParseOutputs([]byte(again.String()))
		if err != nil && again.Len() <= deploy.OutputsBytes {
			t.Fatalf("%q: %v", again.String(), err)
		}
		for name, value := range back {
			if outputs[name] != value {
				t.Fatalf("%s was %q and is %q", name, outputs[name], value)
			}
		}
	})
}
