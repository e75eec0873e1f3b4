package wire_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"deployhook/internal/agent/wire"
	"deployhook/internal/deploy"
)

func TestHelloIsFoundBehindABanner(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("Welcome to Debian\r\n\nLast login: never\n")
	if err := wire.Hello(&b, "1.2", "abc"); err != nil {
		t.Fatal(err)
	}
	b.WriteString("rest")
	version, nonce, banner, err := wire.ReadHello(&b)
	if err != nil || version != "1.2" || nonce != "abc" || !strings.HasPrefix(string(banner), "Welcome") || b.String() != "rest" {
		t.Errorf("got %q %q %q, %v; %q is left", version, nonce, banner, err, b.String())
	}
}

func TestHelloOfAnotherProtocolIsKnownByItsVersion(t *testing.T) {
	for _, line := range []string{"deployhook-agent 99 1.3 abc\n", "deployhook-agent 99 1.3 and words that this version does not know\n"} {
		_, _, _, err := wire.ReadHello(strings.NewReader(line))
		var p *wire.ProtocolError
		if !errors.As(err, &p) || p.Version != "1.3" || p.Protocol != 99 {
			t.Errorf("%q: %v", line, err)
		}
	}
	_, _, banner, err := wire.ReadHello(strings.NewReader(strings.Repeat("noise\n", 20_000)))
	if err == nil || len(banner) > wire.BannerMost {
		t.Errorf("a banner without an end: %v, %d bytes kept", err, len(banner))
	}
}

func TestHelloIsFoundBehindAPromptWithoutANewline(t *testing.T) {
	version, nonce, banner, err := wire.ReadHello(strings.NewReader("\x1b]0;web1\x07deployhook-agent 1 1.2 abc\n"))
	if err != nil || version != "1.2" || nonce != "abc" || string(banner) != "\x1b]0;web1\x07" {
		t.Errorf("got %q %q %q, %v", version, nonce, banner, err)
	}
}

func TestHelloThatIsNoneIsPassedOver(t *testing.T) {
	for _, line := range []string{
		"deployhook-agent", "deployhook-agent 1", "deployhook-agent one 1.2 abc", "deployhook-agent 1 1.2", "deployhook-agent 1 1.2 abc def",
		"deployhook-agent 1 \x1b[2J abc", "deployhook-agent 2 \x1b[2J abc", "deployhook-agent 2 " + strings.Repeat("9", 101) + " abc",
	} {
		if version, _, _, err := wire.ReadHello(strings.NewReader(line + "\n")); err == nil || !strings.Contains(err.Error(), "no agent answered") {
			t.Errorf("%q was taken for an agent %q, %v", line, version, err)
		}
	}
}

func TestDecodeIsStrictAndBounded(t *testing.T) {
	var d wire.Dir
	for _, in := range []string{`{"dir":"x","more":1}`, `{"dir":"x"} {}`, `{"dir":`, `{"dir":"` + strings.Repeat("x", wire.JSONMost) + `"}`} {
		if wire.Decode(strings.NewReader(in), &d) == nil {
			t.Errorf("%.40s was read", in)
		}
	}
	if err := wire.Decode(strings.NewReader(`{"dir":"x"}`), &d); err != nil || d.Dir != "x" {
		t.Errorf("got %+v, %v", d, err)
	}
}

func TestTreeComesBackAsItWent(t *testing.T) {
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	files := []deploy.TreeFile{{Path: "a", Mode: deploy.TreePlain, Size: 3}, {Path: "d/\xff", Mode: deploy.TreeExecutable}, {Path: "l", Mode: deploy.TreeSymlink, Size: 3}}
	for _, f := range files {
		if err := wire.WriteFile(w, f, strings.NewReader("abcdef")); err != nil {
			t.Fatal(err)
		}
	}
	if err := wire.EndTree(w); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	var got []deploy.TreeFile
	err := wire.ReadTree(bufio.NewReader(bytes.NewReader(whole)), func(f deploy.TreeFile, r io.Reader) error {
		got = append(got, f)
		text, err := io.ReadAll(r)
		if int64(len(text)) != f.Size {
			t.Errorf("%q has %d bytes", f.Path, len(text))
		}
		return err
	})
	if err != nil || len(got) != 3 || got[1] != files[1] {
		t.Errorf("got %+v, %v", got, err)
	}
	for n := range whole {
		err := wire.ReadTree(bufio.NewReader(bytes.NewReader(whole[:n])), func(deploy.TreeFile, io.Reader) error { return nil })
		if err == nil {
			t.Errorf("a tree cut after %d bytes passed for whole", n)
		}
	}
	if err := wire.WriteFile(w, deploy.TreeFile{Path: "short", Mode: deploy.TreePlain, Size: 10}, strings.NewReader("abc")); err == nil {
		t.Error("a file shorter than it says was sent")
	}
}

func FuzzReadTree(f *testing.F) {
	f.Add([]byte{1, 'a', 1, 3, 'x', 'y', 'z', 0})
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = wire.ReadTree(bufio.NewReader(bytes.NewReader(b)), func(f deploy.TreeFile, r io.Reader) error {
			if f.Path == "" || f.Size < 0 {
				t.Errorf("got %+v", f)
			}
			return nil
		})
	})
}

func TestListIsReadAsItWasWritten(t *testing.T) {
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	want := []deploy.TreeFile{
		{Path: "a b\n\xff", Mode: deploy.TreePlain, Size: 0, Blob: strings.Repeat("00", 20)},
		{Path: "bin/run", Mode: deploy.TreeExecutable, Size: 1 << 33, Blob: strings.Repeat("fe", 20)},
		{Path: "link", Mode: deploy.TreeSymlink, Size: 4, Blob: strings.Repeat("12", 20)},
	}
	for _, f := range want {
		if err := wire.WriteName(w, f); err != nil {
			t.Fatal(err)
		}
	}
	if err := wire.EndTree(w); err != nil {
		t.Fatal(err)
	}
	for n := range b.Len() + 1 {
		var got []deploy.TreeFile
		err := wire.ReadNames(bufio.NewReader(bytes.NewReader(b.Bytes()[:n])), func(f deploy.TreeFile) error {
			got = append(got, f)
			return nil
		})
		if whole := n == b.Len(); whole != (err == nil) || whole && !slices.Equal(got, want) {
			t.Errorf("of %d bytes: %+v, %v", n, got, err)
		}
	}
	for _, blob := range []string{"", "12", strings.Repeat("xy", 20), strings.Repeat("12", 32)} {
		if err := wire.WriteName(w, deploy.TreeFile{Path: "a", Mode: deploy.TreePlain, Blob: blob}); err == nil {
			t.Errorf("a file with the blob %q was sent", blob)
		}
	}
}

func FuzzReadNames(f *testing.F) {
	f.Add(append([]byte{1, 'a', 1, 3}, make([]byte, 21)...))
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = wire.ReadNames(bufio.NewReader(bytes.NewReader(b)), func(f deploy.TreeFile) error {
			if f.Path == "" || f.Size < 0 || len(f.Blob) != 40 {
				t.Errorf("got %+v", f)
			}
			return nil
		})
	})
}

func TestPackedTreeComesBackAsItWent(t *testing.T) {
	var b bytes.Buffer
	z, err := wire.Pack(&b)
	if err != nil {
		t.Fatal(err)
	}
	content := strings.Repeat("the same line\n", 300_000)
	w := bufio.NewWriter(z)
	if err := wire.WriteFile(w, deploy.TreeFile{Path: "a", Mode: deploy.TreePlain, Size: int64(len(content))}, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(wire.EndTree(w), z.Close()); err != nil {
		t.Fatal(err)
	}
	if b.Len() > len(content)/100 {
		t.Errorf("%d bytes were packed into %d", len(content), b.Len())
	}
	read := func(packed []byte) (string, error) {
		u, err := wire.Unpack(bytes.NewReader(packed))
		if err != nil {
			return "", err
		}
		defer u.Close()
		got := ""
		err = wire.ReadTree(bufio.NewReader(u), func(_ deploy.TreeFile, r io.Reader) error {
			c, err := io.ReadAll(r)
			got = string(c)
			return err
		})
		return got, err
	}
	if got, err := read(b.Bytes()); err != nil || got != content {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(content), err)
	}
	for n := 0; n < b.Len(); n += 1 + b.Len()/50 {
		if _, err := read(b.Bytes()[:n]); err == nil {
			t.Errorf("%d of %d packed bytes passed for whole", n, b.Len())
		}
	}
}

func FuzzUnpack(f *testing.F) {
	for _, content := range []string{"\x00", "\x01a\x01\x03abc\x00"} {
		var b bytes.Buffer
		z, err := wire.Pack(&b)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := io.WriteString(z, content); err != nil {
			f.Fatal(err)
		}
		if err := z.Close(); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte("\x28\xb5\x2f\xfd\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := wire.Unpack(bytes.NewReader(b))
		if err != nil {
			return
		}
		defer u.Close()
		_ = wire.ReadTree(bufio.NewReader(u), func(f deploy.TreeFile, _ io.Reader) error {
			if f.Path == "" || f.Size < 0 {
				t.Errorf("got %+v", f)
			}
			return nil
		})
	})
}

func FuzzReadFar(f *testing.F) {
	f.Add([]byte("Welcome\r\ndeployhook-far send amd64\n"))
	f.Add([]byte("no newline deployhook-far run\ndeployhook-agent 1 0.1 abc\n"))
	f.Add([]byte("deployhook-far \n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		words, banner, err := wire.ReadFar(bytes.NewReader(b), "deployhook-far ")
		if err == nil && len(words) == 0 || len(banner) > wire.BannerMost {
			t.Errorf("%q, %d bytes before it, %v", words, len(banner), err)
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 1, 'x'})
	f.Add([]byte{3, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			kind, content, err := wire.ReadFrame(r)
			if err != nil {
				return
			}
			if kind < wire.FrameStdout || kind > wire.FrameResult || len(content) > wire.JSONMost {
				t.Errorf("kind %d with %d bytes", kind, len(content))
			}
		}
	})
}

func FuzzReadHello(f *testing.F) {
	f.Add([]byte("deployhook-agent 1 0.1 abc\n"))
	f.Add([]byte("banner\r\nprompt> deployhook-agent 2 0.1 abc def\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, nonce, _, err := wire.ReadHello(bytes.NewReader(b))
		if err == nil && nonce == "" {
			t.Error("an agent without a nonce was believed")
		}
		if errors.Is(err, nil) && len(b) == 0 {
			t.Error("nothing was taken for an agent")
		}
	})
}

// Who answers a tree before its sender's end was read cuts the sender off.
func TestTreeAndListAreReadToTheEndOfTheirSender(t *testing.T) {
	read := map[string]func(r *bufio.Reader) error{
		"tree": func(r *bufio.Reader) error {
			return wire.ReadTree(r, func(deploy.TreeFile, io.Reader) error { return nil })
		},
		"list": func(r *bufio.Reader) error { return wire.ReadNames(r, func(deploy.TreeFile) error { return nil }) },
	}
	for name, read := range read {
		var b bytes.Buffer
		if err := wire.EndTree(bufio.NewWriter(&b)); err != nil {
			t.Fatal(err)
		}
		r := &endSeen{r: bytes.NewReader(b.Bytes())}
		if err := read(bufio.NewReader(r)); err != nil || !r.seen {
			t.Errorf("%s: the end was read: %v; %v", name, r.seen, err)
		}
		b.WriteByte(7)
		if err := read(bufio.NewReader(&b)); err == nil {
			t.Errorf("%s: one that goes on after its end passed for whole", name)
		}
	}
}

// endSeen notes that its end was read.
type endSeen struct {
	r    io.Reader
	seen bool
}

func (e *endSeen) Read(b []byte) (int, error) {
	n, err := e.r.Read(b)
	e.seen = e.seen || err == io.EOF
	return n, err
}
