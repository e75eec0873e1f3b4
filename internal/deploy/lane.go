package deploy

import "slices"

// OrderLane puts the pushes of one ref in order, the oldest first: it takes
// them in the order of their acceptance and gives their indexes. A push whose
// after is another one's before stands before that one, because deliveries
// come out of order. Where that one leads up to it as well, as after a revert
// by force, acceptance decides.
func OrderLane(pushes []RefMove) []int {
	order := make([]int, 0, len(pushes))
	for i, p := range pushes {
		at := len(order)
		if known(p.After) && p.After != p.Before {
			k := slices.IndexFunc(order, func(o int) bool {
				return pushes[o].Before == p.After && !leads(pushes, order, pushes[o].After, p.Before)
			})
			if k >= 0 {
				at = k
			}
		}
		order = slices.Insert(order, at, i)
		if at < len(order)-1 {
			order = pullBefore(pushes, order, at)
		}
	}
	return order
}

// leads says whether the accepted pushes lead from one commit to another.
func leads(pushes []RefMove, order []int, from, to string) bool {
	if !known(from) || !known(to) {
		return false
	}
	seen := map[string]bool{}
	todo := []string{from}
	for len(todo) > 0 {
		c := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if c == to {
			return true
		}
		if seen[c] {
			continue
		}
		seen[c] = true
		for _, o := range order {
			if pushes[o].Before == c && known(pushes[o].After) {
				todo = append(todo, pushes[o].After)
			}
		}
	}
	return false
}

// pullBefore moves the pushes that lead up to the one at a place before it:
// they were accepted earlier, when nothing told that they belong there.
func pullBefore(pushes []RefMove, order []int, at int) []int {
	for known(pushes[order[at]].Before) {
		from := -1
		for k := at + 1; k < len(order); k++ {
			// Only what nothing before it leads to is out of place.
			if pushes[order[k]].After == pushes[order[at]].Before && !led(pushes, order, k) {
				from = k
				break
			}
		}
		if from < 0 {
			break
		}
		o := order[from]
		order = slices.Insert(slices.Delete(order, from, from+1), at, o)
	}
	return order
}

// led says whether the push at k goes on from the one right before it.
func led(pushes []RefMove, order []int, k int) bool {
	return k > 0 && pushes[order[k-1]].After == pushes[order[k]].Before && known(pushes[order[k]].Before)
}

func known(commit string) bool { return commit != "" && commit != ZeroCommit }
