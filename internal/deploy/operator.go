package deploy

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// operator is one of the language on values of any kind: what a payload has is
// known only when it is there. left and right are the operands' paths.
type operator func(w *work, a, b any, left, right string) (bool, error)

func (o operator) call(args ...any) (any, error) {
	return o(args[4].(*work), args[0], args[1], args[2].(string), args[3].(string))
}

// operators stand for the library's, which know neither null nor the path that
// was wrong.
var operators = map[string]operator{
	"==": func(w *work, a, b any, _, _ string) (bool, error) { return w.equal(a, b) },
	"!=": func(w *work, a, b any, _, _ string) (bool, error) {
		is, err := w.equal(a, b)
		return !is && err == nil, err
	},
	"in":         within,
	"contains":   contains,
	"startsWith": onStrings("startsWith", strings.HasPrefix),
	"endsWith":   onStrings("endsWith", strings.HasSuffix),
	"matches":    matches,
	"<":          ordered("<", func(c int) bool { return c < 0 }),
	"<=":         ordered("<=", func(c int) bool { return c <= 0 }),
	">":          ordered(">", func(c int) bool { return c > 0 }),
	">=":         ordered(">=", func(c int) bool { return c >= 0 }),
}

// operandError is an operand of the wrong kind; it names its path.
type operandError struct{ text string }

func (e *operandError) Error() string { return e.text }

func badOperand(format string, args ...any) error {
	return &operandError{fmt.Sprintf(format, args...)}
}

// contains looks for a part of a string or for a member of a list.
func contains(w *work, a, b any, left, right string) (bool, error) {
	if list, ok := listOf(a); ok {
		return w.within(b, list)
	}
	return onStrings("contains", strings.Contains)(w, a, b, left, right)
}

// within looks for a member of a list or a key of an object; null has none.
func within(w *work, a, b any, _, right string) (bool, error) {
	if b == nil {
		return false, nil
	}
	if list, ok := listOf(b); ok {
		return w.within(a, list)
	}
	object, ok := b.(map[string]any)
	if !ok {
		return false, badOperand("%s is %s: in looks into a list or an object", right, kindOf(b))
	}
	key, ok := a.(string)
	_, is := object[key]
	return ok && is, nil
}

// matches looks for a regular expression in a string.
func matches(w *work, a, b any, left, right string) (bool, error) {
	pattern, ok := b.(string)
	if !ok {
		return false, badOperand("matches takes a pattern in quotes, and %s is %s", right, kindOf(b))
	}
	in, _ := a.(string)
	re, err := w.pattern(pattern, in)
	if err != nil {
		return false, err
	}
	return onStrings("matches", func(a, _ string) bool { return re.MatchString(a) })(w, a, b, left, right)
}

// onStrings is fn on two strings; with null it is false.
func onStrings(name string, fn func(a, b string) bool) operator {
	return func(w *work, a, b any, left, right string) (bool, error) {
		if a == nil || b == nil {
			return false, nil
		}
		x, okA := a.(string)
		y, okB := b.(string)
		if err := w.spend(len(x) + len(y)); err != nil {
			return false, err
		}
		switch {
		case !okA:
			return false, badOperand("%s is %s: %s compares strings", left, kindOf(a), name)
		case !okB:
			return false, badOperand("%s is %s: %s compares strings", right, kindOf(b), name)
		}
		return fn(x, y), nil
	}
}

// ordered compares two numbers or two strings; with null it is false.
func ordered(name string, is func(c int) bool) operator {
	return func(w *work, a, b any, left, right string) (bool, error) {
		if a == nil || b == nil {
			return false, nil
		}
		if c, ok := compareNumbers(a, b); ok {
			return is(c), nil
		}
		x, okA := a.(string)
		y, okB := b.(string)
		if !okA || !okB {
			return false, badOperand("%s is %s and %s is %s: %s compares two numbers or two strings", left, kindOf(a), right, kindOf(b), name)
		}
		return is(strings.Compare(x, y)), w.spend(min(len(x), len(y)))
	}
}

// compareNumbers compares two numbers; two whole ones exactly.
func compareNumbers(a, b any) (c int, ok bool) {
	x, okX := a.(int)
	y, okY := b.(int)
	if okX && okY {
		return cmp.Compare(x, y), true
	}
	f, okF := float(a)
	g, okG := float(b)
	return cmp.Compare(f, g), okF && okG
}

func float(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

// truthFunction stands around whatever && || ! and ? ask for its truth.
const truthFunction = "__truth"

func truthOf(n ast.Node) ast.Node {
	return &ast.CallNode{Callee: &ast.IdentifierNode{Value: truthFunction}, Arguments: []ast.Node{n}}
}

// truth is a value as an if takes it: null, false, 0 and "" are false.
func truth(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case int:
		return v != 0
	case float64:
		return v != 0
	}
	return true
}
