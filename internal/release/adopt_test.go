package release

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"deployhook/internal/deploy"
)

const foreign = "20240102100000"

// foreignTree is a tree of another tool, with an absolute link.
func foreignTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range []string{"20240101100000", foreign} {
		if err := os.MkdirAll(filepath.Join(root, "releases", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(root, "releases", foreign), filepath.Join(root, "current")); err != nil {
		t.Fatal(err)
	}
	return root
}

func foreignLines() []deploy.ReleaseLine {
	commit := strings.Repeat("a", 40)
	return []deploy.ReleaseLine{
		{Release: "20240101100000", State: deploy.ReleaseLive, Commit: commit},
		{Release: foreign, State: deploy.ReleaseLive, Commit: commit},
	}
}

func TestAdoptedReleaseIsSwitchedFromAndPutBack(t *testing.T) {
	root := foreignTree(t)
	for n := range 2 {
		lines, err := Adopt(t.Context(), root, foreign, foreignLines(), nil)
		if err != nil || len(lines) != 2*(1-n) {
			t.Fatalf("time %d: %d lines, %v", n, len(lines), err)
		}
	}
	p := open(t, root)
	f, err := p.Found()
	if err != nil || f.Current != "releases/"+foreign {
		t.Fatalf("current is %q, %v", f.Current, err)
	}
	if before := p.Before(); before != filepath.Join(root, "releases", foreign) {
		t.Errorf("the release before is %q", before)
	}
	if err := p.Prepare(Spec{Release: "20240103100000"}); err == nil {
		t.Error("a release was made under a name that is another tool's")
	}
	if err := p.Prepare(Spec{Release: id(1), Commit: strings.Repeat("b", 40)}); err != nil {
		t.Fatal(err)
	}
	if err := p.Shared(); err != nil {
		t.Fatal(err)
	}
	if err := p.Prepared(); err != nil {
		t.Fatal(err)
	}
	if err := p.Activate(id(1), false); err != nil {
		t.Fatal(err)
	}
	if from, err := p.Undo(); err != nil || from != "releases/"+foreign {
		t.Errorf("undone to %q, %v", from, err)
	}
	if err := p.Undone(); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(filepath.Join(root, "current")); err != nil || target != "releases/"+foreign {
		t.Errorf("current points to %q, %v", target, err)
	}
	// What the journal does not tell of is neither linked nor removed.
	if err := os.Mkdir(filepath.Join(root, "releases", "stranger"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"stranger", "..", ".", "-rf", "a/b", ""} {
		if err := p.Activate(name, false); err == nil {
			t.Errorf("current was pointed to %q", name)
		}
		if err := p.remove(name); err == nil {
			t.Errorf("%q was removed", name)
		}
	}
	if removed, err := p.Prune(1, 0); err != nil || len(removed) != 1 || removed[0] != id(1) {
		t.Errorf("pruned %q, %v: the rollback target and current stay", removed, err)
	}
	if _, err := os.Stat(filepath.Join(root, "releases", "stranger")); err != nil {
		t.Error(err)
	}
}

func TestLinkThatLeadsToAReleaseInAnotherWayIsUnderstood(t *testing.T) {
	root := foreignTree(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]string{
		root + "/releases/" + foreign:               "releases/" + foreign,
		root + "/releases/" + foreign + "/":         "releases/" + foreign,
		link + "/releases/" + foreign:               "releases/" + foreign,
		"./releases/" + foreign:                     "releases/" + foreign,
		"releases/./" + foreign:                     "releases/" + foreign,
		"releases/" + id(1):                         "releases/" + id(1),
		"/nowhere/releases/" + foreign:              "/nowhere/releases/" + foreign,
		t.TempDir() + "/" + foreign:                 "",
		"releases/" + foreign + "/..":               "releases/" + foreign + "/..",
		root + "/releases/a b":                      root + "/releases/a b",
		"../" + filepath.Base(root) + "/releases/1": "releases/1",
	} {
		if want == "" {
			want = target
		}
		if got := newPath(root, Owner{}).relative(target); got != want {
			t.Errorf("%s is read as %s, want %s", target, got, want)
		}
	}
}

func TestAdoptRefusesWhatIsInUse(t *testing.T) {
	root := foreignTree(t)
	p := open(t, root)
	_, err := Adopt(t.Context(), root, foreign, foreignLines(), nil)
	if err == nil || !strings.Contains(err.Error(), "is in use by run 7 job deploy") {
		t.Errorf("while the path is in use: %v", err)
	}
	p.Close()
	if _, err := Adopt(t.Context(), root, "20240101100000", foreignLines(), nil); err == nil || !strings.Contains(err.Error(), "was pointed elsewhere just now") {
		t.Errorf("current points elsewhere: %v", err)
	}
	if err := os.WriteFile(filepath.Join(root, ".deployhook", "intent.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Adopt(t.Context(), root, foreign, foreignLines(), nil); err == nil || !strings.Contains(err.Error(), "a switch of deployhook is unfinished") {
		t.Errorf("an unfinished switch: %v", err)
	}
	bad := []deploy.ReleaseLine{{Release: "../x", State: deploy.ReleaseLive}}
	if _, err := Adopt(t.Context(), foreignTree(t), foreign, bad, nil); err == nil {
		t.Error("a name that is none was written")
	}
}

// TestKilledAdoptLeavesNothingHalf ends a process at each moment of an adopt;
// the next one finds all or nothing.
func TestKilledAdoptLeavesNothingHalf(t *testing.T) {
	if at := os.Getenv("ADOPT_KILLED_AT"); at != "" {
		Failpoint = func(name string) {
			if name == at {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
		}
		_, err := Adopt(context.Background(), os.Getenv("ADOPT_ROOT"), foreign, foreignLines(), nil)
		fmt.Println("it was not killed:", err)
		return
	}
	for _, point := range []string{"adopt-made", "adopt-locked", "temporary-file", "adopt-written"} {
		root := foreignTree(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^TestKilledAdoptLeavesNothingHalf$")
		cmd.Env = append(os.Environ(), "ADOPT_KILLED_AT="+point, "ADOPT_ROOT="+root)
		out, err := cmd.CombinedOutput()
		cancel()
		if err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("%s: %v\n%s", point, err, out)
		}
		f, err := Look(root)
		if err != nil || f.Current != "releases/"+foreign || len(f.Lines) != 0 && len(f.Lines) != 2 {
			t.Errorf("%s: %+v, %v", point, f, err)
		}
		if _, err := Adopt(t.Context(), root, foreign, foreignLines(), nil); err != nil {
			t.Errorf("%s: the next one: %v", point, err)
		}
		if f, err = Look(root); err != nil || len(f.Lines) != 2 {
			t.Errorf("%s: the next one left %+v, %v", point, f, err)
		}
		if left, _ := filepath.Glob(filepath.Join(root, ".deployhook", tempPrefix+"*")); len(left) > 0 {
			t.Errorf("%s: %q are left", point, left)
		}
	}
}

func TestAdoptOnAFullOrReadOnlyDiskSaysSo(t *testing.T) {
	root := small(t, "size=64k")
	if err := os.MkdirAll(filepath.Join(root, "releases", foreign), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("releases/"+foreign, filepath.Join(root, "current")); err != nil {
		t.Fatal(err)
	}
	full, err := os.Create(filepath.Join(root, "full"))
	if err != nil {
		t.Fatal(err)
	}
	for b := make([]byte, 4096); err == nil; {
		_, err = full.Write(b)
	}
	full.Close()
	if _, err := Adopt(t.Context(), root, foreign, foreignLines(), nil); err == nil || err.Error() != "no space left in "+root {
		t.Errorf("on a full disk: %v", err)
	}
	if f, err := Look(root); err != nil || len(f.Lines) > 0 {
		t.Errorf("on a full disk half was written: %+v, %v", f, err)
	}
	if err := os.Remove(full.Name()); err != nil {
		t.Fatal(err)
	}
	if lines, err := Adopt(t.Context(), root, foreign, foreignLines(), nil); err != nil || len(lines) != 2 {
		t.Errorf("with room again: %d lines, %v", len(lines), err)
	}
	if err := os.RemoveAll(filepath.Join(root, ".deployhook")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("", root, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := Adopt(t.Context(), root, foreign, foreignLines(), nil); err == nil || err.Error() != "the release path "+root+" is on a read-only file system" {
		t.Errorf("on a read-only one: %v", err)
	}
}
