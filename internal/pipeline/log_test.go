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

func (c *chunks) last() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := c.text[c.top]
	if len(lines) == 0 {
		return ""
	}
	return string(lines[len(lines)-1].Text)
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

// What deployhook says is whole: its end is not kept back, though a secret
// could begin there.
func TestWhatDeployhookSaysIsSeenWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &chunks{}
		l := newStepLog(t.Context(), store, deploy.StepAt{}, []string{"left\nand more of a secret"})
		l.say("deployhook: about %v are left", time.Second)
		<-afterFake(2 * logWait)
		if got, want := store.all(), "deployhook: about 1s are left\n"; got != want {
			t.Errorf("log is %q, want %q", got, want)
		}
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
	})
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

// What a step prints in a moment is more than anybody can look at: the tail
// that was written down before it makes way, and the log says so at its place.
func TestTailThatWasWrittenDownMakesWayForAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &chunks{}
		l := newStepLog(t.Context(), store, deploy.StepAt{}, nil)
		total, next := 0, 0
		print := func(size int) {
			var b []byte
			for ; size > 0; size -= 1000 {
				b = fmt.Appendf(b, "%0999d\n", next)
				next++
			}
			total += len(b)
			for len(b) > 0 {
				n := min(len(b), 64<<10)
				l.write(1, b[:n])
				b = b[n:]
			}
		}
		for _, size := range []int{logHead + 1<<20, 1 << 20, 3 * logTail, 1 << 20, 3 * logTail, 1 << 20} {
			print(size)
			<-afterFake(3 * logWait)
			if got, want := store.last(), fmt.Sprintf("%0999d", next-1); got != want {
				t.Errorf("after %d bytes the log that can be followed ends with %q, want %q", total, got, want)
			}
		}
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
		text := store.all()
		head, rest, found := strings.Cut(text, "deployhook: ")
		note, tail, _ := strings.Cut(rest, "\n")
		var left int
		if _, err := fmt.Sscanf(note, "%d bytes are left out here", &left); err != nil || !found || strings.Contains(tail, "deployhook: ") {
			t.Fatalf("the log says %q, want once how much is left out: %v", note, err)
		}
		if len(head)+left+len(tail) != total {
			t.Errorf("%d bytes of head, %d left out and %d of tail are not the %d that were written", len(head), left, len(tail), total)
		}
		if len(head) < logHead || len(tail) < logTail || len(tail) > 2*logTail {
			t.Errorf("%d bytes of head and %d of tail are kept, want %d and %d", len(head), len(tail), logHead, logTail)
		}
		for i, line := range strings.Split(strings.TrimSuffix(tail, "\n"), "\n") {
			if want := fmt.Sprintf("%0999d", next-strings.Count(tail, "\n")+i); line != want {
				t.Fatalf("line %d of the tail is %q, want %q", i, line, want)
			}
		}
	})
}

// A disk that is slower than the step holds it up in the head, where all is kept.
func TestASlowDiskLosesNothingOfTheHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slowChunks{}
		l := newStepLog(t.Context(), store, deploy.StepAt{}, nil)
		var want strings.Builder
		for i := range 40 {
			text := bytes.Repeat(fmt.Appendf(nil, "%079d\n", i), 800)
			want.Write(text)
			l.write(1, text)
		}
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
		if store.all() != want.String() {
			t.Errorf("%d bytes are kept of %d", len(store.all()), want.Len())
		}
	})
}

type slowChunks struct{ chunks }

func (c *slowChunks) AppendLog(ctx context.Context, at deploy.StepAt, seq int64, lines []deploy.LogLine) error {
	<-afterFake(time.Second)
	return c.chunks.AppendLog(ctx, at, seq, lines)
}
