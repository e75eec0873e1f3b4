package config

import (
	"errors"
	"fmt"
	"net"
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
	URL           string
	Data          string
	Workers       int
	LogLevel      string
	LogFormat     string
	BodyMemory    int64 // bytes
	ShutdownGrace time.Duration
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
		if k.later {
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
	r := &serverReader{v: v, file: file, written: map[string]*node{}, given: map[string]string{}}
	collect(n, "", r.written)
	section := map[string]any{}
	for name, k := range r.written {
		at := section
		parts := strings.Split(name, ".")
		for _, p := range parts[:len(parts)-1] {
			if at[p] == nil {
				at[p] = map[string]any{}
			}
			at = at[p].(map[string]any)
		}
		at[parts[len(parts)-1]] = k.text
	}
	if err := v.MergeConfigMap(section); err != nil {
		return s, nil, Problems{{File: file, Path: "server", Message: err.Error()}}
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
	r.oneOf("agent.test", "spawn")
	r.oneOf("agent.deploy", "spawn")
	if strings.HasPrefix(r.text("database", ""), "postgres") {
		r.bad("database", "postgres://: not available in this version")
	} else if r.text("database", "") != "" {
		r.bad("database", "leave it empty: the database is SQLite in server.data")
	}
	if _, port, err := net.SplitHostPort(s.Listen); err != nil || port == "" {
		r.bad("listen", "an address is wanted here, like 127.0.0.1:8484, not %q", short(s.Listen))
	}
	if s.Workers < 1 || s.Workers > 1000 {
		r.bad("workers", "from 1 to 1000 workers, not %d", s.Workers)
	}
	if s.URL != "" && !strings.HasPrefix(s.URL, "https://") && !strings.HasPrefix(s.URL, "http://") {
		r.bad("url", "an address is wanted here, like https://deploy.example.com, not %q", short(s.URL))
	}
	for name, p := range map[string]*string{"data": &s.Data, "socket": &s.Socket} {
		abs, err := filepath.Abs(*p)
		if err != nil || *p == "" {
			r.bad(name, "a path is wanted here")
		}
		*p = abs
	}
	// A socket's address in the kernel has 108 bytes.
	if len(s.Socket) > 107 {
		r.bad("socket", "the path of a socket has at most 107 bytes, this one %d", len(s.Socket))
	}
	return s, r.given, r.problems
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
			if r.given[k.path] != "" {
				r.bad(k.path, "not available in this version")
			}
			continue
		}
		err := r.v.BindEnv(k.path, variable)
		if flags != nil {
			if f := flags.Lookup(flag); f != nil {
				err = errors.Join(err, r.v.BindPFlag(k.path, f))
				if f.Changed {
					r.given[k.path] = "--" + flag
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
	file     string
	written  map[string]*node
	given    map[string]string
	problems Problems
}

func (r *serverReader) bad(name, format string, args ...any) {
	p := Problem{File: r.file, Path: "server." + name, Message: fmt.Sprintf(format, args...)}
	if from := r.given[name]; from != "" {
		p.File, p.Path = from, ""
	} else if n := r.written[name]; n != nil {
		p.Line, p.Column = n.v.line, n.v.column
	}
	r.problems = append(r.problems, p)
}

func (r *serverReader) text(name, def string) string {
	if s := r.v.GetString(name); s != "" {
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
	i, err := strconv.Atoi(s)
	if err != nil {
		r.bad(name, "a whole number is wanted here, not %q", short(s))
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
	}
	return n
}

func (r *serverReader) oneOf(name, def string) string {
	s := r.text(name, def)
	for _, k := range serverKeys() {
		if k.path == name && !slices.Contains(k.allowed, s) && !r.checked(name) {
			r.bad(name, "%q is not one of %s%s", short(s), strings.Join(k.allowed, ", "), deploy.DidYouMean(s, k.allowed))
		}
	}
	return s
}
