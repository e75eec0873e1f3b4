package storetest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"deployhook/internal/deploy"
)

// tokensOfTheAPI makes, uses and revokes tokens.
func tokensOfTheAPI(x *suite) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	ci := deploy.Token{
		Name: "ci", Actions: []deploy.Action{deploy.ActionRun, deploy.ActionRead}, Pipelines: []string{"shop", "blog"}, Actor: "alice",
		Created: now, Expires: now.Add(time.Hour),
	}
	id, err := x.s.CreateToken(x.ctx(), ci, "hash of ci")
	x.must(err)
	if _, err := x.s.CreateToken(x.ctx(), ci, "another hash"); !errors.Is(err, deploy.ErrRefused) {
		x.Errorf("a second token of the name: %v", err)
	}
	if _, err := x.s.UseToken(x.ctx(), "another hash", now); !errors.Is(err, deploy.ErrNotFound) {
		x.Errorf("a token that there is not: %v", err)
	}
	later := now.Add(30 * time.Minute)
	got, err := x.s.UseToken(x.ctx(), "hash of ci", later)
	x.must(err)
	if got.ID != id || got.Name != "ci" || !slices.Equal(got.Actions, ci.Actions) || !slices.Equal(got.Pipelines, ci.Pipelines) || !got.Expires.Equal(ci.Expires) {
		x.Errorf("the token is %+v, want %+v", got, ci)
	}
	if _, err := x.s.UseToken(x.ctx(), "hash of ci", ci.Expires); !errors.Is(err, deploy.ErrNotFound) {
		x.Errorf("an expired token: %v", err)
	}
	list, err := x.s.Tokens(x.ctx())
	x.must(err)
	if len(list) != 1 || !list[0].Used.Equal(later) || list[0].Actor != "alice" {
		x.Errorf("the tokens are %+v", list)
	}

	// Used and revoked side by side: once revoked, it is never let in.
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 50 {
				if _, err := x.s.UseToken(x.ctx(), "hash of ci", later); err != nil && !errors.Is(err, deploy.ErrNotFound) {
					x.Error(err)
				}
			}
		})
	}
	revoked, err := x.s.RevokeToken(x.ctx(), fmt.Sprint(id), later)
	x.must(err)
	if _, err := x.s.UseToken(x.ctx(), "hash of ci", later); !errors.Is(err, deploy.ErrNotFound) {
		x.Errorf("a revoked token: %v", err)
	}
	all.Wait()
	if _, err := x.s.UseToken(x.ctx(), "hash of ci", later); !errors.Is(err, deploy.ErrNotFound) || revoked.Name != "ci" {
		x.Errorf("a revoked token %+v: %v", revoked, err)
	}
	if _, err := x.s.RevokeToken(x.ctx(), "ci", later); !errors.Is(err, deploy.ErrNotFound) {
		x.Errorf("a token that is revoked already: %v", err)
	}
	if _, err := x.s.CreateToken(x.ctx(), deploy.Token{Name: "ci", Actions: ci.Actions, Created: now}, "new hash"); err != nil {
		x.Errorf("the name of a revoked token: %v", err)
	}
	if list, err = x.s.Tokens(x.ctx()); err != nil || len(list) != 2 || list[0].ID == id || list[1].Revoked.IsZero() || list[0].Pipelines != nil {
		x.Errorf("the tokens are %+v, %v", list, err)
	}
}

// requestsOnce sends a request with an Idempotency-Key several times.
func requestsOnce(x *suite) {
	ask := func(token int64, key, hash string) (int64, error) {
		r := newRun("c1")
		r.Once = &deploy.Once{Token: token, Key: key, Hash: hash}
		return x.s.Create(x.ctx(), r, nil)
	}
	before := &deploy.Once{Token: 1, Key: "k", Hash: "h"}
	if run, err := x.s.MadeBefore(x.ctx(), before); err != nil || run != 0 {
		x.Errorf("a new request made run %d, %v", run, err)
	}
	var all sync.WaitGroup
	ids := make([]int64, 8)
	for i := range ids {
		all.Go(func() {
			var err error
			if ids[i], err = ask(1, "k", "h"); err != nil {
				x.Error(err)
			}
		})
	}
	all.Wait()
	if slices.Min(ids) != slices.Max(ids) || ids[0] == 0 {
		x.Errorf("one request made the runs %v", ids)
	}
	if run, err := x.s.MadeBefore(x.ctx(), before); err != nil || run != ids[0] {
		x.Errorf("the request made run %d, %v, want %d", run, err, ids[0])
	}
	if _, err := ask(1, "k", "other"); !errors.Is(err, deploy.ErrOther) {
		x.Errorf("the key with another request: %v", err)
	}
	for _, o := range []deploy.Once{{Token: 2, Key: "k", Hash: "h"}, {Token: 1, Key: "k2", Hash: "h"}} {
		if id, err := ask(o.Token, o.Key, o.Hash); err != nil || id == ids[0] {
			x.Errorf("%+v made run %d, %v", o, id, err)
		}
	}
}

// outputsOfJobs saves what steps wrote and reads what jobs did.
func outputsOfJobs(x *suite) {
	id := x.accept("a", strings.Repeat("0", 40), "c1")
	save := func(job, host string, attempt, index int, outputs map[string]string) {
		x.Helper()
		at := deploy.StepAt{Run: id, Job: job, Attempt: attempt, Host: host, Index: index}
		x.must(x.s.SaveStep(x.ctx(), at, deploy.RunStep{Index: index, Name: "step", State: deploy.Succeeded, Started: time.Now(), Outputs: outputs}))
	}
	want := func(what string, want map[string]string) {
		x.Helper()
		all, err := x.s.Outputs(x.ctx(), id)
		x.must(err)
		if got := x.run(id).Jobs[0].Outputs; !maps.Equal(got, want) || !maps.Equal(all["test"], want) {
			x.Errorf("%s: the outputs are %q and %q, want %q", what, got, all, want)
		}
	}
	want("none", nil)
	save("test", "local", 1, 0, map[string]string{"a": "1", "b": "one\ntwo"})
	save("test", "local", 1, 1, nil)
	save("test", "local", 1, 10, map[string]string{"a": "3"})
	save("test", "local", 1, 2, map[string]string{"a": "2"})
	save("test", "elsewhere", 1, 2, map[string]string{"c": "not of its hosts"})
	want("later steps count", map[string]string{"a": "3", "b": "one\ntwo"})
	x.must(x.s.DropOutputs(x.ctx(), deploy.StepAt{Run: id, Job: "test", Host: "local", Attempt: 1}))
	want("of this attempt", map[string]string{"a": "3", "b": "one\ntwo"})
	x.must(x.s.DropOutputs(x.ctx(), deploy.StepAt{Run: id, Job: "test", Host: "local", Attempt: 2}))
	want("of an earlier attempt", nil)
	save("test", "local", 2, 0, map[string]string{"a": "again"})
	want("of the next attempt", map[string]string{"a": "again"})
}
