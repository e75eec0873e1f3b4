package setup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
)

// Places that init writes to.
const (
	configDir      = "/etc/deployhook"
	credentialsDir = configDir + "/credentials"
	listFile       = configDir + "/init.list" // what init has made, for init --remove
	unitDir        = "/etc/systemd/system"
	daemonDropIn   = unitDir + "/deployhook.service.d/50-init.conf"
	testDropIn     = unitDir + "/deployhook-test@.service.d/50-init.conf"
	ownBinary      = "/usr/local/bin/deployhook"
)

// Config is where deploy.yaml stands.
const Config = configDir + "/deploy.yaml"

// daemonUnits are what is enabled and started.
var daemonUnits = []string{"deployhook.socket", "deployhook-test.socket", "deployhook-agent.socket", "deployhook.service"}

// Options say what is to be set up.
type Options struct {
	Answers *Answers // for a first deploy.yaml; not used when there is one
	Admin   string   // user who may use the command line; empty: root alone
}

// Plan is what init does, in its order.
type Plan struct {
	Actions []Action
	Notes   []string // what a person should know or do
	Kept    bool     // deploy.yaml was there already
	Lacks   error    // what must be there before it can be carried out; nil: nothing
	f       *config.File
	m       *Machine
}

// Plan finds out what is to be done. Nothing is changed. [ErrNoRepository]
// means that answers are missing.
func (m *Machine) Plan(ctx context.Context, o Options) (*Plan, error) {
	p := &Plan{m: m}
	text, err := m.read(Config)
	switch {
	case err == nil:
		p.Kept = true
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case o.Answers == nil:
		return nil, ErrNoRepository
	default:
		if text, err = o.Answers.YAML(); err != nil {
			return nil, err
		}
	}
	if p.f, err = config.Parse(Config, []byte(text)); err != nil {
		return nil, fmt.Errorf("%s is not good yet, and nothing was changed:\n%w", Config, err)
	}
	p.add(m.dir(configDir, 0o755), m.listing())
	installs := m.installs()
	for i := range installs {
		installs[i].again = true
	}
	p.add(installs...)
	p.add(m.users()...)
	p.admin(o.Admin)
	p.add(m.dir(credentialsDir, 0o700))
	p.credentials()
	p.releases()
	p.add(m.once(Config, 0o644, func() ([]byte, error) { return []byte(text), nil }))
	if !p.Kept {
		p.Actions[len(p.Actions)-1].Shown = lines(text)
	}
	p.sudo()
	p.start(ctx)
	return p, nil
}

func (p *Plan) add(list ...Action) { p.Actions = append(p.Actions, list...) }

func (p *Plan) note(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

// Todo says how much of the plan is still to be done.
func (p *Plan) Todo() int {
	n := 0
	for _, a := range p.Actions {
		if !a.Done {
			n++
		}
	}
	return n
}

// installs puts the program and the units where a package would have put them.
func (m *Machine) installs() []Action {
	var list []Action
	binary := m.Binary
	if binary != "/usr/bin/deployhook" && binary != ownBinary {
		text := "program    " + ownBinary + " (a copy of this one)"
		a := Action{Text: text, makes: ownBinary, do: func(context.Context) error {
			b, err := os.ReadFile(m.Binary)
			if err != nil {
				return err
			}
			return m.write(ownBinary, b, 0o755)
		}}
		if have, err := os.ReadFile(m.at(ownBinary)); err == nil {
			mine, err := os.ReadFile(m.Binary)
			a.Done = err == nil && string(have) == string(mine)
		}
		list, binary = append(list, a), ownBinary
	}
	names, _ := fs.Glob(m.Units, "*.*")
	for _, name := range names {
		b, err := fs.ReadFile(m.Units, name)
		if err != nil {
			continue // Glob has just found it
		}
		switch path.Ext(name) {
		case ".service", ".socket":
			if m.packaged("systemd/system/" + name) {
				continue
			}
			list = append(list, m.file(path.Join(unitDir, name), strings.ReplaceAll(string(b), ownBinary, binary), 0o644))
		case ".sysusers":
			if !m.packaged("sysusers.d/deployhook.conf") {
				list = append(list, m.file("/etc/sysusers.d/deployhook.conf", string(b), 0o644))
			}
		}
	}
	return list
}

// packaged says whether a package, or make install, has brought a file.
func (m *Machine) packaged(name string) bool {
	return m.has("/usr/lib/"+name) || m.has("/lib/"+name) || m.has("/usr/local/lib/"+name)
}

// userNames are who deployhook runs as, and who may use it.
var userNames = []string{"deployhook", "deployhook-test", "deploy"}

const adminGroup = "deployhook-admin"

func (m *Machine) users() []Action {
	a := m.command("systemd-sysusers", "deployhook.conf")
	a.Text += "   (users " + strings.Join(userNames, ", ") + ", group " + adminGroup + ")"
	a.Done = m.inGroup("deployhook", adminGroup)
	for _, u := range userNames {
		a.Done = a.Done && m.inFile("/etc/passwd", u)
	}
	return []Action{a}
}

// inFile says whether a name begins a line of passwd or group.
func (m *Machine) inFile(file, name string) bool { return m.lineOf(file, name) != "" }

func (m *Machine) lineOf(file, name string) string {
	text, _ := m.read(file)
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, name+":") {
			return strings.TrimSpace(l)
		}
	}
	return ""
}

func (m *Machine) inGroup(user, group string) bool {
	f := strings.Split(m.lineOf("/etc/group", group), ":")
	return len(f) == 4 && slices.Contains(strings.Split(f[3], ","), user)
}

func (p *Plan) admin(user string) {
	if user == "" || user == "root" {
		return
	}
	a := p.m.command("usermod", "-aG", adminGroup, user)
	if a.Done = p.m.inGroup(user, adminGroup); !a.Done {
		p.note("%s may use the command line from the next login on; until then with sudo.", user)
	}
	p.add(a)
}

// credentials makes the secrets that the config names and that can be made
// here, and has systemd hand all that are there to the daemon.
func (p *Plan) credentials() {
	random, keys, all := map[string]bool{}, map[string]bool{}, map[string]bool{}
	in := func(set map[string]bool, s *deploy.Secret) {
		if s != nil && s.Credential != "" {
			set[s.Credential], all[s.Credential] = true, true
		}
	}
	for _, h := range p.f.Deploy.Hooks {
		for _, s := range slices.Concat(h.Secrets, h.Tokens) {
			in(random, &s)
		}
	}
	for _, pl := range p.f.Deploy.Pipelines {
		in(keys, pl.Auth.SSHKey)
		in(all, pl.Auth.Token)
		for _, j := range pl.Jobs {
			for _, v := range j.Secrets {
				in(all, &v.Secret)
			}
		}
	}
	for _, pair := range []deploy.Secret{p.f.Server.TLS.Certificate, p.f.Server.TLS.Key} {
		if pair.Credential != "" {
			all[pair.Credential] = true
		}
	}
	var load strings.Builder
	load.WriteString("# Written by deployhook init: secrets that root keeps and the daemon gets a copy of.\n[Service]\n")
	for _, name := range sorted(all) {
		file := config.CredentialFile(Config, name)
		switch {
		case random[name]:
			p.addSecret(file, "64 random hex characters", randomSecret)
		case keys[name]:
			p.addSecret(file, "a new SSH key, ed25519", deployKey)
		case !p.m.has(file):
			p.note("the credential %s is not there: sudo install -m 0600 /dev/stdin %s, then deployhook init again", name, file)
			continue
		}
		fmt.Fprintf(&load, "LoadCredential=%s:%s\n", name, file)
	}
	a := p.m.file(daemonDropIn, load.String(), 0o644)
	a.again = true // credentials are copied at its start
	p.add(a)
}

func (p *Plan) addSecret(file, what string, text func() ([]byte, error)) {
	a := p.m.once(file, 0o600, text)
	a.Text += ": " + what
	p.add(a)
}

func sorted(set map[string]bool) []string {
	var list []string
	for name := range set {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// hidden are the paths that test jobs do not see by the unit itself.
var hidden = []string{"/srv", "/var/www"}

// releases makes the paths of deploy jobs, which belong to their user, and
// hides them from test jobs.
func (p *Plan) releases() {
	paths := map[string]bool{}
	for _, pl := range p.f.Deploy.Pipelines {
		for _, j := range pl.Jobs {
			if j.Deploys() {
				paths[j.Release.Path] = true
			}
		}
	}
	var hide strings.Builder
	for _, dir := range sorted(paths) {
		a := p.m.command("install", "-d", "-o", "deploy", "-g", "deploy", dir)
		st, err := os.Stat(p.m.at(dir))
		if a.Done = err == nil; !a.Done {
			a.makes = dir
		} else if owner, ok := st.Sys().(*syscall.Stat_t); ok && p.m.Root == "" && !p.m.owns("deploy", owner.Uid) {
			p.note("%s is not the user deploy's: if only deployhook deploys there, sudo chown deploy:deploy %s", dir, dir)
		}
		p.add(a)
		if !slices.ContainsFunc(hidden, func(h string) bool { return strings.HasPrefix(dir, h+"/") }) {
			fmt.Fprintf(&hide, "InaccessiblePaths=-%s\n", dir)
		}
	}
	if hide.Len() > 0 {
		p.add(p.m.file(testDropIn, "# Written by deployhook init: what test jobs do not see.\n[Service]\n"+hide.String(), 0o644))
	}
}

// owns says whether a user has a number.
func (m *Machine) owns(user string, uid uint32) bool {
	f := strings.Split(m.lineOf("/etc/passwd", user), ":")
	return len(f) > 2 && f[2] == fmt.Sprint(uid)
}

// sudo writes the line for the restart commands, when visudo takes it.
func (p *Plan) sudo() {
	commands, unclear := p.m.sudoLines(p.f)
	for _, c := range unclear {
		p.note("no sudo line was made for %q: it is no plain command of a program that is here. Write it yourself: sudo visudo -f /etc/sudoers.d/deployhook-more", c)
	}
	if len(commands) == 0 {
		return
	}
	visudo := p.m.find("visudo")
	if visudo == "" {
		p.Lacks = errors.New("restart uses sudo, and it is not installed: apt install sudo")
	}
	text := sudoers(commands)
	a := p.m.file(sudoersFile, text, 0o440)
	a.Text += ", checked by visudo -c"
	a.do = func(ctx context.Context) error {
		// Not in sudoers.d: a bad file there would end sudo for everybody.
		trial := configDir + "/sudoers.new"
		if err := p.m.write(trial, []byte(text), 0o440); err != nil {
			return err
		}
		defer os.Remove(p.m.at(trial))
		if _, err := p.m.Run(ctx, visudo, "-c", "-q", "-f", p.m.at(trial)); err != nil {
			return fmt.Errorf("the line for sudo is not good, and was not written: %w", err)
		}
		return p.m.write(sudoersFile, []byte(text), 0o440)
	}
	p.add(a)
}

// start enables the units and starts what is to run.
func (p *Plan) start(ctx context.Context) {
	changed := p.Todo() > 0
	again := slices.ContainsFunc(p.Actions, func(a Action) bool { return a.again && !a.Done })
	reload := p.m.command("systemctl", "daemon-reload")
	reload.Done = !changed
	enable := p.m.command("systemctl", append([]string{"enable", "--now"}, daemonUnits...)...)
	running := false
	if p.m.HasSystemd() {
		_, err := p.m.Run(ctx, "systemctl", "is-active", "--quiet", "deployhook.service")
		running = err == nil
		_, err = p.m.Run(ctx, "systemctl", append([]string{"is-enabled", "--quiet"}, daemonUnits...)...)
		enable.Done = running && err == nil
	}
	p.add(reload, enable)
	if running && again {
		p.add(p.m.command("systemctl", "restart", "deployhook.service"))
	}
}

// Do carries the plan out and calls say before each action that is to be done.
// What it makes is listed first, so that it can be taken back also when it
// ends in the middle.
func (p *Plan) Do(ctx context.Context, say func(Action)) error {
	if p.Lacks != nil {
		return p.Lacks
	}
	for _, a := range p.Actions {
		if a.Done {
			continue
		}
		say(a)
		if err := a.do(ctx); err != nil {
			return err
		}
		if a.makes != "" {
			if err := p.m.list(a.makes); err != nil {
				return err
			}
		}
	}
	return nil
}

// listing is the file with what init has made. It goes last, by itself.
func (m *Machine) listing() Action {
	return Action{
		Text: fmt.Sprintf("file       %s (0600, root): what init has made, for init --remove", listFile), Done: m.has(listFile),
		do: func(context.Context) error {
			if m.has(listFile) { // what was made before it
				return nil
			}
			return m.write(listFile, []byte(listHead), 0o600)
		},
	}
}

const listHead = "# What deployhook init has made, for deployhook init --remove.\n"

// list notes what init has made: its path and, of a file, its digest.
func (m *Machine) list(path string) error {
	made, err := m.listed()
	if err != nil {
		return err
	}
	digest := m.digest(path)
	if made[path] == digest {
		return nil
	}
	made[path] = digest
	var b strings.Builder
	b.WriteString(listHead)
	for _, p := range sortedKeys(made) {
		fmt.Fprintf(&b, "%s %s\n", made[p], p)
	}
	return m.write(listFile, []byte(b.String()), 0o600)
}

// listed reads what init has made: path -> digest.
func (m *Machine) listed() (map[string]string, error) {
	made := map[string]string{}
	text, err := m.read(listFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for l := range strings.Lines(text) {
		digest, path, ok := strings.Cut(strings.TrimSuffix(l, "\n"), " ")
		if ok && strings.HasPrefix(path, "/") {
			made[path] = digest
		}
	}
	return made, nil
}

// directory stands for a digest where there is no content.
const directory = "directory"

// digest of a file's content; empty when it is not there.
func (m *Machine) digest(path string) string {
	st, err := os.Lstat(m.at(path))
	if err != nil {
		return ""
	}
	if st.IsDir() {
		return directory
	}
	b, err := os.ReadFile(m.at(path))
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func sortedKeys(m map[string]string) []string {
	set := map[string]bool{}
	for k := range m {
		set[k] = true
	}
	return sorted(set)
}
