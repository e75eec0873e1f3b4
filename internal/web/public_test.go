package web

import (
	"errors"
	"strings"
	"testing"

	"deployhook/internal/deploy"
)

func FuzzRunRequest(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"branch": "main"}`, `{"sha": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "inputs": {"a": 1.10, "b": true, "c": "x"}}`, `{"inputs": {"a": null}}`,
		`{"inputs": {"a": [1]}}`, `{"branch": "\u001b[2J"}`, `{"branch": 1}`, `{}{}`, ``, `[`, "\xff", `{"force": true}`, `{"inputs": {"a": 1e999999}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := parseRunRequest(body)
		if err != nil {
			if !errors.Is(err, deploy.ErrMisuse) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%q", err)
			}
			return
		}
		if c.Force || c.Actor != "" || c.Pipeline != "" || c.Once != nil || c.Branch != "" && c.SHA != "" || len(c.Branch) > refMost ||
			c.SHA != "" && !deploy.ValidCommit(c.SHA) || strings.ContainsAny(c.Branch, "\x00\x1b\n ") {
			t.Fatalf("%q asks for %+v", body, c)
		}
	})
}

func TestInputsKeepTheirText(t *testing.T) {
	c, err := parseRunRequest([]byte(`{"inputs": {"a": 1.10, "b": 12345678901234567890, "c": false, "d": "1.10"}}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "1.10", "b": "12345678901234567890", "c": "false", "d": "1.10"} {
		if got := c.Inputs[name]; got != want {
			t.Errorf("input %s is %q, want %q", name, got, want)
		}
	}
}
