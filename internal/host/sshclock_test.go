package host_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
	"deployhook/internal/host/hosttest"
)

// nearAt is a near end whose clock is that much ahead of the host's.
func nearAt(t *testing.T, ahead time.Duration) *host.Hosts {
	t.Helper()
	h := host.New(host.Options{State: t.TempDir(), Log: quiet(), Secret: readSecret, Version: "1.2", Clock: func() time.Time { return time.Now().Add(ahead) }})
	t.Cleanup(h.Close)
	return h
}

// To a near end whose clock is the right one, a host whose clock is hours or
// years off looks as this host does to one whose own is.
func TestHostWithAnotherClockIsDatedByTheDaemons(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * time.Hour
	s := hosttest.Start(t, hosttest.Options{})
	path := filepath.Join(s.Root, "shop")
	var c commit
	c.add("index.txt", deploy.TreePlain, "one\n")
	// Each begins where the one before left it: the clock is set between them.
	clocks := []time.Duration{0, 30 * year, -20 * year, 3 * time.Hour, -3 * time.Hour}
	ids := []string{"20260401T101500Z-aaaaaaa", "20560401T101500Z-aaaaaaa", "20060401T101500Z-aaaaaaa", "20260401T131500Z-aaaaaaa", "20260401T071500Z-aaaaaaa"}
	for i, ahead := range clocks {
		conn := openFar(t, nearAt(t, ahead), s.Host())
		before := time.Now().Add(ahead)
		if _, err := conn.OpenRelease(t.Context(), host.OpenRelease{Path: path, Daemon: "me", Run: int64(i + 1), Job: "deploy", Attempt: 1}); err != nil {
			t.Fatal(err)
		}
		c.release(t, conn, ids[i])
		goLive(t, conn, ids[i])
		for _, l := range journalOf(t, path, ids[i]) {
			if l.Time.Before(before) || l.Time.After(time.Now().Add(ahead)) {
				t.Errorf("%v ahead: the line %s of %s is of %s, and it was %s", ahead, l.State, l.Release, l.Time, before)
			}
		}
		got, err := conn.ClockAhead(t.Context())
		if off := (got + ahead).Abs(); err != nil || off > time.Minute {
			t.Errorf("%v ahead: the host's clock is said to be %v ahead, %v", ahead, got, err)
		}
		if ahead == 0 && got != 0 {
			t.Errorf("a clock that is right is said to be %v ahead", got)
		}
		// What stays is what was live last, whatever the names say.
		if _, err := conn.Prune(t.Context(), 2, 0); err != nil {
			t.Fatal(err)
		}
		for n := range i + 1 {
			_, err := os.Stat(filepath.Join(path, "releases", ids[n]))
			if there := err == nil; there != (n >= i-1) {
				t.Errorf("%v ahead: release %d of %d is there: %v", ahead, n+1, i+1, there)
			}
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	if target, err := os.Readlink(filepath.Join(path, "current")); err != nil || target != "releases/"+ids[len(ids)-1] {
		t.Errorf("current is %s, %v", target, err)
	}
}

func journalOf(t *testing.T, path, release string) (lines []deploy.ReleaseLine) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path, ".deployhook", "releases.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	for text := range bytes.Lines(b) {
		var l deploy.ReleaseLine
		if err := json.Unmarshal(text, &l); err != nil {
			t.Fatal(err)
		}
		if l.Release == release {
			lines = append(lines, l)
		}
	}
	if len(lines) == 0 {
		t.Fatalf("the journal has nothing of %s:\n%s", release, b)
	}
	return lines
}

func TestCacheOfAHostWithAnotherClockIsDatedByTheDaemons(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{})
	const ahead = 20 * 365 * 24 * time.Hour
	conn := openFar(t, nearAt(t, -ahead), s.Host())
	ws, err := conn.OpenWorkspace(t.Context(), "1-test-1")
	if err == nil {
		err = os.Mkdir(filepath.Join(ws, "modules"), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	set := host.Cache{Daemon: "me", Pipeline: "shop", Kind: deploy.BranchCache, Dirs: []string{"modules"}}
	kept, err := conn.KeepCache(t.Context(), set)
	if err != nil || len(kept.Dirs) != 1 {
		t.Fatalf("%+v, %v", kept, err)
	}
	list, err := conn.Caches(t.Context(), "me", "shop")
	if err != nil || len(list) != 1 || time.Since(list[0].Used.Add(ahead)).Abs() > time.Minute {
		t.Errorf("%+v, %v", list, err)
	}
}

// A certificate that begins only in an hour is what a valid one is to a host
// whose clock is an hour behind.
func TestCertificateThatTheHostsClockRefusesIsSaidSo(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{})
	_, authority, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(authority)
	if err != nil {
		t.Fatal(err)
	}
	c := &ssh.Certificate{
		Key: s.Login, CertType: ssh.UserCert, KeyId: s.User, ValidPrincipals: []string{s.User},
		ValidAfter: uint64(time.Now().Add(time.Hour).Unix()), ValidBefore: ssh.CertTimeInfinity,
	}
	if err := c.SignCert(rand.Reader, signer); err != nil {
		t.Fatal(err)
	}
	s.Write("id-cert.pub", text(c)+"\n")
	s.Write("authorized_keys", "cert-authority "+text(signer.PublicKey())+"\n")
	_, err = near(t).Open(t.Context(), s.Host(), deploy.DeployAgent)
	if err == nil || !strings.Contains(err.Error(), "it must name "+s.User+", and be valid by that machine's clock") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(s.Log(), "not yet valid") {
		t.Errorf("sshd refused it for something else:\n%s", s.Log())
	}
}
