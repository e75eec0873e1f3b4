package host_test

import (
	"crypto/sha1"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
)

// file is one file of a commit.
func file(path string, mode deploy.TreeMode, content string) deploy.TreeFile {
	id := sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", len(content), content))
	return deploy.TreeFile{Path: path, Mode: mode, Size: int64(len(content)), Blob: fmt.Sprintf("%x", id)}
}

// commit is the files of one, in order.
type commit struct {
	list    []deploy.TreeFile
	content []string
}

func (c *commit) add(path string, mode deploy.TreeMode, content string) {
	c.list, c.content = append(c.list, file(path, mode, content)), append(c.content, content)
}

// release makes a release of a commit, and says what had to be sent for it.
func (c *commit) release(t *testing.T, conn *host.Conn, id string) (sent []string) {
	t.Helper()
	if err := conn.Prepare(t.Context(), host.Prepare{Release: id, Commit: strings.Repeat("a", 40), Files: len(c.list)}); err != nil {
		t.Fatal(err)
	}
	lacking, err := conn.Reuse(t.Context(), func(fn func(deploy.TreeFile) error) error {
		for _, f := range c.list {
			if err := fn(f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = conn.Put(t.Context(), func(fn func(deploy.TreeFile, io.Reader) error) error {
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
	if err != nil {
		t.Fatal(err)
	}
	return sent
}

// goLive makes the release that was filled the current one.
func goLive(t *testing.T, conn *host.Conn, id string) {
	t.Helper()
	for _, err := range []error{
		conn.Shared(t.Context()), conn.Prepared(t.Context()), conn.Activate(t.Context(), host.Activate{To: id}), conn.Live(t.Context()),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

const firstID, secondID = "20260401T101500Z-aaaaaaa", "20260401T101600Z-aaaaaaa"

func onPath(t *testing.T, root string, run int64) *host.Conn {
	t.Helper()
	c := open(t)
	if _, err := c.OpenRelease(t.Context(), host.OpenRelease{Path: root, Daemon: "me", Run: run, Job: "deploy", Attempt: 1}); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestUnchangedFilesComeFromTheReleaseBefore(t *testing.T) {
	root := filepath.Join(t.TempDir(), "srv")
	outside := filepath.Join(t.TempDir(), "outside")
	big := strings.Repeat("0123456789abcdef", 20_000)
	var first commit
	for _, name := range []string{"kept", "edited", "longer", "shorter", "away", "pipe", "link", "outside", "directory", "deep/er/kept", "run\nthis\xff"} {
		first.add(name, deploy.TreePlain, "content of "+name)
	}
	first.add("script", deploy.TreePlain, "#!/bin/sh\n")
	first.add("empty", deploy.TreePlain, "")
	first.add("big", deploy.TreePlain, big)
	first.add("symlink", deploy.TreeSymlink, "kept")
	first.add("taken/over", deploy.TreePlain, "content of taken/over")

	conn := onPath(t, root, 1)
	if sent := first.release(t, conn, firstID); len(sent) != len(first.list) {
		t.Errorf("of the first release only %q were sent", sent)
	}
	goLive(t, conn, firstID)
	conn.Close()

	// What an application, a step or a person may do to what is live.
	old := func(name string) string { return filepath.Join(root, "releases", firstID, name) }
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(old("edited"), "CONTENT OF EDITED"[:len("content of edited")])
	write(old("longer"), "content of longer, and more")
	write(old("shorter"), "content")
	write(outside, "content of outside")
	for _, name := range []string{"away", "pipe", "link", "outside", "directory", "taken"} {
		if err := os.RemoveAll(old(name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		syscall.Mkfifo(old("pipe"), 0o644), os.Symlink("/dev/zero", old("link")), os.Symlink(outside, old("outside")), os.Mkdir(old("directory"), 0o755),
		os.Symlink(filepath.Dir(outside), old("taken")), os.Chmod(old("kept"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}

	second := commit{list: append([]deploy.TreeFile{}, first.list...), content: append([]string{}, first.content...)}
	second.add("new", deploy.TreePlain, "content of new")
	for i, f := range second.list {
		if f.Path == "script" {
			second.list[i].Mode = deploy.TreeExecutable
		}
	}
	conn = onPath(t, root, 2)
	sent := second.release(t, conn, secondID)
	if got, want := strings.Join(sent, " "), "edited longer shorter away pipe link outside directory symlink taken/over new"; got != want {
		t.Errorf("sent were %q, want %q", got, want)
	}
	for i, f := range second.list {
		name := filepath.Join(root, "releases", secondID, f.Path)
		if f.Mode == deploy.TreeSymlink {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil || string(b) != second.content[i] {
			t.Errorf("%s has %d bytes %.40q, %v; want %.40q", f.Path, len(b), b, err, second.content[i])
			continue
		}
		want := os.FileMode(0o644)
		if f.Mode == deploy.TreeExecutable {
			want = 0o755
		}
		st, err := os.Stat(name)
		if err != nil || st.Mode() != want || st.Sys().(*syscall.Stat_t).Nlink != 1 {
			t.Errorf("%s: %v, %v; want mode %v and one name", f.Path, st, err, want)
		}
	}
	goLive(t, conn, secondID)
	conn.Close()
	write(filepath.Join(root, "current", "kept"), "edited in the second")
	if b, err := os.ReadFile(old("kept")); string(b) != "content of kept" || err != nil {
		t.Errorf("an edit in one release shows in the other: %q, %v", b, err)
	}
}

func TestCopiesShareBlocksWhereTheFileSystemCan(t *testing.T) {
	needsRoot(t, "mounts a file system")
	disk := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(disk)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(400 << 20); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if out, err := exec.Command("mkfs.xfs", "-q", disk).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.xfs (Debian's package xfsprogs): %v\n%s", err, out)
	}
	mounted := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop", disk, mounted).CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("this kernel mounts no XFS image: %s", out)
		}
		t.Skipf("this kernel mounts no XFS image: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mounted).CombinedOutput(); err != nil {
			t.Errorf("unmounting: %v\n%s", err, out)
		}
	})
	root := filepath.Join(mounted, "srv")
	var c commit
	c.add("big", deploy.TreePlain, strings.Repeat("0123456789abcdef", 4<<20))
	conn := onPath(t, root, 1)
	c.release(t, conn, firstID)
	goLive(t, conn, firstID)
	conn.Close()
	free := func() int64 {
		var st unix.Statfs_t
		if err := unix.Statfs(mounted, &st); err != nil {
			t.Fatal(err)
		}
		return int64(st.Bavail) * st.Bsize
	}
	before := free()
	conn = onPath(t, root, 2)
	if sent := c.release(t, conn, secondID); len(sent) > 0 {
		t.Errorf("%q were sent", sent)
	}
	goLive(t, conn, secondID)
	conn.Close()
	if took := before - free(); took > 16<<20 {
		t.Errorf("a second release of 64 MiB that did not change took %d bytes", took)
	}
}

func TestListThatIsAnsweredForAnotherLengthIsRefused(t *testing.T) {
	for _, what := range []string{"few bits", "many bits"} {
		c, err := lying(t, what)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Reuse(t.Context(), func(fn func(deploy.TreeFile) error) error {
			for i := range 9 {
				if err := fn(file(fmt.Sprint(i), deploy.TreePlain, "x")); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), "files, asked for 9") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
