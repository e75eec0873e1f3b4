// Package internal has the test that keeps the house's map true.
package internal

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// may says which packages of ours each package may import, tests aside.
var may = map[string][]string{
	"internal/deploy":     {},
	"internal/config":     {"internal/deploy"},
	"internal/receiver":   {"internal/deploy"},
	"internal/git":        {"internal/deploy"},
	"internal/store":      {"internal/deploy"},
	"internal/web":        {"internal/deploy"},
	"internal/notify":     {"internal/deploy"},
	"internal/release":    {"internal/deploy"},
	"internal/adopt":      {"internal/release", "internal/git", "internal/config", "internal/deploy"},
	"internal/agent/wire": {"internal/deploy"},
	"internal/agent":      {"internal/agent/wire", "internal/release", "internal/deploy"},
	"internal/host":       {"internal/agent/wire", "internal/deploy"},
	"internal/pipeline":   {"internal/host", "internal/git", "internal/deploy"},
	"internal/daemon": {
		"internal/config", "internal/receiver", "internal/pipeline", "internal/store", "internal/web", "internal/host",
		"internal/git", "internal/notify", "internal/deploy",
	},
	"internal/doctor":          {"internal/config", "internal/git", "internal/web", "internal/deploy", "systemd"},
	"internal/store/storetest": {"internal/deploy"},
	"internal/host/hosttest":   {"internal/deploy"},
	"internal/setup":           {"internal/config", "internal/deploy"},
	"cmd/deployhook": {
		"internal/daemon", "internal/config", "internal/web", "internal/agent", "internal/setup", "internal/adopt", "internal/doctor",
		"internal/deploy", "systemd",
	},
	"demo":                     {},
	"examples/course-platform": {},
	"bench":                    {"internal/git", "internal/deploy"},
	"internal":                 {},
	"packaging":                {},
	"systemd":                  {},
}

// files parses every Go file of the project.
func files(t *testing.T, fn func(dir, name string, f *ast.File)) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != ".." || d.Name() == "testdata" || d.Name() == "build") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err == nil {
			rel := strings.TrimPrefix(filepath.ToSlash(path), "../")
			fn(filepath.ToSlash(filepath.Dir(rel)), rel, f)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func imports(f *ast.File) []string {
	var list []string
	for _, i := range f.Imports {
		list = append(list, strings.Trim(i.Path.Value, `"`))
	}
	return list
}

func TestPackagesImportOnlyWhatTheMapAllows(t *testing.T) {
	seen := map[string]bool{}
	files(t, func(dir, name string, f *ast.File) {
		allowed, ok := may[dir]
		if !ok {
			t.Errorf("%s: package %s is not on the map", name, dir)
		}
		seen[dir] = true
		if slices.Contains([]string{"utils", "util", "common", "models", "manager", "helpers"}, f.Name.Name) {
			t.Errorf("%s: a package is not called %s", name, f.Name.Name)
		}
		if strings.HasSuffix(name, "_test.go") {
			return
		}
		for _, path := range imports(f) {
			ours, isOurs := strings.CutPrefix(path, "deployhook/")
			if isOurs && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s, which the map does not allow", name, ours)
			}
		}
	})
	if len(seen) < 12 {
		t.Errorf("only %d packages were found", len(seen))
	}
}

func TestDeployIsPure(t *testing.T) {
	files(t, func(dir, name string, f *ast.File) {
		if dir != "internal/deploy" || strings.HasSuffix(name, "_test.go") {
			return
		}
		for _, path := range imports(f) {
			if slices.Contains([]string{"os", "net", "net/http", "database/sql", "os/exec", "io/fs", "path/filepath", "context"}, path) {
				t.Errorf("%s imports %s: package deploy knows no files, no network and no database", name, path)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" && (s.Sel.Name == "Now" || s.Sel.Name == "Sleep" || s.Sel.Name == "Since") {
					t.Errorf("%s calls time.%s: package deploy has no clock of its own", name, s.Sel.Name)
				}
			}
			return true
		})
	})
}

func TestOnlyStoreKnowsSQL(t *testing.T) {
	files(t, func(dir, name string, f *ast.File) {
		for _, path := range imports(f) {
			if (path == "database/sql" || strings.HasPrefix(path, "modernc.org/sqlite")) && !strings.HasPrefix(dir, "internal/store") && !strings.HasPrefix(dir, "examples/") {
				t.Errorf("%s imports %s: the only SQL of ours is in internal/store", name, path)
			}
		}
	})
}
