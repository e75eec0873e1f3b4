package deploy

import (
	"fmt"
	"strings"
)

// DidYouMean gives `; did you mean "x"?` for the nearest of the names that
// there are, or nothing when none is near.
func DidYouMean(name string, names []string) string {
	best, least := "", (len(name)+2)/3+1
	for _, n := range names {
		if d := distance(name, n, least); d < min(least, max(len(name), len(n))) {
			best, least = n, d
		}
	}
	if best == "" || best == name {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance counts the letters to change, add, take away or exchange with their
// neighbour between a and b, whatever their case; at least most when there are
// that many.
func distance(a, b string, most int) int {
	if len(a) > 64 || len(b) > 64 || len(a)-len(b) >= most || len(b)-len(a) >= most {
		return most
	}
	if strings.EqualFold(a, b) {
		return 0
	}
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for k := range row {
		row[k] = k
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for k := range len(b) {
			cost := row[k]
			if a[i] != b[k] {
				cost++
			}
			next[k+1] = min(cost, row[k+1]+1, next[k]+1)
			if i > 0 && k > 0 && a[i] == b[k-1] && a[i-1] == b[k] {
				next[k+1] = min(next[k+1], before[k-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
