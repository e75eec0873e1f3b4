package git

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// Resolve asks the remote what a ref is now: a full ref, a branch, a tag, or
// empty for the default branch. For annotated tags it is the tag object.
// [ErrNoRef]: the remote has no such ref.
func (m *Mirror) Resolve(ctx context.Context, ref string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	names := []string{"HEAD"}
	if ref != "" {
		names = []string{ref, "refs/heads/" + ref, "refs/tags/" + ref}
	}
	got := make([]plumbing.Hash, len(names))
	empty, err := m.eachRef(ctx, names, func(r advertised) error {
		if i := slices.Index(names, r.name); i >= 0 {
			got[i] = r.id
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	for _, id := range got {
		if !id.IsZero() {
			return id.String(), nil
		}
	}
	switch {
	case empty:
		return "", m.explain(ctx, transport.ErrEmptyRemoteRepository)
	case ref == "":
		return "", fmt.Errorf("%s has no default branch: name one with branch", m.remote.Repository)
	}
	return "", noRef(fmt.Sprintf("%s has no %s", m.remote.Repository, cut(ref)))
}

// Refs asks a remote for its refs, as refs/heads/main, without a mirror. The
// error has a [*HostKeyError] where the host is not known.
func Refs(ctx context.Context, r Remote) ([]string, error) {
	var list []string
	m := &Mirror{remote: r}
	empty, err := m.eachRef(ctx, nil, func(r advertised) error {
		list = append(list, r.name)
		return nil
	})
	if err == nil && empty {
		err = m.explain(ctx, transport.ErrEmptyRemoteRepository)
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(list)
	return list, nil
}

// eachRef gives the refs of a remote that begin with these names; none: all of
// them but HEAD. empty: the remote has no refs at all.
func (m *Mirror) eachRef(ctx context.Context, names []string, fn func(advertised) error) (empty bool, err error) {
	remote, err := m.connector()
	if err != nil {
		return false, err
	}
	empty = true
	each := func(r advertised) error {
		empty = false
		if len(names) == 0 && r.name == "HEAD" || len(names) > 0 && !slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(r.name, n) }) {
			return nil
		}
		return fn(r)
	}
	if l, ok := remote.(local); ok {
		err = l.refs(each)
	} else {
		err = listRefs(ctx, remote, names, each)
		if err == nil && empty && len(names) > 0 {
			// There may be others than those that were asked for.
			err = listRefs(ctx, remote, nil, func(advertised) error {
				empty = false
				return errEnough
			})
		}
	}
	if err == nil || errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return empty, nil
	}
	said := m.explain(ctx, err)
	if host := (*HostKeyError)(nil); errors.As(err, &host) {
		said = hostError{said, host}
	}
	return false, said
}

// listRefs asks a server for its refs.
func listRefs(ctx context.Context, remote connector, names []string, fn func(advertised) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := remote.connect(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	g, err := c.greet()
	switch {
	case err != nil:
	case g.v2:
		var in *packets
		if in, err = c.ask(g.lsRefs(names)); err == nil {
			in.bound(refsMost)
			err = listed(in, fn)
		}
	default:
		err = g.refs(fn)
	}
	return c.failed(err)
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
