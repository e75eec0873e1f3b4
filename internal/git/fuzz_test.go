package git

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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

// The index of a pack may be anything, the pack is as it was.
func FuzzIndex(f *testing.F) {
	pack, err := os.ReadFile("testdata/ofs.pack")
	if err != nil {
		f.Fatal(err)
	}
	in := newArriving(bytes.NewReader(pack))
	in.copy(io.Discard, bytes.NewReader(pack))
	x, err := indexPack(f.Context(), in, f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	var good bytes.Buffer
	if err := x.encode(&good); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add(good.Bytes()[:good.Len()/2])
	far := bytes.Clone(good.Bytes())
	far[len(far)-44] |= 0x80 // an offset in a table that there is none of
	f.Add(far)
	huge := bytes.Clone(good.Bytes())
	binary.BigEndian.PutUint32(huge[8+255*4:], 1<<31)
	f.Add(huge)
	f.Fuzz(func(t *testing.T, idx []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, "objects", "pack", "pack-1")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{path + ".idx": idx, path + ".pack": pack} {
			if err := os.WriteFile(name, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		list, lost, err := openPacks(dir, 2)
		if err != nil || lost != nil && !errors.Is(lost, errDamaged) {
			t.Fatal(lost, err)
		}
		o := &objects{packs: packs{tmp: dir, list: list}, dir: dir}
		defer o.close()
		for _, e := range x.entries[1:] {
			kind, b, err := o.take(e.id, nil, streamAbove)
			switch {
			case err == nil && plumbing.ComputeHash(kind, b) != e.id:
				t.Errorf("%s has another content", e.id)
			case err != nil && !errors.Is(err, errDamaged) && !errors.Is(err, errNotHere) && !errors.Is(err, errLarge):
				t.Errorf("%s: %v", e.id, err)
			}
		}
		if len(list) > 0 {
			if _, _, err := merge(t.Context(), io.Discard, list, searching{tmp: dir}); err != nil && !errors.Is(err, errDamaged) && !strings.Contains(err.Error(), "too many ways") {
				t.Error(err)
			}
		}
	})
}

// What is made in memory is what is made in a file.
func FuzzDelta(f *testing.F) {
	base := strings.Repeat("0123456789abcdef", 20)
	head := string(binary.AppendUvarint(binary.AppendUvarint(nil, uint64(len(base))), 20))
	f.Add([]byte(base), []byte(head+"\x90\x14"))
	f.Add([]byte(base), []byte(head+"\x14aaaaaaaaaaaaaaaaaaaa"))
	f.Add([]byte(base), []byte(head+"\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Add([]byte(base), []byte(head+"\x00"))
	f.Add([]byte(base), []byte(head+"\x14a"))
	f.Add([]byte(base), []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))
	f.Add([]byte(""), []byte("\x00\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, base, delta []byte) {
		got, err := patch(nil, base, delta)
		var out bytes.Buffer
		n, serr := patchStream(&out, bytes.NewReader(base), int64(len(base)), bufio.NewReader(bytes.NewReader(delta)))
		if err == nil && (serr != nil || n != int64(len(got)) || !bytes.Equal(out.Bytes(), got)) {
			t.Errorf("in memory %q; in a file %q, %v", got, out.Bytes(), serr)
		}
		if err != nil && serr == nil && n <= memoryMost {
			t.Errorf("in memory %v; in a file %q", err, out.Bytes())
		}
	})
}

// Servers may say anything.
func FuzzAnswers(f *testing.F) {
	id := strings.Repeat("1", 40)
	line := func(s string) string { return string(fmt.Appendf(nil, "%04x%s", len(s)+4, s)) }
	for _, s := range []string{
		"", "0000", "0001", "zzzz", "ffff", "0004", line("ERR no"), line("version 2\n") + line("fetch=shallow\n") + line("object-format=sha256\n") + "0000",
		line("# service=git-upload-pack\n") + "0000" + line(id+" HEAD\x00multi_ack symref=HEAD:refs/heads/main\n") + line(id+" refs/heads/main\n") + "0000",
		line(id+" capabilities^{}\x00side-band\n") + "0000", line(strings.Repeat("1", 64)+" HEAD\x00x\n") + "0000",
		line("shallow-info\n") + line("shallow "+id) + "0001" + line("packfile\n") + line("\x01PACK") + line("\x02hello") + "0000",
		line("shallow "+id) + line("unshallow "+id) + "0000" + line("ACK "+id+" common\n") + line("NAK\n") + line("\x01PACK") + line("\x03it broke"),
		line("NAK\n") + "PACK and so on", line(id+" HEAD symref-target:refs/heads/main") + line("unborn HEAD") + "0000",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := func() *packets { return newPackets(bytes.NewReader(b)) }
		refs := 0
		count := func(advertised) error {
			refs++
			return nil
		}
		if g, err := greet(in()); err == nil && !g.v2 {
			_ = g.refs(count)
		}
		_ = listed(in(), count)
		if refs > len(b)/20 {
			t.Errorf("%d refs in %d bytes", refs, len(b))
		}
		for _, v2 := range []bool{false, true} {
			a, err := readAnswer(in(), v2)
			if err != nil {
				continue
			}
			if n, _ := io.Copy(io.Discard, a.pack); n > int64(len(b)) || len(a.shallow)+len(a.unshallow) > len(b)/40 {
				t.Errorf("%d bytes of a pack, %d shallow, in %d bytes", n, len(a.shallow), len(b))
			}
		}
	})
}
