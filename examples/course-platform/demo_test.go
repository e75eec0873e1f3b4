package main

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
)

// What the README shows, with all that goes wrong in it.
func TestDemo(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("go is not in PATH")
	}
	var out bytes.Buffer
	err := demo(t.Context(), &out)
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
}
