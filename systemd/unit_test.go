// Package systemd tests the units that stand beside it.
package systemd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// unit reads the keys of a unit file.
func unit(t *testing.T, name string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]string{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			keys[key] = value
		}
	}
	return keys
}

// implyNoNewPrivileges are options with which sudo refuses.
var implyNoNewPrivileges = []string{
	"NoNewPrivileges", "SystemCallFilter", "SystemCallArchitectures", "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime",
	"RestrictSUIDSGID", "LockPersonality", "MemoryDenyWriteExecute", "ProtectClock", "ProtectHostname", "ProtectKernelLogs",
	"ProtectKernelModules", "ProtectKernelTunables", "PrivateDevices", "DynamicUser",
}

func TestSudoWorksInDeployJobsAlone(t *testing.T) {
	keys := unit(t, "deployhook-agent@.service")
	for _, k := range implyNoNewPrivileges {
		if v, ok := keys[k]; ok {
			t.Errorf("%s=%s implies NoNewPrivileges: sudo in restart would refuse", k, v)
		}
	}
	for _, name := range []string{"deployhook.service", "deployhook-test@.service"} {
		if unit(t, name)["NoNewPrivileges"] != "yes" {
			t.Errorf("%s lets its processes get privileges", name)
		}
	}
}

func TestUnitsKeepTheirPromises(t *testing.T) {
	for name, promises := range map[string]map[string]string{
		"deployhook.service": {
			"Type": "notify", "NotifyAccess": "main", "WatchdogSec": "60", "User": "deployhook", "KillMode": "mixed", "Restart": "always",
			"ExecReload": "/usr/local/bin/deployhook reload --config /etc/deployhook/deploy.yaml", "TimeoutStopSec": "45",
			"StartLimitIntervalSec": "0", "UMask": "0077", "StateDirectoryMode": "0750", "ProtectSystem": "strict",
		},
		"deployhook.socket": {"ListenStream": "127.0.0.1:8484", "TriggerLimitIntervalSec": "0"},
		"deployhook-test.socket": {
			"ListenStream": "/run/deployhook-agents/test.sock", "Accept": "yes", "SocketUser": "root", "SocketGroup": "deployhook", "SocketMode": "0660",
			"TriggerLimitIntervalSec": "0", "MaxConnections": "64",
		},
		"deployhook-agent.socket": {
			"ListenStream": "/run/deployhook-agents/deploy.sock", "Accept": "yes", "SocketUser": "root", "SocketGroup": "deployhook", "SocketMode": "0660",
			"TriggerLimitIntervalSec": "0", "MaxConnections": "64",
		},
		"deployhook-test@.service": {
			"User": "deployhook-test", "StandardInput": "socket", "StandardOutput": "journal", "StandardError": "journal", "KillMode": "control-group",
			"TimeoutStopSec": "10", "CollectMode": "inactive-or-failed", "OOMPolicy": "continue", "Delegate": "cpu memory pids",
		},
		"deployhook-agent@.service": {
			"User": "deploy", "StandardInput": "socket", "StandardOutput": "journal", "StandardError": "journal", "KillMode": "control-group",
			"TimeoutStopSec": "10", "CollectMode": "inactive-or-failed", "OOMPolicy": "continue", "Delegate": "cpu memory pids",
		},
	} {
		keys := unit(t, name)
		for k, want := range promises {
			if keys[k] != want {
				t.Errorf("%s: %s=%s, want %s", name, k, keys[k], want)
			}
		}
	}
}

// Every option is explained: a comment stands before it, or before those that
// it stands together with.
func TestEveryLineOfTheUnitsIsExplained(t *testing.T) {
	names, err := filepath.Glob("deployhook*.s*")
	if err != nil || len(names) < 7 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(b), "# ") {
			t.Errorf("%s does not begin with what it is for", name)
		}
		comments, options := strings.Count(string(b), "\n#"), strings.Count(string(b), "=")
		if 3*comments < options {
			t.Errorf("%s has %d lines of comment for %d options", name, comments, options)
		}
	}
}
