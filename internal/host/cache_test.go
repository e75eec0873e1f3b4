package host

import (
	"errors"
	"strings"
	"testing"
	"time"

	"deployhook/internal/agent/wire"
	"deployhook/internal/deploy"
)

func TestWhatAnAgentSaysOfCachesIsNotBelievedBlindly(t *testing.T) {
	dir := wire.CachedDir{Dir: "m", Kind: deploy.BranchCache}
	with := func(change func(*wire.CachedDir)) wire.Cached {
		d := dir
		change(&d)
		return wire.Cached{Dirs: []wire.CachedDir{d}}
	}
	for name, w := range map[string]wire.Cached{
		"a kind that is none": with(func(d *wire.CachedDir) { d.Kind = "x" }),
		"no files":            with(func(d *wire.CachedDir) { d.Files = -1 }),
		"no bytes":            with(func(d *wire.CachedDir) { d.Bytes = -1 }),
		"a terminal's words":  with(func(d *wire.CachedDir) { d.Dir = "a\x1b[2J" }),
		"an absolute path":    with(func(d *wire.CachedDir) { d.Dir = "/etc" }),
		"no path":             with(func(d *wire.CachedDir) { d.Dir = "" }),
		"too many":            {Dirs: make([]wire.CachedDir, deploy.CacheDirsMost+1)},
		"too many notes":      {Notes: make([]string, notesMost+1)},
	} {
		if _, err := cached(w, nil); err == nil {
			t.Errorf("%s is believed", name)
		}
	}
	w, err := cached(wire.Cached{Dirs: []wire.CachedDir{dir}, Notes: []string{"a\nb\x1b" + strings.Repeat("x", textMost)}}, nil)
	if err != nil || strings.ContainsAny(w.Notes[0], "\n\x1b") || len(w.Notes[0]) > textMost {
		t.Errorf("%.100q, %v", w.Notes, err)
	}
	if _, err := cached(wire.Cached{}, errors.New("gone")); err == nil || err.Error() != "gone" {
		t.Error(err)
	}

	set := deploy.CacheSet{Pipeline: "shop", Kind: deploy.OthersCache, Dirs: []string{"m"}, Used: time.Now()}
	of := func(change func(*deploy.CacheSet)) wire.CacheSets {
		s := set
		change(&s)
		return wire.CacheSets{Sets: []deploy.CacheSet{s}}
	}
	for name, w := range map[string]wire.CacheSets{
		"no pipeline":               of(func(s *deploy.CacheSet) { s.Pipeline = "" }),
		"a long pipeline":           of(func(s *deploy.CacheSet) { s.Pipeline = strings.Repeat("a", 65) }),
		"a terminal's words":        of(func(s *deploy.CacheSet) { s.Pipeline = "a\nb" }),
		"a kind that is none":       of(func(s *deploy.CacheSet) { s.Kind = "" }),
		"too many directories":      of(func(s *deploy.CacheSet) { s.Dirs = make([]string, deploy.CacheDirsMost+1) }),
		"a directory that is none":  of(func(s *deploy.CacheSet) { s.Dirs = []string{"\x9b"} }),
		"fewer files than none":     of(func(s *deploy.CacheSet) { s.Files = -1 }),
		"fewer bytes than none":     of(func(s *deploy.CacheSet) { s.Bytes = -1 }),
		"more sets than a user has": {Sets: make([]deploy.CacheSet, deploy.CacheUserSets+1)},
	} {
		if _, err := sets(time.Now(), w, nil); err == nil {
			t.Errorf("%s is believed", name)
		}
	}
	list, err := sets(time.Now(), of(func(s *deploy.CacheSet) {
		s.Host, s.User, s.Dirs, s.Used = "forged", "root", nil, time.Now().Add(1000*time.Hour)
	}), nil)
	if err != nil || list[0].Host != "" || list[0].User != "" || list[0].Dirs == nil || time.Until(list[0].Used) > time.Minute {
		t.Errorf("%+v, %v", list, err)
	}
}
