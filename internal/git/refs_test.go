package git_test

import (
	"errors"
	"fmt"
	"net"
	"os/user"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"deployhook/internal/git"
)

func TestRefsAreAskedForWithoutAMirror(t *testing.T) {
	r := newRepo(t)
	r.commit("a", "1")
	r.git("branch", "next")
	r.git("tag", "-a", "-m", "one", "v1")
	login, key := newKey(t)
	addr, known := sshd(t, login)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(addr)
	over := fmt.Sprintf("ssh://%s@%s:%s%s", me.Username, host, port, r.dir)
	for name, remote := range map[string]git.Remote{
		"a path": {URL: r.dir},
		"SSH":    {URL: over, SSHKey: key, KnownHosts: []byte(known)},
	} {
		remote.Repository = "example.com/r"
		refs, err := git.Refs(t.Context(), remote)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range []string{"refs/heads/main", "refs/heads/next", "refs/tags/v1"} {
			if !slices.Contains(refs, want) {
				t.Errorf("%s: no %s in %v", name, want, refs)
			}
		}
	}

	// An unknown host is told with its key, which then is the right one.
	_, err = git.Refs(t.Context(), git.Remote{Repository: "example.com/r", URL: over, SSHKey: key})
	var unknown *git.HostKeyError
	if !errors.As(err, &unknown) || unknown.Changed || !strings.HasPrefix(unknown.Fingerprint, "SHA256:") {
		t.Fatalf("an unknown host: %v", err)
	}
	if _, err := git.Refs(t.Context(), git.Remote{Repository: "example.com/r", URL: over, SSHKey: key, KnownHosts: []byte(unknown.Line)}); err != nil {
		t.Errorf("with the line %q: %v", unknown.Line, err)
	}
	other, _ := newKey(t)
	_, err = git.Refs(t.Context(), git.Remote{Repository: "example.com/r", URL: over, SSHKey: key, KnownHosts: fmt.Appendf(nil, "[127.0.0.1]:%s %s", port, ssh.MarshalAuthorizedKey(other))})
	if !errors.As(err, &unknown) || !unknown.Changed || unknown.Line == "" {
		t.Errorf("another key: %v", err)
	}
	_, err = git.Refs(t.Context(), git.Remote{Repository: "example.com/r", URL: over, SSHKey: key, KnownHosts: []byte("@revoked " + known)})
	if !errors.As(err, &unknown) || unknown.Line != "" {
		t.Errorf("a revoked key: %v", err)
	}
	_, err = git.Refs(t.Context(), git.Remote{Repository: "example.com/r", URL: r.dir + "x"})
	if err == nil || !strings.Contains(err.Error(), "example.com/r") {
		t.Errorf("no repository: %v", err)
	}
}
