package config

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"deployhook/internal/deploy"
)

// atOdds are warnings that need both the section server, with what variables
// and flags say, and the rest of the file.
func (f *File) atOdds() (list Problems) {
	warn := func(path, format string, args ...any) {
		list = append(list, f.problem(path, format, args...))
	}
	if f.Server.BodyMemory < bodyMost {
		warn("server.limits.body_memory", "a webhook may have %d MiB: a larger one than this is answered 503 each time", bodyMost>>20)
	}
	if !local(f.Server.Listen) && !f.Server.TLS.On() {
		for _, h := range f.Deploy.Hooks {
			if len(h.Tokens) > 0 {
				warn("server.listen", "other machines reach this without TLS, and the token of hook %s with it: listen on 127.0.0.1 behind a proxy, or set server.tls", h.Name)
				break
			}
		}
	}
	for _, p := range f.Deploy.Pipelines {
		for _, j := range p.Jobs {
			if j.Deploys() && j.RunsOn(deploy.Local) && (j.Release.Path+"/" == f.Server.Data+"/" || strings.HasPrefix(j.Release.Path, f.Server.Data+"/")) {
				warn("pipelines."+p.Name+".jobs."+j.Name+".release", "%s lies in server.data, which is deployhook's own: keep releases apart from it", j.Release.Path)
			}
		}
	}
	for _, p := range f.Deploy.Pipelines {
		for _, j := range p.Jobs {
			if j.Limits != (deploy.Limits{}) && j.RunsOn(deploy.Local) && f.Server.Agent.of(j.Agent()) == spawn {
				warn("pipelines."+p.Name+".jobs."+j.Name+".limits", "they need agents that systemd starts: with server.agent.%s: spawn the job fails", j.Agent())
			}
		}
	}
	return slices.Concat(list, f.oneLogin(), f.oneUser())
}

// oneUser warns where jobs run as a user that they should not: everything that
// runs as one user is one trust domain.
func (f *File) oneUser() (list Problems) {
	jobs := map[deploy.AgentKind]string{} // an example of each kind
	for _, p := range f.Deploy.Pipelines {
		for _, j := range p.Jobs {
			if kind := j.Agent(); j.RunsOn(deploy.Local) && (kind == deploy.DeployAgent || p.Repository != "") {
				jobs[kind] = p.Name + "/" + j.Name
			}
		}
	}
	warn := func(format string, args ...any) {
		list = append(list, Problem{File: base(f.Path), Message: fmt.Sprintf(format, args...)})
	}
	test, release, a := jobs[deploy.TestAgent], jobs[deploy.DeployAgent], f.Server.Agent
	switch {
	case test != "" && release != "" && a.Test == a.Deploy && a.Test == spawn:
		warn("test jobs (%s) and deploy jobs (%s) run as the same user, the daemon's own: whoever can push can read what that user can read, its secrets included", test, release)
	case test != "" && release != "" && a.Test == a.Deploy:
		warn("test jobs (%s) and deploy jobs (%s) run as the same user, that of %s: whoever can push can read and change what deploy jobs can", test, release, a.Test)
	case test != "" && a.Test == spawn && a.Deploy != spawn:
		warn("test jobs (%s) run as the daemon's own user: whoever can push can read what that user can read, its secrets included", test)
	case release != "" && a.Deploy == spawn && a.Test != spawn:
		warn("deploy jobs (%s) run as the daemon's own user and can read what it can read, its secrets included", release)
	}
	return list
}

// problem is about a path of the file, at its place when it stands there.
func (f *File) problem(path, format string, args ...any) Problem {
	p := Problem{File: base(f.Path), Path: path, Message: fmt.Sprintf(format, args...)}
	if from := f.given[path]; from != "" {
		p.File, p.Path = from, ""
	} else if v := f.written[path]; v != nil {
		p.Line, p.Column = v.line, v.column
	}
	return p
}

// local says whether only this machine reaches an address.
func local(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil || host == "localhost" {
		return err == nil
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// strangeVariables warns of variables that look like a key of the section
// server and are none. Other programs may set such names, so that it is no error.
func strangeVariables() (list Problems) {
	const prefix = "DEPLOYHOOK_SERVER_"
	var known []string
	for _, k := range serverKeys() {
		known = append(known, variableOf(k.path))
	}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		is := false
		for _, k := range known {
			is = is || k == name
		}
		if !is {
			list = append(list, Problem{File: name, Message: "the section server has no such key" + deploy.DidYouMean(name, known)})
		}
	}
	return list
}
