package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
)

// Server is the section server with variables, flags and defaults.
type Server struct {
	Listen        string
	Socket        string
	Agent         Agents
	URL           string
	Data          string
	Workers       int
	LogLevel      string
	LogFormat     string
	BodyMemory    int64 // bytes
	ShutdownGrace time.Duration
	TLS           TLS
	// TrustedProxies are whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix
}

// Agents says how each kind of agent on this machine is reached: spawn, or the
// path of a local socket.
type Agents struct {
	Test, Deploy string
}

// spawn is an agent that is a child process of the daemon.
const spawn = "spawn"

func (a Agents) of(kind deploy.AgentKind) string {
	if kind == deploy.DeployAgent {
		return a.Deploy
	}
	return a.Test
}

// Sockets are the local sockets of those kinds that have one.
func (a Agents) Sockets() map[deploy.AgentKind]string {
	sockets := map[deploy.AgentKind]string{}
	for _, kind := range deploy.AgentKinds {
		if way := a.of(kind); way != spawn {
			sockets[kind] = way
		}
	}
	return sockets
}

// serverKeys are the keys of the section server, without the section's name,
// also those whose part comes later.
func serverKeys() []key {
	var list []key
	for _, k := range table {
		name, ok := strings.CutPrefix(k.path, "server.")
		if ok && (k.kind != section || k.later) {
			k.path = name
			list = append(list, k)
		}
	}
	return list
}

func variableOf(name string) string {
	return "DEPLOYHOOK_SERVER_" + strings.ToUpper(strings.ReplaceAll(name, ".", "_"))
}

func flagOf(name string) string {
	return "server-" + strings.NewReplacer(".", "-", "_", "-").Replace(name)
}

// RegisterFlags adds --server-… for every key of the section server.
func RegisterFlags(flags *pflag.FlagSet) {
	for _, k := range serverKeys() {
		if k.later { // it is refused by name, not as a flag that nobody knows
			flags.String(flagOf(k.path), "", "")
			_ = flags.MarkHidden(flagOf(k.path)) // it is there
			continue
		}
		doc := strings.ReplaceAll(k.doc, "`", "")
		if k.def != "" {
			doc += " (default " + strings.Trim(k.def, "()") + ")"
		}
		flags.String(flagOf(k.path), "", doc)
	}
}

// readServer puts the section together: flag over variable over file over
// default. given says which variable or flag a value comes from. What is
// written in the file has been held against the table already; here each value
// is read, wherever it comes from.
func readServer(file string, n *node, flags *pflag.FlagSet, outside bool) (s Server, given map[string]string, problems Problems) {
	v := viper.New()
	r := &serverReader{v: v, file: base(file), dir: filepath.Dir(file), written: map[string]*node{}, given: map[string]string{}}
	collect(n, "", r.written)
	section := map[string]any{}
	for name, k := range r.written {
		section[flat(name)] = k.text
	}
	if err := v.MergeConfigMap(section); err != nil {
		return s, nil, Problems{{File: r.file, Path: "server", Message: err.Error()}}
	}
	if outside {
		r.bind(flags)
	}
	s = Server{
		Listen: r.text("listen", "127.0.0.1:8484"), Socket: r.text("socket", "/run/deployhook/control.sock"),
		URL: r.text("url", ""), Data: r.text("data", "/var/lib/deployhook"), Workers: r.number("workers", defaultWorkers(memory())),
		LogLevel: r.oneOf("log.level", "info"), LogFormat: r.oneOf("log.format", "text"),
		BodyMemory: r.size("limits.body_memory", 64<<20), ShutdownGrace: r.duration("shutdown_grace", 30*time.Second),
	}
	s.Agent = Agents{Test: r.agent("agent.test"), Deploy: r.agent("agent.deploy")}
	if strings.HasPrefix(r.text("database", ""), "postgres") {
		r.bad("database", "postgres://: not available in this version")
	} else if r.text("database", "") != "" {
		r.bad("database", "leave it empty: the database is SQLite in server.data")
	}
	if !listenAddress(s.Listen) {
		r.bad("listen", "an address is wanted here, like 127.0.0.1:8484, not %q", short(s.Listen))
	}
	if s.BodyMemory < bodyMemoryLeast {
		r.bad("limits.body_memory", "at least %d MiB is wanted here", bodyMemoryLeast>>20)
	}
	if why := badURL(s.URL); why != "" {
		r.bad("url", "%s", why)
	}
	s.URL = strings.TrimRight(s.URL, "/")
	r.path("data", &s.Data)
	r.path("socket", &s.Socket)
	r.socketPath("socket", s.Socket)
	s.TLS = r.tls(n.get("tls"))
	s.TrustedProxies = r.networks("trusted_proxies", thisMachine)
	return s, r.given, r.problems
}

// flat is a key's name for viper, without the dot at which it would look for a
// section: there a flag hides all names below its own. (Its option for another
// delimiter brings 0.3 MB of the library into the program.)
func flat(name string) string { return strings.ReplaceAll(name, ".", "/") }

// agent reads how a kind of agents is reached.
func (r *serverReader) agent(name string) string {
	s := r.text(name, spawn)
	switch {
	case s == spawn:
	case !filepath.IsAbs(s):
		r.bad(name, "spawn, or the whole path of a socket like /run/deployhook-agents/test.sock, is wanted here, not %q", short(s))
	default:
		r.socketPath(name, s)
	}
	return s
}

// socketPath bounds the path of a socket: its address in the kernel has 108 bytes.
func (r *serverReader) socketPath(name, path string) {
	if len(path) > 107 {
		r.bad(name, "the path of a socket has at most 107 bytes, this one %d", len(path))
	}
}

// Bounds of server.limits.body_memory, in bytes.
const (
	bodyMemoryLeast = 1 << 20
	bodyMost        = 25 << 20 // of one webhook
)

// listenAddress says whether an address can be listened on: a host or nothing,
// and a port.
func listenAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != port {
		return false
	}
	if strings.Trim(host, "0123456789.") == "" {
		return host == "" || net.ParseIP(host) != nil
	}
	return !strings.ContainsAny(host, "/ @?#")
}

// badURL says why an address cannot be the server's own; empty = it can, or
// there is none. It may hold a password, and is not repeated then.
func badURL(s string) string {
	if s == "" {
		return ""
	}
	u, err := url.Parse(s)
	switch {
	case err == nil && u.User != nil:
		return "a login does not stand in the address"
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "":
		return "an address is wanted here, like https://deploy.example.com"
	}
	return ""
}

// path makes a path absolute. One in the file is relative to the file's
// directory, so that every command finds the same place from wherever it is
// called; one in a variable or a flag is relative to the working directory.
func (r *serverReader) path(name string, p *string) {
	if strings.HasPrefix(*p, "~") {
		r.bad(name, "~ stands for no home directory here: write the whole path")
		return
	}
	if r.given[name] == "" && !filepath.IsAbs(*p) {
		*p = filepath.Join(r.dir, *p)
	}
	abs, err := filepath.Abs(*p)
	if err != nil {
		r.bad(name, "%v", err)
		return
	}
	*p = abs
}

// bind lets variables and flags go over the file, each by its name: viper
// alone finds no variable for a key that the file does not have.
func (r *serverReader) bind(flags *pflag.FlagSet) {
	for _, k := range serverKeys() {
		variable, flag := variableOf(k.path), flagOf(k.path)
		if os.Getenv(variable) != "" {
			r.given[k.path] = variable
		}
		if k.later {
			if flags != nil && flags.Changed(flag) {
				r.given[k.path] = "--" + flag
			}
			if r.given[k.path] != "" {
				r.bad(k.path, "not available in this version")
			}
			continue
		}
		err := r.v.BindEnv(flat(k.path), variable)
		if flags != nil {
			if f := flags.Lookup(flag); f != nil {
				err = errors.Join(err, r.v.BindPFlag(flat(k.path), f))
				if f.Changed {
					r.given[k.path] = "--" + flag
					if f.Value.String() == "" && k.path != "url" && k.path != "database" {
						r.bad(k.path, "this is empty: fill it in, or leave the flag out")
					}
				}
			}
		}
		if err != nil {
			r.bad(k.path, "%v", err)
		}
	}
}

// collect gives the written scalars of the section by dotted name.
func collect(n *node, prefix string, into map[string]*node) {
	if n == nil {
		return
	}
	for _, name := range n.order {
		k := n.keys[name]
		if k.keys != nil {
			collect(k, prefix+name+".", into)
		} else {
			into[prefix+name] = k
		}
	}
}

// memory is the machine's, in bytes; 0 when it cannot be told.
func memory() uint64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return uint64(info.Totalram) * uint64(info.Unit)
}

// defaultWorkers is 4, and 1 on machines with less than 1 GB of memory.
func defaultWorkers(memory uint64) int {
	if memory > 0 && memory < 1e9 {
		return 1
	}
	return 4
}

type serverReader struct {
	v        *viper.Viper
	file     string // its name
	dir      string // where it is
	written  map[string]*node
	given    map[string]string
	problems Problems
}

func (r *serverReader) bad(name, format string, args ...any) {
	r.badAt(r.written[name], name, format, args...)
}

// badAt is about a part of what is written for a key.
func (r *serverReader) badAt(n *node, name, format string, args ...any) {
	p := Problem{File: r.file, Path: "server." + name, Message: fmt.Sprintf(format, args...)}
	if from := r.given[name]; from != "" {
		p.File, p.Path = from, ""
	} else if n != nil {
		p.Line, p.Column = n.v.line, n.v.column
	}
	r.problems = append(r.problems, p)
}

func (r *serverReader) text(name, def string) string {
	if s := r.v.GetString(flat(name)); s != "" {
		return s
	}
	return def
}

// checked says whether a value comes from the file, where the table has been
// held against it.
func (r *serverReader) checked(name string) bool {
	return r.given[name] == "" && r.written[name] != nil
}

func (r *serverReader) number(name string, def int) int {
	s := r.text(name, "")
	if s == "" {
		return def
	}
	i, err := parseNumber(s, "server."+name)
	if err != nil {
		if !r.checked(name) {
			r.bad(name, "%v", err)
		}
		return def
	}
	return i
}

func (r *serverReader) duration(name string, def time.Duration) time.Duration {
	s := r.text(name, "")
	if s == "" {
		return def
	}
	d, err := parseDuration(s)
	if err != nil {
		r.bad(name, "%v", err)
		return def
	}
	return d
}

func (r *serverReader) size(name string, def int64) int64 {
	s := r.text(name, "")
	if s == "" {
		return def
	}
	n, err := parseSize(s)
	if err != nil {
		r.bad(name, "%v", err)
		return def
	}
	return n
}

func (r *serverReader) oneOf(name, def string) string {
	s := r.text(name, def)
	for _, k := range serverKeys() {
		if k.path == name && !slices.Contains(k.allowed, s) && !r.checked(name) {
			r.bad(name, "%s", notAllowed(s, k.allowed))
		}
	}
	return s
}
