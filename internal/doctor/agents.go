package doctor

import (
	"context"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
)

// Room that there should be for a release, which is a copy of the repository
// with all that its steps install.
const (
	bytesLeast  = 64 << 20 // under it a deploy is refused
	bytesFew    = 512 << 20
	inodesLeast = 1000
	inodesFew   = 20000
)

// checkAgents has the daemon open an agent of each kind: only its user may.
func (e *exam) checkAgents(context.Context) (found []Check) {
	d, err := e.daemon()
	if err != nil {
		return warn("not tried: only the daemon can open agents, and it could not be asked", "")
	}
	reports, err := e.agents()
	if err != nil {
		return fail("the daemon did not say in time what its agents are: "+err.Error(), "journalctl -u deployhook -p warning -n 20")
	}
	var text string
	for _, r := range reports {
		if !r.Local() {
			continue
		}
		unit := agentUnit(r.Kind)
		switch {
		case r.Error != "" && r.Socket != "":
			found = append(found, fail(fmt.Sprintf("no agent for %s jobs: %s", r.Kind, r.Error), "sudo systemctl restart "+unit+" deployhook\njournalctl -n 20 -u '"+unit[:len(unit)-len(".socket")]+"@*'")...)
		case r.Error != "":
			found = append(found, fail(fmt.Sprintf("no agent for %s jobs: %s", r.Kind, r.Error), restartIt)...)
		case r.Version != d.Version:
			found = append(found, warn(fmt.Sprintf("the agent for %s jobs is deployhook %s, and the daemon is %s", r.Kind, r.Version, d.Version), restartIt)...)
		case r.UID == 0:
			found = append(found, warn(fmt.Sprintf("the agent for %s jobs runs as root: whoever can push owns this machine", r.Kind), "sudo deployhook init")...)
		}
		if text != "" {
			text += ", "
		}
		text += fmt.Sprintf("%s jobs run as %s", r.Kind, r.User)
	}
	return unlessAny(found, "both start: %s", text)
}

// checkReleases looks whether each release path can be written, and has room.
func (e *exam) checkReleases(ctx context.Context) (found []Check) {
	if e.file == nil {
		return e.needsConfig()
	}
	said := map[string]bool{}
	rooms, asked := e.rooms()
	for _, p := range e.file.Deploy.Pipelines {
		for i := range p.Jobs {
			j := &p.Jobs[i]
			if !j.Deploys() || !j.RunsOn(deploy.Local) || said[j.Release.Path] {
				continue
			}
			said[j.Release.Path] = true
			room, known := rooms[j.Release.Path]
			switch {
			case known:
			case e.root() && (e.installed() || e.separate()):
				room = e.roomAt(ctx, j)
			default:
				found = append(found, warn(j.Release.Path+": whether it can be written was not found out, as the daemon did not answer", e.lookAgain())...)
				continue
			}
			found = append(found, e.enough(room, j)...)
		}
	}
	if len(said) == 0 {
		return ok("no job has a release here")
	}
	if len(found) == 0 {
		how := "asked by an agent"
		if !asked {
			how = "by their modes"
		}
		return ok("%s can be written and %s room for more (%s)", counted(len(said), "release path"), has(len(said)), how)
	}
	return found
}

// lookAgain is what shows what could not be seen: being root, or the daemon.
func (e *exam) lookAgain() string {
	if e.root() {
		return e.startIt()
	}
	return asRoot
}

func has(n int) string {
	if n == 1 {
		return "has"
	}
	return "have"
}

// rooms is what the agent of deploy jobs says of their paths.
func (e *exam) rooms() (rooms map[string]deploy.Room, asked bool) {
	rooms = map[string]deploy.Room{}
	reports, err := e.agents()
	if err != nil {
		return rooms, false
	}
	for _, r := range reports {
		if !r.Local() {
			continue
		}
		for _, p := range r.Paths {
			rooms[p.Path], asked = p, true
		}
	}
	return rooms, asked
}

// roomAt is what can be told of a path without an agent, from modes and owners.
func (e *exam) roomAt(ctx context.Context, j *deploy.Job) deploy.Room {
	root := j.Release.Path
	room := deploy.Room{Path: root, Inodes: -1}
	at := root
	for !e.exists(at) && at != "/" {
		at = path.Dir(at)
	}
	name := e.userOf(j.Agent())
	u := e.user(ctx, name)
	st, err := e.stat(at)
	switch {
	case err != nil:
		room.Error = err.Error()
	case u == nil:
		room.Error = "there is no user " + name + ", which would write " + root
	case !st.IsDir():
		room.Error = at + " is not a directory: move it away"
	case !e.may(u, st, 3):
		room.Error = fmt.Sprintf("the release path %s cannot be written by %s: make it with: sudo install -d -o %s %s", root, name, name, root)
	case unix.Access(e.path(at), unix.W_OK) == unix.EROFS:
		room.Error = "the release path " + root + " is on a read-only file system"
	}
	room.Bytes, room.Inodes = free(e.path(at))
	return room
}

// free is what a file system has left for others than root; -1: no number.
func free(dir string) (bytes, inodes int64) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return -1, -1
	}
	inodes = -1
	if s.Files > 0 { // some file systems have no fixed number
		inodes = int64(s.Ffree)
	}
	return int64(s.Bavail) * s.Bsize, inodes
}

// enough judges a path.
func (e *exam) enough(r deploy.Room, j *deploy.Job) []Check {
	if r.Error != "" {
		return fail(r.Error, e.makeWritable(r, j))
	}
	lower := "df -h " + r.Path + "\nlower release.keep in deploy.yaml, or make room on that disk"
	return space(r.Path, r.Bytes, r.Inodes, lower)
}

func (e *exam) makeWritable(r deploy.Room, j *deploy.Job) string {
	name := e.userOf(j.Agent())
	if e.exists(r.Path) {
		return "sudo chown -R " + name + ": " + r.Path
	}
	return "sudo install -d -o " + name + " -g " + name + " " + r.Path
}

// space judges what a file system has left.
func space(what string, bytes, inodes int64, fix string) (found []Check) {
	switch {
	case bytes >= 0 && bytes < bytesLeast:
		found = append(found, fail(what+": "+mebibytes(bytes)+" are free, too few for a release", fix)...)
	case bytes >= 0 && bytes < bytesFew:
		found = append(found, warn(what+": only "+mebibytes(bytes)+" are free", fix)...)
	}
	switch {
	case inodes >= 0 && inodes < inodesLeast:
		found = append(found, fail(fmt.Sprintf("%s: %d inodes are free, too few for a release", what, inodes), fix)...)
	case inodes >= 0 && inodes < inodesFew:
		found = append(found, warn(fmt.Sprintf("%s: only %d inodes are free", what, inodes), fix)...)
	}
	return found
}

// checkData looks at the directory of database and mirrors.
func (e *exam) checkData(ctx context.Context) (found []Check) {
	if e.file == nil {
		return e.needsConfig()
	}
	data := e.file.Server.Data
	st, err := os.Stat(e.path(data))
	switch {
	case os.IsPermission(err):
		return warn(data+" cannot be looked at by this user", asRoot)
	case err != nil:
		if _, derr := e.daemon(); derr == nil {
			return warn(data+" cannot be looked at: "+rootCause(err).Error(), asRoot)
		}
		return warn(data+" is not there yet: the daemon makes it when it is started", e.startIt())
	case !st.IsDir():
		return fail(data+" is not a directory", "sudo mv "+data+" "+data+".old\n"+restartIt)
	}
	bytes, inodes := free(e.path(data))
	found = space(data, bytes, inodes, "df -h "+data+"\nmake room on that disk: with none, pushes are answered 503")
	return unlessAny(found, "%s has %s free", data, mebibytes(bytes))
}
