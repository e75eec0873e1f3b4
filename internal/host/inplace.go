package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"deployhook/internal/agent/wire"
	"deployhook/internal/deploy"
)

// Types of a deploy in place, as they go over the connection.
type (
	InPlaceBegin = wire.InPlaceBegin
)

// InPlaceStaged says what a deploy in place will change.
type InPlaceStaged struct {
	Write, Remove, Keep int
	Restored            []string // of what is written: had been removed by hand
}

// OpenInPlace locks a directory, until the agent ends, and tells what is there.
// clone is the commit of a clone that stands there since before the first
// deploy; empty = none. It waits up to a minute for whoever has the lock.
func (c *Conn) OpenInPlace(ctx context.Context, o OpenRelease) (f *deploy.Found, clone string, err error) {
	w, err := callFor[wire.InPlaceFound](ctx, c, syncTime, wire.RouteInPlaceOpen, o)
	if err == nil && w.Clone != "" && !deploy.ValidCommit(w.Clone) {
		err = errors.New("the agent names a commit that is none")
	}
	f, err = inPlaceFound(w, err)
	return f, w.Clone, err
}

func inPlaceFound(w wire.InPlaceFound, err error) (*deploy.Found, error) {
	f, err := found(wire.Found{Intent: w.Intent, Foreign: w.Foreign, Current: w.Current, Lines: w.Lines}, err)
	if err == nil {
		f.Half = w.Half
	}
	return f, err
}

// LookInPlace tells what is at a directory without locking it.
func (c *Conn) LookInPlace(ctx context.Context, dir string) (*deploy.Found, error) {
	return inPlaceFound(call[wire.InPlaceFound](ctx, c, wire.RouteInPlaceLook, wire.Path{Path: dir}))
}

// AbandonInPlace forgets the unfinished deploy of a directory.
func (c *Conn) AbandonInPlace(ctx context.Context, dir string) error {
	_, err := callFor[wire.Empty](ctx, c, syncTime, wire.RouteInPlaceAbandon, wire.Path{Path: dir})
	return err
}

// BaseInPlace says that the files of a commit, where they stand in the
// directory, are nobody's changes.
func (c *Conn) BaseInPlace(ctx context.Context, list func(fn func(deploy.TreeFile) error) error) error {
	_, err := stream[wire.Empty](ctx, c, stallTime, wire.RouteInPlaceBase, func(w *bufio.Writer) error {
		return list(func(f deploy.TreeFile) error { return wire.WriteName(w, f) })
	})
	return err
}

// CompareInPlace compares the directory with a commit, and says which of its
// files must be sent: lacking is asked for each file that list gave, by its
// place there. Nothing is changed. Its error names the files that are in the way.
func (c *Conn) CompareInPlace(ctx context.Context, b InPlaceBegin, list func(fn func(deploy.TreeFile) error) error) (lacking func(i int) bool, err error) {
	if _, err := call[wire.Empty](ctx, c, wire.RouteInPlaceBegin, b); err != nil {
		return nil, err
	}
	return c.lacking(ctx, wire.RouteInPlaceCompare, list)
}

// StageInPlace begins to write the new files, beside the places where they will stand.
func (c *Conn) StageInPlace(ctx context.Context) (InPlaceStaged, error) {
	w, err := call[wire.InPlaceStaged](ctx, c, wire.RouteInPlaceStage, wire.Empty{})
	if err == nil && (w.Write < 0 || w.Remove < 0 || w.Keep < 0 || len(w.Restored) > linesMost) {
		err = errors.New("the agent tells of changes that cannot be")
	}
	s := InPlaceStaged{Write: w.Write, Remove: w.Remove, Keep: w.Keep}
	for _, name := range w.Restored {
		s.Restored = append(s.Restored, fmt.Sprintf("%.200q", name))
	}
	return s, err
}

// PutInPlace sends the files that were lacking.
func (c *Conn) PutInPlace(ctx context.Context, walk func(fn func(deploy.TreeFile, io.Reader) error) error) error {
	return c.put(ctx, wire.RouteInPlaceTree, walk)
}

// SwitchInPlace makes the files those of the commit. [ErrNotBegun]: it was
// refused, and everything is as before.
func (c *Conn) SwitchInPlace(ctx context.Context, pops bool) error {
	_, err := callFor[wire.Empty](ctx, c, syncTime, wire.RouteInPlaceSwitch, wire.InPlaceSwitch{Pops: pops})
	return err
}

// AdoptInPlace takes what stands at the tracked paths for what the steps of a
// deploy that was cut short made of it.
func (c *Conn) AdoptInPlace(ctx context.Context) error {
	return doFor(ctx, c, syncTime, wire.RouteInPlaceAdopt)
}

// ProvingInPlace records that the steps are done.
func (c *Conn) ProvingInPlace(ctx context.Context) error { return do(ctx, c, wire.RouteInPlaceProving) }

// LiveInPlace records that the commit is live.
func (c *Conn) LiveInPlace(ctx context.Context) error {
	return doFor(ctx, c, syncTime, wire.RouteInPlaceLive)
}

// FailedInPlace records that the deploy did not come to its end; its files stay.
func (c *Conn) FailedInPlace(ctx context.Context) error {
	return doFor(ctx, c, syncTime, wire.RouteInPlaceFailed)
}

// DiscardInPlace removes what was written for a change that is not made.
func (c *Conn) DiscardInPlace(ctx context.Context) error {
	return doFor(ctx, c, syncTime, wire.RouteInPlaceDiscard)
}

// DropInPlace forgets an unfinished deploy whose end is in the journal.
func (c *Conn) DropInPlace(ctx context.Context) error { return do(ctx, c, wire.RouteInPlaceDrop) }

// PruneInPlace takes old deploys out of the list.
func (c *Conn) PruneInPlace(ctx context.Context, keep, keepFailed int) error {
	_, err := call[wire.Pruned](ctx, c, wire.RouteInPlacePrune, wire.Prune{Keep: keep, KeepFailed: keepFailed})
	return err
}
