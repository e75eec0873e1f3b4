package doctor

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"deployhook/internal/deploy"
)

// checkSudo looks whether what jobs do through sudo is allowed to their user,
// without a password, which nobody is there to type.
func (e *exam) checkSudo(ctx context.Context) (found []Check) {
	if e.file == nil {
		return e.needsConfig()
	}
	type use struct {
		user, command, where string
		kind                 deploy.AgentKind
	}
	var uses []use
	for _, p := range e.file.Deploy.Pipelines {
		for i := range p.Jobs {
			j := &p.Jobs[i]
			commands := []string{j.Restart}
			for _, s := range j.Steps {
				commands = append(commands, s.Run)
			}
			for _, c := range commands {
				for _, line := range sudos(c) {
					u := use{kind: j.Agent(), user: e.userOf(j.Agent()), command: line, where: p.Name + "/" + j.Name}
					if !slices.ContainsFunc(uses, func(x use) bool { return x.user == u.user && x.command == u.command }) {
						uses = append(uses, u)
					}
				}
			}
		}
	}
	if len(uses) == 0 {
		return ok("no job uses sudo")
	}
	if out, code, err := e.Command(ctx, "visudo", "-c"); err == nil && code != 0 && e.root() {
		// Where sudo itself refuses for it, that is said with the command.
		found = append(found, warn("visudo finds fault with the sudoers files: "+fault(out), "sudo visudo -c")...)
	}
	for _, u := range uses {
		switch {
		case e.installed() && e.file.Server.Agent.Sockets()[u.kind] == "" && e.units()["deployhook.service"].keys["NoNewPrivileges"] == "yes":
			found = append(found, fail(u.where+": "+u.command+": sudo refuses within the daemon's own unit (NoNewPrivileges)",
				"put into deploy.yaml: server: { agent: { deploy: /run/deployhook-agents/deploy.sock } }")...)
		case e.installed() && u.kind == deploy.TestAgent && e.units()["deployhook-test@.service"].keys["NoNewPrivileges"] == "yes":
			found = append(found, fail(u.where+": "+u.command+": sudo refuses in test jobs", "let a deploy job do it, in restart")...)
		case !e.root():
			found = append(found, warn(u.where+": "+u.command+": what sudo allows to others this user may not ask", asRoot)...)
		default:
			found = append(found, e.allowed(ctx, u.user, u.command, u.where)...)
		}
	}
	return unlessAny(found, "%s allowed without a password", counted(len(uses), "command"))
}

// fault is the first line of visudo about a file that is not good.
func fault(out string) string {
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasSuffix(line, "parsed OK") {
			return line
		}
	}
	return "it does not say which"
}

// allowed asks sudo whether a user may run a command without a password.
func (e *exam) allowed(ctx context.Context, user, line, where string) []Check {
	args, plain := sudoArgs(line)
	if !plain {
		return warn(where+": "+line+": the shell makes the command, so it cannot be asked for", "sudo -l -U "+user)
	}
	pipeline, _, _ := strings.Cut(where, "/")
	// sudo takes no file with a dot in its name, and no pipeline has one.
	fix := fmt.Sprintf("echo '%s ALL=(root) NOPASSWD: %s' | sudo install -m 0440 /dev/stdin /etc/sudoers.d/deployhook-%s\nsudo visudo -c",
		user, e.whole(args), pipeline)
	full, code, err := e.Command(ctx, "sudo", append([]string{"-n", "-l", "-U", user}, args...)...)
	if err != nil {
		return fail(where+": "+line+": sudo is not installed", "sudo apt-get install sudo")
	}
	if code != 0 {
		return fail(where+": "+line+": sudo does not allow it to "+user, fix)
	}
	list, _, err := e.Command(ctx, "sudo", "-n", "-l", "-U", user)
	if err == nil && !withoutPassword(list, strings.TrimSpace(full)) {
		return fail(where+": "+line+": sudo asks "+user+" for a password, which nobody is there to type", fix)
	}
	return nil
}

// whole is a command as sudoers has it, with the program's path.
func (e *exam) whole(args []string) string {
	args = slices.Clone(args)
	for len(args) > 2 && strings.HasPrefix(args[0], "-") {
		args = args[2:]
	}
	if !path.IsAbs(args[0]) {
		for _, dir := range []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin"} {
			if e.exists(path.Join(dir, args[0])) {
				args[0] = path.Join(dir, args[0])
				break
			}
		}
	}
	for i := 1; i < len(args); i++ {
		args[i] = sudoersEscape.Replace(args[i])
	}
	return strings.Join(args, " ")
}

// Source: sudoers(5), "the following characters must be escaped".
var sudoersEscape = strings.NewReplacer(`\`, `\\`, ",", `\,`, ":", `\:`, "=", `\=`)

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

// sudoArgs takes a command that begins with sudo apart: the user that it asks
// for, as an option of sudo, and the words. It is not plain when the shell
// would change the words, or sudo is asked for more than that.
func sudoArgs(line string) (args []string, plain bool) {
	words, plain := words(strings.TrimPrefix(line, "sudo "))
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

// withoutPassword reads what sudo -l lists, and says whether the command is
// among what needs no password. sudo -l with the command says only that it is
// allowed.
func withoutPassword(list, command string) bool {
	if strings.Contains(list, "!authenticate") {
		return true
	}
	// A long list goes on in further lines, which are indented more.
	found := false
	entry := ""
	look := func() {
		_, rest, ok := strings.Cut(entry, ") ")
		if ok && strings.HasPrefix(entry, "(") {
			found = openTo(rest, command) || found
		}
		entry = ""
	}
	for line := range strings.Lines(list) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "(") || !strings.HasPrefix(entry, "(") {
			look()
			entry = line
		} else {
			entry += " " + line
		}
	}
	look()
	return found
}

// tags are what may stand before a command in a list of sudo.
var tags = []string{"PASSWD", "NOPASSWD", "NOEXEC", "EXEC", "SETENV", "NOSETENV", "LOG_INPUT", "NOLOG_INPUT", "LOG_OUTPUT", "NOLOG_OUTPUT", "MAIL", "NOMAIL", "FOLLOW", "NOFOLLOW", "INTERCEPT", "NOINTERCEPT"}

// openTo says whether one entry allows a command without a password; a tag
// holds for what follows it.
func openTo(entry, command string) bool {
	open := false
	for one := range strings.SplitSeq(entry, ", ") {
		for {
			tag, rest, ok := strings.Cut(one, ": ")
			if !ok || !slices.Contains(tags, tag) {
				break
			}
			switch tag {
			case "NOPASSWD":
				open = true
			case "PASSWD":
				open = false
			}
			one = rest
		}
		if open && covers(strings.TrimSpace(one), command) {
			return true
		}
	}
	return false
}

// covers says whether a command of sudoers covers one that is run. sudo itself
// has said that it is allowed by one of them.
func covers(rule, command string) bool {
	rule = strings.ReplaceAll(rule, `\`, "")
	switch {
	case rule == "ALL" || rule == command || strings.ContainsAny(rule, "*?[^"):
		return true
	case strings.HasSuffix(rule, "/"):
		return strings.HasPrefix(command, rule)
	}
	// Without arguments it stands for any; "" for none.
	program, _, _ := strings.Cut(command, " ")
	return rule == program || rule == command+` ""`
}
