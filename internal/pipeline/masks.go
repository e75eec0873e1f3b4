package pipeline

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
)

// minSecret is the length in bytes from which a secret is masked: shorter
// ones stand in ordinary words, and masking those would hide the log.
const minSecret = 6

// masks are the texts that must not come out: secrets, each line of those that
// have several, and the base64 of these. Every one is also found in URL
// encoding and with the escapes of JSON and of quoted shell words; base64 also
// where it is broken into lines.
type masks struct {
	byFirst [256][]*pattern // the longest first
	all     []*pattern
	begins  [1 << 16 / 64]uint64 // pairs of bytes with which one of them may begin, a bit each
	ends    [256]bool            // first bytes of these pairs
	window  int                  // bytes of the shortest of them that are looked at together, at most windowMost
	within  [1 << 16 / 64]uint64 // pairs of bytes within the windows of all, a bit each
	escapes []byte               // what may stand in a text in place of a byte of a pattern
}

// windowMost is enough to pass over text fast: a longer window has more pairs,
// which are found more often.
const windowMost = 8

// pattern is one text to mask.
type pattern struct {
	text    []byte
	base64  bool // may be broken into lines
	percent bool // has a percent sign itself
	escaped bool // has a backslash itself
	quoted  bool // has a single quote itself
}

// newMasks makes the masks of secrets.
func newMasks(values []string) *masks {
	m := &masks{}
	seen := map[string]bool{}
	add := func(text string, isBase64 bool) {
		if len(text) < minSecret || seen[text] {
			return
		}
		seen[text] = true
		m.all = append(m.all, &pattern{
			text: []byte(text), base64: isBase64,
			percent: strings.Contains(text, "%"), escaped: strings.Contains(text, `\`), quoted: strings.Contains(text, "'"),
		})
	}
	for _, v := range values {
		for _, part := range secretParts(v) {
			if len(part) < minSecret {
				continue
			}
			add(part, false)
			for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
				for _, core := range base64Cores(enc, part) {
					add(core, true)
				}
			}
		}
	}
	slices.SortStableFunc(m.all, func(a, b *pattern) int { return len(b.text) - len(a.text) })
	if len(m.all) == 0 {
		return m
	}
	m.window = min(windowMost, len(m.all[len(m.all)-1].text))
	m.escapes = []byte("%\\\n\r")
	for _, p := range m.all {
		m.byFirst[p.text[0]] = append(m.byFirst[p.text[0]], p)
		m.mark(p)
		for at := range m.window - 1 {
			setPair(&m.within, p.text[at], p.text[at+1])
		}
		if bytes.IndexByte(p.text, ' ') >= 0 && !slices.Contains(m.escapes, '+') {
			m.escapes = append(m.escapes, '+')
		}
	}
	return m
}

func setPair(set *[1 << 16 / 64]uint64, a, b byte) {
	at := uint(a)<<8 | uint(b)
	set[at/64] |= 1 << (at % 64)
}

func hasPair(set *[1 << 16 / 64]uint64, a, b byte) bool {
	at := uint(a)<<8 | uint(b)
	return set[at/64]&(1<<(at%64)) != 0
}

// escapeSearch finds the escapes of a text one after the other.
type escapeSearch struct {
	next [8]int // by its place among the escapes: where the next one of it is
	used bool
}

// from gives where the first of escapes stands in text from i on, len(text)
// when there is none. It is asked for places that only grow.
func (e *escapeSearch) from(text, escapes []byte, i int) int {
	first := len(text)
	for k, c := range escapes {
		if !e.used || e.next[k] < i {
			if e.next[k] = bytes.IndexByte(text[i:], c); e.next[k] < 0 {
				e.next[k] = len(text)
			} else {
				e.next[k] += i
			}
		}
		first = min(first, e.next[k])
	}
	e.used = true
	return first
}

// next gives the first place of text from i on at which match must look,
// len(text) when there is none.
//
// Most of an output is passed over by looking at one pair of bytes of each
// window: where what stands before it is no escape, it is a pair of a pattern,
// or none begins there.
func (m *masks) next(text []byte, i int, escapes *escapeSearch) int {
	if len(m.all) == 0 {
		return len(text)
	}
	stride := m.window - 1
	for i < len(text) {
		stop := escapes.from(text, m.escapes, i)
		// Each place from i to at has this pair within its window.
		for at := i + stride - 1; at+1 < stop; at += stride {
			if !hasPair(&m.within, text[at], text[at+1]) {
				i = at + 1
				continue
			}
			for ; i <= at; i++ {
				if m.mayBegin(text[i:]) {
					return i
				}
			}
		}
		for ; i <= stop && i < len(text); i++ {
			if m.mayBegin(text[i:]) {
				return i
			}
		}
	}
	return len(text)
}

// mayBegin says whether some pattern begins as text does, which is not empty.
func (m *masks) mayBegin(text []byte) bool {
	if len(text) == 1 {
		return m.ends[text[0]]
	}
	return hasPair(&m.begins, text[0], text[1])
}

// secretParts are a value, and each line of one that has several: programs
// print a key line by line, and indent it.
func secretParts(value string) []string {
	parts := []string{value, strings.TrimSpace(value)}
	if strings.ContainsAny(value, "\r\n") {
		for line := range strings.Lines(value) {
			parts = append(parts, strings.TrimRight(line, "\r\n"), strings.TrimSpace(line))
		}
	}
	return parts
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
		cores = append(cores, text[from:to])
	}
	return cores
}

const hexDigits = "0123456789ABCDEFabcdef"

// mark notes the pairs of bytes with which p may begin in an output.
func (m *masks) mark(p *pattern) {
	set := func(a byte, more string) {
		m.ends[a] = true
		for _, b := range []byte(more) {
			setPair(&m.begins, a, b)
		}
	}
	first, second := p.text[0], p.text[1]
	follows := string([]byte{second}) + `%\`
	if second == ' ' {
		follows += "+"
	}
	if p.base64 {
		follows += "\r\n"
	}
	set(first, follows)
	if first == ' ' {
		set('+', follows)
	}
	high := first >> 4
	set('%', hexDigits[high:high+1]+strings.ToLower(hexDigits[high:high+1]))
	set('\\', escapeLetters)
}

// match gives the length of the longest masked text at the start of text (0 =
// none), and whether text ends within one that is longer. text mayBegin one.
func (m *masks) match(text []byte) (n int, partial bool) {
	if len(text) == 1 {
		return 0, true // ends says that some pattern begins with it
	}
	list := m.byFirst[text[0]]
	if c := text[0]; c == '%' || c == '\\' || c == '+' {
		list = m.all
	}
	for _, p := range list {
		length, short := p.match(text)
		n = max(n, length)
		partial = partial || short
	}
	return n, partial
}

// match gives the length of p at the start of text, 0 when it is not there,
// and whether text ends before that can be told.
func (p *pattern) match(text []byte) (n int, short bool) {
	k := 0
	for k < len(p.text) && k < len(text) && p.text[k] == text[k] {
		k++
	}
	if k == len(p.text) {
		return k, false
	}
	if k == len(text) {
		return 0, true
	}
	c := text[k]
	if p.percent {
		n, short = p.walk(text, 0, percentUnit)
	} else if c == '%' || c == '+' || p.base64 && (c == '\n' || c == '\r') {
		n, short = p.walk(text, k, percentUnit)
	}
	if n == 0 && p.quoted {
		var more bool
		n, more = p.walk(text, 0, shellUnit)
		short = short || more
	}
	if n == 0 && (p.escaped || c == '\\') {
		if p.escaped {
			k = 0
		}
		var more bool
		n, more = p.walk(text, k, escapeUnit)
		short = short || more
	}
	return n, short && n == 0
}

// unit reads one unit of an encoded text that is to stand for the beginning of
// want: how many bytes of the text it has, and how many of want it stands for.
// Zero bytes of want say that it stands for something else, or with short that
// the text ends too soon.
type unit func(text, want []byte) (n, of int, short bool)

// walk compares text with p unit by unit, where the first k bytes are known to
// be equal.
func (p *pattern) walk(text []byte, k int, next unit) (n int, short bool) {
	at := k
	for k < len(p.text) {
		if at == len(text) {
			return 0, true
		}
		if p.base64 && k > 0 && (text[at] == '\n' || text[at] == '\r') {
			at++
			continue
		}
		n, of, short := next(text[at:], p.text[k:])
		if of == 0 {
			return 0, short
		}
		at += n
		k += of
	}
	return at, false
}
