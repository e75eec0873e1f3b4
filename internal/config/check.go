package config

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"deployhook/internal/deploy"
)

// node is a value whose form was found to be right.
type node struct {
	v     *value
	path  string
	text  string // of a scalar
	keys  map[string]*node
	order []string // keys as written
	items []*node
}

// get finds a key; nil when it is not written, or was wrong: its error is
// reported already, and nothing may be said on top of it.
func (n *node) get(name string) *node {
	if n == nil {
		return nil
	}
	return n.keys[name]
}

func (n *node) str(name, def string) string {
	if k := n.get(name); k != nil {
		return k.text
	}
	return def
}

// checker holds the file against the table.
type checker struct {
	file     string
	problems Problems
	warnings Problems
	inside   map[string]bool // paths at or below which something is wrong: those that need them stay quiet
	meant    map[string]bool // keys that an unknown one was taken for
}

func newChecker(file string) *checker {
	return &checker{file: file, inside: map[string]bool{}, meant: map[string]bool{}}
}

func (c *checker) problem(line, column int, path, format string, args ...any) {
	for p := path; ; {
		c.inside[p] = true
		i := strings.LastIndexAny(p, ".[")
		if i < 0 {
			break
		}
		p = p[:i]
	}
	c.problems = append(c.problems, Problem{File: c.file, Line: line, Column: column, Path: path, Message: fmt.Sprintf(format, args...)})
}

func (c *checker) bad(n *node, format string, args ...any) {
	c.problem(n.v.line, n.v.column, n.path, format, args...)
}

func (c *checker) warn(n *node, format string, args ...any) {
	c.warnings = append(c.warnings, Problem{File: c.file, Line: n.v.line, Column: n.v.column, Path: n.path, Message: fmt.Sprintf(format, args...)})
}

// check gives the node of a value, or nil when it is wrong.
func (c *checker) check(v *value, p *place, path string) *node {
	n := &node{v: v, path: path}
	bad := func(format string, args ...any) *node {
		c.problem(v.line, v.column, path, format, args...)
		return nil
	}
	switch p.kind {
	case section, names, variables, secretMap, mayBeEmpty:
		if v.null && p.kind == mayBeEmpty {
			n.keys = map[string]*node{}
			return n
		}
		if p.path == "pipelines.*.on" {
			n.v = events(v)
		}
		if !n.v.isMap {
			if p.path == "secrets.*" {
				return bad("say where the secret is read from, like {environment: NAME}; its value never stands in this file")
			}
			return bad("%s", v.not(p.wanted()))
		}
		return c.keys(n, p)
	case textOrMap:
		if v.isMap {
			return c.keys(n, p)
		}
		return c.scalar(n, p)
	case secret:
		return c.secret(n)
	case secretList:
		return c.secretList(n)
	case keyFile:
		return c.identityForm(n)
	case sections:
		if !v.isList {
			return bad("%s", v.not(p.wanted()))
		}
		for i, x := range v.list {
			item := &node{v: x, path: fmt.Sprintf("%s[%d]", path, i)}
			if !x.isMap {
				c.problem(x.line, x.column, item.path, "%s", x.not(p.item.wanted()))
				n.items = append(n.items, nil)
				continue
			}
			n.items = append(n.items, c.keys(item, p.item))
		}
		return n
	case texts:
		list := v.list
		if v.scalar {
			list = []*value{v}
		} else if !v.isList {
			return bad("%s", v.not(p.wanted()))
		}
		for i, x := range list {
			if !x.scalar {
				c.problem(x.line, x.column, fmt.Sprintf("%s[%d]", path, i), "%s", x.not("a text"))
				continue
			}
			if !c.literal(x, fmt.Sprintf("%s[%d]", path, i)) {
				continue
			}
			n.items = append(n.items, &node{v: x, path: path, text: x.text})
		}
		return n
	}
	return c.scalar(n, p)
}

// events takes GitHub's short forms, on: push and on: [push].
func events(v *value) *value {
	list := v.list
	if v.scalar {
		list = []*value{v}
	}
	if !v.scalar && !v.isList {
		return v
	}
	m := &value{line: v.line, column: v.column, isMap: true}
	for _, x := range list {
		if !x.scalar || x.text == "" {
			return v
		}
		m.entries = append(m.entries, entry{x.text, x.line, x.column, &value{line: x.line, column: x.column, null: true}})
	}
	return m
}

// free says whether the user chooses the names in a section.
func (p *place) free() bool { return p.kind == names || p.kind == variables || p.kind == secretMap }

// fold gives the one spelling of a key: - stands for _ in our own.
func (p *place) fold(name string) string {
	if p.free() || strings.HasPrefix(name, "x-") {
		return name
	}
	return strings.ReplaceAll(name, "-", "_")
}

// keys reads the keys of a section.
func (c *checker) keys(n *node, p *place) *node {
	n.keys = map[string]*node{}
	if p.path == "pipelines.*.jobs" && slices.ContainsFunc(n.v.entries, func(e entry) bool { return e.name == mergeKey }) {
		c.bad(n, "<< among jobs would change their order without showing it: write the jobs out")
		return nil
	}
	entries, err := merged(n.v, p.fold)
	if err != nil {
		c.problem(err.line, err.column, n.path, "%s", err.message)
		return nil
	}
	lines := map[string]int{}
	for _, e := range entries {
		name := p.fold(e.name)
		path := strings.TrimPrefix(n.path+"."+short(name), ".")
		if line, ok := lines[name]; ok {
			c.problem(e.line, e.column, path, "this is written twice; first in line %d", line)
			continue
		}
		lines[name] = e.line
		if k := c.entry(e, name, path, n, p); k != nil {
			n.keys[name] = k
			n.order = append(n.order, name)
		}
	}
	return n
}

// entry reads one key of a section; nil when it is wrong, or to be left alone.
func (c *checker) entry(e entry, name, path string, n *node, p *place) *node {
	switch {
	case p.kind == names:
		if !validName(name) {
			c.problem(e.line, e.column, path, "a name has letters, digits, - and _, and begins with a letter or digit; at most 64 characters")
			return nil
		}
		return c.check(e.value, p.any, path)
	case p.kind == variables:
		return c.variable(e, name, path)
	case p.kind == secretMap:
		if !c.variableName(e, name, path) {
			return nil
		}
		return c.secret(&node{v: e.value, path: path})
	case strings.HasPrefix(name, "x-"):
		return nil
	}
	child := p.children[name]
	switch {
	case child == nil && p.path == "secrets.*":
		// It may be a value that was written by mistake.
		c.problem(e.line, e.column, n.path, "the source of a secret is one of environment, file, credential and command")
	case child == nil:
		c.problem(e.line, e.column, path, "unknown key%s", c.hint(n, p, name))
	case child.later:
		c.problem(e.line, e.column, path, "not available in this version")
	default:
		return c.check(e.value, child, path)
	}
	return nil
}

// variableName checks the name of a step's variable.
func (c *checker) variableName(e entry, name, path string) bool {
	switch {
	case !validVariable(name):
		c.problem(e.line, e.column, path, "the name of a variable has letters, digits and _, and does not begin with a digit")
	case name == "CI" || strings.HasPrefix(name, "DEPLOYHOOK"):
		c.problem(e.line, e.column, path, "CI and names that begin with DEPLOYHOOK are deployhook's own")
	default:
		return true
	}
	return false
}

func (c *checker) variable(e entry, name, path string) *node {
	v := e.value
	switch {
	case !c.variableName(e, name, path):
	case v.isMap || v.isList:
		c.problem(v.line, v.column, path, "%s; a secret stands under secrets of a job", v.not("a text"))
	case strings.IndexByte(v.text, 0) >= 0:
		c.problem(v.line, v.column, path, "a variable cannot hold a NUL byte")
	case len(v.text) > variableMost:
		c.problem(v.line, v.column, path, "a variable holds at most %d KiB", variableMost>>10)
	default:
		return &node{v: v, path: path, text: v.text}
	}
	return nil
}

// variableMost bounds a variable; the kernel refuses one string of 128 KiB.
const variableMost = 64 << 10

// literal refuses expressions and NUL bytes in a text that is taken as it is.
func (c *checker) literal(v *value, path string) bool {
	switch {
	case strings.IndexByte(v.text, 0) >= 0:
		c.problem(v.line, v.column, path, "this text cannot hold a NUL byte")
	case strings.Contains(v.text, "${{"):
		c.problem(v.line, v.column, path, "${{ }} has no meaning here: it stands in values of env")
	default:
		return true
	}
	return false
}

// commands are the texts that a shell runs; a message of their own says what
// to write for ${{ }}.
var commands = []string{"run", "restart", "group"}

// scalar reads a value of one line by its kind.
func (c *checker) scalar(n *node, p *place) *node {
	v := n.v
	bad := func(format string, args ...any) *node {
		c.problem(v.line, v.column, n.path, format, args...)
		return nil
	}
	if !v.scalar {
		return bad("%s", v.not(p.wanted()))
	}
	n.text = v.text
	switch p.kind {
	case line:
		n.text = strings.TrimRight(v.text, "\n") // of a block
		switch {
		case strings.TrimSpace(n.text) == "":
			return bad("this is empty: fill it in, or leave the key out")
		case strings.ContainsFunc(n.text, func(r rune) bool { return r < ' ' && r != 0 || r == 0x7f }):
			return bad("one line is wanted here, without control characters")
		}
		if !slices.Contains(commands, lastName(p.path)) && !c.literal(v, n.path) {
			return nil
		}
	case text, textOrMap:
		if p.kind == textOrMap {
			n.text = strings.TrimRight(v.text, "\n")
		}
		if !slices.Contains(commands, lastName(p.path)) && !c.literal(v, n.path) {
			return nil
		}
	case number:
		if _, err := parseNumber(v.text, p.path); err != nil {
			return bad("%v", err)
		}
	case decimal:
		if f, err := strconv.ParseFloat(v.text, 64); err != nil || !(f > 0 && f <= 100) {
			return bad("a number above 0 and up to 100 is wanted here, not %q", short(v.text))
		}
	case boolean:
		if v.text != "true" && v.text != "false" {
			return bad("true or false is wanted here, not %q", short(v.text))
		}
	case duration:
		d, err := parseDuration(v.text)
		if err != nil {
			return bad("%v", err)
		}
		if d == 0 && lastName(p.path) == "timeout" {
			return bad("a timeout is more than 0")
		}
	case size:
		if _, err := parseSize(v.text); err != nil {
			return bad("%v", err)
		}
	case expression:
		if _, err := deploy.CompileExpr(v.text); err != nil {
			return bad("%v", err)
		}
	}
	if len(p.allowed) > 0 && !slices.Contains(p.allowed, n.text) {
		if strings.HasPrefix(p.path, "server.agent.") && strings.HasPrefix(v.text, "/") {
			return bad("%s: not available in this version", short(v.text))
		}
		return bad("%s", notAllowed(v.text, p.allowed))
	}
	return n
}

// notAllowed says which values there are.
func notAllowed(text string, allowed []string) string {
	if len(allowed) == 1 {
		return fmt.Sprintf("%q: only %s can stand here", short(text), allowed[0])
	}
	return fmt.Sprintf("%q is not one of %s%s", short(text), strings.Join(allowed, ", "), deploy.DidYouMean(text, allowed))
}

// secretsMost bounds a rotation: each delivery may be held against all of them.
const secretsMost = 10

// secretList reads a secret, or a list of those of which any one counts.
func (c *checker) secretList(n *node) *node {
	list := n.v.list
	if !n.v.isList {
		list = []*value{n.v}
	}
	if len(list) == 0 || len(list) > secretsMost {
		c.bad(n, "a secret, or a list of 1 to %d, is wanted here", secretsMost)
		return nil
	}
	for i, v := range list {
		path := n.path
		if n.v.isList {
			path = fmt.Sprintf("%s[%d]", path, i)
		}
		if item := c.secret(&node{v: v, path: path}); item != nil {
			n.items = append(n.items, item)
		}
	}
	return n
}

// secret reads the name of a secret or its source. A literal cannot be told
// from a name here; what is no name is not repeated in the message.
func (c *checker) secret(n *node) *node {
	v := n.v
	switch {
	case v.isMap:
		return c.source(n)
	case !v.scalar || !validName(v.text):
		c.problem(v.line, v.column, n.path, "a secret is the name of one under secrets, or an object like {environment: NAME}; its value never stands in this file")
		return nil
	}
	n.text = v.text
	return n
}

// source reads where a secret comes from: exactly one key.
func (c *checker) source(n *node) *node {
	s := c.keys(n, root.children["secrets"].any)
	if s == nil || c.within(n.path) {
		return nil
	}
	return c.oneSource(s)
}

// oneSource checks a source whose keys have been read. What stands there is
// not repeated: it may be a value that was written by mistake.
func (c *checker) oneSource(s *node) *node {
	if len(s.order) != 1 {
		c.bad(s, "exactly one of environment, file, credential and command is wanted")
		return nil
	}
	k := s.keys[s.order[0]]
	switch {
	case k.text == "":
		c.bad(k, "this is empty")
	case s.order[0] == "environment" && !validVariable(k.text):
		c.bad(k, "this is not the name of a variable: it has letters, digits and _, and does not begin with a digit")
	case s.order[0] == "file" && !path.IsAbs(k.text):
		c.bad(k, "this is not an absolute path")
	case s.order[0] == "credential" && !validCredential(k.text):
		c.bad(k, "this is not the name of a credential, as in LoadCredential=NAME:PATH")
	default:
		return s
	}
	return nil
}

// within says whether something at or below a path is wrong.
func (c *checker) within(path string) bool { return c.inside[path] }

// absent says whether a key is not there, and nothing that is wrong may have
// been meant for it.
func (c *checker) absent(n *node, name string) bool {
	path := strings.TrimPrefix(n.path+"."+name, ".")
	return n.get(name) == nil && !c.inside[path] && !c.meant[path]
}

func lastName(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// short makes a value fit into a message.
func short(s string) string {
	if len(s) <= 60 {
		return s
	}
	return strings.ToValidUTF8(s[:60], "") + "…"
}

func validName(s string) bool {
	if s == "" || len(s) > 64 || s[0] == '-' || s[0] == '_' {
		return false
	}
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_') {
			return false
		}
	}
	return true
}

func validCredential(s string) bool {
	return !strings.Contains(s, "/") && s != "." && s != ".." && len(s) <= 255
}

func validVariable(s string) bool {
	if s == "" || len(s) > 128 || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	return strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// parseNumber reads a whole number within the range of its key. A leading 0
// or _ means something else to other readers of YAML.
func parseNumber(s, path string) (int, error) {
	r := ranges[path]
	i, err := strconv.Atoi(s)
	if err != nil || strconv.Itoa(i) != s || i < r[0] || i > r[1] {
		return 0, fmt.Errorf("a whole number from %d to %d is wanted here, not %q", r[0], r[1], short(s))
	}
	return i, nil
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > 7*24*time.Hour || s[0] == '+' || s[0] == '-' || s == "0" {
		return 0, fmt.Errorf("a duration is wanted here, like 90s, 30m or 1h30m, up to 168h, not %q", short(s))
	}
	return d, nil
}

var units = []struct {
	name string
	n    int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"", 1}}

func parseSize(s string) (int64, error) {
	for _, u := range units {
		num, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(num), 10, 64)
		if err == nil && n > 0 && n <= (1<<40)/u.n {
			return n * u.n, nil
		}
	}
	return 0, fmt.Errorf("a size is wanted here, like 64 MiB, not %q", short(s))
}
