package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"deployhook/internal/deploy"
)

// chunks is a log in memory: the store has tests of its own.
type chunks struct {
	Records
	mu   sync.Mutex
	text map[int64][]deploy.LogLine
	top  int64
}

func (c *chunks) AppendLog(_ context.Context, _ deploy.StepAt, seq int64, lines []deploy.LogLine) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.text == nil {
		c.text = map[int64][]deploy.LogLine{}
	}
	// What the log gives is its own again when this returns.
	c.text[seq] = make([]deploy.LogLine, len(lines))
	for i, l := range lines {
		l.Text = bytes.Clone(l.Text)
		c.text[seq][i] = l
	}
	c.top = max(c.top, seq)
	return nil
}

func (c *chunks) DropLog(_ context.Context, _ deploy.StepAt, from, to int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := from; s <= to; s++ {
		delete(c.text, s)
	}
	return nil
}

func (c *chunks) all() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for s := int64(1); s <= c.top; s++ {
		for _, l := range c.text[s] {
			b.Write(l.Text)
			if !l.Open {
				b.WriteByte('\n')
			}
		}
	}
	return b.String()
}

func TestLogKeepsLinesInOrder(t *testing.T) {
	store := &chunks{}
	l := newStepLog(t.Context(), store, deploy.StepAt{}, []string{"hunter2hunter3"})
	l.write(1, []byte("one\ntw"))
	l.write(2, []byte("err\n"))
	l.write(1, []byte("o hunter2hun"))
	l.write(1, []byte("ter3\nlast without newline"))
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	if got, want := store.all(), "one\nerr\ntwo ***\nlast without newline\n"; got != want {
		t.Errorf("log is %q, want %q", got, want)
	}
}

func TestPromptWithoutNewlineIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &chunks{}
		l := newStepLog(t.Context(), store, deploy.StepAt{}, nil)
		l.write(1, []byte("Password: "))
		synctest.Wait()
		if got := store.all(); got != "" {
			t.Fatalf("%q was written at once, without waiting for the rest of the line", got)
		}
		<-afterFake(2 * logWait)
		if got := store.all(); got != "Password: " {
			t.Errorf("log is %q after %v: a prompt must be seen", got, 2*logWait)
		}
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestLongLogKeepsHeadAndTailAndSaysSo(t *testing.T) {
	store := &chunks{}
	l := newStepLog(t.Context(), store, deploy.StepAt{}, nil)
	const lines, width = 50_000, 1000
	for i := range lines {
		l.write(1, append(bytes.Repeat([]byte("x"), width-10), fmt.Sprintf("%09d\n", i)...))
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	text := store.all()
	if len(text) > logHead+logTail+2*logChunk+1000 {
		t.Errorf("the log has %d bytes", len(text))
	}
	for _, want := range []string{"x000000000\n", fmt.Sprintf("x%09d\n", lines-1), "bytes are left out here"} {
		if !strings.Contains(text, want) {
			t.Errorf("the log does not have %q", want)
		}
	}
	var left int
	at := strings.Index(text, "deployhook: ")
	if _, err := fmt.Sscanf(text[at:], "deployhook: %d bytes", &left); err != nil {
		t.Fatal(err)
	}
	note := strings.Index(text[at:], "\n") + 1
	if left+len(text)-note != lines*width {
		t.Errorf("%d bytes left out and %d kept are not the %d that were written", left, len(text)-note, lines*width)
	}
}

func TestBinaryAndEndlessLinesAreBounded(t *testing.T) {
	store := &chunks{}
	l := newStepLog(t.Context(), store, deploy.StepAt{}, nil)
	in := bytes.Repeat([]byte{0, 0xff, 'a', 0x1b}, 100_000)
	l.write(1, in)
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	if got := store.all(); got != string(in)+"\n" {
		t.Errorf("%d bytes came back of %d", len(got), len(in))
	}
	for _, ls := range store.text {
		for _, line := range ls {
			if len(line.Text) > lineMax {
				t.Fatalf("a line has %d bytes", len(line.Text))
			}
		}
	}
}

func TestWhatDeployhookSaysComesAfterWhatTheStepPrinted(t *testing.T) {
	store := &chunks{}
	l := newStepLog(t.Context(), store, deploy.StepAt{}, []string{"hunter2hunter3"})
	l.write(1, []byte("one\nwithout newline, then hunter2"))
	l.write(2, []byte("on stderr"))
	l.say("deployhook: exit status %d", 3)
	l.write(1, []byte("second try\n"))
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	if got, want := store.all(), "one\nwithout newline, then hunter2\non stderr\ndeployhook: exit status 3\nsecond try\n"; got != want {
		t.Errorf("log is %q, want %q", got, want)
	}
}

// A prompt was shown already when deployhook has something to say: its line
// ends there.
func TestAPromptEndsWhereDeployhookSpeaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &chunks{}
		l := newStepLog(t.Context(), store, deploy.StepAt{}, nil)
		l.write(1, []byte("Password: "))
		<-afterFake(2 * logWait)
		l.say("deployhook: timed out after 1s")
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
		if got, want := store.all(), "Password: \ndeployhook: timed out after 1s\n"; got != want {
			t.Errorf("log is %q, want %q", got, want)
		}
	})
}

func TestSecretReadAnewForATryIsMasked(t *testing.T) {
	store := &chunks{}
	l := newStepLog(t.Context(), store, deploy.StepAt{}, []string{"first-token"})
	l.write(1, []byte("with first-token\n"))
	l.mask([]string{"first-token", "second-token"})
	l.write(1, []byte("with second-token and first-token\n"))
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	if got, want := store.all(), "with ***\nwith *** and ***\n"; got != want {
		t.Errorf("log is %q, want %q", got, want)
	}
}

func TestManyShortLinesAreWrittenInChunksOfBoundedLines(t *testing.T) {
	store := &chunks{}
	l := newStepLog(t.Context(), store, deploy.StepAt{}, nil)
	l.write(1, bytes.Repeat([]byte("\n"), 100_000))
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	lines := 0
	for seq, ls := range store.text {
		if lines += len(ls); len(ls) > logLines {
			t.Errorf("chunk %d has %d lines, want at most %d", seq, len(ls), logLines)
		}
	}
	if lines != 100_000 {
		t.Errorf("%d lines came back of 100000", lines)
	}
}

func afterFake(d time.Duration) <-chan time.Time { return time.After(d) }
