package daemon_test

import (
	"strings"
	"testing"

	"deployhook/internal/web"
)

func TestReleaseIsPreparedOnAllHostsAndThenSwitchedOneAfterTheOther(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	f.start(f.config(""))
	r := f.want(f.push("one"), "succeeded")
	f.everywhere("one")
	var last web.Step
	for i, h := range r.Jobs[0].Hosts {
		if h.Name != f.hosts[i].Name || len(h.Steps) != 2 || h.Steps[1].Name != "restart" {
			t.Fatalf("the hosts of the job are %+v", r.Jobs[0].Hosts)
		}
		restart := h.Steps[1]
		for _, o := range r.Jobs[0].Hosts {
			if restart.Started.Before(*o.Steps[0].Ended) {
				t.Errorf("%s was restarted before %s was prepared", h.Name, o.Name)
			}
		}
		if i > 0 && restart.Started.Before(*last.Ended) {
			t.Errorf("%s was restarted beside the one before it", h.Name)
		}
		last = restart
	}
	list, err := f.client.Releases(t.Context(), "shop")
	if err != nil || len(list) != 3 || list[0].ID != list[1].ID || list[1].ID != list[2].ID {
		t.Errorf("the releases are %+v, %v", list, err)
	}
	if text := f.logOf(r.ID); strings.Contains(text, "warning") {
		t.Errorf("the log is\n%s", text)
	}
}
