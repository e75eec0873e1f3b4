package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"time"
)

const (
	mediumFiles   = 4000
	mediumSize    = 10_000 // bytes of a file
	mediumChanged = 20
	fleetDeploys  = 5 // that are measured, after the first
)

// farHost is an sshd on loopback with a home and a place for releases of its
// own, which it has at the same path as all others.
type farHost struct {
	name, port, root string
	entry            string // of deploy.yaml
	cmd              *exec.Cmd
}

// farHosts starts hosts whose releases stand at path. It needs root.
func (b *bench) farHosts(dir, path string, n int) (hosts []*farHost, stop func(), err error) {
	stop = func() {
		for _, h := range hosts {
			_ = h.cmd.Process.Kill()
			_ = h.cmd.Wait()
		}
	}
	for i := range n {
		h, err := newFarHost(filepath.Join(dir, fmt.Sprint("web", i+1)), path)
		if err != nil {
			stop()
			return nil, nil, err
		}
		hosts = append(hosts, h)
	}
	return hosts, stop, nil
}

func newFarHost(dir, path string) (*farHost, error) {
	h := &farHost{name: filepath.Base(dir), root: filepath.Join(dir, "root")}
	for _, d := range []string{filepath.Join(dir, "home"), h.root, path, "/run/sshd"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	for _, key := range []string{"host_key", "id"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", filepath.Join(dir, key)).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("making a key: %w: %s", err, out)
		}
	}
	public, err := os.ReadFile(filepath.Join(dir, "host_key.pub"))
	if err != nil {
		return nil, err
	}
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	_, h.port, _ = net.SplitHostPort(addr)
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	h.entry = fmt.Sprintf("  %s: { address: 127.0.0.1, port: %s, user: %s, identity_file: %s, host_key: %q }\n",
		h.name, h.port, me.Username, filepath.Join(dir, "id"), strings.TrimSpace(string(public)))
	session := fmt.Sprintf("#!/bin/sh\nexec unshare --mount --propagation private sh -c 'mount --bind %s %s && exec sh -c \"$SSH_ORIGINAL_COMMAND\"'\n", h.root, path)
	config := fmt.Sprintf(`ListenAddress %s
HostKey %s/host_key
AuthorizedKeysFile %s/id.pub
PidFile none
StrictModes no
UsePAM no
UseDNS no
PermitRootLogin yes
SetEnv HOME=%s/home
ForceCommand %s/session
`, addr, dir, dir, dir, dir)
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "session"), []byte(session), 0o755), os.WriteFile(filepath.Join(dir, "sshd_config"), []byte(config), 0o600)); err != nil {
		return nil, err
	}
	h.cmd = exec.Command("/usr/sbin/sshd", "-D", "-f", filepath.Join(dir, "sshd_config"))
	if err := h.cmd.Start(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return h, nil
		}
		if time.Now().After(end) {
			_ = h.cmd.Process.Kill()
			_ = h.cmd.Wait()
			return nil, fmt.Errorf("sshd does not answer: %w", err)
		}
	}
}

// fleets measures deploys over SSH next to rsync from a checkout.
func (b *bench) fleets() error {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "bench: deploys over SSH are not measured: only root can give each host on loopback its own files")
		return nil
	}
	if _, err := exec.LookPath("rsync"); err != nil {
		return errors.New("rsync is missing: apt-get install rsync")
	}
	for _, n := range []int{1, 10} {
		if err := b.fleet(n); err != nil {
			return fmt.Errorf("%d hosts: %w", n, err)
		}
	}
	return nil
}

func (b *bench) fleet(n int) error {
	name := fmt.Sprint("fleet", n)
	o, err := b.newOrigin(name+"-origin", mediumFiles, mediumSize)
	if err != nil {
		return err
	}
	defer o.stop()
	dir := filepath.Join(b.dir, name)
	path := filepath.Join(dir, "srv")
	hosts, stop, err := b.farHosts(dir, path, n)
	if err != nil {
		return err
	}
	defer stop()
	addr, err := freeAddress()
	if err != nil {
		return err
	}
	var entries strings.Builder
	var names []string
	for _, h := range hosts {
		entries.WriteString(h.entry)
		names = append(names, h.name)
	}
	d, err := b.serve(name, addr, fmt.Sprintf(`server: { listen: "%s", data: %s/data, socket: %s/sock, log: { level: error } }
hooks:
  github: { provider: github, secret: { environment: BENCH_SECRET } }
hosts:
%spipelines:
  shop:
    repository: github.com/acme/shop
    clone_url: %s
    hook: github
    on: { push: { branches: [main] } }
    jobs:
      deploy: { hosts: [%s], release: %s }
`, addr, dir, dir, entries.String(), o.url, strings.Join(names, ", "), path))
	if err != nil {
		return err
	}
	defer d.end()
	if _, err := gitOutput(dir, "clone", "-q", o.url, "checkout"); err != nil {
		return err
	}
	var ours, theirs []time.Duration
	for i := range fleetDeploys + 1 {
		commit, version, err := o.push(mediumChanged)
		if err != nil {
			return err
		}
		s := &site{server: d, hook: "github"}
		for _, h := range hosts {
			s.files = append(s.files, filepath.Join(h.root, "current/version"))
		}
		took, err := s.deploy(commit, version, i)
		if err != nil {
			run, _ := b.command(name, "run", fmt.Sprint(i+1))
			return fmt.Errorf("%w\n%s", err, run)
		}
		d.rest()
		script := rsyncScript(dir, path, hosts, i)
		began := time.Now()
		if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
			return fmt.Errorf("rsync: %w: %s", err, out)
		}
		if i > 0 {
			ours, theirs = append(ours, took), append(theirs, time.Since(began))
		}
	}
	us, them := percentile(ours, 50), percentile(theirs, 50)
	b.row(fmt.Sprintf("push → live over SSH on %d hosts, medium, %d files changed, p50, against `git pull`, `rsync -a --link-dest` and a link on each, beside each other", n, mediumChanged),
		ms(us), ms(them), fmt.Sprintf("%.2f×", float64(us)/float64(them)), "≤ 0.8×")
	return nil
}

// rsyncScript deploys a checkout to hosts, side by side.
func rsyncScript(dir, path string, hosts []*farHost, n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "set -e; cd %s; git -C checkout pull -q\npids=\n", dir)
	for _, h := range hosts {
		ssh := fmt.Sprintf("ssh -q -F none -i %s/%s/id -p %s -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null", dir, h.name, h.port)
		fmt.Fprintf(&b, "(mkdir -p %[1]s/%[2]s/root/copies; rsync -a --exclude=.git --link-dest=../%[3]d -e '%[4]s' checkout/ 127.0.0.1:%[5]s/copies/%[6]d/ && %[4]s 127.0.0.1 'ln -s copies/%[6]d %[5]s/next && mv -T %[5]s/next %[5]s/copied') & pids=\"$pids $!\"\n",
			dir, h.name, n-1, ssh, path, n)
	}
	b.WriteString("for p in $pids; do wait $p; done\n")
	return b.String()
}
