package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// problemsOf parses a file that is wrong.
func problemsOf(t testing.TB, text string) []string {
	t.Helper()
	f, err := Parse("deploy.yaml", []byte(text))
	if err == nil {
		t.Fatalf("this file is taken as good:\n%s", text)
	}
	if f != nil {
		t.Error("a bad file gives a config")
	}
	var p Problems
	if !errors.As(err, &p) {
		t.Fatalf("the error is a %T, not Problems: %v", err, err)
	}
	var list []string
	for _, x := range p {
		list = append(list, x.String())
	}
	return list
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

const hooksPart = "hooks: { github: { secret: { environment: HOOK_SECRET } } }\n"

func TestAllErrorsOfAFileComeAtOnce(t *testing.T) {
	got := problemsOf(t, `hoks: 1
hooks:
  github: { provider: githb, secret: { environment: A } }
  b: { provider: gitlob, token: { file: token } }
pipelines:
  shop:
    repository: shop
    rollout: 1
    on: push
    jobs:
      test:
        needs: [tests, deploy]
        working-dir: ../x
        steps:
          - run: echo ${{ branch }}
          - rn: x
          - run: x
            timeout: soon
            if: contains(message, "x")
      deploy:
        release: srv/shop
        rollout: {}
        env: {A: [1]}
server: { listen: 8484, log: { level: loud } }
`)
	same(t, got,
		`deploy.yaml:1:1: hoks: unknown key; did you mean "hooks"?`,
		`deploy.yaml:3:23: hooks.github.provider: "githb" is not one of github, gitlab, gitea, forgejo, gogs, bitbucket, azure, generic, standard, stripe; did you mean "github"?`,
		`deploy.yaml:4:18: hooks.b.provider: "gitlob" is not one of github, gitlab, gitea, forgejo, gogs, bitbucket, azure, generic, standard, stripe; did you mean "gitlab"?`,
		`deploy.yaml:4:41: hooks.b.token.file: this is not an absolute path`,
		`deploy.yaml:7:17: pipelines.shop.repository: "shop" is not a repository: write it like github.com/acme/shop`,
		`deploy.yaml:8:5: pipelines.shop.rollout: unknown key; it belongs to pipelines.NAME.jobs.NAME, and is not available in this version`,
		`deploy.yaml:9:9: pipelines.shop.on.push: branches or tags are wanted: job deploy deploys, and every branch would`,
		`deploy.yaml:12:17: pipelines.shop.jobs.test.needs: no job "tests"; did you mean "test"?`,
		`deploy.yaml:13:22: pipelines.shop.jobs.test.working_dir: a relative path is wanted here that does not lead out of the workspace or release, not "../x"`,
		`deploy.yaml:15:18: pipelines.shop.jobs.test.steps[0].run: ${{ }} in a command would let an outsider write a part of it: set env: {VALUE: "${{ branch }}"} and use "$VALUE"`,
		`deploy.yaml:16:13: pipelines.shop.jobs.test.steps[1].rn: unknown key; did you mean "run"?`,
		`deploy.yaml:18:22: pipelines.shop.jobs.test.steps[2].timeout: a duration is wanted here, like 90s, 30m or 1h30m, up to 168h, not "soon"`,
		`deploy.yaml:19:17: pipelines.shop.jobs.test.steps[2].if: contains is an operator: write a contains b, not contains(a, b)`,
		`deploy.yaml:21:18: pipelines.shop.jobs.deploy.release: an absolute path is wanted here, like /srv/shop, not "srv/shop"`,
		`deploy.yaml:22:9: pipelines.shop.jobs.deploy.rollout: not available in this version`,
		`deploy.yaml:23:18: pipelines.shop.jobs.deploy.env.A: a text is wanted here, not a list; a secret stands under secrets of a job`,
		`deploy.yaml:24:19: server.listen: an address is wanted here, like 127.0.0.1:8484, not "8484"`,
		`deploy.yaml:24:39: server.log.level: "loud" is not one of debug, info, warn, error`,
	)
}

// pipelineText puts lines under pipelines.p, which has a test job.
func pipelineText(lines string) string {
	return hooksPart + "pipelines:\n  p:\n" + indent(lines, "    ") + "    jobs: { test: { steps: [ { run: make } ] } }\n"
}

// jobText puts lines under a job of a pipeline with a repository.
func jobText(lines string) string {
	return hooksPart + "pipelines:\n  p:\n    repository: github.com/acme/shop\n    on: { push: { branches: [main] } }\n    jobs:\n      j:\n" + indent(lines, "        ")
}

// minutes are so many schedules.
func minutes(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("{ cron: %d * * * * }", i))
	}
	return strings.Join(list, ", ")
}

// chainText is so many pipelines that follow each other.
func chainText(n int) string {
	var b strings.Builder
	for i := range n {
		on := ""
		if i > 0 {
			on = fmt.Sprintf("on: { pipeline: { name: p%d } }, ", i-1)
		}
		fmt.Fprintf(&b, "  p%d: { %sjobs: { j: { steps: [ { run: x } ] } } }\n", i, on)
	}
	return b.String()
}

func stepText(lines string) string {
	return jobText("steps:\n  - " + strings.TrimSpace(indent(lines, "    ")) + "\n")
}

func indent(lines, by string) string {
	var b strings.Builder
	for l := range strings.Lines(lines) {
		b.WriteString(by + l)
	}
	if !strings.HasSuffix(b.String(), "\n") {
		b.WriteByte('\n')
	}
	return b.String()
}

// TestEachMistakeIsOneSentence has one mistake a file, and wants one problem:
// nothing that only follows from it.
func TestEachMistakeIsOneSentence(t *testing.T) {
	const repo = "repository: github.com/acme/shop\n"
	for _, tt := range []struct{ name, text, want string }{
		// the form of keys
		{"duplicate key", pipelineText(repo + "branch: a\nbranch: b\n"), "6:5: pipelines.p.branch: this is written twice; first in line 5"},
		{"duplicate of an ignored key", hooksPart + "x-a: 1\nx-a: 2\n", "3:1: x-a: this is written twice; first in line 2"},
		{"duplicate with another spelling", stepText("run: x\nworking_dir: a\nworking-dir: b\n"), "working_dir: this is written twice"},
		{"duplicate pipeline", hooksPart + "pipelines:\n  a: { jobs: { j: { steps: [ { run: x } ] } } }\n  a: { jobs: { j: { steps: [ { run: x } ] } } }\n", "4:3: pipelines.a: this is written twice; first in line 3"},
		{"duplicate job", jobText("steps: [ { run: x } ]\n") + "      j:\n        steps: [ { run: y } ]\n", "jobs.j: this is written twice; first in line 7"},
		{"x- among pipelines", hooksPart + "pipelines: { x-a: 1 }", "pipelines.x-a: a section with repository, clone_url, auth, hook, … is wanted here, not text"},
		{"- in a name of ours only", pipelineText(repo + "clone-urls: x\n"), `pipelines.p.clone_urls: unknown key; did you mean "clone_url"?`},
		{"bad name", hooksPart + "pipelines: { \"a b\": {} }", "a name has letters, digits, - and _"},
		{"name with a leading -", hooksPart + "pipelines: { -rf: {} }", "a name has letters, digits"},
		{"long name", hooksPart + "pipelines: { " + strings.Repeat("a", 65) + ": {} }", "at most 64"},
		{"<< among jobs", "x-jobs: &jobs { a: { steps: [ { run: x } ] } }\n" + hooksPart + "pipelines: { p: { jobs: { <<: *jobs } } }", "pipelines.p.jobs: << among jobs would change their order"},
		{"<< of text", hooksPart + "pipelines: { p: { <<: text, jobs: { a: { steps: [ { run: x } ] } } } }", "<< takes a section"},
		{"list for a section", "hooks: [a]", "1:8: hooks: a section is wanted here, not a list"},
		{"text for a section", "hooks: a", "hooks: a section is wanted here, not text"},
		{"nothing for a section", "hooks:", "hooks: a section is wanted here, and nothing stands here"},
		{"section for a text", pipelineText(repo + "branch: {}\n"), "pipelines.p.branch: a text is wanted here, not a section"},
		{"keys of GitHub", stepText("run: x\nuses: actions/checkout@v4\n"), "unknown key; actions do not run here"},
		{"runs-on", jobText("runs-on: ubuntu-latest\nsteps: [ { run: x } ]\n"), "runs_on: unknown key; write host"},
		{"working-directory", stepText("run: x\nworking-directory: a\n"), "unknown key; write working_dir"},
		{"timeout-minutes", jobText("timeout-minutes: 5\nsteps: [ { run: x } ]\n"), "unknown key; write timeout: 30m"},
		{"jobs at the top", "jobs: {}", "jobs: unknown key; jobs stand in a pipeline"},

		{"<< twice", "x-a: &a { timeout: 5m }\n" + jobText("<<: *a\n<<: *a\nsteps: [ { run: x } ]\n"), "10:9: pipelines.p.jobs.j: << is written twice, first in line 9: write <<: [*one, *two]"},
		{"twice in what << brings", "x-a: &a { timeout: 5m, timeout: 6m }\n" + jobText("<<: *a\nsteps: [ { run: x } ]\n"), "1:24: pipelines.p.jobs.j: timeout is written twice in what << brings; first in line 1"},
		{"unknown key of an anchor used twice", "x-a: &a { bogus: 1 }\n" + jobText("<<: *a\nsteps: [ { run: x } ]\n") + "      k: { <<: *a, steps: [ { run: x } ] }\n", "1:11: pipelines.p.jobs.j.bogus: unknown key"},
		{"key of another section", pipelineText(repo + "rollout: {}\n"), "pipelines.p.rollout: unknown key; it belongs to pipelines.NAME.jobs.NAME, and is not available in this version"},
		{"key of a section below", pipelineText(repo + "restart: x\n"), "pipelines.p.restart: unknown key; it belongs to pipelines.NAME.jobs.NAME"},
		{"key of two sections", stepText("run: x\nsecrets: { A: b }\n"), "steps[0].secrets: unknown key; it belongs to the top level or pipelines.NAME.jobs.NAME"},
		{"upper case", "Hooks: {}", `1:1: Hooks: unknown key; did you mean "hooks"?`},
		{"x_", "x_a: 1", "x_a: unknown key"},
		{"name with a dot", hooksPart + "pipelines: { shop.v2: {} }", "pipelines.shop.v2: a name has letters, digits, - and _, and begins with a letter or digit; at most 64 characters"},
		{"no name", hooksPart + "pipelines: { '': {} }", "a name has letters"},
		{"on that became true", pipelineText(repo + "true: push\n"), "pipelines.p.true: unknown key; a YAML tool has made true of the word on: write on"},
		{"text for a section with few keys", stepText("run: x\nretry: 3\n"), "steps[0].retry: a section with limit, delay or factor is wanted here, not text"},
		{"text for log", "server: { log: debug }", "server.log: a section with level or format is wanted here, not text"},
		{"list for variables", jobText("env: [A=1]\nsteps: [ { run: x } ]\n"), "jobs.j.env: a section of variables, like NAME: value, is wanted here, not a list"},
		{"list for secrets", jobText("secrets: [TOKEN]\nsteps: [ { run: x } ]\n"), "jobs.j.secrets: a section of variables, like NAME: secret, is wanted here, not a list"},
		{"nothing for variables", jobText("env:\nsteps: [ { run: x } ]\n"), "jobs.j.env: a section of variables, like NAME: value, is wanted here, and nothing stands here"},
		{"nothing for an if", jobText("if:\nsteps: [ { run: x } ]\n"), "jobs.j.if: an expression is wanted here, and nothing stands here"},
		{"list for true or false", stepText("run: x\ncontinue_on_error: []\n"), "continue_on_error: true or false is wanted here, not a list"},
		{"text for steps", jobText("steps: make\n"), "jobs.j.steps: a list like - run: make is wanted here, not text"},

		// values
		{"empty text", jobText("shell: ''\nsteps: [ { run: x } ]\n"), "jobs.j.shell: this is empty: fill it in, or leave the key out"},
		{"blank name", stepText("name: ' '\nrun: x\n"), "steps[0].name: this is empty"},
		{"two lines", jobText("concurrency: { group: \"a\\nb\" }\nsteps: [ { run: x } ]\n"), "one line is wanted here, without control characters"},
		{"shell with quotes", jobText("shell: 'bash -c \"x\"'\nsteps: [ { run: x } ]\n"), "quotes have no meaning here: a program and its arguments are wanted"},
		{"shell that is the file", stepText("run: x\nshell: '{0}'\n"), "the program that runs it comes first"},
		{"shell of defaults", "defaults: { shell: \"'sh'\" }", "defaults.shell: quotes have no meaning here"},
		{"working_dir of defaults", "defaults: { working_dir: ../x }", "defaults.working_dir: a relative path is wanted here that does not lead out of the workspace or release"},
		{"path of defaults", "defaults: { path: [bin] }", "defaults.path: an absolute path of one directory is wanted here"},
		{"working_dir out of it", jobText("working_dir: a/../../b\nsteps: [ { run: x } ]\n"), `does not lead out of the workspace or release, not "a/../../b"`},
		{"absolute working_dir", stepText("run: x\nworking_dir: /srv\n"), `does not lead out of the workspace or release, not "/srv"`},
		{"home as working_dir", stepText("run: x\nworking_dir: ~/x\n"), "~ stands for no home directory here"},
		{"number out of range", jobText("release: { path: /srv/shop, keep: 1001 }\n"), `a whole number from 1 to 1000 is wanted here, not "1001"`},
		{"huge number", pipelineText(repo + "depth: 99999999999999999999\n"), `not "99999999999999999999"`},
		{"number with an exponent", pipelineText(repo + "depth: 1e3\n"), `not "1e3"`},
		{"days", stepText("run: x\ntimeout: 1d\n"), `a duration is wanted here, like 90s, 30m or 1h30m, up to 168h, not "1d"`},
		{"DEBUG", "server: { log: { level: DEBUG } }", `"DEBUG" is not one of debug, info, warn, error; did you mean "debug"?`},
		{"one value allowed", jobText("release: { path: /srv/shop, strategy: copy }\n"), `strategy: "copy" is not one of symlink, in_place`},
		{"bad duration", stepText("run: x\ntimeout: 5\n"), `a duration is wanted here, like 90s, 30m or 1h30m, up to 168h, not "5"`},
		{"signed duration", stepText("run: x\ntimeout: -5m\n"), "a duration is wanted here"},
		{"plus duration", stepText("run: x\ntimeout: +5m\n"), "a duration is wanted here"},
		{"long duration", stepText("run: x\ntimeout: 169h\n"), "up to 168h"},
		{"huge duration", stepText("run: x\ntimeout: 99999999999999999999h\n"), "a duration is wanted here"},
		{"no time at all", stepText("run: x\ntimeout: 0s\n"), "a timeout is more than 0"},
		{"bad boolean", stepText("run: x\ncontinue_on_error: yes\n"), `true or false is wanted here, not "yes"`},
		{"bad number", stepText("run: x\nretry: { limit: many }\n"), `a whole number from 0 to 100 is wanted here, not "many"`},
		{"octal number", pipelineText(repo + "depth: 010\n"), `a whole number from 0 to 1000000 is wanted here, not "010"`},
		{"negative number", pipelineText(repo + "depth: -1\n"), `a whole number from 0 to 1000000 is wanted here, not "-1"`},
		{"too many tries", stepText("run: x\nretry: { limit: 101 }\n"), `a whole number from 0 to 100 is wanted here, not "101"`},
		{"bad factor", stepText("run: x\nretry: { factor: 0 }\n"), "a number above 0"},
		{"factor that is none", stepText("run: x\nretry: { factor: .nan }\n"), "a number above 0"},
		{"bad size", "server: { limits: { body_memory: 67108864 } }\nhooks: 1", "hooks: a section is wanted here, not text"},
		{"size", "server: { limits: { body_memory: much } }", `a size is wanted here, like 64 MiB, not "much"`},
		{"expression in a text", stepText("run: x\nworking_dir: ${{ branch }}\n"), "${{ }} has no meaning here"},
		{"NUL", stepText("run: x\nname: \"a\\0b\"\n"), "this text cannot hold a NUL byte"},
		{"NUL in a command", stepText("run: \"a\\0b\"\n"), "a command cannot hold a NUL byte"},

		// hooks and secrets
		{"no secret", "hooks: { h: { provider: github } }", "hooks.h: a secret or a token is wanted: without one anybody could start a run"},
		{"empty hook", "hooks: { h: {} }", "hooks.h: a secret or a token is wanted"},
		{"misspelt secret", "hooks: { h: { secrt: { environment: A } } }", `hooks.h.secrt: unknown key; did you mean "secret"?`},
		{"list of secrets with one unknown", "secrets: { a: { environment: A } }\nhooks: { h: { secret: [a, b] } }", "hooks.h.secret[1]: there is no such name under secrets"},
		{"list with a secret twice", "secrets: { a: { environment: A } }\nhooks: { h: { secret: [a, a] } }", "hooks.h.secret[1]: this secret stands in the list twice"},
		{"empty list of secrets", "hooks: { h: { secret: [] } }", "hooks.h.secret: a secret, or a list of 1 to 10, is wanted here"},
		{"literal in a list of secrets", "hooks: { h: { secret: [ 'a b c' ] } }", "hooks.h.secret[0]: a secret is the name of one under secrets"},
		{"gitlab with secret and token", "hooks: { h: { provider: gitlab, secret: { environment: A }, token: { environment: B } } }", "hooks.h.secret: with gitlab this is another word for token: write one of them"},
		{"signature of a forge", "hooks: { h: { secret: { environment: A }, signature: { header: X-S } } }", "hooks.h.signature: this is for provider: generic; github says by itself how it signs"},
		{"signature without a secret", "hooks: { h: { provider: generic, token: { environment: A }, signature: { header: X-S } } }", "hooks.h.signature: the secret that is the key of the signature is missing"},
		{"header of a signature", "hooks: { h: { provider: generic, secret: { environment: A }, signature: { header: 'X S' } } }", "hooks.h.signature.header: the name of a header has letters, digits and -"},
		{"algorithm of a signature", "hooks: { h: { provider: generic, secret: { environment: A }, signature: { algorithm: md5 } } }", `"md5" is not one of sha256, sha512, sha1`},
		{"allow everybody", "hooks: { h: { secret: { environment: A }, allow: [ 0.0.0.0/0 ] } }", "hooks.h.allow: 0.0.0.0/0 is everybody: leave the key allow out"},
		{"allow nobody", "hooks: { h: { secret: { environment: A }, allow: [] } }", "hooks.h.allow: a list without a network lets nobody in"},
		{"allow an unknown list", "hooks: { h: { secret: { environment: A }, allow: [ githb ] } }", `"githb" is neither a network nor one of the published lists: github; did you mean "github"?`},
		{"allow what is no network", "hooks: { h: { secret: { environment: A }, allow: [ 10.0.0.1/8 ] } }", "10.0.0.1/8 is not a network: did you mean 10.0.0.0/8, or 10.0.0.1 alone"},
		{"unknown secret", "secrets: { main: { environment: A } }\nhooks: { h: { secret: mian } }", `hooks.h.secret: there is no such name under secrets, and a value never stands in this file; did you mean "main"?`},
		{"two sources", "secrets: { a: { environment: A, file: /a } }", "secrets.a: exactly one of environment, file, credential and command is wanted"},
		{"no source", "secrets: { a: {} }", "secrets.a: exactly one of"},
		{"bad variable", "secrets: { a: { environment: A-B } }", "secrets.a.environment: this is not the name of a variable"},
		{"bad credential", "secrets: { a: { credential: ../a } }", "secrets.a.credential: this is not the name of a credential"},
		{"unknown source", "secrets: { a: { env: A } }", "1:17: secrets.a: the source of a secret is one of environment, file, credential and command"},
		{"two mistakes in a source count once", "secrets: { a: { file: a } }\nhooks: { h: { secret: a } }", "secrets.a.file: this is not an absolute path"},
		{"empty source", "secrets: { a: { command: '' } }", "secrets.a.command: this is empty"},
		{"secret that is not there yet is not missed twice", "secrets: { a: { environment: 1 } }\nhooks: { h: { secret: a } }", "secrets.a.environment"},

		// pipelines
		{"no jobs", hooksPart + "pipelines: { p: {} }", "pipelines.p: jobs are wanted"},
		{"empty jobs", hooksPart + "pipelines: { p: { jobs: {} } }", "pipelines.p: jobs are wanted"},
		{"misspelt jobs", hooksPart + "pipelines: { p: { job: { a: { steps: [ { run: x } ] } } } }", `unknown key; did you mean "jobs"?`},
		{"push without repository", pipelineText("on: push\n"), "pipelines.p.on.push: pushes come from a repository: repository is missing"},
		{"push with a misspelt repository", pipelineText("repositry: github.com/a/b\non: push\n"), `unknown key; did you mean "repository"?`},
		{"push without a hook", strings.TrimPrefix(pipelineText(repo+"on: push\n"), hooksPart), "there is no hook that pushes could come through"},
		{"several hooks", "hooks: { a: { secret: { environment: A } }, b: { secret: { environment: A } } }\n" + strings.TrimPrefix(pipelineText(repo+"on: push\n"), hooksPart), "pipelines.p: there are several hooks: say with hook whose pushes start this"},
		{"unknown hook", pipelineText(repo + "on: push\nhook: githb\n"), `pipelines.p.hook: there is no hook "githb"; did you mean "github"?`},
		{"unknown on.hook", pipelineText("on: { hook: { name: web } }\n"), `pipelines.p.on.hook.name: there is no hook "web"`},
		{"on.hook without name", pipelineText("on: { hook: { if: 'true' } }\n"), "pipelines.p.on.hook: name is missing"},
		{"on: hook", pipelineText("on: hook\n"), "pipelines.p.on.hook: a section with name or if is wanted here, and nothing stands here"},
		{"unknown event", pipelineText(repo + "on: pull_request\n"), "pipelines.p.on.pull_request: unknown key"},
		{"schedule, short", pipelineText(repo + "on: [push, schedule]\n"), "pipelines.p.on.schedule: a list of sections with cron or timezone is wanted here, and nothing stands here"},
		{"empty schedule", pipelineText("on: { schedule: [] }\n"), "pipelines.p.on.schedule: the list is empty"},
		{"schedule without cron", pipelineText("on: { schedule: [ { timezone: Europe/Berlin } ] }\n"), "pipelines.p.on.schedule[0]: cron is missing"},
		{"schedule that never comes", pipelineText("on: { schedule: [ { cron: 0 0 30 2 * } ] }\n"), "pipelines.p.on.schedule[0].cron: this time never comes"},
		{"schedule of four fields", pipelineText("on: { schedule: [ { cron: 0 0 * * } ] }\n"), "five fields (minute hour day month weekday), or six with seconds first; this has 4"},
		{"schedule nonsense", pipelineText("on: { schedule: [ { cron: every day } ] }\n"), "this has 2"},
		{"minute 60", pipelineText("on: { schedule: [ { cron: 60 * * * * } ] }\n"), `on.schedule[0].cron: minute "60": 0 to 59 or * is wanted`},
		{"unknown zone", pipelineText("on: { schedule: [ { cron: 0 0 * * *, timezone: Mars } ] }\n"), `on.schedule[0].timezone: "Mars" is no time zone`},
		{"schedule twice", pipelineText("on: { schedule: [ { cron: 0 0 * * * }, { cron: 0  0 * * * } ] }\n"), "on.schedule[1].cron: this schedule stands here twice"},
		{"51 schedules", pipelineText("on: { schedule: [ " + minutes(51) + " ] }\n"), "there are 51 schedules; at most 50 are allowed"},
		{"choice without options", pipelineText("on: { manual: { inputs: { a: { type: choice } } } }\n"), "inputs.a: a choice wants options"},
		{"options without a choice", pipelineText("on: { manual: { inputs: { a: { options: [x] } } } }\n"), "inputs.a.options: options belong to type: choice"},
		{"unknown type", pipelineText("on: { manual: { inputs: { a: { type: text } } } }\n"), `"text" is not one of string, boolean, number, choice`},
		{"default of another type", pipelineText("on: { manual: { inputs: { a: { type: number, default: many } } } }\n"), `inputs.a.default: the default is a number, not "many"`},
		{"default that is no option", pipelineText("on: { manual: { inputs: { a: { type: choice, options: [x, y], default: z } } } }\n"), `the default is one of x, y, not "z"`},
		{"default of what is required", pipelineText("on: { manual: { inputs: { a: { required: true, default: z } } } }\n"), "an input that is required has no default"},
		{"pipeline without name", pipelineText("on: { pipeline: {} }\n"), "pipelines.p.on.pipeline: name is missing"},
		{"unknown pipeline", pipelineText("on: { pipeline: { name: q } }\n"), `pipelines.p.on.pipeline.name: no pipeline "q"`},
		{"pipeline after itself", pipelineText("on: { pipeline: { name: p } }\n"), "these pipelines would start each other for ever: p after p"},
		{"too long a chain", hooksPart + "pipelines:\n" + chainText(11), "p10.on.pipeline.name: more than 10 pipelines would follow each other"},
		{"release without repository", pipelineText("on: release\n"), "on.release: releases come from a repository: repository is missing"},
		{"workflow_run without repository", pipelineText("on: workflow_run\n"), "on.workflow_run: workflow runs come from a repository: repository is missing"},
		{"empty workflows", pipelineText(repo + "on: { workflow_run: { workflows: [] } }\n"), "on.workflow_run.workflows: the list is empty"},
		{"bad glob of a workflow", pipelineText(repo + "on: { workflow_run: { workflows: ['a['] } }\n"), `pattern "a[": [ has no ]`},
		{"every branch by workflow_run", strings.Replace(jobText("release: /srv/shop\n"), "{ push: { branches: [main] } }", "workflow_run", 1), "on.workflow_run: branches are wanted: job j deploys, and every branch would"},
		{"branches and branches-ignore", pipelineText(repo + "on: { push: { branches: [a], branches-ignore: [b] } }\n"), "branches and branches_ignore do not go together"},
		{"tags and tags_ignore", pipelineText(repo + "on: { push: { tags: [a], tags_ignore: [b] } }\n"), "tags and tags_ignore do not go together"},
		{"paths and paths_ignore", pipelineText(repo + "on: { push: { paths: [a], paths_ignore: [b] } }\n"), "paths and paths_ignore do not go together"},
		{"empty filter", pipelineText(repo + "on: { push: { branches: [] } }\n"), "the list is empty: leave the key out for all"},
		{"nothing but !", pipelineText(repo + "on: { push: { branches: ['!a'] } }\n"), "every pattern only takes back"},
		{"bad glob", pipelineText(repo + "on: { push: { branches: ['a['] } }\n"), `pattern "a[": [ has no ]`},
		{"glob that repeats nothing", pipelineText(repo + "on: { push: { tags: ['+'] } }\n"), "there is none"},
		{"status in a pipeline's if", pipelineText(repo + "on: push\nif: failure()\n"), "before a run nothing has ended"},
		{"status in a payload's if", pipelineText("on: { hook: { name: github, if: success() } }\n"), "before a run nothing has ended"},
		{"commit in a payload's if", pipelineText("on: { hook: { name: github, if: 'branch == \"main\"' } }\n"), "a payload has no commit: branch has no meaning here"},
		{"changed in a payload's if", pipelineText("on: { hook: { name: github, if: changed('a') } }\n"), "a payload has no commit: changed has no meaning here"},
		{"needs in a pipeline's if", pipelineText(repo + "on: push\nif: needs.test.result == 'failed'\n"), "this one decides whether there is a run at all"},
		{"bad expression", pipelineText(repo + "on: push\nif: brnch == 'a'\n"), `unknown name "brnch"; did you mean "branch"?`},
		{"call form", pipelineText(repo + "on: push\nif: startsWith(branch, 'a')\n"), "startsWith is an operator"},
		{"job with - in an expression", jobText("steps:\n  - run: x\n    if: needs.my-job.result == 'failed'\n"), `write needs["my-job"]`},
		{"branch", pipelineText(repo + "branch: refs/heads/main\n"), `the name alone is wanted here: "main"`},
		{"branch that is none", pipelineText(repo + "branch: 'a b'\n"), `"a b" is not the name of a branch`},
		{"tag for a branch", pipelineText(repo + "branch: refs/tags/v1\n"), `"refs/tags/v1" is not the name of a branch`},
		{"HEAD for a branch", pipelineText(repo + "branch: HEAD\n"), `"HEAD" is not the name of a branch`},
		{"option for a branch", pipelineText(repo + "branch: --upload-pack=x\n"), "is not the name of a branch"},
		{"lock for a branch", pipelineText(repo + "branch: a.lock\n"), `"a.lock" is not the name of a branch`},
		{"dots in a branch", pipelineText(repo + "branch: a..b\n"), `"a..b" is not the name of a branch`},
		{"two slashes in a branch", pipelineText(repo + "branch: a//b\n"), `"a//b" is not the name of a branch`},
		{"whole ref as a filter", pipelineText(repo + "on: { push: { branches: [refs/heads/main] } }\n"), `pattern "refs/heads/main" matches nothing: the name alone is wanted`},
		{"whole tag as a filter", pipelineText(repo + "on: { push: { tags_ignore: ['refs/tags/v*'] } }\n"), "tags_ignore: pattern"},
		{"path from the root", pipelineText(repo + "on: { push: { paths: ['/src/**'] } }\n"), `pattern "/src/**" matches nothing: paths begin at the repository's root`},
		{"path of a directory", pipelineText(repo + "on: { push: { paths: ['src/'] } }\n"), `pattern "src/" matches nothing: paths are those of files; write "src/**"`},
		{"branch without repository", pipelineText("branch: main\n"), "there is nothing to fetch: repository is missing"},
		{"later group", pipelineText(repo + "concurrency: { group: g }\n"), "pipelines.p.concurrency.group: not available in this version"},
		{"group as text", jobText("concurrency: deploy\nsteps: [ { run: x } ]\n"), "jobs.j.concurrency: a section with group is wanted here, not text"},
		{"the pipeline's key in a job", jobText("concurrency: { group: g, cancel-in-progress: true }\nsteps: [ { run: x } ]\n"), "cancel_in_progress: unknown key; it belongs to pipelines.NAME.concurrency, and is not available in this version"},
		{"GitHub's names", jobText("if: github.ref == 'refs/heads/main'\nsteps: [ { run: x } ]\n"), `unknown name "github"; names stand alone here`},
		{"a function without brackets", stepText("run: x\nif: failure\n"), "steps[0].if: failure is a function: write failure()"},
		{"needs of no job", jobText("steps: [ { run: x } ]\n") + "      k: { if: needs.jj.result == 'failed', steps: [ { run: x } ] }\n", `jobs.k.if: needs.jj: no job "jj"; did you mean "j"?`},
		{"needs of itself", jobText("if: needs.j.result == 'failed'\nsteps: [ { run: x } ]\n"), "jobs.j.if: needs.j: this is the job itself"},
		{"needs of a later job", jobText("if: needs.k.result == 'failed'\nsteps: [ { run: x } ]\n") + "      k: { steps: [ { run: x } ] }\n", "jobs.j.if: needs.k: job j does not need it, so it may not have ended"},
		{"needs of a job beside it", jobText("steps: [ { run: x } ]\n") + "      k: { needs: [], steps: [ { run: x, env: { A: '${{ needs.j.result }}' } } ] }\n", "jobs.k.steps[0].env.A: needs.j: job k does not need it"},
		{"needs in a step's if", jobText("steps: [ { run: x } ]\n") + "      k: { steps: [ { run: x, if: needs.x.result == 'failed' } ] }\n", `jobs.k.steps[0].if: needs.x: no job "x"`},
		{"needs in the pipeline's env", pipelineText("env: { A: '${{ needs.tset.result }}' }\n"), `pipelines.p.env.A: needs.tset: no job "tset"; did you mean "test"?`},
		{"queue", pipelineText(repo + "concurrency: { queue: last }\n"), `"last" is not one of latest, all; did you mean "latest"?`},

		// repositories
		{"short repository", pipelineText("repository: acme/shop\n"), `"acme/shop" is not a repository: write it like github.com/acme/shop; did you mean "github.com/acme/shop"?`},
		{"SSH without git@", pipelineText("repository: github.com:acme/shop.git\n"), `"github.com:acme/shop.git" is not a repository: write it like github.com/acme/shop; did you mean "github.com/acme/shop"?`},
		{"owner alone", pipelineText("repository: github.com/acme\n"), "on github.com it has an owner and a name, like github.com/acme/shop"},
		{"page of a branch", pipelineText("repository: https://github.com/acme/shop/tree/main\n"), "on github.com it has an owner and a name"},
		{"relative path as repository", pipelineText("repository: ../shop\n"), `"../shop" is not a repository`},
		{"dots in a repository", pipelineText("repository: github.com/acme/../shop\n"), "is not a repository"},
		{"slashes in a repository", pipelineText("repository: github.com//acme//shop\n"), "is not a repository"},
		{"path as repository", pipelineText("repository: /srv/git/shop.git\n"), "a path stands in clone_url"},
		{"host alone", pipelineText("repository: github.com\n"), "is not a repository"},
		{"query", pipelineText("repository: https://github.com/acme/shop?a=b\n"), "an address has no ? and no # here"},
		{"ssh without a key", pipelineText("repository: git@github.com:acme/shop.git\n"), "this is fetched over SSH, which needs auth.ssh_key"},
		{"clone_url over ssh without a key", pipelineText(repo + "clone_url: ssh://git@git.internal/shop\n"), "clone_url: this is fetched over SSH, which needs auth.ssh_key"},
		{"key for HTTPS", pipelineText("repository: https://github.com/acme/shop\nauth: { ssh_key: { file: /k } }\n"), "auth.ssh_key: this is for SSH"},
		{"token for a path", pipelineText(repo + "clone_url: /srv/git/shop.git\nauth: { token: { file: /t } }\n"), "auth.token: this is for HTTPS"},
		{"username alone", pipelineText(repo + "auth: { username: me }\n"), "a username without a token says nothing"},
		{"relative clone_url", pipelineText(repo + "clone_url: git/shop\n"), "or an absolute path, is wanted here"},
		{"other scheme", pipelineText(repo + "clone_url: git://github.com/acme/shop\n"), "begins with https://, http://, ssh:// or file://"},
		{"option as a host", pipelineText(repo + "clone_url: git@-oProxyCommand=x:shop\n"), "is wanted here"},
		{"known_hosts path", pipelineText(repo + "auth: { ssh_key: { file: /k }, known_hosts: /etc/ssh/known_hosts }\n"), "the lines themselves are wanted here, not a path"},
		{"known_hosts", pipelineText(repo + "auth: { ssh_key: { file: /k }, known_hosts: github.com AAAA }\n"), "line 1 is not one of known_hosts"},

		// jobs
		{"test job without steps", jobText("timeout: 5m\n"), "pipelines.p.jobs.j: steps are wanted"},
		{"no steps", jobText("steps: []\n"), "pipelines.p.jobs.j: steps are wanted"},
		{"misspelt steps", jobText("step: []\n"), `unknown key; did you mean "steps"?`},
		{"misspelt release", jobText("relase: /srv/shop\nrestart: x\n"), `unknown key; did you mean "release"?`},
		{"step as text", jobText("steps: [make]\n"), "steps[0]: a section like - run: make is wanted here, not text"},
		{"step without run", stepText("name: x\n"), "steps[0]: run is missing"},
		{"empty run", stepText("run: ' '\n"), "the command is empty"},
		{"${{ }} in restart", jobText("release: /srv/shop\nrestart: x ${{ sha }}\n"), `restart: ${{ }} in a command would let an outsider write a part of it`},
		{"unknown need", jobText("needs: jj\nsteps: [ { run: x } ]\n"), `jobs.j.needs: no job "jj"; did you mean "j"?`},
		{"self", jobText("needs: j\nsteps: [ { run: x } ]\n"), `job "j" needs itself`},
		{"need twice", jobText("steps: [ { run: x } ]\n") + "      k: { needs: [j, j], steps: [ { run: x } ] }\n", `job "j" stands here twice`},
		{"cycle", jobText("needs: k\nsteps: [ { run: x } ]\n") + "      k: { steps: [ { run: x } ] }\n", "these jobs wait for each other: j needs k needs j"},
		{"long cycle", jobText("needs: l\nsteps: [ { run: x } ]\n") + "      k: { steps: [ { run: x } ] }\n      l: { steps: [ { run: x } ] }\n", "these jobs wait for each other: j needs l needs k needs j"},
		{"second of two hosts", jobText("hosts: [local, web1]\nsteps: [ { run: x } ]\n"), `8:24: pipelines.p.jobs.j.hosts: no host or label "web1": it is written under hosts, with its address`},
		{"no hosts", jobText("hosts: []\nsteps: [ { run: x } ]\n"), "the list is empty: leave it out for this machine"},
		{"host twice", jobText("hosts: [local, local]\nsteps: [ { run: x } ]\n"), "8:24: pipelines.p.jobs.j.hosts: local stands here twice"},
		{"action alone", jobText("steps: [ { uses: actions/checkout@v4 } ]\n"), "steps[0].uses: unknown key; actions do not run here: write their commands in run"},
		{"command for run", jobText("steps: [ { command: make } ]\n"), "steps[0].command: unknown key; write run"},
		{"run in a job", jobText("run: make\n"), "jobs.j.run: unknown key; commands stand under steps"},
		{"host and hosts", jobText("host: local\nhosts: [local]\nsteps: [ { run: x } ]\n"), "host and hosts do not go together"},
		{"expression in a group", jobText("concurrency: { group: 'a-${{ branch }}' }\nsteps: [ { run: x } ]\n"), "expressions in a job's group: not available in this version"},
		{"restart of a test job", jobText("steps: [ { run: x } ]\nrestart: x\n"), "restart comes after the switch to a new release, and this job has none"},
		{"variable", jobText("env: { A-B: x }\nsteps: [ { run: x } ]\n"), "the name of a variable has letters, digits and _"},
		{"our variables", jobText("env: { DEPLOYHOOK_SHA: x }\nsteps: [ { run: x } ]\n"), "names that begin with DEPLOYHOOK are deployhook's own"},
		{"CI", jobText("env: { CI: 'false' }\nsteps: [ { run: x } ]\n"), "CI and names"},
		{"our variables as secrets", jobText("secrets: { DEPLOYHOOK_X: { file: /x } }\nsteps: [ { run: x } ]\n"), "deployhook's own"},
		{"secret and variable", jobText("env: { A: x }\nsecrets: { A: { file: /x } }\nsteps: [ { run: x } ]\n"), "jobs.j.env.A: the secret A has this name too"},
		{"secret and a step's variable", jobText("secrets: { A: { file: /x } }\nsteps: [ { run: x, env: { A: x } } ]\n"), "steps[0].env.A: the job's secret A has this name too"},
		{"template", jobText("env: { A: '${{ nope }}' }\nsteps: [ { run: x } ]\n"), `unknown name "nope"`},
		{"open template", jobText("env: { A: '${{ branch' }\nsteps: [ { run: x } ]\n"), "${{ has no }}"},
		{"status in a template", jobText("env: { A: '${{ failure() }}' }\nsteps: [ { run: x } ]\n"), "stand only in an if"},
		{"long variable", jobText("env: { A: '" + strings.Repeat("x", 64<<10+1) + "' }\nsteps: [ { run: x } ]\n"), "a variable holds at most 64 KiB"},
		{"relative PATH", jobText("path: [bin]\nsteps: [ { run: x } ]\n"), "an absolute path of one directory is wanted here"},

		// releases
		{"relative path", jobText("release: srv/shop\n"), `an absolute path is wanted here, like /srv/shop, not "srv/shop"`},
		{"home", jobText("release: ~/shop\n"), "~ stands for no home directory here: an absolute path is wanted"},
		{"root", jobText("release: /\n"), "the root directory cannot hold releases"},
		{"unclean path", jobText("release: /srv/../etc\n"), `write "/etc": a path without . and ..`},
		{"slash at the end", jobText("release: /srv/shop/\n"), `write "/srv/shop": `},
		{"colon", jobText("release: '/srv/a:b'\n"), `a path without colons, commas and control characters is wanted here, not "/srv/a:b"`},
		{"no path", jobText("release: { keep: 5 }\n"), "jobs.j.release: path is missing"},
		{"bad path in a section", jobText("release: { path: x }\n"), "jobs.j.release.path: an absolute path"},
		{"keep", jobText("release: { path: /srv/shop, keep: 0 }\n"), `a whole number from 1 to 1000 is wanted here, not "0"`},
		{"shared out of it", jobText("release: { path: /srv/shop, shared: { dirs: [../x] } }\n"), "a path below the release is wanted here"},
		{"shared root", jobText("release: { path: /srv/shop, shared: { dirs: ['.'] } }\n"), "a path below the release is wanted here"},
		{"absolute shared", jobText("release: { path: /srv/shop, shared: { files: [/etc/passwd] } }\n"), "a path below the release is wanted here"},
		{"shared twice", jobText("release: { path: /srv/shop, shared: { dirs: [a/, ./a] } }\n"), "shared.dirs: a stands here twice"},
		{"shared within shared", jobText("release: { path: /srv/shop, shared: { dirs: [a], files: [a/b] } }\n"), "a and a/b are shared: one is within the other"},
		{"no commit", hooksPart + "pipelines: { p: { jobs: { j: { release: /srv/shop } } } }", "a release is made of a commit: the pipeline's repository is missing"},
		{"strategy with a hyphen", jobText("release: { path: /srv/shop, strategy: in-place }\n"), `release.strategy: "in-place" is not one of symlink, in_place; did you mean "in_place"?`},
		{"unknown strategy", jobText("release: { path: /srv/shop, strategy: rsync }\n"), `"rsync" is not one of symlink, in_place`},
		{"list of strategies", jobText("release: { path: /srv/shop, strategy: [in_place] }\n"), "release.strategy: "},
		{"empty strategy", jobText("release: { path: /srv/shop, strategy: }\n"), "release.strategy: "},
		{"overwrite alone", jobText("release: { path: /srv/shop, overwrite: true }\n"), "release.overwrite: overwrite goes with strategy: in_place"},
		{"overwrite with symlink", jobText("release: { path: /srv/shop, strategy: symlink, overwrite: false }\n"), "overwrite goes with strategy: in_place"},
		{"subdir that leads out", jobText("release: { path: /srv/shop, subdir: ../web }\n"), `release.subdir: a directory of the repository is wanted here, like web or apps/shop, not "../web"`},
		{"absolute subdir", jobText("release: { path: /srv/shop, subdir: /web }\n"), "a directory of the repository is wanted here"},
		{"subdir of all", jobText("release: { path: /srv/shop, subdir: ./ }\n"), "a directory of the repository is wanted here"},
		{"subdir .git", jobText("release: { path: /srv/shop, subdir: web/.GIT/hooks }\n"), "a directory of the repository is wanted here"},
		{"list for subdir", jobText("release: { path: /srv/shop, subdir: [web] }\n"), "release.subdir: "},
		{"bad overwrite", jobText("release: { path: /srv/shop, strategy: in_place, overwrite: always }\n"), `true or false is wanted here, not "always"`},
		{"list for overwrite", jobText("release: { path: /srv/shop, strategy: in_place, overwrite: [a] }\n"), "overwrite: true or false is wanted here, not a list"},
		{"in place without a path", jobText("release: { strategy: in_place }\n"), "jobs.j.release: path is missing"},
		{"in place in the root", jobText("release: { path: /, strategy: in_place }\n"), "the root directory cannot hold releases"},
		{"in place with shared", jobText("release: { path: /srv/shop, strategy: in_place, shared: { dirs: [log] } }\n"), "release.shared: with strategy: in_place nothing is shared"},
		{"in place without a commit", hooksPart + "pipelines: { p: { jobs: { j: { release: { path: /srv/shop, strategy: in_place } } } } }", "a release is made of a commit"},
		{"in place without a keep", jobText("release: { path: /srv/shop, strategy: in_place, keep: 0 }\n"), `a whole number from 1 to 1000 is wanted here, not "0"`},
		{"every branch", strings.Replace(jobText("release: /srv/shop\n"), "{ branches: [main] }", "{ branches_ignore: [x] }", 1), "branches or tags are wanted: job j deploys, and every branch would"},
		{"every branch by a list", strings.Replace(jobText("release: /srv/shop\n"), "on: { push: { branches: [main] } }", "on: [push]", 1), "branches or tags are wanted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := problemsOf(t, tt.text)
			if len(got) != 1 || !strings.Contains(got[0], tt.want) {
				t.Errorf("got\n  %s\nwant one problem with\n  %s", strings.Join(got, "\n  "), tt.want)
			}
			for _, g := range got {
				if strings.Contains(g, "\n") || !strings.HasPrefix(g, "deploy.yaml:") {
					t.Errorf("%q is not one line with its place", g)
				}
			}
		})
	}
}

func TestLiteralSecretsAreRefusedAndNotRepeated(t *testing.T) {
	const literal = "Hunter2Hunter2Hunter2"
	for _, text := range []string{
		"hooks: { h: { secret: " + literal + " } }",
		"hooks: { h: { secret: '" + literal + "!' } }",
		"hooks: { h: { secret: *" + literal + " } }",
		"hooks: { h: { secret: !" + literal + " } }",
		"hooks: { h: { secret: !" + literal + " x } }",
		"hooks: { h: { secret: %" + literal + " } }",
		"hooks: { h: { secret: '" + literal + " } }",
		"hooks: { h: { secret: { " + literal + " } } }",
		"hooks: { h: { secret: { " + literal + ": 1 } } }",
		"hooks: { h: { secret: [ " + literal + " ] } }",
		"hooks: { h: { token: { environment: '" + literal + "!' } } }",
		"hooks: { h: { token: { credential: '" + literal + "/' } } }",
		"hooks: { h: { token: { file: " + literal + " } } }",
		"hooks: { h: { token: { value: " + literal + " } } }",
		"hooks: { h: " + literal + " }",
		"hooks: { h: { secret: a: " + literal + " } }",
		"secrets: { a: " + literal + " }",
		"secrets: { a: { value: " + literal + " } }",
		"secrets: " + literal,
		jobText("secrets: { TOKEN: '" + literal + " x' }\nsteps: [ { run: x } ]\n"),
		jobText("secrets: { TOKEN: " + literal + " }\nsteps: [ { run: x } ]\n"),
		pipelineText("repository: https://me:" + literal + "@github.com/acme/shop\n"),
		pipelineText("repository: me:" + literal + "@github.com/acme/shop\n"),
		pipelineText("repository: ssh://git:" + literal + "@github.com/acme/shop\n"),
		pipelineText("repository: github.com/acme/shop\nclone_url: https://me:" + literal + "@github.com/acme/shop\n"),
		pipelineText("repository: github.com/acme/shop\nclone_url: me:" + literal + "@github.com/acme/shop\n"),
		pipelineText("repository: github.com/acme/shop\nauth: { token: " + literal + " }\n"),
		"server: { database: 'postgres://me:" + literal + "@localhost/x' }",
		"server: { database: 'mysql://me:" + literal + "@localhost/x' }",
	} {
		for _, p := range problemsOf(t, text) {
			if strings.Contains(p, literal) {
				t.Errorf("%s\nis answered with the literal: %s", text, p)
			}
		}
	}
}

// TestEveryLaterKeyIsRefusedByName writes each key of the table whose part
// comes later, so that none is accepted and ignored.
func TestEveryLaterKeyIsRefusedByName(t *testing.T) {
	refused := 0
	for _, k := range table {
		if !k.later {
			continue
		}
		refused++
		parent, name, _ := cutLast(k.path)
		if name == "*" {
			name = "x"
		}
		text := nested(parent, name+": 1")
		got := problemsOf(t, text)
		want := "not available in this version"
		if !slices.ContainsFunc(got, func(p string) bool { return strings.Contains(p, want) }) {
			t.Errorf("%s: got\n  %s", k.path, strings.Join(got, "\n  "))
		}
	}
	if refused < 60 {
		t.Errorf("the table has %d later keys: where are the others?", refused)
	}
	for _, text := range []string{
		"server: { database: 'postgres://localhost/x' }",
	} {
		if got := problemsOf(t, text); len(got) != 1 || !strings.Contains(got[0], "not available in this version") {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func cutLast(path string) (before, after string, ok bool) {
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

// nested writes a key at a path of the table.
func nested(path, inside string) string {
	for path != "" {
		var name string
		path, name, _ = cutLast(path)
		item := strings.HasSuffix(name, "[]")
		name = strings.TrimSuffix(name, "[]")
		if name == "*" {
			name = "x"
		}
		if item {
			inside = name + ": [ { " + inside + " } ]"
		} else {
			inside = name + ": { " + inside + " }"
		}
	}
	return inside
}

func TestOneReleasePathForTwoRepositoriesIsAnError(t *testing.T) {
	file := func(repo, path string) string {
		return hooksPart + `pipelines:
  a: { repository: github.com/acme/shop, jobs: { d: { release: /srv/shop } } }
  b: { repository: ` + repo + `, jobs: { d: { release: ` + path + ` } } }
`
	}
	same(t, problemsOf(t, file("github.com/acme/other", "/srv/shop")),
		"deploy.yaml:4:65: pipelines.b.jobs.d.release: pipeline a deploys another repository to /srv/shop")
	same(t, problemsOf(t, file("github.com/acme/shop", "/srv/shop/releases/x")),
		"deploy.yaml:4:64: pipelines.b.jobs.d.release: /srv/shop and /srv/shop/releases/x: one lies within /srv/shop/releases, which deployhook keeps")
	f := parsed(t, file("github.com/acme/shop", "/srv/shop"))
	if got := warningsOf(f); !slices.Contains(got, "deploy.yaml:4:64: pipelines.b.jobs.d.release: job d of pipeline a deploys here too") {
		t.Errorf("no warning: %v", got)
	}
	parsed(t, file("github.com/acme/other", "/srv/shop/api"))
	parsed(t, file("github.com/acme/other", "/srv/shop2"))
}
