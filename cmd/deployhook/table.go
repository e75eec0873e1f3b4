package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
)

// Bounds of a table, in columns of the terminal.
const (
	tableWidth = 80
	lastLeast  = 24 // the last column says what happened
	cellLeast  = 8  // no other column is cut below this
)

// table prints rows in columns, the first row being their names; cells are cut
// so that a line fits.
func table(w io.Writer, paint func(string) string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			widths[i] = max(widths[i], width(cell))
		}
	}
	last := len(widths) - 1
	room := tableWidth
	for i := range last {
		room -= widths[i] + 2
	}
	for room < min(lastLeast, widths[last]) {
		widest := 0
		for i := range last {
			if widths[i] > widths[widest] {
				widest = i
			}
		}
		if widths[widest] <= cellLeast {
			break
		}
		widths[widest]--
		room++
	}
	for _, r := range rows {
		var b strings.Builder
		for i, cell := range r {
			if i == last {
				b.WriteString(cutSentence(cell, max(room, cellLeast)))
				break
			}
			cell = cutTo(cell, widths[i])
			b.WriteString(paint(cell) + strings.Repeat(" ", widths[i]-width(cell)+2))
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// cutTo cuts a text to n columns and shows that it did.
func cutTo(s string, n int) string {
	if width(s) <= n {
		return s
	}
	used := 0
	for i, r := range s {
		if used += columns(r); used > n-1 {
			return s[:i] + "…"
		}
	}
	return s
}

// cutSentence cuts a text to n columns and keeps its end, where a chain of
// errors has its cause: job test: step npm ci && n…: exit status 1.
func cutSentence(s string, n int) string {
	at := strings.LastIndex(s, ": ")
	if width(s) <= n || at < 0 || width(s[at:]) > n/2 {
		return cutTo(s, n)
	}
	return cutTo(s[:at], n-width(s[at:])) + s[at:]
}

func width(s string) (n int) {
	for _, r := range s {
		n += columns(r)
	}
	return n
}

// columns is how wide terminals draw a rune: wide ones of East Asia and emoji
// take two, marks that go over another none.
func columns(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case unicode.In(r, unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana),
		r >= 0x3000 && r <= 0x303f, r >= 0xff01 && r <= 0xff60, r >= 0x1f300 && r <= 0x1faff:
		return 2
	}
	return 1
}
