package git

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/transport"
)

const (
	modulesName  = ".gitmodules"
	modulesBytes = 1 << 20 // of such a file
	modulesDeep  = 10      // submodules in one another
)

// modulesMost is how many submodules a commit may have, with those in them.
var modulesMost = 200

// module is an entry of .gitmodules.
type module struct{ name, path, url string }

// modules reads the .gitmodules of the commit, by path.
func (w *walker) modules() (map[string]module, error) {
	if w.mods != nil {
		return w.mods, nil
	}
	list, err := w.list(w.root, "")
	if err != nil {
		return nil, err
	}
	w.mods = map[string]module{}
	e := named(list, modulesName)
	if e == nil {
		return w.mods, nil
	}
	b, err := w.blob(e.hash, modulesBytes)
	if err == nil {
		w.mods, err = parseModules(string(b))
	}
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", modulesName, w.m.remote.Repository, err)
	}
	return w.mods, nil
}

// parseModules reads a .gitmodules file. What git refuses to use, for where it
// leads or for what it would run, is refused.
//
// Source: gitmodules(5), and git's submodule-config.c.
func parseModules(text string) (map[string]module, error) {
	lines, err := parseConfig(text)
	if err != nil {
		return nil, err
	}
	byName := map[string]*module{}
	var order []*module
	for _, l := range lines {
		if l.name != "submodule" || l.sub == "" {
			continue
		}
		m := byName[l.sub]
		if m == nil {
			m = &module{name: l.sub}
			byName[l.sub], order = m, append(order, m)
		}
		switch l.key {
		case "path":
			m.path = l.value
		case "url":
			m.url = l.value
		}
	}
	mods := map[string]module{}
	for _, m := range order {
		if leadsOut(m.name) {
			return nil, fmt.Errorf("the name %q leads out of where submodules are kept", cut(m.name))
		}
		if m.path == "" {
			continue // of no use, and no harm
		}
		clean := strings.TrimSuffix(m.path, "/")
		if leadsOut(clean) || path.IsAbs(clean) || path.Clean(clean) != clean || clean == "." {
			return nil, fmt.Errorf("the path %q leads out of the repository", cut(m.path))
		}
		for _, part := range strings.Split(clean, "/") {
			if err := validEntry(part); err != nil {
				return nil, fmt.Errorf("the path %q: %w", cut(m.path), err)
			}
		}
		mods[clean] = *m
	}
	return mods, nil
}

// leadsOut says whether .. is part of a name.
func leadsOut(name string) bool {
	for _, part := range strings.FieldsFunc(name, func(r rune) bool { return r == '/' || r == '\\' }) {
		if part == ".." {
			return true
		}
	}
	return false
}

// submodule walks the submodule at a path. One that .gitmodules does not name
// is passed by, as a clone leaves its directory empty.
func (w *walker) submodule(e entry, path, delivered string) error {
	name := w.m.remote.Repository
	if w.alone {
		return nil
	}
	mods, err := w.modules()
	if err != nil {
		return err
	}
	mod, ok := mods[path]
	if !ok {
		w.m.m.log.Warn("a submodule that .gitmodules does not name is left out", "repo", name, "commit", w.commit, "path", path)
		return nil
	}
	if *w.count++; *w.count > modulesMost || w.depth == modulesDeep {
		return fmt.Errorf("%s has more than %d submodules, or more than %d in one another", name, modulesMost, modulesDeep)
	}
	sub, err := w.m.submodule(mod.url)
	if err != nil {
		return fmt.Errorf("the submodule %q of %s: %w", cut(path), name, err)
	}
	commit := e.hash.String()
	got, err := sub.Fetch(w.ctx, commit, "")
	if err == nil && got != commit {
		err = fmt.Errorf("%s is a tag of %s, and a commit is wanted", commit, sub.remote.Repository)
	}
	if err != nil {
		if w.ctx.Err() != nil {
			return err
		}
		return fmt.Errorf("the submodule %q of %s: %w", cut(path), name, err)
	}
	return w.in(sub, commit, delivered)
}

// in walks a submodule's commit below a path.
func (w *walker) in(sub *Mirror, commit, delivered string) error {
	if w.ahead != nil { // what comes before it is given before it
		if err := w.ahead.rest(); err != nil {
			return err
		}
	}
	s := &walker{ctx: w.ctx, m: sub, commit: commit, x: w.x, fn: w.fn, give: w.give, files: w.files, count: w.count, depth: w.depth + 1, prefix: delivered + "/"}
	return s.run("")
}

// submodule gives the mirror of a submodule's repository, by the address that
// .gitmodules has. A login goes to it only where it is the one of the
// repository: the same scheme, host and port.
func (m *Mirror) submodule(address string) (*Mirror, error) {
	full, err := m.resolve(address)
	if err != nil {
		return nil, err
	}
	r := Remote{URL: full, Depth: m.remote.Depth, KnownHosts: m.remote.KnownHosts, Repository: path.Base(strings.TrimSuffix(full, ".git"))}
	if filepath.IsAbs(full) {
		return m.m.Mirror(r), nil
	}
	ep, err := transport.NewEndpoint(full)
	if err != nil {
		return nil, errors.New("its url cannot be read")
	}
	switch ep.Protocol {
	case "https", "http", "ssh":
		r.Repository = cut(ep.Host + "/" + strings.Trim(strings.TrimSuffix(ep.Path, ".git"), "/"))
	case "file":
		if !m.isLocal() {
			return nil, fmt.Errorf("its url is a path on this machine, which only a repository on this machine may name")
		}
	default:
		return nil, fmt.Errorf("its url begins with %s:, and only https, http and ssh are fetched", cut(ep.Protocol))
	}
	home, err := transport.NewEndpoint(m.remote.URL)
	if err != nil || m.isLocal() {
		return m.m.Mirror(r), nil
	}
	if sameHost(ep, home) {
		r.Username, r.Token, r.SSHKey = m.remote.Username, m.remote.Token, m.remote.SSHKey
		return m.m.Mirror(r), nil
	}
	if ep.Protocol == "ssh" {
		return nil, fmt.Errorf("its url is ssh at %s, and the key of the repository is sent to no other host, scheme or port: write a relative url, like ../%s.git, or an https one", cut(ep.Host), path.Base(r.Repository))
	}
	return m.m.Mirror(r), nil
}

// isLocal says whether the repository is on this machine.
func (m *Mirror) isLocal() bool {
	return filepath.IsAbs(m.remote.URL) || strings.HasPrefix(m.remote.URL, "file://")
}

func sameHost(a, b *transport.Endpoint) bool {
	port := func(e *transport.Endpoint) int {
		if e.Port != 0 {
			return e.Port
		}
		return map[string]int{"http": 80, "https": 443, "ssh": 22}[e.Protocol]
	}
	return a.Protocol == b.Protocol && strings.EqualFold(a.Host, b.Host) && port(a) == port(b)
}

// resolve gives the whole address of a submodule: what begins with ./ or ../
// goes on from the repository's own.
//
// Source: git-submodule(1), "add", and git's resolve_relative_url (remote.c).
func (m *Mirror) resolve(address string) (string, error) {
	if strings.HasPrefix(address, "./") || strings.HasPrefix(address, "../") {
		base := strings.TrimRight(m.remote.URL, "/")
		sep, rest := "/", address
		for {
			var up bool
			if rest, up = strings.CutPrefix(rest, "../"); up {
				i := strings.LastIndexByte(base, '/')
				if c := strings.LastIndexByte(base, ':'); i < 0 && c > 0 {
					i, sep = c, ":"
				}
				if i <= 0 || base[i-1] == '/' || base[i-1] == ':' && base[i] == '/' {
					return "", fmt.Errorf("its url %q goes up beyond the repository's host", cut(address))
				}
				base = base[:i]
				continue
			}
			var here bool
			if rest, here = strings.CutPrefix(rest, "./"); !here {
				break
			}
		}
		if rest == "" || rest == ".." || leadsOut(rest) {
			return "", fmt.Errorf("its url %q leads to no repository", cut(address))
		}
		if err := noOption(rest); err != nil {
			return "", err
		}
		return base + sep + strings.TrimRight(rest, "/"), nil
	}
	if err := validAddress(address); err != nil {
		return "", err
	}
	if filepath.IsAbs(address) && !m.isLocal() {
		return "", errors.New("its url is a path on this machine, which only a repository on this machine may name")
	}
	return address, nil
}

// validAddress refuses addresses that git would run something for.
func validAddress(address string) error {
	scheme, _, _ := strings.Cut(address, "/")
	switch {
	case address == "":
		return errors.New(modulesName + " has no url for it")
	case strings.Contains(scheme, "::"):
		return fmt.Errorf("its url %q would have a program run to fetch it", cut(address))
	case !strings.HasPrefix(address, "-") && !strings.Contains(address, "/") && !strings.Contains(address, ":"):
		return fmt.Errorf("its url %q is none: write https://… or one that begins with ./ or ../", cut(address))
	}
	return noOption(address)
}

// noOption refuses what a program could take for an option, and what says one
// thing and means another.
func noOption(address string) error {
	plain, err := url.PathUnescape(address)
	if err != nil {
		plain = address
	}
	switch {
	case strings.HasPrefix(address, "-"), strings.Contains(address, "/-"), strings.Contains(address, "@-"), strings.Contains(address, ":-"):
		return fmt.Errorf("its url %q has a part that begins like an option", cut(address))
	case strings.ContainsFunc(plain, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return errors.New("its url has control characters in it")
	}
	return nil
}
