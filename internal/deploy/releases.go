package deploy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

var releaseID = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{7}(-[1-9][0-9]{0,3})?$`)

// ReleaseID names a release: 20260401T101500Z-3f2c1ab, and -2, -3 and so on
// for further ones of the same second and commit.
func ReleaseID(at time.Time, commit string, n int) string {
	id := at.UTC().Format("20060102T150405Z") + "-" + commit[:min(7, len(commit))]
	if n > 1 {
		id += fmt.Sprintf("-%d", n)
	}
	return id
}

// ValidReleaseID says whether id has the form of the names that deployhook
// gives. Nothing else is ever made below releases/.
func ValidReleaseID(id string) bool { return releaseID.MatchString(id) }

// releaseNameMost is how long the name of a release is at most, in bytes.
const releaseNameMost = 64

// ValidReleaseName says whether name may stand in a journal: it is one that
// deployhook gives, or one of another tool's release that was adopted, such as
// 20240501120000 or 42. Nothing else is ever linked or removed below releases/,
// and of the second kind only what the journal tells of. It is one name of a
// directory: no path, not hidden, no option.
func ValidReleaseName(name string) bool {
	const alone = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	return name != "" && len(name) <= releaseNameMost && !strings.ContainsAny(name[:1], "._+-") && strings.Trim(name, alone+"._+-") == ""
}

// LiveStack is the stack of live releases, the bottom first: a deploy that
// stayed live pushes, a rollback pops, one to a named release pushes. A release
// that was marked bad or removed later leaves it.
func LiveStack(lines []ReleaseLine) []string {
	var stack []string
	for _, l := range lines {
		switch l.State {
		case ReleaseLive:
			if l.Pops && len(stack) > 0 {
				stack = stack[:len(stack)-1]
				if len(stack) > 0 && stack[len(stack)-1] == l.Release {
					continue
				}
			}
			stack = append(stack, l.Release)
		case ReleaseBad, ReleaseRemoved:
			stack = slices.DeleteFunc(stack, func(id string) bool { return id == l.Release })
		}
	}
	return stack
}

// RollbackTarget is the release below the top of the stack; empty = none. Where
// current is no release that was live, because its switch was abandoned or it
// was moved by hand, the top itself is the last good one.
func RollbackTarget(f *Found) string {
	current := strings.TrimPrefix(f.Current, "releases/")
	stack := LiveStack(f.Lines)
	top := len(stack) - 1
	for top >= 0 && stack[top] != current {
		top-- // what is above is not live: current was moved by hand
	}
	if top < 0 {
		top = len(stack)
	}
	for i := top - 1; i >= 0; i-- {
		if stack[i] != current {
			return stack[i]
		}
	}
	return ""
}

// Releases lists what is there, the one made last first, in the state of its
// last line. Host and Path are the caller's to fill in.
func Releases(f *Found) []Release {
	last := map[string]*Release{}
	var order []string
	for _, l := range f.Lines {
		if l.State == ReleaseRemoved {
			delete(last, l.Release)
			continue
		}
		r := last[l.Release]
		if r == nil {
			r = &Release{ID: l.Release, Made: l.Run}
			last[l.Release] = r
			order = append(order, l.Release)
		}
		r.State = l.State
		if l.Commit != "" {
			r.Commit = l.Commit
		}
		if l.Run != 0 {
			r.Run = l.Run
		}
	}
	list := []Release{}
	for _, id := range order {
		if r := last[id]; r != nil {
			r.Current = f.Current == "releases/"+id
			list = append(list, *r)
			delete(last, id)
		}
	}
	slices.Reverse(list)
	return list
}

// PruneList gives the releases to remove. Only those that were live and
// healthy count for keep; failed ones, and those that never were live, have
// keepFailed. The current one, the rollback target and those in use stay,
// whatever the numbers say.
func PruneList(f *Found, keep, keepFailed int, inUse func(id string) bool) []string {
	target := RollbackTarget(f)
	var remove []string
	live, failed := 0, 0
	all := Releases(f)
	// The current one counts first: it may be older than others after a rollback.
	for _, r := range all {
		if r.Current && r.State == ReleaseLive {
			live++
		}
	}
	for _, r := range all {
		if r.Current {
			continue
		}
		if r.State == ReleaseLive {
			live++
			if live <= keep || r.ID == target {
				continue
			}
		} else {
			failed++
			if failed <= keepFailed || r.ID == target {
				continue
			}
		}
		if !inUse(r.ID) {
			remove = append(remove, r.ID)
		}
	}
	return remove
}
