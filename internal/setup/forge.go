package setup

import (
	"fmt"
	"strings"

	"deployhook/internal/config"
)

// Forge is what a person types into the forge's forms: lines of text. Secrets
// are written out only when show says so; else the command that prints them.
func (p *Plan) Forge(show bool) []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	base := p.f.Server.URL
	if base == "" {
		base = "https://YOUR-SERVER"
	}
	for _, pl := range p.f.Deploy.Pipelines {
		if pl.Auth.SSHKey == nil || pl.Auth.SSHKey.Credential == "" {
			continue
		}
		private, err := p.m.read(config.CredentialFile(Config, pl.Auth.SSHKey.Credential))
		if err != nil {
			continue // it is not made yet
		}
		add("The deploy key of %s: %s/settings/keys/new", pl.Name, page(pl.Repository))
		add("  Title               deployhook")
		if public, err := publicHalf(private, "deployhook-"+pl.Name); err != nil {
			add("  Key                 %v", err)
		} else {
			add("  Key                 %s", public)
		}
		add("  Allow write access  no")
		add("")
	}
	for _, h := range p.f.Deploy.Hooks {
		if h.Provider != "github" || len(h.Secrets) == 0 {
			continue
		}
		where := "the repository, Settings, Webhooks, Add webhook"
		for _, pl := range p.f.Deploy.Pipelines {
			if pl.Repository != "" && (pl.Hook == "" || pl.Hook == h.Name) {
				where = page(pl.Repository) + "/settings/hooks/new"
				break
			}
		}
		secret := "the output of: sudo cat " + config.CredentialFile(Config, h.Secrets[0].Credential)
		if h.Secrets[0].Credential == "" {
			secret = "the one that deploy.yaml names"
		} else if v, err := p.m.read(config.CredentialFile(Config, h.Secrets[0].Credential)); show && err == nil {
			secret = strings.TrimSpace(v)
		}
		add("The webhook %s: %s", h.Name, where)
		add("  Payload URL         %s/hooks/%s", base, h.Name)
		add("  Content type        application/json")
		add("  Secret              %s", secret)
		add("  SSL verification    Enable")
		add("  Which events        Just the push event")
		add("  Active              yes")
		add("")
	}
	return out
}

// page is the address of a repository in a browser.
func page(repository string) string { return "https://" + repository }

// First is the command for a first deploy; empty: no pipeline deploys.
func (p *Plan) First() string {
	for _, pl := range p.f.Deploy.Pipelines {
		if pl.Repository == "" || pl.On.Push == nil || len(pl.On.Push.Branches) == 0 {
			continue
		}
		return fmt.Sprintf("sudo deployhook trigger %s --branch %s --wait", pl.Name, pl.On.Push.Branches[0])
	}
	return ""
}
