package deploy

import (
	"errors"
	"fmt"
	"strings"
)

// templateBytes bounds what a template expands to.
const templateBytes = 64 << 10

// Template is a value with ${{ }} in it.
type Template struct {
	source string
	parts  []templatePart // nil = the source as it is
}

type templatePart struct {
	text string
	expr *Expr // nil = text
}

// CompileTemplate checks the expressions in a value.
func CompileTemplate(src string) (Template, error) { return compileTemplate(src, false) }

// CompileNoticeTemplate is [CompileTemplate] for the text of a notification,
// which has the names of [Notice] besides.
func CompileNoticeTemplate(src string) (Template, error) { return compileTemplate(src, true) }

func compileTemplate(src string, notice bool) (Template, error) {
	t := Template{source: src}
	rest := src
	for {
		before, after, found := strings.Cut(rest, "${{")
		if !found {
			break
		}
		inside, tail, closed := cutExpression(after)
		if !closed && strings.Contains(after, "}}") {
			return Template{}, errors.New("within ${{ }} a quote has no end")
		}
		if !closed {
			return Template{}, errors.New("${{ has no }}")
		}
		e, err := compileExpr(inside, notice)
		if err != nil {
			return Template{}, fmt.Errorf("${{%s}}: %w", inside, err)
		}
		if e.UsesChanged() || e.UsesStatus() {
			return Template{}, fmt.Errorf("${{%s}}: success(), failure(), always(), canceled() and changed() stand only in an if", inside)
		}
		if before != "" {
			t.parts = append(t.parts, templatePart{text: before})
		}
		t.parts = append(t.parts, templatePart{expr: e})
		rest = tail
	}
	if t.parts != nil && rest != "" {
		t.parts = append(t.parts, templatePart{text: rest})
	}
	return t, nil
}

// cutExpression cuts at the }} that ends an expression: one within quotes is
// a part of it.
func cutExpression(s string) (inside, rest string, closed bool) {
	quote := byte(0)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0 && c == '\\' && quote != '`':
			i++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'' || c == '`':
			quote = c
		case strings.HasPrefix(s[i:], "}}"):
			return s[:i], s[i+2:], true
		}
	}
	return "", "", false
}

// Source is the value as it was written.
func (t Template) Source() string { return t.source }

// Needs are the jobs that its expressions name.
func (t Template) Needs() []string {
	var list []string
	for _, p := range t.parts {
		if p.expr != nil {
			list = append(list, p.expr.Needs()...)
		}
	}
	return list
}

// Literal gives the value of a template without expressions.
func (t Template) Literal() (string, bool) { return t.source, t.parts == nil }

// Expand gives the value: null is empty, lists and objects are JSON. A value
// with a NUL byte, or of more than 64 KiB, is an error.
func (t Template) Expand(s *Scope) (string, error) {
	if t.parts == nil {
		return t.source, nil
	}
	var b strings.Builder
	for _, p := range t.parts {
		if p.expr == nil {
			b.WriteString(p.text)
			continue
		}
		v, err := p.expr.value(s)
		if err != nil {
			return "", err
		}
		str, err := text(v, templateBytes)
		if err != nil {
			return "", fmt.Errorf("%s: %w", strings.TrimSpace(p.expr.source), err)
		}
		if strings.IndexByte(str, 0) >= 0 {
			return "", fmt.Errorf("%s has a NUL byte, which a variable cannot hold", strings.TrimSpace(p.expr.source))
		}
		if b.Len()+len(str) > templateBytes {
			return "", fmt.Errorf("the value is over %d KiB", templateBytes>>10)
		}
		b.WriteString(str)
	}
	return b.String(), nil
}
