package main

import (
	"bytes"
	"strings"
	"testing"

	"deployhook/internal/web"
)

func TestRunShowsStepsByHostWhereThereAreSeveral(t *testing.T) {
	host := func(name string) web.Host {
		return web.Host{Name: name, Steps: []web.Step{{Name: "build", State: "succeeded"}, {Name: "restart", State: "failed"}}}
	}
	for name, tt := range map[string]struct {
		hosts []web.Host
		want  []string
	}{
		"several":           {[]web.Host{host("local"), host("web2")}, []string{"  on local", "  on web2"}},
		"one over SSH":      {[]web.Host{host("web2")}, []string{"  on web2"}},
		"this machine only": {[]web.Host{host("local")}, nil},
	} {
		var out bytes.Buffer
		a := &app{out: &out}
		a.show(web.Run{ID: 7, Pipeline: "shop", State: "failed", Jobs: []web.Job{{Name: "deploy", State: "failed", Hosts: tt.hosts}}}, nil)
		var got []string
		for line := range strings.Lines(out.String()) {
			if strings.HasPrefix(line, "  on ") {
				got = append(got, strings.TrimRight(line, "\n"))
			}
		}
		if strings.Join(got, ",") != strings.Join(tt.want, ",") || strings.Count(out.String(), "restart") != len(tt.hosts) {
			t.Errorf("%s: it shows\n%s", name, out.String())
		}
	}
	if got := heading(web.Line{Job: "deploy", Host: "web2", Step: "build", Attempt: 2}); got != "== job deploy on web2, attempt 2, step build" {
		t.Errorf("the heading of a log is %q", got)
	}
}
