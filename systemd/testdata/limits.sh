#!/bin/bash
# Limits of jobs, on a real systemd with a kernel of its own, as root: see
# lab_test.go.
set -eu -o pipefail
here=$PWD
. "$here/lib.sh"
at_end journalctl --no-pager -n 60
systemd-sysusers "$here/deployhook.sysusers"
install -d -m 0755 /etc/deployhook
cat >/etc/deployhook/deploy.yaml <<'Y'
server:
  agent: { test: /run/deployhook-agents/test.sock, deploy: /run/deployhook-agents/deploy.sock }
pipelines:
  memory:
    jobs:
      eat:
        limits: { memory: 40 MiB }
        steps:
          - run: 'echo begun; head -c 100000000 /dev/zero | tail -c 90000000 | wc -c || true; echo never'
  fits:
    jobs:
      eat:
        limits: { memory: 200 MiB, cpu: 0.5, pids: 100 }
        steps:
          - run: 'head -c 50000000 /dev/zero | tail -c 40000000 | wc -c; cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/cpu.max'
  processes:
    jobs:
      fork:
        limits: { pids: 10 }
        steps:
          - run: 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do sleep 100 & done; wait'
            shell: bash -e
  away:
    jobs:
      root:
        secrets: { KEY: { command: echo 0123456789abcdef } }
        steps:
          - run: '(sudo -n /usr/local/bin/stay &) ; until [ -e ~/stays ]; do sleep 1; done'
Y
echo 'deploy ALL=(root) NOPASSWD: /usr/local/bin/stay' >/etc/sudoers.d/deployhook
chmod 0440 /etc/sudoers.d/deployhook
printf '#!/bin/sh\ntouch /var/lib/deployhook-agent/stays\nexec setsid sleep 400\n' >/usr/local/bin/stay
chmod 755 /usr/local/bin/stay
systemctl daemon-reload
systemctl start deployhook
run() {
	local id
	# One process that waits: this kernel starts programs slowly.
	id=$(deployhook trigger "$1" --wait || true)
	deployhook run "$id"
	deployhook logs "$id"
}
run memory >log
cat log
grep -q 'out of memory: killed at the job.s limit of 40 MiB, peak [34][0-9][.0-9]* MiB' log || fail "an OOM kill is not reported"
grep -q '  never$' log && fail "a step that was out of memory went on"
grep -q begun log || fail "the output before is lost"
ok "a step over its memory is killed, and the run says so with the peak"
run fits >log
cat log
grep -q '  40000000$' log && grep -q '  50000 100000$' log || fail "a job within its limits"
ok "a job within its limits goes on, with half a processor"
run processes >log
cat log
grep -q 'a process could not be started: the job.s limit is 10 processes and threads' log || fail "the limit of processes is not reported"
ok "a step over its processes says so"
run away >log
cat log
grep -q 'ended what the step left running: a process of another user (pid ' log || fail "what root left running is not named"
pgrep -x -f 'sleep 400' && fail "a process that a step started as root lives on"
ok "what a step starts as root through sudo ends with the step"
echo "all held"
