package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
)

// cached runs the steps of a test job with what the jobs before it left, and
// keeps that for those after it once it has succeeded.
func (p *jobPart) cached(ctx context.Context, kind func() deploy.CacheKind, steps func() outcome) outcome {
	if len(p.pipe.Cache) == 0 || p.pipe.Repository == "" {
		return steps()
	}
	q := host.Cache{Daemon: p.engine.Store.Daemon(), Pipeline: p.pipe.Name, Kind: kind(), Dirs: p.pipe.Cache}
	res, err := p.conn.RestoreCache(ctx, q)
	if err != nil {
		return p.ends(ctx, err)
	}
	for _, d := range res.Dirs {
		p.note(fmt.Sprintf("%s is taken from the cache of %s: %s", d.Dir, ofKind(d.Kind), contents(d.Files, d.Bytes)))
	}
	for _, n := range res.Notes {
		p.note(n)
	}
	out := steps()
	if out.state != deploy.Succeeded {
		return out
	}
	// A cache that cannot be kept is no failure of what was tested.
	res, err = p.conn.KeepCache(ctx, q)
	if err != nil {
		p.note("nothing is kept in the cache: " + err.Error())
	}
	for _, n := range res.Notes {
		p.note(n)
	}
	p.sayNotes(context.WithoutCancel(ctx), "cache")
	return out
}

// cacheKind says which set is the run's: that of the pipeline's branch, or
// that of all others, which never changes the branch's. Where it cannot be
// told, it is that of all others.
func (j *job) cacheKind(ctx context.Context) deploy.CacheKind {
	branch, is := strings.CutPrefix(j.run.Ref, "refs/heads/")
	own := false
	switch {
	case j.run.Ref == "": // an event without a commit is of the branch
		own = true
	case !is:
	case j.pipe.Branch != "":
		own = branch == j.pipe.Branch
	default:
		if name := defaultBranch(j.event); name != "" {
			own = branch == name
			break
		}
		// Nobody named it. A commit that it points to now is as good as its.
		if mirror, err := j.engine.mirror(ctx, j.pipe); err == nil {
			tip, err := mirror.Resolve(ctx, "")
			own = err == nil && tip == j.run.Commit
		}
	}
	if own {
		return deploy.BranchCache
	}
	return deploy.OthersCache
}

// defaultBranch is the repository's, as a forge's payload names it; empty
// where there is none.
func defaultBranch(ev *deploy.Event) string {
	if ev == nil || ev.Payload == nil {
		return ""
	}
	body, _ := ev.Payload().(map[string]any)
	repo, _ := body["repository"].(map[string]any)
	name, _ := repo["default_branch"].(string)
	return name
}

func ofKind(k deploy.CacheKind) string {
	if k == deploy.BranchCache {
		return "the branch"
	}
	return "other refs"
}

// contents says how much there is.
func contents(files int, bytes int64) string {
	if bytes < 10<<20 {
		return fmt.Sprintf("%d files, %d KiB", files, bytes>>10)
	}
	return fmt.Sprintf("%d files, %d MiB", files, bytes>>20)
}

// Caches lists what test jobs of a pipeline, or of all where it is empty, left
// on the hosts. Hosts that cannot be asked are named in the report.
func (e *Engine) Caches(ctx context.Context, pipeline string) (deploy.CacheReport, error) {
	return e.onCaches(ctx, agentsTime, pipeline, (*host.Conn).Caches)
}

// ClearCaches ends these sets, and gives those that it ended. Jobs that run
// keep what they took.
func (e *Engine) ClearCaches(ctx context.Context, pipeline, actor string) (deploy.CacheReport, error) {
	r, err := e.onCaches(ctx, clearTime, pipeline, (*host.Conn).ClearCaches)
	if err == nil && len(r.Sets) > 0 {
		e.Log.Info("caches cleared", "pipeline", pipeline, "sets", len(r.Sets), "by", actor)
	}
	return r, err
}

// clearTime bounds removing caches: much may be in them.
const clearTime = 90 * time.Second

// askCaches is what an agent is asked about the sets of a daemon.
type askCaches func(c *host.Conn, ctx context.Context, daemon, pipeline string) ([]deploy.CacheSet, error)

// onCaches asks every user that jobs run as, on every host.
func (e *Engine) onCaches(ctx context.Context, most time.Duration, pipeline string, ask askCaches) (deploy.CacheReport, error) {
	report := deploy.CacheReport{Sets: []deploy.CacheSet{}, Silent: []deploy.Silent{}}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, at := range e.users() {
		all.Go(func() {
			sets, err := e.cachesAt(ctx, at, pipeline, ask)
			mu.Lock()
			defer mu.Unlock()
			report.Sets = append(report.Sets, sets...)
			if err != nil {
				report.Silent = append(report.Silent, deploy.Silent{Host: at.host, Error: err.Error()})
			}
		})
	}
	all.Wait()
	// One that the config has no more may still have sets.
	if cfg := e.Config(); pipeline != "" && len(report.Sets) == 0 && cfg.Pipeline(pipeline) == nil {
		return report, noPipeline(cfg, pipeline)
	}
	slices.SortStableFunc(report.Sets, func(a, b deploy.CacheSet) int { return b.Used.Compare(a.Used) })
	slices.SortStableFunc(report.Silent, func(a, b deploy.Silent) int { return strings.Compare(a.Host, b.Host) })
	return report, nil
}

// hostUser is a user of a host that jobs run as.
type hostUser struct {
	host string
	kind deploy.AgentKind
}

// users are those that jobs run as: over SSH one a host; here one a kind of
// agents, or one alone where both are the daemon's children.
func (e *Engine) users() []hostUser {
	list := []hostUser{{deploy.Local, deploy.TestAgent}}
	if e.Hosts.Socket(deploy.TestAgent) != e.Hosts.Socket(deploy.DeployAgent) {
		list = append(list, hostUser{deploy.Local, deploy.DeployAgent})
	}
	for _, h := range e.Config().Hosts {
		list = append(list, hostUser{h.Name, deploy.TestAgent})
	}
	return list
}

func (e *Engine) cachesAt(ctx context.Context, at hostUser, pipeline string, ask askCaches) ([]deploy.CacheSet, error) {
	conn, err := e.openOn(ctx, at.host, at.kind, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	facts, err := conn.Facts(ctx)
	if err != nil {
		return nil, err
	}
	sets, err := ask(conn, ctx, e.Store.Daemon(), pipeline)
	for i := range sets {
		sets[i].Host, sets[i].User = at.host, facts.User
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("it did not answer in time")
	}
	return sets, err
}
