// Package adopt reads what other tools left on this machine, a tree of
// Capistrano or Deployer or a plain clone, and says how deployhook takes it
// over: what is live is only looked at.
package adopt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/release"
)

// Bounds of what is read.
const (
	logMost      = 16 << 20 // bytes of revisions.log and releases_log
	configMost   = 1 << 20  // of a git config
	refsMost     = 8 << 20  // of HEAD and packed-refs
	revisionMost = 4 << 10  // of REVISION
	releasesMost = 20_000   // names in releases/
	adoptMost    = 200      // releases that are taken over: the newest ones
)

// settled is how long ago a release that is not live must have been made: one
// that was made later may be a deploy that is going on.
const settled = 10 * time.Minute

// Tool is what made a tree.
type Tool string

// The tools.
const (
	Capistrano Tool = "Capistrano"
	Deployer   Tool = "Deployer"
	Other      Tool = "another tool" // releases/ and current, and no sign of whose they are
	Clone      Tool = "git"          // a plain clone
	Ours       Tool = "deployhook"
)

// Site is what stands at a path.
type Site struct {
	Tool    Tool
	Path    string // absolute, links resolved
	Known   bool   // the journal tells of what is live already
	Current string // name of the release that is live; empty for a clone
	Commit  string // of what is live; empty = not known

	Releases []Release // that are taken over, the oldest first
	Left     []Left    // that are left alone
	Notes    []string  // sentences for whoever adopts

	Repository string // as deploy.yaml names it; empty = not known
	Identity   string // as the journal names it
	CloneURL   string // where it is fetched from, when that is not told by the name
	SSH        bool   // it was fetched over SSH
	Branch     string // that was deployed; empty = not known

	SharedDirs, SharedFiles []string
	Changed                 []string // of a clone: tracked files that are not those of the commit
	Removed                 int      // of a clone: tracked files that are not there
}

// Release is one that another tool made.
type Release struct {
	Name, Commit string
	State        deploy.ReleaseState // live or bad
	Newer        bool                // than the one that is live: it was gone back from
}

// Left is a release that is left alone, and why.
type Left struct{ Name, Why string }

// Look reads what stands at a path. Its errors are one sentence each, with
// what to do.
func Look(ctx context.Context, path string) (*Site, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return nil, reading(abs, err)
	}
	st, err := os.Stat(real)
	if err != nil {
		return nil, reading(abs, err)
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("%s is not a directory: name the one with releases/ and current in it, or a clone", abs)
	}
	if _, err := os.ReadDir(real); err != nil {
		return nil, reading(real, err)
	}
	s := &Site{Path: real}
	if real != abs {
		s.note("%s leads to %s, which is the path to write into deploy.yaml", abs, real)
	}
	_, rerr := os.Stat(filepath.Join(real, "releases"))
	_, cerr := os.Lstat(filepath.Join(real, "current"))
	switch {
	case exists(filepath.Join(real, ".git")) && (rerr != nil || cerr != nil):
		err = s.clone(ctx) // releases may be a directory of its commit
	case rerr == nil || cerr == nil:
		err = s.tree()
	case errors.Is(rerr, fs.ErrPermission):
		err = reading(real, rerr)
	default:
		err = fmt.Errorf("%s has neither releases/ and current nor .git: there is nothing to take over; for files that were copied there write strategy: in_place, for a new path release: %s", real, real)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Site) note(format string, args ...any) {
	s.Notes = append(s.Notes, fmt.Sprintf(format, args...))
}

func (s *Site) file(names ...string) string {
	return filepath.Join(append([]string{s.Path}, names...)...)
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// reading says what keeps a path from being read.
func reading(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is not there, or leads nowhere", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s cannot be read by this user: run deployhook adopt with sudo", path)
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("reading %s: %w", path, err)
}

// Lines are what the journal has to be told, in an order that makes a stack of
// what was live: what is live now is its top, whatever is newer.
func (s *Site) Lines() []deploy.ReleaseLine {
	line := func(r Release) deploy.ReleaseLine {
		return deploy.ReleaseLine{Release: r.Name, State: r.State, Repository: s.Identity, Commit: r.Commit}
	}
	var lines []deploy.ReleaseLine
	var live Release
	for _, r := range s.Releases {
		if r.Name == s.Current {
			live = r
		}
		lines = append(lines, line(r))
		if r.Newer && r.State == deploy.ReleaseLive {
			back := line(live)
			back.Pops = true
			lines = append(lines, back)
		}
	}
	return lines
}

// Plan gives what Write would write, and writes nothing.
func (s *Site) Plan() ([]deploy.ReleaseLine, error) {
	if s.Tool == Clone || s.Known {
		return nil, nil
	}
	return release.AdoptPlan(s.Path, s.Lines())
}

// Write tells the path's journal of the releases, with its lock, and gives the
// lines that it wrote. Of a clone there is nothing to write: the first deploy
// reads it by itself.
func (s *Site) Write(ctx context.Context, u *User) ([]deploy.ReleaseLine, error) {
	if s.Tool == Clone || s.Known {
		return nil, nil
	}
	var owner *release.Ownership
	if u.UID != os.Geteuid() {
		owner = &release.Ownership{UID: u.UID, GID: u.GID}
	}
	return release.Adopt(ctx, s.Path, s.Current, s.Lines(), owner)
}

// User is whom deploys run as.
type User struct {
	Name     string
	UID, GID int
	groups   map[int]bool
}

// defaultUser is whom packages and init make for deploy jobs.
const defaultUser = "deploy"

// UserOf finds a user by name. Without one it is deploy, where there is such a
// user, else the owner of the path.
func UserOf(name, path string) (*User, error) {
	var found *user.User
	var err error
	if name != "" {
		if found, err = user.Lookup(name); err != nil {
			return nil, fmt.Errorf("there is no user %q on this machine: name the one that deploys with --user", name)
		}
	} else if found, err = user.Lookup(defaultUser); err != nil {
		uid, gid, err := ownerOf(path)
		if err != nil {
			return nil, reading(path, err)
		}
		if found, err = user.LookupId(strconv.Itoa(uid)); err != nil {
			return &User{Name: strconv.Itoa(uid), UID: uid, GID: gid}, nil
		}
	}
	u := &User{Name: found.Username, groups: map[int]bool{}}
	u.UID, err = strconv.Atoi(found.Uid)
	var gerr error
	u.GID, gerr = strconv.Atoi(found.Gid)
	if err := errors.Join(err, gerr); err != nil {
		return nil, err
	}
	ids, _ := found.GroupIds() // those that cannot be told grant nothing
	for _, id := range ids {
		if n, err := strconv.Atoi(id); err == nil {
			u.groups[n] = true
		}
	}
	return u, nil
}

// MayWrite says whether the user may write into a directory, by owner, group
// and mode: access lists are not looked at.
func (u *User) MayWrite(dir string) bool {
	st, err := os.Stat(dir)
	if err != nil {
		return false
	}
	uid, gid, err := ownerOf(dir)
	if err != nil {
		return false
	}
	mode := st.Mode().Perm()
	switch {
	case u.UID == 0:
		return true
	case uid == u.UID:
		return mode&0o300 == 0o300
	case gid == u.GID || u.groups[gid]:
		return mode&0o030 == 0o030
	}
	return mode&0o003 == 0o003
}

// Chown gives the commands that let the user deploy to the site: never for
// what the application wrote into shared/.
func (s *Site) Chown(u *User) []string {
	if s.Tool == Clone {
		if uid, _, err := ownerOf(s.Path); err == nil && uid != u.UID && !u.MayWrite(s.Path) {
			return []string{"sudo chown -R " + u.Name + " " + shell(s.Path)}
		}
		return nil
	}
	var dirs, commands []string
	for _, name := range []string{"", "releases", "shared"} {
		if dir := s.file(name); exists(dir) && !u.MayWrite(dir) {
			dirs = append(dirs, shell(dir))
		}
	}
	if journal := s.file(".deployhook"); exists(journal) && !u.MayWrite(journal) {
		commands = append(commands, "sudo chown -R "+u.Name+" "+shell(journal))
	}
	if len(dirs) > 0 {
		commands = append(commands, "sudo chown "+u.Name+" "+strings.Join(dirs, " "))
	}
	for _, r := range s.Releases {
		// A directory that is moved away must be writable itself.
		if dir := s.file("releases", r.Name); exists(dir) && !u.MayWrite(dir) {
			return append(commands, "sudo chown -R -h "+u.Name+" "+shell(s.file("releases"))+"/*/   # so that old releases can be pruned")
		}
	}
	return commands
}

// shell quotes a word for a shell, where it needs that.
func shell(word string) string {
	if strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+@") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
