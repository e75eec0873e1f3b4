package daemon

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"deployhook/internal/config"
)

func TestLogInJSONHasUnits(t *testing.T) {
	var b bytes.Buffer
	logger(&b, config.Server{LogLevel: "info", LogFormat: "json"}).Info("job finished", "run", int64(7), "took", 1500*time.Millisecond)
	var line map[string]any
	if err := json.Unmarshal(b.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if line["took"] != "1.5s" || line["run"] != 7.0 || line["msg"] != "job finished" || line["level"] != "INFO" {
		t.Errorf("the line is %s", b.String())
	}
}

// synonyms are keys under which the facts of a log line must not stand, with
// the key that they have.
var synonyms = map[string]string{
	"error": "err", "duration": "took", "elapsed": "took", "sha": "commit", "repository": "repo", "branch": "ref", "status_code": "status",
	"id": "delivery or run", "run_id": "run", "delivery_id": "delivery", "job_id": "job", "name": "what it is the name of",
}

// Who searches the log for a run finds all of it: the same fact has the same
// key everywhere, and messages are fixed.
func TestLogLinesHaveFixedMessagesAndKeys(t *testing.T) {
	lines := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "storetest") {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains([]string{"Debug", "Info", "Warn", "Error"}, sel.Sel.Name) {
				return true
			}
			if !isLog(sel.X) {
				return true
			}
			lines++
			at := set.Position(call.Pos())
			message, ok := text(call.Args[0])
			if !ok || message == "" || strings.ToLower(message[:1]) != message[:1] || strings.HasSuffix(message, ".") {
				t.Errorf("%s: the message is no fixed text in lower case", at)
			}
			if call.Ellipsis.IsValid() {
				return true
			}
			for i := 1; i < len(call.Args); i += 2 {
				key, ok := text(call.Args[i])
				if !ok || i+1 == len(call.Args) {
					t.Errorf("%s: attribute %d is no key with a value", at, i)
				}
				if better := synonyms[key]; better != "" {
					t.Errorf("%s: the key of %s is %s", at, key, better)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if lines < 20 {
		t.Errorf("only %d log lines were found", lines)
	}
}

// isLog says whether an expression is a logger: log, x.log, x.o.Log.
func isLog(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return strings.EqualFold(e.Name, "log")
	case *ast.SelectorExpr:
		return strings.EqualFold(e.Sel.Name, "log")
	}
	return false
}

func text(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}
