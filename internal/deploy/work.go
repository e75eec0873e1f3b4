package deploy

import (
	"fmt"
	"regexp"
	"regexp/syntax"
)

// Bounds of what one expression may do, whatever was sent: an outsider chooses
// how long a text is that it looks through.
const (
	workSteps    = 100_000_000 // steps of comparing and searching; about a second
	patternBytes = 1000        // of what matches looks for
)

// workName is the name by which functions get the work that is left; no
// expression can write it.
const workName = "__work"

// work is how many steps an expression has left.
type work struct{ left int }

// spend takes steps off what is left.
func (w *work) spend(steps int) error {
	if w.left -= steps; w.left < 0 {
		return badOperand("it takes more than %d million steps: the texts that it looks through are too long", workSteps/1_000_000)
	}
	return nil
}

// pattern compiles what matches looks for in a text. It costs as many steps as
// the text has bytes, for each of its own instructions.
func (w *work) pattern(text, in string) (*regexp.Regexp, error) {
	if len(text) > patternBytes {
		return nil, badOperand("the pattern of matches has %d bytes; at most %d are allowed", len(text), patternBytes)
	}
	re, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, badOperand("matches: %v", err)
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return nil, badOperand("matches: %v", err)
	}
	if err := w.spend((len(in) + 1) * len(prog.Inst)); err != nil {
		return nil, err
	}
	return regexp.Compile(text)
}

// equal says whether two values are the same: numbers by what they are worth,
// lists and objects by what is in them.
func (w *work) equal(a, b any) (bool, error) {
	if err := w.spend(1); err != nil {
		return false, err
	}
	if c, ok := compareNumbers(a, b); ok {
		return c == 0, nil
	}
	switch x := a.(type) {
	case nil:
		return b == nil, nil
	case bool:
		y, ok := b.(bool)
		return ok && x == y, nil
	case string:
		y, ok := b.(string)
		if !ok || len(x) != len(y) {
			return false, nil
		}
		return x == y, w.spend(len(x))
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false, nil
		}
		for k, v := range x {
			other, ok := y[k]
			if !ok {
				return false, nil
			}
			if is, err := w.equal(v, other); !is || err != nil {
				return false, err
			}
		}
		return true, nil
	}
	x, okX := listOf(a)
	y, okY := listOf(b)
	if !okX || !okY || len(x) != len(y) {
		return false, nil
	}
	for i := range x {
		if is, err := w.equal(x[i], y[i]); !is || err != nil {
			return false, err
		}
	}
	return true, nil
}

// within says whether a list has a member.
func (w *work) within(v any, list []any) (bool, error) {
	for _, m := range list {
		if is, err := w.equal(v, m); is || err != nil {
			return is, err
		}
	}
	return false, nil
}

// listOf gives the members of a list; those that stand in an expression may be
// of one type.
func listOf(v any) ([]any, bool) {
	switch v := v.(type) {
	case []any:
		return v, true
	case []string:
		return anyOf(v), true
	case []int:
		return anyOf(v), true
	case []float64:
		return anyOf(v), true
	case []bool:
		return anyOf(v), true
	}
	return nil, false
}

func anyOf[T any](list []T) []any {
	all := make([]any, len(list))
	for i, v := range list {
		all[i] = v
	}
	return all
}

// segment is a member of a path: a key or an index.
type segment any

// exprPath is a path of the payload that an expression names.
type exprPath struct {
	text     string
	segments []segment
}

// missing names the first path of the payload that the expression names and
// that is not there; empty = there is none.
func (e *Expr) missing(ev *Event) string {
	if len(e.paths) == 0 || ev.Payload == nil {
		return ""
	}
	payload := ev.Payload()
	for _, p := range e.paths {
		v := payload
		for _, s := range p.segments {
			next, err := get(v, any(s), p.text)
			if err != nil {
				return ""
			}
			v = next
		}
		if v == nil {
			return clip(p.text)
		}
	}
	return ""
}

// word is a segment as it stands in a path.
func word(s segment) string {
	if k, ok := s.(string); ok {
		return "." + k
	}
	return fmt.Sprintf("[%v]", s)
}
