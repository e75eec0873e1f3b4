package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds of a file, checked before anything is expanded.
const (
	fileMost  = 1 << 20 // bytes
	depthMost = 64      // levels
	nodesMost = 50_000  // values, those that an alias repeats included
	openMost  = 256     // brackets, or dashes of one line, that are open at once
)

// value is a node of the file: a scalar with its literal text, a list, or a
// map in the order written.
type value struct {
	line, column int
	null         bool
	scalar       bool
	text         string // literal: 1.10 stays 1.10
	quoted       bool
	isList       bool
	list         []*value
	isMap        bool
	entries      []entry
}

type entry struct {
	name         string
	line, column int
	value        *value
}

// what names a value's form for a message.
func (v *value) what() string {
	switch {
	case v.isMap:
		return "a section"
	case v.isList:
		return "a list"
	case v.null:
		return "nothing"
	}
	return "text"
}

// treeError is an error of the file's form.
type treeError struct {
	line, column int
	message      string
}

func (e *treeError) Error() string { return e.message }

// parseTree reads YAML into values. Its error is a *treeError.
func parseTree(b []byte) (*value, error) {
	if err := looksSane(b); err != nil {
		return nil, err
	}
	file, err := parser.ParseBytes(b, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxError(err)
	}
	var body ast.Node
	docs := 0
	for _, d := range file.Docs {
		if d.Body != nil {
			docs++
			body = d.Body
		}
	}
	switch {
	case docs == 0:
		return nil, &treeError{1, 1, "the file is empty: begin with hooks and pipelines, or copy deploy.yaml.example"}
	case docs > 1:
		pos := body.GetToken().Position
		return nil, &treeError{pos.Line, pos.Column, "a second document begins here: deploy.yaml is one document, without ---"}
	}
	t := &treeReader{anchors: map[string]*value{}}
	v, err := t.read(body, 0)
	if err != nil {
		return nil, err
	}
	return v, nil
}

// looksSane refuses what no YAML reader should be given.
func looksSane(b []byte) error {
	if len(b) > fileMost {
		return &treeError{0, 0, fmt.Sprintf("the file has %d bytes; at most 1 MiB is allowed", len(b))}
	}
	if bytes.IndexByte(b, 0) >= 0 || !utf8.Valid(b) {
		return &treeError{0, 0, "this is not a text file in UTF-8"}
	}
	open := 0
	n := 0
	for line := range bytes.Lines(b) {
		n++
		rest := line
		for len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
			if rest[0] == '\t' && len(bytes.TrimSpace(rest)) > 0 {
				return &treeError{n, len(line) - len(rest) + 1, "a tab indents this line: YAML wants spaces"}
			}
			rest = rest[1:]
		}
		if bytes.Count(rest, []byte("- ")) > openMost && bytes.HasPrefix(rest, bytes.Repeat([]byte("- "), openMost)) {
			return &treeError{n, 1, "this line has too many dashes"}
		}
		for _, c := range rest {
			switch c {
			case '[', '{':
				open++
			case ']', '}':
				open = max(0, open-1)
			}
			if open > openMost {
				return &treeError{n, 1, "too many brackets are open here"}
			}
		}
	}
	return nil
}

// syntaxError takes the place and the first line from the parser's error.
func syntaxError(err error) error {
	text := err.Error()
	e := &treeError{1, 1, ""}
	if i := strings.IndexByte(text, ']'); strings.HasPrefix(text, "[") && i > 0 {
		_, _ = fmt.Sscanf(text[:i+1], "[%d:%d]", &e.line, &e.column)
		text = text[i+1:]
	}
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	e.message = "this is not YAML: " + text
	return e
}

type treeReader struct {
	anchors map[string]*value
	nodes   int
}

func at(t *token.Token) (line, column int) {
	if t == nil || t.Position == nil {
		return 0, 0
	}
	return t.Position.Line, t.Position.Column
}

func (t *treeReader) read(n ast.Node, depth int) (*value, error) {
	v := &value{}
	if n == nil {
		v.null = true
		return v, nil
	}
	v.line, v.column = at(n.GetToken())
	if depth > depthMost {
		return nil, &treeError{v.line, v.column, fmt.Sprintf("this is more than %d levels deep", depthMost)}
	}
	if t.nodes++; t.nodes > nodesMost {
		return nil, &treeError{v.line, v.column, fmt.Sprintf("the file has more than %d values", nodesMost)}
	}
	switch n := n.(type) {
	case *ast.NullNode:
		v.null = true
	case *ast.StringNode:
		v.scalar, v.text = true, n.Value
		v.quoted = n.Token.Type == token.SingleQuoteType || n.Token.Type == token.DoubleQuoteType
	case *ast.LiteralNode:
		v.scalar, v.quoted, v.text = true, true, n.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		v.scalar, v.text = true, n.GetToken().Value
	case *ast.SequenceNode:
		v.isList = true
		for _, item := range n.Values {
			x, err := t.read(item, depth+1)
			if err != nil {
				return nil, err
			}
			v.list = append(v.list, x)
		}
	case *ast.MappingNode:
		v.isMap = true
		if len(n.Values) > 0 {
			v.line, v.column = at(n.Values[0].Key.GetToken())
		}
		return v, t.entries(v, n.Values, depth)
	case *ast.MappingValueNode:
		v.isMap = true
		v.line, v.column = at(n.Key.GetToken())
		return v, t.entries(v, []*ast.MappingValueNode{n}, depth)
	case *ast.AnchorNode:
		x, err := t.read(n.Value, depth)
		if err == nil {
			t.anchors[n.Name.String()] = x
		}
		return x, err
	case *ast.AliasNode:
		x := t.anchors[n.Value.String()]
		if x == nil {
			return nil, &treeError{v.line, v.column, fmt.Sprintf("there is no anchor &%s before this", n.Value.String())}
		}
		// What stands here again counts again, so that a few lines cannot
		// stand for a million.
		if t.nodes += count(x, nodesMost); t.nodes > nodesMost {
			return nil, &treeError{v.line, v.column, fmt.Sprintf("with its aliases the file has more than %d values", nodesMost)}
		}
		return x, nil
	case *ast.TagNode:
		return t.read(n.Value, depth)
	default:
		return nil, &treeError{v.line, v.column, "this has no place in deploy.yaml"}
	}
	return v, nil
}

// count counts the values below v, up to a bound.
func count(v *value, most int) int {
	n := 1
	for _, x := range v.list {
		if n += count(x, most-n); n >= most {
			return n
		}
	}
	for _, e := range v.entries {
		if n += count(e.value, most-n); n >= most {
			return n
		}
	}
	return n
}

func (t *treeReader) entries(v *value, list []*ast.MappingValueNode, depth int) error {
	for _, m := range list {
		e := entry{name: m.Key.GetToken().Value}
		e.line, e.column = at(m.Key.GetToken())
		if s, ok := m.Key.(*ast.StringNode); ok {
			e.name = s.Value
		}
		if _, ok := m.Key.(*ast.MergeKeyNode); ok {
			e.name = mergeKey
		}
		if k, ok := m.Key.(*ast.MappingKeyNode); ok && k.Value != nil {
			return &treeError{e.line, e.column, "a key is a plain word"}
		}
		x, err := t.read(m.Value, depth+1)
		if err != nil {
			return err
		}
		e.value = x
		v.entries = append(v.entries, e)
	}
	return nil
}

// mergeKey takes over the keys of another section.
const mergeKey = "<<"

// merged gives a section's entries with those that << brings; what is written
// in the section itself counts.
func merged(v *value) ([]entry, error) {
	var own, brought []entry
	for _, e := range v.entries {
		if e.name != mergeKey {
			own = append(own, e)
			continue
		}
		sources := []*value{e.value}
		if e.value.isList {
			sources = e.value.list
		}
		for _, s := range sources {
			if !s.isMap {
				return nil, errors.New("<< takes a section, or a list of sections")
			}
			more, err := merged(s)
			if err != nil {
				return nil, err
			}
			brought = append(brought, more...)
		}
	}
	seen := map[string]bool{}
	for _, e := range own {
		seen[e.name] = true
	}
	for _, e := range brought {
		if !seen[e.name] {
			seen[e.name] = true
			own = append(own, e)
		}
	}
	return own, nil
}
