package config

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
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

// Resolve reads a secret's value now, without the newline at its end. Its
// errors name the secret and its source, never the value.
func Resolve(ctx context.Context, s deploy.Secret) (string, error) {
	var b []byte
	var err error
	switch {
	case s.Environment != "":
		v, ok := os.LookupEnv(s.Environment)
		if !ok {
			return "", fmt.Errorf("secret %s: the daemon has no variable %s", s.Name, s.Environment)
		}
		b = []byte(v)
	case s.File != "":
		b, err = readSecret(s.File)
	case s.Credential != "":
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return "", fmt.Errorf("secret %s: there are no systemd credentials here: the unit needs LoadCredential=%s:PATH", s.Name, s.Credential)
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

func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is not there", path)
		}
		return nil, fmt.Errorf("reading %s: %w", path, errors.Unwrap(err))
	}
	defer f.Close()
	return bounded(f)
}

func bounded(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, secretMost+1))
	if err == nil && len(b) > secretMost {
		err = fmt.Errorf("it is over %d KiB", secretMost>>10)
	}
	return b, err
}

func runSecret(ctx context.Context, command string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, secretTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b, rerr := bounded(out)
	if rerr != nil {
		cancel()
	}
	err = cmd.Wait()
	switch {
	case rerr != nil:
		return nil, rerr
	case ctx.Err() != nil:
		return nil, fmt.Errorf("its command did not end within %v", secretTime)
	case err != nil:
		return nil, fmt.Errorf("its command failed: %w", err)
	}
	return b, nil
}

// CheckSecrets reads the secrets of a file. A hook must not start with a
// secret that is empty, short or unreadable: that is an error; what else is
// worth a word is a warning.
func CheckSecrets(ctx context.Context, f *File) (errs, warnings Problems) {
	problem := func(path, format string, args ...any) Problem {
		return Problem{File: base(f.Path), Path: path, Message: fmt.Sprintf(format, args...)}
	}
	for _, h := range f.Deploy.Hooks {
		for what, s := range map[string]*deploy.Secret{"secret": h.Secret, "token": h.Token} {
			if s == nil {
				continue
			}
			path := "hooks." + h.Name + "." + what
			v, err := Resolve(ctx, *s)
			if err != nil {
				errs = append(errs, problem(path, "%v", err))
			} else if n := len([]rune(v)); n < secretLeast {
				errs = append(errs, problem(path, "it has %d characters, and 16 are the least: make one with openssl rand -hex 32", n))
			}
		}
	}
	for _, s := range f.Deploy.Secrets {
		v, err := Resolve(ctx, s)
		if err != nil {
			warnings = append(warnings, problem("secrets."+s.Name, "%v", err))
		} else if len(v) < maskLeast {
			warnings = append(warnings, problem("secrets."+s.Name, "it has %d bytes; values under %d are not masked in logs", len(v), maskLeast))
		}
	}
	return errs, warnings
}
