package main

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestOnlyColourGetsThroughToATerminal(t *testing.T) {
	for _, tt := range []struct{ name, in, plain, colour string }{
		{"text", "hello, wörld\t日本", "hello, wörld\t日本", "hello, wörld\t日本"},
		{"red", "\x1b[31mred\x1b[0m", "red", "\x1b[31mred\x1b[0m" + reset},
		{"256 colours", "\x1b[38;5;8mgrey", "grey", "\x1b[38;5;8mgrey" + reset},
		{"true colour", "\x1b[1;48;2;1;2;3mx", "x", "\x1b[1;48;2;1;2;3mx" + reset},
		{"reset", "\x1b[mx", "x", "\x1b[mx" + reset},
		{"concealed", "\x1b[8mhidden", "hidden", "hidden"},
		{"concealed behind a colour", "\x1b[38;5;1;8mhidden", "hidden", "hidden"},
		{"half a colour", "\x1b[38;5mx", "x", "x"},
		{"key modifiers", "\x1b[>4;2mx", "x", "x"},
		{"clear", "a\x1b[2Jb", "ab", "ab"},
		{"cursor up", "a\x1b[1Ab", "ab", "ab"},
		{"title, BEL", "\x1b]0;pwned\x07x", "x", "x"},
		{"title, ST", "\x1b]0;pwned\x1b\\x", "x", "x"},
		{"title without end", "a\x1b]0;pwned", "a0;pwned", "a0;pwned"},
		{"clipboard", "\x1b]52;c;cm0gLXJm\x07x", "x", "x"},
		{"device control", "\x1bP1$r0m\x1b\\x", "x", "x"},
		{"character set", "\x1b(0x", "x", "x"},
		{"full reset", "\x1bcx", "x", "x"},
		{"sequence within a sequence", "\x1b[3\x1b[31mx", "x", "\x1b[31mx" + reset},
		{"lone escape", "a\x1b", "a", "a"},
		{"eight bits", "\u009b31mx\u0090y", "31mxy", "31mxy"},
		{"raw eight bits", "\x9b31m", "\ufffd31m", "\ufffd31m"},
		{"backspace, bell, NUL", "a\x08\x07\x00b\x7f", "ab", "ab"},
		{"turned around", "a\u202eb\u2066c\u200f", "abc", "abc"},
		{"line separator", "a\u2028b", "ab", "ab"},
		{"no UTF-8", "caf\xe9!", "caf\ufffd!", "caf\ufffd!"},
	} {
		if got := string(cleanLine([]byte(tt.in), false)); got != tt.plain {
			t.Errorf("%s: without colour %q becomes %q, want %q", tt.name, tt.in, got, tt.plain)
		}
		if got := string(cleanLine([]byte(tt.in), true)); got != tt.colour {
			t.Errorf("%s: with colour %q becomes %q, want %q", tt.name, tt.in, got, tt.colour)
		}
	}
}

func FuzzCleanLine(f *testing.F) {
	for _, s := range []string{"hello", "\x1b[31mred\x1b[0m", "\x1b]0;t\x07", "\x1b[38;5;1;8m", "\x1b", "\x9b", "\u202e", "\x1bP\x1b\\", "\x1b[>4m", "\xff\xfe"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		clean := cleanLine(b, false)
		if !utf8.Valid(clean) {
			t.Errorf("%q becomes %q, which is no UTF-8", b, clean)
		}
		for _, r := range string(clean) {
			if !printable(r) {
				t.Errorf("%q becomes %q, which has %U", b, clean, r)
			}
		}
		if again := cleanLine(clean, false); string(again) != string(clean) {
			t.Errorf("%q becomes %q, and that %q", b, clean, again)
		}
		// With colour the same text stays, and nothing but colour besides.
		colored := string(cleanLine(b, true))
		if got := string(cleanLine([]byte(colored), false)); got != string(clean) {
			t.Errorf("%q has the text %q with colour and %q without", b, got, clean)
		}
		for _, part := range strings.Split(colored, "\x1b")[1:] {
			m := strings.IndexByte(part, 'm')
			if m < 0 || !colours("\x1b"+part[:m+1]) {
				t.Errorf("%q keeps the sequence %q", b, part)
			}
		}
		if strings.Contains(colored, "\x1b") && !strings.HasSuffix(colored, reset) {
			t.Errorf("%q leaves a colour on: %q", b, colored)
		}
	})
}
