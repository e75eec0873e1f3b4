package config

import (
	"fmt"
	"slices"
	"strings"

	"deployhook/internal/deploy"
)

// wanted says what a place takes, for a message.
func (p *place) wanted() string {
	switch p.kind {
	case section, mayBeEmpty:
		if strings.HasSuffix(p.path, ".steps[]") {
			return "a section like - run: make"
		}
		if keys := p.now(); len(keys) > 0 {
			return "a section with " + listed(keys, 4)
		}
		return "a section"
	case names:
		return "a section"
	case variables:
		return "a section of variables, like NAME: value,"
	case secretMap:
		return "a section of variables, like NAME: secret,"
	case sections:
		if lastName(p.path) == "steps" {
			return "a list like - run: make"
		}
		return "a list of sections with " + listed(p.item.now(), 4)
	case texts:
		return "a text or a list of texts"
	case trueOrMap:
		return "true or a section with " + listed(p.now(), 4)
	case textOrMap:
		return "a path or a section with " + listed(p.now(), 4)
	case number:
		return "a whole number"
	case decimal:
		return "a number"
	case keyFile:
		return "a path or a secret"
	case address:
		return "a URL or a secret"
	case boolean:
		return "true or false"
	case duration:
		return "a duration like 30m"
	case size:
		return "a size like 64 MiB"
	case expression:
		return "an expression"
	}
	return "a text"
}

// now are the keys that this version has there.
func (p *place) now() []string {
	return slices.DeleteFunc(slices.Clone(p.order), func(name string) bool { return p.children[name].later })
}

// listed names the first few of a list.
func listed(names []string, most int) string {
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", …"
	}
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " or " + names[n-1]
	}
	return strings.Join(names, "")
}

// hint says what may have been meant with a key that is not known.
func (c *checker) hint(n *node, p *place, name string) string {
	mean := func(known string) { c.meant[strings.TrimPrefix(n.path+"."+known, ".")] = true }
	if other, ok := elsewhere[p.path+"."+name]; ok {
		if other.key != "" {
			mean(other.key)
		}
		return "; " + other.hint
	}
	near := deploy.DidYouMean(name, p.order)
	for _, known := range p.order {
		if near == fmt.Sprintf("; did you mean %q?", known) {
			mean(known)
		}
	}
	if near == "" {
		return standsIn(name)
	}
	return near
}

// standsIn says in which sections a key is known that stands in none of them.
func standsIn(name string) string {
	var now, later []string
	for _, k := range table {
		at := strings.LastIndexByte(k.path, '.')
		if k.path[at+1:] != name {
			continue
		}
		section := "the top level"
		if at >= 0 {
			section = written(k.path[:at])
		}
		if k.later {
			later = append(later, section)
		} else {
			now = append(now, section)
		}
	}
	switch {
	case len(now) > 0 && len(now) <= 3:
		return "; it belongs to " + listed(now, 3)
	case len(now) == 0 && len(later) > 0 && len(later) <= 3:
		return "; it belongs to " + listed(later, 3) + ", and is not available in this version"
	}
	return ""
}

// other is what to write for a key that people bring along.
type other struct {
	hint string
	key  string // the key of this section that was meant; what it is missed for is not said again
}

// elsewhere says it for keys of GitHub Actions and their kin.
var elsewhere = map[string]other{
	".jobs":                                        {"jobs stand in a pipeline", ""},
	".on":                                          {"on stands in a pipeline", ""},
	".steps":                                       {"steps stand in a job of a pipeline", ""},
	"server.tls.cert":                              {"write certificate", "certificate"},
	"server.tls.cert_file":                         {"write certificate", "certificate"},
	"server.tls.certificate_file":                  {"write certificate", "certificate"},
	"server.tls.key_file":                          {"write key", "key"},
	"server.tls.private_key":                       {"write key", "key"},
	"hosts.*.host":                                 {"write address", "address"},
	"hosts.*.hostname":                             {"write address", "address"},
	"hosts.*.key":                                  {"write identity_file", "identity_file"},
	"hosts.*.ssh_key":                              {"write identity_file", "identity_file"},
	"hosts.*.private_key":                          {"write identity_file", "identity_file"},
	"hosts.*.proxy_jump":                           {"write jump", "jump"},
	"hosts.*.password":                             {"deployhook logs in with keys alone: write identity_file", "identity_file"},
	"notify[].url":                                 {"write webhook", "webhook"},
	"notify[].events":                              {"write on", "on"},
	"notify[].mail":                                {"write email", "email"},
	"notify[].message":                             {"write text", "text"},
	"pipelines.*.notify[].url":                     {"write webhook", "webhook"},
	"pipelines.*.notify[].events":                  {"write on", "on"},
	"pipelines.*.notify[].mail":                    {"write email", "email"},
	"pipelines.*.notify[].message":                 {"write text", "text"},
	"targets.*.webhook":                            {"write url", "url"},
	"pipelines.*.steps":                            {"steps stand in a job, under jobs", "jobs"},
	"pipelines.*.true":                             {"a YAML tool has made true of the word on: write on", "on"},
	"pipelines.*.on.pull_request":                  {"pushes, and payloads of a hook, start pipelines", ""},
	"pipelines.*.on.workflow_dispatch":             {"every pipeline can be started with deployhook trigger", ""},
	"pipelines.*.jobs.*.runs_on":                   {"write host", "host"},
	"pipelines.*.jobs.*.run":                       {"commands stand under steps: [{run: …}]", "steps"},
	"pipelines.*.jobs.*.script":                    {"commands stand under steps: [{run: …}]", "steps"},
	"pipelines.*.jobs.*.timeout_minutes":           {"write timeout: 30m", "timeout"},
	"pipelines.*.jobs.*.strategy":                  {"strategy stands under release", ""},
	"pipelines.*.jobs.*.container":                 {"containers are not started here: write docker run in a step", ""},
	"pipelines.*.jobs.*.services":                  {"containers are not started here: write docker run in a step", ""},
	"pipelines.*.jobs.*.concurrency.queue":         {"queue stands in the pipeline's concurrency", ""},
	"pipelines.*.jobs.*.steps[].id":                {"a step has a name, and no id", ""},
	"pipelines.*.jobs.*.steps[].uses":              {"actions do not run here: write their commands in run", "run"},
	"pipelines.*.jobs.*.steps[].with":              {"actions do not run here: write their commands in run", "run"},
	"pipelines.*.jobs.*.steps[].command":           {"write run", "run"},
	"pipelines.*.jobs.*.steps[].script":            {"write run", "run"},
	"pipelines.*.jobs.*.steps[].sh":                {"write run", "run"},
	"pipelines.*.jobs.*.steps[].timeout_minutes":   {"write timeout: 30m", "timeout"},
	"pipelines.*.jobs.*.steps[].working_directory": {"write working_dir", "working_dir"},
}
