package config

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"deployhook/internal/deploy"
)

// Bounds of reading a secret.
const (
	secretMost  = 64 << 10 // bytes
	secretTime  = 10 * time.Second
	secretLeast = 16 // characters of a hook's secret or token
	maskLeast   = 6  // bytes from which a value is masked in logs
)

// notHereError is about what another user or service may well be able to read.
type notHereError struct{ error }

// Resolve reads a secret's value now, without the newline at its end. Its
// errors name the secret and its source, never the value.
func Resolve(ctx context.Context, s deploy.Secret) (string, error) {
	var b []byte
	var err error
	switch {
	case s.Environment != "":
		v, ok := os.LookupEnv(s.Environment)
		if !ok {
			return "", notHereError{fmt.Errorf("secret %s: there is no variable %s", s.Name, s.Environment)}
		}
		b = []byte(v)
	case s.File != "":
		b, err = readSecret(s.File)
	case s.Credential != "":
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return "", notHereError{fmt.Errorf("secret %s: there are no systemd credentials here: the unit needs LoadCredential=%s:PATH", s.Name, s.Credential)}
		}
		if strings.ContainsRune(s.Credential, '/') {
			return "", fmt.Errorf("secret %s: %q is not the name of a credential", s.Name, s.Credential)
		}
		b, err = readSecret(filepath.Join(dir, s.Credential))
	case s.Command != "":
		b, err = runSecret(ctx, s.Command)
	default:
		return "", fmt.Errorf("secret %s has no source", s.Name)
	}
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", s.Name, err)
	}
	v := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if v == "" {
		return "", fmt.Errorf("secret %s is empty", s.Name)
	}
	if strings.IndexByte(v, 0) >= 0 {
		return "", fmt.Errorf("secret %s has a NUL byte", s.Name)
	}
	return v, nil
}

// readSecret reads a regular file. Without O_NONBLOCK opening a named pipe
// would wait for a writer, perhaps for ever.
func readSecret(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not there", path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, errors.Unwrap(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, secretMost+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, errors.Unwrap(err))
	}
	if len(b) > secretMost {
		return nil, errTooLong
	}
	return b, nil
}

var errTooLong = fmt.Errorf("it is over %d KiB", secretMost>>10)

// output keeps what a command prints. The buffer is not embedded: it has a
// ReadFrom, which would go around the bound.
type output struct {
	buf  bytes.Buffer
	over bool
	full func() // called at the bound: the command would write on for ever
}

func (o *output) Write(p []byte) (int, error) {
	if o.buf.Len()+len(p) > secretMost {
		o.over = true
		o.full()
		return 0, errTooLong
	}
	return o.buf.Write(p)
}

// runSecret gives what a command prints. What it prints beside, on standard
// error, may hold the value: nobody sees it.
func runSecret(ctx context.Context, command string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, secretTime)
	defer cancel()
	out := output{full: cancel}
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Stdout = &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// A child in the background may keep standard output open.
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case out.over:
		return nil, errTooLong
	case ctx.Err() != nil:
		return nil, fmt.Errorf("its command did not end within %v", secretTime)
	case err != nil && !errors.Is(err, exec.ErrWaitDelay): // what it left in the background does not count
		return nil, fmt.Errorf("its command failed: %w", err)
	}
	return out.buf.Bytes(), nil
}

// CheckSecrets reads the secrets of a file. A hook must not start with a
// secret that is empty, short or unreadable, or with a published list of
// networks that is not here: that is an error; what else is worth a word is a
// warning. Commands are run for hooks alone.
func CheckSecrets(ctx context.Context, f *File) (errs, warnings Problems) {
	problem := f.problem
	seen := map[deploy.Secret]bool{}
	for _, h := range f.Deploy.Hooks {
		for _, k := range []struct {
			name    string
			secrets []deploy.Secret
		}{{"secret", h.Secrets}, {"token", h.Tokens}} {
			for i, s := range k.secrets {
				seen[s] = true
				v, err := f.Look(ctx, s)
				if errors.Is(err, ErrUnknown) {
					continue
				}
				p := problem(f.hookSecret(&h, k.name, i), "")
				if err != nil {
					p.Message = reason(s, err)
					p.Unread = errors.As(err, new(notHereError)) || errors.Is(err, fs.ErrPermission)
				} else if p.Message = unfit(&h, k.name, v); p.Message == "" {
					continue
				}
				errs = append(errs, p)
			}
		}
	}
	errs = append(errs, f.rangesMissing()...)
	for _, s := range secretsOf(f.Deploy) {
		if seen[s] || s.Command != "" {
			continue
		}
		seen[s] = true
		path := s.Name
		if !strings.Contains(path, ".") { // else it stands where it is used
			path = "secrets." + path
		}
		v, err := f.Look(ctx, s)
		if errors.Is(err, ErrUnknown) {
			continue
		}
		if err != nil {
			warnings = append(warnings, problem(path, "%s", reason(s, err)))
		} else if len(v) < maskLeast {
			warnings = append(warnings, problem(path, "it has %s; values under %d bytes are not masked in logs", counted(len(v), "byte"), maskLeast))
		}
	}
	return errs, warnings
}

// CredentialFile is where the file of a credential is kept: beside deploy.yaml,
// for root alone.
func CredentialFile(config, name string) string {
	return filepath.Join(filepath.Dir(config), "credentials", name)
}

// ErrUnknown is about a secret that the daemon alone can read.
var ErrUnknown = errors.New("only the daemon can read it")

// Look is [Resolve] for a check. Credentials are given to the daemon's process
// alone: elsewhere the file is read that they come from, if it may be; if not,
// the error is [ErrUnknown].
func (f *File) Look(ctx context.Context, s deploy.Secret) (string, error) {
	if s.Credential == "" || os.Getenv("CREDENTIALS_DIRECTORY") != "" {
		return Resolve(ctx, s)
	}
	file := CredentialFile(f.Path, s.Credential)
	switch _, err := os.Stat(file); {
	case errors.Is(err, fs.ErrPermission):
		return "", ErrUnknown
	case err != nil:
		return Resolve(ctx, s)
	}
	name := s.Name
	v, err := Resolve(ctx, deploy.Secret{Name: name, File: file})
	if errors.Is(err, fs.ErrPermission) {
		err = ErrUnknown
	}
	return v, err
}

// reason is an error of Resolve without the name, which its place has.
func reason(s deploy.Secret, err error) string {
	text := strings.TrimPrefix(err.Error(), "secret "+s.Name)
	if rest, ok := strings.CutPrefix(text, ": "); ok {
		return rest
	}
	return "it" + text // is empty, has a NUL byte
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Secrets are all secrets of a file, each once: those of hooks first, then of
// the section secrets, and where they stand inline.
func (f *File) Secrets() []deploy.Secret {
	var all []deploy.Secret
	for _, h := range f.Deploy.Hooks {
		all = slices.Concat(all, h.Secrets, h.Tokens)
	}
	if f.Server.TLS.On() {
		all = append(all, f.Server.TLS.Certificate, f.Server.TLS.Key)
	}
	var list []deploy.Secret
	for _, s := range append(all, secretsOf(f.Deploy)...) {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// secretsOf are the secrets of a config beside those of its hooks: of the
// section secrets, and where they stand inline.
func secretsOf(cfg *deploy.Config) []deploy.Secret {
	list := slices.Clone(cfg.Secrets)
	for _, h := range cfg.Hosts {
		if h.Identity != nil {
			list = append(list, *h.Identity)
		}
	}
	for _, p := range cfg.Pipelines {
		for _, s := range []*deploy.Secret{p.Auth.SSHKey, p.Auth.Token} {
			if s != nil {
				list = append(list, *s)
			}
		}
		for _, j := range p.Jobs {
			for _, v := range j.Secrets {
				list = append(list, v.Secret)
			}
		}
	}
	return list
}
