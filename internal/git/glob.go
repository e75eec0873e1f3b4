package git

import (
	"errors"
	"strings"
)

// globSteps bounds the work of one match: a pattern is an outsider's, and many
// ** in a row take time that doubles with each.
const globSteps = 1 << 20

// errGlob is a pattern that takes too long.
var errGlob = errors.New("a pattern takes too long to compare: write it with fewer ** and *")

// glob matches a text with a pattern of git's. With path, * and ? stop at a
// slash and ** between slashes does not; without, they match everything.
//
// Source: git's wildmatch.c.
func glob(pattern, text string, path bool) (bool, error) {
	g := &globber{p: pattern, t: text, path: path}
	got := g.match(0, 0)
	if g.steps > globSteps {
		return false, errGlob
	}
	return got == globMatch, nil
}

// What a part of a pattern can come to. The last two say how far back there is
// nothing left to try.
const (
	globMatch = iota
	globNone
	globEnd      // the text is used up
	globStarStar // only a ** further left could still match
)

const globSpecial = `*?[\`

type globber struct {
	p, t  string
	path  bool
	steps int
}

// at is a byte of a text, and 0 after its end, which no name and no pattern holds.
func at(s string, i int) byte {
	if i < len(s) {
		return s[i]
	}
	return 0
}

func (g *globber) match(p, t int) int {
	start := p
	for ; p < len(g.p); p, t = p+1, t+1 {
		if g.steps++; g.steps > globSteps {
			return globEnd
		}
		c := g.p[p]
		if t >= len(g.t) && c != '*' {
			return globEnd
		}
		switch c {
		case '?':
			if g.path && g.t[t] == '/' {
				return globNone
			}
		case '*':
			got, next, ends := g.star(start, p, t)
			if ends {
				return got
			}
			p, t = next.p, next.t
		case '[':
			next, ok, whole := g.class(p, g.t[t])
			if !whole {
				return globEnd
			}
			if !ok || g.path && g.t[t] == '/' {
				return globNone
			}
			p = next
		default:
			if c == '\\' {
				p++
			}
			if at(g.p, p) != g.t[t] {
				return globNone
			}
		}
	}
	if t < len(g.t) {
		return globNone
	}
	return globMatch
}

// globAt is a place in pattern and text.
type globAt struct{ p, t int }

// star matches one or more asterisks at p. It ends the match, or goes on
// behind a slash.
func (g *globber) star(start, p, t int) (got int, next globAt, ends bool) {
	slash := !g.path
	p++
	if at(g.p, p) == '*' {
		before := p - 2
		for at(g.p, p) == '*' {
			p++
		}
		alone := (before < start || g.p[before] == '/') &&
			(p == len(g.p) || g.p[p] == '/' || g.p[p] == '\\' && at(g.p, p+1) == '/')
		if g.path && alone {
			// Between slashes it also stands for no directory at all.
			if at(g.p, p) == '/' && g.match(p+1, t) == globMatch {
				return globMatch, next, true
			}
			slash = true
		}
	}
	rest := g.t[min(t, len(g.t)):]
	switch i := strings.IndexByte(rest, '/'); {
	case p == len(g.p) && (slash || i < 0):
		return globMatch, next, true
	case p == len(g.p):
		return globNone, next, true
	case !slash && g.p[p] == '/':
		if i < 0 {
			return globNone, next, true
		}
		return 0, globAt{p, t + i}, false
	}
	for ; t < len(g.t); t++ {
		if g.steps++; g.steps > globSteps {
			return globEnd, next, true
		}
		if c := g.p[p]; !strings.ContainsRune(globSpecial, rune(c)) {
			for t < len(g.t) && g.t[t] != c && (slash || g.t[t] != '/') {
				t++
			}
			if at(g.t, t) != c {
				return globNone, next, true
			}
		}
		switch got := g.match(p, t); {
		case got != globNone && (!slash || got != globStarStar):
			return got, next, true
		case got == globNone && !slash && g.t[t] == '/':
			return globStarStar, next, true
		}
	}
	return globEnd, next, true
}

// class matches one byte with the set in brackets at p. It gives where the set
// ends; whole is false where it does not.
func (g *globber) class(p int, t byte) (end int, ok, whole bool) {
	p++
	not := at(g.p, p) == '!' || at(g.p, p) == '^'
	if not {
		p++
	}
	last := byte(0)
	for first := true; first || at(g.p, p) != ']'; first = false {
		c := at(g.p, p)
		switch {
		case c == 0:
			return 0, false, false
		case c == '\\':
			p++
			if c = at(g.p, p); c == 0 {
				return 0, false, false
			}
			ok = ok || c == t
		case c == '-' && last != 0 && at(g.p, p+1) != 0 && at(g.p, p+1) != ']':
			p++
			if c = g.p[p]; c == '\\' {
				p++
				if c = at(g.p, p); c == 0 {
					return 0, false, false
				}
			}
			ok = ok || last <= t && t <= c
			c = 0
		case c == '[' && at(g.p, p+1) == ':':
			n := strings.IndexByte(g.p[p+2:], ']')
			if n < 0 {
				return 0, false, false
			}
			if name := g.p[p+2 : p+2+n]; strings.HasSuffix(name, ":") {
				in, known := inClass(strings.TrimSuffix(name, ":"), t)
				if !known {
					return 0, false, false
				}
				ok, p, c = ok || in, p+2+n, 0
			} else {
				ok = ok || c == t
			}
		default:
			ok = ok || c == t
		}
		last, p = c, p+1
	}
	return p, ok != not, true
}

// inClass says whether a byte is in one of the named classes of ASCII.
func inClass(name string, c byte) (in, known bool) {
	lower, upper, digit := c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9'
	graph := c > ' ' && c < 0x7f
	switch name {
	case "alnum":
		return lower || upper || digit, true
	case "alpha":
		return lower || upper, true
	case "blank":
		return c == ' ' || c == '\t', true
	case "cntrl":
		return c < ' ' || c == 0x7f, true
	case "digit":
		return digit, true
	case "graph":
		return graph, true
	case "lower":
		return lower, true
	case "print":
		return graph || c == ' ', true
	case "punct":
		return graph && !lower && !upper && !digit, true
	case "space":
		return c == ' ' || c >= '\t' && c <= '\r', true
	case "upper":
		return upper, true
	case "xdigit":
		return digit || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F', true
	}
	return false, false
}
