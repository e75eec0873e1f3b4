package setup

import (
	"fmt"
	"strings"

	"deployhook/internal/config"
)

// sudoersFile is the line for the restart commands.
const sudoersFile = "/etc/sudoers.d/deployhook"

// restarts gives the commands that deploy jobs run through sudo, each with its
// program's whole path, and the sudo commands that no line can be made for.
func (m *Machine) restarts(f *config.File) (commands, unclear []string) {
	seen := map[string]bool{}
	for _, p := range f.Deploy.Pipelines {
		for _, j := range p.Jobs {
			list := []string{j.Restart}
			for _, s := range j.Steps {
				list = append(list, s.Run)
			}
			for _, c := range list {
				if !j.Deploys() && len(j.Secrets) == 0 || seen[c] || !strings.Contains(c, "sudo ") {
					continue
				}
				seen[c] = true
				if one, ok := m.sudoCommand(c); ok {
					commands = append(commands, one)
				} else {
					unclear = append(unclear, c)
				}
			}
		}
	}
	return commands, unclear
}

// sudoCommand reads "sudo [-n] PROGRAM ARGUMENTS". What a shell would change is
// left to a person: a line for it could allow more than is meant.
func (m *Machine) sudoCommand(c string) (string, bool) {
	c = strings.TrimSpace(c)
	if strings.ContainsAny(c, "\n\"'`$&|;<>(){}[]*?!~#\\") {
		return "", false
	}
	words := strings.Fields(c)
	if len(words) < 2 || words[0] != "sudo" {
		return "", false
	}
	words = words[1:]
	if words[0] == "-n" {
		words = words[1:]
	}
	if len(words) == 0 || strings.HasPrefix(words[0], "-") || strings.Contains(words[0], "=") {
		return "", false
	}
	if !strings.HasPrefix(words[0], "/") {
		if words[0] = m.find(words[0]); words[0] == "" {
			return "", false
		}
	}
	if len(words) == 1 {
		words = append(words, `""`) // without arguments, and not with any
	} else {
		for i, w := range words[1:] {
			words[i+1] = sudoersEscape.Replace(w)
		}
	}
	return strings.Join(words, " "), true
}

// Source: sudoers(5), "the following characters must be escaped".
var sudoersEscape = strings.NewReplacer(",", `\,`, ":", `\:`, "=", `\=`)

// sudoers is the file for commands.
func sudoers(commands []string) string {
	var b strings.Builder
	b.WriteString("# Written by deployhook init: what deploy jobs may do as root, and nothing else.\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "deploy ALL=(root) NOPASSWD: %s\n", c)
	}
	return b.String()
}
