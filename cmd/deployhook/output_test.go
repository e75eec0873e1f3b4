package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestTableFitsIntoEightyColumns(t *testing.T) {
	long := strings.Repeat("long-", 30)
	for name, rows := range map[string][][]string{
		"long last":   {{"RUN", "STATE", "WHAT"}, {"1", "failed", long}},
		"long middle": {{"RUN", "PIPELINE", "WHAT"}, {"1", long, "step two: exit status 3"}},
		"all long":    {{"A", "B", "C"}, {long, long, long}},
		"wide":        {{"RUN", "WHAT"}, {"1", strings.Repeat("部署", 60)}},
		"emoji":       {{"RUN", "PIPELINE", "WHAT"}, {"1", strings.Repeat("🚀", 40), strings.Repeat("🚀", 40)}},
	} {
		var b bytes.Buffer
		table(&b, func(s string) string { return s }, rows)
		for line := range strings.Lines(b.String()) {
			if n := width(strings.TrimRight(line, "\n")); n > tableWidth {
				t.Errorf("%s: a line has %d columns: %s", name, n, line)
			}
		}
		if !strings.Contains(b.String(), "…") {
			t.Errorf("%s: nothing says that a cell was cut:\n%s", name, b.String())
		}
	}
}

func TestTableCutsNothingThatFits(t *testing.T) {
	var b bytes.Buffer
	table(&b, func(s string) string { return "<" + s + ">" }, [][]string{{"RUN", "STATE", "WHAT"}, {"1", "失敗", "a"}, {"10", "ok", ""}})
	want := "<RUN>  <STATE>  WHAT\n<1>    <失敗>   a\n<10>   <ok>\n"
	if b.String() != want {
		t.Errorf("the table is\n%swant\n%s", b.String(), want)
	}
}

func TestJSONMovesNoCursor(t *testing.T) {
	in := "a && b <\u009b2J\u202e\x1b\x7f\u2028>"
	for _, indent := range []string{"", "  "} {
		out, err := encode(map[string]string{"message": in}, indent)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range strings.ReplaceAll(string(out), "\n", "") {
			if !printable(r) {
				t.Errorf("%q has %U", out, r)
			}
		}
		if !strings.Contains(string(out), "a && b <") {
			t.Errorf("%s: a reader cannot read it", out)
		}
		var back map[string]string
		if err := json.Unmarshal(out, &back); err != nil || back["message"] != in {
			t.Errorf("%s is read as %q, %v, want %q", out, back["message"], err, in)
		}
	}
}

func TestTimesReadAsPeopleSayThem(t *testing.T) {
	now := time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s ago", 0: "0s ago", 59 * time.Second: "59s ago", time.Minute: "1m ago", 90 * time.Minute: "1h ago",
		47 * time.Hour: "47h ago", 72 * time.Hour: "3d ago",
	} {
		if got := ago(now.Add(-d), now); got != want {
			t.Errorf("%v ago reads %q, want %q", d, got, want)
		}
	}
}

func TestPlainIsOneLine(t *testing.T) {
	s := "one\ttwo\x1b[2J\nthree"
	if got := plain(&s); got != "one two" {
		t.Errorf("plain(%q) = %q, want %q", s, got, "one two")
	}
	if got := plain(nil); got != "" {
		t.Errorf("plain(nil) = %q, want nothing", got)
	}
}
