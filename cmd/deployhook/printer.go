package main

import (
	"fmt"
	"slices"
	"strings"

	"deployhook/internal/web"
)

// lineMost bounds a line that is put together of pieces, in bytes.
const lineMost = 64 << 10

// printer puts the lines of a log together that came in pieces, and writes
// them out one by one.
type printer struct {
	colour   bool
	times    bool
	headings bool
	emit     func(string)
	at       string     // heading of the last line
	open     []web.Line // lines without their newline yet, the oldest first
}

func (p *printer) line(l web.Line) error {
	if at := heading(l); p.headings && at != p.at {
		p.end()
		p.at = at
		p.emit(at)
	}
	same := func(o web.Line) bool {
		return o.Stream == l.Stream && o.Step == l.Step && o.Job == l.Job && o.Host == l.Host && o.Attempt == l.Attempt
	}
	if i := slices.IndexFunc(p.open, same); i >= 0 {
		l.Text, l.Time = p.open[i].Text+l.Text, p.open[i].Time
		p.open = slices.Delete(p.open, i, i+1)
	}
	if l.Open && len(l.Text) < lineMost {
		p.open = append(p.open, l)
		return nil
	}
	p.print(l)
	return nil
}

func heading(l web.Line) string {
	s := "== job " + plain(&l.Job)
	if l.Host != "local" {
		s += " on " + plain(&l.Host)
	}
	if l.Attempt > 1 {
		s += fmt.Sprintf(", attempt %d", l.Attempt)
	}
	return s + ", step " + plain(&l.Step)
}

// print writes a whole line. What a program printed over itself, as progress
// bars are, comes out as lines of its own.
func (p *printer) print(l web.Line) {
	for part := range strings.SplitSeq(strings.TrimRight(l.Text, "\r"), "\r") {
		text := string(cleanLine([]byte(part), p.colour))
		if p.times {
			text = l.Time.Local().Format("15:04:05.000") + "  " + text
		}
		p.emit(text)
	}
}

// end writes out what never got its newline.
func (p *printer) end() {
	for _, l := range p.open {
		p.print(l)
	}
	p.open = nil
}
