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
	emit     func(line []byte) // is not to keep it
	at       *web.Line         // a line of the last heading; nil before the first
	open     []web.Line        // lines without their newline yet, the oldest first
	buf      []byte
}

func (p *printer) line(l web.Line) {
	if p.headings && (p.at == nil || !sameStep(p.at, &l)) {
		p.end()
		p.at = &l
		p.emit([]byte(heading(l)))
	}
	same := func(o web.Line) bool { return o.Stream == l.Stream && sameStep(&o, &l) }
	if i := slices.IndexFunc(p.open, same); i >= 0 {
		l.Text, l.Time = p.open[i].Text+l.Text, p.open[i].Time
		p.open = slices.Delete(p.open, i, i+1)
	}
	if l.Open && len(l.Text) < lineMost {
		p.open = append(p.open, l)
		return
	}
	p.print(&l)
}

func sameStep(a, b *web.Line) bool {
	return a.Step == b.Step && a.Job == b.Job && a.Host == b.Host && a.Attempt == b.Attempt
}

func heading(l web.Line) string {
	s := "== job " + plain(&l.Job) + on(l.Host)
	if l.Attempt > 1 {
		s += fmt.Sprintf(", attempt %d", l.Attempt)
	}
	return s + ", step " + plain(&l.Step)
}

// print writes a whole line. What a program printed over itself, as progress
// bars are, comes out as lines of its own.
func (p *printer) print(l *web.Line) {
	for part := range strings.SplitSeq(strings.TrimRight(l.Text, "\r"), "\r") {
		p.buf = p.buf[:0]
		if p.times {
			p.buf = append(l.Time.Local().AppendFormat(p.buf, "15:04:05.000"), "  "...)
		}
		p.buf = appendClean(p.buf, part, p.colour)
		p.emit(p.buf)
	}
}

// end writes out what never got its newline.
func (p *printer) end() {
	for i := range p.open {
		p.print(&p.open[i])
	}
	p.open = nil
}
