package config

import (
	"maps"
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

// stepNameMost bounds the name of a step, in bytes.
const stepNameMost = 200

// builder makes the nouns of deploy from a checked tree.
type builder struct {
	*checker
	cfg     *deploy.Config
	secrets map[string]deploy.Secret
	used    map[string]bool // secrets that are named
	places  []releaseUse    // in the order written
	hosts   hostSet
}

func (c *checker) build(top *node) *deploy.Config {
	b := &builder{checker: c, cfg: &deploy.Config{}, secrets: map[string]deploy.Secret{}, used: map[string]bool{}}
	if s := top.get("secrets"); s != nil {
		for _, name := range s.order {
			if b.within(s.keys[name].path) {
				continue
			}
			if src := b.oneSource(s.keys[name]); src != nil {
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
	b.readHosts(top.get("hosts"))
	env := b.env(top.get("env"))
	b.relative(top.get("defaults").get("working_dir")) // wrong also while no job has it
	b.searchPath(top.get("defaults").get("path"))
	b.shell(top.get("defaults").get("shell"))
	if p := top.get("pipelines"); p != nil {
		for _, name := range p.order {
			b.pipeline(name, p.keys[name], env, top.get("defaults"))
		}
	}
	b.chains(top.get("pipelines"))
	b.releasePaths()
	b.idle(top)
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
	b.used[n.text] = true
	s, ok := b.secrets[n.text]
	if !ok {
		if !b.inside["secrets"] {
			names := slices.Sorted(maps.Keys(b.secrets))
			// The name is not repeated: it may be a value.
			b.bad(n, "there is no such name under secrets, and a value never stands in this file%s", deploy.DidYouMean(n.text, names))
		}
		return nil
	}
	return &s
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
		Name: name, Branch: b.branch(n.get("branch")), Depth: numberOf(n.get("depth"), 0), If: expr(n.get("if")),
		Env: slices.Concat(env, b.env(n.get("env"))), Queue: deploy.QueuePolicy(n.get("concurrency").str("queue", "latest")),
	}
	b.beforeRun(n.get("if"), p.If)
	b.repository(&p, n)
	b.triggers(&p, n)
	jobs := n.get("jobs")
	switch {
	case b.absent(n, "jobs"), jobs != nil && len(jobs.order) == 0 && !b.within(jobs.path):
		b.bad(n, "jobs are wanted: a pipeline without any does nothing")
	case jobs != nil:
		for i, job := range jobs.order {
			previous := ""
			if i > 0 {
				previous = jobs.order[i-1]
			}
			p.Jobs = append(p.Jobs, b.job(&p, n, job, previous, defaults))
		}
		if b.needs(&p, jobs) {
			b.needed(&p, n)
		}
	}
	p.Cache = b.cache(&p, n)
	b.everyBranch(&p, n)
	b.cfg.Pipelines = append(b.cfg.Pipelines, p)
}

func (b *builder) job(p *deploy.Pipeline, pipeline *node, name, previous string, defaults *node) deploy.Job {
	n := pipeline.get("jobs").get(name)
	j := deploy.Job{
		Name: name, Title: n.str("name", name), If: expr(n.get("if")), Hosts: b.hostsOf(n),
		Timeout:    durationOf(n.get("timeout"), durationOf(defaults.get("timeout"), stepTimeout)),
		Shell:      b.shell(firstNode(n.get("shell"), defaults.get("shell"))),
		WorkingDir: b.relative(firstNode(n.get("working_dir"), defaults.get("working_dir"))),
		Path:       b.searchPath(firstNode(n.get("path"), defaults.get("path"))),
		Env:        b.env(n.get("env")), OnCrash: deploy.CrashPolicy(n.str("on_crash", "rerun")), Restart: n.str("restart", ""),
	}
	switch needs := n.get("needs"); {
	case needs != nil:
		j.Needs = textsOf(needs)
	case previous != "" && !b.within(n.path+".needs"):
		j.Needs = []string{previous}
	}
	if s := n.get("secrets"); s != nil {
		for _, variable := range s.order {
			if k := n.get("env").get(variable); k != nil {
				b.bad(k, "the secret %s has this name too", variable)
			}
			if sec := b.secretOf(s.keys[variable]); sec != nil {
				j.Secrets = append(j.Secrets, deploy.SecretVariable{Name: variable, Secret: *sec})
			}
		}
	}
	j.Limits = b.limits(n.get("limits"))
	if r := n.get("release"); r != nil {
		j.Release = b.release(p, &j, r, pipeline)
	}
	j.Group = n.get("concurrency").str("group", "")
	if j.Group == "" && j.Release != nil {
		j.Group = p.Name + "/" + name
	}
	if strings.Contains(j.Group, "${{") {
		b.bad(n.get("concurrency").get("group"), "expressions in a job's group: not available in this version")
	}
	b.runs(n.get("restart"))
	if j.Restart != "" && b.absent(n, "release") {
		b.bad(n.get("restart"), "restart comes after the switch to a new release, and this job has none")
	}
	steps := n.get("steps")
	if b.absent(n, "release") && (b.absent(n, "steps") || steps != nil && len(steps.items) == 0) {
		b.bad(n, "steps are wanted: a test job without any does nothing")
	}
	if steps != nil {
		for _, s := range steps.items {
			if s == nil {
				continue
			}
			j.Steps = append(j.Steps, b.step(s))
			for _, v := range j.Secrets {
				if k := s.get("env").get(v.Name); k != nil {
					b.bad(k, "the job's secret %s has this name too", v.Name)
				}
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

// memoryLeast is what a shell and one small program need, in bytes.
const memoryLeast = 4 << 20

func (b *builder) limits(n *node) (l deploy.Limits) {
	if m := n.get("memory"); m != nil {
		if l.Memory, _ = parseSize(m.text); l.Memory < memoryLeast { // the checker has read it
			b.bad(m, "at least %d MiB is wanted here", memoryLeast>>20)
		}
	}
	if c := n.get("cpu"); c != nil {
		l.CPU, _ = strconv.ParseFloat(c.text, 64)
	}
	l.PIDs = numberOf(n.get("pids"), 0)
	return l
}

// shell checks what a step's commands are given to. It is split at its spaces,
// and no shell reads it.
func (b *builder) shell(n *node) string {
	if n == nil {
		return ""
	}
	switch {
	case strings.ContainsAny(n.text, "\"'"):
		b.bad(n, "quotes have no meaning here: a program and its arguments are wanted, split at spaces, like bash -eo pipefail")
	case strings.HasPrefix(strings.TrimSpace(n.text), "{0}"):
		b.bad(n, "{0} is the file with the commands: the program that runs it comes first")
	}
	return n.text
}

// searchPath checks directories for PATH.
func (b *builder) searchPath(n *node) []string {
	if n == nil {
		return nil
	}
	for _, i := range n.items {
		if !path.IsAbs(i.text) || strings.Contains(i.text, ":") {
			b.bad(i, "an absolute path of one directory is wanted here, not %q", short(i.text))
		}
	}
	return textsOf(n)
}

// relative checks a path that stays below where it begins.
func (b *builder) relative(n *node) string {
	if n == nil || n.text == "" {
		return ""
	}
	switch {
	case strings.HasPrefix(n.text, "~"):
		b.bad(n, "~ stands for no home directory here: a path relative to the workspace or release is wanted")
	case !localPath(n.text) || strings.ContainsAny(n.text, "\n\r"):
		b.bad(n, "a relative path is wanted here that does not lead out of the workspace or release, not %q", short(n.text))
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
		ContinueOnError: n.str("continue_on_error", "false") == "true", WorkingDir: b.relative(n.get("working_dir")), Shell: b.shell(n.get("shell")),
	}
	if b.absent(n, "run") {
		b.bad(n, "run is missing")
	}
	b.runs(n.get("run"))
	line, _, _ := strings.Cut(strings.TrimSpace(s.Run), "\n")
	if s.Name = strings.TrimSpace(n.str("name", line)); len(s.Name) > stepNameMost {
		s.Name = strings.ToValidUTF8(s.Name[:stepNameMost], "")
	}
	if r := n.get("retry"); r != nil {
		s.Retry = deploy.Retry{Limit: numberOf(r.get("limit"), 0), Delay: durationOf(r.get("delay"), 0), Factor: 1}
		if f := r.get("factor"); f != nil {
			s.Retry.Factor, _ = strconv.ParseFloat(f.text, 64)
		}
	}
	return s
}
