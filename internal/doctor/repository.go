package doctor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
	"deployhook/internal/git"
)

// refsTime bounds asking one repository for its branches.
const refsTime = 15 * time.Second

// reposAtOnce bounds how many repositories are asked at once.
const reposAtOnce = 4

// checkRepositories asks each repository for its branches, with the keys of
// its pipeline.
func (e *exam) checkRepositories(ctx context.Context) (found []Check) {
	if e.file == nil {
		return e.needsConfig()
	}
	if who := e.commandsAreUnsafe(ctx); who != "" {
		return warn("not asked: deploy.yaml can be changed by "+who, "")
	}
	var pipelines []*deploy.Pipeline
	for i := range e.file.Deploy.Pipelines {
		if p := &e.file.Deploy.Pipelines[i]; p.Repository != "" {
			pipelines = append(pipelines, p)
		}
	}
	if len(pipelines) == 0 {
		return ok("no pipeline has a repository")
	}
	results := make([][]Check, len(pipelines))
	place := make(chan struct{}, reposAtOnce)
	var all sync.WaitGroup
	for i, p := range pipelines {
		all.Go(func() {
			place <- struct{}{}
			defer func() { <-place }()
			ctx, cancel := context.WithTimeout(ctx, refsTime)
			defer cancel()
			results[i] = e.checkRepository(ctx, p)
		})
	}
	all.Wait()
	return unlessAny(slices.Concat(results...), "%s answered, with the branches that are waited for", counted(len(pipelines), "pipeline's repository"))
}

func (e *exam) checkRepository(ctx context.Context, p *deploy.Pipeline) []Check {
	text := "pipeline " + p.Name + ": "
	remote, err := e.remote(ctx, p)
	if errors.Is(err, config.ErrUnknown) {
		return warn(text+p.Repository+" was not asked: its key cannot be read by this user", asRoot)
	}
	if err != nil {
		return fail(text+err.Error(), "")
	}
	if c := e.readableHere(ctx, p); c != nil {
		return c
	}
	refs, err := git.Refs(ctx, remote)
	var host *git.HostKeyError
	switch {
	case errors.As(err, &host) && host.Line != "":
		what := "is not known"
		if host.Changed {
			what = "is another one than auth.known_hosts has"
		}
		return fail(fmt.Sprintf("%s%s: its host key %s: compare the fingerprint %s with what the host's owner publishes", text, p.Repository, what, host.Fingerprint),
			"then put this line into auth.known_hosts of the pipeline:\n"+host.Line)
	case err != nil && ctx.Err() != nil:
		return fail(fmt.Sprintf("%s%s did not answer within %v", text, p.Repository, refsTime), "")
	case err != nil && strings.HasSuffix(err.Error(), " is empty"):
		return warn(text+p.Repository+" is empty: nothing was pushed yet", "")
	case err != nil:
		return fail(text+err.Error(), e.showKey(p))
	}
	return branches(p, refs)
}

// showKey is how the public half of a pipeline's key is seen.
func (e *exam) showKey(p *deploy.Pipeline) string {
	if p.Auth.SSHKey == nil {
		return ""
	}
	file := p.Auth.SSHKey.File
	if p.Auth.SSHKey.Credential != "" {
		file = config.CredentialFile(e.Config, p.Auth.SSHKey.Credential)
	}
	if file == "" {
		return ""
	}
	return "sudo ssh-keygen -y -f " + file + "   # its public half, for the deploy keys of the repository"
}

// remote is a pipeline's repository, with the keys that it is fetched with.
func (e *exam) remote(ctx context.Context, p *deploy.Pipeline) (git.Remote, error) {
	r := git.Remote{Repository: p.Repository, URL: p.CloneURL, Username: p.Auth.Username, KnownHosts: []byte(p.Auth.KnownHosts)}
	if p.Auth.SSHKey != nil {
		key, err := e.file.Look(ctx, *p.Auth.SSHKey)
		if err != nil {
			return r, err
		}
		r.SSHKey = []byte(key + "\n")
	}
	if p.Auth.Token != nil {
		token, err := e.file.Look(ctx, *p.Auth.Token)
		if err != nil {
			return r, err
		}
		r.Token = token
	}
	return r, nil
}

// readableHere looks whether the daemon can read a repository on this machine,
// which root always can.
func (e *exam) readableHere(ctx context.Context, p *deploy.Pipeline) []Check {
	path := strings.TrimPrefix(p.CloneURL, "file://")
	if !filepath.IsAbs(path) {
		return nil
	}
	if why, fix := e.shut(ctx, path, 5); why != "" {
		return fail(fmt.Sprintf("pipeline %s: %s: %s", p.Name, path, why), fix)
	}
	return nil
}

// branches looks whether the branches are there that a pipeline waits for.
func branches(p *deploy.Pipeline, refs []string) (found []Check) {
	var there []string
	for _, r := range refs {
		if name, ok := strings.CutPrefix(r, "refs/heads/"); ok {
			there = append(there, name)
		}
	}
	var wanted []string
	if p.On.Push != nil {
		wanted = slices.Clone(p.On.Push.Branches)
	}
	if p.Branch != "" {
		wanted = append(wanted, p.Branch)
	}
	for _, b := range slices.Compact(slices.Sorted(slices.Values(wanted))) {
		// A glob, or what is left out, need not be there.
		if strings.ContainsAny(b, "*?+[!") || slices.Contains(there, b) {
			continue
		}
		text := fmt.Sprintf("pipeline %s waits for branch %s, which %s does not have%s", p.Name, b, p.Repository, deploy.DidYouMean(b, there))
		if len(there) > 0 && len(there) <= 5 && deploy.DidYouMean(b, there) == "" {
			text += ": there is " + strings.Join(there, ", ")
		}
		found = append(found, warn(text, "")...)
	}
	return found
}
