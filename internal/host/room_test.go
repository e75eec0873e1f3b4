package host_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAgentSaysItsVersionAndTheRoomOfAPath(t *testing.T) {
	c := open(t)
	if c.Version() != "test" {
		t.Errorf("version %q", c.Version())
	}
	root := filepath.Join(t.TempDir(), "shop")
	r, err := c.Room(t.Context(), root, false)
	if err != nil || r.Error != "" || r.Path != root || r.Bytes <= 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := os.Stat(root); err == nil {
		t.Error("asking made the path")
	}
	if err := os.WriteFile(root, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Room(t.Context(), root, true); err != nil || !strings.Contains(r.Error, "is not a directory") {
		t.Errorf("%+v, %v", r, err)
	}
}
