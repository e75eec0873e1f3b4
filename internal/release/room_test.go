package release

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestRoomIsOfThePathOrOfWhereItWouldBe(t *testing.T) {
	root := filepath.Join(t.TempDir(), "a", "b")
	for _, inPlace := range []bool{false, true} {
		r := RoomAt(root, inPlace)
		if r.Error != "" || r.Bytes <= 0 || r.Path != root {
			t.Errorf("a path that is not there yet: %+v", r)
		}
	}
	if _, err := os.Stat(filepath.Dir(root)); err == nil {
		t.Error("it was made")
	}
	publish(t, open(t, root), id(1))
	if r := RoomAt(root, false); r.Error != "" || r.Bytes <= 0 {
		t.Errorf("a path with a release: %+v", r)
	}
	if err := errors.Join(os.Remove(filepath.Join(root, "current")), os.Mkdir(filepath.Join(root, "current"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if r := RoomAt(root, false); !strings.Contains(r.Error, "current is not a link to a release") {
		t.Errorf("a directory for current: %+v", r)
	}
	if r := RoomAt(root, true); r.Error != "" {
		t.Errorf("in place nobody needs current: %+v", r)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file: file + " is not a directory: move it away", filepath.Join(file, "x"): "not a directory", "relative": "is not a release path",
		"/": "is not a release path", "/srv/../etc": "is not a release path", "": "is not a release path",
	} {
		if r := RoomAt(path, false); !strings.Contains(r.Error, want) {
			t.Errorf("%q: %+v, want %q", path, r, want)
		}
	}
}

// TestRoomOfAUserWithoutRights runs itself again as that user.
func TestRoomOfAUserWithoutRights(t *testing.T) {
	if root := os.Getenv("ROOM_OF"); root != "" {
		os.Stdout.WriteString("said: " + RoomAt(root, os.Getenv("ROOM_IN_PLACE") != "").Error + "\n")
		return
	}
	dir, err := os.MkdirTemp("", "room") // t.TempDir's parents are not for others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	root, exe := filepath.Join(dir, "shop"), filepath.Join(dir, "exe")
	b, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.WriteFile(exe, b, 0o755), os.Mkdir(root, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	say := func(env ...string) string {
		t.Helper()
		cmd := exec.Command(exe, "-test.run=^TestRoomOfAUserWithoutRights$")
		cmd.Env = append(os.Environ(), append([]string{"ROOM_OF=" + root}, env...)...)
		cmd.Dir = "/"
		if os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		out, err := cmd.CombinedOutput()
		_, text, ok := strings.Cut(string(out), "said: ")
		if err != nil || !ok {
			t.Fatalf("%v: %s", err, out)
		}
		text, _, _ = strings.Cut(text, "\n")
		return text
	}
	mode := func(path string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	mode(root, 0o555)
	if got := say(); !strings.Contains(got, "the release path "+root+" cannot be written by ") || !strings.Contains(got, "sudo install -d -o ") {
		t.Errorf("another's path: %s", got)
	}
	if got := say("ROOM_IN_PLACE=1"); !strings.Contains(got, root) {
		t.Errorf("another's site: %s", got)
	}
	mode(root, 0o777)
	if got := say(); got != "" {
		t.Errorf("a path that can be written: %s", got)
	}
	// What an earlier user made is in the way.
	if err := os.Mkdir(filepath.Join(root, "releases"), 0o555); err != nil {
		t.Fatal(err)
	}
	if got := say(); !strings.Contains(got, root+"/releases cannot be written by ") || !strings.Contains(got, "sudo chown -R ") {
		t.Errorf("another's releases: %s", got)
	}
}
