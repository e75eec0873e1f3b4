package doctor

import (
	"testing"
)

func TestNothingIsWrongWithAHealthyInstallation(t *testing.T) {
	checks := newMachine(t).look()
	names := map[string]bool{}
	for _, c := range checks {
		names[c.Name] = true
		if c.State != OK || c.Fix != "" || c.Text == "" {
			t.Errorf("%s %s: %s\n%s", c.State, c.Name, c.Text, c.Fix)
		}
	}
	for _, name := range Names() {
		if !names[name] {
			t.Errorf("nothing is said of %s", name)
		}
	}
	if len(checks) != len(Names()) {
		t.Errorf("%d lines for %d checks", len(checks), len(Names()))
	}
}
