package adopt

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// sharedMost bounds how many entries of a release are looked at.
const sharedMost = 300_000

// shared finds the links of the live release that lead into shared/: what
// deploy.yaml calls shared dirs and files.
func (s *Site) shared() error {
	real, err := filepath.EvalSymlinks(s.file("shared"))
	if err != nil {
		return nil // nothing is shared
	}
	root := s.file("releases", s.Current)
	var odd []string
	dirs := []string{"."} // the upper ones first
	for seen := 0; len(dirs) > 0; {
		dir := dirs[0]
		dirs = dirs[1:]
		list, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil {
			s.note("%s cannot be read, so links to shared/ in it are not known", filepath.Join(root, dir))
			continue
		}
		if seen += len(list); seen > sharedMost {
			s.note("the live release has more than %d files: look yourself for links to shared/ deep in it", sharedMost)
			break
		}
		for _, e := range list {
			at := filepath.Join(dir, e.Name())
			switch {
			case e.IsDir() && e.Name() != ".git" && e.Name() != "node_modules":
				dirs = append(dirs, at)
			case e.Type()&fs.ModeSymlink != 0:
				if !s.sharedLink(root, at, real) {
					odd = append(odd, at)
				}
			}
		}
	}
	slices.Sort(s.SharedDirs)
	slices.Sort(s.SharedFiles)
	if len(odd) > 0 {
		s.note("these links lead into shared/ under another name, or to what is not there, so deployhook cannot make them: %s", Listed(odd))
	}
	return nil
}

// sharedLink notes a link that leads to what has its own name in shared/. It
// is false for one that leads into shared/ in another way.
func (s *Site) sharedLink(root, at, shared string) bool {
	target, err := os.Readlink(filepath.Join(root, at))
	if err != nil {
		return true
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(filepath.Join(root, at)), target)
	}
	target = filepath.Clean(target)
	if strings.HasPrefix(target, root+"/") {
		return true // to another name of the release, wherever that leads
	}
	name, ok := strings.CutPrefix(target, s.file("shared")+"/")
	if !ok {
		if name, ok = strings.CutPrefix(target, shared+"/"); !ok {
			// By another way, as when the path itself was reached over a link.
			dir, err := filepath.EvalSymlinks(filepath.Dir(target))
			if err != nil {
				return true
			}
			if name, ok = strings.CutPrefix(filepath.Join(dir, filepath.Base(target)), shared+"/"); !ok {
				return true
			}
		}
	}
	st, err := os.Stat(filepath.Join(shared, name))
	if err != nil || name != at || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return false
	}
	if st.IsDir() {
		s.SharedDirs = append(s.SharedDirs, name)
	} else {
		s.SharedFiles = append(s.SharedFiles, name)
	}
	return true
}
