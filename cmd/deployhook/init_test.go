package main

import (
	"bytes"
	"strings"
	"testing"

	"deployhook/internal/setup"
)

func TestInitAsksForWhatNoFlagSays(t *testing.T) {
	for _, tt := range []struct {
		given setup.Answers
		typed string
		want  setup.Answers
		asked string // a question that must be there
		never string // one that must not
	}{
		{
			typed: "\ngithub.com/acme/shop\n\n\n\nnpm test\n\nsudo systemctl restart shop\n\n",
			want:  setup.Answers{Repository: "github.com/acme/shop", Branch: "main", Path: "/srv/shop", Test: "npm test", Restart: "sudo systemctl restart shop"},
			asked: "Where releases go [/srv/shop]: ",
		},
		{
			given: setup.Answers{Branch: "release", Test: "make check"},
			typed: "git@github.com:acme/site.git\nno\n/var/www/site\n\n\nhttps://deploy.example.com\n",
			want:  setup.Answers{Repository: "git@github.com:acme/site.git", Public: true, Branch: "release", Path: "/var/www/site", Test: "make check", URL: "https://deploy.example.com"},
			asked: "like sudo systemctl restart site", never: "Branch",
		},
	} {
		var out bytes.Buffer
		a := &app{err: &out}
		got := tt.given
		if err := a.ask(strings.NewReader(tt.typed), &got); err != nil || got != tt.want {
			t.Errorf("typed %q: %+v, %v; want %+v", tt.typed, got, err, tt.want)
		}
		if !strings.Contains(out.String(), tt.asked) || tt.never != "" && strings.Contains(out.String(), tt.never) {
			t.Errorf("asked\n%s", out.String())
		}
	}
	a := &app{err: &bytes.Buffer{}}
	var none setup.Answers
	if err := a.ask(strings.NewReader("github.com/acme/shop\n"), &none); err == nil || err.Error() != "no answer: nothing was changed" {
		t.Errorf("an end of the answers: %v", err)
	}
}
