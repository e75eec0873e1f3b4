package adopt

import (
	"errors"
	"io/fs"
	"regexp"
	"strings"

	"deployhook/internal/deploy"
	"deployhook/internal/release"
)

// Lines of revisions.log. The branch and the user are what somebody typed.
//
// Source: capistrano 3, i18n.rb, revision_log_message and rollback_log_message.
var (
	deployedLine = regexp.MustCompile(`^Branch (.*) \(at ([0-9a-f]+)\) deployed as release ([A-Za-z0-9._+-]+) by`)
	wentBackLine = regexp.MustCompile(`^.* rolled back to release ([A-Za-z0-9._+-]+)$`)
)

// capistrano reads revisions.log, which has a line for each deploy that came
// to its end.
func (s *Site) capistrano() (history, error) {
	name := s.file("revisions.log")
	b, err := release.ReadPlain(name, logMost)
	if errors.Is(err, fs.ErrNotExist) {
		return history{}, nil
	}
	if err != nil {
		return history{}, reading(name, err)
	}
	return parseRevisions(string(b)), nil
}

func parseRevisions(text string) history {
	h := history{order: map[string]int{}, was: map[string]bool{}, commits: map[string]string{}, log: "revisions.log"}
	n := 0
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		n++
		if m := deployedLine.FindStringSubmatch(line); m != nil && (deploy.ValidCommit(m[2]) || shortCommit(m[2])) {
			h.branch, h.whole = m[1], true
			h.order[m[3]], h.was[m[3]], h.commits[m[3]] = n, true, m[2]
		} else if m := wentBackLine.FindStringSubmatch(line); m != nil {
			h.was[m[1]] = true
		}
	}
	return h
}
