package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"deployhook/internal/deploy"
)

// json prints a value for programs.
func (a *app) json(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// terminal says whether output goes to a person's screen.
func (a *app) terminal() bool {
	f, ok := a.out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colored says whether colour may be used.
func (a *app) colored() bool {
	return a.terminal() && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

var stateColors = map[string]string{
	"succeeded": "32", "failed": "31", "lost": "31", "running": "36", "waiting": "33", "canceled": "35", "skipped": "90", "queued": "90",
	"live": "32", "bad": "31",
}

// state is a state in its colour.
func (a *app) state(s string) string {
	if c := stateColors[s]; c != "" && a.colored() {
		return "\x1b[" + c + "m" + s + "\x1b[0m"
	}
	return s
}

// tableWidth bounds the lines of a table.
const tableWidth = 80

// table prints rows in columns; the last column is cut so that a line fits.
func table(w io.Writer, paint func(string) string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	used := 0
	for _, n := range widths[:len(widths)-1] {
		used += n + 2
	}
	for _, r := range rows {
		var b strings.Builder
		for i, cell := range r {
			if i == len(r)-1 {
				b.WriteString(cutTo(cell, max(10, tableWidth-used)))
				break
			}
			b.WriteString(paint(cell) + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

func cutTo(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// plain makes an outsider's word safe to print on one line.
func plain(s *string) string {
	if s == nil {
		return ""
	}
	line, _, _ := strings.Cut(*s, "\n")
	return string(cleanLine([]byte(line), false))
}

func short(commit *string) string {
	if commit == nil {
		return "-"
	}
	return (*commit)[:min(7, len(*commit))]
}

// ago is a time as people say it.
func ago(t time.Time, now time.Time) string {
	switch d := now.Sub(t); {
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd ago", int(d.Hours()/24))
	}
}

func took(from, to *time.Time) string {
	if from == nil || to == nil {
		return "-"
	}
	return to.Sub(*from).Round(100 * time.Millisecond).String()
}

func terminal(state string) bool { return deploy.State(state).Terminal() }

// cleanLine takes control sequences out of a line that a program printed;
// with colour, those that only colour stay.
func cleanLine(b []byte, colour bool) []byte {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		c := b[i]
		switch {
		case c == 0x1b:
			n, sgr := sequence(b[i:])
			if sgr && colour {
				out = append(out, b[i:i+n]...)
			}
			i += n
		case c == '\t':
			out = append(out, c)
			i++
		case c < 0x20 || c == 0x7f:
			i++
		case c < 0x80:
			out = append(out, c)
			i++
		default:
			r, n := utf8.DecodeRune(b[i:])
			if r != utf8.RuneError && (r < 0x80 || r > 0x9f) && (r < 0x202a || r > 0x202e) && (r < 0x2066 || r > 0x2069) {
				out = append(out, b[i:i+n]...)
			}
			i += n
		}
	}
	return out
}

// sequence measures the escape sequence that b begins with, and says whether
// it only sets colour.
func sequence(b []byte) (n int, sgr bool) {
	if len(b) < 2 {
		return len(b), false
	}
	switch b[1] {
	case '[':
		for i := 2; i < len(b); i++ {
			switch c := b[i]; {
			case c >= 0x40 && c <= 0x7e:
				return i + 1, c == 'm'
			case c < 0x20 || c > 0x3f:
				return i, false
			}
		}
		return len(b), false
	case ']', 'P', 'X', '^', '_':
		for i := 2; i < len(b); i++ {
			if b[i] == 0x07 {
				return i + 1, false
			}
			if b[i] == 0x1b && i+1 < len(b) && b[i+1] == '\\' {
				return i + 2, false
			}
		}
		return len(b), false
	}
	return 2, false
}

// jsonLine prints a value for programs on one line.
func (a *app) jsonLine(v any) error { return json.NewEncoder(a.out).Encode(v) }
