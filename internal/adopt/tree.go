package adopt

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/git"
	"deployhook/internal/release"
)

// tree reads a path with releases/ and current.
func (s *Site) tree() error {
	names, left, err := s.names()
	if err != nil {
		return err
	}
	s.Left = left
	if err := s.live(); err != nil {
		return err
	}
	known, journal, err := release.Knows(s.Path, s.Current)
	if err != nil {
		return reading(s.file(".deployhook", "releases.ndjson"), err)
	}
	s.Known = known && journal
	s.Tool = s.toolOf(names)
	if deploy.ValidReleaseID(s.Current) && !s.Known {
		return fmt.Errorf("%s/current points to a release that deployhook made, and %s does not tell of it: deploy once, or restore that file from a backup", s.Path, s.file(".deployhook", "releases.ndjson"))
	}
	var h history
	switch s.Tool {
	case Capistrano:
		h, err = s.capistrano()
	case Deployer:
		h, err = s.deployer()
	}
	if err != nil {
		return err
	}
	if err := s.take(names, h); err != nil {
		return err
	}
	s.commits(h)
	s.branch(h)
	return s.shared()
}

// history is what a tool wrote down about its deploys.
type history struct {
	order   map[string]int    // by name, the place of its last deploy
	was     map[string]bool   // it is known to have been live
	whole   bool              // what is not in was has not been live
	commits map[string]string // by name, as they were written
	branch  string
	log     string // the file, in sentences
}

// names lists the directories in releases/, and what is there besides.
func (s *Site) names() (names []string, left []Left, err error) {
	dir, err := os.Open(s.file("releases"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s has current and no releases/: name the directory that has both", s.Path)
	}
	if err != nil {
		return nil, nil, reading(s.file("releases"), err)
	}
	defer dir.Close()
	list, err := dir.ReadDir(releasesMost + 1)
	if len(list) == 0 {
		return nil, nil, fmt.Errorf("%s is empty: nothing was deployed there; write release: %s, and the first deploy makes the rest", s.file("releases"), s.Path)
	}
	if err != nil {
		return nil, nil, reading(s.file("releases"), err)
	}
	if len(list) > releasesMost {
		return nil, nil, fmt.Errorf("%s has more than %d entries: remove old ones first", s.file("releases"), releasesMost)
	}
	for _, e := range list {
		switch {
		case e.Type()&fs.ModeSymlink != 0 && e.Name() == "current":
			return nil, nil, fmt.Errorf("%s is there, the link of a switch that Capistrano has not finished: let it finish, or remove the link, and adopt then", s.file("releases", "current"))
		case !e.IsDir():
			left = append(left, Left{e.Name(), "it is no directory"})
		case !deploy.ValidReleaseName(e.Name()):
			left = append(left, Left{e.Name(), "its name is not one that a release can have"})
		default:
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(left, func(a, b Left) int { return cmp.Compare(a.Name, b.Name) })
	return names, left, nil
}

// live finds the release that current points to.
func (s *Site) live() error {
	at := s.file("current")
	target, err := release.CurrentOf(s.Path)
	if err != nil {
		return err
	}
	if target == "" {
		return fmt.Errorf("%s is not there, so nothing is live that could be taken over: write release: %s, and the first deploy makes it", at, s.Path)
	}
	id, ok := strings.CutPrefix(target, "releases/")
	if !ok || !deploy.ValidReleaseName(id) {
		return fmt.Errorf("%s points to %q, which is no release in %s: point it to one first", at, target, s.file("releases"))
	}
	st, err := os.Lstat(s.file("releases", id))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s points to %s, which is not there: point it to a release that is", at, target)
	}
	if err != nil {
		return reading(s.file("releases", id), err)
	}
	if !st.IsDir() {
		return fmt.Errorf("%s points to %s, which is no directory of its own: point it to a release that is", at, target)
	}
	s.Current = id
	return nil
}

// stamp says whether a name is a time, as Capistrano names releases.
func stamp(name string) bool { return len(name) == 14 && strings.Trim(name, "0123456789") == "" }

// toolOf tells whose tree it is, by what lies beside the releases.
func (s *Site) toolOf(names []string) Tool {
	switch {
	case exists(s.file(".dep")):
		return Deployer
	case exists(s.file("revisions.log")), exists(s.file("repo", "HEAD")):
		return Capistrano
	case slices.ContainsFunc(names, stamp):
		return Capistrano
	case s.Known && deploy.ValidReleaseID(s.Current) && !slices.ContainsFunc(names, func(n string) bool { return !deploy.ValidReleaseID(n) }):
		return Ours
	}
	return Other
}

// take decides about each release: what is known to have been live is taken
// over, what is not understood is left alone.
func (s *Site) take(names []string, h history) error {
	names = slices.DeleteFunc(names, deploy.ValidReleaseID) // ours: its journal tells of them
	made := map[string]time.Time{}
	for _, n := range names {
		if st, err := os.Lstat(s.file("releases", n)); err == nil {
			made[n] = st.ModTime()
		}
	}
	slices.SortFunc(names, func(a, b string) int { return s.before(a, b, h, made) })
	at := slices.Index(names, s.Current)
	var used map[string]bool
	for i, n := range names {
		newer := at >= 0 && i > at
		bad := s.Tool == Deployer && exists(s.file("releases", n, "BAD_RELEASE"))
		r := Release{Name: n, State: deploy.ReleaseLive, Newer: newer}
		switch {
		case n == s.Current:
		case bad:
			r.State = deploy.ReleaseBad
		case h.was[n]:
		case newer || h.whole:
			if used == nil {
				used = release.InUse(s.Path)
			}
			if newer && !s.Known && (used[n] || time.Since(made[n]) < settled) {
				return fmt.Errorf("%s was made %s ago and is not live: a deploy seems to be going on; adopt when it has ended, or remove that directory if it has failed", s.file("releases", n), time.Since(made[n]).Round(time.Second))
			}
			why := "it is newer than what is live, and nothing says that it ever was"
			if h.whole {
				why = h.log + " does not say that it was live"
			}
			s.Left = append(s.Left, Left{n, why})
			continue
		}
		s.Releases = append(s.Releases, r)
	}
	if more := len(s.Releases) - adoptMost; more > 0 {
		// What is live stays among them, however old it is.
		var kept []Release
		for i, r := range s.Releases {
			if i >= more || r.Name == s.Current {
				kept = append(kept, r)
			}
		}
		s.Releases = kept
		s.note("%d older releases are left alone: remove them by hand when nobody needs them", more)
	}
	return nil
}

// before orders two releases: as the tool's log has them, else by their
// numbers, else by the time that they were made.
func (s *Site) before(a, b string, h history, made map[string]time.Time) int {
	x, xok := h.order[a]
	y, yok := h.order[b]
	digits := func(n string) bool { return strings.Trim(n, "0123456789") == "" }
	switch {
	case digits(a) && digits(b):
		a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	case xok && yok:
		return cmp.Compare(x, y)
	}
	return cmp.Or(made[a].Compare(made[b]), cmp.Compare(a, b))
}

// shortCommit says whether s is a commit's name cut short.
func shortCommit(s string) bool {
	return len(s) >= 7 && len(s) < 40 && strings.Trim(s, "0123456789abcdef") == ""
}

// commits finds the commit of each release: REVISION in it, a clone in it, or
// the tool's log. A shortened one is looked up in the tool's own mirror.
func (s *Site) commits(h history) {
	var mirror *git.Foreign
	defer func() {
		if mirror != nil {
			mirror.Close()
		}
	}()
	tried := false
	var unknown []string
	for i := range s.Releases {
		r := &s.Releases[i]
		b, err := release.ReadPlain(s.file("releases", r.Name, "REVISION"), revisionMost)
		revision := ""
		if err == nil {
			revision = parseRevision(string(b))
		}
		for _, c := range []string{revision, release.CheckedOut(s.file("releases", r.Name, ".git")), h.commits[r.Name]} {
			if r.Commit != "" {
				break
			}
			if shortCommit(c) {
				if !tried {
					tried = true
					mirror, _ = git.OpenForeign(s.mirror())
				}
				if mirror != nil {
					c = mirror.Full(c)
				}
			}
			if deploy.ValidCommit(c) {
				r.Commit = c
			}
		}
		if r.Name == s.Current {
			s.Commit = r.Commit
		}
		if r.Commit == "" {
			unknown = append(unknown, r.Name)
		}
	}
	if len(unknown) > 0 {
		s.note("nothing says of which commit these are, so going back to them cannot tell which commit it brings: %s", Listed(unknown))
	}
}

// parseRevision reads a file REVISION: a commit alone in its first line.
func parseRevision(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	if first = strings.TrimSpace(first); deploy.ValidCommit(first) || shortCommit(first) {
		return first
	}
	return ""
}

// mirror is where the tool keeps its bare clone.
func (s *Site) mirror() string {
	if s.Tool == Deployer {
		return s.file(".dep", "repo")
	}
	return s.file("repo")
}

// branch finds the repository and the branch.
func (s *Site) branch(h history) {
	for _, dir := range []string{s.mirror(), s.file("releases", s.Current, ".git")} {
		b, err := release.ReadPlain(filepath.Join(dir, "config"), configMost)
		if err != nil {
			continue
		}
		s.origin(originURL(string(b)))
		s.Branch = headBranch(dir)
		break
	}
	if plainBranch(h.branch) {
		s.Branch = h.branch
	}
}

// shownMost is how many names a sentence has.
const shownMost = 20

// Listed shows names that somebody else gave, not all of too many.
func Listed(names []string) string {
	var shown []string
	for _, n := range names[:min(len(names), shownMost)] {
		shown = append(shown, Shown(n))
	}
	text := strings.Join(shown, ", ")
	if more := len(names) - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// Shown is a name as people can read it: in quotes when it has signs that a
// terminal would act upon.
func Shown(name string) string {
	if q := fmt.Sprintf("%q", name); q != `"`+name+`"` || strings.ContainsAny(name, " ") {
		return q
	}
	return name
}
