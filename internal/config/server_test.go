package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
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
		Listen: "127.0.0.1:1", Socket: "/run/deployhook/control.sock", Agent: Agents{"spawn", "spawn"}, URL: "https://deploy.example.com", Data: "/var/lib/other",
		Workers: 3, LogLevel: "debug", LogFormat: "json", BodyMemory: 25_000_000, ShutdownGrace: 5 * time.Second,
		TrustedProxies: thisMachine,
	}
	if !reflect.DeepEqual(f.Server, want) {
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

// TestEveryServerKeyIsOverruledInOrder gives each key a value by file, variable
// and flag, takes them away one by one, and looks at what counts.
func TestEveryServerKeyIsOverruledInOrder(t *testing.T) {
	for key, v := range map[string]struct{ file, variable, flag, want, wantVariable, wantFlag string }{
		"listen":                     {"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"},
		"socket":                     {"/a/s", "/b/s", "/c/s", "/a/s", "/b/s", "/c/s"},
		"url":                        {"https://a.example", "https://b.example", "https://c.example", "https://a.example", "https://b.example", "https://c.example"},
		"data":                       {"/a", "/b", "/c", "/a", "/b", "/c"},
		"workers":                    {"7", "8", "9", "7", "8", "9"},
		"log.level":                  {"debug", "warn", "error", "debug", "warn", "error"},
		"log.format":                 {"json", "text", "json", "json", "text", "json"},
		"limits.body_memory":         {"30 MiB", "31 MiB", "32 MiB", "31457280", "32505856", "33554432"},
		"shutdown_grace":             {"1s", "2s", "3s", "1s", "2s", "3s"},
		"agent.test":                 {"/a.sock", "spawn", "/c.sock", "/a.sock", "spawn", "/c.sock"},
		"agent.deploy":               {"spawn", "/b.sock", "/c.sock", "spawn", "/b.sock", "/c.sock"},
		"database":                   {"''", "", "", "", "", ""},
		"trusted_proxies":            {"[10.0.0.5, 192.168.0.0/16]", "10.0.0.1,::1", "10.0.0.2", "10.0.0.5, 192.168.0.0/16", "10.0.0.1, ::1", "10.0.0.2"},
		"tls.certificate":            {"/a, key: /k", "/b", "/c", "/a", "/b", "/c"},
		"tls.key":                    {"/a, certificate: /c", "/b", "/c", "/a", "/b", "/c"},
		"tls.certificate.credential": {"a }, key: { credential: k", "b", "c", "a", "b", "c"},
		"tls.key.credential":         {"a }, certificate: { credential: c", "b", "c", "a", "b", "c"},
	} {
		t.Run(key, func(t *testing.T) {
			is := func(s Server) string {
				return map[string]string{
					"listen": s.Listen, "socket": s.Socket, "url": s.URL, "data": s.Data, "workers": strconv.Itoa(s.Workers),
					"log.level": s.LogLevel, "log.format": s.LogFormat, "limits.body_memory": strconv.FormatInt(s.BodyMemory, 10),
					"shutdown_grace": s.ShutdownGrace.String(), "agent.test": s.Agent.Test, "agent.deploy": s.Agent.Deploy,
					"trusted_proxies": networksText(s.TrustedProxies), "tls.certificate": s.TLS.Certificate.File, "tls.key": s.TLS.Key.File,
					"tls.certificate.credential": s.TLS.Certificate.Credential, "tls.key.credential": s.TLS.Key.Credential,
				}[key]
			}
			text := "server: { " + strings.ReplaceAll(key, ".", ": { ") + ": " + v.file + strings.Repeat(" }", strings.Count(key, ".")) + " }\n"
			check := func(what, text, want string, args ...string) {
				t.Helper()
				f, err := loaded(t, text, args...)
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if got := is(f.Server); got != want {
					t.Errorf("%s: %q counts, want %q", what, got, want)
				}
			}
			check("the default", "{}", is(parsed(t, "{}").Server))
			check("the file", text, v.want)
			for half, other := range map[string]string{"tls.certificate": "tls.key", "tls.key": "tls.certificate"} {
				if strings.HasPrefix(key, half) { // one alone is an error
					t.Setenv(variableOf(other), "/other")
				}
			}
			t.Setenv(variableOf(key), v.variable)
			check("the variable", text, v.wantVariable)
			check("the variable alone", "{}", v.wantVariable)
			check("the flag", text, v.wantFlag, "--"+flagOf(key), v.flag)
			check("the flag alone", "{}", v.wantFlag, "--"+flagOf(key)+"="+v.flag)
		})
	}
	known := 0
	for _, k := range serverKeys() {
		if !k.later {
			known++
		}
	}
	if known != 17 {
		t.Errorf("the table has %d server keys, and this test 17", known)
	}
}

func TestLaterServerKeysAreRefusedByNameWhereverTheyCome(t *testing.T) {
	n := 0
	for _, k := range serverKeys() {
		if !k.later {
			continue
		}
		n++
		t.Run(k.path, func(t *testing.T) {
			_, err := loaded(t, "{}", "--"+flagOf(k.path)+"=x")
			if want := "--" + flagOf(k.path) + ": not available in this version"; err == nil || err.Error() != want {
				t.Errorf("the flag: %v, want %s", err, want)
			}
			t.Setenv(variableOf(k.path), "x")
			_, err = loaded(t, "{}")
			if want := variableOf(k.path) + ": not available in this version"; err == nil || err.Error() != want {
				t.Errorf("the variable: %v, want %s", err, want)
			}
		})
	}
	if n < 3 {
		t.Errorf("%d later keys", n)
	}
}

func TestPathsInTheFileBeginAtItsDirectory(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "deploy.yaml")
	if err := os.WriteFile(path, []byte("server: { socket: run/control.sock, data: ./data }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	elsewhere := t.TempDir()
	t.Chdir(elsewhere)
	f, err := Load(path, nil)
	if err != nil || f.Server.Socket != filepath.Join(dir, "run/control.sock") || f.Server.Data != filepath.Join(dir, "data") {
		t.Errorf("%+v, %v", f, err)
	}
	t.Setenv("DEPLOYHOOK_SERVER_DATA", "mine")
	f, err = Load(path, nil)
	if err != nil || f.Server.Data != filepath.Join(elsewhere, "mine") {
		t.Errorf("a variable's path: %+v, %v", f, err)
	}
}

func TestVariablesThatMeanNothingAreNamed(t *testing.T) {
	t.Setenv("DEPLOYHOOK_SERVER_WORKRES", "3")
	f, err := loaded(t, smallest)
	if err != nil {
		t.Fatal(err)
	}
	want := `DEPLOYHOOK_SERVER_WORKRES: the section server has no such key; did you mean "DEPLOYHOOK_SERVER_WORKERS"?`
	if got := warningsOf(f); !slices.Contains(got, want) {
		t.Errorf("%q, want %s", got, want)
	}
}

func TestAddressesOfTheServerAreChecked(t *testing.T) {
	for text, good := range map[string]bool{
		"127.0.0.1:8484": true, "localhost:1": true, ":8484": true, "[::1]:8484": true, "0.0.0.0:80": true, "127.0.0.1:0": true, "web-1.example.com:65535": true,
		"8484": false, "localhost": false, "127.0.0.1:99999": false, "127.0.0.1:-1": false, "127.0.0.1:http": false, "127.0.0.1:": false, "unix:/x": false, "300.1.1.1:1": false,
		"127.1:80": false, "::1:80": false, "a b:80": false, "https://x:80": false, "127.0.0.1:080": false,
	} {
		if listenAddress(text) != good {
			t.Errorf("%s: good is %v", text, !good)
		}
	}
	for text, good := range map[string]bool{
		"": true, "https://deploy.example.com": true, "http://127.0.0.1:8484": true, "https://example.com/deploy/": true, "HTTPS://example.com": true,
		"deploy.example.com": false, "https://": false, "https:///x": false, "ftp://x": false, "https://a b": false, "https://x/?a=b": false, "https://x/#a": false, "https://me:pw@x": false,
	} {
		if (badURL(text) == "") != good {
			t.Errorf("%s: good is %v", text, !good)
		}
		if strings.Contains(badURL(text), "pw") {
			t.Errorf("the password is in %q", badURL(text))
		}
	}
}

func TestErrorsOfVariablesAndFlagsNameThem(t *testing.T) {
	for _, tt := range []struct{ variable, value, flag, want string }{
		{"DEPLOYHOOK_SERVER_WORKERS", "many", "", `DEPLOYHOOK_SERVER_WORKERS: a whole number from 1 to 1000 is wanted here, not "many"`},
		{"DEPLOYHOOK_SERVER_WORKERS", "0", "", `DEPLOYHOOK_SERVER_WORKERS: a whole number from 1 to 1000 is wanted here, not "0"`},
		{"DEPLOYHOOK_SERVER_SHUTDOWN_GRACE", "30", "", `DEPLOYHOOK_SERVER_SHUTDOWN_GRACE: a duration is wanted here`},
		{"DEPLOYHOOK_SERVER_DASHBOARD", ":8080", "", "DEPLOYHOOK_SERVER_DASHBOARD: not available in this version"},
		{"DEPLOYHOOK_SERVER_TRUSTED_PROXIES", "10.0.0.0/8, nginx", "", `DEPLOYHOOK_SERVER_TRUSTED_PROXIES: an address or a network is wanted here, like 10.0.0.5 or 10.0.0.0/8, not "nginx"`},
		{"", "", "--server-trusted-proxies=0.0.0.0/0", "--server-trusted-proxies: 0.0.0.0/0 is everybody"},
		{"", "", "--server-trusted-proxies=", "--server-trusted-proxies: this is empty: fill it in, or leave the flag out"},
		{"DEPLOYHOOK_SERVER_TLS_KEY", "/k", "", "DEPLOYHOOK_SERVER_TLS_KEY: a key without its certificate: server.tls.certificate is wanted too"},
		{"DEPLOYHOOK_SERVER_TLS_KEY_CREDENTIAL", "a/b", "--server-tls-certificate=/c", "DEPLOYHOOK_SERVER_TLS_KEY_CREDENTIAL: this is not the name of a credential"},
		{"", "", "--server-tls-certificate=/c", "--server-tls-certificate: a certificate without its key: server.tls.key is wanted too"},
		{"DEPLOYHOOK_SERVER_DATABASE", "postgres://localhost/x", "", "DEPLOYHOOK_SERVER_DATABASE: postgres://: not available in this version"},
		{"DEPLOYHOOK_SERVER_LOG_LEVEL", "loud", "--server-log-level=lowd", `--server-log-level: "lowd" is not one of debug, info, warn, error`},
		{"", "", "--server-listen=8484", `--server-listen: an address is wanted here, like 127.0.0.1:8484, not "8484"`},
		{"", "", "--server-limits-body-memory=x", `--server-limits-body-memory: a size is wanted here`},
		{"", "", "--server-socket=/" + strings.Repeat("x", 107), "--server-socket: the path of a socket has at most 107 bytes, this one 108"},
		{"", "", "--server-data=", "--server-data: this is empty: fill it in, or leave the flag out"},
		{"", "", "--server-socket=~/s", "--server-socket: ~ stands for no home directory here"},
		{"", "", "--server-limits-body-memory=1", "--server-limits-body-memory: at least 1 MiB is wanted here"},
		{"", "", "--server-agent-test=run/a.sock", `--server-agent-test: spawn, or the whole path of a socket like /run/deployhook-agents/test.sock, is wanted here, not "run/a.sock"`},
		{"DEPLOYHOOK_SERVER_AGENT_DEPLOY", "spwan", "", `DEPLOYHOOK_SERVER_AGENT_DEPLOY: spawn, or the whole path of a socket`},
		{"", "", "--server-agent-deploy=/" + strings.Repeat("x", 107), "--server-agent-deploy: the path of a socket has at most 107 bytes, this one 108"},
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
