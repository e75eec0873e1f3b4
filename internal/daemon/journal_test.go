package daemon

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"

	"deployhook/internal/config"
)

func TestJournalGetsThePriorityOfEachLine(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var b bytes.Buffer
		log := logger(journal{&b}, config.Server{LogLevel: "debug", LogFormat: format})
		for level, want := range map[slog.Level]string{slog.LevelDebug: "<7>", slog.LevelInfo: "<6>", slog.LevelWarn: "<4>", slog.LevelError: "<3>"} {
			b.Reset()
			log.Log(t.Context(), level, "a push said level=ERROR", "err", `"level":"ERROR"`)
			if line := b.String(); !strings.HasPrefix(line, want) || strings.Count(line, "\n") != 1 {
				t.Errorf("%s at %v is %q, want it to begin with %s", format, level, line, want)
			}
		}
	}
}

// Only the journal itself gets prefixes, not a file or pipe that a program
// within the service writes to.
func TestOnlyTheJournalGetsPriorities(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(w.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	for stream, want := range map[string]io.Writer{
		fmt.Sprintf("%d:%d", st.Dev, st.Ino): journal{w}, fmt.Sprintf("%d:%d", st.Dev, st.Ino+1): w, "": w,
	} {
		t.Setenv("JOURNAL_STREAM", stream)
		if got := logTo(w); got != want {
			t.Errorf("with JOURNAL_STREAM=%q the log goes to %v, want %v", stream, got, want)
		}
	}
	t.Setenv("JOURNAL_STREAM", "1:1")
	if _, ok := logTo(&bytes.Buffer{}).(journal); ok {
		t.Error("a buffer is taken for the journal")
	}
}
