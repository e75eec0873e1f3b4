package adopt

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"deployhook/internal/config"
)

// keepLeast is how many releases are kept where fewer are there: the default.
const keepLeast = 5

// Pipeline is the YAML to put into deploy.yaml. It is a whole file, which
// check takes.
func (s *Site) Pipeline() (string, error) {
	name := s.pipelineName()
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# Sections that deploy.yaml has already stay: put in what is below them.")
	p("hooks:")
	p("  github: { provider: github, secret: { credential: github-webhook } }")
	p("")
	p("pipelines:")
	p("  %s:", name)
	s.writeRepository(p, name)
	branch := s.Branch
	note := ""
	if branch == "" {
		branch, note = "main", "   # nothing here says which branch was deployed"
	}
	p("    on:")
	p("      push: { branches: [%s] }%s", config.Scalar(branch), note)
	p("    jobs:")
	p("      # test:                              # deployed is what passed it")
	p("      #   steps:")
	p("      #     - run: make test")
	p("      deploy:")
	p("        release:")
	p("          path: %s", config.Scalar(s.Path))
	if s.Tool == Clone {
		p("          strategy: in_place")
	} else {
		p("          keep: %d", max(keepLeast, len(s.Releases)))
		s.writeShared(p)
	}
	p("        # steps:                           # what ran there at each deploy")
	p("        #   - run: bundle install")
	p("        # restart: sudo systemctl restart %s   # what was restarted then", name)
	text := b.String()
	f, err := config.Parse("deploy.yaml", []byte(text))
	if err != nil {
		var problems config.Problems
		if errors.As(err, &problems) && len(problems) > 0 {
			return "", fmt.Errorf("no pipeline can be made of it: %s: %s", problems[0].Path, problems[0].Message)
		}
		return "", err
	}
	if spec := f.Deploy.Pipelines[0].Jobs[0].Release; spec.Path != s.Path {
		return "", fmt.Errorf("no pipeline can be made of it: the path %q cannot be written into a file of text", s.Path)
	}
	return text, nil
}

func (s *Site) writeRepository(p func(string, ...any), name string) {
	switch {
	case s.Repository == "" && s.CloneURL != "":
		p("    repository: github.com/OWNER/%s   # as webhooks name it", name)
		p("    clone_url: %s", config.Scalar(s.CloneURL))
	case s.Repository == "":
		p("    repository: github.com/OWNER/%s   # nothing here says where it is", name)
	default:
		p("    repository: %s", config.Scalar(s.Repository))
	}
	if s.SSH {
		p("    # It was fetched over SSH. A private repository needs a key of its own:")
		if s.CloneURL != "" {
			p("    # clone_url: %s", config.Scalar(s.CloneURL))
		}
		p("    # auth: { ssh_key: { credential: %s-key } }", name)
	} else if s.Repository != "" {
		p("    # A private repository: auth: { token: { credential: %s-token } }", name)
	}
	if s.Identity != "" && !strings.HasPrefix(s.Identity, "github.com/") {
		p("    # Webhooks of %s are taken when they are like GitHub's.", strings.SplitN(s.Identity, "/", 2)[0])
	}
}

func (s *Site) writeShared(p func(string, ...any)) {
	if len(s.SharedDirs)+len(s.SharedFiles) == 0 {
		return
	}
	p("          shared:")
	for _, kind := range []struct {
		key   string
		names []string
	}{{"dirs", s.SharedDirs}, {"files", s.SharedFiles}} {
		if len(kind.names) == 0 {
			continue
		}
		p("            %s:", kind.key)
		for _, n := range kind.names {
			p("              - %s", config.Scalar(n))
		}
	}
}

var notInName = regexp.MustCompile(`[^a-z0-9]+`)

// pipelineName names the pipeline after the repository, else the directory.
func (s *Site) pipelineName() string {
	for _, from := range []string{s.Repository, s.CloneURL, s.Path} {
		base := strings.TrimSuffix(path.Base(from), ".git")
		if name := strings.Trim(notInName.ReplaceAllString(strings.ToLower(base), "-"), "-"); name != "" && name[0] > '9' && len(name) <= 60 {
			return name
		}
	}
	return "site"
}
