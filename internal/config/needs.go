package config

import (
	"slices"
	"strings"

	"deployhook/internal/deploy"
)

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
