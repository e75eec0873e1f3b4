package release

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"deployhook/internal/host/hosttest"
)

// swapRounds are as many as let a link that is followed be met, on a busy
// machine too: each has hundreds of swaps.
const swapRounds = 25

func TestSharedPathsAreLinkedInTheReleaseWhateverStandsThere(t *testing.T) {
	t.Parallel()
	for _, swapped := range []string{".", "var"} {
		out := hosttest.NewOutside(t, "var/log/precious", "log/precious", "uploads/precious")
		root := t.TempDir()
		p := open(t, root)
		swaps, linked := 0, 0
		for n := range swapRounds {
			spec := Spec{Release: id(n), Commit: commitOf(id(n)), SharedDirs: []string{"uploads", "var/log", "var/run"}}
			if err := p.Prepare(spec); err != nil {
				t.Fatal(err)
			}
			dir := p.Dir()
			if err := os.MkdirAll(filepath.Join(dir, "var", "log", "old"), 0o755); err != nil {
				t.Fatal(err)
			}
			var err error
			swaps += out.During(filepath.Join(dir, swapped), func() {
				for range 20 { // on the way it meets every moment
					if err = p.Shared(); err == nil {
						break
					}
				}
			})
			if _, lerr := os.Readlink(filepath.Join(dir, "uploads")); err == nil {
				linked++
				if lerr != nil {
					t.Errorf("%s is swapped: it was linked, and is not: %v", swapped, lerr)
				}
			}
			if err := p.Bad(); err != nil {
				t.Fatal(err)
			}
		}
		if swaps < 2*swapRounds || linked == 0 {
			t.Errorf("%s was swapped %d times, and linked in %d rounds: nothing is shown by that", swapped, swaps, linked)
		}
	}
}

func TestReleaseThatIsNotTheOneThatWasMadeIsNotPrepared(t *testing.T) {
	t.Parallel()
	for what, put := range map[string]func(dir string) error{
		"a link":              func(dir string) error { return os.Symlink("/etc", dir) },
		"another directory":   func(dir string) error { return os.Mkdir(dir, 0o755) },
		"nothing":             func(string) error { return nil },
		"a link to the moved": func(dir string) error { return os.Symlink(dir+"-away", dir) },
	} {
		for _, late := range []bool{false, true} {
			p := open(t, t.TempDir())
			err := errors.Join(p.Prepare(Spec{Release: id(1), Commit: commitOf(id(1))}), p.Shared())
			if late {
				err = errors.Join(err, p.Prepared())
			}
			dir := p.Dir()
			if err = errors.Join(err, os.Rename(dir, dir+"-away"), put(dir)); err != nil {
				t.Fatal(err)
			}
			if late {
				err = p.Activate(id(1), false)
			} else {
				err = p.Prepared()
			}
			if err == nil || !strings.Contains(err.Error(), dir+" is not the directory any more that was made") && !strings.Contains(err.Error(), "is not there") {
				t.Errorf("%s in its place (late: %v): %v", what, late, err)
			}
		}
	}
}

func TestFilesInPlaceLandInThePlaceWhateverStandsThere(t *testing.T) {
	t.Parallel()
	name := func(i int) string { return fmt.Sprintf("a/b/f%d", i) }
	var inOutside []string
	one, two := files{"index.txt": "one"}, files{"index.txt": "two"}
	for i := range 12 {
		one[name(i)] = fmt.Sprint("one ", i)
		if i%3 > 0 {
			two[name(i)] = fmt.Sprint("two ", i) // the others are removed
		}
		two["a/new/"+fmt.Sprint(i)] = "#!" + fmt.Sprint(i)
		inOutside = append(inOutside, strings.TrimPrefix(name(i), "a/"))
	}
	out := hosttest.NewOutside(t, inOutside...)
	p := newPlace(t)
	swaps, refused := 0, 0
	for range swapRounds / 4 {
		if _, err := p.deploy(one, true); err != nil {
			t.Fatalf("with nobody in the way: %v", err)
		}
		swaps += out.During(p.path("a"), func() {
			if _, err := p.deploy(two, true); err != nil {
				refused++
			}
		})
	}
	if _, err := p.deploy(two, true); err != nil {
		t.Errorf("with nobody in the way any more: %v", err)
	}
	for path, want := range two {
		if b, err := os.ReadFile(p.path(path)); err != nil || string(b) != want {
			t.Errorf("%s is %q, %v", path, b, err)
		}
	}
	if swaps < swapRounds || refused == 0 {
		t.Errorf("swapped %d times, and refused in %d rounds: nothing is shown by that", swaps, refused)
	}
}

func TestRemovingATreeLeavesAloneWhatIsPutInItsWay(t *testing.T) {
	t.Parallel()
	out := hosttest.NewOutside(t, "b/c/precious", "c/precious")
	swaps := 0
	for range swapRounds {
		dir := filepath.Join(t.TempDir(), "tree")
		if err := os.MkdirAll(filepath.Join(dir, "a", "b", "c"), 0o755); err != nil {
			t.Fatal(err)
		}
		// As root nothing is refused, and this is what comes after a refusal.
		swaps += out.During(filepath.Join(dir, "a"), func() {
			for range 50 {
				makeWritable(dir)
			}
		})
		swaps += out.During(dir, func() { makeWritable(dir) })
		if err := os.Chmod(filepath.Join(dir, "a", "b"), 0); err != nil {
			t.Fatal(err)
		}
		makeWritable(dir)
		if st, err := os.Stat(filepath.Join(dir, "a", "b")); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("it is not made writable: %v, %v", st, err)
		}
		if err := RemoveTree(dir); err != nil {
			t.Error(err)
		}
	}
	if swaps < 2*swapRounds {
		t.Errorf("swapped %d times only", swaps)
	}
}
