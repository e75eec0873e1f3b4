package release

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"deployhook/internal/deploy"
)

// Bounds of what is read of a clone.
const (
	cloneRef    = 4 << 10 // bytes of HEAD and of a ref
	clonePacked = 8 << 20 // bytes of packed-refs
)

var refForm = regexp.MustCompile(`^refs/[A-Za-z0-9._/@+-]+$`)

// Clone is the commit that is checked out in a clone which stands here since
// before the first deploy: its files are the starting point. Empty where
// something was deployed already, or there is no clone. It only names a
// commit: what of it stands here is told by content.
func (p *InPlace) Clone() string {
	if p.damage != nil || p.known.Current != "" {
		return ""
	}
	return checkedOut(filepath.Join(p.path, ".git"))
}

func checkedOut(git string) string {
	if st, err := os.Lstat(git); err != nil || !st.IsDir() {
		return ""
	}
	b, err := readBounded(filepath.Join(git, "HEAD"), cloneRef)
	if err != nil {
		return ""
	}
	head := strings.TrimSpace(string(b))
	if deploy.ValidCommit(head) {
		return head
	}
	ref, ok := strings.CutPrefix(head, "ref: ")
	if !ok || !refForm.MatchString(ref) || !filepath.IsLocal(ref) {
		return ""
	}
	if b, err := readBounded(filepath.Join(git, ref), cloneRef); err == nil {
		if id := strings.TrimSpace(string(b)); deploy.ValidCommit(id) {
			return id
		}
		return ""
	}
	b, err = readBounded(filepath.Join(git, "packed-refs"), clonePacked)
	if err != nil {
		return ""
	}
	return packedRef(string(b), ref)
}

// packedRef finds a ref in the text of packed-refs.
func packedRef(text, ref string) string {
	for line := range strings.Lines(text) {
		if id, name, _ := strings.Cut(strings.TrimSpace(line), " "); name == ref && deploy.ValidCommit(id) {
			return id
		}
	}
	return ""
}
