package config

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestInPlaceIsReadAndCheckSaysWhatItDoesNotPromise(t *testing.T) {
	f := parsed(t, jobText("release: { path: /srv/shop, strategy: in_place, overwrite: true, keep: 7 }\n"))
	r := f.Deploy.Pipelines[0].Jobs[0].Release
	if !r.InPlace || !r.Overwrite || r.Path != "/srv/shop" || r.Keep != 7 {
		t.Errorf("the release is %+v", r)
	}
	if w := warningsOf(f); !slices.ContainsFunc(w, func(s string) bool {
		return strings.Contains(s, "release.strategy: in place, the site is neither all old nor all new while files change") && strings.Contains(s, "not put back by itself")
	}) {
		t.Errorf("the warnings are %q", w)
	}
	var b bytes.Buffer
	Describe(&b, f)
	if !strings.Contains(b.String(), "in_place: changes by hand are overwritten") {
		t.Errorf("check does not say how it deploys:\n%s", &b)
	}
	for _, text := range []string{"release: /srv/shop\n", "release: { path: /srv/shop, strategy: symlink }\n"} {
		f := parsed(t, jobText(text))
		if r := f.Deploy.Pipelines[0].Jobs[0].Release; r.InPlace || r.Overwrite {
			t.Errorf("%q is %+v", text, r)
		}
	}
}

// two are two pipelines of one repository, each with a release.
func two(a, b string) string {
	one := func(name, release string) string {
		return "  " + name + ": { repository: github.com/a/b, on: { push: { branches: [main] } }, jobs: { d: { release: " + release + " } } }\n"
	}
	return hooksPart + "pipelines:\n" + one("a", a) + one("b", b)
}

func TestOnePathHasOneStrategy(t *testing.T) {
	got := problemsOf(t, two("/srv/shop", "{ path: /srv/shop, strategy: in_place }"))
	if len(got) != 1 || !strings.Contains(got[0], "job d of pipeline a deploys here with another strategy") {
		t.Errorf("the problems are %q", got)
	}
	// Files in place have no releases/ that another path must keep out of.
	parsed(t, two("{ path: /srv/shop, strategy: in_place }", "/srv/shop/shared/docs"))
	if got := problemsOf(t, two("/srv/shop", "{ path: /srv/shop/shared/docs, strategy: in_place }")); len(got) != 1 || !strings.Contains(got[0], "which deployhook keeps") {
		t.Errorf("the problems are %q", got)
	}
}

func TestSubdirIsReadAndSaid(t *testing.T) {
	f := parsed(t, jobText("release: { path: /srv/shop, subdir: ./apps//shop/ }\n"))
	if r := f.Deploy.Pipelines[0].Jobs[0].Release; r.Subdir != "apps/shop" {
		t.Errorf("the release is %+v", r)
	}
	var b bytes.Buffer
	Describe(&b, f)
	if !strings.Contains(b.String(), "apps/shop of the repository") {
		t.Errorf("check does not say what it deploys:\n%s", &b)
	}
}
