package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
)

// RoomAt says whether a release path, or with inPlace a directory that is
// deployed into, can be written by this user, and how much room there is. It
// changes nothing: where the path is not there yet, the directory counts in
// which it would be made.
func RoomAt(root string, inPlace bool) deploy.Room {
	r := deploy.Room{Path: root, Inodes: -1}
	if !filepath.IsAbs(root) || filepath.Clean(root) != root || root == "/" {
		r.Error = fmt.Sprintf("%q is not a release path", root)
		return r
	}
	there, err := nearest(root)
	if err == nil {
		err = writable(root, there, inPlace)
	}
	if err != nil {
		r.Error = err.Error()
	}
	var st unix.Statfs_t
	if err := unix.Statfs(there, &st); err == nil {
		r.Bytes = int64(st.Bavail) * st.Bsize
		// Some file systems have no fixed number of inodes and say zero.
		if st.Files > 0 {
			r.Inodes = int64(st.Ffree)
		}
	}
	return r
}

// nearest is the path itself or, where it is not there, the directory above
// that is.
func nearest(path string) (string, error) {
	for at := path; ; at = filepath.Dir(at) {
		st, err := os.Stat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist) && at != "/":
			continue
		case err != nil:
			return at, sentence(path, err)
		case !st.IsDir():
			return at, fmt.Errorf("%s is not a directory: move it away", at)
		}
		return at, nil
	}
}

// writable looks at all that a deploy writes in.
func writable(root, there string, inPlace bool) error {
	say := sentence
	if inPlace {
		say = siteSentence
	}
	if err := unix.Access(there, unix.W_OK|unix.X_OK); err != nil {
		return say(root, err)
	}
	if there != root || inPlace {
		return nil
	}
	for _, name := range []string{".deployhook", "releases", "shared"} {
		dir := filepath.Join(root, name)
		st, err := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err == nil && !st.IsDir():
			return fmt.Errorf("%s is not a directory: move it away", dir)
		case err == nil:
			err = unix.Access(dir, unix.W_OK|unix.X_OK)
		}
		if errors.Is(err, fs.ErrPermission) && name != "shared" {
			name := userName()
			return fmt.Errorf("%s cannot be written by %s: give it what another user made with: sudo chown -R %s %s", dir, name, name, root)
		}
		if err != nil && name != "shared" { // what is shared may be another's
			return say(root, err)
		}
	}
	if st, err := os.Lstat(filepath.Join(root, "current")); err == nil && st.Mode()&fs.ModeSymlink == 0 {
		return fmt.Errorf("%s/current is not a link to a release: move it away first", root)
	}
	return nil
}
