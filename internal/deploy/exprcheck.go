package deploy

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// nameVisitor finds what an expression must not have, and notes the names
// that it uses. It sees what stands within a node before the node itself.
type nameVisitor struct {
	names map[string]bool
	needs []string
	paths []exprPath
	bare  map[*ast.Node]string // functions that stand without a call, so far
	err   error
}

func (v *nameVisitor) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		v.name(n.Value, node)
	case *ast.CallNode:
		delete(v.bare, &n.Callee)
		if id, ok := n.Callee.(*ast.IdentifierNode); ok {
			v.call(id.Value, n.Arguments)
		}
	case *ast.BuiltinNode:
		if !slices.Contains(exprBuiltins, n.Name) {
			v.fail(fmt.Errorf("unknown name %q", n.Name))
		}
	case *ast.MemberNode:
		v.member(n)
	case *ast.BinaryNode:
		v.operator(n)
	}
}

func (v *nameVisitor) name(name string, node *ast.Node) {
	v.names[name] = true
	switch {
	case slices.Contains(exprFunctions, name):
		v.bare[node] = name
	case slices.Contains(exprNames, name) || slices.Contains(exprBuiltins, name):
	case name == "secrets" || name == "secret":
		v.fail(errors.New("secrets are not part of expressions: give one to a job with secrets: {VARIABLE: name}"))
	case elsewhereNames[name] != "":
		v.fail(fmt.Errorf("unknown name %q; %s", name, elsewhereNames[name]))
	default:
		hint := DidYouMean(name, slices.Concat(exprNames, exprFunctions))
		if hint == "" {
			hint = "; text stands in quotes"
		}
		v.fail(fmt.Errorf("unknown name %q%s", name, hint))
	}
}

// elsewhereNames says what to write for names that people bring along.
var elsewhereNames = map[string]string{
	"github":      "names stand alone here, like branch, ref, sha, actor and event; what was sent is payload",
	"gitea":       "names stand alone here, like branch, ref, sha, actor and event; what was sent is payload",
	"event_name":  "write event",
	"ref_name":    "write branch or tag",
	"head_commit": "write message, or payload.head_commit",
	"commit":      "write sha, or payload.head_commit",
	"steps":       "success() and failure() tell how the steps before it ended",
	"vars":        "write env.NAME",
	"runner":      "a step finds the name of its host in DEPLOYHOOK_HOST",
	"matrix":      "there is no matrix: write the jobs out",
	"hashFiles":   noFunction, "toJSON": noFunction, "fromJSON": noFunction, "format": noFunction, "join": noFunction,
}

const noFunction = "the functions are success, failure, always, canceled, changed, len, lower, upper, trim, int, float and string"

// call checks what a function of ours is given.
func (v *nameVisitor) call(name string, args []ast.Node) {
	switch {
	case name == "changed":
		v.changed(args)
	case slices.Contains(exprFunctions, name) && len(args) > 0:
		v.fail(fmt.Errorf("%s() takes nothing between its brackets", name))
	}
}

func (v *nameVisitor) changed(args []ast.Node) {
	if len(args) != 1 {
		v.fail(errors.New(`changed takes one pattern, like changed("src/**")`))
		return
	}
	// Checked patterns are kept: what an outsider wrote must not be one.
	a, ok := args[0].(*ast.StringNode)
	if !ok {
		v.fail(errors.New(`changed takes a pattern in quotes, like changed("src/**")`))
		return
	}
	if err := ValidGlob(a.Value); err != nil {
		v.fail(fmt.Errorf("changed: %w", err))
	}
}

// member looks at a.b: what is text has no members, and needs.JOB names a job.
func (v *nameVisitor) member(n *ast.MemberNode) {
	if root, segments := segmentsOf(n); root == "payload" && len(segments) > 0 {
		p := exprPath{text: root, segments: segments}
		for _, s := range segments {
			p.text += word(s)
		}
		v.paths = append(v.paths, p)
	}
	base, ok := n.Node.(*ast.IdentifierNode)
	if !ok {
		return
	}
	property, _ := n.Property.(*ast.StringNode)
	switch {
	case base.Value == "needs" && property != nil:
		if !slices.Contains(v.needs, property.Value) {
			v.needs = append(v.needs, property.Value)
		}
	case slices.Contains(textNames, base.Value) && base.Value == "event":
		v.fail(errors.New("event is text, like \"push\"; what was sent is payload"))
	case slices.Contains(textNames, base.Value):
		v.fail(fmt.Errorf("%s is text and has no members", base.Value))
	}
}

func (v *nameVisitor) operator(n *ast.BinaryNode) {
	switch s, ok := n.Right.(*ast.StringNode); {
	case n.Operator == "..":
		v.fail(errors.New("ranges are not part of expressions: compare with >= and <="))
	case n.Operator == "matches" && ok:
		if _, err := regexp.Compile(s.Value); err != nil {
			v.fail(fmt.Errorf("matches: %w", err))
		}
	}
	// needs.my-job reads as needs.my minus job.
	if m, ok := n.Left.(*ast.MemberNode); ok && n.Operator == "-" {
		base, okBase := m.Node.(*ast.IdentifierNode)
		prop, okProp := m.Property.(*ast.StringNode)
		right := rootName(n.Right)
		if okBase && okProp && base.Value == "needs" && right != "" {
			v.fail(fmt.Errorf(`needs.%s-%s is a subtraction: write needs["%s-%s"]`, prop.Value, right, prop.Value, right))
		}
	}
}

// fail keeps an error; the most telling one is that of needs.my-job.
func (v *nameVisitor) fail(err error) {
	if v.err == nil || strings.Contains(err.Error(), "subtraction") {
		v.err = err
	}
}

// wrong is what was found. A function without its brackets would be taken for
// a value, and an if with it would always be true.
func (v *nameVisitor) wrong() error {
	if v.err != nil {
		return v.err
	}
	if len(v.bare) == 0 {
		return nil
	}
	name := slices.Min(slices.Collect(maps.Values(v.bare)))
	if name == "changed" {
		return errors.New(`changed is a function: write changed("src/**")`)
	}
	return fmt.Errorf("%s is a function: write %s()", name, name)
}

// segmentsOf takes a path of fixed keys and indexes apart; no segments where it
// has others.
func segmentsOf(n ast.Node) (root string, segments []segment) {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		return n.Value, nil
	case *ast.ChainNode:
		return segmentsOf(n.Node)
	case *ast.MemberNode:
		root, segments = segmentsOf(n.Node)
		if _, first := n.Node.(*ast.IdentifierNode); !first && segments == nil {
			return "", nil
		}
		switch p := n.Property.(type) {
		case *ast.StringNode:
			return root, append(segments, p.Value)
		case *ast.IntegerNode:
			return root, append(segments, p.Value)
		}
	}
	return "", nil
}

// rootName is the name that a path begins with.
func rootName(n ast.Node) string {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		return n.Value
	case *ast.MemberNode:
		return rootName(n.Node)
	case *ast.ChainNode:
		return rootName(n.Node)
	}
	return ""
}

var (
	callForm        = regexp.MustCompile(`\b(contains|startsWith|endsWith|matches)\s*\(`)
	unexpectedToken = regexp.MustCompile(`^unexpected token (?:\w+)(?:\("(.*)"\))? \(\d+:\d+\)$`)
)

// explain turns the library's error into one sentence.
func explain(src string, err error) error {
	if m := callForm.FindStringSubmatch(src); m != nil {
		return fmt.Errorf("%s is an operator: write a %s b, not %s(a, b)", m[1], m[1], m[1])
	}
	err = firstLine(err)
	switch m := unexpectedToken.FindStringSubmatch(err.Error()); {
	case m == nil:
		return err
	case m[1] == "":
		return errors.New("the expression breaks off: something is missing at its end")
	case m[1] == "=":
		return errors.New("= does not compare: write ==")
	default:
		return fmt.Errorf("%q is not expected there", m[1])
	}
}
