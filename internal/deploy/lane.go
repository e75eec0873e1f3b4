package deploy

// OrderLane puts the pushes of one ref in order, the oldest first: it takes
// them in the order of their acceptance and gives their indexes. A push whose
// after is another one's before stands before that one, as do those that lead
// up to it in turn, because deliveries come out of order. Where that one leads
// up to it as well, as after a revert by force, acceptance decides.
func OrderLane(pushes []RefMove) []int {
	g := laneGraph{pushes: pushes, from: map[string][]int{}, to: map[string][]int{}}
	for i, p := range pushes {
		g.from[p.Before], g.to[p.After] = append(g.from[p.Before], i), append(g.to[p.After], i)
	}
	order := make([]int, 0, len(pushes))
	seen := make([]bool, len(pushes))
	var place func(k int)
	place = func(k int) {
		if seen[k] {
			return
		}
		seen[k] = true
		if p := pushes[k]; known(p.Before) && p.Before != p.After {
			for _, i := range g.to[p.Before] {
				if !g.leads(p.After, pushes[i].Before) {
					place(i)
				}
			}
		}
		order = append(order, k)
	}
	for k := range pushes {
		place(k)
	}
	return order
}

// laneGraph finds pushes by the commits that they move a ref from and to.
type laneGraph struct {
	pushes   []RefMove
	from, to map[string][]int
}

// leads says whether the pushes lead from one commit to another.
func (g *laneGraph) leads(from, to string) bool {
	if !known(from) || !known(to) {
		return false
	}
	seen := map[string]bool{}
	for todo := []string{from}; len(todo) > 0; {
		c := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if c == to {
			return true
		}
		if seen[c] {
			continue
		}
		seen[c] = true
		for _, i := range g.from[c] {
			if known(g.pushes[i].After) {
				todo = append(todo, g.pushes[i].After)
			}
		}
	}
	return false
}

// LeadUp says of the pushes of one ref, the oldest first, which of them the
// last one goes on from, step by step. The rest may be newer than it, for all
// that is known: what lies between has not been delivered.
func LeadUp(pushes []RefMove) []bool {
	leads := make([]bool, len(pushes))
	if len(pushes) == 0 {
		return leads
	}
	at := pushes[len(pushes)-1]
	for i := len(pushes) - 2; i >= 0; i-- {
		p := pushes[i]
		switch {
		case p.After == at.Before && p.After != p.Before:
			leads[i], at = true, p
		case p.Before == at.Before && p.After == at.After:
			leads[i] = true // the same move once more
		}
	}
	return leads
}

func known(commit string) bool { return commit != "" && commit != ZeroCommit }
