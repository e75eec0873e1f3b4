package config

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"deployhook/internal/deploy"
)

// releaseUse is a job's use of a release path.
type releaseUse struct {
	pipeline, job, repository, path string
	hosts                           []string
	inPlace                         bool
	node                            *node
}

// release reads the section release, or its short form, a path.
func (b *builder) release(p *deploy.Pipeline, job *deploy.Job, n *node, pipeline *node) *deploy.ReleaseSpec {
	r := &deploy.ReleaseSpec{Path: n.text, Keep: keep, KeepFailed: keepFailed}
	at := n
	if n.keys != nil {
		if b.absent(n, "path") {
			b.bad(n, "path is missing")
		}
		at = n.get("path")
		r.Path = n.str("path", "")
		r.Keep, r.KeepFailed = numberOf(n.get("keep"), keep), numberOf(n.get("keep_failed"), keepFailed)
		shared := n.get("shared")
		r.SharedDirs, r.SharedFiles = b.sharedPaths(shared.get("dirs")), b.sharedPaths(shared.get("files"))
		b.sharedApart(shared)
		r.InPlace = n.str("strategy", "") == "in_place"
		r.Overwrite = n.str("overwrite", "false") == "true"
		r.Subdir = b.subdir(n.get("subdir"))
		b.inPlace(r, n)
	}
	if at != nil {
		if why := badReleasePath(r.Path); why != "" {
			b.bad(at, "%s", why)
		} else {
			b.places = append(b.places, releaseUse{p.Name, job.Name, p.Repository, r.Path, job.Hosts, r.InPlace, at})
		}
	}
	if b.absent(pipeline, "repository") {
		b.bad(n, "a release is made of a commit: the pipeline's repository is missing")
	}
	return r
}

// inPlace checks what goes with a deploy in place, and says what it does not promise.
func (b *builder) inPlace(r *deploy.ReleaseSpec, n *node) {
	if !r.InPlace {
		if o := n.get("overwrite"); o != nil && !b.within(n.path+".strategy") {
			b.bad(o, "overwrite goes with strategy: in_place: a release of its own has nothing to overwrite")
		}
		return
	}
	if shared := n.get("shared"); shared != nil {
		b.bad(shared, "with strategy: in_place nothing is shared: files that are not of the commit stay where they are")
	}
	b.warn(n.get("strategy"), "in place, the site is neither all old nor all new while files change, and a failed step or restart is not put back by itself; rollback deploys the earlier commit again")
}

// subdir reads the directory of the repository that is released.
func (b *builder) subdir(n *node) string {
	if n == nil || b.within(n.path) {
		return ""
	}
	clean := path.Clean(n.text)
	if !localPath(n.text) || clean == "." || slices.ContainsFunc(strings.Split(clean, "/"), func(s string) bool { return strings.EqualFold(s, ".git") }) {
		b.bad(n, "a directory of the repository is wanted here, like web or apps/shop, not %q", short(n.text))
		return ""
	}
	return clean
}

// badReleasePath says why releases may not be kept there; empty = they may.
func badReleasePath(p string) string {
	switch {
	case strings.HasPrefix(p, "~"):
		return "~ stands for no home directory here: an absolute path is wanted, like /srv/shop"
	case !path.IsAbs(p):
		return fmt.Sprintf("an absolute path is wanted here, like /srv/shop, not %q", short(p))
	case p == "/":
		return "the root directory cannot hold releases: write a path of its own, like /srv/shop"
	case len(p) >= 4096:
		return "this path is too long"
	case strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f || r == ':' || r == ',' }):
		// Colons and commas would be signs in PATH and in lists.
		return fmt.Sprintf("a path without colons, commas and control characters is wanted here, not %q", short(p))
	case path.Clean(p) != p:
		return fmt.Sprintf("write %q: a path without . and .., and without a slash too many", short(path.Clean(p)))
	}
	return ""
}

func (b *builder) sharedPaths(n *node) []string {
	if n == nil {
		return nil
	}
	var list []string
	for _, i := range n.items {
		clean := path.Clean(i.text)
		if !localPath(i.text) || clean == "." {
			b.bad(i, "a path below the release is wanted here, not %q", short(i.text))
			continue
		}
		list = append(list, clean)
	}
	return list
}

// sharedApart refuses one shared path within another: its link would be made
// in what all releases share.
func (b *builder) sharedApart(shared *node) {
	var all []*node
	for _, key := range []string{"dirs", "files"} {
		if k := shared.get(key); k != nil && !b.within(k.path) {
			all = append(all, k.items...)
		}
	}
	b.apart(all, "shared")
}

// apart refuses paths that stand twice, or lie within each other.
func (b *builder) apart(all []*node, what string) {
	for i, x := range all {
		for _, first := range all[:i] {
			a, c := path.Clean(first.text), path.Clean(x.text)
			if a == c || strings.HasPrefix(c, a+"/") || strings.HasPrefix(a, c+"/") {
				if a == c {
					b.bad(x, "%s stands here twice", short(a))
				} else {
					b.bad(x, "%s and %s are %s: one is within the other", short(a), short(c), what)
				}
				break
			}
		}
	}
}

// releaseParts are the names that deployhook keeps in a release path.
var releaseParts = []string{"releases", "shared", "current", ".deployhook"}

// releasePaths looks for two that deploy to one place.
func (b *builder) releasePaths() {
	for i, u := range b.places {
		for _, first := range b.places[:i] {
			if !slices.ContainsFunc(u.hosts, func(h string) bool { return slices.Contains(first.hosts, h) }) {
				continue // a path of another machine
			}
			rest, below := strings.CutPrefix(u.path, first.path+"/")
			upper := first
			if !below {
				rest, below = strings.CutPrefix(first.path, u.path+"/")
				upper = u
			}
			part, _, _ := strings.Cut(rest, "/")
			known := first.repository != "" && u.repository != ""
			switch {
			case below && !upper.inPlace && slices.Contains(releaseParts, part):
				b.bad(u.node, "%s and %s: one lies within %s, which deployhook keeps", first.path, u.path, path.Join(upper.path, part))
			case u.path != first.path:
				continue
			case u.inPlace != first.inPlace:
				b.bad(u.node, "job %s of pipeline %s deploys here with another strategy", first.job, first.pipeline)
			case u.repository == first.repository && known:
				b.warn(u.node, "job %s of pipeline %s deploys here too", first.job, first.pipeline)
			case known:
				b.bad(u.node, "pipeline %s deploys another repository to %s", first.pipeline, u.path)
			}
			break
		}
	}
}
