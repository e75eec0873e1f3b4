package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	systemd "github.com/coreos/go-systemd/v22/journal"
)

// journal is a handler that gives each record to systemd's journal with its
// priority and its attributes as fields: journalctl DEPLOYHOOK_RUN=41 shows a
// run, journalctl -u deployhook -p warning what is wrong.
//
// Source: systemd.journal-fields(7), sd-daemon(3).
type journal struct {
	line  slog.Handler // writes a record as a line into buf
	attrs []slog.Attr
	*journalOut
}

// journalOut is where records go; all handlers of a log share it.
type journalOut struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	send func(text string, p systemd.Priority, fields map[string]string) error
	w    io.Writer // standard error, when it cannot be sent: a line with its priority
}

// newJournal makes a handler of the handler that line makes of a writer.
func newJournal(w io.Writer, send func(string, systemd.Priority, map[string]string) error, line func(io.Writer) slog.Handler) *journal {
	out := &journalOut{send: send, w: w}
	return &journal{line: line(&out.buf), journalOut: out}
}

func (j *journal) Enabled(ctx context.Context, l slog.Level) bool { return j.line.Enabled(ctx, l) }

func (j *journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journal{line: j.line.WithAttrs(attrs), attrs: append(slices.Clip(j.attrs), attrs...), journalOut: j.journalOut}
}

func (j *journal) WithGroup(name string) slog.Handler {
	return &journal{line: j.line.WithGroup(name), attrs: j.attrs, journalOut: j.journalOut}
}

func (j *journal) Handle(ctx context.Context, r slog.Record) error {
	fields := map[string]string{}
	add := func(a slog.Attr) bool {
		fields[fieldName(a.Key)] = a.Value.Resolve().String()
		return true
	}
	for _, a := range j.attrs {
		add(a)
	}
	r.Attrs(add)
	priority := priorityOf(r.Level)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.buf.Reset()
	if err := j.line.Handle(ctx, r); err != nil {
		return err
	}
	text := strings.TrimSuffix(j.buf.String(), "\n")
	if j.send(text, priority, fields) == nil {
		return nil
	}
	_, err := fmt.Fprintf(j.w, "<%d>%s\n", priority, text)
	return err
}

func priorityOf(l slog.Level) systemd.Priority {
	switch {
	case l >= slog.LevelError:
		return systemd.PriErr
	case l >= slog.LevelWarn:
		return systemd.PriWarning
	case l >= slog.LevelInfo:
		return systemd.PriInfo
	}
	return systemd.PriDebug
}

// fieldName is the field of an attribute: DEPLOYHOOK_RUN for run.
func fieldName(key string) string {
	return "DEPLOYHOOK_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
}

// isJournal says whether systemd's journal reads what is written to w, and not
// a file or pipe that a program within the service has put in its place.
func isJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	var st syscall.Stat_t
	err := syscall.Fstat(int(f.Fd()), &st)
	return err == nil && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
