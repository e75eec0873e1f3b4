package config

import (
	"fmt"
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
	broken   map[string]bool // paths with a problem: those that need them stay quiet
}

func (c *checker) problem(line, column int, path, format string, args ...any) {
	c.broken[path] = true
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
	case section, names, variables, secretMap, flag:
		if v.null && (p.kind == flag || path == "") {
			n.keys = map[string]*node{}
			return n
		}
		if p.path == "pipelines.*.on" {
			n.v = events(v)
		}
		if !n.v.isMap {
			return bad("a section is wanted here, not %s", v.what())
		}
		return c.keys(n, p)
	case textOrMap:
		if v.isMap {
			return c.keys(n, p)
		}
		return c.scalar(n, p)
	case secret:
		return c.secret(n)
	case sections:
		if !v.isList {
			return bad("a list is wanted here, not %s", v.what())
		}
		for i, x := range v.list {
			item := &node{v: x, path: fmt.Sprintf("%s[%d]", path, i)}
			if !x.isMap {
				c.problem(x.line, x.column, item.path, "a section is wanted here, like - run: make, not %s", x.what())
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
			return bad("a list of texts is wanted here, not %s", v.what())
		}
		for i, x := range list {
			if !x.scalar {
				c.problem(x.line, x.column, fmt.Sprintf("%s[%d]", path, i), "a text is wanted here, not %s", x.what())
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
	if len(list) == 0 {
		return v
	}
	m := &value{line: v.line, column: v.column, isMap: true}
	for _, x := range list {
		if !x.scalar {
			return v
		}
		m.entries = append(m.entries, entry{x.text, x.line, x.column, &value{line: x.line, column: x.column, null: true}})
	}
	return m
}

// keys reads the keys of a section.
func (c *checker) keys(n *node, p *place) *node {
	n.keys = map[string]*node{}
	entries, err := merged(n.v)
	if err != nil {
		c.bad(n, "%v", err)
		return nil
	}
	if strings.HasSuffix(n.path, ".jobs") && slices.ContainsFunc(n.v.entries, func(e entry) bool { return e.name == mergeKey }) {
		c.bad(n, "<< among jobs would change their order without showing it: write the jobs out")
		return nil
	}
	for _, e := range entries {
		at := &value{line: e.line, column: e.column}
		name := e.name
		free := p.kind == names || p.kind == variables || p.kind == secretMap
		if !free {
			if strings.HasPrefix(name, "x-") {
				continue
			}
			name = strings.ReplaceAll(name, "-", "_")
		}
		path := strings.TrimPrefix(n.path+"."+name, ".")
		if first, ok := n.keys[name]; ok || c.broken[path] {
			if ok {
				c.problem(at.line, at.column, path, "this is written twice; first in line %d", first.v.line)
			}
			continue
		}
		switch p.kind {
		case names:
			if !validName(name) {
				c.problem(at.line, at.column, path, "a name has letters, digits, - and _, and begins with a letter or digit; at most 64")
				continue
			}
			if k := c.check(e.value, p.any, path); k != nil {
				n.add(name, k)
			}
		case variables:
			if k := c.variable(e, name, path); k != nil {
				n.add(name, k)
			}
		case secretMap:
			if !validVariable(name) {
				c.problem(at.line, at.column, path, "the name of a variable has letters, digits and _, and does not begin with a digit")
			} else if k := c.secret(&node{v: e.value, path: path}); k != nil {
				n.add(name, k)
			}
		default:
			child := p.children[name]
			switch {
			case child == nil:
				c.problem(at.line, at.column, path, "unknown key%s", deploy.DidYouMean(name, p.order))
			case child.later:
				c.problem(at.line, at.column, path, "%s: not available in this version", name)
			default:
				if k := c.check(e.value, child, path); k != nil {
					n.add(name, k)
				}
			}
		}
	}
	return n
}

func (n *node) add(name string, k *node) {
	n.keys[name] = k
	n.order = append(n.order, name)
}

func (c *checker) variable(e entry, name, path string) *node {
	switch {
	case !validVariable(name):
		c.problem(e.line, e.column, path, "the name of a variable has letters, digits and _, and does not begin with a digit")
	case strings.HasPrefix(name, "DEPLOYHOOK"):
		c.problem(e.line, e.column, path, "names that begin with DEPLOYHOOK are deployhook's own")
	case e.value.isMap || e.value.isList:
		c.problem(e.value.line, e.value.column, path, "a text is wanted here, not %s; a secret stands under secrets of a job", e.value.what())
	case strings.IndexByte(e.value.text, 0) >= 0:
		c.problem(e.value.line, e.value.column, path, "a variable cannot hold a NUL byte")
	default:
		return &node{v: e.value, path: path, text: e.value.text}
	}
	return nil
}

// scalar reads a value of one line by its kind.
func (c *checker) scalar(n *node, p *place) *node {
	v := n.v
	bad := func(format string, args ...any) *node {
		c.problem(v.line, v.column, n.path, format, args...)
		return nil
	}
	if !v.scalar {
		return bad("a %s is wanted here, not %s", kindNames[p.kind], v.what())
	}
	n.text = v.text
	var err error
	switch p.kind {
	case number:
		var i int
		if i, err = strconv.Atoi(v.text); err != nil || i < 0 || i > 1_000_000 {
			return bad("a whole number is wanted here, not %q", short(v.text))
		}
	case decimal:
		var f float64
		if f, err = strconv.ParseFloat(v.text, 64); err != nil || !(f > 0 && f <= 100) {
			return bad("a number above 0 and up to 100 is wanted here, not %q", short(v.text))
		}
	case boolean:
		if v.text != "true" && v.text != "false" {
			return bad("true or false is wanted here, not %q", short(v.text))
		}
	case duration:
		if _, err = parseDuration(v.text); err != nil {
			return bad("%v", err)
		}
	case size:
		if _, err = parseSize(v.text); err != nil {
			return bad("%v", err)
		}
	case expression:
		if _, err = deploy.CompileExpr(v.text); err != nil {
			return bad("%v", err)
		}
	}
	if len(p.allowed) > 0 && !slices.Contains(p.allowed, v.text) {
		if slices.Contains(notYet[lastName(n.path)], v.text) {
			return bad("%s: not available in this version", short(v.text))
		}
		return bad("%q is not one of %s%s", short(v.text), strings.Join(p.allowed, ", "), deploy.DidYouMean(v.text, p.allowed))
	}
	return n
}

// notYet are values of the design whose part comes later.
var notYet = map[string][]string{
	"provider": {"gitlab", "gitea", "forgejo", "gogs", "bitbucket", "azure", "standard", "stripe"},
	"strategy": {"in_place"},
}

// secret reads the name of a secret or its source. A literal cannot be told
// from a name here; what is no name is not repeated in the message.
func (c *checker) secret(n *node) *node {
	v := n.v
	switch {
	case v.isList:
		c.problem(v.line, v.column, n.path, "a list of secrets: not available in this version")
		return nil
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
	if len(s.order) != 1 {
		c.bad(n, "exactly one of environment, file, credential and command is wanted")
		return nil
	}
	if s.keys[s.order[0]].text == "" {
		c.bad(n, "%s is empty", s.order[0])
		return nil
	}
	return s
}

// within says whether something at or below a path is wrong.
func (c *checker) within(path string) bool {
	for p := range c.broken {
		if p == path || strings.HasPrefix(p, path+".") || strings.HasPrefix(p, path+"[") {
			return true
		}
	}
	return false
}

func lastName(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

func short(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
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

func validVariable(s string) bool {
	if s == "" || len(s) > 128 || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	return strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > 7*24*time.Hour {
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
