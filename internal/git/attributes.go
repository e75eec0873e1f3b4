package git

import (
	"strings"
)

const (
	attributesName = ".gitattributes"
	attributesMost = 1 << 20 // bytes of one such file
	attributeLine  = 2048    // bytes; git leaves longer lines out, and so is it here
	blanks         = " \t\r\n"
)

// attrState is one attribute on a line: set, unset by -, taken back by !, or a value.
type attrState struct {
	name  string
	sign  byte // 0 = set, '-', '!' or '='
	value string
}

// attrLine is a pattern with the attributes of what matches it.
type attrLine struct {
	pattern string
	literal int  // bytes before the first wildcard
	base    bool // it has no slash: it is compared with the last part of a path
	dir     bool // it matches directories only
	states  []attrState
}

// attrFile is the .gitattributes of one directory.
type attrFile struct {
	dir   string // without a slash at its end; empty = the root
	lines []attrLine
}

// attributes are those that hold where a walk is: of its directory and of all
// above it. The ones that no exporting asks for are left out.
//
// Source: gitattributes(5), and git's attr.c where that leaves questions.
type attributes struct {
	macros map[string][]attrState
	files  []attrFile
}

// The attributes that are asked for.
const (
	exportIgnore = "export-ignore"
	exportSubst  = "export-subst"
	filterName   = "filter"
)

// enter takes in the .gitattributes of a directory; the root's comes first.
func (a *attributes) enter(dir, text string) {
	lines, macros := parseAttributes(text, dir == "")
	if dir == "" {
		a.macros = macros
	}
	kept := lines[:0]
	for _, l := range lines {
		for _, s := range l.states {
			if _, macro := a.macros[s.name]; macro || s.name == exportIgnore || s.name == exportSubst || s.name == filterName {
				kept = append(kept, l)
				break
			}
		}
	}
	a.files = append(a.files, attrFile{dir, kept})
}

// leave goes back to how many files there were.
func (a *attributes) leave(files int) { a.files = a.files[:files] }

// of gives the attributes of a path; those of a directory are asked for with
// dir. What is neither set nor unset is absent.
func (a *attributes) of(path string, dir bool) (attrValues, error) {
	var v attrValues
	for i := len(a.files) - 1; i >= 0; i-- {
		f := a.files[i]
		for n := len(f.lines) - 1; n >= 0; n-- {
			ok, err := f.lines[n].matches(f.dir, path, dir)
			if err != nil {
				return nil, err
			}
			if ok {
				if v == nil {
					v = attrValues{}
				}
				a.fill(v, f.lines[n].states)
			}
		}
	}
	return v, nil
}

// fill notes what a line says and no line of more weight has said.
func (a *attributes) fill(v attrValues, states []attrState) {
	for i := len(states) - 1; i >= 0; i-- {
		s := states[i]
		if _, ok := v[s.name]; ok {
			continue
		}
		v[s.name] = s
		if s.sign == 0 {
			a.fill(v, a.macros[s.name])
		}
	}
}

// attrValues are the attributes of one path.
type attrValues map[string]attrState

func (v attrValues) set(name string) bool {
	s, ok := v[name]
	return ok && s.sign == 0
}

func (v attrValues) is(name, value string) bool {
	s := v[name]
	return s.sign == '=' && s.value == value
}

func (l *attrLine) matches(dir, path string, isDir bool) (bool, error) {
	if l.dir && !isDir {
		return false, nil
	}
	if l.base {
		name := path[strings.LastIndexByte(path, '/')+1:]
		if l.literal == len(l.pattern) {
			return name == l.pattern, nil
		}
		return glob(l.pattern, name, false)
	}
	name := path
	if dir != "" {
		var ok bool
		if name, ok = strings.CutPrefix(path, dir+"/"); !ok {
			return false, nil
		}
	}
	// The part without wildcards is compared first: so git does, and a **
	// right behind it counts as one at the beginning.
	pattern, literal := l.pattern, l.literal
	if strings.HasPrefix(pattern, "/") {
		pattern, literal = pattern[1:], literal-1
	}
	if !strings.HasPrefix(name, pattern[:literal]) {
		return false, nil
	}
	return glob(pattern[literal:], name[literal:], true)
}

// parseAttributes reads a .gitattributes file. Lines that mean nothing are
// left out, as git does; macros may stand in the root's file only.
func parseAttributes(text string, root bool) ([]attrLine, map[string][]attrState) {
	text, _, _ = strings.Cut(text, "\x00")
	var lines []attrLine
	macros := map[string][]attrState{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if len(line) >= attributeLine {
			continue
		}
		line = strings.TrimLeft(line, blanks)
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest, ok := unquoteC(line)
		if !ok {
			n := strings.IndexAny(line, blanks)
			if n < 0 {
				n = len(line)
			}
			name, rest = line[:n], line[n:]
		}
		const macro = "[attr]"
		if isMacro := strings.HasPrefix(name, macro) && len(name) > len(macro); isMacro {
			name = name[len(macro):]
			if states, ok := parseStates(rest); ok && root && validAttribute(name) {
				macros[name] = states
			}
			continue
		}
		states, ok := parseStates(rest)
		if !ok || strings.HasPrefix(name, "!") || name == "" {
			continue
		}
		l := attrLine{states: states}
		l.pattern, l.dir = strings.CutSuffix(name, "/")
		l.base = !strings.Contains(l.pattern, "/")
		if l.literal = strings.IndexAny(l.pattern, globSpecial); l.literal < 0 {
			l.literal = len(l.pattern)
		}
		lines = append(lines, l)
	}
	return lines, macros
}

// parseStates reads the attributes of a line; one that is none spoils it.
func parseStates(s string) ([]attrState, bool) {
	var list []attrState
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(blanks, r) }) {
		a := attrState{}
		name, value, hasValue := strings.Cut(word, "=")
		if strings.HasPrefix(name, "-") || strings.HasPrefix(name, "!") {
			a.sign, name = name[0], name[1:]
		} else if hasValue {
			a.sign, a.value = '=', value
		}
		if !validAttribute(name) {
			return nil, false
		}
		a.name = name
		list = append(list, a)
	}
	return list, true
}

func validAttribute(name string) bool {
	return name != "" && name[0] != '-' && strings.IndexFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_')
	}) < 0
}

// unquoteC reads a word in double quotes, escaped as in C, and gives what
// follows it.
//
// Source: git's unquote_c_style (quote.c).
func unquoteC(s string) (word, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		return "", s, false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			i++
			c = at(s, i)
			if n := strings.IndexByte("abfnrtv", c); n >= 0 && c != 0 {
				b.WriteByte("\a\b\f\n\r\t\v"[n])
			} else if c == '\\' || c == '"' {
				b.WriteByte(c)
			} else if c >= '0' && c <= '3' {
				v := 0
				for range 3 {
					d := at(s, i)
					if d < '0' || d > '7' {
						return "", s, false
					}
					v, i = v<<3|int(d-'0'), i+1
				}
				i--
				b.WriteByte(byte(v))
			} else {
				return "", s, false
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", s, false
}
