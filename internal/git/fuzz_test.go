package git

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
)

func FuzzTree(f *testing.F) {
	id := strings.Repeat("\x01", 20)
	for _, s := range []string{
		"", "100644 a\x00" + id, "40000 dir\x00" + id + "120000 link\x00" + id, "160000 sub\x00" + id, "100644 a\x00" + id[:19], "100644a\x00" + id, " a\x00" + id, "9 a\x00" + id,
		"40000 .git\x00" + id, "40000 .GiT\x00" + id, "40000 .git. . \x00" + id, "40000 .git::$INDEX_ALLOCATION\x00" + id, "40000 git~1\x00" + id, "40000 .g\u200cit\x00" + id, "40000 ..\x00" + id,
		"100644 a/b\x00" + id, "100644 \x00" + id, `100644 a\.git\config` + "\x00" + id, "100644 \xff\n\x00" + id, "777777777777 a\x00" + id,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseTree(b)
		if err != nil {
			return
		}
		var again bytes.Buffer
		for _, e := range list {
			again.WriteString(" " + e.name + "\x00")
			again.Write(e.hash[:])
			if validEntry(e.name) != nil {
				continue
			}
			// Joined to a directory, it stays in it.
			if p := filepath.Join("/srv/release", e.name); filepath.Dir(p) != "/srv/release" || strings.EqualFold(e.name, ".git") {
				t.Errorf("%q leads to %q", e.name, p)
			}
		}
		if got := again.Len(); got > len(b) {
			t.Errorf("%d bytes of names and ids in a tree of %d", got, len(b))
		}
	})
}

func FuzzKnownHosts(f *testing.F) {
	key := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
	for _, s := range []string{
		"", "# comment", "example.com " + key, "[example.com]:2222,192.0.2.1 " + key + " comment", "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= " + key,
		"@revoked example.com " + key, "@cert-authority *.example.com " + key, "@other example.com " + key, "*.example.com,!a.example.com " + key, "|1|x|y " + key, "|2|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= " + key, "[example.com " + key, "a:b:c " + key, "example.com", "example.com ssh-ed25519 AAAA",
		"[]:22 " + key, "[::1]:22 " + key, ", " + key, "! " + key,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		db, err := knownHosts([]byte(line))
		if err != nil {
			if s := err.Error(); strings.ContainsAny(s, "\n\x1b") || strings.Contains(s, os.TempDir()) {
				t.Errorf("%q is no sentence", s)
			}
			return
		}
		// Lines of one's own never take away what is built in.
		if len(db.HostKeyAlgorithms("github.com:22")) == 0 {
			t.Errorf("%q hides the keys of github.com", line)
		}
	})
}

func FuzzPack(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x00"))
	f.Add([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x01\x30\x78\x9c\x03\x00\x00\x00\x00\x01"))
	f.Add([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x01\x60\x01\x78\x9c\x03\x00\x00\x00\x00\x01"))
	f.Add([]byte("PACK\x00\x00\x00\x02\xff\xff\xff\xff\x70" + strings.Repeat("\x00", 20) + "\x78\x9c\x03\x00\x00\x00\x00\x01"))
	seeds, err := filepath.Glob("testdata/*.pack")
	if err != nil || len(seeds) == 0 {
		f.Fatalf("the seeds are %v, %v", seeds, err)
	}
	for _, name := range seeds {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:len(b)-20])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 64<<10 {
			return
		}
		dir := t.TempDir()
		dirOfPacks := filepath.Join(dir, "objects", "pack")
		if err := os.MkdirAll(dirOfPacks, 0o755); err != nil {
			t.Fatal(err)
		}
		h := plumbing.NewHasher(plumbing.BlobObject, 0)
		h.Hash.Reset()
		h.Hash.Write(b)
		err := receive(t.Context(), dir, bytes.NewReader(h.Hash.Sum(b)), func() {}, &packs{})
		left, gerr := filepath.Glob(filepath.Join(dirOfPacks, "*"))
		if gerr != nil {
			t.Fatal(gerr)
		}
		if err != nil && len(left) > 0 {
			t.Errorf("a refused pack (%v) leaves %v", err, left)
		}
		if err == nil && len(left) > 0 {
			if len(left) != 2 {
				t.Errorf("a pack leaves %v", left)
			}
			list, lost, err := openPacks(dir, 2)
			if lost != nil || err != nil {
				t.Error(lost, err)
			}
			closePacks(list)
		}
	})
}
