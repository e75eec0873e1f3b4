package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// loaded reads a file with variables and flags over it.
func loaded(t *testing.T, text string, args ...string) (*File, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "deploy.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	RegisterFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return Load(path, flags)
}

func TestFlagCountsOverVariableOverFileOverDefault(t *testing.T) {
	const file = "server: { listen: 127.0.0.1:1, workers: 2, log: { level: warn, format: json }, limits: { body_memory: 32 MiB }, shutdown-grace: 5s }\n"
	t.Setenv("DEPLOYHOOK_SERVER_WORKERS", "3")
	t.Setenv("DEPLOYHOOK_SERVER_LOG_LEVEL", "error")
	t.Setenv("DEPLOYHOOK_SERVER_LOG_FORMAT", "") // counts as none
	t.Setenv("DEPLOYHOOK_SERVER_LIMITS_BODY_MEMORY", "1 GiB")
	t.Setenv("DEPLOYHOOK_SERVER_DATA", "/var/lib/other") // a key that the file does not have
	f, err := loaded(t, file, "--server-log-level=debug", "--server-limits-body-memory", "25MB", "--server-url", "https://deploy.example.com")
	if err != nil {
		t.Fatal(err)
	}
	want := Server{
		Listen: "127.0.0.1:1", Socket: "/run/deployhook/control.sock", URL: "https://deploy.example.com", Data: "/var/lib/other",
		Workers: 3, LogLevel: "debug", LogFormat: "json", BodyMemory: 25_000_000, ShutdownGrace: 5 * time.Second,
	}
	if f.Server != want {
		t.Errorf("got  %+v\nwant %+v", f.Server, want)
	}
	// A stored file is read as it was written, whatever the daemon's variables are.
	if f := parsed(t, file); f.Server.Workers != 2 || f.Server.Data != "/var/lib/deployhook" {
		t.Errorf("Parse takes variables: %+v", f.Server)
	}
}

func TestEveryServerKeyHasItsVariableAndFlag(t *testing.T) {
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	RegisterFlags(flags)
	n := 0
	for _, k := range serverKeys() {
		if k.later {
			continue
		}
		n++
		if flags.Lookup(flagOf(k.path)) == nil {
			t.Errorf("server.%s has no flag", k.path)
		}
		t.Run(k.path, func(t *testing.T) {
			t.Setenv(variableOf(k.path), "?")
			_, err := loaded(t, "{}")
			if k.path == "data" || k.path == "socket" {
				t.Setenv(variableOf(k.path), "~/x") // most other texts are paths
				_, err = loaded(t, "{}")
			}
			if err == nil || !strings.Contains(err.Error(), variableOf(k.path)+": ") {
				t.Errorf("%s=? is not refused by its name: %v", variableOf(k.path), err)
			}
		})
	}
	if n < 12 {
		t.Errorf("%d keys", n)
	}
}

func TestErrorsOfVariablesAndFlagsNameThem(t *testing.T) {
	for _, tt := range []struct{ variable, value, flag, want string }{
		{"DEPLOYHOOK_SERVER_WORKERS", "many", "", `DEPLOYHOOK_SERVER_WORKERS: a whole number from 1 to 1000 is wanted here, not "many"`},
		{"DEPLOYHOOK_SERVER_WORKERS", "0", "", `DEPLOYHOOK_SERVER_WORKERS: a whole number from 1 to 1000 is wanted here, not "0"`},
		{"DEPLOYHOOK_SERVER_SHUTDOWN_GRACE", "30", "", `DEPLOYHOOK_SERVER_SHUTDOWN_GRACE: a duration is wanted here`},
		{"DEPLOYHOOK_SERVER_DASHBOARD", ":8080", "", "DEPLOYHOOK_SERVER_DASHBOARD: not available in this version"},
		{"DEPLOYHOOK_SERVER_TRUSTED_PROXIES", "10.0.0.0/8", "", "DEPLOYHOOK_SERVER_TRUSTED_PROXIES: not available in this version"},
		{"DEPLOYHOOK_SERVER_DATABASE", "postgres://localhost/x", "", "DEPLOYHOOK_SERVER_DATABASE: postgres://: not available in this version"},
		{"DEPLOYHOOK_SERVER_LOG_LEVEL", "loud", "--server-log-level=lowd", `--server-log-level: "lowd" is not one of debug, info, warn, error`},
		{"", "", "--server-listen=8484", `--server-listen: an address is wanted here, like 127.0.0.1:8484, not "8484"`},
		{"", "", "--server-limits-body-memory=x", `--server-limits-body-memory: a size is wanted here`},
		{"", "", "--server-socket=/" + strings.Repeat("x", 107), "--server-socket: the path of a socket has at most 107 bytes, this one 108"},
		{"", "", "--server-url=deploy.example.com", "--server-url: an address is wanted here"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			if tt.variable != "" {
				t.Setenv(tt.variable, tt.value)
			}
			var args []string
			if tt.flag != "" {
				args = []string{tt.flag}
			}
			_, err := loaded(t, smallest, args...)
			var p Problems
			if !errors.As(err, &p) || len(p) != 1 || !strings.HasPrefix(p[0].String(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestFileAndVariablesAreWrongAtOnce(t *testing.T) {
	t.Setenv("DEPLOYHOOK_SERVER_WORKERS", "x")
	_, err := loaded(t, "hoks: 1\nserver: { url: x }\n")
	var p Problems
	if !errors.As(err, &p) || len(p) != 3 {
		t.Errorf("got %v, want three problems", err)
	}
}

func TestSmallMachinesHaveOneWorker(t *testing.T) {
	for memory, want := range map[uint64]int{512 << 20: 1, 999_999_999: 1, 1_000_000_000: 4, 32 << 30: 4, 0: 4} {
		if got := defaultWorkers(memory); got != want {
			t.Errorf("%d bytes of memory: %d workers, want %d", memory, got, want)
		}
	}
	if memory() < 1<<20 {
		t.Errorf("this machine has %d bytes of memory", memory())
	}
}
