// Package systemd tests the units that stand beside it.
package systemd

import (
	"os"
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

func TestSudoWorksInRestart(t *testing.T) {
	keys := unit(t, "deployhook.service")
	for _, k := range []string{
		"NoNewPrivileges", "SystemCallFilter", "SystemCallArchitectures", "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime",
		"RestrictSUIDSGID", "LockPersonality", "MemoryDenyWriteExecute", "ProtectClock", "ProtectHostname", "ProtectKernelLogs",
		"ProtectKernelModules", "ProtectKernelTunables", "PrivateDevices", "DynamicUser",
	} {
		if v, ok := keys[k]; ok {
			t.Errorf("%s=%s implies NoNewPrivileges: sudo in restart would refuse", k, v)
		}
	}
}

func TestUnitKeepsItsPromises(t *testing.T) {
	keys := unit(t, "deployhook.service")
	for k, want := range map[string]string{
		"Type": "notify", "NotifyAccess": "main", "WatchdogSec": "60", "User": "deployhook", "KillMode": "mixed", "Restart": "always",
		"ExecReload": "/usr/local/bin/deployhook reload --config /etc/deployhook/deploy.yaml", "TimeoutStopSec": "45", "OOMPolicy": "continue",
		"StartLimitIntervalSec": "0", "UMask": "0077", "StateDirectoryMode": "0750",
	} {
		if keys[k] != want {
			t.Errorf("%s=%s, want %s", k, keys[k], want)
		}
	}
}
