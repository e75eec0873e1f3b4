package config

import (
	"path"
	"slices"
	"strings"

	"deployhook/internal/deploy"
)

// cacheNameMost bounds the path of a directory, in bytes.
const cacheNameMost = 1000

// cache reads the directories that test jobs keep.
func (b *builder) cache(p *deploy.Pipeline, n *node) []string {
	at := n.get("cache")
	if at == nil {
		return nil
	}
	var list []string
	var good []*node
	for _, i := range at.items {
		clean := path.Clean(i.text)
		switch {
		case strings.HasPrefix(i.text, "~"), path.IsAbs(i.text), strings.HasPrefix(i.text, "$"):
			b.bad(i, "a directory of the workspace is wanted here, not %q: have the tool keep its files there, like npm ci --cache .npm, or by a variable", short(i.text))
		case !localPath(i.text) || clean == ".":
			b.bad(i, "a directory below the workspace is wanted here, like node_modules, not %q", short(i.text))
		case strings.ContainsFunc(i.text, func(r rune) bool { return r < ' ' || r == 0x7f }):
			b.bad(i, "a path without control characters is wanted here")
		case strings.ContainsAny(i.text, "*?["):
			b.bad(i, "%q: no globs are known here, and the directory itself is wanted", short(i.text))
		case len(clean) > cacheNameMost:
			b.bad(i, "at most %d bytes are wanted here", cacheNameMost)
		default:
			list, good = append(list, clean), append(good, i)
		}
	}
	b.apart(good, "kept")
	tests := slices.ContainsFunc(p.Jobs, func(j deploy.Job) bool { return !j.Deploys() })
	switch {
	case len(at.items) > deploy.CacheDirsMost:
		b.bad(at, "there are %d directories, and %d are the most", len(at.items), deploy.CacheDirsMost)
	case b.absent(n, "repository"):
		b.bad(at, "a cache is kept for a branch, and for other refs: repository is missing")
	case !tests && !b.within(n.path+".jobs"):
		b.warn(at, "only test jobs have a cache, and this pipeline has none")
	}
	return list
}
