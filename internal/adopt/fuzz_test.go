package adopt

import (
	"strings"
	"testing"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
)

// checkHistory holds what was read against the forms that others rely on.
func checkHistory(t *testing.T, h history) {
	for name, commit := range h.commits {
		if name == "" || !deploy.ValidCommit(commit) && !shortCommit(commit) {
			t.Errorf("release %q has commit %q", name, commit)
		}
	}
}

func FuzzRevisionsLog(f *testing.F) {
	f.Add("Branch main (at " + sha + ") deployed as release " + one + " by alice\nalice rolled back to release " + one + "\n")
	f.Add("Branch ) (at 1234567) deployed as release x by (at 7654321) deployed as release y by\r\n")
	f.Fuzz(func(t *testing.T, text string) { checkHistory(t, parseRevisions(text)) })
}

func FuzzReleasesLog(f *testing.F) {
	f.Add(`{"created_at":"2024-01-01T00:00:00+0000","release_name":"1","user":"a","target":"main"}` + "\n{\n20200102030405,12\n")
	f.Add(`{"release_name":7}` + "\n" + `{"release_name":"../x","revision":"` + sha + `"}`)
	f.Fuzz(func(t *testing.T, text string) { checkHistory(t, parseReleasesLog(text)) })
}

func FuzzRevision(f *testing.F) {
	f.Add(sha + "\n")
	f.Add("3f2c1ab")
	f.Add("\x00garbage")
	f.Fuzz(func(t *testing.T, text string) {
		if c := parseRevision(text); c != "" && !deploy.ValidCommit(c) && !shortCommit(c) {
			t.Errorf("%q is no commit", c)
		}
	})
}

// Whatever stands in a git config, HEAD and names, the pipeline is one that
// check takes, and no login is in it.
func FuzzGitConfig(f *testing.F) {
	f.Add("[remote \"origin\"]\n\turl = git@github.com:acme/shop.git\n", "ref: refs/heads/main\n", "/srv/shop")
	f.Add("[remote \"a\"] url = \"https://u:p@x.example/y#z\" ; c\n[branch]\nurl=x", "ref: refs/heads/a*b\n", "/srv/a b")
	f.Add("[remote \"origin\"]\nurl = ssh://-oX@h:22/p\n", sha, "/srv/\"x\"")
	f.Add("[remote \"origin\"]\nurl = http://a@b@c/d\n", "ref: refs/heads/on", "/srv/#x")
	f.Fuzz(func(t *testing.T, text, head, path string) {
		s := &Site{Tool: Capistrano, Path: path, Current: "1", Branch: parseHead(head)}
		s.origin(originURL(text))
		line := deploy.ReleaseLine{Release: "1", State: deploy.ReleaseLive, Repository: s.Identity}
		if len(s.Identity) < 900 && !line.Valid() {
			t.Errorf("the journal refuses the repository %q", s.Identity)
		}
		yaml, err := s.Pipeline()
		if err != nil {
			return // one sentence: what is wrong with the path or the address
		}
		file, err := config.Parse("deploy.yaml", []byte(yaml))
		if err != nil {
			t.Fatalf("%v\n%s", err, yaml)
		}
		p := file.Deploy.Pipelines[0]
		if got := p.Jobs[0].Release.Path; got != path {
			t.Errorf("the path %q became %q", path, got)
		}
		if s.Identity != "" && p.Repository != s.Identity {
			t.Errorf("the journal has repository %q, the pipeline %q", s.Identity, p.Repository)
		}
		if strings.Contains(p.CloneURL, "://") && !strings.HasPrefix(p.CloneURL, "ssh://") && strings.Contains(strings.SplitN(p.CloneURL, "/", 4)[2], "@") {
			t.Errorf("a login is in %q", p.CloneURL)
		}
	})
}
