package git

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

func deflated(t testing.TB, b []byte, level int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := zlib.NewWriterLevel(&out, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestInflateGivesWhatWasDeflated(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	text := ""
	for i := range 3000 {
		text += fmt.Sprintf("line %d has %x\n", i, rng.IntN(1<<uint(1+i%30)))
	}
	random := make([]byte, 100_000)
	for i := range random {
		random[i] = byte(rng.Uint32())
	}
	z := &zinflater{}
	for _, content := range []string{"", "a", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", strings.Repeat("abc", 100_000), text, string(random), string(random) + text + string(random)} {
		for level := -2; level <= 9; level++ {
			src := deflated(t, []byte(content), level)
			dst := make([]byte, len(content))
			n, err := z.zlib(dst, append(src, "what follows"...))
			if n != len(src) || err != nil || string(dst) != content {
				t.Fatalf("%d bytes at level %d: used %d of %d, %v", len(content), level, n, len(src), err)
			}
			if _, err := z.zlib(dst, src[:len(src)-1]); !errors.Is(err, errShort) {
				t.Errorf("%d bytes at level %d, one byte less: %v, want %v", len(content), level, err, errShort)
			}
			if _, err := z.zlib(make([]byte, len(content)+1), src); !errors.Is(err, errSize) {
				t.Errorf("%d bytes at level %d, said to be one more: %v, want %v", len(content), level, err, errSize)
			}
			if len(content) > 0 {
				if _, err := z.zlib(dst[1:], src); !errors.Is(err, errSize) {
					t.Errorf("%d bytes at level %d, said to be one less: %v, want %v", len(content), level, err, errSize)
				}
			}
		}
	}
}

// The standard library is held against it: what one takes the other takes, and
// gives the same.
func FuzzInflate(f *testing.F) {
	for level := -2; level <= 9; level++ {
		f.Add(deflated(f, []byte(strings.Repeat("some text, and some more of it; ", 20)), level), uint16(640))
	}
	f.Add([]byte("\x78\x9c\x03\x00\x00\x00\x00\x01"), uint16(0))
	f.Add([]byte("\x78\x9c\x01\x01\x00\xfe\xffa\x00\x62\x00\x62"), uint16(1))
	f.Add([]byte("\x78\x9c\x05\xc0\x81\x08\x00\x00\x00\x00\x20\x7f\xeb\x03\x00\x00\x00\x00\x01"), uint16(0))
	f.Fuzz(func(t *testing.T, src []byte, size uint16) {
		dst := make([]byte, size)
		n, err := (&zinflater{}).zlib(dst, src)
		r, lerr := zlib.NewReader(bytes.NewReader(src))
		var want []byte
		if lerr == nil {
			want, lerr = io.ReadAll(io.LimitReader(r, 1<<17))
		}
		if err == nil {
			if n > len(src) {
				t.Fatalf("used %d of %d bytes", n, len(src))
			}
			if lerr != nil || !bytes.Equal(want[:min(len(want), len(dst))], dst) || len(want) != len(dst) {
				t.Fatalf("gave %q; the library %q, %v", dst, want, lerr)
			}
		} else if lerr == nil && len(want) == len(dst) {
			t.Fatalf("%v; the library gives %q", err, want)
		}
	})
}
