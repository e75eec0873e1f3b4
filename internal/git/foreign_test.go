package git

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"deployhook/internal/deploy"
)

func TestForeignRepositoryIsReadLooseAndPacked(t *testing.T) {
	dir := t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.com"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("init", "-q")
	for _, name := range []string{"a", "d/b"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run("add", "-A")
	run("commit", "-qm", "one")
	commit, tree := run("rev-parse", "HEAD"), run("rev-parse", "HEAD^{tree}")
	for _, packed := range []bool{false, true} {
		if packed {
			run("gc", "-q")
		}
		f, err := OpenForeign(dir)
		if err != nil {
			t.Fatal(err)
		}
		for digits, want := range map[string]string{
			commit[:7]: commit, commit[:8]: commit, commit[:39]: commit, commit: commit,
			commit[:6]: "", tree[:10]: "", "0000000": "", "xyzxyzx": "", "": "",
		} {
			if got := f.Full(digits); got != want {
				t.Errorf("packed %v: %q is commit %q, want %q", packed, digits, got, want)
			}
		}
		var paths []string
		err = f.List(t.Context(), commit, func(file deploy.TreeFile) error {
			paths = append(paths, file.Path)
			return nil
		})
		if err != nil || strings.Join(paths, " ") != "a d/b" {
			t.Errorf("packed %v: the files are %q, %v", packed, paths, err)
		}
		if err := f.List(t.Context(), tree, nil); err == nil {
			t.Error("a tree passed for a commit")
		}
		f.Close()
	}
	if _, err := OpenForeign(t.TempDir()); err == nil {
		t.Error("an empty directory passed for a repository")
	}
}
