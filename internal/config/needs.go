package config

import (
	"slices"
	"strings"

	"deployhook/internal/deploy"
)

// needs checks the names, and that no job waits for itself. ok means that who
// needs whom can be told.
func (b *builder) needs(p *deploy.Pipeline, jobs *node) (ok bool) {
	wrong := false
	for i := range p.Jobs {
		n := jobs.keys[p.Jobs[i].Name].get("needs")
		if n == nil {
			continue
		}
		for k, need := range p.Jobs[i].Needs {
			switch {
			case slices.Contains(p.Jobs[i].Needs[:k], need):
				b.bad(n.items[k], "job %q stands here twice", short(need))
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
		return false
	}
	if circle := circle(p); circle != nil {
		n := jobs.keys[circle[0]]
		b.bad(firstNode(n.get("needs"), n), "these jobs wait for each other: %s", strings.Join(append(circle, circle[0]), " needs "))
		return false
	}
	return true
}

// needed checks the jobs that expressions name as needs.JOB: one that need not
// have ended by then would be compared with a state on its way.
func (b *builder) needed(p *deploy.Pipeline, n *node) {
	jobs := n.get("jobs")
	// Where a job or its needs are wrong, who comes before whom cannot be told.
	sure := !slices.ContainsFunc(jobs.v.entries, func(e entry) bool {
		return jobs.get(e.name) == nil || b.within(jobs.path+"."+e.name+".needs")
	})
	known := func(at *node, names []string, before map[string]bool, job string) {
		for _, name := range names {
			switch {
			case b.within(jobs.path + "." + name):
			case p.Job(name) == nil:
				b.bad(at, "needs.%s: no job %q%s", short(name), short(name), deploy.DidYouMean(name, jobs.order))
			case name == job:
				b.bad(at, "needs.%s: this is the job itself", name)
			case before != nil && sure && !before[name]:
				b.bad(at, "needs.%s: job %s does not need it, so it may not have ended", name, job)
			}
		}
	}
	env := func(at *node, before map[string]bool, job string) {
		if at == nil {
			return
		}
		for _, name := range at.order {
			if t, err := deploy.CompileTemplate(at.keys[name].text); err == nil {
				known(at.keys[name], t.Needs(), before, job)
			}
		}
	}
	iff := func(at *node, before map[string]bool, job string) {
		if e := expr(at); e != nil {
			known(at, e.Needs(), before, job)
		}
	}
	env(n.get("env"), nil, "")
	for i := range p.Jobs {
		j, at := &p.Jobs[i], jobs.get(p.Jobs[i].Name)
		before := map[string]bool{}
		upstream(p, j, before)
		iff(at.get("if"), before, j.Name)
		env(at.get("env"), before, j.Name)
		if steps := at.get("steps"); steps != nil {
			for _, s := range steps.items {
				iff(s.get("if"), before, j.Name)
				env(s.get("env"), before, j.Name)
			}
		}
	}
}

// upstream notes the jobs that a job needs, and those that they need.
func upstream(p *deploy.Pipeline, j *deploy.Job, into map[string]bool) {
	for _, need := range j.Needs {
		if !into[need] {
			into[need] = true
			upstream(p, p.Job(need), into)
		}
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
