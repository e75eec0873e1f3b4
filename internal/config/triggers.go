package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"deployhook/internal/deploy"
)

// triggers reads what starts a pipeline.
func (b *builder) triggers(p *deploy.Pipeline, n *node) {
	on := n.get("on")
	p.Hook = b.hookName(n.get("hook"))
	if push := on.get("push"); push != nil {
		p.On.Push = b.push(push)
		if b.absent(n, "repository") {
			b.bad(push, "pushes come from a repository: repository is missing")
		}
		if b.absent(n, "hook") {
			p.Hook = b.onlyHook(n, push)
		}
		if h := b.cfg.Hook(p.Hook); h != nil && !h.BringsPushes() && !b.within("hooks."+h.Name) {
			b.warn(push, "pushes do not come through a %s hook: hook %s starts nothing here", h.Provider, h.Name)
		}
	}
	if h := on.get("hook"); h != nil {
		if b.absent(h, "name") {
			b.bad(h, "name is missing: the hook whose payloads start this")
		}
		p.On.Hook = &deploy.HookTrigger{Name: b.hookName(h.get("name")), If: expr(h.get("if"))}
		b.beforeRun(h.get("if"), p.On.Hook.If)
		if e := p.On.Hook.If; e != nil && !b.within(h.path+".if") {
			for _, name := range []string{"changed", "branch", "tag", "sha", "ref", "before", "repo", "message"} {
				if e.Uses(name) {
					b.bad(h.get("if"), "a payload has no commit: %s has no meaning here", name)
					break
				}
			}
		}
		if x := b.cfg.Hook(p.On.Hook.Name); x != nil && x.BringsPushes() && !b.within("hooks."+x.Name) {
			b.warn(h, "payloads of a %s hook start nothing here: on.hook is for generic, standard and stripe hooks", x.Provider)
		}
	}
	if p.Repository != "" && (b.absent(n, "on") || on != nil && len(on.order) == 0 && !b.within(on.path)) {
		b.warn(n, "nothing starts this pipeline but deployhook trigger %s", p.Name)
	}
}

// beforeRun refuses what has no value before there is a run.
func (b *builder) beforeRun(n *node, e *deploy.Expr) {
	switch {
	case e == nil:
	case e.UsesStatus():
		b.bad(n, "success(), failure(), always() and canceled() stand in the if of a job or step: before a run nothing has ended")
	case e.Uses("needs") || e.Uses("job"):
		b.bad(n, "needs and job stand in the if of a job or step: this one decides whether there is a run at all")
	}
}

// push reads the filters of on.push.
func (b *builder) push(push *node) *deploy.PushTrigger {
	t := &deploy.PushTrigger{}
	for _, l := range []struct {
		key    string
		list   *[]string
		ignore bool
	}{
		{"branches", &t.Branches, false}, {"branches_ignore", &t.BranchesIgnore, true},
		{"tags", &t.Tags, false}, {"tags_ignore", &t.TagsIgnore, true},
		{"paths", &t.Paths, false}, {"paths_ignore", &t.PathsIgnore, true},
	} {
		k := push.get(l.key)
		if k == nil {
			continue
		}
		*l.list = textsOf(k)
		if len(k.items) == 0 && !b.within(k.path) {
			b.bad(k, "the list is empty: leave the key out for all")
		}
		for i, g := range *l.list {
			if err := deploy.ValidGlob(g); err != nil {
				b.bad(k.items[i], "%v", err)
			} else if why := neverMatches(l.key, strings.TrimPrefix(g, "!")); why != "" {
				b.bad(k.items[i], "pattern %q matches nothing: %s", short(g), why)
			}
		}
		takesBack := func(g string) bool { return strings.HasPrefix(g, "!") }
		if len(*l.list) > 0 && !b.within(k.path) && !slices.ContainsFunc(*l.list, func(g string) bool { return !takesBack(g) }) {
			b.bad(k, "every pattern only takes back: nothing is left; begin with a pattern without !")
		}
		if only := strings.TrimSuffix(l.key, "_ignore"); l.ignore && push.get(only) != nil {
			b.bad(k, "%s and %s do not go together: take names back with a leading ! under %s", only, l.key, only)
		}
	}
	return t
}

// neverMatches says why a pattern can match no branch, tag or path; empty = it
// may.
func neverMatches(key, pattern string) string {
	paths := strings.HasPrefix(key, "paths")
	switch {
	case !paths && (strings.HasPrefix(pattern, "refs/heads/") || strings.HasPrefix(pattern, "refs/tags/")):
		return "the name alone is wanted, without refs/heads/ or refs/tags/"
	case paths && (strings.HasPrefix(pattern, "/") || strings.HasPrefix(pattern, "./")):
		return "paths begin at the repository's root, without / or ./ before them"
	case paths && strings.HasSuffix(pattern, "/"):
		return fmt.Sprintf("paths are those of files; write %q", short(pattern+"**"))
	}
	return ""
}

// hookName checks the name of a hook; "" when none is written.
func (b *builder) hookName(n *node) string {
	if n == nil {
		return ""
	}
	if b.cfg.Hook(n.text) == nil && !b.within("hooks") {
		var names []string
		for _, h := range b.cfg.Hooks {
			names = append(names, h.Name)
		}
		b.bad(n, "there is no hook %q%s", short(n.text), deploy.DidYouMean(n.text, names))
	}
	return n.text
}

// onlyHook is the hook of a pipeline that names none.
func (b *builder) onlyHook(n, push *node) string {
	switch {
	case b.within("hooks") || b.meant["hooks"]:
	case len(b.cfg.Hooks) == 0:
		b.bad(push, "there is no hook that pushes could come through: write one under hooks")
	case len(b.cfg.Hooks) == 1:
		return b.cfg.Hooks[0].Name
	default:
		b.bad(n, "there are several hooks: say with hook whose pushes start this")
	}
	return ""
}

// everyBranch refuses to deploy every branch by leaving a word out.
func (b *builder) everyBranch(p *deploy.Pipeline, n *node) {
	t := p.On.Push
	if t == nil || len(t.Branches)+len(t.Tags) > 0 || b.within(n.path+".on") || b.meant[n.path+".on.push.branches"] || b.meant[n.path+".on.push.tags"] {
		return
	}
	for i := range p.Jobs {
		if p.Jobs[i].Deploys() {
			b.bad(n.get("on").get("push"), "branches or tags are wanted: job %s deploys, and every branch would", p.Jobs[i].Name)
			return
		}
	}
}

// branch checks the name of one branch.
func (b *builder) branch(n *node) string {
	if n == nil {
		return ""
	}
	s := n.text
	switch {
	case strings.HasPrefix(s, "refs/heads/"):
		b.bad(n, "the name alone is wanted here: %q", short(strings.TrimPrefix(s, "refs/heads/")))
	case s == "HEAD" || strings.HasPrefix(s, "refs/") || strings.HasPrefix(s, "-") || plumbing.NewBranchReferenceName(s).Validate() != nil:
		b.bad(n, "%q is not the name of a branch", short(s))
	}
	return s
}
