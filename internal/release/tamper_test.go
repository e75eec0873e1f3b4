package release

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
)

// soon fails a test that waits for something that blocks.
func soon(t *testing.T, what string, fn func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-time.After(30 * time.Second):
		t.Fatalf("%s blocks", what)
		return nil
	}
}

func TestWhatAStepPutIntoTheJournalNeitherBlocksNorLeads(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(outside, []byte("precious\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"intent.json", "releases.ndjson", "lock"} {
		for what, put := range map[string]func(file string) error{
			"a pipe":       func(file string) error { return unix.Mkfifo(file, 0o666) },
			"a directory":  func(file string) error { return os.Mkdir(file, 0o755) },
			"a link":       func(file string) error { return os.Symlink(outside, file) },
			"a dead link":  func(file string) error { return os.Symlink(outside+"-none", file) },
			"a device":     func(file string) error { return os.Symlink("/dev/zero", file) },
			"4 MiB of x":   func(file string) error { return os.WriteFile(file, []byte(strings.Repeat("x", 4<<20)), 0o644) },
			"binary":       func(file string) error { return os.WriteFile(file, []byte("\x00\xff\x1b[2J\n\x00"), 0o644) },
			"deep nesting": func(file string) error { return os.WriteFile(file, []byte(strings.Repeat(`{"a":`, 100_000)), 0o644) },
		} {
			root := t.TempDir()
			p := open(t, root)
			publish(t, p, id(1))
			p.Close()
			file := p.file(name)
			if err := errors.Join(os.RemoveAll(file), put(file)); err != nil {
				t.Fatal(err)
			}
			err := soon(t, name+" is "+what, func() error {
				q, err := Open(t.Context(), root, me)
				if err != nil {
					return err
				}
				defer q.Close()
				f, err := q.Found()
				if err != nil {
					return err
				}
				if name == "intent.json" && f.Foreign == "" {
					return errors.New("it was taken for an intent")
				}
				return errors.Join(q.Prepare(Spec{Release: id(2), Commit: commitOf(id(2))}), q.Shared(), q.Prepared(), q.Activate(id(2), false))
			})
			// Damaged lines are passed over and a damaged lock is only a lock; all else is refused.
			text := strings.HasPrefix(what, "4 MiB") || what == "binary" || what == "deep nesting"
			if refused := err != nil; refused == (text && name != "intent.json") && !(text && name == "releases.ndjson") {
				t.Errorf("%s is %s: %v", name, what, err)
			}
			if name == "intent.json" && current(t, root) != "releases/"+id(1) {
				t.Errorf("%s is %s: current was moved", name, what)
			}
			if b, err := os.ReadFile(outside); string(b) != "precious\n" {
				t.Fatalf("%s is %s: what is outside was written: %q, %v", name, what, b, err)
			}
			if _, err := os.Lstat(outside + "-none"); err == nil {
				t.Fatalf("%s is %s: a file was made outside", name, what)
			}
		}
	}
}

func TestPathThatAStepTookApartIsNotSwitched(t *testing.T) {
	for what, tt := range map[string]struct {
		do   func(p *Path) error
		want string
	}{
		"no journal":       {func(p *Path) error { return os.RemoveAll(p.file("")) }, ".deployhook/lock was taken away while the path was in use"},
		"no lock":          {func(p *Path) error { return os.Remove(p.file("lock")) }, ".deployhook/lock was taken away while the path was in use"},
		"no release":       {func(p *Path) error { return os.RemoveAll(p.Dir()) }, "is not there"},
		"a linked release": {func(p *Path) error { return errors.Join(os.RemoveAll(p.Dir()), os.Symlink("/etc", p.Dir())) }, "is not there"},
		"current moved": {func(p *Path) error {
			c := filepath.Join(p.root, "current")
			return errors.Join(os.Remove(c), os.Symlink("releases/"+id(1), c))
		}, "current was pointed to releases/" + id(1) + " while the release was being made"},
		"current gone": {func(p *Path) error { return os.Remove(filepath.Join(p.root, "current")) }, "current was pointed to nothing while"},
		"current elsewhere": {func(p *Path) error {
			c := filepath.Join(p.root, "current")
			return errors.Join(os.Remove(c), os.Symlink("../x", c))
		}, "which is no release: move it away first"},
		"current a directory": {func(p *Path) error {
			c := filepath.Join(p.root, "current")
			return errors.Join(os.Remove(c), os.Mkdir(c, 0o755))
		}, "is a directory, not a link to a release"},
		"an intent": {func(p *Path) error { return os.WriteFile(p.file("intent.json"), []byte("{}"), 0o644) }, "an unfinished switch is here"},
	} {
		root := t.TempDir()
		p := open(t, root)
		publish(t, p, id(1))
		publish(t, p, id(2))
		p.Close()
		p = open(t, root)
		if _, err := p.Found(); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(p.Prepare(Spec{Release: id(3), Commit: commitOf(id(3))}), p.Shared(), p.Prepared(), tt.do(p)); err != nil {
			t.Fatal(err)
		}
		before, _ := os.Readlink(filepath.Join(root, "current"))
		err := p.Activate(id(3), false)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", what, err, tt.want)
		}
		if after, _ := os.Readlink(filepath.Join(root, "current")); after != before {
			t.Errorf("%s: current went from %q to %q", what, before, after)
		}
	}
}

func TestForeignCurrentIsRefusedBeforeAnyWork(t *testing.T) {
	for _, target := range []string{"/etc", "/srv/shop/releases/" + id(1), "releases/../../x", "releases/-rf", "releases/20240101", "releases"} {
		root := t.TempDir()
		p := open(t, root)
		if err := os.Symlink(target, filepath.Join(root, "current")); err != nil {
			t.Fatal(err)
		}
		err := p.Prepare(Spec{Release: id(1)})
		want := fmt.Sprintf("%s/current points to %q, which is no release: move it away first", root, target)
		if target == "releases/20240101" {
			want = fmt.Sprintf("%s/current points to %q, which is no release of deployhook: deployhook adopt %s takes over what another tool made", root, target, root)
		}
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v", target, err)
		}
		if list, _ := os.ReadDir(filepath.Join(root, "releases")); len(list) > 0 {
			t.Errorf("%s: something was made", target)
		}
	}
}

func TestOnlyOneOfManyRacersHoldsAPath(t *testing.T) {
	root := t.TempDir()
	var holders atomic.Int64
	var racers sync.WaitGroup
	for range 8 {
		racers.Go(func() {
			for range 50 {
				p, err := Open(t.Context(), root, me)
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n > 1 {
					t.Errorf("%d hold the path at once", n)
				}
				holders.Add(-1)
				p.Close()
			}
		})
	}
	racers.Wait()
}

func TestLockThatWasTakenAwayLetsNoTwoIn(t *testing.T) {
	root := t.TempDir()
	first := open(t, root)
	waiter := make(chan *Path, 1)
	go func() {
		p, err := Open(t.Context(), root, me)
		if err != nil {
			t.Error(err)
		}
		waiter <- p
	}()
	for n := 0; n < 2; { // until it has the file open, too
		n = 0
		fds, _ := filepath.Glob("/proc/self/fd/*")
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && to == first.file("lock") {
				n++
			}
		}
	}
	if err := os.Remove(first.file("lock")); err != nil {
		t.Fatal(err)
	}
	second := open(t, root) // on a new file
	first.Close()           // who waits on the old file gets that, and must not be content
	if err := second.held(); err != nil {
		t.Error(err)
	}
	select {
	case <-waiter:
		t.Error("two hold the path at once")
	case <-time.After(300 * time.Millisecond):
	}
	second.Close()
	if p := <-waiter; p != nil {
		if err := p.held(); err != nil {
			t.Error(err)
		}
		p.Close()
	}
}

func TestHalfATreeIsNotKept(t *testing.T) {
	root := t.TempDir()
	p := open(t, root)
	if err := errors.Join(p.Prepare(Spec{Release: id(1), Commit: commitOf(id(1))}), os.WriteFile(filepath.Join(p.Dir(), "half"), []byte("x"), 0o644), p.Bad()); err != nil {
		t.Fatal(err)
	}
	if list, _ := os.ReadDir(filepath.Join(root, "releases")); len(list) > 0 {
		t.Errorf("a tree that never was whole is kept: %v", list)
	}
	// A whole one whose steps failed is kept for people to look at.
	if err := errors.Join(p.Prepare(Spec{Release: id(2), Commit: commitOf(id(2))}), p.Shared(), p.Bad()); err != nil {
		t.Fatal(err)
	}
	f, err := p.Found()
	if list := deploy.Releases(f); err != nil || len(list) != 1 || list[0].ID != id(2) || list[0].State != deploy.ReleaseBad {
		t.Errorf("the releases are %+v, %v", list, err)
	}
}

func TestReleaseRemovedByHandIsNoTarget(t *testing.T) {
	root := t.TempDir()
	p := open(t, root)
	for n := 1; n <= 3; n++ {
		publish(t, p, id(n))
	}
	if err := os.RemoveAll(filepath.Join(root, "releases", id(2))); err != nil {
		t.Fatal(err)
	}
	f, err := p.Found()
	if err != nil {
		t.Fatal(err)
	}
	if got := deploy.RollbackTarget(f); got != id(1) {
		t.Errorf("the rollback target is %q, want %q", got, id(1))
	}
	if list := deploy.Releases(f); len(list) != 2 {
		t.Errorf("the releases are %+v", list)
	}
	if err := p.Activate(id(2), false); err == nil || !strings.Contains(err.Error(), "is not there") {
		t.Errorf("a switch to it: %v", err)
	}
}

func TestJournalStaysShortAndKeepsWhatCounts(t *testing.T) {
	root := t.TempDir()
	p := open(t, root)
	publish(t, p, id(1))
	publish(t, p, id(2))
	for n := range 3000 {
		gone := deploy.ReleaseID(time.Date(2026, 5, 1, 0, 0, n, 0, time.UTC), "3f2c1ab", 1)
		for _, state := range []deploy.ReleaseState{deploy.ReleasePreparing, deploy.ReleaseRemoved} {
			p.release, p.spec.Commit = gone, commitOf(gone)
			l := p.ours(state)
			f, err := os.OpenFile(p.file("releases.ndjson"), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(f, `{"time":"2026-05-01T00:00:00Z","release":%q,"state":%q,"commit":%q,"run":%d,"job":"deploy"}`+"\n", l.Release, l.State, l.Commit, n); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
	}
	p.Close()
	q := open(t, root)
	st, err := os.Stat(q.file("releases.ndjson"))
	if err != nil || st.Size() > compactBytes {
		t.Errorf("the journal has %d bytes, %v", st.Size(), err)
	}
	f, err := q.Found()
	if err != nil {
		t.Fatal(err)
	}
	if got := deploy.RollbackTarget(f); got != id(1) || f.Current != "releases/"+id(2) {
		t.Errorf("the rollback target is %q from %s, want %q", got, f.Current, id(1))
	}
	list := deploy.Releases(f)
	if len(list) != 2 || list[0].Commit != commitOf(id(2)) || list[0].State != deploy.ReleaseLive || list[0].Run != 7 {
		t.Errorf("the releases are %+v", list)
	}
	if files, _ := filepath.Glob(q.file(tempPrefix + "*")); len(files) > 0 {
		t.Errorf("%q is left", files)
	}
}

// small mounts a small file system.
func small(t *testing.T, options string) string {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test mounts a file system and needs root")
		}
		t.Skip("this test mounts a file system and needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

func TestFullDiskIsSaidAndTheNextDeployGoesOn(t *testing.T) {
	root := small(t, "size=24m")
	p := open(t, root)
	publish(t, p, id(1))
	if err := errors.Join(p.Prepare(Spec{Release: id(2), Commit: commitOf(id(2))}), p.Shared(), p.Prepared()); err != nil {
		t.Fatal(err)
	}
	fill(t, filepath.Join(p.Dir(), "big"))
	err := p.Activate(id(2), false)
	if err == nil || err.Error() != "no space left in "+root || current(t, root) != "releases/"+id(1) {
		t.Errorf("a switch on a full disk: %v, current is %s", err, current(t, root))
	}
	_ = p.Bad() // there is no room for the line
	p.Close()
	q := open(t, root)
	// What failed is in the way and goes.
	publish(t, q, id(3))
	if current(t, root) != "releases/"+id(3) {
		t.Errorf("current is %s", current(t, root))
	}
	if _, err := os.Stat(filepath.Join(root, "releases", id(2))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the release that filled the disk is still there: %v", err)
	}
	// Somebody else's file is in the way: refused with numbers, nothing removed.
	fill(t, filepath.Join(root, "shared", "big"))
	if err := q.Prepare(Spec{Release: id(4)}); err == nil || !strings.Contains(err.Error(), "no space left in "+root+": the release needs 16.8 MB, ") {
		t.Errorf("got %v", err)
	}
}

func TestNoInodesAreSaidWithNumbers(t *testing.T) {
	root := small(t, "size=64m,nr_inodes=80")
	p := open(t, root)
	if err := p.Prepare(Spec{Release: id(1), Files: 20}); err == nil || !strings.Contains(err.Error(), "no inodes left in "+root+": the release needs 120, ") {
		t.Errorf("got %v", err)
	}
}

func TestReadOnlyPathIsSaid(t *testing.T) {
	root := small(t, "size=1m")
	if err := syscall.Mount("", root, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), root, me); err == nil || err.Error() != "the release path "+root+" is on a read-only file system" {
		t.Errorf("got %v", err)
	}
}

func TestReleaseWithAMountIsNotEmptied(t *testing.T) {
	root, precious := small(t, "size=64m"), t.TempDir()
	if err := os.WriteFile(filepath.Join(precious, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p := open(t, root)
	for n := 1; n <= 3; n++ {
		publish(t, p, id(n))
	}
	inside := filepath.Join(root, "releases", id(1), "mnt")
	if err := errors.Join(os.Mkdir(inside, 0o755), syscall.Mount(precious, inside, "", syscall.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(inside, syscall.MNT_DETACH) })
	removed, err := p.Prune(1, 0)
	if _, serr := os.Stat(filepath.Join(precious, "file")); serr != nil {
		t.Fatalf("pruning removed what was mounted: %v, %v", removed, err)
	}
	if list, _ := filepath.Glob(p.file("trash-*")); err == nil && len(list) > 0 {
		t.Errorf("%v is left without a word", list)
	}
}

func TestMountPointsAreReadAsTheyAreWritten(t *testing.T) {
	got := mountPoints("36 35 98:0 / /mnt\\040a\\134b rw - ext3 /dev/root rw\nshort\n\n37 35 0:1 / /x rw - tmpfs t rw\n")
	if strings.Join(got, "|") != `/mnt a\b|/x` {
		t.Errorf("got %q", got)
	}
}

func FuzzMountPoints(f *testing.F) {
	f.Add("36 35 98:0 / /mnt\\040a rw - ext3 /dev/root rw\n")
	f.Add("1 2 3 4 \\0 \\04 \\777\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, p := range mountPoints(text) {
			if p == "" {
				t.Errorf("%q gives an empty mount point", text)
			}
		}
	})
}
