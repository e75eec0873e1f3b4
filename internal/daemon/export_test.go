package daemon_test

import (
	"os"
	"path/filepath"
	"testing"
)

// One commit, three ways: a release is what git archive gives of subdir, in
// place is all that git pull gives, and tests have the files that releases
// leave out. Submodules are everywhere.
func TestReleaseIsWhatGitArchiveGives(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.git("init", "-q", "-b", "main", s.path("lib"))
	s.put("lib/lib.txt", "the lib\n")
	s.git("-C", s.path("lib"), "add", "-A")
	s.git("-C", s.path("lib"), "commit", "-q", "-m", "lib")
	lib := s.git("-C", s.path("lib"), "rev-parse", "HEAD")
	s.start(s.config(`
      test: { steps: [ { run: "test -f index.txt && test -f web/tests/t.txt && grep -q lib web/lib/lib.txt && grep -q Format web/version.txt" } ] }
      web:
        release: { path: ` + s.path("web") + `, subdir: web }
        steps: [ { run: "test -f index.html && test ! -e tests" } ]
      all:
        release: { path: ` + s.path("www") + `, strategy: in_place }
        steps: [ { run: "true" } ]
`))
	s.put("repo/.gitattributes", "tests export-ignore\n/web/version.txt export-subst\n")
	s.put("repo/.gitmodules", "[submodule \"lib\"]\n\tpath = web/lib\n\turl = ../lib\n")
	s.put("repo/web/index.html", "hello\n")
	s.put("repo/web/version.txt", "$Format:%H$\n")
	s.put("repo/web/tests/t.txt", "a test\n")
	if err := os.MkdirAll(s.path("repo/web/lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.git("-C", s.repo(), "update-index", "--add", "--cacheinfo", "160000,"+lib+",web/lib")
	for _, text := range []string{"one", "two"} {
		if text == "two" {
			s.git("-C", s.repo(), "update-index", "--add", "--cacheinfo", "160000,"+lib+",web/lib")
		}
		s.want(s.push(text), "succeeded")
		for name, want := range map[string]string{
			"web/current/index.html": "hello", "web/current/version.txt": s.rev(), "web/current/lib/lib.txt": "the lib",
			"www/index.txt": text, "www/web/version.txt": "$Format:%H$", "www/web/tests/t.txt": "a test", "www/web/lib/lib.txt": "the lib",
		} {
			if got := s.file(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		for _, name := range []string{"web/current/tests", "web/current/index.txt", "web/current/web"} {
			if _, err := os.Lstat(filepath.Join(s.dir, name)); err == nil {
				t.Errorf("%s is there", name)
			}
		}
	}
}
