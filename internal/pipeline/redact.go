package pipeline

import (
	"bytes"
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
)

// minSecret is the length in bytes from which a secret is masked: shorter
// ones stand in ordinary words, and masking those would hide the log.
const minSecret = 6

// mask stands where a secret was.
var mask = []byte("***")

// redactor masks secrets in a stream, also where a value is cut by the border
// between two chunks. It is for one stream: stdout and stderr have one each.
type redactor struct {
	patterns map[[2]byte][][]byte // by their first two bytes, the longest first
	starts   [256]bool            // first bytes of patterns
	held     []byte               // the end of the stream so far that may be the beginning of a secret
}

// newRedactor masks the values, each line of those that have several, and
// each of these in base64 and URL encoding.
func newRedactor(values []string) *redactor {
	r := &redactor{patterns: map[[2]byte][][]byte{}}
	seen := map[string]bool{}
	for _, v := range values {
		for _, form := range secretForms(v) {
			if len(form) < minSecret || seen[form] {
				continue
			}
			seen[form] = true
			key := [2]byte{form[0], form[1]}
			r.patterns[key] = append(r.patterns[key], []byte(form))
			r.starts[form[0]] = true
		}
	}
	for _, list := range r.patterns {
		slices.SortFunc(list, func(a, b []byte) int { return len(b) - len(a) })
	}
	return r
}

// secretForms lists the ways in which a value may come out of a program.
func secretForms(value string) []string {
	parts := []string{value, strings.TrimSpace(value)}
	if strings.ContainsAny(value, "\r\n") {
		for line := range strings.Lines(value) {
			parts = append(parts, strings.TrimRight(line, "\r\n"))
		}
	}
	var forms []string
	for _, part := range parts {
		if len(part) < minSecret {
			continue
		}
		forms = append(forms, part, url.QueryEscape(part), url.PathEscape(part), lowerEscapes(url.QueryEscape(part)))
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			forms = append(forms, base64Cores(enc, part)...)
		}
	}
	return forms
}

// base64Cores gives what stays the same of a value's base64 wherever the
// value stands in the encoded text: one form for each of the three places
// that it can have among the groups of three bytes.
func base64Cores(enc *base64.Encoding, value string) []string {
	var cores []string
	for shift := range 3 {
		text := enc.EncodeToString(append(make([]byte, shift), value...))
		// Letters that hold bits of a neighbour differ with the neighbour.
		from := []int{0, 2, 3}[shift]
		to := (len(value) + shift) * 8 / 6
		if core := text[from:to]; len(core) >= minSecret+2 {
			cores = append(cores, core)
		}
	}
	return cores
}

// lowerEscapes turns %2F into %2f, as many programs write it.
func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:], bytes.ToLower(b[i+1:i+3]))
			i += 2
		}
	}
	return string(b)
}

// write takes the next piece of the stream and gives what can be shown of it.
// The result is valid until the next call.
func (r *redactor) write(chunk []byte) []byte {
	if len(r.patterns) == 0 {
		return chunk
	}
	return r.scan(append(r.held, chunk...), false)
}

// flush gives what was held back when the stream has ended.
func (r *redactor) flush() []byte { return r.scan(r.held, true) }

func (r *redactor) scan(text []byte, last bool) []byte {
	out := make([]byte, 0, len(text))
	clean := 0 // text before it is in out
	for i := 0; i < len(text); {
		if !r.starts[text[i]] {
			i++
			continue
		}
		n, partial := r.match(text[i:])
		// A longer secret may still begin here: with the rest of the stream
		// to come, wait for it before masking the shorter one.
		if partial && !last {
			out = append(out, text[clean:i]...)
			r.held = append([]byte(nil), text[i:]...)
			return out
		}
		if n > 0 {
			out = append(append(out, text[clean:i]...), mask...)
			i += n
			clean = i
			continue
		}
		i++
	}
	r.held = nil
	return append(out, text[clean:]...)
}

// match gives the length of the longest secret at the start of text (0 = none),
// and whether text ends within one that is longer.
func (r *redactor) match(text []byte) (n int, partial bool) {
	if len(text) == 1 {
		return 0, true // starts says that some pattern begins with it
	}
	for _, p := range r.patterns[[2]byte{text[0], text[1]}] {
		if len(p) > len(text) {
			partial = partial || bytes.HasPrefix(p, text)
		} else if n == 0 && bytes.HasPrefix(text, p) {
			n = len(p)
		}
	}
	return n, partial
}
