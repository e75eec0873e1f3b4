package web

import (
	"errors"
	"strings"
	"time"

	"deployhook/internal/deploy"
)

// logPart is a piece of a log on its way: lines of one step in columns, since
// a log may have a million of them.
type logPart struct {
	Job     string  `json:"job,omitempty"`
	Attempt int     `json:"attempt,omitempty"`
	Host    string  `json:"host,omitempty"`
	Step    string  `json:"step,omitempty"`
	Times   []int64 `json:"times,omitempty"` // milliseconds: since 1970, then since the line before
	Kinds   string  `json:"kinds,omitempty"` // a digit a line: its stream, and 3 more when the next line continues it
	Text    string  `json:"text,omitempty"`  // the lines, with a newline between them
	After   int64   `json:"after,omitempty"` // mark behind the part: a reader can go on from it
	Error   string  `json:"error,omitempty"` // the log ends here and is not whole
	Code    string  `json:"code,omitempty"`
}

var streams = []string{"deployhook", "stdout", "stderr"} // by LogLine.Stream

func partOf(c *deploy.LogChunk) *logPart {
	p := &logPart{Job: c.At.Job, Attempt: c.At.Attempt, Host: c.At.Host, Step: c.StepName, After: c.ID}
	var text strings.Builder
	kinds := make([]byte, len(c.Lines))
	p.Times = make([]int64, len(c.Lines))
	last := int64(0)
	for i := range c.Lines {
		l := &c.Lines[i]
		kinds[i] = '0' + min(l.Stream, uint8(len(streams)-1))
		if l.Open {
			kinds[i] += byte(len(streams))
		}
		at := l.Time.UnixMilli()
		p.Times[i], last = at-last, at
		if i > 0 {
			text.WriteByte('\n')
		}
		text.Write(l.Text)
	}
	p.Kinds, p.Text = string(kinds), text.String()
	return p
}

var errPart = errors.New("the daemon sent a piece of a log whose parts do not fit: is it of another version?")

// lines takes a part apart.
func (p *logPart) lines() ([]Line, error) {
	switch {
	case len(p.Times) != len(p.Kinds):
		return nil, errPart
	case len(p.Times) == 0:
		return nil, nil
	}
	lines := make([]Line, 0, len(p.Kinds))
	at := int64(0)
	for text := range strings.SplitSeq(p.Text, "\n") {
		i := len(lines)
		if i == len(p.Kinds) || p.Kinds[i] < '0' || p.Kinds[i] >= '0'+byte(2*len(streams)) {
			return nil, errPart
		}
		at += p.Times[i]
		kind := int(p.Kinds[i] - '0')
		lines = append(lines, Line{
			Time: time.UnixMilli(at).UTC(), Job: p.Job, Attempt: p.Attempt, Host: p.Host, Step: p.Step,
			Stream: streams[kind%len(streams)], Text: text, Open: kind >= len(streams),
		})
	}
	if len(lines) != len(p.Kinds) {
		return nil, errPart
	}
	return lines, nil
}
