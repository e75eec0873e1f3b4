package git_test

import (
	"testing"

	"deployhook/internal/git"
)

func TestDepthOfAPathIsTheWholeHistory(t *testing.T) {
	r := newRepo(t)
	first := r.commit("a", "1")
	second := r.commit("a", "2")
	m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: r.dir, Depth: 1})
	if _, err := m.Fetch(t.Context(), second, "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	if is, err := m.IsAncestor(t.Context(), first, second); !is || err != nil {
		t.Errorf("IsAncestor = %v, %v", is, err)
	}
}
