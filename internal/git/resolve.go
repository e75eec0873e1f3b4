package git

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
)

// Resolve asks the remote what a ref is now: a full ref, a branch, a tag, or
// empty for the default branch. For annotated tags it is the tag object.
// [ErrNoRef]: the remote has no such ref.
func (m *Mirror) Resolve(ctx context.Context, ref string) (string, error) {
	remote, err := m.connector()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	adv, err := remote.refs(ctx)
	if err != nil {
		return "", m.explain(ctx, err)
	}
	if ref == "" {
		if h := defaultBranch(adv); !h.IsZero() {
			return h.String(), nil
		}
		return "", fmt.Errorf("%s has no default branch: name one with branch", m.remote.Repository)
	}
	for _, name := range []string{ref, "refs/heads/" + ref, "refs/tags/" + ref} {
		if h, ok := adv.References[name]; ok {
			return h.String(), nil
		}
	}
	return "", noRef(fmt.Sprintf("%s has no %s", m.remote.Repository, cut(ref)))
}

// Refs asks a remote for its refs, as refs/heads/main, without a mirror. The
// error has a [*HostKeyError] where the host is not known.
func Refs(ctx context.Context, r Remote) ([]string, error) {
	m := &Mirror{remote: r}
	remote, err := m.connector()
	if err != nil {
		return nil, err
	}
	adv, err := remote.refs(ctx)
	if err != nil {
		said := m.explain(ctx, err)
		if host := (*HostKeyError)(nil); errors.As(err, &host) {
			return nil, hostError{said, host}
		}
		return nil, said
	}
	return slices.Sorted(maps.Keys(adv.References)), nil
}

// hostError is the sentence about a host key, with the key.
type hostError struct {
	error
	host *HostKeyError
}

func (e hostError) Unwrap() error { return e.host }

// ErrNoRef is a ref that the remote does not have.
var ErrNoRef = errors.New("there is no such ref")

// noRef is [ErrNoRef] with the sentence that names both.
type noRef string

func (e noRef) Error() string      { return string(e) }
func (noRef) Is(target error) bool { return target == ErrNoRef }

// defaultBranch is what HEAD points to, if that exists.
func defaultBranch(adv *packp.AdvRefs) plumbing.Hash {
	if adv.Head != nil {
		return *adv.Head
	}
	for _, s := range adv.Capabilities.Get(capability.SymRef) {
		if target, ok := symref(s); ok {
			return adv.References[target]
		}
	}
	return plumbing.ZeroHash
}

func symref(s string) (target string, ok bool) {
	const head = "HEAD:"
	if len(s) > len(head) && s[:len(head)] == head {
		return s[len(head):], true
	}
	return "", false
}

// refs asks a server for its refs.
func refs(ctx context.Context, remote connector) (*packp.AdvRefs, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := remote.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.AdvertisedReferencesContext(ctx)
}
