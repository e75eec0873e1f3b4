package notify

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"

	"deployhook/internal/deploy"
)

// Bounds of the parts of a message, in UTF-16 units, which is what services
// count by, or nearly.
const (
	headMost    = 200
	factMost    = 400
	lineMost    = 300 // of a line of the log
	commandMost = 200
	linkMost    = 1000
)

// news is what a message says, before it has the form of a service. Its texts
// are outsiders' words: each form escapes them.
type news struct {
	head     string   // what happened
	facts    []string // one line each: the commit, what failed, why
	tail     []string // last lines of the log of what failed
	url      string   // where to look
	commands []string // what to type
	text     string   // in place of all that
}

// errNoRun is about an event of the application, which only webhooks tell.
var errNoRun = errors.New("only a webhook tells an event of the application")

// newsOf is what a message says. It has no secret: what it is made of is
// stored redacted.
func newsOf(m *Message) (news, error) {
	if m.Run == nil {
		return news{}, errNoRun
	}
	if m.Text != "" {
		return news{text: printable(m.Text, '\n', '\t')}, nil
	}
	n := news{head: cut(headOf(m), headMost), url: m.URL}
	if width(n.url) > linkMost {
		n.url = "" // half of it leads nowhere
	}
	for _, f := range []string{commitOf(m.Run), failureOf(m), causeOf(m.Run), waitingOf(m.Run)} {
		if f != "" {
			n.facts = append(n.facts, cut(printable(f), factMost))
		}
	}
	for _, l := range m.Tail[max(0, len(m.Tail)-tailMost):] {
		n.tail = append(n.tail, cut(strings.TrimRight(printable(string(l.Text), '\t'), " \t"), lineMost))
	}
	for _, c := range commandsOf(m) {
		n.commands = append(n.commands, cut(printable(c), commandMost))
	}
	return n, nil
}

// tailMost is how many lines of a log are told.
const tailMost = 20

func headOf(m *Message) string {
	run := fmt.Sprintf("%s: run %d", m.Run.Pipeline, m.Run.ID)
	switch m.Change {
	case deploy.Recovered:
		return fmt.Sprintf("%s has recovered: run %d succeeded", m.Run.Pipeline, m.Run.ID)
	case deploy.Superseded:
		return run + " was superseded"
	case deploy.RolledBack:
		return fmt.Sprintf("%s was rolled back by run %d", m.Run.Pipeline, m.Run.ID)
	case deploy.NeedsApproval:
		return run + " waits for an approval"
	case deploy.Change(deploy.Queued), deploy.Change(deploy.Waiting), deploy.Change(deploy.Running), deploy.Change(deploy.Lost):
		return run + " is " + string(m.Change)
	case deploy.Change(deploy.Canceled), deploy.Change(deploy.Skipped):
		return run + " was " + string(m.Change)
	}
	return run + " " + string(m.Change)
}

// commitOf says which commit it was, and by whom.
func commitOf(r *deploy.Run) string {
	var b strings.Builder
	if r.Commit != "" {
		fmt.Fprintf(&b, "commit %s", r.Commit[:min(len(r.Commit), 7)])
	} else {
		fmt.Fprintf(&b, "event %s", r.Event)
	}
	if r.Repository != "" {
		b.WriteString(" of " + r.Repository)
	}
	var e deploy.Event
	if e.SetRef(r.Ref); e.Ref != "" {
		b.WriteString(", " + e.RefName())
	}
	if r.Actor != "" {
		b.WriteString(", by " + r.Actor)
	}
	if title, _, _ := strings.Cut(strings.TrimSpace(r.Message), "\n"); title != "" {
		b.WriteString(": " + title)
	}
	return b.String()
}

// failureOf says which step failed on which host, and how.
func failureOf(m *Message) string {
	if !slices.Contains([]deploy.State{deploy.Failed, deploy.Lost}, m.Run.State) {
		return m.Run.Error
	}
	job := findJob(m.Run, m.Job)
	if job == nil {
		return m.Run.Error
	}
	where := "job " + job.Name
	if m.Host != "" {
		where += " on " + m.Host
	}
	why := cmp.Or(job.Error, m.Run.Error)
	if m.Step != "" {
		where += ": step " + m.Step
		why = cmp.Or(stepError(job, m.Host, m.Step), why)
	}
	if why == "" {
		return where + " " + string(job.State)
	}
	// A job's error may begin with its own place.
	for _, p := range []string{where + ": ", "job " + job.Name + " on " + m.Host + ": ", "job " + job.Name + ": "} {
		why = strings.TrimPrefix(why, p)
	}
	return where + ": " + why
}

func findJob(r *deploy.Run, name string) *deploy.RunJob {
	for i := range r.Jobs {
		if j := &r.Jobs[i]; j.Name == name || name == "" && (j.State == deploy.Failed || j.State == deploy.Lost) {
			return j
		}
	}
	return nil
}

func stepError(j *deploy.RunJob, host, name string) string {
	for _, h := range j.HostRuns {
		if h.Name != host {
			continue
		}
		for _, s := range h.Steps {
			if s.Name == name && (s.State == deploy.Failed || s.State == deploy.Lost) {
				if s.Error == "" && s.ExitCode != nil {
					return fmt.Sprintf("exit status %d", *s.ExitCode)
				}
				return s.Error
			}
		}
	}
	return ""
}

func causeOf(r *deploy.Run) string {
	if r.Cause == "" {
		return ""
	}
	return string(r.State) + ": " + r.Cause
}

func waitingOf(r *deploy.Run) string {
	if r.WaitingFor == "" || r.State.Terminal() {
		return ""
	}
	return "waits for: " + r.WaitingFor
}

// commandsOf says what to type: to see more, to try again, to go back.
func commandsOf(m *Message) []string {
	var list []string
	add := func(c string) {
		if c != "" && !slices.Contains(list, c) {
			list = append(list, c)
		}
	}
	add(m.Command)
	switch m.Run.State {
	case deploy.Failed, deploy.Lost:
		logs := fmt.Sprintf("deployhook logs %d", m.Run.ID)
		if m.Job != "" {
			logs += " --job " + m.Job
		}
		if m.Host != "" {
			logs += " --host " + m.Host
		}
		add(logs)
		add(fmt.Sprintf("deployhook retry %d", m.Run.ID))
		if goesBack(m) {
			add("deployhook rollback " + m.Run.Pipeline)
		}
	case deploy.Canceled:
		add(fmt.Sprintf("deployhook retry %d", m.Run.ID))
	default:
		if m.Change == deploy.NeedsApproval || m.Run.State == deploy.Waiting {
			add(fmt.Sprintf("deployhook run %d", m.Run.ID))
		}
	}
	return list
}

// goesBack says whether a rollback may be what is wanted: a job that makes
// releases has begun.
func goesBack(m *Message) bool {
	return slices.ContainsFunc(m.Run.Jobs, func(j deploy.RunJob) bool { return j.Deploys && j.Begun })
}

// width is a text's length in UTF-16 units.
func width(s string) (n int) {
	for _, r := range s {
		n += utf16.RuneLen(r)
	}
	return n
}

// cut shortens a text to a width, with a mark that something is missing.
func cut(s string, most int) string {
	n, last := 0, 0 // last is where the mark would stand
	for i, r := range s {
		if n <= most-1 {
			last = i
		}
		if n += utf16.RuneLen(r); n > most {
			return s[:last] + "…"
		}
	}
	return s
}

// escapes are the sequences that colour a terminal.
//
// Source: ECMA-48, sections 5.4 and 5.6.
var escapes = regexp.MustCompile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?|[@-Z\\\\^_])")

// printable takes out of a text what would not be seen, or would turn the
// direction of what is; other control characters than those that are kept
// become spaces.
func printable(s string, keep ...rune) string {
	return strings.Map(func(r rune) rune {
		switch {
		case slices.Contains(keep, r):
			return r
		case unicode.Is(unicode.Cf, r) && r != '\u200d': // which joins the parts of an emoji
			return -1
		case r == unicode.ReplacementChar, unicode.IsGraphic(r), r == '\u200d':
			return r
		case unicode.IsControl(r), unicode.IsSpace(r):
			return ' '
		}
		return -1
	}, escapes.ReplaceAllString(strings.ToValidUTF8(s, "\ufffd"), ""))
}

// form is how a service writes. Each function is given a text as it is, and
// gives it escaped.
type form struct {
	most  int // UTF-16 units of all
	text  func(string) string
	bold  func(string) string
	code  func(string) string // within a line
	block func(string) string // several lines as they are
	link  func(string) string // an address
}

// plain has no markup.
func plain(most int) form {
	same := func(s string) string { return s }
	return form{most, same, same, same, same, same}
}

// write gives what a message says in a form, within its bound. What has no
// room goes in this order: lines of the log, the oldest first, the address,
// commands, facts.
func (n news) write(f form) string {
	if n.text != "" {
		return f.fit(n.text)
	}
	for {
		s := n.whole(f)
		if width(s) <= f.most {
			return s
		}
		switch {
		case len(n.tail) > 0:
			n.tail = n.tail[1:]
		case n.url != "":
			n.url = ""
		case len(n.commands) > 0:
			n.commands = n.commands[:len(n.commands)-1]
		case len(n.facts) > 0:
			n.facts = n.facts[:len(n.facts)-1]
		default:
			return f.fit(n.head)
		}
	}
}

func (n news) whole(f form) string {
	parts := []string{f.bold(n.head)}
	if len(n.facts) > 0 {
		parts[0] += "\n" + f.text(strings.Join(n.facts, "\n"))
	}
	if strings.TrimSpace(strings.Join(n.tail, "")) != "" {
		parts = append(parts, f.block(strings.Join(n.tail, "\n")))
	}
	if ways := n.ways(f); ways != "" {
		parts = append(parts, ways)
	}
	return strings.Join(parts, "\n\n")
}

// ways are where to look and what to type.
func (n news) ways(f form) string {
	var ways []string
	if n.url != "" {
		ways = append(ways, f.link(n.url))
	}
	for _, c := range n.commands {
		ways = append(ways, f.code(c))
	}
	return strings.Join(ways, "\n")
}

// fit escapes a text and shortens it to the form's bound, never within what a
// character is escaped to.
func (f form) fit(s string) string {
	if whole := f.text(s); width(whole) <= f.most {
		return whole
	}
	var b strings.Builder
	n := 0
	for _, r := range s {
		c := f.text(string(r))
		if n += width(c); n > f.most-1 {
			break
		}
		b.WriteString(c)
	}
	return b.String() + "…"
}
