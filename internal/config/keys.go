package config

import (
	"slices"
	"strings"

	"deployhook/internal/deploy"
)

// kind is the form of a key's value.
type kind int

const (
	section    kind = iota // keys of its own
	names                  // names that the user chooses, each with a section
	line                   // one line of text, not empty
	text                   // a line, a block of text, or nothing
	number                 // whole number
	decimal                // number
	boolean                // true or false
	duration               // 90s, 30m, 1h30m
	size                   // 64 MiB
	texts                  // a list of texts; one alone may stand without the list
	variables              // NAME: value; values keep their literal text
	secret                 // a name of secrets, or an object with its source
	secretList             // one, or a list of them
	keyFile                // a path, or a secret
	secretMap              // NAME: secret
	sections               // a list of sections
	expression             // an if
	textOrMap              // a text, or a section
	mayBeEmpty             // on.push: a section that may be empty
	address                // a URL, or a secret that is one
	trueOrMap              // true, or a section
	message                // a text with ${{ }}
)

var kindNames = map[kind]string{
	section: "section", names: "named sections", line: "text", text: "text", number: "whole number", decimal: "number", boolean: "true or false",
	duration: "duration", size: "size", texts: "list of texts", variables: "variables", secret: "secret", secretList: "secret or list of secrets", keyFile: "path or secret", secretMap: "variables with secrets",
	sections: "list of sections", expression: "expression", textOrMap: "text or section", mayBeEmpty: "section",
	address: "URL or secret", trueOrMap: "true or section", message: "text with `${{ }}`",
}

// key is one line of the table: everything that is known of a key.
type key struct {
	path    string // * stands for a name, [] for an item of a list
	kind    kind
	def     string   // default, as it would be written; in brackets what is no value
	allowed []string // the only values; empty = any
	later   bool     // known, and refused by name: its part is not in this version
	doc     string
}

// ranges are the bounds of whole numbers, both allowed.
var ranges = map[string][2]int{
	"server.workers":                         {1, 1000},
	"hosts.*.port":                           {1, 65535},
	"pipelines.*.depth":                      {0, 1_000_000},
	"pipelines.*.jobs.*.limits.pids":         {1, 1_000_000},
	"pipelines.*.jobs.*.release.keep":        {1, 1000},
	"pipelines.*.jobs.*.release.keep_failed": {0, 1000},
	"pipelines.*.jobs.*.steps[].retry.limit": {0, 100},
	"notify[].retry.limit":                   {1, 1000},
	"pipelines.*.notify[].retry.limit":       {1, 1000},
	"targets.*.retry.limit":                  {1, 1000},
}

// since is the version in which a key came; all of them came with the first.
const since = "0.1.0"

// table is every key of deploy.yaml. The reader, the JSON schema, the
// reference in docs and what check prints all come from it.
var table = slices.Concat(sectionKeys, notifyKeys("notify"), notifyKeys("pipelines.*.notify"), targetKeys)

// sectionKeys are all but those of notifications and targets.
var sectionKeys = []key{
	{"server", section, "", nil, false, "How the daemon itself runs. Each key can also be set by a variable (`DEPLOYHOOK_SERVER_LISTEN`) or a flag (`--server-listen`): a flag counts over a variable, a variable over the file."},
	{"server.listen", line, "127.0.0.1:8484", nil, false, "Address for hooks, `/healthz` and `/readyz`."},
	{"server.dashboard", line, "off", nil, true, "Address of the dashboard, or `off`."},
	{"server.metrics", line, "off", nil, true, "Address for metrics, or `off`."},
	{"server.socket", line, "/run/deployhook/control.sock", nil, false, "Control socket: who can open it may do everything. A relative path begins at this file's directory."},
	{"server.agent", section, "", nil, false, "How the agents on this machine are reached: those of test jobs and those of deploy jobs."},
	{"server.agent.test", line, "spawn", nil, false, "`spawn`: a child process, as the daemon's own user. Or the path of a socket of systemd, whose agents run as another user: the units make `test.sock` and `deploy.sock` in `/run/deployhook-agents`."},
	{"server.agent.deploy", line, "spawn", nil, false, "The same for jobs with `release` or `secrets`."},
	{"server.url", text, "", nil, false, "Where this server is reached from outside; used in `DEPLOYHOOK_RUN_URL`."},
	{"server.data", line, "/var/lib/deployhook", nil, false, "Directory for the database, mirrors and workspaces. A relative path begins at this file's directory."},
	{"server.database", text, "", nil, false, "Empty for SQLite in `data`; `postgres://` is not available in this version."},
	{"server.workers", number, "(4, or 1 below 1 GB of memory)", nil, false, "How many jobs run at once."},
	{"server.log", section, "", nil, false, "The daemon's own log, on standard error."},
	{"server.log.level", line, "info", []string{"debug", "info", "warn", "error"}, false, "The least important lines to write."},
	{"server.log.format", line, "text", []string{"text", "json"}, false, "How lines are written."},
	{"server.tls", section, "", nil, false, "HTTPS without a proxy: both keys are wanted. The files are looked at every 5 seconds and used once they have changed, without a restart; a pair that is broken is not, and the one before stays."},
	{"server.tls.certificate", textOrMap, "", nil, false, "File with the certificate and its chain (PEM; certbot: `fullchain.pem`). A relative path begins at this file's directory."},
	{"server.tls.certificate.credential", line, "", nil, false, "In place of a file: name of a systemd credential (`LoadCredential=`), which systemd reads at each start."},
	{"server.tls.key", textOrMap, "", nil, false, "File with its private key (PEM, without a password; certbot: `privkey.pem`)."},
	{"server.tls.key.credential", line, "", nil, false, "In place of a file: name of a systemd credential, for a key that root alone may read."},
	{"server.trusted_proxies", texts, "(127.0.0.0/8, ::1)", nil, false, "Addresses and networks (`10.0.0.0/8`) of the proxies in front, whose `X-Forwarded-For` is believed: the sender is its last address that is not one of them. An empty list believes nobody. No other header is read for it."},
	{"server.limits", section, "", nil, false, "Bounds of what others can make the daemon hold."},
	{"server.limits.body_memory", size, "64 MiB", nil, false, "Webhook bodies in memory at once, 1 MiB or more; what is too much is answered 503. One body may have 25 MiB."},
	{"server.retention", section, "", nil, true, "How long runs and logs are kept."},
	{"server.shutdown_grace", duration, "30s", nil, false, "How long running jobs may go on when the daemon stops."},

	{"secrets", names, "", nil, false, "Where secrets are read from. A value never stands in this file."},
	{"secrets.*", section, "", nil, false, "A secret: exactly one of the keys below. Wherever the name of a secret is asked for, such an object may stand too."},
	{"secrets.*.environment", text, "", nil, false, "Name of a variable of the daemon."},
	{"secrets.*.file", text, "", nil, false, "Path of a file."},
	{"secrets.*.credential", text, "", nil, false, "Name of a systemd credential (`LoadCredential=`)."},
	{"secrets.*.command", text, "", nil, false, "Shell command that prints it, within 10 seconds."},

	{"hooks", names, "", nil, false, "Inbound endpoints: `POST /hooks/NAME`."},
	{"hooks.*", section, "", nil, false, "One endpoint."},
	{"hooks.*.provider", line, "github", deploy.Providers, false, "Who sends to it, and so how it is verified; see [hooks](hooks.md)."},
	{"hooks.*.secret", secretList, "", nil, false, "Key of the signature, 16 characters or more; with `azure` it is `user:password`. A list is a rotation: any one verifies."},
	{"hooks.*.token", secretList, "", nil, false, "Token in the URL (`?token=`) or in `Authorization: Bearer`, with `gitlab` in `X-Gitlab-Token`, 16 characters or more; a list as above. With a secret too, both must be right."},
	{"hooks.*.signature", section, "", nil, false, "How a generic sender signs the raw body: an HMAC with the secret as its key."},
	{"hooks.*.signature.header", line, "X-Hub-Signature-256", nil, false, "Header with the signature."},
	{"hooks.*.signature.algorithm", line, "sha256", []string{"sha256", "sha512", "sha1"}, false, "Hash of the HMAC."},
	{"hooks.*.signature.encoding", line, "hex", []string{"hex", "base64"}, false, "How its bytes are written."},
	{"hooks.*.signature.prefix", text, "(sha256= in the default header, else nothing)", nil, false, "What stands before it."},
	{"hooks.*.allow", texts, "", nil, false, "Networks and addresses that may send, and `github` for those that GitHub publishes (`deployhook hooks ranges` fetches them). Without it everybody may, who has the secret."},

	{"hosts", names, "", nil, false, "Machines over SSH, at most 1000. This one is always there, as `local`."},
	{"hosts.*", section, "", nil, false, "A machine with sshd, and a home that can be written, is enough: deployhook brings itself there."},
	{"hosts.*.address", line, "(the host's name)", nil, false, "Name or address, without user and port."},
	{"hosts.*.user", line, "(the daemon's user)", nil, false, "User to log in as: steps run as this user."},
	{"hosts.*.port", number, "22", nil, false, "Port of sshd."},
	{"hosts.*.identity_file", keyFile, "(the SSH agent's keys, and those that ssh has by default)", nil, false, "Private key: the absolute path of its file, the name of a secret, or a secret's source. A certificate is read from beside it (`-cert.pub`)."},
	{"hosts.*.jump", line, "", nil, false, "Another of `hosts`, through which this one is reached."},
	{"hosts.*.host_key", text, "", nil, false, "Its public key, `ssh-ed25519 AAAA…`: a host with another is refused. `ssh-keyscan HOST` prints it; compare it with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` there."},
	{"hosts.*.known_hosts", text, "(the daemon's `~/.ssh/known_hosts`)", nil, false, "In place of `host_key`: known_hosts lines, also with `@cert-authority`."},
	{"hosts.*.ssh_config", line, "", nil, false, "File as ssh_config(5) has it; of it counts what is not written here. An absolute path."},
	{"hosts.*.keepalive", duration, "(5s)", nil, false, "How often a silent connection is asked, 1s to 10m."},
	{"hosts.*.labels", texts, "", nil, false, "Names for groups of hosts: where a job names one, all hosts that have it are meant, in the order written."},
	{"environments", names, "", nil, true, "staging, production: who may deploy, and when."},
	{"environments.*", section, "", nil, true, "An environment."},
	{"environments.*.url", line, "", nil, true, "Where it is seen."},
	{"environments.*.branches", texts, "", nil, true, "Branches that may be deployed there."},
	{"environments.*.reviewers", texts, "", nil, true, "Who may approve."},
	{"environments.*.prevent_self_review", boolean, "", nil, true, "Who pushed does not approve."},
	{"environments.*.wait_timer", duration, "", nil, true, "Time to wait before."},
	{"environments.*.approval_timeout", duration, "", nil, true, "Time to wait for an approval."},
	{"environments.*.windows", sections, "", nil, true, "When deploys may happen."},
	{"environments.*.windows[].kind", line, "", nil, true, "Allow or deny."},
	{"environments.*.windows[].schedule", line, "", nil, true, "When it opens."},
	{"environments.*.windows[].duration", duration, "", nil, true, "How long."},
	{"environments.*.windows[].timezone", line, "", nil, true, "Zone of the times."},
	{"environments.*.windows[].reason", line, "", nil, true, "Shown to those who wait."},

	{"env", variables, "", nil, false, "Variables of every step. `${{ }}` may stand in values."},
	{"defaults", section, "", nil, false, "What jobs have that do not say otherwise."},
	{"defaults.shell", line, "(bash -eo pipefail, else sh -e)", nil, false, "Shell of the steps; `{0}` in it stands for a file with the commands."},
	{"defaults.timeout", duration, "30m", nil, false, "Time of a step."},
	{"defaults.working_dir", text, "", nil, false, "Directory of the steps, relative to the workspace or release."},
	{"defaults.path", texts, "", nil, false, "Directories put before PATH."},

	{"pipelines", names, "", nil, false, "What to do when an event matches."},
	{"pipelines.*", section, "", nil, false, "One pipeline. Without `repository` it has no commit, and its jobs start in an empty workspace."},
	{"pipelines.*.repository", line, "", nil, false, "The repository's identity, `github.com/acme/shop`, and where it is fetched from: HTTPS, or SSH when `auth.ssh_key` is given."},
	{"pipelines.*.clone_url", line, "", nil, false, "Fetch from here instead: an internal mirror, a path."},
	{"pipelines.*.auth", section, "", nil, false, "How the repository is reached."},
	{"pipelines.*.auth.ssh_key", secret, "", nil, false, "Private key."},
	{"pipelines.*.auth.known_hosts", text, "", nil, false, "known_hosts lines; those of GitHub, GitLab, Bitbucket and Codeberg are known."},
	{"pipelines.*.auth.token", secret, "", nil, false, "Token for HTTPS."},
	{"pipelines.*.auth.username", line, "x-access-token", nil, false, "User name for HTTPS."},
	{"pipelines.*.hook", line, "(the only hook)", nil, false, "The hook whose pushes it takes."},
	{"pipelines.*.on", section, "", nil, false, "What starts it. Every pipeline can be started by `deployhook trigger` besides."},
	{"pipelines.*.on.push", mayBeEmpty, "", nil, false, "Pushes. With branches alone tags start nothing, and the other way round."},
	{"pipelines.*.on.push.branches", texts, "", nil, false, "Globs as on GitHub: `*` stops at a slash, `**` does not, a leading `!` takes back, the last match counts."},
	{"pipelines.*.on.push.branches_ignore", texts, "", nil, false, "Branches that start nothing; not together with `branches`."},
	{"pipelines.*.on.push.tags", texts, "", nil, false, "Tags."},
	{"pipelines.*.on.push.tags_ignore", texts, "", nil, false, "Tags that start nothing; not together with `tags`."},
	{"pipelines.*.on.push.paths", texts, "", nil, false, "Start only when one of these paths has changed; does not count for tags."},
	{"pipelines.*.on.push.paths_ignore", texts, "", nil, false, "Start only when another path has changed; not together with `paths`."},
	{"pipelines.*.on.hook", section, "", nil, false, "Any JSON that comes to a generic hook."},
	{"pipelines.*.on.hook.name", line, "", nil, false, "The hook."},
	{"pipelines.*.on.hook.if", expression, "", nil, false, "Which payloads: `payload.type == \"payment.approved\"`."},
	{"pipelines.*.on.schedule", sections, "", nil, false, "Times at which it starts; at most 50. See [triggers](triggers.md#schedules)."},
	{"pipelines.*.on.schedule[].cron", line, "", nil, false, "Five fields (minute, hour, day, month, weekday), or six with seconds first: numbers, `MON` and `JAN`, `*`, ranges `1-5`, steps `*/15`, lists `1,15`; or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`."},
	{"pipelines.*.on.schedule[].timezone", line, "UTC", nil, false, "Zone of the times, like `Europe/Berlin`."},
	{"pipelines.*.on.manual", mayBeEmpty, "", nil, false, "Inputs of a start by hand. Without it `deployhook trigger` works too, and takes none."},
	{"pipelines.*.on.manual.inputs", names, "", nil, false, "Inputs by name, at most 50: `deployhook trigger PIPELINE --input NAME=VALUE`, in expressions `inputs.NAME`. One that is not declared is refused."},
	{"pipelines.*.on.manual.inputs.*", section, "", nil, false, "One input."},
	{"pipelines.*.on.manual.inputs.*.description", line, "", nil, false, "What it is for."},
	{"pipelines.*.on.manual.inputs.*.required", boolean, "false", nil, false, "It must be given."},
	{"pipelines.*.on.manual.inputs.*.default", text, "", nil, false, "Its value when it is not given. Without one it is null in expressions."},
	{"pipelines.*.on.manual.inputs.*.type", line, "string", []string{"string", "boolean", "number", "choice"}, false, "What its value must be. A `boolean` is `true` or `false`; in expressions it is one, and a `number` a number."},
	{"pipelines.*.on.manual.inputs.*.options", texts, "", nil, false, "Values of a `choice`."},
	{"pipelines.*.on.workflow_run", mayBeEmpty, "", nil, false, "A workflow of GitHub Actions has succeeded: the commit that it ran for is deployed. What ran for a pull request or for a fork starts nothing."},
	{"pipelines.*.on.workflow_run.workflows", texts, "", nil, false, "Only workflows of these names; globs."},
	{"pipelines.*.on.workflow_run.branches", texts, "", nil, false, "Only on these branches; globs as under `push`."},
	{"pipelines.*.on.release", mayBeEmpty, "", nil, false, "A release was published on the forge, a prerelease too: its tag is deployed."},
	{"pipelines.*.on.pipeline", section, "", nil, false, "Another pipeline has succeeded. Of the same repository, its very commit is taken. At most 10 pipelines follow each other."},
	{"pipelines.*.on.pipeline.name", line, "", nil, false, "That pipeline."},
	{"pipelines.*.branch", line, "(the repository's default)", nil, false, "The branch for events without a commit."},
	{"pipelines.*.depth", number, "0", nil, false, "Commits of history to fetch; 0 is all."},
	{"pipelines.*.if", expression, "", nil, false, "A further condition: `message contains \"[deploy]\"`."},
	{"pipelines.*.env", variables, "", nil, false, "Variables of its steps."},
	{"pipelines.*.cache", texts, "", nil, false, "Directories of the workspace kept between test jobs, at most 20: one set for `branch`, one for all other refs; see [caches](cache.md)."},
	{"pipelines.*.concurrency", section, "", nil, false, "What happens to runs that meet."},
	{"pipelines.*.concurrency.queue", line, "latest", []string{"latest", "all"}, false, "`latest`: of several pushes to one ref only the newest is deployed. `all`: each one, in order."},
	{"pipelines.*.concurrency.group", line, "", nil, true, "A lock for the whole run."},
	{"pipelines.*.concurrency.cancel_in_progress", boolean, "", nil, true, "End what runs when a newer push comes."},
	{"pipelines.*.reconcile", line, "", nil, true, "Find pushes whose webhook was lost."},
	{"pipelines.*.jobs", names, "", nil, false, "Jobs, a chain in the order written: each needs the one before it, unless it says `needs`."},

	{"pipelines.*.jobs.*", section, "", nil, false, "A test job, or with `release` a deploy job."},
	{"pipelines.*.jobs.*.name", line, "", nil, false, "A title for people, shown by `deployhook check`; everywhere else a job is known by its key."},
	{"pipelines.*.jobs.*.needs", texts, "(the job before it)", nil, false, "Jobs that must have succeeded; `[]` starts at once."},
	{"pipelines.*.jobs.*.if", expression, "success()", nil, false, "Whether it runs."},
	{"pipelines.*.jobs.*.host", line, "local", nil, false, "Where it runs: one of `hosts`, a label of some, or `local`, this machine."},
	{"pipelines.*.jobs.*.hosts", texts, "local", nil, false, "The same for several, at most 200. A host that more than one label brings is there once."},
	{"pipelines.*.jobs.*.env", variables, "", nil, false, "Variables of its steps."},
	{"pipelines.*.jobs.*.secrets", secretMap, "", nil, false, "Variables whose value is a secret: `VARIABLE: secret`."},
	{"pipelines.*.jobs.*.timeout", duration, "30m", nil, false, "Time of each step."},
	{"pipelines.*.jobs.*.shell", line, "(bash -eo pipefail, else sh -e)", nil, false, "Shell of its steps."},
	{"pipelines.*.jobs.*.working_dir", text, "", nil, false, "Directory of its steps, relative to the workspace or release."},
	{"pipelines.*.jobs.*.path", texts, "", nil, false, "Directories put before PATH."},
	{"pipelines.*.jobs.*.environment", line, "", nil, true, "The environment that it deploys to."},
	{"pipelines.*.jobs.*.concurrency", section, "", nil, false, "What it must not run beside."},
	{"pipelines.*.jobs.*.concurrency.group", line, "(PIPELINE/JOB for a deploy job)", nil, false, "Jobs of one group run one after the other."},
	{"pipelines.*.jobs.*.on_crash", line, "rerun", []string{"rerun", "stop"}, false, "When the daemon dies during the job: start it again, or leave it to a person; a release path then stays locked until `deployhook unlock HOST:PATH --abandon`."},
	{"pipelines.*.jobs.*.limits", section, "", nil, false, "What the steps of the job may use together. Needs agents that systemd starts (`server.agent`), on this machine: where a limit cannot be kept, the job fails."},
	{"pipelines.*.jobs.*.limits.memory", size, "", nil, false, "Memory, without swap; a step that needs more is killed, and the run says so with the peak."},
	{"pipelines.*.jobs.*.limits.cpu", decimal, "", nil, false, "Processors: `0.5` is half of one."},
	{"pipelines.*.jobs.*.limits.pids", number, "", nil, false, "Processes and threads."},
	{"pipelines.*.jobs.*.artifacts", texts, "", nil, true, "Files for later jobs."},
	{"pipelines.*.jobs.*.restart", text, "", nil, false, "Command after the switch, and again after a rollback, in `current` (with `in_place`, in the path itself). What it leaves running in the background is ended: let a service manager run the application."},
	{"pipelines.*.jobs.*.healthcheck", section, "", nil, true, "How a new release proves itself."},
	{"pipelines.*.jobs.*.healthcheck.http", line, "", nil, true, "Address to ask."},
	{"pipelines.*.jobs.*.healthcheck.expect", section, "", nil, true, "What the answer must be."},
	{"pipelines.*.jobs.*.healthcheck.expect.status", number, "", nil, true, "Its status."},
	{"pipelines.*.jobs.*.healthcheck.expect.body", line, "", nil, true, "What it must contain."},
	{"pipelines.*.jobs.*.healthcheck.run", line, "", nil, true, "Command that must succeed."},
	{"pipelines.*.jobs.*.healthcheck.tcp", line, "", nil, true, "Address that must accept a connection."},
	{"pipelines.*.jobs.*.healthcheck.unit", line, "", nil, true, "systemd unit that must be active."},
	{"pipelines.*.jobs.*.healthcheck.start_period", duration, "", nil, true, "Time in which failures do not count."},
	{"pipelines.*.jobs.*.healthcheck.interval", duration, "", nil, true, "Time between two tries."},
	{"pipelines.*.jobs.*.healthcheck.timeout", duration, "", nil, true, "Time of one try."},
	{"pipelines.*.jobs.*.healthcheck.retries", number, "", nil, true, "Failures in a row that are too many."},
	{"pipelines.*.jobs.*.rollout", section, "", nil, true, "Several hosts in batches."},
	{"pipelines.*.jobs.*.rollout.parallelism", number, "", nil, true, "Hosts at once."},
	{"pipelines.*.jobs.*.rollout.delay", duration, "", nil, true, "Time between two batches."},
	{"pipelines.*.jobs.*.rollout.monitor", duration, "", nil, true, "Time to watch a batch."},
	{"pipelines.*.jobs.*.rollout.failure_action", line, "", nil, true, "rollback, pause or continue."},
	{"pipelines.*.jobs.*.before", sections, "", nil, true, "Steps before the switch."},
	{"pipelines.*.jobs.*.after", sections, "", nil, true, "Steps after the switch."},
	{"pipelines.*.jobs.*.on_rollback", sections, "", nil, true, "Steps of a rollback."},
	{"pipelines.*.jobs.*.release", textOrMap, "", nil, false, "Makes this a deploy job: a path, or the section below."},
	{"pipelines.*.jobs.*.release.path", line, "", nil, false, "Absolute path; it gets `releases/`, `shared/` and `current`, or with `in_place` the files themselves."},
	{"pipelines.*.jobs.*.release.strategy", line, "symlink", []string{"symlink", "in_place"}, false, "`symlink`: each commit gets a directory of its own, and `current` points to the live one. `in_place`: the tracked files in `path` become those of the commit, as `git pull` would make them; see [in place](in-place.md)."},
	{"pipelines.*.jobs.*.release.subdir", line, "", nil, false, "Only this directory of the repository becomes the release, without its name; see [git](git.md#one-directory-of-a-repository)."},
	{"pipelines.*.jobs.*.release.overwrite", boolean, "false", nil, false, "With `in_place`: replace tracked files that were changed by hand, and files that are in the way, instead of stopping with their names."},
	{"pipelines.*.jobs.*.release.keep", number, "5", nil, false, "Releases that were live and stay, the current one included; with `in_place`, entries of the list that `rollback` goes by."},
	{"pipelines.*.jobs.*.release.keep_failed", number, "2", nil, false, "Releases that failed, or never were live, and stay."},
	{"pipelines.*.jobs.*.release.shared", section, "", nil, false, "What all releases share."},
	{"pipelines.*.jobs.*.release.shared.dirs", texts, "", nil, false, "Directories, made where they are missing."},
	{"pipelines.*.jobs.*.release.shared.files", texts, "", nil, false, "Files, which must be there before the first deploy."},
	{"pipelines.*.jobs.*.release.copy", texts, "", nil, true, "Paths copied from the release before."},

	{"pipelines.*.jobs.*.steps", sections, "", nil, false, "Shell commands, one after the other."},
	{"pipelines.*.jobs.*.steps[].name", line, "(the command's first line)", nil, false, "Its name in lists and logs."},
	{"pipelines.*.jobs.*.steps[].run", text, "", nil, false, "The command. `${{ }}` is an error here: what an outsider wrote is data, read it from a variable."},
	{"pipelines.*.jobs.*.steps[].env", variables, "", nil, false, "Variables of this step."},
	{"pipelines.*.jobs.*.steps[].if", expression, "success()", nil, false, "Whether it runs."},
	{"pipelines.*.jobs.*.steps[].timeout", duration, "(the job's)", nil, false, "Its time."},
	{"pipelines.*.jobs.*.steps[].retry", section, "", nil, false, "Try again when it fails."},
	{"pipelines.*.jobs.*.steps[].retry.limit", number, "0", nil, false, "Further tries."},
	{"pipelines.*.jobs.*.steps[].retry.delay", duration, "0s", nil, false, "Time before the second try."},
	{"pipelines.*.jobs.*.steps[].retry.factor", decimal, "1", nil, false, "Each delay is the one before times this."},
	{"pipelines.*.jobs.*.steps[].continue_on_error", boolean, "false", nil, false, "Go on when it fails."},
	{"pipelines.*.jobs.*.steps[].once", boolean, "", nil, true, "On one host only."},
	{"pipelines.*.jobs.*.steps[].working_dir", text, "", nil, false, "Its directory, relative to the workspace or release."},
	{"pipelines.*.jobs.*.steps[].shell", line, "", nil, false, "Its shell."},
	{"pipelines.*.jobs.*.steps[].detach", boolean, "", nil, true, "Let it run on."},
}

// place is a key with those below it.
type place struct {
	key
	children map[string]*place
	order    []string
	any      *place // of names
	item     *place // of sections
}

// root is the table as a tree.
var root = buildPlaces()

func buildPlaces() *place {
	top := &place{key: key{kind: section}, children: map[string]*place{}}
	for _, k := range table {
		at := top
		for _, part := range strings.Split(strings.ReplaceAll(k.path, "[]", ".[]"), ".") {
			at = at.child(part)
		}
		at.key = k
		if k.kind == sections {
			at.child("[]").key = key{path: k.path + "[]", kind: section, later: k.later}
		}
	}
	return top
}

func (p *place) child(part string) *place {
	fresh := func() *place { return &place{children: map[string]*place{}} }
	switch part {
	case "*":
		if p.any == nil {
			p.any = fresh()
		}
		return p.any
	case "[]":
		if p.item == nil {
			p.item = fresh()
		}
		return p.item
	}
	if p.children[part] == nil {
		p.children[part] = fresh()
		p.order = append(p.order, part)
	}
	return p.children[part]
}
