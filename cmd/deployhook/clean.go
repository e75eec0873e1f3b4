package main

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// reset ends all colours.
const reset = "\x1b[0m"

// cleanLine takes control sequences out of a line that somebody else wrote;
// with colour, those that only colour stay, and end with the line. Bytes that
// are no UTF-8 become U+FFFD.
func cleanLine(b []byte, colour bool) []byte {
	return appendClean(make([]byte, 0, len(b)), string(b), colour)
}

// appendClean is [cleanLine] that appends to out.
func appendClean(out []byte, b string, colour bool) []byte {
	at := 0
	for at < len(b) && b[at] >= 0x20 && b[at] < 0x7f {
		at++
	}
	out, b = append(out, b[:at]...), b[at:]
	colored := false
	for i := 0; i < len(b); {
		if b[i] == 0x1b {
			n := sequence(b[i:])
			if colour && colours(b[i:i+n]) {
				out, colored = append(out, b[i:i+n]...), true
			}
			i += n
			continue
		}
		r, n := utf8.DecodeRuneInString(b[i:])
		if printable(r) {
			out = utf8.AppendRune(out, r)
		}
		i += n
	}
	if colored {
		out = append(out, reset...)
	}
	return out
}

// printable says whether a rune moves no cursor and turns no text around.
func printable(r rune) bool {
	switch {
	case r == '\t':
		return true
	case r < 0x20, r >= 0x7f && r <= 0x9f: // controls, also those of eight bits
		return false
	case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f, r == 0x061c: // direction
		return false
	case r == 0x2028, r == 0x2029: // line and paragraph ends
		return false
	}
	return true
}

// sequence measures the escape sequence that b begins with.
//
// Source: ECMA-48, sections 5.3 to 5.6.
func sequence(b string) int {
	if len(b) < 2 {
		return len(b)
	}
	switch b[1] {
	case '[':
		for i := 2; i < len(b); i++ {
			switch c := b[i]; {
			case c >= 0x40 && c <= 0x7e:
				return i + 1
			case c < 0x20 || c > 0x3f:
				return i
			}
		}
		return len(b)
	case ']', 'P', 'X', '^', '_':
		for i := 2; i < len(b); i++ {
			if b[i] == 0x07 {
				return i + 1
			}
			if b[i] == 0x1b && i+1 < len(b) && b[i+1] == '\\' {
				return i + 2
			}
		}
		return 2 // without its end: what follows must not vanish
	}
	i := 1
	for i < len(b) && b[i] >= 0x20 && b[i] <= 0x2f {
		i++
	}
	if i < len(b) && b[i] >= 0x30 && b[i] <= 0x7e {
		i++
	}
	return i
}

// colours says whether a whole escape sequence does nothing but set colours,
// weight or underlining. Text that is concealed could lie to a reader.
func colours(seq string) bool {
	inner, ok := strings.CutPrefix(seq, "\x1b[")
	if !ok || !strings.HasSuffix(inner, "m") {
		return false
	}
	inner = inner[:len(inner)-1]
	if len(inner) == 0 {
		return true
	}
	parts := strings.Split(inner, ";")
	for i := 0; i < len(parts); i++ {
		n := 0
		if len(parts[i]) > 0 {
			var err error
			if n, err = strconv.Atoi(parts[i]); err != nil {
				return false
			}
		}
		switch {
		case n == 38 || n == 48:
			// What follows are the numbers of one colour.
			if i+1 < len(parts) && parts[i+1] == "5" {
				i += 2
			} else if i+1 < len(parts) && parts[i+1] == "2" {
				i += 4
			} else {
				return false
			}
			if i >= len(parts) {
				return false
			}
		case n >= 0 && n <= 4, n == 7, n == 9, n >= 21 && n <= 24, n == 27, n == 29,
			n >= 30 && n <= 49, n >= 90 && n <= 107:
		default:
			return false
		}
	}
	return true
}
