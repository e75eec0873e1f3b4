package config

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"deployhook/internal/deploy"
)

// defaults of jobs, as section defaults may change them.
const (
	stepTimeout = 30 * time.Minute
	keep        = 5
	keepFailed  = 2
)

// builder makes the nouns of deploy from a checked tree.
type builder struct {
	*checker
	cfg     *deploy.Config
	secrets map[string]deploy.Secret
	places  map[string][]releaseUse
}

// releaseUse is a pipeline's use of a release path.
type releaseUse struct {
	pipeline, repository string
	node                 *node
}

func (c *checker) build(top *node) *deploy.Config {
	b := &builder{checker: c, cfg: &deploy.Config{}, secrets: map[string]deploy.Secret{}, places: map[string][]releaseUse{}}
	if s := top.get("secrets"); s != nil {
		for _, name := range s.order {
			if src := b.source(s.keys[name]); src != nil {
				sec := sourceOf(name, src)
				b.secrets[name] = sec
				b.cfg.Secrets = append(b.cfg.Secrets, sec)
			}
		}
	}
	if h := top.get("hooks"); h != nil {
		for _, name := range h.order {
			b.hook(name, h.keys[name])
		}
	}
	env := b.env(top.get("env"))
	if p := top.get("pipelines"); p != nil {
		for _, name := range p.order {
			b.pipeline(name, p.keys[name], env, top.get("defaults"))
		}
	}
	b.releasePaths()
	b.groups()
	return b.cfg
}

func sourceOf(name string, n *node) deploy.Secret {
	return deploy.Secret{
		Name: name, Environment: n.str("environment", ""), File: n.str("file", ""),
		Credential: n.str("credential", ""), Command: n.str("command", ""),
	}
}

// secret gives the secret that a node names or describes.
func (b *builder) secretOf(n *node) *deploy.Secret {
	if n == nil {
		return nil
	}
	if n.keys != nil {
		s := sourceOf(n.path, n)
		return &s
	}
	s, ok := b.secrets[n.text]
	if !ok {
		if !b.broken["secrets"] && !b.within("secrets."+n.text) {
			var names []string
			for name := range b.secrets {
				names = append(names, name)
			}
			slices.Sort(names)
			b.bad(n, "there is no such name under secrets%s; a value never stands in this file", deploy.DidYouMean(n.text, names))
		}
		return nil
	}
	return &s
}

func (b *builder) hook(name string, n *node) {
	h := deploy.Hook{Name: name, Provider: n.str("provider", "github"), Secret: b.secretOf(n.get("secret")), Token: b.secretOf(n.get("token"))}
	if h.Secret == nil && h.Token == nil && !b.within(n.path) {
		b.bad(n, "a secret or a token is wanted: without one anybody could start a run")
	}
	if h.Provider == "generic" && h.Secret != nil {
		b.bad(n.get("secret"), "a generic hook with a signature: not available in this version; use token")
	}
	b.cfg.Hooks = append(b.cfg.Hooks, h)
}

func (b *builder) env(n *node) []deploy.Variable {
	if n == nil {
		return nil
	}
	var list []deploy.Variable
	for _, name := range n.order {
		k := n.keys[name]
		t, err := deploy.CompileTemplate(k.text)
		if err != nil {
			b.bad(k, "%v", err)
			continue
		}
		list = append(list, deploy.Variable{Name: name, Value: t})
	}
	return list
}

func expr(n *node) *deploy.Expr {
	if n == nil {
		return nil
	}
	e, err := deploy.CompileExpr(n.text)
	if err != nil {
		return nil // reported by the checker
	}
	return e
}

func textsOf(n *node) []string {
	if n == nil {
		return nil
	}
	list := []string{}
	for _, i := range n.items {
		list = append(list, i.text)
	}
	return list
}

func numberOf(n *node, def int) int {
	if n == nil {
		return def
	}
	i, _ := strconv.Atoi(n.text) // the checker has read it
	return i
}

func durationOf(n *node, def time.Duration) time.Duration {
	if n == nil {
		return def
	}
	d, _ := parseDuration(n.text)
	return d
}

func (b *builder) pipeline(name string, n *node, env []deploy.Variable, defaults *node) {
	p := deploy.Pipeline{
		Name: name, Branch: n.str("branch", ""), Depth: numberOf(n.get("depth"), 0), If: expr(n.get("if")),
		Env: slices.Concat(env, b.env(n.get("env"))), Queue: deploy.QueuePolicy(n.get("concurrency").str("queue", "latest")),
	}
	b.repository(&p, n)
	b.triggers(&p, n)
	jobs := n.get("jobs")
	if jobs == nil || len(jobs.order) == 0 {
		if !b.within(n.path + ".jobs") {
			b.bad(n, "jobs are wanted: a pipeline without any does nothing")
		}
	} else {
		for i, job := range jobs.order {
			previous := ""
			if i > 0 {
				previous = jobs.order[i-1]
			}
			p.Jobs = append(p.Jobs, b.job(&p, job, previous, jobs.keys[job], defaults))
		}
		b.needs(&p, jobs)
	}
	b.everyBranch(&p, n)
	b.cfg.Pipelines = append(b.cfg.Pipelines, p)
}

// repository fills in identity and address.
func (b *builder) repository(p *deploy.Pipeline, n *node) {
	auth := n.get("auth")
	p.Auth = deploy.Auth{
		SSHKey: b.secretOf(auth.get("ssh_key")), Token: b.secretOf(auth.get("token")),
		KnownHosts: auth.str("known_hosts", ""), Username: auth.str("username", ""),
	}
	r := n.get("repository")
	if r == nil {
		for _, key := range []string{"clone_url", "auth"} {
			if k := n.get(key); k != nil && !b.within(n.path+".repository") {
				b.bad(k, "there is nothing to fetch: repository is missing")
			}
		}
		return
	}
	id, address, err := repositoryOf(r.text, p.Auth.SSHKey != nil)
	if err != nil {
		b.bad(r, "%v", err)
		return
	}
	p.Repository, p.CloneURL = id, n.str("clone_url", address)
	if strings.Contains(p.CloneURL, "@") && strings.Contains(p.CloneURL, "://") && strings.HasPrefix(p.CloneURL, "http") {
		b.bad(n.get("clone_url"), "a login does not stand in the address: use auth.token and auth.username")
	}
}

// repositoryOf gives the identity and the address of a repository as written.
func repositoryOf(text string, ssh bool) (id, address string, err error) {
	wrong := fmt.Errorf("%q is not a repository: write it like github.com/acme/shop", short(text))
	rest := text
	for _, scheme := range []string{"https://", "http://", "ssh://"} {
		if after, ok := strings.CutPrefix(rest, scheme); ok {
			if at := strings.IndexByte(after, '@'); at >= 0 && at < strings.IndexByte(after+"/", '/') {
				if scheme != "ssh://" {
					return "", "", fmt.Errorf("a login does not stand in the address: use auth.token and auth.username")
				}
				after = after[at+1:]
			}
			rest, address = after, text
		}
	}
	if user, after, ok := strings.Cut(rest, "@"); ok && address == "" && !strings.Contains(user, "/") {
		rest, address = strings.Replace(after, ":", "/", 1), text
	}
	rest = strings.TrimSuffix(strings.Trim(rest, "/"), ".git")
	hostname, repo, ok := strings.Cut(rest, "/")
	if !ok || hostname == "" || repo == "" || strings.ContainsAny(rest, " \t\n?#") || !strings.ContainsAny(hostname, ".:") && hostname != "localhost" {
		return "", "", wrong
	}
	bare, _, _ := strings.Cut(hostname, ":")
	switch {
	case address != "":
	case ssh:
		address = "git@" + hostname + ":" + repo + ".git"
	default:
		address = "https://" + hostname + "/" + repo + ".git"
	}
	return strings.ToLower(bare + "/" + repo), address, nil
}

func (b *builder) triggers(p *deploy.Pipeline, n *node) {
	on := n.get("on")
	if on == nil {
		if n.get("on") == nil && !b.within(n.path+".on") && p.Repository == "" {
			b.warn(n, "nothing starts this pipeline but deployhook trigger %s", p.Name)
		}
		p.Hook = b.hookName(n.get("hook"), "")
		return
	}
	if push := on.get("push"); push != nil {
		t := &deploy.PushTrigger{}
		for key, list := range map[string]*[]string{
			"branches": &t.Branches, "branches_ignore": &t.BranchesIgnore, "tags": &t.Tags, "tags_ignore": &t.TagsIgnore,
			"paths": &t.Paths, "paths_ignore": &t.PathsIgnore,
		} {
			k := push.get(key)
			*list = textsOf(k)
			if k != nil && len(k.items) == 0 && !b.within(k.path) {
				b.bad(k, "the list is empty: leave the key out for all")
			}
			for i, g := range *list {
				if err := deploy.ValidGlob(g); err != nil {
					b.bad(k.items[i], "%v", err)
				}
			}
		}
		for _, pair := range [][2]string{{"branches", "branches_ignore"}, {"tags", "tags_ignore"}, {"paths", "paths_ignore"}} {
			if push.get(pair[0]) != nil && push.get(pair[1]) != nil {
				b.bad(push.get(pair[1]), "%s and %s do not go together: take names back with a leading ! under %s", pair[0], pair[1], pair[0])
			}
		}
		p.On.Push = t
		if p.Repository == "" && !b.within(n.path+".repository") {
			b.bad(push, "pushes come from a repository: repository is missing")
		}
		p.Hook = b.hookName(n.get("hook"), b.onlyHook(n, push))
	}
	if h := on.get("hook"); h != nil {
		name := h.get("name")
		if name == nil {
			if !b.within(h.path) {
				b.bad(h, "name is missing: the hook whose payloads start this")
			}
			return
		}
		p.On.Hook = &deploy.HookTrigger{Name: b.hookName(name, ""), If: expr(h.get("if"))}
	}
}

// hookName checks the name of a hook.
func (b *builder) hookName(n *node, def string) string {
	if n == nil {
		return def
	}
	if b.cfg.Hook(n.text) == nil && !b.within("hooks."+n.text) && !b.broken["hooks"] {
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
	if n.get("hook") != nil || b.within("hooks") {
		return ""
	}
	switch len(b.cfg.Hooks) {
	case 0:
		b.bad(push, "there is no hook that pushes could come through: write one under hooks")
	case 1:
		return b.cfg.Hooks[0].Name
	default:
		b.bad(n, "there are several hooks: say with hook whose pushes start this")
	}
	return ""
}

// everyBranch refuses to deploy every branch by leaving a word out.
func (b *builder) everyBranch(p *deploy.Pipeline, n *node) {
	t := p.On.Push
	if t == nil || len(t.Branches)+len(t.Tags) > 0 || b.within(n.path+".on") {
		return
	}
	for i := range p.Jobs {
		if p.Jobs[i].Deploys() {
			b.bad(n.get("on").get("push"), "branches or tags are wanted: job %s deploys, and every branch would", p.Jobs[i].Name)
			return
		}
	}
}

func (b *builder) job(p *deploy.Pipeline, name, previous string, n, defaults *node) deploy.Job {
	j := deploy.Job{
		Name: name, Title: n.str("name", name), If: expr(n.get("if")), Hosts: b.hosts(n),
		Timeout:    durationOf(n.get("timeout"), durationOf(defaults.get("timeout"), stepTimeout)),
		Shell:      n.str("shell", defaults.str("shell", "")),
		WorkingDir: b.relative(firstNode(n.get("working_dir"), defaults.get("working_dir"))),
		Path:       textsOf(firstNode(n.get("path"), defaults.get("path"))),
		Env:        b.env(n.get("env")), OnCrash: deploy.CrashPolicy(n.str("on_crash", "rerun")), Restart: n.str("restart", ""),
	}
	switch needs := n.get("needs"); {
	case needs != nil:
		j.Needs = textsOf(needs)
	case previous != "" && !b.broken[n.path+".needs"]:
		j.Needs = []string{previous}
	}
	if s := n.get("secrets"); s != nil {
		for _, variable := range s.order {
			if sec := b.secretOf(s.keys[variable]); sec != nil {
				j.Secrets = append(j.Secrets, deploy.SecretVariable{Name: variable, Secret: *sec})
			}
		}
	}
	if r := n.get("release"); r != nil {
		j.Release = b.release(p, r)
	}
	j.Group = n.get("concurrency").str("group", "")
	if j.Group == "" && j.Release != nil {
		j.Group = p.Name + "/" + name
	}
	if strings.Contains(j.Group, "${{") {
		b.bad(n.get("concurrency").get("group"), "expressions in a job's group: not available in this version")
	}
	b.runs(n.get("restart"))
	if j.Restart != "" && j.Release == nil && !b.within(n.path+".release") {
		b.bad(n.get("restart"), "restart comes after the switch to a new release, and this job has none")
	}
	steps := n.get("steps")
	if steps == nil && j.Release == nil && !b.within(n.path) {
		b.bad(n, "steps are wanted: a test job without any does nothing")
	}
	if steps != nil {
		for _, s := range steps.items {
			if s != nil {
				j.Steps = append(j.Steps, b.step(s))
			}
		}
	}
	return j
}

func firstNode(list ...*node) *node {
	for _, n := range list {
		if n != nil {
			return n
		}
	}
	return nil
}

// hosts reads host or hosts.
func (b *builder) hosts(n *node) []string {
	one, many := n.get("host"), n.get("hosts")
	if one != nil && many != nil {
		b.bad(many, "host and hosts do not go together")
	}
	names := textsOf(many)
	at := many
	if one != nil {
		names, at = []string{one.text}, one
	}
	if len(names) == 0 {
		return []string{deploy.Local}
	}
	for _, name := range names {
		if name != deploy.Local {
			b.bad(at, "host %s: hosts over SSH are not available in this version; leave it out, or write local", short(name))
		}
	}
	return []string{deploy.Local}
}

// relative checks a path that stays below where it begins.
func (b *builder) relative(n *node) string {
	if n == nil || n.text == "" {
		return ""
	}
	if !localPath(n.text) {
		b.bad(n, "a relative path is wanted here that does not lead out, not %q", short(n.text))
	}
	return n.text
}

func localPath(p string) bool {
	return p != "" && !path.IsAbs(p) && path.Clean(p) != ".." && !strings.HasPrefix(path.Clean(p), "../") && strings.IndexByte(p, 0) < 0
}

// runs refuses expressions in commands: what an outsider wrote would become a
// part of the command.
func (b *builder) runs(n *node) {
	if n == nil {
		return
	}
	if i := strings.Index(n.text, "${{"); i >= 0 {
		inside, _, _ := strings.Cut(n.text[i+3:], "}}")
		b.bad(n, "${{ }} in a command would let an outsider write a part of it: set env: {VALUE: \"${{%s}}\"} and use \"$VALUE\"", short(inside))
	}
	if strings.TrimSpace(n.text) == "" {
		b.bad(n, "the command is empty")
	}
	if strings.IndexByte(n.text, 0) >= 0 {
		b.bad(n, "a command cannot hold a NUL byte")
	}
}

func (b *builder) step(n *node) deploy.Step {
	s := deploy.Step{
		Run: n.str("run", ""), Env: b.env(n.get("env")), If: expr(n.get("if")), Timeout: durationOf(n.get("timeout"), 0),
		ContinueOnError: n.str("continue_on_error", "false") == "true", WorkingDir: b.relative(n.get("working_dir")), Shell: n.str("shell", ""),
	}
	if n.get("run") == nil {
		if !b.within(n.path) {
			b.bad(n, "run is missing")
		}
	} else {
		b.runs(n.get("run"))
	}
	line, _, _ := strings.Cut(strings.TrimSpace(s.Run), "\n")
	if s.Name = n.str("name", line); len(s.Name) > 200 {
		s.Name = s.Name[:200]
	}
	if r := n.get("retry"); r != nil {
		s.Retry = deploy.Retry{Limit: numberOf(r.get("limit"), 0), Delay: durationOf(r.get("delay"), 0), Factor: 1}
		if f := r.get("factor"); f != nil {
			s.Retry.Factor, _ = strconv.ParseFloat(f.text, 64)
		}
		if s.Retry.Limit > 100 {
			b.bad(r.get("limit"), "at most 100 further tries")
		}
	}
	return s
}

func (b *builder) release(p *deploy.Pipeline, n *node) *deploy.ReleaseSpec {
	r := &deploy.ReleaseSpec{Keep: keep, KeepFailed: keepFailed}
	at := n
	if n.keys == nil {
		r.Path = n.text
	} else {
		if at = n.get("path"); at == nil {
			if !b.within(n.path) {
				b.bad(n, "path is missing")
			}
			at = n
		}
		r.Path = n.str("path", "")
		r.Keep, r.KeepFailed = numberOf(n.get("keep"), keep), numberOf(n.get("keep_failed"), keepFailed)
		if r.Keep < 1 {
			b.bad(n.get("keep"), "at least 1: the current release stays")
		}
		shared := n.get("shared")
		r.SharedDirs, r.SharedFiles = b.sharedPaths(shared.get("dirs")), b.sharedPaths(shared.get("files"))
	}
	if r.Path != "" && (!path.IsAbs(r.Path) || path.Clean(r.Path) != r.Path || r.Path == "/" || strings.ContainsAny(r.Path, "\x00\n:,")) {
		b.bad(at, "an absolute path is wanted here, like /srv/shop, not %q", short(r.Path))
	}
	if p.Repository == "" && !b.within(strings.TrimSuffix(n.path, n.path[strings.Index(n.path, ".jobs."):])+".repository") {
		b.bad(n, "a release is made of a commit: the pipeline's repository is missing")
	}
	b.places[r.Path] = append(b.places[r.Path], releaseUse{p.Name, p.Repository, at})
	return r
}

func (b *builder) sharedPaths(n *node) []string {
	if n == nil {
		return nil
	}
	for _, i := range n.items {
		if !localPath(i.text) || path.Clean(i.text) == "." {
			b.bad(i, "a path below the release is wanted here, not %q", short(i.text))
		}
	}
	return textsOf(n)
}

// needs checks the names, and that no job waits for itself.
func (b *builder) needs(p *deploy.Pipeline, jobs *node) {
	wrong := false
	for i := range p.Jobs {
		n := jobs.keys[p.Jobs[i].Name].get("needs")
		if n == nil {
			continue
		}
		for k, need := range p.Jobs[i].Needs {
			switch {
			case need == p.Jobs[i].Name:
				b.bad(n.items[k], "job %q needs itself", need)
				wrong = true
			case p.Job(need) == nil:
				wrong = true
				if !b.within(jobs.path + "." + need) {
					b.bad(n.items[k], "no job %q%s", short(need), deploy.DidYouMean(need, jobs.order))
				}
			}
		}
	}
	if wrong {
		return
	}
	if circle := circle(p); circle != nil {
		n := jobs.keys[circle[0]]
		b.bad(firstNode(n.get("needs"), n), "these jobs wait for each other: %s", strings.Join(append(circle, circle[0]), " needs "))
	}
}

// circle finds jobs that need each other; nil when there are none.
func circle(p *deploy.Pipeline) []string {
	state := map[string]int{} // 1 = being looked at, 2 = fine
	var stack []string
	var visit func(name string) []string
	visit = func(name string) []string {
		switch state[name] {
		case 1:
			return slices.Clone(stack[slices.Index(stack, name):])
		case 2:
			return nil
		}
		state[name] = 1
		stack = append(stack, name)
		for _, need := range p.Job(name).Needs {
			if c := visit(need); c != nil {
				return c
			}
		}
		stack = stack[:len(stack)-1]
		state[name] = 2
		return nil
	}
	for _, j := range p.Jobs {
		if c := visit(j.Name); c != nil {
			return c
		}
	}
	return nil
}

// releasePaths looks for two that deploy to one place.
func (b *builder) releasePaths() {
	for place, uses := range b.places {
		for _, u := range uses[1:] {
			first := uses[0]
			switch {
			case place == "" || u.pipeline == first.pipeline:
			case u.repository == first.repository:
				b.warn(u.node, "pipeline %s deploys to %s too", first.pipeline, place)
			default:
				b.bad(u.node, "pipeline %s deploys another repository to %s", first.pipeline, place)
			}
		}
	}
}

// groups warns where everything is one trust domain.
func (b *builder) groups() {
	var test, release string
	for _, p := range b.cfg.Pipelines {
		for _, j := range p.Jobs {
			if j.Deploys() || len(j.Secrets) > 0 {
				release = p.Name + "/" + j.Name
			} else if p.Repository != "" {
				test = p.Name + "/" + j.Name
			}
		}
	}
	if test != "" && release != "" {
		b.warnings = append(b.warnings, Problem{File: b.file, Message: fmt.Sprintf(
			"test jobs (%s) and deploy jobs (%s) run as the same user, the daemon's own: whoever can push can read what that user can read, its secrets included", test, release)})
	}
}
