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
		b.fromForge(p, n, push, "pushes")
	}
	if r := on.get("release"); r != nil {
		p.On.Release = true
		b.fromForge(p, n, r, "releases")
	}
	if w := on.get("workflow_run"); w != nil {
		p.On.Workflow = &deploy.WorkflowTrigger{Workflows: b.globs(w.get("workflows")), Branches: b.globs(w.get("branches"))}
		b.fromForge(p, n, w, "workflow runs")
	}
	b.schedules(p, on.get("schedule"))
	b.inputs(p, on.get("manual").get("inputs"))
	if up := on.get("pipeline"); up != nil {
		if b.absent(up, "name") {
			b.bad(up, "name is missing: the pipeline whose success starts this one")
		}
		p.On.Pipeline = up.str("name", "")
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

// fromForge checks what all events of a forge need.
func (b *builder) fromForge(p *deploy.Pipeline, n, trigger *node, what string) {
	if b.absent(n, "repository") {
		b.bad(trigger, "%s come from a repository: repository is missing", what)
	}
	if b.absent(n, "hook") && p.Hook == "" {
		p.Hook = b.onlyHook(n, trigger)
	}
	if h := b.cfg.Hook(p.Hook); h != nil && !h.BringsPushes() && !b.within("hooks."+h.Name) {
		b.warn(trigger, "%s do not come through a %s hook: hook %s starts nothing here", what, h.Provider, h.Name)
	}
}

// globs reads a list of patterns for names.
func (b *builder) globs(n *node) []string {
	if n == nil {
		return nil
	}
	if len(n.items) == 0 && !b.within(n.path) {
		b.bad(n, "the list is empty: leave the key out for all")
	}
	only := len(n.items) > 0
	for _, i := range n.items {
		only = only && strings.HasPrefix(i.text, "!")
		if err := deploy.ValidGlob(i.text); err != nil {
			b.bad(i, "%v", err)
		} else if why := neverMatches("branches", strings.TrimPrefix(i.text, "!")); why != "" {
			b.bad(i, "pattern %q matches nothing: %s", short(i.text), why)
		}
	}
	if only && !b.within(n.path) {
		b.bad(n, "every pattern only takes back: nothing is left; begin with a pattern without !")
	}
	return textsOf(n)
}

// schedulesMost bounds the schedules of a pipeline.
const schedulesMost = 50

// schedules reads on.schedule.
func (b *builder) schedules(p *deploy.Pipeline, n *node) {
	if n == nil {
		return
	}
	switch {
	case len(n.items) == 0:
		b.bad(n, "the list is empty: write - cron: \"0 2 * * *\", or leave the key out")
	case len(n.items) > schedulesMost:
		b.bad(n, "there are %d schedules; at most %d are allowed", len(n.items), schedulesMost)
	}
	for _, s := range n.items {
		if s == nil {
			continue
		}
		if b.absent(s, "cron") {
			b.bad(s, "cron is missing: when it starts, like \"0 2 * * *\"")
		}
		text := s.get("cron")
		if text == nil {
			continue
		}
		// The zone alone first, so that an error stands where it belongs.
		zone := s.str("timezone", "")
		if _, err := deploy.ParseCron("@daily", zone); err != nil {
			b.bad(s.get("timezone"), "%v", err)
			zone = ""
		}
		c, err := deploy.ParseCron(text.text, zone)
		if err != nil {
			b.bad(text, "%v", err)
			continue
		}
		if slices.ContainsFunc(p.On.Schedules, func(t deploy.ScheduleTrigger) bool { return t.Cron.String() == c.String() }) {
			b.bad(text, "this schedule stands here twice")
			continue
		}
		p.On.Schedules = append(p.On.Schedules, deploy.ScheduleTrigger{Cron: c})
	}
}

// inputsMost bounds the inputs of a pipeline.
const inputsMost = 50

// inputs reads on.manual.inputs.
func (b *builder) inputs(p *deploy.Pipeline, n *node) {
	if n == nil {
		return
	}
	if len(n.order) > inputsMost {
		b.bad(n, "there are %d inputs; at most %d are allowed", len(n.order), inputsMost)
	}
	for _, name := range n.order {
		k := n.keys[name]
		in := deploy.Input{
			Name: name, Description: k.str("description", ""), Type: deploy.InputType(k.str("type", string(deploy.StringInput))),
			Required: k.str("required", "false") == "true", Options: textsOf(k.get("options")),
		}
		options := k.get("options")
		switch {
		case in.Type == deploy.ChoiceInput && b.absent(k, "options"), options != nil && len(options.items) == 0 && !b.within(options.path):
			b.bad(k, "a choice wants options: the values that it may have")
		case options != nil && in.Type != deploy.ChoiceInput && !b.within(k.path+".type"):
			b.bad(options, "options belong to type: choice")
		}
		if d := k.get("default"); d != nil {
			in.Default = &d.text
			if in.Required {
				b.bad(d, "an input that is required has no default: leave one of them out")
			}
			if err := in.Check(d.text); err != nil && !b.within(k.path+".type") && !b.within(k.path+".options") {
				b.bad(d, "the default %v", err)
			}
		}
		p.On.Inputs = append(p.On.Inputs, in)
	}
}

// chainMost bounds how many pipelines may follow each other.
const chainMost = 10

// chains checks on.pipeline of all pipelines: the names, that none waits for
// itself, and how many follow each other.
func (b *builder) chains(pipelines *node) {
	if pipelines == nil {
		return
	}
	for i := range b.cfg.Pipelines {
		p := &b.cfg.Pipelines[i]
		at := pipelines.get(p.Name).get("on").get("pipeline").get("name")
		if at == nil {
			continue
		}
		if b.cfg.Pipeline(p.On.Pipeline) == nil {
			if !b.within("pipelines." + p.On.Pipeline) {
				b.bad(at, "no pipeline %q%s", short(p.On.Pipeline), deploy.DidYouMean(p.On.Pipeline, pipelines.order))
			}
			continue
		}
		line := []string{p.Name}
		for up := b.cfg.Pipeline(p.On.Pipeline); up != nil; up = b.cfg.Pipeline(up.On.Pipeline) {
			line = append(line, up.Name)
			if up.Name == p.Name {
				b.bad(at, "these pipelines would start each other for ever: %s", strings.Join(line, " after "))
				break
			}
			if slices.Contains(line[:len(line)-1], up.Name) {
				break // a circle that this one only leads to is told of there
			}
			if len(line) > chainMost {
				b.bad(at, "more than %d pipelines would follow each other", chainMost)
				break
			}
		}
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
	i := slices.IndexFunc(p.Jobs, func(j deploy.Job) bool { return j.Deploys() })
	if i < 0 || b.within(n.path+".on") {
		return
	}
	on := n.get("on")
	if t := p.On.Push; t != nil && len(t.Branches)+len(t.Tags) == 0 && !b.meant[n.path+".on.push.branches"] && !b.meant[n.path+".on.push.tags"] {
		b.bad(on.get("push"), "branches or tags are wanted: job %s deploys, and every branch would", p.Jobs[i].Name)
	}
	if t := p.On.Workflow; t != nil && len(t.Branches) == 0 && !b.meant[n.path+".on.workflow_run.branches"] {
		b.bad(on.get("workflow_run"), "branches are wanted: job %s deploys, and every branch would", p.Jobs[i].Name)
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
