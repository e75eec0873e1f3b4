package deploy

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// cell is the first cell of a row of a table, when it is one piece of code.
var cell = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")

func TestExpressionsInDocsAreGood(t *testing.T) {
	page, err := os.ReadFile("../../docs/expressions.md")
	if err != nil {
		t.Fatal(err)
	}
	_, written, ok := strings.Cut(string(page), "## What can be written")
	rows := cell.FindAllStringSubmatch(written, -1)
	if !ok || len(rows) < 5 {
		t.Fatalf("there are %d expressions", len(rows))
	}
	for _, m := range rows {
		e, err := CompileExpr(m[1])
		if err != nil {
			t.Errorf("%s: %v", m[1], err)
			continue
		}
		if _, why := e.Eval(&Scope{Event: &Event{Branch: "main"}}); why != "" {
			t.Errorf("%s: without a payload: %s", m[1], why)
		}
	}
	for _, name := range append(append([]string{}, exprNames...), exprFunctions...) {
		if !strings.Contains(string(page), "`"+name) {
			t.Errorf("%s is not there", name)
		}
	}
	for name := range functions {
		if !strings.Contains(written, "`"+name) && !strings.Contains(written, "`"+name+"(") {
			t.Errorf("%s is not there", name)
		}
	}
}
