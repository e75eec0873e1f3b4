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
	"strings"

	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
)

// Bounds of what is read back.
const (
	linesMost   = 1000     // lines of the journal
	tailBytes   = 1 << 20  // of its end, in which these lines are looked for
	intentBytes = 64 << 10 // of intent.json

	compactBytes = 256 << 10 // of the journal: a longer one is rewritten
	compactMost  = 64 << 20  // of it that is read for that
	compactTail  = 100       // last lines that stay whatever they say
)

// journal are the files that tell, after whatever ended the process, what was
// being done to a release path and what is live there. It is locked while the
// path is open.
type journal struct {
	root  string // what it is about, in sentences
	dir   string // where its files are
	disk  string // where there is no room when they cannot be written, in sentences
	owner Owner
	lock  *os.File
	files *Ownership // whose the files are that are made here; nil = this process's user
}

func (p *journal) file(name string) string { return filepath.Join(p.dir, name) }

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

func (p *journal) readIntent() (*deploy.Intent, string) {
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

// openPlain opens a file of the journal. What a step may have put in its place
// is not followed, and does not block.
func openPlain(name string, flags int) (*os.File, error) {
	f, err := os.OpenFile(name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if err != nil {
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENXIO) {
			err = fmt.Errorf("%s is not a file", name)
		}
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s is not a file", name)
	}
	return f, nil
}

func readBounded(name string, most int64) ([]byte, error) {
	f, err := openPlain(name, os.O_RDONLY)
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
func (p *journal) writeIntent(in deploy.Intent) error {
	w := wireIntent{Intent: in}
	if in.From != "" {
		w.From = &in.From
	}
	b, err := json.Marshal(w)
	if err != nil {
		return err
	}
	return p.replace("intent.json", append(b, '\n'))
}

// replace writes a file of the journal as a whole: under a name of its own
// first, on disk before it returns.
func (p *journal) replace(name string, content []byte) error {
	return p.rewrite(name, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// rewrite is replace for content that write writes.
func (p *journal) rewrite(name string, write func(io.Writer) error) error {
	temp := p.file(tempPrefix + unique())
	f, err := openPlain(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return sentence(p.disk, err)
	}
	if err = errors.Join(write(f), p.files.give(f), f.Sync(), f.Close()); err == nil {
		reached("temporary-file")
		err = os.Rename(temp, p.file(name))
	}
	if err != nil {
		os.Remove(temp)
		return sentence(p.disk, err)
	}
	return syncDir(p.file(""))
}

// tempPrefix begins the names of files that are being written.
const tempPrefix = "writing-"

func (p *journal) removeIntent() error {
	if err := os.Remove(p.file("intent.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(p.file(""))
}

// line appends a change of state to the journal, on disk before it returns.
func (p *journal) line(l deploy.ReleaseLine) error {
	l.Time = p.owner.now().UTC()
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	f, err := openPlain(p.file("releases.ndjson"), os.O_WRONLY|os.O_CREATE|os.O_APPEND)
	if err != nil {
		return sentence(p.disk, err)
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return sentence(p.disk, err)
	}
	return syncDir(p.file(""))
}

// about is a line about a release.
func (p *journal) about(s Spec, state deploy.ReleaseState) deploy.ReleaseLine {
	return deploy.ReleaseLine{
		Release: s.Release, State: state, Repository: s.Repository, Commit: s.Commit,
		Daemon: p.owner.Daemon, Run: p.owner.Run, Job: p.owner.Job,
	}
}

// removed records that a release is gone.
func (p *journal) removed(id string) error {
	return p.line(p.about(Spec{Release: id}, deploy.ReleaseRemoved))
}

// ours is a line about the release at hand.
func (p *Path) ours(state deploy.ReleaseState) deploy.ReleaseLine {
	s := p.spec
	s.Release = p.release
	return p.about(s, state)
}

// specOf reads from the journal what a release was made of.
func (p *journal) specOf(id string) (Spec, error) {
	s := Spec{Release: id}
	lines, err := p.readLines()
	for _, l := range lines {
		if l.Release == id && l.Commit != "" {
			s.Commit, s.Repository = l.Commit, l.Repository
		}
	}
	return s, err
}

// unfinished reads the intent of what was cut short, a switch or a deploy, and
// the name of its release.
func (p *journal) unfinished(what string, valid func(id string) bool) (*deploy.Intent, string, error) {
	in, foreign := p.readIntent()
	if foreign != "" {
		return nil, "", errors.New(foreign)
	}
	if in == nil {
		return nil, "", fmt.Errorf("there is no unfinished %s", what)
	}
	id, ok := strings.CutPrefix(in.To, "releases/")
	if !ok || !valid(id) {
		return nil, "", fmt.Errorf("the unfinished %s names no release", what)
	}
	return in, id, nil
}

// readLines gives the last lines of the journal, the oldest first. Lines that
// cannot be read are passed over: one torn by a crash is not a change of state.
func (p *journal) readLines() ([]deploy.ReleaseLine, error) {
	lines, err := p.readTail(tailBytes)
	return lines[max(0, len(lines)-linesMost):], err
}

// readTail reads the lines in so many bytes of the journal's end.
func (p *journal) readTail(most int64) ([]deploy.ReleaseLine, error) {
	f, err := openPlain(p.file("releases.ndjson"), os.O_RDONLY)
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
	from := max(0, st.Size()-most)
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return nil, err
	}
	return parseLines(io.LimitReader(f, most), from > 0)
}

// gone gives a line removed for each release whose directory is not there any
// more, whoever took it away: nothing can be put back to it.
func (p *Path) gone(lines []deploy.ReleaseLine) []deploy.ReleaseLine {
	for _, r := range deploy.Releases(&deploy.Found{Lines: lines}) {
		if st, err := os.Lstat(filepath.Join(p.root, "releases", r.ID)); errors.Is(err, fs.ErrNotExist) || err == nil && !st.IsDir() {
			lines = append(lines, deploy.ReleaseLine{Release: r.ID, State: deploy.ReleaseRemoved})
		}
	}
	return lines[max(0, len(lines)-linesMost):]
}

// compact rewrites a journal that has grown: of a release that is gone only
// the last lines of all stay, of one that is there what rollback and prune ask for.
func (p *journal) compact() error {
	st, err := os.Lstat(p.file("releases.ndjson"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && st.Size() < compactBytes {
		return nil
	}
	if err != nil {
		return err
	}
	lines, err := p.readTail(compactMost)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	for _, l := range needed(lines) {
		text, err := json.Marshal(l)
		if err != nil {
			return err
		}
		b.Write(append(text, '\n'))
	}
	if int64(b.Len()) > st.Size()/4*3 {
		return nil // it is as long as what it tells of
	}
	return p.replace("releases.ndjson", b.Bytes())
}

// needed gives the lines that say something about releases that are there, and
// the last ones.
func needed(lines []deploy.ReleaseLine) []deploy.ReleaseLine {
	last := map[string]int{}
	for i, l := range lines {
		last[l.Release] = i
	}
	var kept []deploy.ReleaseLine
	for i, l := range lines {
		there := lines[last[l.Release]].State != deploy.ReleaseRemoved
		if i >= len(lines)-compactTail || there && (l.State == deploy.ReleaseLive || last[l.Release] == i) {
			kept = append(kept, l)
		}
	}
	return kept
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
		if json.Unmarshal(sc.Bytes(), &l) == nil && l.Valid() {
			lines = append(lines, l)
		}
	}
	if errors.Is(sc.Err(), bufio.ErrTooLong) {
		return nil, errors.New("releases.ndjson has a line over 1 MiB: move it away, and the releases that it told of")
	}
	return lines, sc.Err()
}

// repairLines ends a line that a crash cut short, so that the next one does
// not continue it.
func (p *journal) repairLines() error {
	f, err := openPlain(p.file("releases.ndjson"), os.O_RDWR)
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
