package pipeline

import (
	"errors"
	"log/slog"
	"maps"
	"testing"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
)

func partsOn(names ...string) []*jobPart {
	j := &job{log: slog.New(slog.DiscardHandler), spec: &deploy.Job{Hosts: names, Release: &deploy.ReleaseSpec{Path: "/srv/shop"}}}
	j.split()
	return j.parts
}

func TestOutcomeOfAJobIsTheWorstOfItsHosts(t *testing.T) {
	ok, queued := outcome{state: deploy.Succeeded}, outcome{state: deploy.Queued}
	fail := func(text string) outcome { return outcome{state: deploy.Failed, err: text} }
	block := func(host string) outcome {
		return outcome{state: deploy.Lost, err: "cut; look at web1 and web2", blocked: map[string]string{"path " + host + ":/srv/shop": "cut"}}
	}
	parts := partsOn("web1", "web2", "web3", "web4")
	for name, tt := range map[string]struct {
		outs []outcome
		want outcome
	}{
		"all succeeded":          {[]outcome{ok, ok}, ok},
		"one failed":             {[]outcome{ok, fail("step a: exit status 1")}, fail("web2: step a: exit status 1")},
		"its host is named":      {[]outcome{fail("web1: it is down"), ok}, fail("web1: it is down")},
		"failed beside stopped":  {[]outcome{queued, fail("x")}, fail("web2: x")},
		"stopped":                {[]outcome{ok, queued}, queued},
		"canceled":               {[]outcome{ok, {state: deploy.Canceled, cause: "by alice"}}, outcome{state: deploy.Canceled, cause: "by alice"}},
		"more than a line holds": {[]outcome{fail("x"), fail("x"), fail("x"), fail("x")}, fail("web1: x; web2: x; web3: x; and 1 more")},
		"blocked on two": {[]outcome{block("web1"), block("web2"), fail("x")}, outcome{
			state: deploy.Lost, err: "cut; look at web1 and web2", blocked: map[string]string{"path web1:/srv/shop": "cut", "path web2:/srv/shop": "cut"},
		}},
	} {
		got := worst(parts, tt.outs)
		if got.state != tt.want.state || got.err != tt.want.err || got.cause != tt.want.cause || !maps.Equal(got.blocked, tt.want.blocked) {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
	if got := worst(partsOn(deploy.Local), []outcome{fail("step a: exit status 1")}); got.err != "step a: exit status 1" {
		t.Errorf("of this machine alone: %q", got.err)
	}
}

func TestErrorsOfHostsStayWhatTheyAre(t *testing.T) {
	err := eachOf(partsOn("web1", "web2"), func(p *jobPart) error {
		if p.host == "web2" {
			return host.ErrExists
		}
		return errors.New("no space left")
	})
	if !errors.Is(err, host.ErrExists) || err.Error() != "web1: no space left; web2: "+host.ErrExists.Error() {
		t.Errorf("the error is %v", err)
	}
	if err := eachOf(partsOn("web1", "web2"), func(*jobPart) error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestRollbackTargetIsOneForAllHosts(t *testing.T) {
	const a, b, c = "20260401T101500Z-aaaaaaa", "20260401T101600Z-bbbbbbb", "20260401T101700Z-ccccccc"
	found := func(current string, live ...string) *deploy.Found {
		f := &deploy.Found{Current: "releases/" + current}
		for _, id := range live {
			f.Lines = append(f.Lines, deploy.ReleaseLine{Release: id, State: deploy.ReleaseLive, Commit: "3f2c1ab8a0e1b2c3d4e5f60718293a4b5c6d7e8f"})
		}
		return f
	}
	spec := &deploy.Job{Hosts: []string{"web1", "web2"}, Release: &deploy.ReleaseSpec{Path: "/srv/shop"}}
	for name, tt := range map[string]struct {
		all    []*deploy.Found
		to     string
		target string
		pops   bool
		err    string
	}{
		"the same below the top": {[]*deploy.Found{found(b, a, b), found(b, a, b)}, "", a, true, ""},
		"one has none":           {[]*deploy.Found{found(b, a, b), found(b, b)}, "", "", false, "host web2: refused: shop has no earlier release that was live"},
		"they differ":            {[]*deploy.Found{found(c, a, b, c), found(c, a, c)}, "", "", false, "refused: the hosts differ: web1 would go to " + b + ", and web2 to " + a + "; say which one with --to"},
		"named":                  {[]*deploy.Found{found(c, a, b, c), found(c, a, c)}, a, a, false, ""},
		"named, one lacks it":    {[]*deploy.Found{found(c, a, b, c), found(c, a, c)}, b, "", false, "host web2: not found: release " + b + "; deployhook releases shop lists those that were live"},
		"current on one":         {[]*deploy.Found{found(a, a, b), found(b, a, b)}, a, a, false, ""},
		"current on the other":   {[]*deploy.Found{found(b, a, b), found(a, a, b)}, a, a, false, ""},
		"current on all":         {[]*deploy.Found{found(a, a, b), found(a, a, b)}, a, "", false, "host web1: refused: release " + a + " is current already"},
	} {
		target, pops, f, err := rollbackTargets(spec, tt.all, "shop", tt.to)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if target != tt.target || pops != tt.pops || text != tt.err || (f == nil) != (err != nil) {
			t.Errorf("%s: %q, %t, %q; want %q, %t, %q", name, target, pops, text, tt.target, tt.pops, tt.err)
		}
	}
}

func TestErrorsInOneSentenceStandThereOnce(t *testing.T) {
	down := errors.New("web2: it refuses the connection") // two jobs release there
	err := both(nil, down, errors.New("web3: it is full"), errors.New(down.Error()))
	if want := "web2: it refuses the connection; web3: it is full"; err == nil || err.Error() != want || !errors.Is(err, down) {
		t.Errorf("%v, want %q", err, want)
	}
	if err := both(nil, nil); err != nil {
		t.Errorf("of no errors: %v", err)
	}
}
