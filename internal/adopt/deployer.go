package adopt

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/release"
)

// deployer reads what Deployer keeps in .dep. A deploy that is going on is an
// error.
//
// Source: deployer 7, recipe/deploy/release.php and lock.php; 6 wrote
// .dep/releases, with lines like 20200102030405,12.
func (s *Site) deployer() (history, error) {
	lock := s.file(".dep", "deploy.lock")
	if exists(lock) && !s.Known {
		by := ""
		if b, err := release.ReadPlain(lock, revisionMost); err == nil {
			if by = strings.TrimSpace(string(b)); by != "" {
				by = " by " + Shown(by)
			}
		}
		return history{}, fmt.Errorf("%s is there: a deploy of Deployer is going on, or was cut short%s; adopt when it has ended, or after: dep deploy:unlock", lock, by)
	}
	if target, err := os.Readlink(s.file("release")); err == nil && !s.Known {
		name := filepath.Base(target)
		if st, err := os.Stat(s.file("releases", name)); err == nil && time.Since(st.ModTime()) < settled {
			return history{}, fmt.Errorf("%s points to a release that was made %s ago: a deploy of Deployer seems to be going on; adopt when it has ended, or remove that link if it has failed", s.file("release"), time.Since(st.ModTime()).Round(time.Second))
		}
		s.note("Deployer did not finish %s: it is left alone, and so is the link release", Shown(target))
	}
	for _, name := range []string{"releases_log", "releases"} {
		b, err := release.ReadPlain(s.file(".dep", name), logMost)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return history{}, reading(s.file(".dep", name), err)
		}
		return parseReleasesLog(string(b)), nil
	}
	return history{}, nil
}

// parseReleasesLog reads lines that Deployer wrote when it began a release:
// they tell the order, and not whether it ever was live.
func parseReleasesLog(text string) history {
	h := history{order: map[string]int{}, commits: map[string]string{}, log: ".dep/releases_log"}
	n := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		n++
		var l struct {
			Name     string `json:"release_name"`
			Target   string `json:"target"`
			Revision string `json:"revision"`
		}
		if strings.HasPrefix(line, "{") {
			if json.Unmarshal([]byte(line), &l) != nil {
				continue
			}
		} else if _, name, ok := strings.Cut(line, ","); ok {
			l.Name, _, _ = strings.Cut(name, ",")
		}
		if l.Name == "" {
			continue
		}
		h.order[l.Name] = n
		if l.Target != "" && l.Target != "HEAD" {
			h.branch = l.Target
		}
		if deploy.ValidCommit(l.Revision) {
			h.commits[l.Name] = l.Revision
		}
	}
	return h
}
