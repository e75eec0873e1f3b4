package git

import (
	"fmt"
	"strings"
)

// configLine is one value of a file in git's config format.
type configLine struct {
	name, sub, key, value string // name and key in lower case
}

// parseConfig reads .gitmodules and .lfsconfig.
//
// Source: git-config(1), "Syntax".
func parseConfig(text string) ([]configLine, error) {
	var list []configLine
	var at configLine
	p := &configParser{s: strings.ReplaceAll(strings.TrimPrefix(text, "\ufeff"), "\r\n", "\n")}
	for line := 1; p.s != ""; line += p.lines {
		p.lines = 0
		p.blank()
		bad := false
		switch c := p.next(); {
		case c == 0:
			return list, nil
		case c == '\n':
			p.take(1)
			p.lines++
		case c == '#' || c == ';':
			p.comment()
		case c == '[':
			at, bad = p.section()
		default:
			at.key, at.value, bad = p.pair()
			if at.name == "" {
				bad = true
			}
			list = append(list, at)
		}
		if bad {
			return nil, fmt.Errorf("line %d is not in git's config format", line)
		}
	}
	return list, nil
}

type configParser struct {
	s     string
	lines int // read since the last line
}

func (p *configParser) next() byte { return at(p.s, 0) }

func (p *configParser) take(n int) { p.s = p.s[n:] }

func (p *configParser) blank() { p.s = strings.TrimLeft(p.s, " \t") }

func (p *configParser) comment() {
	n := strings.IndexByte(p.s, '\n')
	if n < 0 {
		n = len(p.s)
	}
	p.take(n)
}

// word takes letters, digits, - and, with dots, dots.
func (p *configParser) word(dots bool) string {
	n := 0
	for n < len(p.s) && (isAlnum(p.s[n]) || p.s[n] == '-' || dots && p.s[n] == '.') {
		n++
	}
	w := p.s[:n]
	p.take(n)
	return strings.ToLower(w)
}

// section reads [name], [name "sub"] or [name.sub].
func (p *configParser) section() (l configLine, bad bool) {
	p.take(1)
	l.name = p.word(true)
	if i := strings.IndexByte(l.name, '.'); i >= 0 {
		l.name, l.sub = l.name[:i], l.name[i+1:]
	}
	p.blank()
	if p.next() == '"' {
		var b strings.Builder
		for p.take(1); p.next() != '"'; p.take(1) {
			if p.next() == '\\' {
				p.take(1)
			}
			if c := p.next(); c == 0 || c == '\n' {
				return l, true
			}
			b.WriteByte(p.next())
		}
		p.take(1)
		l.sub = b.String()
	}
	if l.name == "" || p.next() != ']' {
		return l, true
	}
	p.take(1)
	return l, false
}

// pair reads key = value; a key alone is true.
func (p *configParser) pair() (key, value string, bad bool) {
	key = p.word(false)
	p.blank()
	switch c := p.next(); {
	case key == "":
		return "", "", true
	case c == 0 || c == '\n' || c == '#' || c == ';':
		return key, "true", false
	case c != '=':
		return "", "", true
	}
	p.take(1)
	p.blank()
	var b strings.Builder
	quoted, end := false, 0 // end of what is not white space at the end
	for p.s != "" {
		c := p.next()
		switch {
		case c == '\n' && !quoted:
			return key, b.String()[:end], false
		case c == '\n' || c == 0:
			return "", "", true
		case c == '"':
			quoted = !quoted
			p.take(1)
			end = b.Len()
			continue
		case (c == '#' || c == ';') && !quoted:
			p.comment()
			continue
		case c == '\\':
			p.take(1)
			n := strings.IndexByte("\n\\\"ntb", p.next())
			if n < 0 || p.s == "" {
				return "", "", true
			}
			p.take(1)
			if n == 0 {
				p.lines++
				continue
			}
			b.WriteByte("\\\"\n\t\b"[n-1])
			end = b.Len()
			continue
		}
		b.WriteByte(c)
		if quoted || c != ' ' && c != '\t' {
			end = b.Len()
		}
		p.take(1)
	}
	return key, b.String()[:end], quoted
}
