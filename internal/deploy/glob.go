package deploy

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// globBytes bounds a pattern.
const globBytes = 1 << 10

// globs keeps compiled patterns: they come from deploy.yaml alone, and the
// same few are asked for at every push.
var globs sync.Map // string -> *regexp.Regexp

// ValidGlob checks a pattern of branches, tags or paths; a leading ! is part
// of it.
//
// Source: GitHub docs, "Workflow syntax", section "Filter pattern cheat sheet".
func ValidGlob(pattern string) error {
	_, err := compileGlob(strings.TrimPrefix(pattern, "!"))
	return err
}

// MatchList says whether a list of patterns takes name: the last pattern that
// matches counts, one with a leading ! takes back.
func MatchList(patterns []string, name string) bool {
	in := false
	for _, p := range patterns {
		positive, negated := strings.CutPrefix(p, "!")
		re, err := compileGlob(positive)
		if err == nil && re.MatchString(name) {
			in = !negated
		}
	}
	return in
}

func compileGlob(p string) (*regexp.Regexp, error) {
	if re, ok := globs.Load(p); ok {
		return re.(*regexp.Regexp), nil
	}
	text, err := globRegexp(p)
	if err != nil {
		return nil, err
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, fmt.Errorf("pattern %q cannot be read", p)
	}
	globs.Store(p, re)
	return re, nil
}

func globRegexp(p string) (string, error) {
	switch {
	case p == "":
		return "", errors.New("a pattern is empty")
	case len(p) > globBytes:
		return "", fmt.Errorf("a pattern has %d bytes; at most %d are allowed", len(p), globBytes)
	}
	var b strings.Builder
	b.WriteString(`(?s)^`)
	last := "" // what ? and + repeat
	flush := func() { b.WriteString(last); last = "" }
	for i := 0; i < len(p); i++ {
		switch c := p[i]; c {
		case '*':
			flush()
			switch {
			case strings.HasPrefix(p[i:], "**/"):
				b.WriteString(`(?:.*/)?`)
				i += 2
			case strings.HasPrefix(p[i:], "**"):
				b.WriteString(`.*`)
				i++
			default:
				b.WriteString(`[^/]*`)
			}
		case '?', '+':
			if last == "" {
				return "", fmt.Errorf("pattern %q: %c repeats the character before it, and there is none", p, c)
			}
			b.WriteString(last + string(c))
			last = ""
		case '[':
			end := strings.IndexByte(p[i:], ']')
			if end < 2 {
				return "", fmt.Errorf("pattern %q: [ has no ]", p)
			}
			flush()
			last = "[" + strings.ReplaceAll(p[i+1:i+end], `\`, `\\`) + "]"
			i += end
		case '\\':
			if i+1 == len(p) {
				return "", fmt.Errorf("pattern %q: a backslash at its end", p)
			}
			flush()
			i++
			last = regexp.QuoteMeta(p[i : i+1])
		default:
			flush()
			last = quoteByte(p[i])
		}
	}
	flush()
	return b.String() + `$`, nil
}

// quoteByte quotes one byte; those of a longer character are kept together by
// the expression itself.
func quoteByte(c byte) string {
	if c < 0x80 {
		return regexp.QuoteMeta(string(rune(c)))
	}
	return string([]byte{c})
}
