package deploy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm"
)

// Bounds of an expression. Loops over lists are not in the language, so these
// bound time too.
const (
	exprBytes = 4 << 10
	exprNodes = 500
)

// Expr is a checked expression, an if: or the inside of ${{ }}.
type Expr struct {
	source  string
	program *vm.Program
	names   map[string]bool // names and functions that it uses
	needs   []string        // jobs that it names as needs.JOB
	paths   []exprPath      // of the payload
}

// Scope is what an expression sees.
type Scope struct {
	Event       *Event
	SHA         string            // the commit, once it is known
	Env         map[string]string // of the file, never the daemon's
	Job         string
	Needs       map[string]NeedResult // by job
	Status      Status
	Environment string
	Inputs      map[string]any         // as declared; nil = the event's, as text
	Changed     func(glob string) bool // nil = no path has changed
}

// NeedResult is what a job came to, for those after it.
type NeedResult struct {
	Result  State
	Outputs map[string]string
}

// Status is what success(), failure() and canceled() tell. What was skipped
// did not succeed, and did not fail either.
type Status struct{ Failed, Canceled, Skipped bool }

var exprNames = []string{
	"event", "branch", "tag", "sha", "ref", "before", "actor", "repo", "message", "payload", "inputs", "env",
	"job", "needs", "environment",
}

// textNames are those that are text, whatever was sent.
var textNames = []string{"event", "branch", "tag", "sha", "ref", "before", "actor", "repo", "message", "job", "environment"}

var exprFunctions = []string{"success", "failure", "always", "canceled", "changed"}

// Words are the names and the functions that expressions have.
func Words() (names, functions []string) {
	return slices.Clone(exprNames), slices.Clone(exprFunctions)
}

// exprBuiltins are those of the library that neither loop nor allocate much.
var exprBuiltins = []string{"len", "lower", "upper", "trim", "int", "float", "string"}

// getFunction stands for every member access: see [memberPatch].
const getFunction = "__get"

// CompileExpr checks an expression. The error is one sentence.
func CompileExpr(src string) (*Expr, error) {
	if len(src) > exprBytes {
		return nil, fmt.Errorf("the expression has %d bytes; at most %d are allowed", len(src), exprBytes)
	}
	if strings.TrimSpace(src) == "" {
		return nil, errors.New("the expression is empty")
	}
	if strings.Contains(src, "${{") {
		return nil, errors.New("an if is a bare expression: leave out ${{ and }}")
	}
	names := &nameVisitor{names: map[string]bool{}, bare: map[*ast.Node]string{}}
	opts := []expr.Option{
		expr.Env(exprEnv()), expr.MaxNodes(exprNodes), expr.DisableAllBuiltins(),
		expr.Patch(names), expr.Patch(memberPatch{}), expr.Function(getFunction, get),
	}
	for name, fn := range operators {
		opts = append(opts, expr.Function("__"+name, fn.call))
	}
	for name, fn := range functions {
		opts = append(opts, expr.Function("__"+name, func(args ...any) (any, error) {
			if s, ok := args[0].(string); ok {
				if err := args[2].(*work).spend(len(s)); err != nil {
					return nil, err
				}
			}
			return fn(args[0], args[1].(string))
		}))
	}
	for name, fn := range arithmetic {
		opts = append(opts, expr.Function("__"+name, func(args ...any) (any, error) {
			return fn(args[0], args[1], args[2].(string), args[3].(string))
		}))
	}
	opts = append(opts, expr.Function("__+", func(args ...any) (any, error) {
		return add(args[0], args[1], args[2].(string), args[3].(string))
	}))
	opts = append(opts, expr.Function(truthFunction, func(args ...any) (any, error) { return truth(args[0]), nil }))
	for _, b := range exprBuiltins {
		opts = append(opts, expr.EnableBuiltin(b))
	}
	program, err := expr.Compile(src, opts...)
	if err := names.wrong(); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, explain(src, err)
	}
	return &Expr{source: src, program: program, names: names.names, needs: names.needs, paths: names.paths}, nil
}

// Source is the expression as it was written.
func (e *Expr) Source() string { return e.source }

// Uses says whether a name or a function stands in it.
func (e *Expr) Uses(name string) bool { return e.names[name] }

// Needs are the jobs that it names, as needs.test or needs["my-job"].
func (e *Expr) Needs() []string { return e.needs }

// UsesChanged says whether it asks which paths have changed.
func (e *Expr) UsesChanged() bool { return e.names["changed"] }

// UsesStatus says whether it asks how the jobs or steps before it ended;
// one that does not has success() before it.
func (e *Expr) UsesStatus() bool {
	return e.names["success"] || e.names["failure"] || e.names["always"] || e.names["canceled"]
}

// CleansUp says whether it may be true after a cancel: then what it stands at
// is not canceled with the rest.
func (e *Expr) CleansUp() bool { return e.names["always"] || e.names["canceled"] }

// Eval gives the expression's truth: null, false, 0 and "" are false. An error
// is false too, and why says which path it was and what is wrong with it.
func (e *Expr) Eval(s *Scope) (ok bool, why string) {
	v, err := e.value(s)
	if err != nil {
		return false, err.Error()
	}
	return truth(v), ""
}

func (e *Expr) value(s *Scope) (any, error) {
	v, err := expr.Run(e.program, s.env(e.names["payload"]))
	var ours *operandError
	switch {
	case errors.As(err, &ours):
		return nil, ours
	case err != nil:
		// The library does not say which path it was: the expression does.
		text := strings.ReplaceAll(place.ReplaceAllString(firstLine(err).Error(), ""), "<nil>", "null")
		return nil, fmt.Errorf("%s: %s", clip(strings.TrimSpace(e.source)), text)
	}
	return v, nil
}

// place is where the library says that an error is: line and column.
var place = regexp.MustCompile(` \(\d+:\d+\)$`)

// env is the scope by the names of the language; the payload is decoded only
// where it is used.
func (s *Scope) env(usesPayload bool) map[string]any {
	ev := s.Event
	if ev == nil {
		ev = &Event{}
	}
	needs := map[string]any{}
	for name, n := range s.Needs {
		outputs := map[string]any{}
		for k, v := range n.Outputs {
			outputs[k] = v
		}
		needs[name] = map[string]any{"result": string(n.Result), "outputs": outputs}
	}
	env, inputs := map[string]any{}, map[string]any{}
	for k, v := range s.Env {
		env[k] = v
	}
	for k, v := range ev.Inputs {
		inputs[k] = v
	}
	if s.Inputs != nil {
		inputs = s.Inputs
	}
	var payload any
	if usesPayload && ev.Payload != nil {
		payload = ev.Payload()
	}
	sha := s.SHA
	if sha == "" {
		sha = ev.Commit
	}
	return map[string]any{
		"event": string(ev.Kind), "branch": ev.Branch, "tag": ev.Tag, "sha": sha, "ref": ev.Ref, "before": ev.Before,
		"actor": ev.Actor, "repo": ev.Repository, "message": ev.Message, "payload": payload, "inputs": inputs,
		workName: &work{left: workSteps},
		"env":    env, "job": s.Job, "needs": needs, "environment": s.Environment,
		"success":  func() bool { return s.Status == Status{} },
		"failure":  func() bool { return s.Status.Failed },
		"always":   func() bool { return true },
		"canceled": func() bool { return s.Status.Canceled },
		"changed":  func(glob string) bool { return s.Changed != nil && s.Changed(glob) },
	}
}

// exprEnv has the types of all names: what is an outsider's may be anything.
func exprEnv() map[string]any {
	env := (&Scope{}).env(false)
	for _, n := range exprNames {
		env[n] = any(nil)
	}
	env[workName] = any(nil)
	return env
}

// get reads a member: a path that is missing is null, one through something
// that has no members is an error that names it.
func get(args ...any) (any, error) {
	path := args[2].(string)
	switch v := args[0].(type) {
	case nil:
		return nil, nil
	case map[string]any:
		key, ok := args[1].(string)
		if !ok {
			return nil, badOperand("%s is an object: its keys are strings", path)
		}
		return v[key], nil
	case []any:
		i, ok := number(args[1])
		if !ok {
			return nil, badOperand("%s is a list: its members are numbers", path)
		}
		if i < 0 {
			i += len(v)
		}
		if i < 0 || i >= len(v) {
			return nil, nil
		}
		return v[i], nil
	default:
		if key, ok := args[1].(string); ok {
			return nil, badOperand("%s is %s, not an object: there is no %s", path, kindOf(v), clip(path+"."+key))
		}
		return nil, badOperand("%s is %s, not an object", path, kindOf(v))
	}
}

func number(v any) (int, bool) {
	switch v := v.(type) {
	case int:
		return v, true
	case float64:
		return int(v), v == float64(int(v))
	}
	return 0, false
}

func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case int, float64:
		return "a number"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return fmt.Sprintf("a %T", v)
}

// memberPatch turns a.b into a call of get, so that a missing path is null and
// a wrong one says where; operators become calls of [operators], and what is
// asked for its truth has one, whatever it is.
type memberPatch struct{}

func (memberPatch) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.MemberNode:
		ast.Patch(node, &ast.CallNode{
			Callee:    &ast.IdentifierNode{Value: getFunction},
			Arguments: []ast.Node{n.Node, n.Property, &ast.StringNode{Value: pathOf(n.Node)}},
		})
	case *ast.ChainNode:
		ast.Patch(node, n.Node)
	case *ast.BinaryNode:
		switch {
		case operators[n.Operator] != nil || arithmetic[n.Operator] != nil || n.Operator == "+":
			ast.Patch(node, &ast.CallNode{
				Callee: &ast.IdentifierNode{Value: "__" + n.Operator},
				Arguments: []ast.Node{
					n.Left, n.Right, &ast.StringNode{Value: pathOf(n.Left)}, &ast.StringNode{Value: pathOf(n.Right)}, &ast.IdentifierNode{Value: workName},
				},
			})
		case slices.Contains([]string{"&&", "and", "||", "or"}, n.Operator):
			n.Left, n.Right = truthOf(n.Left), truthOf(n.Right)
		}
	case *ast.BuiltinNode:
		if functions[n.Name] != nil && len(n.Arguments) == 1 {
			ast.Patch(node, &ast.CallNode{
				Callee:    &ast.IdentifierNode{Value: "__" + n.Name},
				Arguments: []ast.Node{n.Arguments[0], &ast.StringNode{Value: pathOf(n.Arguments[0])}, &ast.IdentifierNode{Value: workName}},
			})
		}
	case *ast.UnaryNode:
		if n.Operator == "!" || n.Operator == "not" {
			n.Node = truthOf(n.Node)
		}
	case *ast.ConditionalNode:
		n.Cond = truthOf(n.Cond)
	}
}

// pathOf writes a path as it stands in the expression.
func pathOf(n ast.Node) string {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		return n.Value
	case *ast.CallNode:
		if id, ok := n.Callee.(*ast.IdentifierNode); ok && id.Value == getFunction && len(n.Arguments) == 3 {
			base := pathOf(n.Arguments[0])
			switch p := n.Arguments[1].(type) {
			case *ast.StringNode:
				return base + "." + p.Value
			case *ast.IntegerNode:
				return fmt.Sprintf("%s[%d]", base, p.Value)
			}
			return base + "[…]"
		}
	case *ast.ChainNode:
		return pathOf(n.Node)
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NilNode:
		return clip(n.String())
	}
	return "the value"
}

// firstLine is the library's error without its drawing of the place.
func firstLine(err error) error {
	text, _, _ := strings.Cut(err.Error(), "\n")
	return errors.New(strings.TrimSpace(text))
}
