package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	systemd "github.com/coreos/go-systemd/v22/journal"

	"deployhook/internal/config"
)

// sent is what the journal was given.
type sent struct {
	text     string
	priority systemd.Priority
	fields   map[string]string
}

func TestJournalGetsPriorityAndFieldsOfEachRecord(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var got sent
		send := func(text string, p systemd.Priority, f map[string]string) error {
			got = sent{text, p, maps.Clone(f)}
			return nil
		}
		var stderr bytes.Buffer
		log := slog.New(newJournal(&stderr, send, lines(config.Server{LogLevel: "debug", LogFormat: format}, true)))
		log = log.With("run", int64(41), "job", "deploy")
		for level, want := range map[slog.Level]systemd.Priority{slog.LevelDebug: systemd.PriDebug, slog.LevelInfo: systemd.PriInfo, slog.LevelWarn: systemd.PriWarning, slog.LevelError: systemd.PriErr} {
			log.Log(t.Context(), level, "a push said level=ERROR\nMESSAGE=x", "err", `"level":"ERROR"`, "took", 1500*time.Millisecond, "odd key-ü", 1)
			fields := map[string]string{"DEPLOYHOOK_RUN": "41", "DEPLOYHOOK_JOB": "deploy", "DEPLOYHOOK_ERR": `"level":"ERROR"`, "DEPLOYHOOK_TOOK": "1.5s", "DEPLOYHOOK_ODD_KEY__": "1"}
			if got.priority != want || !maps.Equal(got.fields, fields) || strings.Contains(got.text, "\n") || !strings.Contains(got.text, "a push said") {
				t.Errorf("%s at %v: %+v", format, level, got)
			}
			if strings.Contains(got.text, "time=") || strings.Contains(got.text, `"time"`) {
				t.Errorf("the journal has a time of its own: %s", got.text)
			}
		}
		if stderr.Len() > 0 {
			t.Errorf("what was sent is printed too: %s", stderr.String())
		}
	}
}

func TestWhatCannotBeSentToTheJournalIsPrintedWithItsPriority(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var b bytes.Buffer
		fails := func(string, systemd.Priority, map[string]string) error { return errors.New("no socket") }
		log := slog.New(newJournal(&b, fails, lines(config.Server{LogLevel: "debug", LogFormat: format}, true)))
		for level, want := range map[slog.Level]string{slog.LevelDebug: "<7>", slog.LevelInfo: "<6>", slog.LevelWarn: "<4>", slog.LevelError: "<3>"} {
			b.Reset()
			log.Log(t.Context(), level, "a push said level=ERROR", "err", `"level":"ERROR"`)
			if line := b.String(); !strings.HasPrefix(line, want) || strings.Count(line, "\n") != 1 {
				t.Errorf("%s at %v is %q, want it to begin with %s", format, level, line, want)
			}
		}
	}
}

// Only the journal itself gets records, not a file or pipe that a program
// within the service writes to.
func TestOnlyTheJournalIsTakenForIt(t *testing.T) {
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
	for stream, want := range map[string]bool{fmt.Sprintf("%d:%d", st.Dev, st.Ino): true, fmt.Sprintf("%d:%d", st.Dev, st.Ino+1): false, "": false} {
		t.Setenv("JOURNAL_STREAM", stream)
		if got := isJournal(w); got != want {
			t.Errorf("with JOURNAL_STREAM=%q the pipe is the journal: %v, want %v", stream, got, want)
		}
	}
	t.Setenv("JOURNAL_STREAM", "1:1")
	if isJournal(&bytes.Buffer{}) || isJournal(io.Discard) {
		t.Error("a buffer is taken for the journal")
	}
}
