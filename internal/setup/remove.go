package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Removal is what init --remove does and what it leaves.
type Removal struct {
	Actions []Action
	Leaves  []string // sentences
	m       *Machine
}

// Removal finds out what init has made and can be taken back. Nothing is
// changed.
func (m *Machine) Removal() (*Removal, error) {
	made, err := m.listed()
	if err != nil {
		return nil, err
	}
	if len(made) == 0 {
		return nil, errors.New("nothing is to be removed: init has made nothing here")
	}
	r := &Removal{m: m}
	if m.HasSystemd() {
		// Also the agents that run now: their units go.
		r.Actions = append(r.Actions, m.command("systemctl", append([]string{"disable", "--now"}, daemonUnits...)...),
			m.command("systemctl", "stop", "deployhook-test@*.service", "deployhook-agent@*.service"))
	}
	paths := sortedKeys(made)
	slices.Reverse(paths) // what is in a directory before the directory
	for _, path := range paths {
		switch now := m.digest(path); {
		case now == "":
		case made[path] == directory:
			r.Actions = append(r.Actions, r.rmdir(path))
		case now != made[path]:
			r.Leaves = append(r.Leaves, path+": it was changed after init made it")
		default:
			r.Actions = append(r.Actions, Action{Text: "remove     " + path, do: func(context.Context) error { return os.Remove(m.at(path)) }})
			if dir := filepath.Dir(path); strings.HasSuffix(dir, ".d") && made[dir] == "" && dir != "/etc/sudoers.d" && dir != "/etc/sysusers.d" {
				r.Actions = append(r.Actions, r.rmdir(dir))
			}
		}
	}
	r.Actions = append(r.Actions, Action{Text: "remove     " + listFile, do: func(context.Context) error { return os.Remove(m.at(listFile)) }})
	if made[configDir] == directory {
		// It could not go before its list.
		r.Actions = slices.DeleteFunc(r.Actions, func(a Action) bool { return a.Text == "remove     "+configDir+" (if it is empty)" })
		r.Actions = append(r.Actions, r.rmdir(configDir))
	}
	if m.HasSystemd() {
		r.Actions = append(r.Actions, m.command("systemctl", "daemon-reload"))
	}
	for _, dir := range []string{"/var/lib/deployhook", "/var/lib/deployhook-test", "/var/lib/deployhook-agent"} {
		if m.has(dir) {
			r.Leaves = append(r.Leaves, dir+": data; sudo rm -r "+dir+" removes it")
		}
	}
	var users []string
	for _, u := range userNames {
		if m.inFile("/etc/passwd", u) {
			users = append(users, u)
		}
	}
	if len(users) > 0 {
		r.Leaves = append(r.Leaves, "users "+strings.Join(users, ", ")+" and group "+adminGroup+": releases and data are theirs")
	}
	return r, nil
}

// rmdir removes a directory when nothing is in it.
func (r *Removal) rmdir(path string) Action {
	return Action{Text: "remove     " + path + " (if it is empty)", do: func(context.Context) error {
		err := os.Remove(r.m.at(path))
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		r.Leaves = append(r.Leaves, fmt.Sprintf("%s: it is not empty", path))
		return nil
	}}
}

// Do carries the removal out. An action that fails does not keep the others.
func (r *Removal) Do(ctx context.Context, say func(Action)) error {
	var errs []error
	for _, a := range r.Actions {
		say(a)
		errs = append(errs, a.do(ctx))
	}
	return errors.Join(errs...)
}
