package agent

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"

	"deployhook/internal/agent/wire"
	"deployhook/internal/deploy"
	"deployhook/internal/release"
)

// inPlaceRoutes are what an agent does to a directory whose files are made
// those of a commit in place.
func (a *Agent) inPlaceRoutes(m *http.ServeMux) {
	m.HandleFunc("POST "+wire.RouteInPlaceOpen, handle(a.openInPlace))
	m.HandleFunc("POST "+wire.RouteInPlaceLook, handle(func(_ *http.Request, q wire.Path) (wire.InPlaceFound, error) {
		f, err := release.LookInPlace(a.state.dir, q.Path)
		return inPlaceFound(f, "", err)
	}))
	m.HandleFunc("POST "+wire.RouteInPlaceAbandon, handle(func(r *http.Request, q wire.Path) (wire.Empty, error) {
		p, err := release.OpenInPlace(r.Context(), a.state.dir, q.Path, release.Owner{Job: "unlock", Now: a.clock.now})
		if err != nil {
			return wire.Empty{}, err
		}
		return wire.Empty{}, errors.Join(p.Abandon(), p.Close())
	}))
	for route, call := range map[string]func(*release.InPlace) error{
		wire.RouteInPlaceAdopt: (*release.InPlace).Adopt, wire.RouteInPlaceProving: (*release.InPlace).Proving,
		wire.RouteInPlaceLive: (*release.InPlace).Live, wire.RouteInPlaceFailed: (*release.InPlace).Failed,
		wire.RouteInPlaceDiscard: (*release.InPlace).Discard, wire.RouteInPlaceDrop: (*release.InPlace).Drop,
	} {
		m.HandleFunc("POST "+route, inPlace(a, func(p *release.InPlace, _ wire.Empty) (wire.Empty, error) { return wire.Empty{}, call(p) }))
	}
	m.HandleFunc("POST "+wire.RouteInPlaceBegin, inPlace(a, func(p *release.InPlace, q wire.InPlaceBegin) (wire.Empty, error) {
		return wire.Empty{}, p.Begin(release.Spec{Release: q.Release, Repository: q.Repository, Commit: q.Commit}, q.Overwrite)
	}))
	m.HandleFunc("POST "+wire.RouteInPlaceStage, inPlace(a, func(p *release.InPlace, _ wire.Empty) (wire.InPlaceStaged, error) {
		if err := p.Stage(); err != nil {
			return wire.InPlaceStaged{}, err
		}
		b := p.Begun()
		s := wire.InPlaceStaged{Write: b.Write, Remove: b.Remove, Keep: b.Keep, Restored: [][]byte{}}
		for _, name := range b.Restored {
			s.Restored = append(s.Restored, []byte(name))
		}
		return s, nil
	}))
	m.HandleFunc("POST "+wire.RouteInPlaceSwitch, inPlace(a, func(p *release.InPlace, q wire.InPlaceSwitch) (wire.Empty, error) {
		return wire.Empty{}, p.Switch(q.Pops)
	}))
	m.HandleFunc("POST "+wire.RouteInPlacePrune, inPlace(a, func(p *release.InPlace, q wire.Prune) (wire.Pruned, error) {
		removed, err := p.Prune(q.Keep, q.KeepFailed)
		return wire.Pruned{Removed: removed}, err
	}))
	m.HandleFunc("POST "+wire.RouteInPlaceBase, a.baseInPlace)
	m.HandleFunc("POST "+wire.RouteInPlaceCompare, a.compareInPlace)
	m.HandleFunc("POST "+wire.RouteInPlaceTree, a.putInPlace)
}

// inPlace is handle for what needs an opened directory.
func inPlace[Q, A any](a *Agent, fn func(*release.InPlace, Q) (A, error)) http.HandlerFunc {
	return handle(func(_ *http.Request, q Q) (A, error) {
		p, err := a.placed()
		if err != nil {
			var none A
			return none, err
		}
		return fn(p, q)
	})
}

func (a *Agent) placed() (*release.InPlace, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.place == nil {
		return nil, errors.New("no directory is open")
	}
	return a.place, nil
}

func (a *Agent) openInPlace(r *http.Request, q wire.OpenRelease) (wire.InPlaceFound, error) {
	var none wire.InPlaceFound
	if !filepath.IsAbs(q.Path) || filepath.Clean(q.Path) != q.Path || q.Path == "/" {
		return none, fmt.Errorf("%q is not a path for files", q.Path)
	}
	if err := a.state.buryDead(); err != nil {
		return none, err
	}
	// Waiting for the lock may take a minute, in which the agent must be able
	// to end.
	p, err := release.OpenInPlace(r.Context(), a.state.dir, q.Path, release.Owner{Daemon: q.Daemon, Run: q.Run, Job: q.Job, Attempt: q.Attempt, Now: a.clock.now})
	if err != nil {
		return none, err
	}
	f, err := p.Found()
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil && (a.place != nil || a.path != nil || a.ending) {
		err = errors.New("a path is open already")
	}
	if err != nil {
		p.Close()
		return none, err
	}
	a.place = p
	return inPlaceFound(f, p.Clone(), nil)
}

func inPlaceFound(f *deploy.Found, clone string, err error) (wire.InPlaceFound, error) {
	if err != nil {
		return wire.InPlaceFound{}, err
	}
	return wire.InPlaceFound{Intent: f.Intent, Foreign: f.Foreign, Current: f.Current, Half: f.Half, Lines: f.Lines, Clone: clone}, nil
}

// baseInPlace takes the files of the commit that a clone is of for ours.
func (a *Agent) baseInPlace(w http.ResponseWriter, r *http.Request) {
	p, err := a.placed()
	if err == nil {
		err = readBody(r, func(b *bufio.Reader) error { return wire.ReadNames(b, p.Base) })
	}
	answer(w, wire.Empty{}, err)
}

// compareInPlace compares the directory with the files of a list, and answers
// which must be sent.
func (a *Agent) compareInPlace(w http.ResponseWriter, r *http.Request) {
	var lacking wire.Lacking
	p, err := a.placed()
	if err == nil {
		lacking.Bits, err = readLacking(r, p.Compare)
	}
	if err == nil {
		err = p.Compared()
	}
	answer(w, lacking, err)
}

// putInPlace writes the files that were lacking under temporary names.
func (a *Agent) putInPlace(w http.ResponseWriter, r *http.Request) {
	p, err := a.placed()
	if err == nil {
		err = readBody(r, func(b *bufio.Reader) error { return wire.ReadTree(b, p.Write) })
	}
	answer(w, wire.Empty{}, err)
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		writeError(w, err)
		return
	}
	_ = json.NewEncoder(w).Encode(v)
}
