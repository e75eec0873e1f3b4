package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deployhook/internal/web"
)

func TestPrinterPutsPiecesTogether(t *testing.T) {
	l := func(step, stream, text string, open bool) web.Line {
		return web.Line{Job: "test", Attempt: 1, Host: "local", Step: step, Stream: stream, Text: text, Open: open}
	}
	for _, tt := range []struct {
		name  string
		lines []web.Line
		want  []string
	}{
		{"pieces", []web.Line{l("a", "stdout", "one ", true), l("a", "stdout", "two", false)}, []string{"== job test, step a", "one two"}},
		{"streams apart", []web.Line{l("a", "stdout", "out ", true), l("a", "stderr", "err", false), l("a", "stdout", "put", false)},
			[]string{"== job test, step a", "err", "out put"}},
		{"no newline", []web.Line{l("a", "stdout", "Password: ", true)}, []string{"== job test, step a", "Password: "}},
		{"next step", []web.Line{l("a", "stdout", "rest", true), l("b", "stdout", "new", false)},
			[]string{"== job test, step a", "rest", "== job test, step b", "new"}},
		{"a sequence in two pieces", []web.Line{l("a", "stdout", "x\x1b[2", true), l("a", "stdout", "Jy", false)}, []string{"== job test, step a", "xy"}},
		{"progress", []web.Line{l("a", "stdout", "10%\r20%\r", false)}, []string{"== job test, step a", "10%", "20%"}},
		{"carriage return at the end", []web.Line{l("a", "stdout", "dos\r", false)}, []string{"== job test, step a", "dos"}},
		{"a step that lies about its name", []web.Line{l("a\x1b[2J", "stdout", "x", false)}, []string{"== job test, step a", "x"}},
	} {
		var got []string
		p := &printer{headings: true, emit: func(b []byte) { got = append(got, string(b)) }}
		for _, line := range tt.lines {
			p.line(line)
		}
		p.end()
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, diff)
		}
	}
}

func TestPrinterNamesHostAndAttempt(t *testing.T) {
	var got []string
	p := &printer{headings: true, times: true, emit: func(b []byte) { got = append(got, string(b)) }}
	at := time.Date(2026, 4, 1, 10, 15, 0, 0, time.Local)
	p.line(web.Line{Time: at, Job: "deploy", Attempt: 2, Host: "web-1", Step: "a", Text: "x"})
	if diff := cmp.Diff([]string{"== job deploy on web-1, attempt 2, step a", "10:15:00.000  x"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestPrinterBoundsALineOfManyPieces(t *testing.T) {
	longest := 0
	p := &printer{emit: func(b []byte) { longest = max(longest, len(b)) }}
	piece := web.Line{Text: strings.Repeat("x", 16<<10), Open: true}
	for range 64 {
		p.line(piece)
	}
	p.end()
	if longest == 0 || longest > lineMost+16<<10 {
		t.Errorf("the longest line has %d bytes, want at most %d", longest, lineMost+16<<10)
	}
}
