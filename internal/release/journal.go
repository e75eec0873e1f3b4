package release

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"deployhook/internal/deploy"
)

// Bounds of what is read back.
const (
	linesMost   = 1000     // lines of the journal
	tailBytes   = 1 << 20  // of its end, in which these lines are looked for
	intentBytes = 64 << 10 // of intent.json
)

// wireIntent is intent.json: from is null before the first release.
type wireIntent struct {
	deploy.Intent
	From *string `json:"from"`
}

// parseIntent reads intent.json strictly: what it does not know it must not
// act upon.
func parseIntent(b []byte) (*deploy.Intent, error) {
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, errors.New("intent.json is not JSON")
	}
	if head.Format != deploy.IntentFormat {
		return nil, fmt.Errorf("intent.json has format %d, this deployhook writes %d", head.Format, deploy.IntentFormat)
	}
	var w wireIntent
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		return nil, errors.New("intent.json has keys or values that this deployhook does not know")
	}
	in := w.Intent
	if w.From != nil {
		in.From = *w.From
	}
	switch in.Phase {
	case deploy.Switching, deploy.Proving, deploy.Undoing:
		return &in, nil
	}
	return nil, fmt.Errorf("intent.json has an unknown phase")
}

func (p *Path) readIntent() (*deploy.Intent, string) {
	b, err := readBounded(p.file("intent.json"), intentBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ""
	}
	if err != nil {
		return nil, err.Error()
	}
	in, err := parseIntent(b)
	if err != nil {
		return nil, err.Error()
	}
	return in, ""
}

func readBounded(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		return nil, fmt.Errorf("%s is over %d bytes", filepath.Base(name), most)
	}
	return b, err
}

// writeIntent replaces intent.json as a whole, on disk before it returns.
func (p *Path) writeIntent(in deploy.Intent) error {
	w := wireIntent{Intent: in}
	if in.From != "" {
		w.From = &in.From
	}
	b, err := json.Marshal(w)
	if err != nil {
		return err
	}
	temp := p.file("intent.json.new")
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return sentence(p.root, err)
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return sentence(p.root, err)
	}
	if err := os.Rename(temp, p.file("intent.json")); err != nil {
		return sentence(p.root, err)
	}
	return syncDir(p.file(""))
}

func (p *Path) removeIntent() error {
	if err := os.Remove(p.file("intent.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(p.file(""))
}

// line appends a change of state to the journal, on disk before it returns.
func (p *Path) line(l deploy.ReleaseLine) error {
	l.Time = time.Now().UTC()
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(p.file("releases.ndjson"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return sentence(p.root, err)
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return sentence(p.root, err)
	}
	return syncDir(p.file(""))
}

// ours is a line about the release at hand.
func (p *Path) ours(state deploy.ReleaseState) deploy.ReleaseLine {
	return deploy.ReleaseLine{
		Release: p.release, State: state, Repository: p.spec.Repository, Commit: p.spec.Commit,
		Daemon: p.owner.Daemon, Run: p.owner.Run, Job: p.owner.Job,
	}
}

// readLines gives the last lines of the journal, the oldest first. Lines that
// cannot be read are passed over: one torn by a crash is not a change of state.
func (p *Path) readLines() ([]deploy.ReleaseLine, error) {
	f, err := os.Open(p.file("releases.ndjson"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	from := max(0, st.Size()-tailBytes)
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return nil, err
	}
	return parseLines(f, from > 0)
}

func parseLines(r io.Reader, cut bool) ([]deploy.ReleaseLine, error) {
	var lines []deploy.ReleaseLine
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 4096), tailBytes+1)
	for sc.Scan() {
		if cut {
			cut = false
			continue
		}
		var l deploy.ReleaseLine
		if json.Unmarshal(sc.Bytes(), &l) == nil && deploy.ValidReleaseID(l.Release) {
			lines = append(lines, l)
		}
	}
	if n := len(lines); n > linesMost {
		lines = lines[n-linesMost:]
	}
	return lines, sc.Err()
}

// repairLines ends a line that a crash cut short, so that the next one does
// not continue it.
func (p *Path) repairLines() error {
	f, err := os.OpenFile(p.file("releases.ndjson"), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return err
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, st.Size()-1); err != nil {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	_, err = f.WriteAt([]byte{'\n'}, st.Size())
	return err
}

// unique is a name that nobody else has.
func unique() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails: it would end the process
	return fmt.Sprintf("%x", b)
}
