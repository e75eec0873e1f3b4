package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
)

// reloadIt and restartIt make the daemon take what has changed.
const (
	reloadIt  = "sudo systemctl reload deployhook"
	restartIt = "sudo systemctl restart deployhook"
)

// checkConfig reads deploy.yaml as check does, and looks whether it is the one
// in force.
func (e *exam) checkConfig(ctx context.Context) (found []Check) {
	if e.file == nil {
		return e.badConfig()
	}
	fix := "deployhook check " + e.Config
	errs, warnings := config.CheckTLS(ctx, e.file, e.now())
	for _, p := range errs {
		if p.Unread && !e.root() {
			found = append(found, warn(p.String(), asRoot)...)
			continue
		}
		found = append(found, fail(p.String(), fix)...)
	}
	if inside, is := strings.CutPrefix(e.file.Path, e.Root); is {
		if why, fix := e.shut(ctx, inside, 4); why != "" {
			if strings.HasPrefix(why, "it ") { // the file itself, which is no secret
				fix = "sudo chmod 0644 " + e.Config
			}
			found = append(found, fail(e.Config+": "+why, fix)...)
		}
	}
	for _, p := range append(warnings, e.file.Warnings...) {
		found = append(found, warn(p.String(), "")...)
	}
	if d, err := e.daemon(); err == nil && d.Digest != e.file.Deploy.Digest {
		if same(d.Config, e.file.Path) {
			found = append(found, warn(e.Config+" has changed since the daemon read it: what it says does not count yet", reloadIt)...)
		} else {
			found = append(found, warn("the daemon runs with another file, "+d.Config, "deployhook doctor --config "+d.Config)...)
		}
	}
	return unlessAny(found, "%s is good: %s, %s", e.Config, counted(len(e.file.Deploy.Pipelines), "pipeline"), counted(len(e.file.Deploy.Hooks), "hook"))
}

func (e *exam) badConfig() (found []Check) {
	var problems config.Problems
	if !errors.As(e.fileErr, &problems) {
		if f, err := os.Open(e.Config); errors.Is(err, fs.ErrPermission) {
			return warn(e.fileErr.Error(), asRoot)
		} else if err == nil {
			f.Close()
		}
		return fail(e.fileErr.Error(), "sudo deployhook init")
	}
	for _, p := range problems {
		found = append(found, fail(p.String(), "deployhook check "+e.Config)...)
	}
	return found
}

// same says whether two names are of one file.
func same(a, b string) bool {
	sa, erra := os.Stat(a)
	sb, errb := os.Stat(b)
	return a == b || erra == nil && errb == nil && os.SameFile(sa, sb)
}

// checkSecrets reads every secret, and looks whether the daemon gets its
// credentials, and has got them as they are now.
func (e *exam) checkSecrets(ctx context.Context) (found []Check) {
	if e.file == nil {
		return e.needsConfig()
	}
	secrets := e.file.Secrets()
	if who := e.commandsAreUnsafe(ctx); who != "" {
		return fail("not read: deploy.yaml can be changed by "+who+", and names commands that would run as root now", "")
	}
	errs, warnings := config.CheckSecrets(ctx, e.file)
	for _, p := range errs {
		switch {
		case !p.Unread:
			found = append(found, fail(p.String(), "deployhook check "+e.Config)...)
		case strings.Contains(p.Message, "LoadCredential="): // looked at below
		case !e.root():
			found = append(found, warn(p.String()+"; the daemon may be able to", asRoot)...)
		default:
			found = append(found, warn(p.String()+"; only the daemon may have it", "")...)
		}
	}
	for _, p := range warnings {
		if !strings.Contains(p.Message, "LoadCredential=") {
			found = append(found, warn(p.String(), "")...)
		}
	}
	hidden := 0
	for _, s := range secrets {
		if s.Command != "" {
			continue
		}
		if s.File != "" {
			if why, fix := e.shut(ctx, s.File, 4); why != "" {
				found = append(found, fail(s.Name+": "+s.File+": "+why, fix)...)
			}
		}
		if _, err := e.file.Look(ctx, s); errors.Is(err, config.ErrUnknown) {
			hidden++
		}
	}
	if hidden > 0 {
		found = append(found, warn(counted(hidden, "secret")+" cannot be read by this user", asRoot)...)
	}
	found = append(found, e.credentials(ctx, secrets)...)
	return unlessAny(found, "%s, readable and long enough", counted(len(secrets), "secret"))
}

// commandsAreUnsafe says who could make root run something by way of a
// secret's command; empty: nobody.
func (e *exam) commandsAreUnsafe(ctx context.Context) string {
	if !e.root() {
		return ""
	}
	for _, s := range e.file.Secrets() {
		if s.Command != "" {
			who, _ := e.writers(ctx, e.Config)
			return who
		}
	}
	return ""
}

// credentials looks at what systemd gives to the daemon.
func (e *exam) credentials(ctx context.Context, secrets []deploy.Secret) (found []Check) {
	var names []string
	for _, s := range secrets {
		if s.Credential != "" {
			names = append(names, s.Credential)
		}
	}
	if len(names) == 0 {
		return nil
	}
	if !e.systemd() {
		return warn("credentials come from systemd, which does not run here", "")
	}
	text, code, err := e.Command(ctx, "systemctl", "cat", "deployhook.service")
	if err != nil || code != 0 {
		return warn("deployhook.service is not there, which gives the daemon its credentials", "")
	}
	loaded := loadedCredentials(text)
	d, derr := e.daemon()
	for _, name := range names {
		path, ok := loaded[name]
		file := config.CredentialFile(e.Config, name)
		if !ok {
			found = append(found, fail("credential "+name+": deployhook.service has no LoadCredential="+name+":"+file+", so the daemon does not get it",
				"printf '[Service]\\nLoadCredential="+name+":"+file+"\\n' | sudo install -D -m 0644 /dev/stdin /etc/systemd/system/deployhook.service.d/"+name+".conf\n"+
					"sudo systemctl daemon-reload\n"+restartIt)...)
			continue
		}
		if path == "" { // not a file
			continue
		}
		st, err := e.stat(path)
		switch {
		case errors.Is(err, fs.ErrPermission):
		case err != nil:
			found = append(found, fail("credential "+name+": "+path+" is not there, and deployhook.service does not start without it",
				"sudo install -m 0600 /dev/stdin "+path+"   # then paste it, and ctrl-D")...)
		case derr == nil && e.renewed(name, path, st, d):
			found = append(found, warn("credential "+name+": "+path+" is newer than what the daemon was started with", restartIt)...)
		}
	}
	return found
}

// renewed says whether a credential has changed since the daemon got its copy:
// by content where both can be read, else by time.
func (e *exam) renewed(name, path string, st fs.FileInfo, d deploy.DaemonReport) bool {
	now, err1 := os.ReadFile(e.path(path))
	then, err2 := os.ReadFile(e.path(filepath.Join("/run/credentials/deployhook.service", name)))
	if err1 == nil && err2 == nil {
		return string(now) != string(then)
	}
	return st.ModTime().After(d.Started)
}

// loadedCredentials reads where a unit's credentials come from, by name; those
// that are no files have no path. The text is that of systemctl cat.
func loadedCredentials(text string) map[string]string {
	loaded := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.TrimSpace(value)
		if !ok {
			continue
		}
		switch strings.TrimSpace(key) {
		case "LoadCredential":
			if value == "" { // takes back what stands before
				clear(loaded)
				continue
			}
			name, path, _ := strings.Cut(value, ":")
			if !filepath.IsAbs(path) {
				path = ""
			}
			loaded[name] = path
		case "LoadCredentialEncrypted", "SetCredential", "SetCredentialEncrypted":
			name, _, _ := strings.Cut(value, ":")
			loaded[name] = ""
		}
	}
	return loaded
}
