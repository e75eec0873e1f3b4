package config

import (
	"bytes"
	"fmt"
)

// word is a word of expressions, or a variable of steps, for the reference.
type word struct{ name, doc string }

var expressionWords = []word{
	{"event", "What started the run: `push`, `hook`, `schedule`, `manual`, `release`, `workflow_run`, `pipeline` or `rollback`."},
	{"branch", "The branch; empty for a tag and without a commit."},
	{"tag", "The tag; empty for a branch."},
	{"sha", "The commit."},
	{"ref", "`refs/heads/main`, `refs/tags/v1`."},
	{"before", "The commit that the ref was at before the push."},
	{"actor", "Who pushed, or gave the command."},
	{"repo", "The repository's identity, `github.com/acme/shop`."},
	{"message", "The message of the head commit."},
	{"payload.PATH", "The JSON that was sent: `payload.head_commit.author.name`, `payload.items[0]`."},
	{"inputs.NAME", "Inputs of a start by hand, as `on.manual.inputs` declares them; null in runs that something else started."},
	{"env.NAME", "Variables of the file, `env.NODE_ENV`; never the daemon's."},
	{"job", "The job's key; only in jobs and steps."},
	{"needs.JOB", "Jobs before this one: `needs.test.result` is `succeeded`, `failed`, `canceled` or `skipped`; a name with `-` is written `needs[\"my-job\"]`."},
	{"environment", "Empty in this version."},
	{"success()", "All jobs that this one needs, or steps before this one, succeeded. An `if` without one of these four has it before it."},
	{"failure()", "One of them failed, or one that these need."},
	{"canceled()", "One of them was canceled, or the run was; runs after a cancel too."},
	{"always()", "True, whatever came before, a cancel included."},
	{"changed(\"src/**\")", "A changed path matches the pattern."},
}

var stepVariables = []word{
	{"RUN_ID", "Number of the run."},
	{"PIPELINE", "Its pipeline."},
	{"JOB", "Key of the job."},
	{"STEP", "Name of the step."},
	{"HOST", "Name of the host, `local`."},
	{"EVENT", "What started the run."},
	{"SHA", "The commit."},
	{"BEFORE", "The commit that the ref was at before the push."},
	{"REF", "`refs/heads/main`."},
	{"BRANCH", "The branch; empty for a tag."},
	{"TAG", "The tag; empty for a branch."},
	{"REPO", "The repository's identity."},
	{"ACTOR", "Who pushed, or gave the command."},
	{"MESSAGE", "The message of the head commit, cut at 16 KiB."},
	{"WORKSPACE", "Directory with the files of the commit; of a deploy job the release."},
	{"RELEASE", "Id of the release that is made."},
	{"RELEASE_PATH", "Its directory."},
	{"PREVIOUS_RELEASE", "Id of the one that is live until then; empty at the first."},
	{"CURRENT_PATH", "The link to the live release."},
	{"SHARED_PATH", "What all releases share."},
	{"PAYLOAD_FILE", "File with the JSON that was sent; not set where none was."},
	{"ENVIRONMENT", "Empty in this version."},
	{"RUN_URL", "Address of the run; empty without `server.url`."},
}

// writeLanguage writes the sections about expressions and variables.
func writeLanguage(b *bytes.Buffer) {
	b.WriteString("\n## Expressions\n\n" + expressionsText + "\n| word | meaning |\n|---|---|\n")
	for _, w := range expressionWords {
		fmt.Fprintf(b, "| `%s` | %s |\n", w.name, cell(w.doc))
	}
	b.WriteString("\n## Variables of a step\n\n" + variablesText + "\n| variable | meaning |\n|---|---|\n")
	for _, w := range stepVariables {
		fmt.Fprintf(b, "| `DEPLOYHOOK_%s` | %s |\n", w.name, cell(w.doc))
	}
}

const expressionsText = `An ` + "`if`" + ` is a bare expression; in values of ` + "`env`" + ` one stands within ` + "`${{ }}`" + `. Operators are
` + "`== != < <= > >= in + - * / % ** and or not && || ! in ?: ??`" + ` and, between two texts,
` + "`contains` (also a member of a list), `startsWith`, `endsWith`, `matches`" + ` (a regular expression): ` + "`branch startsWith \"release/\"`" + `.
Functions besides those below are ` + "`len lower upper trim int float string`" + `.

- A path that is missing is null. Null, false, 0 and the empty text are false, all else is true; a
  comparison with null other than ` + "`==` and `!=`" + ` is false, and a function of null is null.
- An error in an ` + "`if`" + ` counts as false; the answer to the delivery, or the run, says which path and why:
  ` + "`payload.user is a string, not an object: there is no payload.user.name`" + `.
- Numbers keep their digits: 9007199254740993 stays what it is, and what neither an integer of 64 bits
  nor a floating-point number holds is text. Of two equal keys of an object the last counts.
- In ` + "`${{ }}`" + ` null is the empty text, and lists and objects are JSON. A value of more than 64 KiB, or
  with a NUL byte, fails the step. ` + "`+`" + ` makes texts of at most 1 MiB.
- An expression has at most 4 KiB and 500 parts, and takes at most 100 million steps of comparing and
  searching, about a second. Dividing by zero, and a result that is no number any more, are errors.
- Unknown names, unknown jobs in ` + "`needs`" + ` and GitHub's ` + "`contains(a, b)`" + ` are errors of the file.
`

const variablesText = `Steps get ` + "`PATH, HOME, LANG, USER, SHELL`" + ` and ` + "`TMPDIR`" + ` as the agent has them, ` + "`CI=true`" + `,
` + "`DEPLOYHOOK=true`" + `, those of ` + "`env`" + ` and ` + "`secrets`" + `, and these. Nothing else of the daemon's own
environment reaches them. What an outsider wrote, like the message, is data: quote it, ` + "`\"$DEPLOYHOOK_MESSAGE\"`" + `.
`
