package receiver_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"deployhook/internal/deploy"
	"deployhook/internal/store/storetest"
)

// sha is a commit by a letter.
func sha(letter string) string {
	return strings.Repeat(fmt.Sprintf("%x", letter[0]-'a'+1), 40)
}

// moves sends the push of main from one commit to another; sent again it is
// the same delivery.
func (x *fixture) moves(before, after string, change ...func(map[string]any)) reply {
	x.t.Helper()
	body := push(func(p map[string]any) {
		p["before"], p["after"] = sha(before), sha(after)
		p["head_commit"] = map[string]any{"id": sha(after), "message": after}
		for _, c := range change {
			c(p)
		}
	})
	return x.github("push", sign(body), body)
}

// permutations of a list, all of them.
func permutations(list []string) (all [][]string) {
	if len(list) < 2 {
		return [][]string{list}
	}
	for i := range list {
		rest := slices.Delete(slices.Clone(list), i, i+1)
		for _, p := range permutations(rest) {
			all = append(all, append([]string{list[i]}, p...))
		}
	}
	return all
}

func TestPushesThatComeOutOfOrderStandInTheirOrder(t *testing.T) {
	x := start(t)
	chain := []string{"ab", "bc", "cd", "de"}
	for lane, arrivals := range permutations(chain) {
		runs := map[string]int64{}
		for _, m := range arrivals {
			r := x.moves(m[:1], m[1:], func(p map[string]any) { p["ref"] = fmt.Sprint("refs/tags/v", lane) })
			if r.status != 202 || len(r.Runs) != 1 {
				t.Fatalf("%s: %+v", arrivals, r)
			}
			runs[m] = r.Runs[0]
		}
		last := int64(0)
		for _, m := range chain {
			run := x.run(runs[m])
			if run.Order <= last {
				t.Errorf("%s: %s has place %d, after %d", arrivals, m, run.Order, last)
			}
			last = run.Order
			if m == "de" && run.State != deploy.Queued {
				t.Errorf("%s: the newest is %s: %s", arrivals, run.State, run.Cause)
			}
		}
	}
}

func TestUnwantedPushesOrderALaneToo(t *testing.T) {
	x := start(t)
	docs := func(p map[string]any) { p["commits"] = []any{map[string]any{"added": []any{"README"}}} }
	late := x.moves("c", "d")
	if r := x.moves("b", "c", docs); r.status != 200 || len(r.Runs) != 0 {
		t.Fatalf("got %+v", r)
	}
	early := x.moves("a", "b")
	if a, b := x.run(early.Runs[0]).Order, x.run(late.Runs[0]).Order; a >= b {
		t.Errorf("the push two before has place %d, the last %d", a, b)
	}
}

func TestLockedDatabaseLosesNothing(t *testing.T) {
	x := start(t)
	one := x.moves("a", "b")
	unlock := storetest.LockSQLite(t, x.dir)
	r := x.moves("b", "c")
	if r.status != 503 || r.retry == "" || !strings.Contains(r.Message, "could not be stored: redeliver it later") {
		t.Errorf("with the database locked: %+v", r)
	}
	if !strings.Contains(x.log.String(), "the database did not answer within 8s") {
		t.Errorf("the log does not say why:\n%s", x.log)
	}
	unlock()
	// What was given up may still be written; either way there is one run.
	r = x.moves("b", "c")
	if r.status != 202 && r.status != 200 || len(r.Runs) != 1 || r.Runs[0] == one.Runs[0] {
		t.Errorf("sent again: %+v", r)
	}
	list, err := x.store.Runs(t.Context(), deploy.RunFilter{})
	if err != nil || len(list) != 2 {
		t.Errorf("there are %d runs, %v", len(list), err)
	}
}
