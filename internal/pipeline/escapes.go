package pipeline

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"
)

// escapeLetters are what may follow the backslash of an escape.
const escapeLetters = `nrtbf"'\/ux`

// percentUnit reads a byte of a text in URL encoding, whichever bytes it
// escapes.
func percentUnit(text, want []byte) (n, of int, short bool) {
	switch {
	case text[0] == '%':
		return hexUnit(text, 1, 2, want)
	case text[0] == want[0], text[0] == '+' && want[0] == ' ':
		return 1, 1, false
	}
	return 0, 0, false
}

// shellUnit reads a byte of a text as a shell shows it between single quotes.
func shellUnit(text, want []byte) (n, of int, short bool) {
	const quote = `'\''` // a quote within quotes
	switch {
	case text[0] != want[0]:
		return 0, 0, false
	case want[0] != '\'':
		return 1, 1, false
	case bytes.HasPrefix(text, []byte(quote)):
		return len(quote), 1, false
	}
	return 0, 0, strings.HasPrefix(quote, string(text))
}

// escapeUnit reads a character of a text with the escapes of JSON, and of
// other languages that look like them.
func escapeUnit(text, want []byte) (n, of int, short bool) {
	if text[0] != '\\' {
		if text[0] == want[0] {
			return 1, 1, false
		}
		return 0, 0, false
	}
	if len(text) == 1 {
		return 0, 0, true
	}
	switch text[1] {
	case 'u':
		return hexUnit(text, 2, 4, want)
	case 'x':
		return hexUnit(text, 2, 2, want)
	}
	plain := map[byte]byte{'n': '\n', 'r': '\r', 't': '\t', 'b': '\b', 'f': '\f', '"': '"', '\'': '\'', '\\': '\\', '/': '/'}
	if c, ok := plain[text[1]]; ok && c == want[0] {
		return 2, 1, false
	}
	return 0, 0, false
}

// hexUnit reads the number in digits hexadecimal digits that stand after the
// first from bytes of text: a byte with two of them, a character with four.
func hexUnit(text []byte, from, digits int, want []byte) (n, of int, short bool) {
	end := min(len(text), from+digits)
	for _, c := range text[from:end] {
		if strings.IndexByte(hexDigits, c) < 0 {
			return 0, 0, false
		}
	}
	if end < from+digits {
		return 0, 0, true
	}
	v, _ := strconv.ParseUint(string(text[from:end]), 16, 32) // only digits are left
	meant := []byte{byte(v)}
	if digits == 4 {
		meant = utf8.AppendRune(nil, rune(v))
	}
	if !bytes.HasPrefix(want, meant) {
		return 0, 0, false
	}
	return end, len(meant), false
}
