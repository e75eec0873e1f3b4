package release

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
)

// InPlace is a directory whose tracked files are made those of a commit, as
// git pull would; what else is in it is left alone. Its journal, and the list of the
// files that are ours, stand in the agent's own directory. It is locked until
// [InPlace.Close].
type InPlace struct {
	journal
	path  string
	site  *os.File  // the directory, locked: agents of other daemons see that too
	known *manifest // nil: it cannot be read, as damage says

	damage error
	spec   Spec
	plan   *plan          // of the change that is being made
	intent *deploy.Intent // of this owner's
}

// inPlaceDir is where the journal of a directory stands in an agent's own.
func inPlaceDir(state, path string) string {
	sum := sha256.Sum256([]byte(path))
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, filepath.Base(path))
	return filepath.Join(state, "in-place", fmt.Sprintf("%.40s-%x", name, sum[:8]))
}

func newInPlace(state, path string, o Owner) *InPlace {
	dir := inPlaceDir(state, path)
	return &InPlace{journal: journal{root: path, disk: dir, dir: dir, owner: o}, path: path}
}

// OpenInPlace locks a directory for an owner, makes it where it is missing, and
// removes what a crash may have left half made. It waits a minute for whoever
// has the lock, and then names them.
func OpenInPlace(ctx context.Context, state, path string, o Owner) (*InPlace, error) {
	p := newInPlace(state, path, o)
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the directory for the journal of %s: %w", path, err)
	}
	if err := makeSite(path); err != nil {
		return nil, err
	}
	if err := p.takeLock(ctx); err != nil {
		return nil, err
	}
	err := p.lockSite(ctx)
	if err == nil {
		p.known, p.damage = p.readManifest(path, parseManifest)
		err = errors.Join(p.repairLines(), p.removeWriting(), p.unstage(), p.dropPreparing())
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	// A journal that cannot be made shorter now is as good as before.
	_ = p.compact()
	return p, nil
}

func makeSite(path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		if st, serr := os.Stat(path); serr == nil && !st.IsDir() {
			return fmt.Errorf("%s is not a directory: move it away", path)
		}
		return siteSentence(path, err)
	}
	if err := unix.Access(path, unix.W_OK|unix.X_OK); err != nil {
		return siteSentence(path, err)
	}
	if _, err := os.Lstat(filepath.Join(path, ".deployhook", "releases.ndjson")); err == nil {
		return fmt.Errorf("%s has releases/ and current of strategy symlink: choose another path for strategy in_place", path)
	}
	return nil
}

// siteSentence says what keeps the files of a directory from being written,
// and what to do.
func siteSentence(path string, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return sentence(path, err)
	}
	name := userName()
	return fmt.Errorf("%s cannot be written by %s: give it to that user with: sudo install -d %s && sudo chown -R %s %s", path, name, path, name, path)
}

// lockSite locks the directory itself: the journals of two daemons are two,
// and the files are the same.
func (p *InPlace) lockSite(ctx context.Context) error {
	f, err := os.Open(p.path)
	if err != nil {
		return siteSentence(p.path, err)
	}
	p.site = f
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	err = flock(ctx, f)
	if err != nil && ctx.Err() != nil {
		return errors.New("it is in use by another deployhook, or by something else that locks the directory: fuser " + p.path)
	}
	return err
}

// held says whether the directory still is the one that is locked.
func (p *InPlace) held() error {
	if err := p.journal.held(); err != nil {
		return err
	}
	mine, err := p.site.Stat()
	if err != nil {
		return err
	}
	if there, err := os.Stat(p.path); err != nil || !os.SameFile(mine, there) {
		return fmt.Errorf("%s was moved away, or another directory put in its place, while it was in use: look at it, and deploy again", p.path)
	}
	return nil
}

// Close gives the locks back.
func (p *InPlace) Close() error {
	err := p.lock.Close()
	if p.plan != nil {
		p.plan.dirs.close()
		p.plan = nil
	}
	if p.site != nil {
		err = errors.Join(err, p.site.Close())
	}
	return err
}

// LookInPlace reads the journal of a directory without taking its lock.
func LookInPlace(state, path string) (*deploy.Found, error) {
	p := newInPlace(state, path, Owner{})
	p.known, p.damage = p.readManifest(path, parseManifestHead)
	return p.Found()
}

// Found reads what was being done to the directory, whose files stand in it,
// and the last lines of the journal.
func (p *InPlace) Found() (*deploy.Found, error) {
	f := &deploy.Found{}
	f.Intent, f.Foreign = p.readIntent()
	if p.damage != nil {
		f.Foreign = p.damage.Error()
	} else {
		f.Current, f.Half = p.known.Current, !p.known.Whole
	}
	var err error
	f.Lines, err = p.readLines()
	return f, err
}

// dropPreparing ends the deploys whose files never came to stand here: with
// the lock, nobody else can be at them.
func (p *InPlace) dropPreparing() error {
	if p.damage != nil {
		return nil
	}
	lines, err := p.readLines()
	if err != nil {
		return err
	}
	in, _ := p.readIntent()
	var errs []error
	for _, r := range deploy.Releases(&deploy.Found{Lines: lines, Current: p.known.Current}) {
		if r.State == deploy.ReleasePreparing && !r.Current && (in == nil || in.To != "releases/"+r.ID) {
			errs = append(errs, p.removed(r.ID))
		}
	}
	return errors.Join(errs...)
}

// take makes a deploy found in the journal this owner's own.
func (p *InPlace) take() error {
	if p.intent != nil {
		return nil
	}
	in, id, err := p.unfinished("deploy", deploy.ValidReleaseID)
	if err != nil {
		return err
	}
	spec, err := p.specOf(id)
	if err != nil {
		return err
	}
	p.intent, p.spec = in, spec
	return nil
}

// phase writes how far the deploy has come.
func (p *InPlace) phase(ph deploy.Phase) error {
	p.intent.Phase = ph
	return p.writeIntent(*p.intent)
}

// Proving records that the steps are done: what is left is to restart.
func (p *InPlace) Proving() error {
	if err := p.take(); err != nil {
		return err
	}
	err := p.phase(deploy.Proving)
	reached("in-place-proving")
	return err
}

// Live records that the commit is live, and ends its deploy. What the steps
// changed in tracked files is ours too from now on.
func (p *InPlace) Live() error {
	if err := p.take(); err != nil {
		return err
	}
	if err := p.rescan(); err != nil {
		return err
	}
	reached("in-place-rescanned")
	if err := p.replaced(); err != nil {
		return err
	}
	l := p.about(p.spec, deploy.ReleaseLive)
	l.Pops = p.intent.Pops
	if err := p.line(l); err != nil {
		return err
	}
	reached("in-place-live")
	return p.end()
}

// replaced takes the deploy of the same commit that this one repeats out of
// the list: to go back means to go to another commit.
func (p *InPlace) replaced() error {
	lines, err := p.readLines()
	if err != nil {
		return err
	}
	stack := deploy.LiveStack(lines)
	if len(stack) == 0 || stack[len(stack)-1] == p.spec.Release || p.spec.Commit == "" {
		return nil
	}
	top := stack[len(stack)-1]
	for _, l := range lines {
		if l.Release == top && l.Commit == p.spec.Commit && l.Repository == p.spec.Repository {
			return p.removed(top)
		}
	}
	return nil
}

// Failed records that the deploy did not come to its end. Its files stay.
func (p *InPlace) Failed() error {
	if err := p.take(); err != nil {
		return err
	}
	if err := p.rescan(); err != nil {
		return err
	}
	if err := p.line(p.about(p.spec, deploy.ReleaseBad)); err != nil {
		return err
	}
	return p.end()
}

// Drop forgets an unfinished deploy whose end is in the journal already.
func (p *InPlace) Drop() error { return p.end() }

// end removes the intent: the deploy is over.
func (p *InPlace) end() error {
	if err := p.removeIntent(); err != nil {
		return err
	}
	p.intent = nil
	reached("in-place-ended")
	return nil
}

// Abandon forgets the unfinished deploy of a directory, whoever began it, and
// leaves its files as they are: what that deploy put there stays known as
// ours. A list of files that cannot be read is forgotten too.
func (p *InPlace) Abandon() error {
	if p.damage != nil {
		if err := os.Remove(p.file("manifest")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return p.end()
}

// Prune takes old deploys out of the list and gives their names.
func (p *InPlace) Prune(keep, keepFailed int) ([]string, error) {
	f, err := p.Found()
	if err != nil {
		return nil, err
	}
	var removed []string
	for _, id := range deploy.PruneList(f, keep, keepFailed, func(string) bool { return false }) {
		err := p.removed(id)
		if err != nil {
			return removed, err
		}
		removed = append(removed, id)
	}
	return removed, nil
}
