// Package setup makes an installation on a machine that systemd runs: users,
// directories, secrets, units, and a first deploy.yaml. What is there already
// stays as it is.
package setup

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"deployhook/internal/config"
)

// Answers are what a first deploy.yaml is made of.
type Answers struct {
	Name       string // of the pipeline; empty: the repository's
	Repository string // github.com/acme/shop, or an address of it
	Branch     string
	Public     bool   // the repository can be fetched without a key
	Path       string // of the releases; empty: /srv/NAME
	Test       string // command of the test job; empty: no test job
	Build      string // command of the deploy job in the new release; empty: none
	Restart    string // command after the switch; empty: none
	URL        string // where this server is reached from outside; may be empty
}

// Agent sockets of the units.
const (
	testSocket   = "/run/deployhook-agents/test.sock"
	deploySocket = "/run/deployhook-agents/deploy.sock"
)

// hookName and hookSecret are what a first deploy.yaml calls them.
const (
	hookName   = "github"
	hookSecret = "github-webhook"
)

// ErrNoRepository is missing answers.
var ErrNoRepository = errors.New("which repository is to be deployed?")

// fill completes the answers.
func (a *Answers) fill() error {
	a.Repository = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSpace(a.Repository), "/"), ".git")
	for _, prefix := range []string{"https://", "http://", "ssh://", "git@"} {
		a.Repository = strings.TrimPrefix(a.Repository, prefix)
	}
	if host, rest, ok := strings.Cut(a.Repository, ":"); ok && !strings.Contains(host, "/") {
		a.Repository = host + "/" + rest // the form of scp
	}
	if a.Repository == "" {
		return ErrNoRepository
	}
	if a.Name == "" {
		a.Name = path.Base(a.Repository)
	}
	if a.Branch == "" {
		a.Branch = "main"
	}
	if a.Path == "" {
		a.Path = "/srv/" + a.Name
	}
	return nil
}

// keyName is the credential of the pipeline's deploy key.
func (a *Answers) keyName() string { return a.Name + "-deploy-key" }

// YAML is a deploy.yaml of the answers, which is read back before it is given.
func (a *Answers) YAML() (string, error) {
	if err := a.fill(); err != nil {
		return "", err
	}
	var b strings.Builder
	line := func(indent int, format string, args ...any) {
		fmt.Fprintf(&b, strings.Repeat("  ", indent)+format+"\n", args...)
	}
	line(0, "# What a push does. deployhook check says what this means and what is wrong with it;")
	line(0, "# after a change: sudo systemctl reload deployhook")
	line(0, "server:")
	line(1, "# Test jobs and deploy jobs run as users of their own.")
	line(1, "agent: { test: %s, deploy: %s }", testSocket, deploySocket)
	if a.URL != "" {
		line(1, "url: %s", config.Scalar(a.URL))
	}
	line(0, "")
	line(0, "hooks:")
	line(1, "%s: { provider: github, secret: { credential: %s } }", hookName, hookSecret)
	line(0, "")
	line(0, "pipelines:")
	line(1, "%s:", config.Scalar(a.Name))
	line(2, "repository: %s", config.Scalar(a.Repository))
	if !a.Public {
		line(2, "auth: { ssh_key: { credential: %s } }", config.Scalar(a.keyName()))
	}
	line(2, "on:")
	line(3, "push: { branches: [%s] }", config.Scalar(a.Branch))
	line(2, "jobs:")
	if a.Test != "" {
		line(3, "test:")
		line(4, "steps:")
		line(5, "- run: %s", config.Scalar(a.Test))
	}
	line(3, "deploy:")
	line(4, "release: %s", config.Scalar(a.Path))
	if a.Build != "" {
		line(4, "steps:")
		line(5, "- run: %s", config.Scalar(a.Build))
	}
	if a.Restart != "" {
		line(4, "restart: %s", config.Scalar(a.Restart))
	}
	text := b.String()
	var problems config.Problems
	if _, err := config.Parse("deploy.yaml", []byte(text)); errors.As(err, &problems) {
		return "", errors.New(a.explain(problems))
	} else if err != nil {
		return "", err
	}
	return text, nil
}

// explain says what is wrong with the answers, by their flags.
func (a *Answers) explain(problems config.Problems) string {
	flags := []struct{ path, flag string }{
		{".repository", "--repository"}, {".release", "--path"}, {".push", "--branch"}, {"test.steps", "--test"}, {"deploy.steps", "--build"},
		{".restart", "--restart"}, {"server.url", "--url"}, {"pipelines." + a.Name, "--name"},
	}
	var lines []string
	for _, p := range problems {
		at := "--name"
		for _, f := range flags {
			if strings.Contains(p.Path, f.path) {
				at = f.flag
				break
			}
		}
		lines = append(lines, at+": "+p.Message)
	}
	return strings.Join(lines, "\n")
}
