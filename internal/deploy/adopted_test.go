package deploy

import (
	"strings"
	"testing"
)

func TestNamesOfAdoptedReleasesMayStandInAJournal(t *testing.T) {
	for name, want := range map[string]bool{
		"20240501T101500Z-3f2c1ab": true, "20240501T101500Z-3f2c1ab-2": true,
		"20240501101500": true, "42": true, "v1.2.3": true, "a": true, "release_1+x": true,
		"": false, ".": false, "..": false, ".x": false, "-rf": false, "a/b": false, "../x": false, "a b": false,
		"a\nb": false, "a\n": false, "ä": false, strings.Repeat("1", 64): true, strings.Repeat("1", 65): false,
	} {
		if got := ValidReleaseName(name); got != want {
			t.Errorf("ValidReleaseName(%q) = %v, want %v", name, got, want)
		}
		l := ReleaseLine{Release: name, State: ReleaseLive}
		if l.Valid() != want {
			t.Errorf("a line of %q is valid: %v, want %v", name, !want, want)
		}
		in := &Intent{Format: IntentFormat, Daemon: "d", Run: 1, Job: "j", From: "releases/" + name, To: "releases/20240501T101500Z-3f2c1ab", Phase: Switching}
		got, _ := Recover(&Found{Intent: in, Current: in.From}, "d", 1, "j")
		if (got == RecoverDrop) != want {
			t.Errorf("a switch from %q is recovered as %s", name, got)
		}
		if strings.Contains(name, "T") != ValidReleaseID(name) {
			t.Errorf("ValidReleaseID(%q) = %v", name, ValidReleaseID(name))
		}
	}
}

// What was live when another tool was left is one step back from the first
// release of ours, and the oldest go first.
func TestAdoptedReleasesCountAsLiveInTheirOrder(t *testing.T) {
	line := func(name string) ReleaseLine { return ReleaseLine{Release: name, State: ReleaseLive} }
	f := &Found{Lines: []ReleaseLine{line("9"), line("10"), line("11")}, Current: "releases/11"}
	if got := RollbackTarget(f); got != "10" {
		t.Errorf("one step back from 11 is %q", got)
	}
	ours := "20240501T101500Z-3f2c1ab"
	f.Lines, f.Current = append(f.Lines, line(ours)), "releases/"+ours
	if got := RollbackTarget(f); got != "11" {
		t.Errorf("one step back from ours is %q", got)
	}
	no := func(string) bool { return false }
	if got := strings.Join(PruneList(f, 2, 0, no), " "); got != "10 9" {
		t.Errorf("of four two are kept, and removed are %q", got)
	}
	if got := strings.Join(PruneList(f, 1, 0, no), " "); got != "10 9" {
		t.Errorf("the rollback target stays, and removed are %q", got)
	}
}
