package config

import (
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

// serverKeys are the keys of the section server, without the section's name.
func serverKeys() []key {
	var list []key
	for _, k := range table {
		name, ok := strings.CutPrefix(k.path, "server.")
		if ok && !k.later && k.kind != section {
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
		doc := strings.ReplaceAll(k.doc, "`", "")
		if k.def != "" {
			doc += " (default " + k.def + ")"
		}
		flags.String(flagOf(k.path), "", doc)
	}
}

// readServer puts the section together: flag over variable over file over
// default. Each value is checked once more, since it may come from any of them.
func readServer(file string, n *node, flags *pflag.FlagSet, outside bool) (Server, error) {
	v := viper.New()
	written := map[string]*node{}
	collect(n, "", written)
	values := map[string]any{}
	for name, k := range written {
		values[name] = k.text
	}
	for name, value := range values {
		v.SetDefault(name, value) // lowest: variables and flags go over it
	}
	given := map[string]string{} // where a value comes from, when not from the file
	if outside {
		for _, k := range serverKeys() {
			if err := v.BindEnv(k.path, variableOf(k.path)); err != nil {
				return Server{}, err
			}
			if os.Getenv(variableOf(k.path)) != "" {
				given[k.path] = variableOf(k.path)
			}
			if flags == nil {
				continue
			}
			if f := flags.Lookup(flagOf(k.path)); f != nil && f.Changed {
				v.Set(k.path, f.Value.String())
				given[k.path] = "--" + flagOf(k.path)
			}
		}
	}
	r := &serverReader{v: v, file: file, written: written, given: given}
	s := Server{
		Listen: r.text("listen", "127.0.0.1:8484"), Socket: r.text("socket", "/run/deployhook/control.sock"),
		URL: r.text("url", ""), Data: r.text("data", "/var/lib/deployhook"), Workers: r.number("workers", defaultWorkers()),
		LogLevel: r.oneOf("log.level", "info"), LogFormat: r.oneOf("log.format", "text"),
		BodyMemory: r.size("limits.body_memory", 64<<20), ShutdownGrace: r.duration("shutdown_grace", 30*time.Second),
	}
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
	if len(r.problems) > 0 {
		r.problems.sort()
		return s, r.problems
	}
	return s, nil
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

// defaultWorkers is 4, and 1 on machines with less than 1 GB of memory.
func defaultWorkers() int {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil && uint64(info.Totalram)*uint64(info.Unit) < 1e9 {
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
		if k.path == name && !slices.Contains(k.allowed, s) {
			r.bad(name, "%q is not one of %s%s", short(s), strings.Join(k.allowed, ", "), deploy.DidYouMean(s, k.allowed))
		}
	}
	return s
}
