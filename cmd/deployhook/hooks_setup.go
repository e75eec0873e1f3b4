package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
	"deployhook/internal/setup"
)

// forges are where webhooks can be set up.
var forges = []string{"github"}

func (a *app) hooksSetupCommand() *cobra.Command {
	var hook, token string
	var dry, asJSON bool
	c := &cobra.Command{
		Use:   "setup github [HOST/]OWNER/REPO",
		Short: "Make or repair a repository's webhook",
		Long: "Make the webhook of a repository on GitHub, or repair it: address, content type,\n" +
			"secret, events, active, TLS verification. It is found by its address, so doing\n" +
			"it again changes nothing; only the secret, which GitHub never shows, is set\n" +
			"anew, of a list the first. With --dry-run nothing is changed. HOST is that of a\n" +
			"GitHub Enterprise Server, GITHUB_API_URL where its API is, if elsewhere. The\n" +
			"token is $GITHUB_TOKEN, or auth.token of the repository's pipeline.",
		Example: "  sudo deployhook hooks setup github acme/shop --dry-run\n  sudo deployhook hooks setup github acme/shop",
		Args: func(c *cobra.Command, words []string) error {
			if len(words) > 0 && !slices.Contains(forges, words[0]) {
				return misuse{fmt.Errorf("webhooks of %q cannot be set up, only those of github%s", words[0], deploy.DidYouMean(words[0], forges))}
			}
			return args("github", "OWNER/REPO")(c, words)
		},
		ValidArgsFunction: a.completeSetup,
		RunE: func(c *cobra.Command, words []string) error {
			s, err := a.webhookSetup(c.Context(), words[1], hook, token)
			if err != nil {
				return err
			}
			p, err := s.github.Plan(c.Context(), s.repository, &s.webhook)
			if err != nil {
				return err
			}
			made := p.ID == 0
			id := p.ID
			if !dry {
				if id, err = s.github.Apply(c.Context(), p, &s.webhook); err != nil {
					return err
				}
			}
			if asJSON {
				p.ID = id
				err = a.json(p)
			} else {
				a.printSetup(p, dry)
			}
			if dry {
				a.say("nothing was changed (--dry-run)")
			} else {
				a.saySetup(s, id, made)
			}
			return err
		},
	}
	c.Flags().StringVar(&hook, "hook", "", "the hook of deploy.yaml, where several could be meant")
	c.Flags().StringVar(&token, "token", "", "where the token is read: environment:NAME, file:PATH or pipeline:NAME")
	c.Flags().BoolVar(&dry, "dry-run", false, "only say what would be changed")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	a.completeFromConfig(c, "hook", hookNames)
	return c
}

// webhookSetup is what one webhook needs.
type webhookSetup struct {
	github     setup.GitHub
	repository string // OWNER/REPO
	hook       string
	webhook    setup.Webhook
}

// webhookSetup finds what a repository's webhook must be in deploy.yaml.
func (a *app) webhookSetup(ctx context.Context, repository, hookName, tokenFrom string) (*webhookSetup, error) {
	host, owned, err := repositoryOf(repository)
	if err != nil {
		return nil, err
	}
	f, err := config.Load(config.Find(a.config), nil)
	if err != nil {
		return nil, err
	}
	if f.Server.URL == "" {
		return nil, hinted{errors.New("server.url is not set, so nobody knows where GitHub is to send to"), "put into deploy.yaml: server: { url: https://YOUR.NAME }"}
	}
	identity := strings.ToLower(host + "/" + owned)
	hook, err := hookFor(f.Deploy, identity, hookName)
	if err != nil {
		return nil, err
	}
	s := &webhookSetup{repository: owned, hook: hook.Name, webhook: setup.Webhook{URL: strings.TrimSuffix(f.Server.URL, "/") + "/hooks/" + hook.Name}}
	s.webhook.Events = eventsFor(f.Deploy, identity, hook.Name)
	if len(hook.Secrets) > 0 {
		if s.webhook.Secret, err = secretFor(ctx, f, hook.Secrets[0]); err != nil {
			return nil, err
		}
	}
	if len(hook.Tokens) > 0 { // GitHub sends no header of ours: it goes into the address
		token, err := secretFor(ctx, f, hook.Tokens[0])
		if err != nil {
			return nil, err
		}
		s.webhook.URL += "?token=" + url.QueryEscape(token)
	}
	if s.github.Token, err = tokenFor(ctx, f, identity, tokenFrom); err != nil {
		return nil, err
	}
	s.github.API = strings.TrimSuffix(cmp.Or(os.Getenv("GITHUB_API_URL"), setup.GitHubAPI(host)), "/")
	if u, err := url.Parse(s.github.API); err != nil || u.Scheme != "https" && !local(u.Hostname()) || u.Host == "" {
		return nil, hinted{errors.New("GITHUB_API_URL is no https address, and a token would go there"), "unset GITHUB_API_URL, or set it to https://HOST/api/v3"}
	}
	return s, nil
}

// local says whether a host is this machine, to which TLS is not needed.
func local(host string) bool { return host == "127.0.0.1" || host == "::1" || host == "localhost" }

// repositoryOf takes [HOST/]OWNER/REPO apart.
func repositoryOf(text string) (host, owned string, err error) {
	parts := strings.Split(strings.TrimSuffix(strings.TrimPrefix(text, "https://"), ".git"), "/")
	if len(parts) == 2 {
		parts = append([]string{"github.com"}, parts...)
	}
	word := func(s string) bool {
		return s != "" && s != "." && s != ".." && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == ""
	}
	if len(parts) != 3 || !word(parts[1]) || !word(parts[2]) || !word(strings.ReplaceAll(parts[0], ":", "")) {
		return "", "", misuse{fmt.Errorf("%q is not OWNER/REPO or HOST/OWNER/REPO", text)}
	}
	return strings.ToLower(parts[0]), parts[1] + "/" + parts[2], nil
}

// hookFor is the hook that a repository's webhook goes to: the one named, that
// of its pipelines, or the only one of GitHub.
func hookFor(c *deploy.Config, identity, name string) (*deploy.Hook, error) {
	var names []string
	for _, p := range c.Pipelines {
		if name == "" && p.Repository == identity && p.Hook != "" && !slices.Contains(names, p.Hook) {
			names = append(names, p.Hook)
		}
	}
	var all []string
	for _, h := range c.Hooks {
		if h.Provider == "github" {
			all = append(all, h.Name)
		}
	}
	switch {
	case name != "":
		names = []string{name}
	case len(names) == 0:
		names = all
	}
	switch len(names) {
	case 0:
		return nil, hinted{errors.New("deploy.yaml has no hook with provider: github"), "put into deploy.yaml: hooks: { github: { provider: github, secret: { credential: github-webhook } } }"}
	case 1:
	default:
		return nil, misuse{fmt.Errorf("several hooks could be meant (%s): name one with --hook", strings.Join(names, ", "))}
	}
	h := c.Hook(names[0])
	if h == nil {
		return nil, fmt.Errorf("there is no hook %s%s", names[0], deploy.DidYouMean(names[0], all))
	}
	if h.Provider != "github" {
		return nil, fmt.Errorf("the hook %s takes what %s sends, not GitHub", h.Name, h.Provider)
	}
	return h, nil
}

// eventsFor are the events of GitHub that a repository's pipelines wait for.
func eventsFor(c *deploy.Config, identity, hook string) []string {
	release, workflow := false, false
	for _, p := range c.Pipelines {
		if p.Repository == identity && (p.Hook == "" || p.Hook == hook) {
			release = release || p.On.Release
			workflow = workflow || p.On.Workflow != nil
		}
	}
	events := []string{"push"}
	if release {
		events = append(events, "release")
	}
	if workflow {
		events = append(events, "workflow_run")
	}
	return events
}

// secretFor reads a secret of deploy.yaml, or says who can.
func secretFor(ctx context.Context, f *config.File, s deploy.Secret) (string, error) {
	v, err := f.Look(ctx, s)
	if errors.Is(err, config.ErrUnknown) || errors.Is(err, fs.ErrPermission) {
		return "", hinted{fmt.Errorf("secret %s cannot be read by this user", s.Name), "sudo deployhook hooks setup github OWNER/REPO"}
	}
	return v, err
}

// tokenFor reads the token for GitHub's API from where it is said to be. The
// token itself is no value of the flag: other users see command lines.
func tokenFor(ctx context.Context, f *config.File, identity, from string) (string, error) {
	kind, name, found := strings.Cut(from, ":")
	switch {
	case from == "" && os.Getenv("GITHUB_TOKEN") != "":
		kind, name = "environment", "GITHUB_TOKEN"
	case from == "":
		for _, p := range f.Deploy.Pipelines {
			if p.Repository == identity && p.Auth.Token != nil {
				return secretFor(ctx, f, *p.Auth.Token)
			}
		}
		return "", hinted{errors.New("there is no token for GitHub: GITHUB_TOKEN is not set, and no pipeline of this repository has auth.token"),
			"make one at github.com/settings/tokens with the permission Webhooks: read and write, then: sudo GITHUB_TOKEN=… or --token file:PATH"}
	case !found:
		kind = ""
	}
	s := deploy.Secret{Name: "--token"}
	switch kind {
	case "environment":
		s.Environment = name
	case "file":
		s.File = name
	case "pipeline":
		p := f.Deploy.Pipeline(name)
		if p == nil || p.Auth.Token == nil {
			return "", fmt.Errorf("there is no pipeline %q with auth.token", name)
		}
		s = *p.Auth.Token
	default:
		return "", misuse{errors.New("--token says where the token is read, environment:NAME, file:PATH or pipeline:NAME, and not what it is: other users see command lines")}
	}
	return secretFor(ctx, f, s)
}

// printSetup prints what is changed, a line for each setting.
func (a *app) printSetup(p *setup.WebhookPlan, dry bool) {
	what := "makes a webhook for"
	if p.ID != 0 {
		what = fmt.Sprintf("changes webhook %d for", p.ID)
	}
	if dry {
		what = strings.NewReplacer("makes", "would make", "changes", "would change").Replace(what)
	}
	fmt.Fprintf(a.out, "%s: %s %s\n", p.Repository, what, plain(&p.Address))
	names := 0
	for _, c := range p.Changes {
		names = max(names, len(c.Setting))
	}
	for _, c := range p.Changes {
		line := plain(&c.Want)
		if c.Have != "" {
			line = plain(&c.Have) + " -> " + line
		}
		fmt.Fprintf(a.out, "  %-*s  %s\n", names, c.Setting, line)
	}
	for _, id := range p.Others {
		a.say(fmt.Sprintf("warning: webhook %d of %s goes to the same address: every push comes twice; remove it in the repository's settings", id, p.Repository))
	}
}

// saySetup says what to do after a webhook was made or changed.
func (a *app) saySetup(s *webhookSetup, id int64, made bool) {
	word := "changed"
	if made {
		word = "made, and GitHub sends it a ping"
	}
	a.say(fmt.Sprintf("webhook %d of %s is %s", id, s.repository, word))
	a.say("hint: deployhook hooks test " + s.hook + " looks whether it is taken")
}

// completeSetup gives the forges, and then the repositories of deploy.yaml.
func (a *app) completeSetup(c *cobra.Command, words []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return complete(c, func(context.Context) (list []cobra.Completion) {
		f, err := config.Load(config.Find(a.config), nil)
		switch {
		case len(words) == 0:
			return forges
		case err != nil || len(words) > 1:
			return nil
		}
		for _, p := range f.Deploy.Pipelines {
			if name := strings.TrimPrefix(p.Repository, "github.com/"); name != "" && !slices.Contains(list, name) {
				list = append(list, name)
			}
		}
		return list
	})
}
