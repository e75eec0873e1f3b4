package host

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
)

// machines are the names that uname has for the architectures of Go.
var machines = map[string][]string{
	"amd64": {"x86_64", "amd64"}, "arm64": {"aarch64", "arm64"}, "arm": {"armv6l", "armv7l", "armv8l"}, "386": {"i386", "i486", "i586", "i686"},
	"riscv64": {"riscv64"}, "ppc64le": {"ppc64le"}, "s390x": {"s390x"}, "loong64": {"loongarch64"},
}

// programs are the binaries that are copied to hosts.
type programs struct {
	own string // of this machine's architecture
	dir string // where the others are

	mu    sync.Mutex
	sums  map[string]summed
	packs map[string]*io.SectionReader // by sum
}

// summed is the hash of a file as long as it is the same one.
type summed struct {
	size int64
	time time.Time
	sum  string
}

// program is one binary.
type program struct {
	arch, path, sum string
}

func newPrograms(own string) *programs {
	p := &programs{own: own, sums: map[string]summed{}, packs: map[string]*io.SectionReader{}}
	if p.own == "" {
		// Also when its file was replaced meanwhile: the agent must be of this version.
		p.own = "/proc/self/exe"
		if exe, err := os.Executable(); err == nil {
			p.dir = filepath.Dir(exe)
		}
	} else {
		p.dir = filepath.Dir(own)
	}
	return p
}

// beside is where the binary for another architecture is looked for.
func (p *programs) beside(arch string) string {
	return filepath.Join(p.dir, "deployhook-linux-"+arch)
}

// list gives the binaries that are there.
func (p *programs) list() ([]program, error) {
	var list []program
	for arch := range machines {
		path := p.beside(arch)
		if arch == runtime.GOARCH {
			path = p.own
		}
		sum, err := p.sum(path)
		switch {
		case err == nil:
			list = append(list, program{arch, path, sum})
		case arch == runtime.GOARCH || !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("reading the agent's program %s: %w", path, err)
		}
	}
	slices.SortFunc(list, func(a, b program) int { return strings.Compare(a.arch, b.arch) })
	return list, nil
}

// sum is the SHA-256 of a file, hex.
func (p *programs) sum(path string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if had, ok := p.sums[path]; ok && had.size == st.Size() && had.time.Equal(st.ModTime()) {
		return had.sum, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	sum := hex.EncodeToString(h.Sum(nil))
	p.sums[path] = summed{st.Size(), st.ModTime(), sum}
	return sum, nil
}

// packed is a program as it is sent: several hosts may lack it at once.
func (p *programs) packed(what program) (*io.SectionReader, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	had := p.packs[what.sum]
	if had == nil {
		var err error
		if had, err = pack(what.path); err != nil {
			return nil, fmt.Errorf("packing the agent's program %s: %w", what.path, err)
		}
		p.packs[what.sum] = had
	}
	return io.NewSectionReader(had, 0, had.Size()), nil
}

// pack compresses a file into one that has no name, and ends with this process.
func pack(path string) (*io.SectionReader, error) {
	from, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	to, err := os.CreateTemp("", "deployhook-agent-")
	if err != nil {
		return nil, err
	}
	os.Remove(to.Name())
	z, _ := gzip.NewWriterLevel(to, gzip.BestSpeed) // its only error is a level that is none
	_, err = io.Copy(z, from)
	if err = errors.Join(err, z.Close()); err == nil {
		var st os.FileInfo
		if st, err = to.Stat(); err == nil {
			return io.NewSectionReader(to, 0, st.Size()), nil
		}
	}
	to.Close()
	return nil, err
}

// file is where a person finds a program.
func (p *programs) file(what program) string {
	if what.path == "/proc/self/exe" {
		if exe, err := os.Executable(); err == nil {
			return exe
		}
	}
	return what.path
}

// archOf is the architecture that uname names.
func archOf(machine string) string {
	for arch, names := range machines {
		if slices.Contains(names, machine) {
			return arch
		}
	}
	return ""
}

// Words by which the shell of a host says what it needs; see [loginScript].
const (
	farRun   = "run"   // the agent is started
	farSend  = "send"  // the program for that architecture is wanted, for that place
	farGot   = "got"   // another [gotEvery] bytes of it have come, or the last
	farArch  = "arch"  // system and machine: there is no program for it
	farHome  = "home"  // there is none
	farTool  = "tool"  // that is not there
	farDir   = "dir"   // it cannot be made
	farWrite = "write" // that file cannot be written
	farSum   = "sum"   // what came is not what was sent
)

// gotEvery is how many bytes of the program the shell of a host takes at a
// time: it says so of each, as what is on its way tells nothing of what came
// through a slow line.
const gotEvery = 32 << 10

// loginScript is the one command that is run on a host: it starts the agent,
// after it has asked for its program where that is not there or not whole. It
// is for any POSIX shell, and in single quotes for whatever the login's shell
// is; nothing in it comes from outside. mark stands before all that it says.
func loginScript(mark string, list []program) string {
	var cases strings.Builder
	for _, p := range list {
		for _, m := range machines[p.arch] {
			fmt.Fprintf(&cases, `"Linux %s") a=%s h=%s;; `, m, p.arch, p.sum)
		}
	}
	// openssl is asked first: it hashes five times as fast as sha256sum does.
	// What takes pieces from the stream must leave the next one there: head of
	// BusyBox reads ahead.
	return "exec sh -c '" +
		`LC_ALL=C; export LC_ALL; say() { echo; echo "` + mark + `$*"; }; stop() { say "$@"; exit 1; }; ` +
		`m="$(uname -sm)"; case "$m" in ` + cases.String() + `*) stop arch "$m";; esac; ` +
		`[ -d "$HOME" ] || stop home "$HOME"; ` +
		`for t in sha256sum gzip dd; do command -v "$t" > /dev/null || stop tool "$t"; done; ` +
		`umask 077; d="${XDG_CACHE_HOME:-$HOME/.cache}/deployhook"; p="$d/agent-$h"; ` +
		`sum() { openssl dgst -sha256 -r < "$1" 2> /dev/null || sha256sum < "$1"; }; ` +
		`whole() { [ -r "$1" ] && s="$(sum "$1")" && [ "${s%% *}" = "$h" ]; }; ` +
		`full="iflag=fullblock"; dd bs=1 count=0 $full < /dev/null > /dev/null 2>&1 || full=; ` +
		`take() { if [ "$full" ]; then dd bs="$1" count=1 $full 2> /dev/null; else dd bs=1 count="$1" 2> /dev/null; fi; }; ` +
		`whole "$p" || { mkdir -p "$d" || stop dir "$d"; t="$d/.new-$h-$$"; : > "$t" || stop write "$t"; say send "$a" "$p"; read -r n; exec 3>&1; ` +
		`while [ "$n" -gt 0 ]; do c=` + strconv.Itoa(gotEvery) + `; [ "$n" -ge "$c" ] || c="$n"; take "$c" || break; n=$((n - c)); say got >&3; done | ` +
		`gzip -dc > "$t" || { rm -f "$t"; stop write "$t"; }; ` +
		`whole "$t" || { rm -f "$t"; stop sum "$t"; }; ` +
		`chmod 700 "$t" && mv -f "$t" "$p" || { rm -f "$t"; stop write "$p"; }; exec 3>&-; }; ` +
		`say run; exec "$p" agent --ssh'`
}
