package host_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
)

// each gives the files of a commit.
func (c *commit) each(fn func(deploy.TreeFile) error) error {
	for _, f := range c.list {
		if err := fn(f); err != nil {
			return err
		}
	}
	return nil
}

// inPlaceID is the n-th name of a deploy.
func inPlaceID(n int) string { return deploy.ReleaseID(time.Unix(int64(n), 0), "aaaaaaa", 1) }

// inPlace deploys a commit to a directory as the n-th run does, through all
// that an agent is asked for.
func (c *commit) inPlace(t *testing.T, conn *host.Conn, dir string, n int, overwrite bool) (sent []string, err error) {
	ctx := t.Context()
	defer conn.Close() // the directory is free again
	if _, _, err := conn.OpenInPlace(ctx, host.OpenRelease{Path: dir, Daemon: "me", Run: int64(n), Job: "deploy", Attempt: 1}); err != nil {
		return nil, err
	}
	lacking, err := conn.CompareInPlace(ctx, host.InPlaceBegin{Release: inPlaceID(n), Commit: strings.Repeat("a", 40), Overwrite: overwrite}, c.each)
	if err != nil {
		return nil, err
	}
	if _, err := conn.StageInPlace(ctx); err != nil {
		return nil, err
	}
	err = conn.PutInPlace(ctx, func(fn func(deploy.TreeFile, io.Reader) error) error {
		for i, f := range c.list {
			if lacking(i) {
				sent = append(sent, f.Path)
				if err := fn(f, strings.NewReader(c.content[i])); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err == nil {
		err = conn.SwitchInPlace(ctx, false)
	}
	if err == nil {
		err = conn.ProvingInPlace(ctx)
	}
	if err == nil {
		err = conn.LiveInPlace(ctx)
	}
	return sent, err
}

// contents reads all files of a directory.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, name)
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(name)
			got[rel] = "->" + target
			return err
		}
		b, err := os.ReadFile(name)
		got[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (c *commit) whole() map[string]string {
	all := map[string]string{}
	for i, f := range c.list {
		all[f.Path] = c.content[i]
		if f.Mode == deploy.TreeSymlink {
			all[f.Path] = "->" + c.content[i]
		}
	}
	return all
}

// sites are two commits that differ in every way.
func sites() (one, two commit) {
	for i := range 40 {
		name := fmt.Sprintf("dir%d/file%d", i%5, i)
		one.add(name, deploy.TreePlain, fmt.Sprint("one ", i, strings.Repeat("x", i*100)))
		if i%3 > 0 {
			two.add(name, deploy.TreePlain, fmt.Sprint("two ", i, strings.Repeat("y", i*90)))
		}
	}
	one.add("link", deploy.TreeSymlink, "dir1")
	one.add("swap", deploy.TreePlain, "a file")
	one.add("swop/x", deploy.TreePlain, "in a directory")
	one.add("swop/y/z", deploy.TreePlain, "in a directory")
	two.add("link/x", deploy.TreePlain, "was a link")
	two.add("new/er/x", deploy.TreeExecutable, "new")
	two.add("swap/x", deploy.TreePlain, "in a directory")
	two.add("swop", deploy.TreePlain, "a file")
	return one, two
}

// untracked are files of others among those of a commit.
var untracked = map[string]string{"upload.jpg": "a photo", "dir1/cache": "mine", "dir2/deep/mine": "mine", ".env": "SECRET=1"}

func putUntracked(t *testing.T, dir string) {
	t.Helper()
	for name, text := range untracked {
		at := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

func wantSite(t *testing.T, dir string, c commit) {
	t.Helper()
	want := c.whole()
	maps.Copy(want, untracked)
	got := contents(t, dir)
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s is %.40q, want %.40q", name, got[name], text)
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("%s is there", name)
	}
}

// inPlacePoints are the moments of a deploy in place.
var inPlacePoints = []string{
	"in-place-staging", "in-place-wrote-first", "in-place-wrote-some", "in-place-before-intent", "in-place-intent", "in-place-listed", "in-place-room",
	"in-place-renamed-first", "in-place-renamed-some", "in-place-renamed", "in-place-removed", "in-place-changed", "in-place-whole",
	"in-place-proving", "in-place-rescanned", "in-place-live", "in-place-ended",
}

// inPlaceOnce deploys with an agent of its own; it may be killed at a moment,
// or after a time.
func (c *commit) inPlaceOnce(t *testing.T, state, dir string, n int, point string, after time.Duration) error {
	t.Helper()
	if point != "" {
		t.Setenv("TMPDIR", "/failpoint/"+point)
	}
	h := host.New(host.Options{State: state, Log: quiet()})
	defer h.Close() // its other agent would be waited for
	conn := openOf(t, h)
	os.Unsetenv("TMPDIR")
	if after > 0 {
		defer time.AfterFunc(after, func() { conn.KillAgent() }).Stop()
	}
	_, err := c.inPlace(t, conn, dir, n, false)
	return err
}

func TestAgentKilledAtEachMomentOfADeployInPlace(t *testing.T) {
	one, two := sites()
	for i, point := range inPlacePoints {
		for name, next := range map[string]commit{"again": two, "back": one} {
			if name == "back" && i%2 > 0 {
				continue
			}
			t.Run(point+", "+name, func(t *testing.T) {
				state, dir := t.TempDir(), filepath.Join(t.TempDir(), "www")
				if err := one.inPlaceOnce(t, state, dir, 1, "", 0); err != nil {
					t.Fatal(err)
				}
				putUntracked(t, dir)
				if err := two.inPlaceOnce(t, state, dir, 2, point, 0); !errors.Is(err, host.ErrGone) {
					t.Fatalf("it was not killed there: %v", err)
				}
				for at, text := range untracked {
					if b, err := os.ReadFile(filepath.Join(dir, at)); err != nil || string(b) != text {
						t.Errorf("after the kill %s is %q, %v", at, b, err)
					}
				}
				if err := next.inPlaceOnce(t, state, dir, 3, "", 0); err != nil {
					t.Fatalf("the next deploy: %v", err)
				}
				wantSite(t, dir, next)
			})
		}
	}
}

func TestAgentKilledAtRandomMomentsOfDeploysInPlace(t *testing.T) {
	one, two := sites()
	state, dir := t.TempDir(), filepath.Join(t.TempDir(), "www")
	if err := one.inPlaceOnce(t, state, dir, 1, "", 0); err != nil {
		t.Fatal(err)
	}
	putUntracked(t, dir)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	killed := 0
	for n := 2; n < 32; n++ {
		next := one
		if rnd.IntN(2) == 0 {
			next = two
		}
		after := time.Duration(1 + rnd.Int64N(int64(30*time.Millisecond)))
		if err := next.inPlaceOnce(t, state, dir, n, "", after); err != nil {
			killed++
			if !errors.Is(err, host.ErrGone) {
				t.Fatalf("deploy %d, killed after %v: %v", n, after, err)
			}
			continue
		}
		wantSite(t, dir, next)
	}
	if killed == 0 {
		t.Error("none was killed")
	}
	if err := two.inPlaceOnce(t, state, dir, 99, "", 0); err != nil {
		t.Fatal(err)
	}
	wantSite(t, dir, two)
	if left, _ := filepath.Glob(filepath.Join(state, "in-place", "*", "*")); len(left) > 4 {
		t.Errorf("the journal has %q", left)
	}
}
