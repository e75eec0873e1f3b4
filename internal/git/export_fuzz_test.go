package git

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

func FuzzAttributes(f *testing.F) {
	for _, s := range []string{
		"", "* export-ignore", "[attr]drop export-ignore\n*.txt drop\na -drop\nb !drop", `"a\303\274b" export-subst`, `"open`, "a/**/b export-ignore\r\n", "**/**/x export-ignore", "[[:alpha:]-z]* filter=lfs", `\`, "[", "a export-ignore -", "[attr]self self",
	} {
		f.Add(s, "dir/a b.txt")
	}
	f.Fuzz(func(t *testing.T, text, path string) {
		if len(text) > 4<<10 || len(path) > 200 || path == "" || strings.Contains(path, "\x00") {
			return
		}
		var a attributes
		a.enter("", text)
		a.enter("dir", text)
		for _, dir := range []bool{true, false} {
			v, err := a.of(path, dir)
			if err != nil {
				continue
			}
			for name, s := range v {
				if !validAttribute(name) || s.name != name || strings.IndexByte("\x00-!=", s.sign) < 0 {
					t.Errorf("%q is no attribute: %+v", name, s)
				}
			}
		}
		a.leave(0)
		if v, err := a.of(path, false); len(v) > 0 || err != nil {
			t.Errorf("no file gives %v, %v", v, err)
		}
	})
}

func FuzzGlob(f *testing.F) {
	for _, s := range []string{"*", "**", "a/**/b", "[a-z]", "[!]a]", "[[:digit:]", `\*`, "a**b", "*/?", "[a-", `[\`} {
		f.Add(s, "a/b/c")
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > 200 || len(text) > 200 {
			return
		}
		for _, path := range []bool{true, false} {
			if _, err := glob(pattern, text, path); err != nil {
				continue
			}
			// What has nothing special in it matches itself only.
			if !strings.ContainsAny(pattern, globSpecial) && !strings.Contains(pattern+text, "\x00") {
				if ok, _ := glob(pattern, text, path); ok != (pattern == text) {
					t.Errorf("%q matches %q: %v", pattern, text, ok)
				}
			}
		}
	})
}

var testNow = time.Unix(1_700_000_100, 0)

// bare answers placeholders without a repository.
type bare struct{}

func (bare) abbreviate(h plumbing.Hash) (string, error)       { return h.String()[:7], nil }
func (bare) names() ([]string, error)                         { return []string{"HEAD -> main", "tag: v1"}, nil }
func (bare) describe(describeOptions) (string, error)         { return "v1-2-gabc", nil }
func (bare) mapped(name, mail string) (string, string, error) { return name, mail, nil }
func (bare) date(p person, how byte) string                   { return p.date(testNow, how) }

func FuzzFormat(f *testing.F) {
	commit := "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a@example.com> 1700000000 +0100\ncommitter C <c@example.com> 1 -0000\nencoding latin1\n\nsubject\n\nbody\n\nKey: value\n"
	for _, s := range []string{
		"%H %an %(trailers:key=Key,valueonly,separator=%x2C)", "%w(10,2,3)%B", "%<(20,mtrunc)%s", "%>>(5)%h", "%><|(9)%ad", "%-b%+s% e", "%C(always,red)%Creset", "%x4", "%(describe:tags,match=v*)", "%(", "%w(", "%<(", "%ar%ah%aI", "%",
	} {
		f.Add(s, commit)
	}
	f.Fuzz(func(t *testing.T, format, commit string) {
		if len(format) > 200 || len(commit) > 2000 {
			return
		}
		c, err := parseCommit(plumbing.ZeroHash, []byte(commit))
		if err != nil {
			return
		}
		for _, content := range []string{"before $Format:" + format + "$ after", format} {
			p := &pretty{c: c, env: bare{}}
			b, err := p.subst([]byte(content))
			if err != nil {
				continue
			}
			if !strings.Contains(content, "$Format:") && string(b) != content {
				t.Errorf("%q becomes %q", content, b)
			}
		}
	})
}

func FuzzModules(f *testing.F) {
	for _, s := range []string{
		"", "[submodule \"a\"]\n\tpath = a\n\turl = ../a.git\n", "[submodule \"..\"]\npath=x", "[submodule.a]\npath = \"a b\" # c\nurl = x\\\ny", "[submodule \"a\\\"b\"]\npath = .git/x\nurl=ext::x", "[s", "[submodule \"a\"]\npath", "=", "[a]\nb = \"c", "[a]\nb = \\q",
	} {
		f.Add(s, "../a.git")
	}
	home := &Mirror{m: &Mirrors{dir: f.TempDir(), places: map[string]*place{}}, remote: Remote{Repository: "example.com/shop", URL: "https://example.com/acme/shop.git", Token: "secret", SSHKey: []byte("key")}}
	f.Fuzz(func(t *testing.T, text, address string) {
		mods, err := parseModules(text)
		if err != nil && strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%q is no sentence", err)
		}
		for path := range mods {
			if p := filepath.Join("/srv/release", path); !strings.HasPrefix(p, "/srv/release/") || strings.EqualFold(filepath.Base(path), ".git") {
				t.Errorf("%q leads to %q", path, p)
			}
		}
		sub, err := home.submodule(address)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("%q is no sentence", err)
			}
			return
		}
		u := sub.remote.URL
		if strings.HasPrefix(u, "-") || filepath.IsAbs(u) || strings.HasPrefix(u, "file:") {
			t.Errorf("%q leads to %q", address, u)
		}
		remote, err := sub.connector()
		if err != nil {
			return
		}
		if w, ok := remote.(web); !ok || w.password == home.remote.Token && (!strings.EqualFold(w.ep.Host, "example.com") || w.ep.Protocol != "https") {
			t.Errorf("a login goes to %q", u)
		}
	})
}

func FuzzPointer(f *testing.F) {
	oid := strings.Repeat("0a", 32)
	for _, s := range []string{"", "version https://git-lfs.github.com/spec/v1\noid sha256:" + oid + "\nsize 12\n", "version https://git-lfs.github.com/spec/v1\noid sha256:" + oid + "\nsize 99999999999999999999\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := parsePointer(b); ok && (!isOid(p.oid) || p.size < 0 || p.size > lfsFileMost) {
			t.Errorf("%q is the pointer %+v", b, p)
		}
	})
}

func FuzzLFSAnswer(f *testing.F) {
	oid := strings.Repeat("0a", 32)
	f.Add([]byte(`{"transfer":"basic","objects":[{"oid":"` + oid + `","size":3,"actions":{"download":{"href":"https://x","header":{"A":"b"}}}}]}`))
	f.Add([]byte(`{"objects":[{"oid":"` + oid + `","error":{"code":404,"message":"no"}}]}`))
	f.Add([]byte(`{"objects":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var answer lfsAnswer
		if json.NewDecoder(bytes.NewReader(b)).Decode(&answer) != nil {
			return
		}
		want := []lfsWant{{pointer{oid, 3}, "a.bin"}}
		list, err := (&lfsWeb{}).actions(&answer, want)
		switch {
		case err != nil && strings.ContainsAny(err.Error(), "\n\x1b"):
			t.Errorf("%q is no sentence", err)
		case err == nil && (len(list) != 1 || list[0] == nil):
			t.Errorf("%d actions without an error", len(list))
		}
	})
}

func FuzzMailmap(f *testing.F) {
	f.Add("A <a@x> B <b@x>\n<c@x> <d@x>\n# x\nE <e@x>", "B", "b@x")
	f.Fuzz(func(t *testing.T, text, name, mail string) {
		m := parseMailmap(text)
		if _, got := m.of(name, mail); got == "" && mail != "" {
			t.Errorf("%q has no address any more", mail)
		}
	})
}
