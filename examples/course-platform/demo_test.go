package main

import (
	"bytes"
	"testing"
)

// What the README shows, with all that goes wrong in it.
func TestDemo(t *testing.T) {
	var out bytes.Buffer
	err := demo(t.Context(), &out)
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
}
