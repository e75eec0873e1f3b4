package daemon

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"
)

// journal begins each line of the daemon's log with its priority, as systemd's
// journal takes it: journalctl -u deployhook -p warning shows what is wrong.
//
// Source: sd-daemon(3).
type journal struct{ w io.Writer }

// priorities are those of the levels that slog's handlers write.
var priorities = []struct{ text, json, prefix string }{
	{"level=ERROR", `"level":"ERROR"`, "<3>"},
	{"level=WARN", `"level":"WARN"`, "<4>"},
	{"level=DEBUG", `"level":"DEBUG"`, "<7>"},
}

// levelWithin is where the level stands: behind the time, before any word that
// is not ours.
const levelWithin = 64

// Write takes one whole line, which is what slog's handlers write.
func (j journal) Write(line []byte) (int, error) {
	prefix := "<6>"
	head := line[:min(len(line), levelWithin)]
	for _, p := range priorities {
		if bytes.Contains(head, []byte(" "+p.text)) || bytes.Contains(head, []byte(","+p.json)) {
			prefix = p.prefix
		}
	}
	n, err := j.w.Write(append([]byte(prefix), line...))
	return max(0, n-len(prefix)), err
}

// logTo gives where the log goes: w, by way of journal when systemd's journal
// reads it.
func logTo(w io.Writer) io.Writer {
	f, ok := w.(*os.File)
	if !ok {
		return w
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil || os.Getenv("JOURNAL_STREAM") != fmt.Sprintf("%d:%d", st.Dev, st.Ino) {
		return w
	}
	return journal{w}
}
