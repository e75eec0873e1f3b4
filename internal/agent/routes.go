package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"deployhook/internal/agent/wire"
	"deployhook/internal/deploy"
	"deployhook/internal/release"
)

// routes are all that an agent does.
func (a *Agent) routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("POST "+wire.RouteFacts, handle(func(_ *http.Request, _ wire.Empty) (wire.Facts, error) { return facts() }))
	m.HandleFunc("POST "+wire.RouteRoom, handle(func(_ *http.Request, q wire.RoomOf) (deploy.Room, error) {
		return release.RoomAt(q.Path, q.InPlace), nil
	}))
	m.HandleFunc("POST "+wire.RouteWorkspace, handle(a.openWorkspace))
	m.HandleFunc("POST "+wire.RouteTree, a.putTree)
	m.HandleFunc("POST "+wire.RouteFile+"{name}", a.putFile)
	m.HandleFunc("POST "+wire.RouteStep, a.runStep)
	m.HandleFunc("POST "+wire.RouteCancel, handle(a.cancelStep))
	m.HandleFunc("POST "+wire.RouteOpen, handle(a.openRelease))
	m.HandleFunc("POST "+wire.RouteLook, handle(func(_ *http.Request, p wire.Path) (wire.Found, error) {
		return found(release.Look(p.Path))
	}))
	m.HandleFunc("POST "+wire.RouteBury, handle(func(*http.Request, wire.Empty) (wire.Empty, error) {
		return wire.Empty{}, a.state.buryDead()
	}))
	m.HandleFunc("POST "+wire.RouteAlone, handle(func(*http.Request, wire.Empty) (wire.Empty, error) {
		a.state.endOthers(wire.AloneTime)
		return wire.Empty{}, a.state.buryDead()
	}))
	m.HandleFunc("POST "+wire.RouteKill, handle(func(_ *http.Request, k wire.Kill) (wire.Empty, error) {
		if !nonceForm.MatchString(k.Nonce) || k.Nonce == a.nonce {
			return wire.Empty{}, fmt.Errorf("%q is not another agent", k.Nonce)
		}
		a.state.endOther(k.Nonce, 0)
		return wire.Empty{}, a.state.buryDead()
	}))
	m.HandleFunc("POST "+wire.RouteAwait, handle(a.await))
	m.HandleFunc("POST "+wire.RouteBeat, beat)
	m.HandleFunc("POST "+wire.RouteAbandon, handle(func(r *http.Request, p wire.Path) (wire.Empty, error) {
		path, err := release.Open(r.Context(), p.Path, release.Owner{Job: "unlock", Now: a.clock.now})
		if err != nil {
			return wire.Empty{}, err
		}
		return wire.Empty{}, errors.Join(path.Abandon(), path.Close())
	}))
	for route, call := range map[string]func(*release.Path) error{
		wire.RouteSweep: (*release.Path).Sweep, wire.RouteShared: (*release.Path).Shared, wire.RoutePrepared: (*release.Path).Prepared,
		wire.RouteLive: (*release.Path).Live, wire.RouteUndone: (*release.Path).Undone, wire.RouteBad: (*release.Path).Bad,
		wire.RouteDrop: (*release.Path).DropIntent,
	} {
		m.HandleFunc("POST "+route, onPath(a, func(p *release.Path, _ wire.Empty) (wire.Empty, error) { return wire.Empty{}, call(p) }))
	}
	m.HandleFunc("POST "+wire.RoutePrepare, onPath(a, func(p *release.Path, q wire.Prepare) (wire.Dir, error) {
		err := p.Prepare(release.Spec{
			Release: q.Release, Repository: q.Repository, Commit: q.Commit, Files: q.Files, Bytes: q.Bytes,
			SharedDirs: q.SharedDirs, SharedFiles: q.SharedFiles,
		})
		return wire.Dir{Dir: p.Dir()}, err
	}))
	m.HandleFunc("POST "+wire.RouteReuse, a.reuse)
	m.HandleFunc("POST "+wire.RouteActivate, onPath(a, func(p *release.Path, q wire.Activate) (wire.Empty, error) {
		return wire.Empty{}, p.Activate(q.To, q.Pops)
	}))
	m.HandleFunc("POST "+wire.RouteUndo, onPath(a, func(p *release.Path, _ wire.Empty) (wire.From, error) {
		from, err := p.Undo()
		return wire.From{From: from}, err
	}))
	m.HandleFunc("POST "+wire.RoutePrune, onPath(a, func(p *release.Path, q wire.Prune) (wire.Pruned, error) {
		removed, err := p.Prune(q.Keep, q.KeepFailed)
		res := wire.Pruned{Removed: removed}
		if err != nil {
			res.Warning = err.Error()
		}
		return res, nil
	}))
	a.inPlaceRoutes(m)
	a.cacheRoutes(m)
	return m
}

// beat says for as long as the connection lasts that this end is there, while
// the other does the same: what has come of both is seen where it is read.
func beat(w http.ResponseWriter, r *http.Request) {
	flusher := http.NewResponseController(w)
	go func() { _, _ = io.Copy(io.Discard, r.Body) }()
	wire.Beats(r.Context(), func(b []byte) error {
		_, err := w.Write(b)
		return errors.Join(err, flusher.Flush())
	})
}

// handle makes a route of a function from a request to an answer.
func handle[Q, A any](fn func(*http.Request, Q) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		if err := wire.Decode(r.Body, &q); err != nil {
			writeError(w, fmt.Errorf("reading the request: %w", err))
			return
		}
		answer, err := fn(r, q)
		if err != nil {
			writeError(w, err)
			return
		}
		_ = json.NewEncoder(w).Encode(answer)
	}
}

// onPath is handle for what needs an opened release path.
func onPath[Q, A any](a *Agent, fn func(*release.Path, Q) (A, error)) http.HandlerFunc {
	return handle(func(_ *http.Request, q Q) (A, error) {
		a.mu.Lock()
		p := a.path
		a.mu.Unlock()
		if p == nil {
			var none A
			return none, errors.New("no release path is open")
		}
		return fn(p, q)
	})
}

func writeError(w http.ResponseWriter, err error) {
	w.WriteHeader(http.StatusUnprocessableEntity)
	text := err.Error()
	if len(text) > 4<<10 {
		text = text[:4<<10]
	}
	_ = json.NewEncoder(w).Encode(wire.Error{
		Error: text, Exists: errors.Is(err, release.ErrExists), NotBegun: errors.Is(err, release.ErrNotBegun),
	})
}

func facts() (wire.Facts, error) {
	f := wire.Facts{OS: runtime.GOOS, Arch: runtime.GOARCH, UID: os.Getuid(), Home: os.Getenv("HOME"), Path: os.Getenv("PATH"), Shell: "sh"}
	f.Hostname, _ = os.Hostname()
	if u, err := user.Current(); err == nil {
		f.User = u.Username
	}
	if _, err := exec.LookPath("bash"); err == nil {
		f.Shell = "bash"
	}
	return f, nil
}

func found(f *deploy.Found, err error) (wire.Found, error) {
	if err != nil {
		return wire.Found{}, err
	}
	return wire.Found{Intent: f.Intent, Foreign: f.Foreign, Current: f.Current, Lines: f.Lines}, nil
}

func (a *Agent) openRelease(r *http.Request, q wire.OpenRelease) (wire.Found, error) {
	if !filepath.IsAbs(q.Path) || filepath.Clean(q.Path) != q.Path || q.Path == "/" {
		return wire.Found{}, fmt.Errorf("%q is not a release path", q.Path)
	}
	if err := a.state.buryDead(); err != nil {
		return wire.Found{}, err
	}
	// Waiting for the lock may take a minute, in which the agent must be able
	// to end.
	p, err := release.Open(r.Context(), q.Path, release.Owner{Daemon: q.Daemon, Run: q.Run, Job: q.Job, Attempt: q.Attempt, Now: a.clock.now})
	if err != nil {
		return wire.Found{}, err
	}
	f, err := found(p.Found())
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil && (a.path != nil || a.ending) {
		err = errors.New("a release path is open already")
	}
	if err != nil {
		p.Close()
		return f, err
	}
	a.path = p
	return f, nil
}

var workspaceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// Bounds of names, in bytes. (A bound in a pattern makes it as long as that.)
const (
	workspaceMost = 200
	variableMost  = 64
)

func (a *Agent) openWorkspace(_ *http.Request, q wire.Workspace) (wire.Dir, error) {
	if len(q.Name) > workspaceMost || !workspaceName.MatchString(q.Name) {
		return wire.Dir{}, fmt.Errorf("%q is not the name of a workspace", q.Name)
	}
	if err := a.state.buryDead(); err != nil {
		return wire.Dir{}, err
	}
	dir := filepath.Join(a.state.work(), q.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return wire.Dir{}, fmt.Errorf("making the workspace: %w", err)
	}
	a.mu.Lock()
	a.workspace = dir
	a.mu.Unlock()
	return wire.Dir{Dir: dir}, nil
}

// workDir makes a directory for files of the agent's own.
func (a *Agent) workDir() (string, error) {
	dir := filepath.Join(a.state.work(), ".files")
	return dir, os.MkdirAll(dir, 0o700)
}

func (a *Agent) cancelStep(_ *http.Request, q wire.Cancel) (wire.Empty, error) {
	a.mu.Lock()
	s := a.steps[q.ID]
	a.canceled[q.ID] = true
	a.mu.Unlock()
	if s != nil {
		s.stop(stopCanceled)
	}
	return wire.Empty{}, nil
}

var variableName = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)

// putFile keeps a file for the steps, which find its path in a variable.
func (a *Agent) putFile(w http.ResponseWriter, r *http.Request) {
	if err := a.keepFile(r.PathValue("name"), http.MaxBytesReader(w, r.Body, wire.FileMost)); err != nil {
		writeError(w, err)
		return
	}
	_ = json.NewEncoder(w).Encode(wire.Empty{})
}

func (a *Agent) keepFile(name string, content io.Reader) error {
	if len(name) > variableMost || !variableName.MatchString(name) {
		return fmt.Errorf("%q is not the name of a variable", name)
	}
	dir, err := a.workDir()
	if err != nil {
		return fmt.Errorf("keeping a file for the steps: %w", err)
	}
	path := filepath.Join(dir, strings.ToLower(name))
	// A step may have put something else in its place.
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("keeping a file for the steps: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = io.Copy(f, content)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("keeping a file for the steps: %w", err)
	}
	a.mu.Lock()
	a.files[name] = path
	a.mu.Unlock()
	return nil
}
