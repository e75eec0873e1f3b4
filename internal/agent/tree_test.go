package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"deployhook/internal/deploy"
	"deployhook/internal/host/hosttest"
	"deployhook/internal/release"
)

// Between two files of a tree somebody of the same user, as what a step left
// running, may put a link in the place of a directory.
func TestTreeIsWrittenInItsDirectoryWhateverStandsThere(t *testing.T) {
	t.Parallel()
	const rounds = 12
	out := hosttest.NewOutside(t, "precious", "e/precious")
	owner := release.Owner{Daemon: "me", Run: 1, Job: "deploy", Attempt: 1}
	p, err := release.Open(t.Context(), t.TempDir(), owner)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	before := t.TempDir()
	for _, swapped := range []string{".", "d", "d/e"} {
		swaps, wrote, refused, reused := 0, 0, 0, 0
		for round := range rounds {
			id := deploy.ReleaseID(epoch, strings.Repeat("a", 40), rounds*len(swapped)+round+2)
			if err := p.Prepare(release.Spec{Release: id, Commit: strings.Repeat("a", 40)}); err != nil {
				t.Fatal(err)
			}
			tr, err := openTree("", p)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Join(p.Dir(), "d", "e"), 0o755); err != nil {
				t.Fatal(err)
			}
			write := func(f deploy.TreeFile, content string) {
				if err := tr.write(f, strings.NewReader(content)); err != nil {
					refused++
				} else {
					wrote++
				}
			}
			if tr.before, err = os.OpenRoot(before); err != nil {
				t.Fatal(err)
			}
			u := &reuser{tree: tr}
			swaps += out.During(filepath.Join(p.Dir(), swapped), func() {
				for i := range 25 {
					// A new directory, one that was there, a link, and what the release before has.
					write(deploy.TreeFile{Path: fmt.Sprintf("d/e/n%d/f", i), Mode: deploy.TreePlain, Size: 4}, "text")
					write(deploy.TreeFile{Path: fmt.Sprintf("d/e/f%d", i), Mode: deploy.TreeExecutable, Size: 4}, "text")
					write(deploy.TreeFile{Path: fmt.Sprintf("d/e/l%d", i), Mode: deploy.TreeSymlink, Size: 4}, "text")
					f := kept(t, before, fmt.Sprintf("d/e/k%d", i))
					if has, err := u.reuse(f); err != nil {
						refused++
					} else if has {
						reused++
					}
				}
			})
			u.close()
			tr.close()
			if err := p.Bad(); err != nil {
				t.Fatal(err)
			}
		}
		if swaps < 10*rounds || wrote == 0 || reused == 0 || refused == 0 && swapped != "." {
			t.Errorf("%s: %d swaps, %d written, %d reused, %d refused: nothing is shown by that", swapped, swaps, wrote, reused, refused)
		}
	}
}

// kept makes a file in the release before.
func kept(t *testing.T, before, path string) deploy.TreeFile {
	t.Helper()
	const text = "kept"
	name := filepath.Join(before, path)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	sum := release.NewBlob(int64(len(text)))
	sum.Write([]byte(text))
	return deploy.TreeFile{Path: path, Mode: deploy.TreePlain, Size: int64(len(text)), Blob: fmt.Sprintf("%x", sum.Sum(nil))}
}

func TestWorkspaceThatALinkStandsInThePlaceOfGetsNoTree(t *testing.T) {
	t.Parallel()
	out := hosttest.NewOutside(t, "precious")
	dir := filepath.Join(t.TempDir(), "1-test-1")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	opened, refused := 0, 0
	out.During(dir, func() {
		for i := 0; i < 10_000 && (opened == 0 || refused == 0); i++ {
			tr, err := openTree(dir, nil)
			if err != nil {
				refused++
				if !strings.Contains(err.Error(), "is not the directory any more that was made") {
					t.Errorf("got %v", err)
				}
				continue
			}
			opened++
			if err := tr.write(deploy.TreeFile{Path: fmt.Sprint(i), Mode: deploy.TreePlain, Size: 1}, strings.NewReader("x")); err != nil {
				t.Error(err)
			}
			tr.close()
		}
	})
	if opened == 0 || refused == 0 {
		t.Errorf("opened %d times and refused %d times", opened, refused)
	}
}
