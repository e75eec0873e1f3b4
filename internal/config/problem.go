package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Problem is one thing that is wrong, or worth a word, and where.
type Problem struct {
	File         string
	Line, Column int    // 0 = the file as a whole
	Path         string // pipelines.shop.jobs.deploy.needs
	Message      string // one sentence
	Unread       bool   // a hook's secret that this process cannot read; the daemon's own may
}

// String is file:line:column: path: message.
func (p Problem) String() string {
	s := p.File
	if p.Line > 0 {
		s += fmt.Sprintf(":%d:%d", p.Line, p.Column)
	}
	if p.Path != "" {
		s += ": " + p.Path
	}
	return printable(s + ": " + p.Message)
}

// printable takes out what would move a cursor: keys and values come from the
// file.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

// Problems are all that is wrong with a file, in its order.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

// inOrder sorts by place. What an alias repeats is said once.
func (p Problems) inOrder() Problems {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Path, b.Path))
	})
	type place struct {
		line, column int
		message      string
	}
	seen := map[place]bool{}
	return slices.DeleteFunc(p, func(x Problem) bool {
		at := place{x.Line, x.Column, x.Message}
		if x.Line > 0 && seen[at] {
			return true
		}
		seen[at] = true
		return false
	})
}

// base is a file's name as messages have it.
func base(path string) string { return filepath.Base(path) }
