package config

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"deployhook/internal/deploy"
)

// describer writes what was understood of a file, line by line.
type describer struct {
	w      io.Writer
	f      *File
	indent string // of the lines of the part that is written
}

// Describe prints what was understood of a file, what check prints: each line
// that nothing in the file, a variable or a flag decided ends with (default).
func Describe(w io.Writer, f *File) {
	d := &describer{w: w, f: f}
	s := f.Server
	d.head("server", "")
	d.line("listen", s.Listen, "server.listen")
	if s.TLS.On() {
		d.line("tls", fmt.Sprintf("certificate %s, key %s", sourceText(s.TLS.Certificate), sourceText(s.TLS.Key)))
	}
	if proxies := networksText(s.TrustedProxies); proxies != "" {
		d.line("proxies", proxies+" name the sender", "server.trusted_proxies")
	} else {
		d.line("proxies", "none: X-Forwarded-For is not read", "server.trusted_proxies")
	}
	d.line("url", s.URL, "server.url")
	d.line("data", s.Data, "server.data")
	d.line("socket", s.Socket, "server.socket")
	d.line("agents", "test "+s.Agent.Test+", deploy "+s.Agent.Deploy, "server.agent.test", "server.agent.deploy")
	d.line("workers", strconv.Itoa(s.Workers), "server.workers")
	d.line("log", s.LogLevel+", "+s.LogFormat, "server.log.level", "server.log.format")
	d.line("bodies", "at most "+sizeText(s.BodyMemory)+" in memory", "server.limits.body_memory")
	d.line("grace", span(s.ShutdownGrace)+" when it stops", "server.shutdown_grace")
	for _, h := range f.Deploy.Hooks {
		d.head("hook", h.Name)
		d.line("address", "POST /hooks/"+h.Name)
		d.line("provider", h.Provider, "hooks."+h.Name+".provider")
		for _, k := range []struct {
			name    string
			secrets []deploy.Secret
		}{{"secret", h.Secrets}, {"token", h.Tokens}} {
			for _, s := range k.secrets {
				d.line(k.name, sourceText(s))
			}
		}
		if h.Provider == "generic" && len(h.Secrets) > 0 {
			s := h.Signature
			d.line("signature", fmt.Sprintf("HMAC %s, %s, in %s", s.Algorithm, s.Encoding, s.Header), "hooks."+h.Name+".signature")
		}
		if len(h.Allow)+len(h.Ranges) > 0 {
			d.line("allowed", AllowText(&h))
		}
	}
	for i := range f.Deploy.Hosts {
		d.host(&f.Deploy.Hosts[i])
	}
	for i := range f.Deploy.Pipelines {
		d.pipeline(&f.Deploy.Pipelines[i])
	}
}

func (d *describer) head(what, name string) {
	d.indent = "  "
	fmt.Fprintln(d.w, strings.TrimSpace(what+" "+name))
}

// line writes a fact; with paths that were not written, as a default. A long
// one goes on below itself.
func (d *describer) line(what, text string, paths ...string) {
	if text == "" {
		return
	}
	text += d.origin(paths)
	width := 80 - len(d.indent) - 10
	rest := printable(text)
	for i := 0; rest != ""; i++ {
		part := rest
		if len(part) > width {
			cut := strings.LastIndexByte(part[:width+1], ' ')
			if cut <= 0 {
				cut = strings.IndexByte(part, ' ')
			}
			if cut > 0 {
				part = part[:cut]
			}
		}
		rest = strings.TrimPrefix(rest[len(part):], " ")
		if i > 0 {
			what = ""
		}
		fmt.Fprintf(d.w, "%s%-9s %s\n", d.indent, what, part)
	}
}

// origin says where a fact comes from that does not stand in the file.
func (d *describer) origin(paths []string) string {
	var from []string
	written := len(paths) == 0
	for _, p := range paths {
		written = written || d.f.written[p] != nil
		if d.f.given[p] != "" {
			from = append(from, d.f.given[p])
		}
	}
	switch {
	case len(from) > 0:
		return " (" + strings.Join(from, ", ") + ")"
	case written:
		return ""
	}
	return " (default)"
}

// sizeText is a size in the largest unit that says it exactly.
func sizeText(n int64) string {
	switch {
	case n%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", n>>30)
	case n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n%1e6 == 0:
		return fmt.Sprintf("%d MB", n/1e6)
	}
	return counted(int(n), "byte")
}

// span is a duration without the zeros at its end: 30m, not 30m0s.
func span(t time.Duration) string {
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func sourceText(s deploy.Secret) string {
	switch {
	case s.Environment != "":
		return "from variable " + s.Environment
	case s.File != "":
		return "from file " + s.File
	case s.Credential != "":
		return "from systemd credential " + s.Credential
	}
	return "from a command"
}

func firstLine(s string) string {
	line, rest, _ := strings.Cut(strings.TrimSpace(s), "\n")
	if strings.TrimSpace(rest) != "" {
		line += " …"
	}
	return line
}

func (d *describer) host(h *deploy.Host) {
	at := "hosts." + h.Name
	d.head("host", h.Name)
	l := loginOf(h)
	address := l.address
	if l.port != 22 {
		address = net.JoinHostPort(l.address, strconv.Itoa(l.port))
	}
	d.line("address", address, at+".address", at+".port")
	if l.user == "" {
		l.user = "the daemon's"
	}
	if h.SSHConfig != "" {
		d.line("config", h.SSHConfig+" counts where nothing is written here")
	}
	d.line("user", l.user, at+".user")
	if h.Identity != nil {
		d.line("key", sourceText(*h.Identity))
	} else {
		d.line("key", "the SSH agent's, and those that ssh has by default", at+".identity_file")
	}
	switch {
	case h.HostKey != "":
		d.line("is", fingerprint(h.HostKey))
	case h.KnownHosts != "":
		d.line("is", "as known_hosts says")
	default:
		d.line("is", "as ~/.ssh/known_hosts of the daemon's user says", at+".host_key")
	}
	if h.Jump != nil {
		d.line("through", h.Jump.Name)
	}
	if h.Keepalive > 0 {
		d.line("asked", "every "+span(h.Keepalive)+" when it is silent")
	}
	d.line("labels", strings.Join(h.Labels, ", "))
}

// fingerprint is a host's key as ssh-keygen -l shows it.
func fingerprint(hostKey string) string {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(hostKey))
	if err != nil {
		return "" // no key that was checked
	}
	return key.Type() + " " + ssh.FingerprintSHA256(key)
}

func (d *describer) pipeline(p *deploy.Pipeline) {
	at := "pipelines." + p.Name
	d.head("pipeline", p.Name)
	if p.Repository != "" {
		d.line("commits", p.Repository)
		d.line("from", p.CloneURL, at+".clone_url")
		if k := p.Auth.SSHKey; k != nil {
			d.line("key", sourceText(*k))
		}
		if k := p.Auth.Token; k != nil {
			d.line("token", sourceText(*k))
		}
		branch := p.Branch
		if branch == "" {
			branch = "the repository's"
		}
		d.line("branch", branch+" when an event names none", at+".branch")
	} else {
		d.line("commits", "none: jobs start in an empty workspace")
	}
	d.line("starts", started(p, d.f.written[at+".hook"] != nil))
	for _, in := range p.On.Inputs {
		d.line("input", inputText(in))
	}
	if p.If != nil {
		d.line("if", p.If.Source())
	}
	if p.Repository != "" {
		queue := "latest: of several pushes to one ref the newest is deployed"
		if p.Queue == deploy.QueueAll {
			queue = "all: each push is deployed, in order"
		}
		d.line("queue", queue, at+".concurrency.queue")
	}
	if len(p.Cache) > 0 {
		d.line("cache", strings.Join(p.Cache, ", "))
	}
	for i := range p.Jobs {
		d.job(at+".jobs."+p.Jobs[i].Name, &p.Jobs[i])
	}
}

func (d *describer) job(at string, j *deploy.Job) {
	kind := "test"
	if j.Deploys() {
		kind = "deploy"
	}
	fmt.Fprintf(d.w, "  job %s (%s)\n", j.Name, kind)
	d.indent = "    "
	if j.Title != j.Name {
		d.line("name", j.Title)
	}
	after := "nothing: it starts at once"
	if len(j.Needs) > 0 {
		after = strings.Join(j.Needs, ", ")
	}
	d.line("after", after, at+".needs")
	if j.If != nil {
		d.line("if", j.If.Source())
	}
	d.line("host", strings.Join(j.Hosts, ", "), at+".host", at+".hosts")
	d.line("timeout", span(j.Timeout)+" a step", at+".timeout", "defaults.timeout")
	shell := j.Shell
	if shell == "" {
		shell = "bash -eo pipefail, else sh -e"
	}
	d.line("shell", shell, at+".shell", "defaults.shell")
	d.line("in", j.WorkingDir)
	d.line("path", strings.Join(j.Path, ":"))
	for _, v := range j.Secrets {
		d.line("secret", v.Name+" "+sourceText(v.Secret))
	}
	d.line("limits", limitsText(j.Limits))
	if r := j.Release; r != nil {
		d.line("release", r.Path)
		if r.Subdir != "" {
			d.line("files", r.Subdir+" of the repository")
		}
		if r.InPlace {
			what := "changes by hand stop it"
			if r.Overwrite {
				what = "changes by hand are overwritten"
			}
			d.line("strategy", "in_place: "+what)
		}
		d.line("keeps", fmt.Sprintf("%d that were live, %d that were not", r.Keep, r.KeepFailed), at+".release.keep", at+".release.keep_failed")
		if len(r.SharedDirs)+len(r.SharedFiles) > 0 {
			d.line("shares", strings.Join(slices.Concat(r.SharedDirs, r.SharedFiles), ", "))
		}
	}
	if j.Group != "" {
		d.line("group", j.Group, at+".concurrency.group")
	}
	d.line("crash", map[deploy.CrashPolicy]string{deploy.CrashRerun: "rerun", deploy.CrashStop: "stop"}[j.OnCrash], at+".on_crash")
	for i := range j.Steps {
		d.line("step", stepLine(&j.Steps[i]))
	}
	if j.Deploys() {
		restart := firstLine(j.Restart)
		if restart == "" {
			restart = "nothing"
		}
		d.line("restart", restart, at+".restart")
	}
}

// stepLine is a step's name and what is special about it.
func stepLine(s *deploy.Step) string {
	var notes []string
	if s.If != nil {
		notes = append(notes, "if "+s.If.Source())
	}
	if s.WorkingDir != "" {
		notes = append(notes, "in "+s.WorkingDir)
	}
	if s.Timeout > 0 {
		notes = append(notes, "timeout "+span(s.Timeout))
	}
	if n := s.Retry.Limit; n == 1 {
		notes = append(notes, "tried once more")
	} else if n > 1 {
		notes = append(notes, fmt.Sprintf("tried %d times more", n))
	}
	if s.ContinueOnError {
		notes = append(notes, "may fail")
	}
	text := firstLine(s.Name)
	if len(notes) > 0 {
		text += " (" + strings.Join(notes, "; ") + ")"
	}
	return text
}

// started says in words what starts a pipeline.
func started(p *deploy.Pipeline, named bool) string {
	var by []string
	if t := p.On.Push; t != nil {
		what := "every push"
		var parts []string
		for _, l := range []struct {
			name string
			list []string
		}{{"branches", t.Branches}, {"not branches", t.BranchesIgnore}, {"tags", t.Tags}, {"not tags", t.TagsIgnore}, {"paths", t.Paths}, {"not paths", t.PathsIgnore}} {
			if len(l.list) > 0 {
				parts = append(parts, l.name+" "+strings.Join(l.list, ", "))
			}
		}
		if len(parts) > 0 {
			what = "pushes: " + strings.Join(parts, "; ") + ";"
		}
		by = append(by, what+through(p, named))
	}
	if p.On.Release {
		by = append(by, "releases that are published"+through(p, named))
	}
	if t := p.On.Workflow; t != nil {
		what := "every workflow"
		if len(t.Workflows) > 0 {
			what = "workflow " + strings.Join(t.Workflows, ", ")
		}
		if len(t.Branches) > 0 {
			what += " on branches " + strings.Join(t.Branches, ", ")
		}
		by = append(by, what+" that succeeds"+through(p, named))
	}
	for _, s := range p.On.Schedules {
		by = append(by, "schedule "+s.Cron.String())
	}
	if p.On.Pipeline != "" {
		by = append(by, "success of pipeline "+p.On.Pipeline)
	}
	if h := p.On.Hook; h != nil {
		what := "payloads of hook " + h.Name
		if h.If != nil {
			what += " if " + h.If.Source()
		}
		by = append(by, what)
	}
	if len(by) == 0 {
		return "by hand only: deployhook trigger " + p.Name
	}
	return strings.Join(by, ", or ")
}

// through says which hook the forge's events of a pipeline come through.
func through(p *deploy.Pipeline, named bool) string {
	switch {
	case p.Hook == "":
		return ""
	case named:
		return " through hook " + p.Hook
	}
	return " through hook " + p.Hook + " (default)"
}

// inputText is an input's name and what is special about it.
func inputText(in deploy.Input) string {
	notes := []string{string(in.Type)}
	if len(in.Options) > 0 {
		notes[0] = strings.Join(in.Options, " or ")
	}
	if in.Required {
		notes = append(notes, "required")
	}
	if in.Default != nil {
		notes = append(notes, "default "+strconv.Quote(*in.Default))
	}
	text := in.Name + " (" + strings.Join(notes, "; ") + ")"
	if in.Description != "" {
		text += " " + in.Description
	}
	return text
}

func limitsText(l deploy.Limits) string {
	var parts []string
	if l.Memory > 0 {
		parts = append(parts, sizeText(l.Memory)+" of memory")
	}
	if l.CPU > 0 {
		parts = append(parts, strconv.FormatFloat(l.CPU, 'g', -1, 64)+" processors")
	}
	if l.PIDs > 0 {
		parts = append(parts, strconv.Itoa(l.PIDs)+" processes and threads")
	}
	return strings.Join(parts, ", ")
}
