// Package doctor looks at an installation: config, secrets, users, units,
// agents, repositories, the way that GitHub takes. It changes nothing, and for
// everything that is not right it says what to type.
package doctor

import (
	"context"
	"crypto/x509"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
	"deployhook/internal/web"
)

// State is what a check came to.
type State string

// The states of a check.
const (
	OK      State = "ok"
	Warning State = "warning" // it works, or could not be looked at from here
	Failure State = "failure" // something does not work, or lets somebody in
)

// Check is one line of what doctor says.
type Check struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	Text  string `json:"text"`
	Fix   string `json:"fix"` // what to type, one command a line; may be empty
}

// Options say what is looked at, and from where.
type Options struct {
	Config  string      // path of deploy.yaml
	Client  *web.Client // of its daemon
	Version string      // of this program
	UID     int         // of this process: root sees more

	// Root stands before every path of the machine; empty but in tests.
	Root string
	// Command runs a program and gives what it printed and its exit code; the
	// error is that it could not be run. nil: really.
	Command func(ctx context.Context, name string, args ...string) (out string, code int, err error)
	// GitHub is where its API is; empty: api.github.com.
	GitHub string

	roots *x509.CertPool                        // nil: the machine's
	owner func(fs.FileInfo) (uid, gid int)      // nil: really
	now   func() time.Time                      // nil: really
	clock func() (synchronized bool, err error) // nil: the kernel's
}

// exam is one look at a machine.
type exam struct {
	Options
	file    *config.File // nil: it cannot be read, or is wrong
	fileErr error
	daemon  func() (deploy.DaemonReport, error)
	agents  func() ([]deploy.AgentReport, error)
	units   func() map[string]unit

	mu    sync.Mutex
	users map[string]*user
}

// Bounds of a look.
const (
	checkTime  = 30 * time.Second // of one check
	askTime    = 10 * time.Second // of one question to a server
	daemonTime = 5 * time.Second
	agentsTime = 25 * time.Second
)

// all are the checks, in the order in which they are said.
var all = []struct {
	name string
	look func(*exam, context.Context) []Check
}{
	{"config", (*exam).checkConfig},
	{"secrets", (*exam).checkSecrets},
	{"modes", (*exam).checkModes},
	{"users", (*exam).checkUsers},
	{"units", (*exam).checkUnits},
	{"daemon", (*exam).checkDaemon},
	{"sockets", (*exam).checkSockets},
	{"agents", (*exam).checkAgents},
	{"hosts", (*exam).checkHosts},
	{"sudo", (*exam).checkSudo},
	{"repository", (*exam).checkRepositories},
	{"release", (*exam).checkReleases},
	{"data", (*exam).checkData},
	{"memory", (*exam).checkMemory},
	{"clock", (*exam).checkClock},
	{"port", (*exam).checkPort},
	{"url", (*exam).checkURL},
	{"github", (*exam).checkGitHub},
	{"proxy", (*exam).checkProxy},
	{"notify", (*exam).checkNotify},
}

// Names are the names of all checks, in their order.
func Names() []string {
	var names []string
	for _, c := range all {
		names = append(names, c.name)
	}
	return names
}

// Run looks at everything, side by side, and says what it found: one check or
// more of each name, in the order of [Names]. It returns within a minute.
func Run(ctx context.Context, o Options) []Check {
	e := newExam(ctx, o)
	found := make([][]Check, len(all))
	var looks sync.WaitGroup
	for i, c := range all {
		looks.Go(func() { found[i] = e.within(ctx, c.name, c.look) })
	}
	looks.Wait()
	return inOrder(found)
}

// inOrder puts what was found together, under the names of the checks. What
// one found of another's matter, as the clock, counts there, and once.
func inOrder(found [][]Check) (list []Check) {
	byName := map[string][]Check{}
	elsewhere := map[string]Check{}
	for i, checks := range found {
		for _, c := range checks {
			c.Text, c.Fix = oneLine(c.Text), strings.TrimSpace(c.Fix)
			if c.Name == "" || c.Name == all[i].name {
				c.Name = all[i].name
				byName[c.Name] = append(byName[c.Name], c)
			} else if _, said := elsewhere[c.Name]; !said {
				elsewhere[c.Name] = c
			}
		}
	}
	for _, c := range all {
		if other, is := elsewhere[c.name]; is {
			byName[c.name] = append(slices.DeleteFunc(byName[c.name], func(c Check) bool { return c.State == OK }), other)
		}
		list = append(list, byName[c.name]...)
	}
	return list
}

func newExam(ctx context.Context, o Options) *exam {
	e := &exam{Options: o, users: map[string]*user{}}
	if e.Command == nil {
		e.Command = command
	}
	if e.GitHub == "" {
		e.GitHub = "https://api.github.com"
	}
	if e.owner == nil {
		e.owner = ownerOf
	}
	if e.now == nil {
		e.now = time.Now
	}
	if e.clock == nil {
		e.clock = kernelClock
	}
	if abs, err := filepath.Abs(o.Config); err == nil {
		e.Config = abs // it stands in commands, which are typed elsewhere
	}
	e.file, e.fileErr = config.Load(e.Config, nil)
	if e.fileErr != nil {
		e.file = nil
	}
	e.daemon = sync.OnceValues(func() (deploy.DaemonReport, error) {
		ctx, cancel := context.WithTimeout(ctx, daemonTime)
		defer cancel()
		return o.Client.Daemon(ctx)
	})
	e.agents = sync.OnceValues(func() ([]deploy.AgentReport, error) {
		if _, err := e.daemon(); err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, agentsTime)
		defer cancel()
		return o.Client.Agents(ctx)
	})
	e.units = sync.OnceValue(func() map[string]unit { return e.readUnits(ctx) })
	return e
}

// within gives a check its time: a disk or a server that hangs must not keep
// the rest from being said.
func (e *exam) within(ctx context.Context, name string, look func(*exam, context.Context) []Check) []Check {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	found := make(chan []Check, 1)
	go func() { found <- look(e, ctx) }()
	select {
	case checks := <-found:
		return checks
	case <-ctx.Done():
	}
	select {
	case checks := <-found:
		return checks
	case <-time.After(time.Second): // one that minds its context says more
	}
	return warn(fmt.Sprintf("not decided within %v: a disk or a server that it needs hangs", checkTime), "")
}

// root says whether this process may see everything.
func (e *exam) root() bool { return e.UID == 0 }

// asRoot is the fix for what only root can see.
const asRoot = "sudo deployhook doctor"

func ok(format string, args ...any) []Check {
	return []Check{{State: OK, Text: fmt.Sprintf(format, args...)}}
}

func warn(text, fix string) []Check { return []Check{{State: Warning, Text: text, Fix: fix}} }

func fail(text, fix string) []Check { return []Check{{State: Failure, Text: text, Fix: fix}} }

// unlessAny is what is said when nothing else was.
func unlessAny(found []Check, format string, args ...any) []Check {
	if len(found) > 0 {
		return found
	}
	return ok(format, args...)
}

// needsConfig is said by a check that needs a good config.
func (e *exam) needsConfig() []Check {
	return warn("not looked at: deploy.yaml cannot be used yet", "")
}

// oneLine takes out what would move a cursor or break the line: some of it
// was said by servers.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029:
			return '?'
		}
		return r
	}, strings.TrimSpace(s))
}

func ownerOf(st fs.FileInfo) (uid, gid int) {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return int(sys.Uid), int(sys.Gid)
	}
	return -1, -1
}
