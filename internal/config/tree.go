package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds of a file, checked before it is parsed or anything is expanded. The
// parser needs quadratic time in the entries of one map: 200,000 of them took
// 80 s, 16,000 half a second.
const (
	fileMost   = 1 << 20 // bytes
	tokensMost = 50_000  // words and signs, comments not counted
	depthMost  = 64      // levels
	nodesMost  = 50_000  // values, those that an alias repeats included
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

// not says that something else is wanted than what v is.
func (v *value) not(wanted string) string {
	if v.null {
		return wanted + " is wanted here, and nothing stands here"
	}
	return wanted + " is wanted here, not " + v.what()
}

// treeError is an error of the file's form.
type treeError struct {
	line, column int
	message      string
}

func (e *treeError) Error() string { return e.message }

// parseTree reads YAML into values. Its error is a *treeError.
func parseTree(b []byte) (*value, error) {
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	if len(b) > fileMost {
		return nil, &treeError{message: "the file is larger than 1 MiB: a deploy.yaml has a few hundred lines, this is something else"}
	}
	if i := bytes.IndexByte(b, 0); i >= 0 || !utf8.Valid(b) {
		return nil, &treeError{message: "this is not a text file in UTF-8"}
	}
	file, err := parseTokens(string(b))
	if err != nil {
		return nil, err
	}
	var body ast.Node
	docs, second := 0, (*token.Token)(nil)
	for _, d := range file.Docs {
		if _, directive := d.Body.(*ast.DirectiveNode); d.Body == nil || directive {
			continue
		}
		if docs++; docs == 1 {
			body = d.Body
		} else if docs == 2 {
			second = firstToken(d)
		}
	}
	switch {
	case docs == 0:
		return nil, &treeError{message: "the file is empty: begin with hooks and pipelines, or copy deploy.yaml.example"}
	case docs > 1:
		line, column := at(second)
		return nil, &treeError{line, column, "a second document begins here: deploy.yaml is one document, without ---"}
	}
	t := &treeReader{anchors: map[string]*value{}}
	return t.read(body, 0)
}

// firstToken is where a document begins.
func firstToken(d *ast.DocumentNode) *token.Token {
	if d.Start != nil {
		return d.Start
	}
	if m, ok := d.Body.(*ast.MappingNode); ok && len(m.Values) > 0 {
		return m.Values[0].Key.GetToken()
	}
	if m, ok := d.Body.(*ast.MappingValueNode); ok {
		return m.Key.GetToken()
	}
	return d.Body.GetToken()
}

// parseTokens runs the parser once the words of the text are within bounds.
func parseTokens(text string) (file *ast.File, err error) {
	// What the parser does not survive is a broken file too, not the end of a
	// daemon that was asked to reload it.
	defer func() {
		if recover() != nil {
			file, err = nil, &treeError{message: "this is not YAML: the parser gave up"}
		}
	}()
	tokens := lexer.Tokenize(text)
	if err := inBounds(tokens); err != nil {
		return nil, err
	}
	file, err = parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxError(err)
	}
	return file, nil
}

// inBounds refuses what the parser would take too long for, or nest too deep:
// it calls itself for every level.
func inBounds(tokens token.Tokens) error {
	var columns []int // of the lines and dashes that are open, outermost first
	open, line, count, marks := 0, 0, 0, 0
	for _, t := range tokens {
		p := t.Position
		if t.Type == token.CommentType || p == nil {
			continue
		}
		if count++; count > tokensMost {
			return &treeError{p.Line, p.Column, fmt.Sprintf("the file has more than %d words and signs", tokensMost)}
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			open++
		case token.MappingEndType, token.SequenceEndType:
			open = max(0, open-1)
		case token.TagType, token.AnchorType:
			if marks++; marks > nodesMost/50 {
				return &treeError{p.Line, p.Column, "the file has too many tags and anchors"}
			}
			if t.Type == token.TagType && !saysNothing(t.Value) {
				return &treeError{p.Line, p.Column, "tags have no meaning here; put text that begins with ! in quotes"}
			}
		}
		nests := t.Type == token.SequenceEntryType || t.Type == token.MappingKeyType
		if p.Line > line && open == 0 || nests {
			for len(columns) > 0 && columns[len(columns)-1] >= p.Column {
				columns = columns[:len(columns)-1]
			}
			columns = append(columns, p.Column)
		}
		line = max(line, p.Line)
		if len(columns)+open > depthMost {
			return &treeError{p.Line, p.Column, fmt.Sprintf("this is more than %d levels deep", depthMost)}
		}
	}
	return nil
}

// saysNothing says whether a tag only repeats what is there: values are read
// as the key that they stand under wants them.
func saysNothing(tag string) bool {
	switch tag {
	case "!!str", "!!int", "!!float", "!!bool", "!!map", "!!seq":
		return true
	}
	return false
}

// syntaxError takes place and sentence from the parser's error, never the
// text around it: a secret may stand there.
func syntaxError(err error) error {
	var e interface {
		error
		GetToken() *token.Token
		GetMessage() string
	}
	if !errors.As(err, &e) {
		return &treeError{message: "this is not YAML"}
	}
	line, column := at(e.GetToken())
	message := "this is not YAML: " + e.GetMessage()
	switch {
	case strings.Contains(e.GetMessage(), "'\t'"):
		message = "a tab indents this line: YAML wants spaces"
	case strings.Contains(e.GetMessage(), "mapping value is not allowed"):
		message += "; put a value with a colon and a space in quotes"
	case strings.Contains(e.GetMessage(), "must be specified"):
		message += "; put text with { } [ ] or a comma in quotes"
	}
	return &treeError{line, column, message}
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
		if t := n.GetToken(); t != nil && t.Type != token.ImplicitNullType {
			v.text = t.Value // where values keep their literal text, null does too
		}
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
		x, err := t.read(n.Value, depth+1)
		if err == nil {
			t.anchors[n.Name.GetToken().Value] = x
		}
		return x, err
	case *ast.AliasNode:
		x := t.anchors[n.Value.GetToken().Value]
		if x == nil {
			// Its name is not repeated: it may be a secret that begins with *.
			return nil, &treeError{v.line, v.column, "there is no anchor of this name before it; put text that begins with * in quotes"}
		}
		// What stands here again counts again, so that a few lines cannot
		// stand for a million.
		if t.nodes += count(x, nodesMost); t.nodes > nodesMost {
			return nil, &treeError{v.line, v.column, fmt.Sprintf("with its aliases the file has more than %d values", nodesMost)}
		}
		return x, nil
	case *ast.TagNode:
		x, err := t.read(n.Value, depth+1)
		if err == nil && x.null && n.GetToken().Value == "!!str" {
			x.null, x.scalar = false, true
		}
		return x, err
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
		switch m.Key.(type) {
		case *ast.MappingKeyNode, *ast.AliasNode, *ast.AnchorNode:
			return &treeError{e.line, e.column, "a key is a plain word here, without ?, * and &"}
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
// in the section itself counts. fold gives the one spelling of a key.
func merged(v *value, fold func(string) string) ([]entry, *treeError) {
	var own, brought []entry
	var merge *entry
	for i, e := range v.entries {
		if e.name != mergeKey {
			own = append(own, e)
			continue
		}
		if merge != nil {
			return nil, &treeError{e.line, e.column, fmt.Sprintf("<< is written twice, first in line %d: write <<: [*one, *two]", merge.line)}
		}
		merge = &v.entries[i]
		sources := []*value{e.value}
		if e.value.isList {
			sources = e.value.list
		}
		for _, s := range sources {
			if !s.isMap {
				return nil, &treeError{e.line, e.column, "<< takes a section, or a list of sections"}
			}
			more, err := merged(s, fold)
			if err != nil {
				return nil, err
			}
			if err := once(more, fold); err != nil {
				return nil, err
			}
			brought = append(brought, more...)
		}
	}
	seen := map[string]bool{}
	for _, e := range own {
		seen[fold(e.name)] = true
	}
	for _, e := range brought {
		if name := fold(e.name); !seen[name] {
			seen[name] = true
			own = append(own, e)
		}
	}
	return own, nil
}

// once refuses a key that stands twice in what << brings.
func once(list []entry, fold func(string) string) *treeError {
	lines := map[string]int{}
	for _, e := range list {
		name := fold(e.name)
		if line, ok := lines[name]; ok {
			return &treeError{e.line, e.column, fmt.Sprintf("%s is written twice in what << brings; first in line %d", name, line)}
		}
		lines[name] = e.line
	}
	return nil
}
