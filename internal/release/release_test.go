package release

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deployhook/internal/deploy"
)

var me = Owner{Daemon: "me", Run: 7, Job: "deploy", Attempt: 1}

func open(t *testing.T, root string) *Path {
	t.Helper()
	p, err := Open(t.Context(), root, me)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func id(n int) string {
	return deploy.ReleaseID(time.Date(2026, 4, 1, 10, 15, n, 0, time.UTC), strings.Repeat("3f2c1ab", 6), 1)
}

// commitOf is a commit that a release's name can be of.
func commitOf(id string) string { return fmt.Sprintf("%x", sha1.Sum([]byte(id))) }

// publish makes a release live.
func publish(t *testing.T, p *Path, id string) {
	t.Helper()
	if err := p.Prepare(Spec{Release: id, Commit: commitOf(id)}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Shared(), p.Prepared(), p.Activate(id, false), p.Live()); err != nil {
		t.Fatal(err)
	}
}

func current(t *testing.T, root string) string {
	t.Helper()
	target, err := os.Readlink(filepath.Join(root, "current"))
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func TestCurrentIsARelativeLink(t *testing.T) {
	root := t.TempDir()
	p := open(t, root)
	publish(t, p, id(1))
	publish(t, p, id(2))
	if got := current(t, root); got != "releases/"+id(2) {
		t.Errorf("current points to %s", got)
	}
	f, err := p.Found()
	if err != nil || f.Intent != nil || len(f.Lines) != 6 || f.Lines[5].State != deploy.ReleaseLive || f.Lines[5].Run != 7 {
		t.Errorf("found %+v, %v", f, err)
	}
	if from, err := p.Undo(); err == nil {
		t.Errorf("an undo without a switch went to %q", from)
	}
}

func TestUndoGoesBackAndRemovesTheFirst(t *testing.T) {
	root := t.TempDir()
	p := open(t, root)
	if err := errors.Join(p.Prepare(Spec{Release: id(1)}), p.Prepared(), p.Activate(id(1), false)); err != nil {
		t.Fatal(err)
	}
	if from, err := p.Undo(); from != "" || err != nil {
		t.Errorf("the undo went to %q, %v", from, err)
	}
	if _, err := os.Lstat(filepath.Join(root, "current")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("current is there: %v", err)
	}
	if err := p.Undone(); err != nil {
		t.Fatal(err)
	}
	publish(t, p, id(2))
	if err := errors.Join(p.Prepare(Spec{Release: id(3)}), p.Prepared(), p.Activate(id(3), false)); err != nil {
		t.Fatal(err)
	}
	if from, err := p.Undo(); from != "releases/"+id(2) || err != nil || current(t, root) != from {
		t.Errorf("the undo went to %q, %v", from, err)
	}
}

func TestWhatIsInTheWayIsNamedAndNotTouched(t *testing.T) {
	for name, tt := range map[string]struct {
		make func(root string) error
		want string
	}{
		"current is a directory": {func(r string) error { return os.MkdirAll(filepath.Join(r, "current", "x"), 0o755) }, "current is a directory, not a link to a release: move it away first"},
		"current is a file":      {func(r string) error { return os.WriteFile(filepath.Join(r, "current"), []byte("x"), 0o644) }, "current is a file"},
		"a foreign link":         {func(r string) error { return os.Symlink("/etc", filepath.Join(r, "current")) }, "which is no release"},
	} {
		root := t.TempDir()
		if err := tt.make(root); err != nil {
			t.Fatal(err)
		}
		before, _ := os.Lstat(filepath.Join(root, "current"))
		p, err := Open(t.Context(), root, me)
		if err == nil {
			_, err = p.Found()
			if err == nil {
				err = p.Prepare(Spec{Release: id(1)})
			}
			if err == nil {
				err = p.Activate(id(1), false)
			}
			p.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if after, err := os.Lstat(filepath.Join(root, "current")); err != nil || after.Mode() != before.Mode() {
			t.Errorf("%s: it was changed", name)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), filepath.Join(file, "x"), me); err == nil {
		t.Error("a release path below a file was opened")
	}
}

func TestLeftoversOfACrashDoNoHarm(t *testing.T) {
	root := t.TempDir()
	p := open(t, root)
	publish(t, p, id(1))
	// A link and a torn line, as a crash between two steps leaves them.
	if err := os.Symlink("releases/"+id(1), filepath.Join(root, ".current-0123456789abcdef")); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(p.file("releases.ndjson"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"release":"2026`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	// Names that another tool may have left.
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "releases", id(2)), 0o755), os.WriteFile(filepath.Join(root, "releases", id(2), "keep"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	p.Close()
	q := open(t, root)
	if err := q.Prepare(Spec{Release: id(2)}); !errors.Is(err, ErrExists) {
		t.Errorf("a release of that name: %v, want %v", err, ErrExists)
	}
	publish(t, q, id(3))
	if current(t, root) != "releases/"+id(3) {
		t.Errorf("current points to %s", current(t, root))
	}
	if list, _ := filepath.Glob(filepath.Join(root, ".current-*")); len(list) > 0 {
		t.Errorf("%v is still there", list)
	}
	if err := q.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "releases", id(2), "keep")); err != nil {
		t.Errorf("what is not ours was removed: %v", err)
	}
	found, err := q.Found()
	if err != nil || len(found.Lines) != 6 {
		t.Errorf("the journal has %d lines, %v", len(found.Lines), err)
	}
}

func TestSweepRemovesOnlyWhatWasNeverWhole(t *testing.T) {
	root := t.TempDir()
	p := open(t, root)
	publish(t, p, id(1))
	if err := p.Prepare(Spec{Release: id(2)}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Prepare(Spec{Release: id(3)}), p.Prepared()); err != nil {
		t.Fatal(err)
	}
	if err := p.Sweep(); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]bool{1: true, 2: false, 3: true} {
		if _, err := os.Stat(filepath.Join(root, "releases", id(n))); (err == nil) != want {
			t.Errorf("release %d: %v, want it there: %v", n, err, want)
		}
	}
}

func TestSharedPathsAreLinked(t *testing.T) {
	root := t.TempDir()
	p := open(t, root)
	spec := Spec{Release: id(1), SharedDirs: []string{"uploads", "var/log"}, SharedFiles: []string{".env"}}
	if err := p.Prepare(spec); err == nil || !strings.Contains(err.Error(), "the shared file "+root+"/shared/.env is missing: make it first") {
		t.Errorf("without the shared file: %v", err)
	}
	if err := os.WriteFile(filepath.Join(root, "shared", ".env"), []byte("A=1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Prepare(spec); err != nil {
		t.Fatal(err)
	}
	// What the commit has in their place gives way, and a link in it leads nowhere else.
	outside := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(p.Dir(), "uploads", "old"), 0o755), os.Symlink(outside, filepath.Join(p.Dir(), "var"))); err != nil {
		t.Fatal(err)
	}
	if err := p.Shared(); err == nil {
		t.Error("a shared directory was linked through a link that leads out of the release")
	}
	if err := os.Remove(filepath.Join(p.Dir(), "var")); err != nil {
		t.Fatal(err)
	}
	if err := p.Shared(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(p.Dir(), ".env"))
	if err != nil || string(b) != "A=1" {
		t.Errorf(".env is %q, %v", b, err)
	}
	target, err := os.Readlink(filepath.Join(p.Dir(), "var", "log"))
	if err != nil || target != "../../../shared/var/log" {
		t.Errorf("var/log points to %q, %v", target, err)
	}
	if list, _ := os.ReadDir(outside); len(list) > 0 {
		t.Error("something was written outside")
	}
}

func TestPruneLeavesWhatAProcessUses(t *testing.T) {
	root := t.TempDir()
	p := open(t, root)
	for n := 1; n <= 5; n++ {
		publish(t, p, id(n))
	}
	f, err := os.Create(filepath.Join(root, "releases", id(1), "open"))
	if err != nil {
		t.Fatal(err)
	}
	removed, err := p.Prune(2, 0)
	if err != nil || strings.Join(removed, " ") != id(3)+" "+id(2) {
		t.Errorf("removed %v, %v; release 1 is in use", removed, err)
	}
	f.Close()
	removed, err = p.Prune(2, 0)
	if err != nil || strings.Join(removed, " ") != id(1) {
		t.Errorf("removed %v, %v", removed, err)
	}
	if list, _ := filepath.Glob(p.file("trash-*")); len(list) > 0 {
		t.Errorf("%v is left", list)
	}
}

func TestSecondOpenerWaitsAndNamesTheHolder(t *testing.T) {
	root := t.TempDir()
	p := open(t, root)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, root, me); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("is in use by run 7 job deploy (agent pid %d)", os.Getpid())) {
		t.Errorf("got %v", err)
	}
	p.Close()
	open(t, root)
}

func TestNoRoomIsSaidWithNumbers(t *testing.T) {
	p := open(t, t.TempDir())
	err := p.Prepare(Spec{Release: id(1), Bytes: 1 << 60})
	if err == nil || !strings.Contains(err.Error(), "no space left in") || !strings.Contains(err.Error(), "are free") {
		t.Errorf("got %v", err)
	}
}

func FuzzIntent(f *testing.F) {
	f.Add([]byte(`{"format":1,"daemon":"me","run":7,"job":"deploy","attempt":1,"from":null,"to":"releases/x","phase":"switching"}`))
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := parseIntent(b)
		if err == nil && (in.Format != deploy.IntentFormat || in.Phase == "") {
			t.Errorf("%q gives %+v", b, in)
		}
	})
}

func FuzzLines(f *testing.F) {
	f.Add([]byte(`{"release":"20260401T101500Z-3f2c1ab","state":"live"}`+"\n"), false)
	f.Add([]byte("torn\n{}"), true)
	f.Fuzz(func(t *testing.T, b []byte, cut bool) {
		lines, _ := parseLines(strings.NewReader(string(b)), cut)
		for _, l := range lines {
			if !deploy.ValidReleaseID(l.Release) {
				t.Errorf("%q gives a line of %q", b, l.Release)
			}
		}
	})
}
