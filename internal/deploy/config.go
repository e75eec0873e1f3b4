package deploy

import (
	"net/netip"
	"slices"
	"time"
)

// Config is what deploy.yaml says about hooks, secrets and pipelines, checked.
// It never changes after it was made: a reload makes another.
type Config struct {
	Digest    string // SHA-256 of Text, hex
	Text      string // the file as it was read
	Hooks     []Hook
	Secrets   []Secret
	Hosts     []Host     // over SSH; [Local] is not among them
	Pipelines []Pipeline // in the order written
	Notify    []Notify   // of all pipelines: each of those has them too
	Targets   []Target   // in the order written
}

// Hook is an inbound endpoint, POST /hooks/NAME.
type Hook struct {
	Name      string
	Provider  string         // one of [Providers]
	Secrets   []Secret       // keys of the signature, any one verifies; with azure user:password; empty = none
	Tokens    []Secret       // compared in constant time, any one is right; empty = none
	Signature Signature      // how a generic sender signs
	Allow     []netip.Prefix // who may send; with Ranges empty too: everybody
	Ranges    []string       // published lists of networks that may send too, by name: github
}

// BringsPushes says whether a hook's deliveries tell that refs moved; others
// bring payloads.
func (h *Hook) BringsPushes() bool {
	return h.Provider != "generic" && h.Provider != "standard" && h.Provider != "stripe"
}

// Listening are the pipelines that deliveries of a hook may start.
func (c *Config) Listening(h *Hook) []string {
	list := []string{}
	for i := range c.Pipelines {
		p := &c.Pipelines[i]
		if h.BringsPushes() && (p.Hook == "" || p.Hook == h.Name) && p.listensToForges() || p.On.Hook != nil && p.On.Hook.Name == h.Name {
			list = append(list, p.Name)
		}
	}
	return list
}

// listensToForges says whether events of a repository may start a pipeline.
func (p *Pipeline) listensToForges() bool {
	return p.On.Push != nil || p.On.Release || p.On.Workflow != nil
}

// Providers are the kinds of senders.
var Providers = []string{"github", "gitlab", "gitea", "forgejo", "gogs", "bitbucket", "azure", "generic", "standard", "stripe"}

// Signature says how a sender signs the raw body with an HMAC.
type Signature struct {
	Header    string // that has the signature
	Algorithm string // sha256, sha512 or sha1
	Encoding  string // hex or base64
	Prefix    string // what stands before it
}

// Secret says where a secret's value is read from, at each use anew. Exactly
// one source is set.
type Secret struct {
	Name        string // of the section secrets; a place like "hooks.github.secret" where it stands inline
	Environment string // name of the daemon's variable
	File        string // path
	Credential  string // name of a systemd credential
	Command     string // shell command whose output it is
}

// Host is a machine over SSH that steps run on. What is not written stands in
// SSHConfig, or is what ssh takes.
type Host struct {
	Name       string
	Address    string        // name or address; empty = Name
	User       string        // to log in as; empty = the daemon's own
	Port       int           // of sshd; 0 = 22
	Identity   *Secret       // private key in OpenSSH's form; nil = the SSH agent's keys, and those that ssh has by default
	Jump       *Host         // the host to go through; nil = none
	HostKey    string        // its public key, "ssh-ed25519 AAAA…"; empty = KnownHosts'
	KnownHosts string        // known_hosts lines; empty, without HostKey = the daemon's own ~/.ssh/known_hosts
	SSHConfig  string        // path of a file as ssh_config(5) has it; empty = none
	Keepalive  time.Duration // how often a silent connection is asked
	Labels     []string      // names for a group of hosts
}

// Variable is an environment variable as written: its value may hold ${{ }}.
type Variable struct {
	Name  string
	Value Template
}

// SecretVariable is an environment variable whose value is a secret.
type SecretVariable struct {
	Name   string
	Secret Secret
}

// Auth says how a repository is reached.
type Auth struct {
	SSHKey     *Secret
	KnownHosts string // known_hosts lines
	Token      *Secret
	Username   string
}

// QueuePolicy says what older runs of a lane are worth once a newer one is there.
type QueuePolicy string

// The policies of concurrency.queue.
const (
	QueueLatest QueuePolicy = "latest" // the newest ready run goes, older ones are canceled
	QueueAll    QueuePolicy = "all"    // every run goes, in order
)

// Pipeline says what to do when an event matches.
type Pipeline struct {
	Name       string
	Repository string // identity: host/path, lower case; empty = no commit, an empty workspace
	CloneURL   string // where it is fetched from
	Auth       Auth
	Hook       string // only deliveries of this hook; empty = any
	Branch     string // for events without a commit; empty = the repository's default
	Depth      int    // 0 = whole history
	On         Triggers
	If         *Expr      // nil = always
	Env        []Variable // top level's first, then the pipeline's
	Queue      QueuePolicy
	Cache      []string // directories kept between test jobs, relative to the workspace
	Notify     []Notify // top level's first, then the pipeline's
	Jobs       []Job    // in the order written; Needs already says the chain
}

// Job finds a job by its name; nil when there is none.
func (p *Pipeline) Job(name string) *Job {
	for i := range p.Jobs {
		if p.Jobs[i].Name == name {
			return &p.Jobs[i]
		}
	}
	return nil
}

// Pipeline finds a pipeline by its name; nil when there is none.
func (c *Config) Pipeline(name string) *Pipeline {
	for i := range c.Pipelines {
		if c.Pipelines[i].Name == name {
			return &c.Pipelines[i]
		}
	}
	return nil
}

// Hook finds a hook by its name; nil when there is none.
func (c *Config) Hook(name string) *Hook {
	for i := range c.Hooks {
		if c.Hooks[i].Name == name {
			return &c.Hooks[i]
		}
	}
	return nil
}

// Host finds a host over SSH by its name; nil when there is none, and for [Local].
func (c *Config) Host(name string) *Host {
	for i := range c.Hosts {
		if c.Hosts[i].Name == name {
			return &c.Hosts[i]
		}
	}
	return nil
}

// Triggers is the section on: what starts a pipeline. Every pipeline can be
// started by hand besides.
type Triggers struct {
	Push      *PushTrigger      // nil = pushes do not start it
	Hook      *HookTrigger      // nil = payloads do not start it
	Release   bool              // releases that are published on the forge start it
	Workflow  *WorkflowTrigger  // nil = workflow runs do not start it
	Schedules []ScheduleTrigger // in the order written
	Inputs    []Input           // of a start by hand, in the order written
	Pipeline  string            // the one whose success starts it; empty = none
}

// Forge says whether something that a forge sends starts the pipeline.
func (t *Triggers) Forge() bool { return t.Push != nil || t.Release || t.Workflow != nil }

// WorkflowTrigger starts a pipeline when a workflow on the forge has
// succeeded, for the very commit that it ran for.
type WorkflowTrigger struct {
	Workflows []string // names as globs; empty = all
	Branches  []string // as in [PushTrigger]; empty = all
}

// PushTrigger filters pushes with GitHub's globs: * stops at a slash, ** does
// not, a leading ! takes back, the last match counts. With branches alone
// tags start nothing, and the other way round; with neither, both do.
type PushTrigger struct {
	Branches, BranchesIgnore []string
	Tags, TagsIgnore         []string
	Paths, PathsIgnore       []string
}

// HookTrigger starts a pipeline from any JSON that comes to the hook Name.
type HookTrigger struct {
	Name string
	If   *Expr // nil = every payload
}

// CrashPolicy says what becomes of a job during which the daemon died.
type CrashPolicy string

// The policies of on_crash.
const (
	CrashRerun CrashPolicy = "rerun"
	CrashStop  CrashPolicy = "stop"
)

// AgentKind is what an agent is trusted with. On this machine the kinds may run
// as different users.
type AgentKind string

// The kinds of agents.
const (
	TestAgent   AgentKind = "test"   // whatever is pushed
	DeployAgent AgentKind = "deploy" // releases and secrets
)

// AgentKinds are all kinds.
var AgentKinds = []AgentKind{TestAgent, DeployAgent}

// Agent is the kind of agent that the job's steps run on.
func (j *Job) Agent() AgentKind {
	if j.Deploys() || len(j.Secrets) > 0 {
		return DeployAgent
	}
	return TestAgent
}

// Local is the name of the host that deployhook itself runs on.
const Local = "local"

// Job is a list of steps, after the jobs that it needs.
type Job struct {
	Name       string // its key
	Title      string // name:, or the key
	Needs      []string
	If         *Expr         // nil = success()
	Hosts      []string      // host names; [Local] when nothing is written
	Timeout    time.Duration // of each step that has none of its own
	Shell      string        // empty: bash -eo pipefail, else sh -e
	WorkingDir string        // relative to the workspace or release
	Path       []string      // put before PATH
	Env        []Variable    // defaults' and the job's own, not the pipeline's
	Secrets    []SecretVariable
	Group      string // concurrency.group; a deploy job's default is PIPELINE/JOB, a test job's is empty
	OnCrash    CrashPolicy
	Limits     Limits // of all steps together
	Steps      []Step
	Release    *ReleaseSpec // nil = a test job
	Restart    string       // shell command after the switch; empty = none
}

// RunsOn says whether a host is among the job's.
func (j *Job) RunsOn(host string) bool { return slices.Contains(j.Hosts, host) }

// Limits bound what the steps of a job use together; 0 is no limit.
type Limits struct {
	Memory int64   // bytes, without swap
	CPU    float64 // processors
	PIDs   int     // processes and threads
}

// Deploys says whether the job publishes a release.
func (j *Job) Deploys() bool { return j.Release != nil }

// Step is one shell command of a job.
type Step struct {
	Name            string // name:, or the command's first line
	Run             string
	Env             []Variable
	If              *Expr         // nil = success()
	Timeout         time.Duration // 0 = the job's
	Retry           Retry
	ContinueOnError bool
	WorkingDir      string
	Shell           string
}

// Retry says how often a failed step is tried again.
type Retry struct {
	Limit  int           // further attempts; 0 = none
	Delay  time.Duration // before the second attempt
	Factor float64       // each delay is the one before times this
}

// ReleaseSpec is the section release of a deploy job.
type ReleaseSpec struct {
	Path        string // absolute
	InPlace     bool   // the files in Path become the commit's; false: releases/, shared/ and current
	Overwrite   bool   // in place: changes by hand are overwritten; false: they stop the deploy
	Subdir      string // of the repository, relative and clean; empty = all of it
	Keep        int    // releases that were live and healthy, current included
	KeepFailed  int
	SharedDirs  []string // relative to the release
	SharedFiles []string
}
