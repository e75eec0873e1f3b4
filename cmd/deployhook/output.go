package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// json prints a value for programs.
func (a *app) json(v any) error {
	b, err := encode(v, "  ")
	if err == nil {
		_, err = a.out.Write(b)
	}
	return err
}

// say tells a person something that is no result.
func (a *app) say(text string) { fmt.Fprintf(a.err, "deployhook: %s\n", plain(&text)) }

// results is standard output. It keeps the first error of a write: a list that
// a full disk cut short is no success.
type results struct {
	w   io.Writer
	err error
}

func (r *results) Write(b []byte) (int, error) {
	n, err := r.w.Write(b)
	if r.err == nil {
		r.err = err
	}
	return n, err
}

func (r *results) failed() error {
	var path *fs.PathError
	if errors.As(r.err, &path) {
		return fmt.Errorf("writing the results: %w", path.Err)
	}
	return r.err
}

// terminal says whether what is written to w goes to a person's screen.
func terminal(w io.Writer) bool {
	if r, ok := w.(*results); ok {
		w = r.w
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colored says whether colour may be used in results.
//
// Source: no-color.org; bixense.com/clicolors.
func (a *app) colored() bool {
	return terminal(a.out) && os.Getenv("NO_COLOR") == "" && os.Getenv("CLICOLOR") != "0" && os.Getenv("TERM") != "dumb"
}

var stateColors = map[string]string{
	"succeeded": "32", "failed": "31", "lost": "31", "running": "36", "waiting": "33", "canceled": "35", "skipped": "90", "queued": "90",
	"live": "32", "bad": "31",
	"ok": "32", "warning": "33", "failure": "31",
}

// state is a state in its colour.
func (a *app) state(s string) string {
	if c := stateColors[s]; c != "" && a.colored() {
		return "\x1b[" + c + "m" + s + "\x1b[0m"
	}
	return s
}

// plain makes an outsider's word safe to print on one line.
func plain(s *string) string {
	if s == nil {
		return ""
	}
	line, _, _ := strings.Cut(*s, "\n")
	return string(cleanLine([]byte(strings.ReplaceAll(line, "\t", " ")), false))
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
	d := max(0, to.Sub(*from)) // a clock may have jumped back
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// encode makes JSON that moves no cursor where it is printed: encoding/json
// leaves control characters above 0x7e as they are. Such runes stand only
// within strings.
func encode(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	var out []byte
	for _, r := range b.String() {
		if r >= 0x7f && !printable(r) {
			out = fmt.Appendf(out, "\\u%04x", r)
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return out, nil
}
