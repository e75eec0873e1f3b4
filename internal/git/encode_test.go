package git

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// edited changes a content in a number of places.
func edited(rng *rand.Rand, b []byte, times int) []byte {
	b = bytes.Clone(b)
	for range times {
		at := rng.IntN(len(b) + 1)
		text := []byte(fmt.Sprintf("<%x>", rng.Uint64()))
		switch rng.IntN(3) {
		case 0:
			b = append(b[:at:at], append(text, b[at:]...)...)
		case 1:
			b = append(b[:at:at], b[min(at+rng.IntN(50), len(b)):]...)
		default:
			copy(b[at:], text)
		}
	}
	return b
}

func TestDeltasMakeWhatTheyAreMadeFor(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, 300<<10)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(random)
	lines := func(n int) []byte {
		var b bytes.Buffer
		for i := range n {
			fmt.Fprintf(&b, "line %d: %x\n", i, rng.Uint64())
		}
		return b.Bytes()
	}
	text := lines(1000)
	const any = 1 << 30
	x := &deltaIndex{} // used again and again
	for _, tt := range []struct {
		name         string
		base, target []byte
		most         int // bytes that are enough
	}{
		{"the same", random, random, 50},
		{"one byte changed", random, append(append(bytes.Clone(random[:70_000]), random[70_000]^1), random[70_001:]...), 60},
		{"one byte more at the beginning", random, append([]byte("x"), random...), 60},
		{"one byte less at the end", random, random[:len(random)-1], 50},
		{"its halves turned round", random, append(bytes.Clone(random[150<<10:]), random[:150<<10]...), 60},
		{"twice", random, append(bytes.Clone(random), random...), 80},
		{"20 edits", text, edited(rng, text, 20), 1500},
		{"a beginning that is shorter than a block", []byte("0123456789abcdef0123"), []byte("x0123456789abcdef0123"), 15},
		{"a copy of 64 KiB", random[:64<<10], random[:64<<10], 10},
		{"a copy of 64 KiB and one byte", random[:64<<10+1], random[:64<<10+1], 20},
		{"nothing in common", random[:100<<10], random[200<<10:], any},
		{"repeated bytes", bytes.Repeat([]byte("a"), 1<<20), bytes.Repeat([]byte("a"), 1<<20), 150},
		{"more repeated bytes", bytes.Repeat([]byte("a"), 1000), bytes.Repeat([]byte("a"), 100_000), 1000},
		{"a repeated line", bytes.Repeat([]byte("the same line\n"), 10_000), edited(rng, bytes.Repeat([]byte("the same line\n"), 10_000), 5), 600},
		{"upon nothing", nil, text[:100], any},
		{"upon less than a block", text[:15], text[:100], any},
		{"nothing", text, nil, 10},
		{"less than a block", text, text[:15], 20},
	} {
		x.make(tt.base)
		delta, ok := x.encode(nil, tt.target, tt.most)
		if !ok {
			t.Errorf("%s: there is no delta of %d bytes", tt.name, tt.most)
			continue
		}
		if got, err := patch(nil, tt.base, delta); err != nil || !bytes.Equal(got, tt.target) {
			t.Errorf("%s: the delta makes another content, %v", tt.name, err)
		}
		if _, ok := x.encode(delta, tt.target, len(delta)-1); ok {
			t.Errorf("%s: a delta of %d bytes has fewer", tt.name, len(delta))
		}
	}
}

// Contents that are made to be slow: whoever pushes could keep the daemon busy.
func TestDeltasTakeNoLongerThanTheirTargetIsLong(t *testing.T) {
	t.Parallel()
	block := "0123456789abcde"
	var alike strings.Builder // every block again and again, with another byte after it
	for i := range 1 << 16 {
		alike.WriteString(block + string(rune('A'+i%50)))
	}
	var target strings.Builder
	for i := range 1 << 18 {
		target.WriteString(block[:10] + string(rune('A'+i%7)))
	}
	x := &deltaIndex{}
	for name, tt := range map[string][2]string{
		"blocks that are nearly alike": {alike.String(), alike.String()[8:] + "x"},
		"the same bytes":               {strings.Repeat("a", 4<<20), strings.Repeat("a", 4<<20-1) + "b"},
		"two that alternate":           {strings.Repeat(strings.Repeat("a", 31)+"b", 1<<17), strings.Repeat(strings.Repeat("a", 33)+"b", 1<<17)},
		"nothing in common":            {alike.String(), target.String()},
	} {
		began := time.Now()
		x.make([]byte(tt[0]))
		delta, ok := x.encode(nil, []byte(tt[1]), 1<<30)
		// Measured: 60 ms; looked at one by one it would be minutes.
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s: it takes %v", name, took)
		}
		if got, err := patch(nil, []byte(tt[0]), delta); ok && (err != nil || string(got) != tt[1]) {
			t.Errorf("%s: the delta makes another content, %v", name, err)
		}
		t.Log(name, ok, len(delta), time.Since(began))
	}
}

func FuzzEncode(f *testing.F) {
	line := "0123456789abcdefghijklmnopqrstuvwxyz\n"
	for _, s := range [][2]string{
		{"", ""}, {"", "a"}, {"a", ""}, {line, line}, {line + line, line + "x" + line}, {strings.Repeat("a", 100), strings.Repeat("a", 300)},
		{line, "x" + line[1:]}, {strings.Repeat(line, 10), strings.Repeat(line[:20], 10)}, {strings.Repeat("ab", 50), strings.Repeat("ba", 60)},
	} {
		f.Add([]byte(s[0]), []byte(s[1]), 1<<20)
	}
	f.Fuzz(func(t *testing.T, base, target []byte, most int) {
		x := &deltaIndex{}
		x.make(base)
		delta, ok := x.encode(nil, target, most)
		if !ok {
			return
		}
		if len(delta) > most {
			t.Errorf("a delta of %d bytes, more than %d", len(delta), most)
		}
		if got, err := patch(nil, base, delta); err != nil || !bytes.Equal(got, target) {
			t.Errorf("%d bytes upon %d make another content: %v", len(target), len(base), err)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	var text bytes.Buffer
	for text.Len() < 100<<10 {
		fmt.Fprintf(&text, "line %d of a file: %x\n", rng.IntN(1000), rng.Uint64())
	}
	other := edited(rng, text.Bytes(), 10)
	x := &deltaIndex{}
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		x.make(text.Bytes())
		x.encode(nil, other, len(other)/2)
	}
}
