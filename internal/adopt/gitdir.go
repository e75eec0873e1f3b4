package adopt

import (
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
	"deployhook/internal/release"
)

// branchForm is a branch that a pattern of deploy.yaml can name: no sign of it
// stands for others.
var branchForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./@+-]*$`)

const branchMost = 200 // bytes

// plainBranch says whether a word can be a branch: no commit, and no pattern.
func plainBranch(name string) bool {
	return len(name) <= branchMost && branchForm.MatchString(name) && !deploy.ValidCommit(name) && name != "HEAD"
}

// headBranch is the branch that HEAD of a git directory names; empty when it
// names none.
func headBranch(dir string) string {
	for _, name := range []string{"HEAD", "refs/remotes/origin/HEAD"} {
		b, err := release.ReadPlain(filepath.Join(dir, name), refsMost)
		if err != nil {
			continue
		}
		if branch := parseHead(string(b)); branch != "" {
			return branch
		}
	}
	return ""
}

// parseHead reads the branch out of HEAD.
func parseHead(text string) string {
	for _, prefix := range []string{"ref: refs/heads/", "ref: refs/remotes/origin/"} {
		if branch, ok := strings.CutPrefix(strings.TrimSpace(text), prefix); ok && plainBranch(branch) {
			return branch
		}
	}
	return ""
}

// originURL reads where a repository was cloned from out of its config: of the
// remote origin, else of the first that has an address.
//
// Source: git-config, "Configuration file", "Syntax".
func originURL(text string) string {
	first, section := "", ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			head, rest, ok := strings.Cut(line[1:], "]")
			if !ok {
				continue
			}
			section, line = strings.TrimSpace(head), strings.TrimSpace(rest)
		}
		kind, name, _ := strings.Cut(section, " ")
		key, value, ok := strings.Cut(line, "=")
		if !ok || !strings.EqualFold(kind, "remote") || !strings.EqualFold(strings.TrimSpace(key), "url") {
			continue
		}
		value = configValue(value)
		if value == "" {
			continue
		}
		if strings.TrimSpace(name) == `"origin"` {
			return value
		}
		if first == "" {
			first = value
		}
	}
	return first
}

// configValue takes quotes and comments off a value.
func configValue(text string) string {
	var b strings.Builder
	quoted := false
	text = strings.TrimSpace(text)
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		case (c == '#' || c == ';') && !quoted:
			return strings.TrimSpace(b.String())
		default:
			b.WriteByte(c)
		}
	}
	return strings.TrimSpace(b.String())
}

// origin takes from an address what deploy.yaml needs. A login in it is
// dropped, and never shown.
func (s *Site) origin(address string) {
	path := strings.TrimPrefix(address, "file://")
	switch {
	case address == "":
		return
	case filepath.IsAbs(path):
		s.CloneURL = filepath.Clean(path)
		return
	}
	name, ssh := nameOf(address)
	id, err := config.RepositoryID(name)
	line := deploy.ReleaseLine{Release: "1", State: deploy.ReleaseLive, Repository: id}
	if err != nil || !line.Valid() {
		s.note("the address that the repository was cloned from is none that deployhook fetches from: write repository yourself")
		return
	}
	s.Repository, s.Identity, s.SSH = name, id, ssh
	if plain, http := strings.CutPrefix(address, "http://"); http {
		if _, rest, ok := strings.Cut(plain, "@"); ok {
			plain = rest
		}
		s.Repository = "http://" + plain
	} else if port := sshAddress(address); port != "" {
		s.CloneURL = port
	}
}

// nameOf gives host and path of an address, as deploy.yaml names a repository.
func nameOf(address string) (name string, ssh bool) {
	host, path := "", ""
	if strings.Contains(address, "://") {
		u, err := url.Parse(address)
		if err != nil {
			return "", false
		}
		ssh = u.Scheme == "ssh" || u.Scheme == "git+ssh"
		if host, path = u.Host, u.Path; ssh {
			host = u.Hostname()
		}
	} else {
		// user@host:path, as scp has it
		before, after, ok := strings.Cut(address, ":")
		if !ok {
			return "", false
		}
		if _, h, ok := strings.Cut(before, "@"); ok {
			before = h
		}
		host, path, ssh = before, after, true
	}
	return fmt.Sprintf("%s/%s", host, strings.TrimSuffix(strings.Trim(path, "/"), ".git")), ssh
}

// sshAddress is an address over SSH that cannot be told from the repository's
// name: with a port, or with another user than git. It has no password.
func sshAddress(address string) string {
	if u, err := url.Parse(address); err == nil && u.Scheme == "ssh" {
		if _, secret := u.User.Password(); !secret && (u.Port() != "" || u.User.Username() != "git") {
			return address
		}
		return ""
	}
	if user, _, ok := strings.Cut(address, "@"); ok && !strings.Contains(address, "://") && user != "git" && user != "" && !strings.ContainsAny(user, ":/") {
		return address
	}
	return ""
}
