package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
)

// ErrNotBegun is a switch that was refused before anything was changed.
var ErrNotBegun = errors.New("the switch was not begun")

// refusal is an error that is an [ErrNotBegun] too.
type refusal struct{ error }

func (refusal) Is(target error) bool { return target == ErrNotBegun }
func (r refusal) Unwrap() error      { return r.error }

// Activate points current to a release that is whole: the journal first, then
// the link under a name of its own, then rename. pops marks a rollback to the
// release below the top of the stack. [ErrNotBegun]: nothing was changed.
func (p *Path) Activate(to string, pops bool) error {
	from, err := p.mayActivate(to)
	if err != nil {
		return refusal{err}
	}
	if to != p.release {
		p.become(to)
	}
	if err := syncTree(p.Dir()); err != nil {
		return refusal{err}
	}
	in := deploy.Intent{
		Format: deploy.IntentFormat, Daemon: p.owner.Daemon, Run: p.owner.Run, Job: p.owner.Job, Attempt: p.owner.Attempt,
		From: from, To: "releases/" + to, Phase: deploy.Switching, Pops: pops,
	}
	reached("before-intent")
	if err := p.writeIntent(in); err != nil {
		return err
	}
	p.intent = &in
	reached("intent-written")
	if err := p.link(in.To); err != nil {
		return err
	}
	reached("linked")
	in.Phase = deploy.Proving
	err = p.writeIntent(in)
	reached("phase-proving")
	return err
}

// mayActivate says whether a switch may begin, and where current points now.
func (p *Path) mayActivate(to string) (from string, err error) {
	if !p.known(to) {
		return "", fmt.Errorf("%q is not the name of a release", to)
	}
	if st, err := os.Lstat(filepath.Join(p.root, "releases", to)); err != nil || !st.IsDir() {
		return "", fmt.Errorf("release %s is not there", to)
	}
	if err := p.held(); err != nil {
		return "", err
	}
	if to == p.release {
		if err := p.stands(); err != nil {
			return "", err
		}
	}
	if in, foreign := p.readIntent(); in != nil || foreign != "" {
		return "", fmt.Errorf("an unfinished switch is here%s", because(foreign))
	}
	if from, err = p.currentRelease(); err != nil {
		return "", err
	}
	if p.seen != nil && *p.seen != from {
		return "", fmt.Errorf("%s/current was pointed to %s while the release was being made: look at it, and deploy again", p.root, orNothing(from))
	}
	return from, nil
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

func orNothing(target string) string {
	if target == "" {
		return "nothing"
	}
	return target
}

// link points current to a target in one step: whoever looks sees the old one
// or the new one.
func (p *Path) link(target string) error {
	temp := filepath.Join(p.root, ".current-"+unique())
	if err := os.Symlink(target, temp); err != nil {
		return sentence(p.root, err)
	}
	reached("temporary-link")
	if err := os.Rename(temp, filepath.Join(p.root, "current")); err != nil {
		os.Remove(temp)
		return sentence(p.root, err)
	}
	p.seen = &target
	return syncDir(p.root)
}

// syncTree writes everything of the release's file system to disk.
func syncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("writing %s to disk: %w", dir, err)
	}
	return nil
}

// take makes an intent found in the journal this owner's own.
func (p *Path) take() error {
	if p.intent != nil {
		return nil
	}
	in, id, err := p.unfinished("switch", deploy.ValidReleaseName)
	if err != nil {
		return err
	}
	p.intent = in
	p.become(id)
	return nil
}

// become makes a release that is there the one at hand. What it was made of
// counts for the journal alone: one that cannot be read keeps nobody.
func (p *Path) become(id string) {
	p.filled()
	p.release, p.made, p.is = id, false, nil
	p.spec, _ = p.specOf(id)
}

// Live records that the release is live and healthy, and ends the switch.
func (p *Path) Live() error {
	if err := p.take(); err != nil {
		return err
	}
	l := p.ours(deploy.ReleaseLive)
	l.Pops = p.intent.Pops
	reached("before-live-line")
	if err := p.line(l); err != nil {
		return err
	}
	reached("live-line")
	return p.end("intent-removed")
}

// end removes the intent: the switch is over.
func (p *Path) end(point string) error {
	if err := p.removeIntent(); err != nil {
		return err
	}
	p.intent = nil
	reached(point)
	return nil
}

// Undo points current back to where it was, and removes it when this was the
// first release. It returns where current points now: "releases/<id>" or empty.
func (p *Path) Undo() (string, error) {
	if err := p.take(); err != nil {
		return "", err
	}
	p.intent.Phase = deploy.Undoing
	if err := p.writeIntent(*p.intent); err != nil {
		return "", err
	}
	reached("undo-intent")
	if p.intent.From == "" {
		if err := os.Remove(filepath.Join(p.root, "current")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", sentence(p.root, err)
		}
		p.seen = &p.intent.From
		if err := syncDir(p.root); err != nil {
			return "", err
		}
	} else if err := p.link(p.intent.From); err != nil {
		return "", err
	}
	reached("undo-linked")
	return p.intent.From, nil
}

// Undone marks the release bad and ends the switch.
func (p *Path) Undone() error {
	if err := p.take(); err != nil {
		return err
	}
	if err := p.line(p.ours(deploy.ReleaseBad)); err != nil {
		return err
	}
	reached("bad-line")
	return p.end("undone")
}

// DropIntent ends a switch that was announced and not made.
func (p *Path) DropIntent() error {
	reached("before-drop")
	return p.end("dropped")
}

// Abandon drops the unfinished switch of a path, whoever began it, and leaves
// current where it points.
func (p *Path) Abandon() error { return p.end("abandoned") }
