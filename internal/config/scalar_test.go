package config

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestScalarNeedsNoMoreQuotesThanItMust(t *testing.T) {
	for text, want := range map[string]string{
		"npm ci && npm test": "npm ci && npm test", "/srv/shop": "/srv/shop", "release/**": "release/**", "https://deploy.example.com": "https://deploy.example.com",
		"": `""`, "yes": `"yes"`, "1.10": `"1.10"`, "a: b": `"a: b"`, "a # b": `"a # b"`, "[main]": `"[main]"`, "~": `"~"`, "a\nb": `"a\nb"`, `say "x"`: `"say \"x\""`,
	} {
		if got := Scalar(text); got != want {
			t.Errorf("%q is written %s, want %s", text, got, want)
		}
	}
}

func FuzzScalar(f *testing.F) {
	for _, text := range []string{"npm test", "a: b", "- x", "é\u2028\u0085", "\x00\x07\x7f", "{}", "x:", "<<", "=", "!t", "😀", `\`, "'"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			return // no config can have it
		}
		tree, err := parseTree([]byte("a: { b: [" + Scalar(text) + "], c: " + Scalar(text) + " }\nd: " + Scalar(text) + "\n"))
		if err != nil {
			t.Fatalf("%q as %s: %v", text, Scalar(text), err)
		}
		inner := tree.entries[0].value
		for where, v := range map[string]*value{"below": tree.entries[1].value, "in brackets": inner.entries[0].value.list[0], "in braces": inner.entries[1].value} {
			if v.text != text || !v.scalar {
				t.Errorf("%q %s comes back as %q", text, where, v.text)
			}
		}
	})
}
