package setup

import (
	"fmt"
	"strings"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
)

// sudoersFile is the line for the restart commands.
const sudoersFile = "/etc/sudoers.d/deployhook"

// sudoLines gives the commands that deploy jobs run through sudo, as sudoers
// has them, and those that no line can be made for.
func (m *Machine) sudoLines(f *config.File) (lines, unclear []string) {
	for _, u := range f.Deploy.Sudos() {
		if u.Agent != deploy.DeployAgent {
			continue // sudo refuses in test jobs
		}
		if line, ok := deploy.Sudoers(u.Command, m.find); ok {
			lines = append(lines, line)
		} else {
			unclear = append(unclear, u.Command)
		}
	}
	return lines, unclear
}

// sudoers is the file for commands.
func sudoers(commands []string) string {
	var b strings.Builder
	b.WriteString("# Written by deployhook init: what deploy jobs may do as root, and nothing else.\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "deploy ALL=(root) NOPASSWD: %s\n", c)
	}
	return b.String()
}
