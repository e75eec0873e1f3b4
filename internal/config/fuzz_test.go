package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func FuzzParse(f *testing.F) {
	b, err := os.ReadFile(filepath.Join(top, "deploy.yaml.example"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for _, text := range []string{
		smallest, everyKind, "", "a", "- a", "{}", "a: &a [*a]", "x-a: &a { b: &b [1] }\nx-b: [*a, *b]\nx-c: { <<: *a }", "\ta: 1", "? a", "a: !!str", "a: !x", "&a", "*a", "<<: 1", "a: |\n", "a: >-\n x", "---\n---\n", "%", "a: 'b", "{", "[", "]", "a:\n- b\n-", "a: \"\\", ": ", "a: b: c", "a: 1\r\nb: 2",
		hooksPart, pipelineText("on: push\n"), jobText("release: { path: /srv/shop, shared: { dirs: [a] } }\n"), pipelineText("repository: github.com/a/b\ncache: [a, a/b, ../c, ~/d]\n"), farHost("address: '[::1]:22', user: a@b, host_key: ssh-rsa AAAA, jump: web1, labels: [a]"), farText("a: { jump: b, identity_file: x }\nb: { jump: a, known_hosts: '@revoked * ssh-dss A', keepalive: 1h }\n", "hosts: [a, b, local]\n"), stepText("run: x\nretry: { limit: 1 }\nif: failure()\nenv: { A: '${{ branch }}' }\n"),
	} {
		f.Add([]byte(text))
	}
	for _, bad := range unreadable() {
		if len(bad.text) < 4<<10 {
			f.Add([]byte(bad.text))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := Parse("deploy.yaml", text)
		if err == nil {
			if file.Deploy == nil || file.Deploy.Text != string(text) {
				t.Fatal("a good file gives no config")
			}
			Describe(discard{}, file)
			return
		}
		var p Problems
		if !errors.As(err, &p) || len(p) == 0 {
			t.Fatalf("the error is a %T: %v", err, err)
		}
		for _, x := range p {
			if s := x.String(); x.Message == "" || strings.ContainsAny(s, "\n\r\x1b") || !strings.HasPrefix(s, "deploy.yaml:") {
				t.Errorf("%q is no sentence with its place", s)
			}
		}
	})
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
