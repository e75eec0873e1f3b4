package deploy

import (
	"path"
	"slices"
	"strings"
)

// SudoUse is a command that a job runs through sudo.
type SudoUse struct {
	Where   string // PIPELINE/JOB
	Agent   AgentKind
	Command string // it begins with sudo
}

// Sudos are the commands that jobs run through sudo on this machine, each once
// for a kind of agent, in the order written.
func (c *Config) Sudos() (uses []SudoUse) {
	for _, p := range c.Pipelines {
		for i := range p.Jobs {
			j := &p.Jobs[i]
			if !j.RunsOn(Local) {
				continue
			}
			scripts := []string{j.Restart}
			for _, s := range j.Steps {
				scripts = append(scripts, s.Run)
			}
			for _, script := range scripts {
				for _, command := range sudos(script) {
					u := SudoUse{Where: p.Name + "/" + j.Name, Agent: j.Agent(), Command: command}
					if !slices.ContainsFunc(uses, func(x SudoUse) bool { return x.Agent == u.Agent && x.Command == u.Command }) {
						uses = append(uses, u)
					}
				}
			}
		}
	}
	return uses
}

// sudos are the commands of a script that begin with sudo: those on a line of
// their own, or between && ; ||.
func sudos(script string) (list []string) {
	for line := range strings.Lines(strings.ReplaceAll(script, "\\\n", " ")) {
		for _, part := range strings.FieldsFunc(line, func(r rune) bool { return r == ';' || r == '&' || r == '|' }) {
			part = strings.TrimSpace(part)
			if strings.HasPrefix(part, "sudo ") {
				list = append(list, part)
			}
		}
	}
	return list
}

// SudoArgs takes a command that begins with sudo apart: the user that it asks
// for, as an option of sudo, and the words. It is not plain when the shell
// would change the words, or sudo is asked for more than that.
func SudoArgs(command string) (args []string, plain bool) {
	words, plain := words(strings.TrimPrefix(command, "sudo "))
	if !plain {
		return nil, false
	}
	for len(words) > 0 && strings.HasPrefix(words[0], "-") {
		switch o := words[0]; {
		case o == "-n", o == "--non-interactive", o == "-H":
			words = words[1:]
		case (o == "-u" || o == "-g") && len(words) > 1:
			args = append(args, o, words[1])
			words = words[2:]
		case o == "--":
			words = words[1:]
			return append(args, words...), len(words) > 0
		default:
			return nil, false
		}
	}
	if len(words) == 0 || strings.Contains(words[0], "=") { // a variable for the command
		return nil, false
	}
	return append(args, words...), true
}

// words splits as a shell does; plain is false where it would do more.
func words(line string) (list []string, plain bool) {
	var word strings.Builder
	var quote rune
	in := false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == '\'':
			word.WriteRune(r)
		case strings.ContainsRune("$`\\", r):
			return nil, false
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, in = r, true
		case strings.ContainsRune("<>(){}*?[~#!", r):
			return nil, false
		case r == ' ' || r == '\t':
			if in {
				list, in = append(list, word.String()), false
				word.Reset()
			}
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if in {
		list = append(list, word.String())
	}
	return list, quote == 0
}

// Sudoers is a command as the file sudoers has it, for root and with the
// program's whole path, which find gives (empty: it is not there). ok is false
// where such a line could allow more than the command: it is for a person to
// write then.
func Sudoers(command string, find func(program string) string) (line string, ok bool) {
	args, plain := SudoArgs(command)
	if !plain || strings.HasPrefix(args[0], "-") {
		return "", false
	}
	if !path.IsAbs(args[0]) {
		args[0] = find(args[0])
	}
	for i, a := range args {
		// sudo compares all words as one text: a blank in one makes them others.
		if a == "" || strings.ContainsAny(a, " \t\n*?[]!\"'") {
			return "", false
		}
		if i > 0 {
			args[i] = sudoersEscape.Replace(a)
		}
	}
	if len(args) == 1 {
		args = append(args, `""`) // without arguments, and not with any
	}
	return strings.Join(args, " "), true
}

// Source: sudoers(5), "the following characters must be escaped".
var sudoersEscape = strings.NewReplacer(`\`, `\\`, ",", `\,`, ":", `\:`, "=", `\=`)
