package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"deployhook/internal/web"
)

func (a *app) logsCommand() *cobra.Command {
	var job, step string
	var follow, asJSON bool
	c := &cobra.Command{
		Use:     "logs RUN",
		Short:   "Print what a run's steps printed",
		Long:    "Print the output of a run's steps, with the time of each line. Control sequences are\nleft out; colour stays on a terminal. Secrets were masked when it was written down.",
		Example: "  deployhook logs 42 --job deploy --follow",
		Args:    args("RUN"),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := number(args[0])
			if err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			if asJSON {
				return cl.Log(c.Context(), n, job, step, follow, func(l web.Line) error { return a.jsonLine(l) })
			}
			p := &printer{app: a, times: true, headings: true, emit: func(line string) { fmt.Fprintln(a.out, line) }}
			err = cl.Log(c.Context(), n, job, step, follow, p.line)
			p.end()
			return err
		},
	}
	c.Flags().StringVar(&job, "job", "", "only of this job")
	c.Flags().StringVar(&step, "step", "", "only of this step")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the run has ended")
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a line")
	return c
}

// printer puts lines together that came in pieces, and writes them out.
type printer struct {
	app      *app
	times    bool
	headings bool
	emit     func(string)
	at       string // job and step of the last line
	open     map[string]string
}

func (p *printer) line(l web.Line) error {
	if p.open == nil {
		p.open = map[string]string{}
	}
	key := l.Job + "\x00" + l.Step + "\x00" + l.Stream
	if at := l.Job + "\x00" + l.Step; p.headings && at != p.at {
		p.end()
		p.at = at
		p.emit(fmt.Sprintf("== job %s, step %s", l.Job, plain(&l.Step)))
	}
	text := p.open[key] + l.Text
	delete(p.open, key)
	if l.Open && len(text) < 64<<10 {
		p.open[key] = text
		return nil
	}
	text = string(cleanLine([]byte(text), p.app.colored()))
	if p.times {
		text = l.Time.Local().Format("15:04:05.000") + "  " + text
	}
	p.emit(text)
	return nil
}

// end writes out what never got its newline.
func (p *printer) end() {
	for key, text := range p.open {
		p.emit(string(cleanLine([]byte(text), p.app.colored())))
		delete(p.open, key)
	}
}
