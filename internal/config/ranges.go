package config

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"deployhook/internal/deploy"
)

// Ranges are the networks that services publish as theirs, as they were when
// they were fetched.
type Ranges map[string]RangeList

// RangeList is the list of one service.
type RangeList struct {
	Fetched  time.Time      `json:"fetched"`
	Networks []netip.Prefix `json:"networks"`
}

// rangeNames are the lists that hooks.*.allow may name.
var rangeNames = []string{"github"}

// RangesAPI is where GitHub publishes its networks.
//
// Source: GitHub docs, "About GitHub's IP addresses".
const RangesAPI = "https://api.github.com"

// Bounds of lists of networks.
const (
	rangesMost = 1 << 20 // bytes of an answer, and of the file
	rangesTime = 30 * time.Second
	rangesOld  = 30 * 24 * time.Hour // from which a list is worth a word
)

// RangesFile is where the lists are kept in a data directory.
func RangesFile(data string) string { return filepath.Join(data, "ranges.json") }

// ReadRanges reads the lists of a data directory; the error is
// [fs.ErrNotExist] when none was fetched.
func ReadRanges(data string) (Ranges, error) {
	path := RangesFile(data)
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, errors.Unwrap(err))
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, rangesMost+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, errors.Unwrap(err))
	}
	var r Ranges
	if len(b) > rangesMost || json.Unmarshal(b, &r) != nil {
		return nil, fmt.Errorf("%s is damaged: fetch it anew with deployhook hooks ranges", path)
	}
	return r, nil
}

// FetchRanges asks a service of GitHub's form, api, for its networks.
func FetchRanges(ctx context.Context, api string) (Ranges, error) {
	ctx, cancel := context.WithTimeout(ctx, rangesTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(api, "/")+"/meta", nil)
	if err != nil {
		return nil, errors.New("the address to fetch from cannot be read")
	}
	req.Header.Set("Accept", "application/vnd.github+json")
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, fmt.Errorf("asking %s for its networks: %w", req.URL.Host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("asking %s for its networks: it answered %d", req.URL.Host, resp.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, rangesMost+1))
	if err != nil {
		return nil, fmt.Errorf("asking %s for its networks: %w", req.URL.Host, err)
	}
	list, err := parseRanges(b)
	if err != nil {
		return nil, fmt.Errorf("%s answered with no list of networks: %w", req.URL.Host, err)
	}
	return Ranges{"github": {Fetched: time.Now().UTC().Truncate(time.Second), Networks: list}}, nil
}

// parseRanges takes the networks that webhooks come from out of GitHub's answer.
func parseRanges(b []byte) ([]netip.Prefix, error) {
	if len(b) > rangesMost {
		return nil, fmt.Errorf("it is over %d KiB", rangesMost>>10)
	}
	var meta struct {
		Hooks []string `json:"hooks"`
	}
	if json.Unmarshal(b, &meta) != nil {
		return nil, errors.New("it is not the JSON that is documented")
	}
	if len(meta.Hooks) == 0 || len(meta.Hooks) > allowMost {
		return nil, fmt.Errorf("it has %s of webhooks, and 1 to %d are wanted", counted(len(meta.Hooks), "network"), allowMost)
	}
	list := make([]netip.Prefix, 0, len(meta.Hooks))
	for _, text := range meta.Hooks {
		p, err := parseNetwork(text)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// WriteRanges keeps lists in a data directory, whole or not at all. The file
// gets the owner of the directory, so that the daemon can read it and a later
// fetch by its user can replace it.
func WriteRanges(data string, r Ranges) error {
	path := RangesFile(data)
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(data, ".ranges-")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, cause(err))
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Chmod(0o644), ownedAs(f, data), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, cause(err))
	}
	return nil
}

// cause is an error without the name of the temporary file.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// rangesMissing are the lists that hooks name and that are not here.
func (f *File) rangesMissing() (list Problems) {
	for _, h := range f.Deploy.Hooks {
		if len(h.Ranges) == 0 {
			continue
		}
		r, err := ReadRanges(f.Server.Data)
		for _, name := range h.Ranges {
			p := f.problem("hooks."+h.Name+".allow", "")
			switch {
			case errors.Is(err, fs.ErrNotExist) || err == nil && len(r[name].Networks) == 0:
				p.Message = fmt.Sprintf("the networks of %s are not here yet: fetch them with deployhook hooks ranges", name)
			case err != nil:
				p.Message, p.Unread = err.Error(), errors.Is(err, fs.ErrPermission)
			default:
				continue
			}
			list = append(list, p)
		}
	}
	return list
}

// RangesOld says that a list is so old that senders may be missing in it.
func RangesOld(fetched, now time.Time) bool { return now.Sub(fetched) > rangesOld }

// RangesOf are the lists that hooks of a config name.
func RangesOf(cfg *deploy.Config) []string {
	names := map[string]bool{}
	for _, h := range cfg.Hooks {
		for _, name := range h.Ranges {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// AllowText is a hook's list of networks as it would be written.
func AllowText(h *deploy.Hook) string {
	text := strings.Join(h.Ranges, ", ")
	if len(h.Allow) > 0 && text != "" {
		text += ", "
	}
	return text + networksText(h.Allow)
}

// ownedAs gives a file the owner and group that a directory has. Only root can
// give away what is its own; for others it is theirs already.
func ownedAs(f *os.File, dir string) error {
	if os.Getuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}
