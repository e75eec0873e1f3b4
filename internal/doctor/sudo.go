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
	uses := e.file.Deploy.Sudos()
	if len(uses) == 0 {
		return ok("no job uses sudo")
	}
	if out, code, err := e.Command(ctx, "visudo", "-c"); err == nil && code != 0 && e.root() {
		// Where sudo itself refuses for it, that is said with the command.
		found = append(found, warn("visudo finds fault with the sudoers files: "+fault(out), "sudo visudo -c")...)
	}
	for _, u := range uses {
		what := u.Where + ": " + u.Command
		switch {
		case e.installed() && e.file.Server.Agent.Sockets()[u.Agent] == "" && e.units()["deployhook.service"].keys["NoNewPrivileges"] == "yes":
			found = append(found, fail(what+": sudo refuses within the daemon's own unit (NoNewPrivileges)",
				"put into deploy.yaml: server: { agent: { deploy: /run/deployhook-agents/deploy.sock } }")...)
		case e.installed() && u.Agent == deploy.TestAgent && e.units()["deployhook-test@.service"].keys["NoNewPrivileges"] == "yes":
			found = append(found, fail(what+": sudo refuses in test jobs", "let a deploy job do it, in restart")...)
		case !e.root():
			found = append(found, warn(what+": what sudo allows to others this user may not ask", asRoot)...)
		default:
			found = append(found, e.allowed(ctx, u)...)
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

// allowed asks sudo whether a job's user may run a command without a password.
func (e *exam) allowed(ctx context.Context, u deploy.SudoUse) []Check {
	user, what := e.userOf(u.Agent), u.Where+": "+u.Command
	args, plain := deploy.SudoArgs(u.Command)
	if !plain {
		return warn(what+": the shell makes the command, so it cannot be asked for", "sudo -l -U "+user)
	}
	full, code, err := e.Command(ctx, "sudo", append([]string{"-n", "-l", "-U", user}, args...)...)
	if err != nil {
		return fail(what+": sudo is not installed", "sudo apt-get install sudo")
	}
	if code != 0 {
		return fail(what+": sudo does not allow it to "+user, e.allowIt(u, user))
	}
	list, _, err := e.Command(ctx, "sudo", "-n", "-l", "-U", user)
	if err == nil && !withoutPassword(list, strings.TrimSpace(full)) {
		return fail(what+": sudo asks "+user+" for a password, which nobody is there to type", e.allowIt(u, user))
	}
	return nil
}

// allowIt is how a command is allowed to a user.
func (e *exam) allowIt(u deploy.SudoUse, user string) string {
	pipeline, _, _ := strings.Cut(u.Where, "/")
	// sudo takes no file with a dot in its name, and no pipeline has one.
	file := "/etc/sudoers.d/deployhook-" + pipeline
	line, ok := deploy.Sudoers(u.Command, e.program)
	if !ok {
		return "sudo visudo -f " + file
	}
	return fmt.Sprintf("echo '%s ALL=(root) NOPASSWD: %s' | sudo install -m 0440 /dev/stdin %s\nsudo visudo -c", user, line, file)
}

// program is the whole path of a program of the system; empty: it is not there.
func (e *exam) program(name string) string {
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin"} {
		if e.exists(path.Join(dir, name)) {
			return path.Join(dir, name)
		}
	}
	return ""
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
