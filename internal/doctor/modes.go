package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"deployhook/internal/config"
)

// checkModes looks who could write what root or the daemon goes by, and who
// could read what only they may.
func (e *exam) checkModes(ctx context.Context) (found []Check) {
	found = append(found, e.configModes(ctx)...)
	if e.file != nil {
		found = append(found, e.secretModes(ctx)...)
		found = append(found, e.dataModes(ctx)...)
	}
	return unlessAny(found, "config, secrets and data belong to whom they should")
}

// configModes: whoever can write deploy.yaml, or a directory above it, can run
// commands.
func (e *exam) configModes(ctx context.Context) (found []Check) {
	for at := e.Config; at != e.Root && at != "/" && at != "."; at = filepath.Dir(at) {
		who, bad := e.writers(ctx, at)
		if who == "" {
			continue
		}
		text := at + " can be changed by " + who + ": whoever can do that can run commands"
		mode := "0755"
		if at == e.Config {
			mode = "0644"
		}
		fix := "sudo chown root:root " + at + "\nsudo chmod " + mode + " " + at
		if bad {
			found = append(found, fail(text, fix)...)
		} else {
			found = append(found, warn(text, fix)...)
		}
	}
	return found
}

// writers says who beside root can write a file or directory, and whether that
// must not be: everybody, a group, or a user of deployhook's own. Where no
// step has a user of its own there is nobody to keep out.
func (e *exam) writers(ctx context.Context, path string) (who string, bad bool) {
	st, err := os.Stat(path)
	if err != nil {
		return "", false
	}
	uid, gid := e.owner(st)
	mode := st.Mode()
	var list []string
	sticky := st.IsDir() && mode&fs.ModeSticky != 0 // there others' files cannot be replaced
	if mode.Perm()&0o002 != 0 && !sticky {
		list, bad = append(list, "everybody"), true
	}
	if mode.Perm()&0o020 != 0 && gid != 0 && !sticky {
		list, bad = append(list, fmt.Sprintf("its group %d", gid)), true
	}
	if uid != 0 && uid != e.UID {
		name := e.name(ctx, uid)
		list = append(list, "its owner "+name)
		for _, own := range []string{daemonUser, testUser, deployUser} {
			if name == own {
				bad = true
			}
		}
	}
	return strings.Join(list, " and "), bad
}

// secretModes looks at credentials, which are root's alone, and at other files
// with secrets, which steps must not read.
func (e *exam) secretModes(ctx context.Context) (found []Check) {
	dir := filepath.Dir(config.CredentialFile(e.Config, "x"))
	used := false
	for _, s := range e.file.Secrets() {
		path := s.File
		if s.Credential != "" {
			path, used = config.CredentialFile(e.Config, s.Credential), true
		}
		if path == "" || s.Name == "server.tls.certificate" {
			continue
		}
		found = append(found, e.secretMode(ctx, path)...)
	}
	if st, err := os.Stat(dir); err == nil && used && st.Mode().Perm()&0o077 != 0 {
		found = append(found, warn(fmt.Sprintf("%s has mode %04o: it is for root alone", dir, st.Mode().Perm()), "sudo chmod 0700 "+dir)...)
	}
	return found
}

func (e *exam) secretMode(ctx context.Context, path string) []Check {
	st, err := os.Stat(path)
	if err != nil {
		return nil // said with the secret itself
	}
	mode := st.Mode().Perm()
	fix := "sudo chmod go-rwx " + path
	switch {
	case mode&0o007 != 0:
		return fail(fmt.Sprintf("%s has mode %04o: everybody on this machine may read the secret in it", path, mode), fix)
	case mode&0o020 != 0:
		return fail(fmt.Sprintf("%s has mode %04o: its group may change the secret in it", path, mode), fix)
	}
	for _, name := range e.stepUsers() {
		if u := e.user(ctx, name); u != nil && e.may(u, st, 4) {
			return fail(fmt.Sprintf("%s can be read by %s, and so by steps", path, name), "sudo chown root:root "+path+"\nsudo chmod 0600 "+path)
		}
	}
	return nil
}

// dataModes: the data directory holds the database with all that was sent.
func (e *exam) dataModes(ctx context.Context) (found []Check) {
	data := e.file.Server.Data
	st, err := e.stat(data)
	if err != nil {
		return nil // said with the data
	}
	if mode := st.Mode().Perm(); mode&0o027 != 0 {
		found = append(found, fail(fmt.Sprintf("%s has mode %04o: others may read the database in it, and what was sent", data, mode), "sudo chmod 0750 "+data)...)
	}
	db := filepath.Join(data, "deployhook.db")
	if st, err := e.stat(db); err == nil && st.Mode().Perm()&0o077 != 0 {
		// Who cannot enter the directory cannot read it either: its group may.
		found = append(found, warn(fmt.Sprintf("%s has mode %04o: it is for the daemon alone", db, st.Mode().Perm()), "sudo chmod 0600 "+db)...)
	}
	if u := e.user(ctx, daemonUser); u != nil && e.separate() {
		if uid, _ := e.owner(st); uid != u.uid {
			found = append(found, fail(fmt.Sprintf("%s belongs to %s: the daemon (%s) must be able to write it", data, e.name(ctx, uid), daemonUser),
				"sudo chown -R "+daemonUser+": "+data)...)
		}
	}
	return found
}
