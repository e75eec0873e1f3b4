package release

import (
	"bufio"
	"crypto/sha1" // git's ids are SHA-1
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"deployhook/internal/deploy"
)

// Stage notes where the new files will be written under temporary names, so
// that they are found after a crash, and that this deploy is being made.
func (p *InPlace) Stage() error {
	pl := p.plan
	if pl == nil {
		return errNoPlan
	}
	pl.dirs.back(0) // what was opened may have been moved
	if pl.writes > 0 {
		dirs := map[string]bool{}
		text := strings.Builder{}
		fmt.Fprintln(&text, pl.prefix)
		for i := range pl.files {
			if f := &pl.files[i]; !f.keep && !dirs[path.Dir(f.temp)] {
				dirs[path.Dir(f.temp)] = true
				fmt.Fprintln(&text, strconv.Quote(path.Dir(f.temp)))
			}
		}
		if err := p.replace("staged", []byte(text.String())); err != nil {
			return err
		}
	}
	// One that was live stays known as that, whatever becomes of a rollback to it.
	lines, err := p.readLines()
	if err == nil && !wasLive(lines, p.spec.Release) {
		err = p.line(p.about(p.spec, deploy.ReleasePreparing))
	}
	reached("in-place-staging")
	return err
}

func wasLive(lines []deploy.ReleaseLine, release string) bool {
	return slices.ContainsFunc(lines, func(l deploy.ReleaseLine) bool { return l.Release == release && l.State == deploy.ReleaseLive })
}

// Write writes a new file beside the place where it will stand. Nobody but its
// owner can read it until then.
func (p *InPlace) Write(f deploy.TreeFile, content io.Reader) error {
	pl := p.plan
	if pl == nil {
		return errNoPlan
	}
	i, ok := pl.index[f.Path]
	if !ok || pl.files[i].keep || pl.files[i].ino != 0 {
		return fmt.Errorf("%q was not asked for", f.Path)
	}
	n := &pl.files[i]
	if f.Size != n.size || f.Mode != n.mode {
		return fmt.Errorf("%q is not the file that was told of", f.Path)
	}
	in, reached, err := pl.dirs.at(path.Dir(n.temp))
	if err != nil {
		return fmt.Errorf("writing in %s: %w", path.Join(p.path, reached), err)
	}
	id, err := writeTemp(in, path.Base(n.temp), n, content)
	if err != nil {
		return siteSentence(p.path, fmt.Errorf("writing %q: %w", f.Path, err))
	}
	if id != n.blob {
		return fmt.Errorf("what was sent for %q is not its content", f.Path)
	}
	st, err := in.Lstat(path.Base(n.temp))
	if err != nil {
		return err
	}
	n.ino = st.Sys().(*syscall.Stat_t).Ino
	reached1(i)
	return nil
}

// reached1 is a moment after the first file and one after some.
func reached1(i int) {
	switch i {
	case 0:
		reached("in-place-wrote-first")
	case 3:
		reached("in-place-wrote-some")
	}
}

func writeTemp(in *os.Root, name string, n *planned, content io.Reader) (id [sha1.Size]byte, err error) {
	sum := NewBlob(n.size)
	if n.mode == deploy.TreeSymlink {
		target, err := io.ReadAll(content)
		if err != nil {
			return id, err
		}
		sum.Write(target)
		copy(id[:], sum.Sum(nil))
		return id, in.Symlink(string(target), name)
	}
	file, err := in.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return id, err
	}
	_, err = io.Copy(io.MultiWriter(file, sum), content)
	copy(id[:], sum.Sum(nil))
	return id, errors.Join(err, file.Close())
}

// Discard removes what was written for a change that is not made.
func (p *InPlace) Discard() error {
	if p.plan == nil {
		return nil
	}
	p.plan.dirs.close()
	p.plan = nil
	return errors.Join(p.unstage(), p.dropPreparing())
}

// stagedBytes bounds the list of directories with temporary files.
const stagedBytes = 256 << 20

var stagedPrefix = regexp.MustCompile(`^\.deployhook-[0-9a-f]{16}-$`)

// unstage removes the temporary files that a change left, by the list that was
// made before the first of them. A list that cannot be read is forgotten: its
// files are in nobody's way.
func (p *InPlace) unstage() error {
	b, err := readBounded(p.file("staged"), stagedBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	prefix, list, err := parseStaged(string(b))
	if err == nil {
		if err := p.removeStaged(prefix, list); err != nil {
			return err
		}
	}
	if err := os.Remove(p.file("staged")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// parseStaged reads the list of directories with temporary files.
func parseStaged(text string) (prefix string, dirs []string, err error) {
	sc := bufio.NewScanner(strings.NewReader(text))
	sc.Buffer(make([]byte, 4096), manifestLine)
	if !sc.Scan() || !stagedPrefix.MatchString(sc.Text()) {
		return "", nil, errors.New("it has no prefix")
	}
	prefix = sc.Text()
	for sc.Scan() {
		dir, err := strconv.Unquote(sc.Text())
		if err == nil && dir != "." {
			err = ValidTreePath(dir)
		}
		if err != nil {
			return "", nil, err
		}
		dirs = append(dirs, dir)
	}
	return prefix, dirs, sc.Err()
}

func (p *InPlace) removeStaged(prefix string, list []string) error {
	d, err := openDirs(p.path)
	if err != nil {
		return err
	}
	defer d.close()
	slices.Sort(list)
	for _, dir := range list {
		in, _, err := d.at(dir)
		if err != nil {
			continue // it is away, and they with it
		}
		names, err := namesIn(in)
		if err != nil {
			return err
		}
		for _, name := range names {
			if strings.HasPrefix(name, prefix) {
				if err := in.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
		}
	}
	return nil
}

func namesIn(in *os.Root) ([]string, error) {
	f, err := in.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}
