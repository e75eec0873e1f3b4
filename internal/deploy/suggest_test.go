package deploy

import "testing"

func TestSuggestionIsNearOrNotThere(t *testing.T) {
	names := []string{"branch", "job", "env", "if", "timeout", "repository", "two", "z"}
	for name, want := range map[string]string{
		"brnch": "branch", "Branch": "branch", "TIMEOUT": "timeout", "tiemout": "timeout", "tow": "two", "repositry": "repository", "jobs": "job",
		"": "", "now": "", "id": "if", "x": "", "zz": "z", "main": "", "branch": "", "completely different": "",
	} {
		got := DidYouMean(name, names)
		if want != "" {
			want = `; did you mean "` + want + `"?`
		}
		if got != want {
			t.Errorf("%q gets %q, want %q", name, got, want)
		}
	}
}
