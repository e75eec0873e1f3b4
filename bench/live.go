package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	smallFiles = 30
	lives      = 15 // pushes that are waited for, after the first deploy
)

// origin is a repository that is served over HTTP, by git itself.
type origin struct {
	work, url string
	stop      func()
	n         int
}

// newOrigin makes a repository of so many files of so many bytes.
func (b *bench) newOrigin(name string, files, size int) (*origin, error) {
	root := filepath.Join(b.dir, name)
	o := &origin{work: filepath.Join(root, "work")}
	for i := range files {
		path := filepath.Join(o.work, fmt.Sprintf("dir%d", i%20), fmt.Sprintf("file%d", i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		line := fmt.Sprintf("%d is a line of a file that nobody reads\n", i)
		if err := os.WriteFile(path, []byte(strings.Repeat(line, size/len(line)+1)), 0o644); err != nil {
			return nil, err
		}
	}
	bare := filepath.Join(root, "shop.git")
	for _, args := range [][]string{
		{"init", "-q", "-b", "main", o.work}, {"init", "-q", "--bare", "-b", "main", bare}, {"-C", o.work, "remote", "add", "origin", bare},
		{"-C", o.work, "config", "user.name", "bench"}, {"-C", o.work, "config", "user.email", "bench@example.com"},
	} {
		if _, err := gitOutput(root, args...); err != nil {
			return nil, err
		}
	}
	url, stop, err := gitServer(root)
	if err != nil {
		return nil, err
	}
	o.url, o.stop = url+"/shop.git", stop
	return o, nil
}

// push pushes a commit that changes so many files, and gives its id and what
// its file version holds.
func (o *origin) push(changed int) (commit, version string, err error) {
	o.n++
	version = fmt.Sprintf("version %d\n", o.n)
	if err := os.WriteFile(filepath.Join(o.work, "version"), []byte(version), 0o644); err != nil {
		return "", "", err
	}
	for i := range changed - 1 {
		path := filepath.Join(o.work, fmt.Sprintf("dir%d", i%20), fmt.Sprintf("file%d", i))
		if err := os.WriteFile(path, []byte(strings.Repeat(version, 1000)), 0o644); err != nil {
			return "", "", err
		}
	}
	for _, args := range [][]string{{"add", "-A"}, {"commit", "-q", "-m", strings.TrimSpace(version)}, {"push", "-q", "origin", "main"}} {
		if _, err := gitOutput(o.work, args...); err != nil {
			return "", "", err
		}
	}
	commit, err = gitOutput(o.work, "rev-parse", "HEAD")
	return strings.TrimSpace(commit), version, err
}

// theirScript does what deployhook does for a push, in a shell: fetch, test in
// an export, release, link. sync -f stands where deployhook has a release on
// disk before it links it.
const theirScript = `#!/bin/sh
set -eu
cd %s
commit=$1
git --git-dir=mirror fetch -q %s +refs/heads/main:refs/heads/main
test=$(mktemp -d test.XXXXXX)
git --git-dir=mirror archive "$commit" | tar -x -C "$test"
(cd "$test" && test -f version)
rm -rf "$test"
release=releases/$(date -u +%%Y%%m%%dT%%H%%M%%SZ)-$(echo "$commit" | cut -c 1-7)
mkdir "$release"
git --git-dir=mirror archive "$commit" | tar -x -C "$release"
%s
ln -s "$release" "current.$$"
mv -T "current.$$" current
`

// live measures from a push's webhook to the release being live, in turn, next
// to adnanh/webhook running a script.
func (b *bench) live() error {
	o, err := b.newOrigin("origin", smallFiles, 1000)
	if err != nil {
		return err
	}
	defer o.stop()
	addr, err := freeAddress()
	if err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "live")
	d, err := b.serve("live", addr, fmt.Sprintf(`server: { listen: "%s", data: %s/data, socket: %s/sock, log: { level: error } }
hooks:
  github: { provider: github, secret: { environment: BENCH_SECRET } }
pipelines:
  shop:
    repository: github.com/acme/shop
    clone_url: %s
    hook: github
    on: { push: { branches: [main] } }
    jobs:
      test: { shell: sh, steps: [ { run: "test -f version" } ] }
      deploy: { needs: [test], release: %s/srv }
`, addr, dir, dir, o.url, dir))
	if err != nil {
		return err
	}
	defer d.end()
	synced, end, err := b.scripted("synced", o, `sync -f "$release"`)
	if err != nil {
		return err
	}
	defer end()
	unsynced, end, err := b.scripted("unsynced", o, ``)
	if err != nil {
		return err
	}
	defer end()
	sites := []*site{{d, []string{filepath.Join(dir, "srv/current/version")}, "github", nil}, synced, unsynced}
	for i := range lives + 1 {
		commit, version, err := o.push(2)
		if err != nil {
			return err
		}
		for _, s := range sites {
			took, err := s.deploy(commit, version, i)
			if err != nil {
				return err
			}
			if i > 0 {
				s.times = append(s.times, took)
			}
			// What is left to do of a deploy that is live is not in the way of
			// the next one.
			s.server.rest()
		}
	}
	ours := percentile(sites[0].times, 50)
	for _, s := range []struct {
		site        *site
		what, bound string
	}{{synced, "with `sync -f` before the link", "≤ 1.0×"}, {unsynced, "without a sync, so that a crash can leave a release of empty files", ""}} {
		theirs := percentile(s.site.times, 50)
		b.row("push → live, small, next deploy, p50, against a script "+s.what, ms(ours), ms(theirs), fmt.Sprintf("%.2f×", float64(ours)/float64(theirs)), s.bound)
	}
	return nil
}

// site is a server that deploys, and the files in which that is seen.
type site struct {
	server *process
	files  []string
	hook   string
	times  []time.Duration
}

// deploy sends the webhook of a push and waits until its commit is live.
func (s *site) deploy(commit, version string, n int) (time.Duration, error) {
	body, err := json.Marshal(map[string]any{
		"ref": "refs/heads/main", "before": strings.Repeat("0", 40), "after": commit, "repository": map[string]any{"full_name": "acme/shop", "html_url": "https://github.com/acme/shop"},
		"head_commit": map[string]any{"id": commit, "message": version}, "sender": map[string]any{"login": "somebody"}, "commits": []any{},
	})
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequest(http.MethodPost, "http://"+s.server.addr+"/hooks/"+s.hook, strings.NewReader(string(body)))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-GitHub-Event", "push")
	req.Header.Set("X-GitHub-Delivery", fmt.Sprint("live-", n))
	req.Header.Set("X-Hub-Signature-256", sign(body))
	began := time.Now()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	res.Body.Close()
	if res.StatusCode/100 != 2 {
		return 0, fmt.Errorf("a push was answered %s", res.Status)
	}
	left := s.files
	for end := began.Add(2 * time.Minute); time.Now().Before(end); time.Sleep(500 * time.Microsecond) {
		for len(left) > 0 {
			if got, err := os.ReadFile(left[0]); err != nil || string(got) != version {
				break
			}
			left = left[1:]
		}
		if len(left) == 0 {
			return time.Since(began), nil
		}
	}
	return 0, errors.New("a push did not become live: " + left[0])
}

// scripted is adnanh/webhook with a script that deploys.
func (b *bench) scripted(name string, o *origin, sync string) (*site, func(), error) {
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Join(dir, "releases"), 0o755); err != nil {
		return nil, nil, err
	}
	if _, err := gitOutput(dir, "init", "-q", "--bare", "mirror"); err != nil {
		return nil, nil, err
	}
	script := filepath.Join(dir, "deploy.sh")
	if err := os.WriteFile(script, fmt.Appendf(nil, theirScript, dir, o.url, sync), 0o755); err != nil {
		return nil, nil, err
	}
	p, err := startWebhook(dir, map[string]any{
		"id": "github", "execute-command": script,
		"trigger-rule":              map[string]any{"match": map[string]any{"type": "payload-hmac-sha256", "secret": secret, "parameter": map[string]any{"source": "header", "name": "X-Hub-Signature-256"}}},
		"pass-arguments-to-command": []any{map[string]any{"source": "payload", "name": "after"}},
	})
	if err != nil {
		return nil, nil, err
	}
	return &site{p, []string{filepath.Join(dir, "current/version")}, "github", nil}, p.end, nil
}
