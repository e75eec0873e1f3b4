#!/bin/bash
# Who can reach what, on a real systemd, as root: see lab_test.go.
set -eu -o pipefail
here=$PWD
. "$here/lib.sh"
shown() {
	cat /etc/deployhook/deploy.yaml
	journalctl --no-pager -n 80
}
at_end shown
printed() { deployhook logs "$1" --job "$2" | sed 's,^[0-9:.]*  ,,'; }

systemd-sysusers "$here/deployhook.sysusers"
useradd -m alice
usermod -aG deployhook-admin alice
install -d -m 0755 /etc/deployhook
install -d -m 0700 /etc/deployhook/credentials
secret=0123456789abcdef0123456789abcdef
echo $secret >/etc/deployhook/credentials/github-webhook
chmod 0600 /etc/deployhook/credentials/github-webhook
install -d -o deploy /srv/shop
mkdir -p /etc/systemd/system/deployhook.service.d
printf '[Service]\nLoadCredential=github-webhook:/etc/deployhook/credentials/github-webhook\nEnvironment=DAEMON_ONLY=daemonvalue\n' >/etc/systemd/system/deployhook.service.d/credentials.conf
echo 'deploy ALL=(root) NOPASSWD: /usr/bin/systemctl restart shop' >/etc/sudoers.d/deployhook
chmod 0440 /etc/sudoers.d/deployhook
visudo -cq
cat >/etc/systemd/system/shop.service <<'U'
[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=/bin/sleep infinity
WorkingDirectory=/srv/shop/current
U
# What a step tries. Each line printed is something that it could do; it is the
# same for both users.
cat >/usr/local/bin/try <<'T'
#!/bin/bash
other=$1
can() { if "${@:2}" >/dev/null 2>&1; then echo "CAN $1"; fi; }
echo "user $(id -un) groups $(id -Gn)"
env | grep -q DAEMON_ONLY && echo "CAN see the daemon's environment"
pid=$(systemctl show -p MainPID --value deployhook 2>/dev/null)
[ -n "$pid" ] && [ "$pid" != 0 ] || pid=$(cat /srv/daemon.pid 2>/dev/null || cat /usr/local/daemon.pid)
echo "daemon $pid"
can "read the daemon's environment" cat /proc/$pid/environ
can "read the daemon's memory" head -c 1 /proc/$pid/mem
can "enter the daemon's root" ls /proc/$pid/root/
can "signal the daemon" kill -0 $pid
can "list credentials" ls /run/credentials/deployhook.service/
can "read a credential" cat /run/credentials/deployhook.service/github-webhook
can "read the kept secret" cat /etc/deployhook/credentials/github-webhook
can "read the config" cat /etc/deployhook/deploy.yaml
can "list the data" ls /var/lib/deployhook
can "read the database" head -c 1 /var/lib/deployhook/deployhook.db
can "open the control socket" curl -s --max-time 5 --unix-socket /run/deployhook/control.sock http://x/
can "use the command line" deployhook runs
can "open the agent socket of tests" curl -s --max-time 5 --unix-socket /run/deployhook-agents/test.sock http://x/
can "open the agent socket of deploys" curl -s --max-time 5 --unix-socket /run/deployhook-agents/deploy.sock http://x/
can "list the other's workspaces" ls $other
can "read the other's workspaces" cat $other/secret
can "read its agent's memory" head -c 1 /proc/$PPID/mem
can "restart shop by sudo" sudo -n /usr/bin/systemctl restart shop
can "restart another unit by sudo" sudo -n /usr/bin/systemctl restart deployhook
can "be root by sudo" sudo -n id
can "write a release path" touch /srv/shop/x
can "write /etc" touch /etc/x
can "write /usr" touch /usr/local/bin/x
exit 0
T
chmod 755 /usr/local/bin/try
cat >/etc/deployhook/deploy.yaml <<'Y'
server:
  agent: { test: /run/deployhook-agents/test.sock, deploy: /run/deployhook-agents/deploy.sock }
hooks:
  github: { provider: github, secret: { credential: github-webhook } }
pipelines:
  shop:
    repository: github.com/acme/shop
    clone_url: /srv/git/shop.git
    on: { push: { branches: [main] } }
    jobs:
      test:
        steps: [ { run: 'test -f server.js; try /var/lib/deployhook-agent' } ]
      deploy:
        release: /srv/shop
        steps: [ { run: 'try /var/lib/deployhook-test' } ]
        restart: sudo systemctl restart shop
  secret:
    jobs:
      use:
        secrets: { KEY: { credential: github-webhook } }
        steps: [ { run: 'id -un; echo "${#KEY}"; echo "$KEY"' } ]
  slow:
    jobs:
      wait:
        steps: [ { run: 'mkdir -p sub; echo begun; (setsid sh -c "trap \"\" TERM HUP; exec sleep 301" &); exec sleep 300' } ]
Y
systemctl daemon-reload
systemctl enable -q --now deployhook
until_ "it is ready" readyz
show MainPID >/srv/daemon.pid
cp /srv/daemon.pid /usr/local/daemon.pid # test jobs do not see /srv
for u in deployhook.service deployhook.socket deployhook-test.socket deployhook-test@x.service deployhook-agent.socket deployhook-agent@x.service; do
	systemd-analyze verify --man=no "/etc/systemd/system/${u/x/}" 2>&1 | grep -F "${u/x/}" && fail "systemd-analyze verify has something to say of $u"
done
systemctl is-enabled -q deployhook.socket deployhook-test.socket deployhook-agent.socket || fail "enabling the service does not enable its sockets"
deployhook check 2>&1 | grep -i warning && fail "check warns"
journalctl -u deployhook --no-pager | grep "steps run as the daemon's own user" && fail "the daemon says that steps run as its user"
echo secret >/var/lib/deployhook-agent/secret && chown deploy /var/lib/deployhook-agent/secret || true

deployhook trigger shop --branch main --wait || { deployhook run 1; deployhook logs 1; fail "the first deploy"; }
printed 1 test >test.log
printed 1 deploy >deploy.log
cat test.log deploy.log
grep -q '^user deployhook-test groups deployhook-test$' test.log || fail "test jobs are not deployhook-test's"
grep -q '^user deploy groups deploy$' deploy.log || fail "deploy jobs are not deploy's"
grep '^CAN' test.log && fail "a test job can do this"
grep '^CAN' deploy.log | grep -v -e '^CAN restart shop by sudo$' -e '^CAN write a release path$' && fail "a deploy job can do this"
grep -q '^CAN restart shop by sudo$' deploy.log && grep -q '^CAN write a release path$' deploy.log || fail "a deploy job cannot do its work"
[ "$(show ActiveState shop)" = active ] || fail "shop was not restarted"
ok "steps of both users reach nothing of the daemon's; sudo works for deploy alone"

run=$(deployhook trigger secret --wait)
printed "$run" use >secret.log || true
grep -q '^deploy$' secret.log && grep -q '^32$' secret.log || { cat secret.log; fail "a job with secrets"; }
grep -q $secret secret.log && fail "the secret stands in the log"
ok "a job with secrets runs as deploy, and gets its secret"

for n in 1 2 3 4 5 6 7 8 9 10; do deployhook trigger shop --branch main --force --wait || fail "deploy $n"; done
until_ "no instance but those kept ready" sh -c '[ "$(systemctl list-units --all --no-legend "deployhook-test@*" "deployhook-agent@*" | wc -l)" -le 2 ]'
[ "$(ls /var/lib/deployhook-test/work /var/lib/deployhook-agent/work | grep -c ^[0-9a-f])" -le 2 ] || fail "workspaces are left"
ok "many jobs leave no units and no workspaces"

# The daemon is killed: the step, and what it put out of reach, end; the run
# goes on and its step runs once.
run=$(deployhook trigger slow)
until_ "the step runs" sh -c "deployhook logs $run | grep -q begun"
sleeps() { pgrep -x sleep -u deployhook-test | tr '\n' ' '; }
two() { [ "$(sleeps | wc -w)" = 2 ]; }
until_ "both its processes run" two
first=$(sleeps)
pid=$(show MainPID)
kill -9 "$pid"
until_ "it is restarted" restarted "$pid"
until_ "the second attempt runs" sh -c "deployhook run $run | grep -q 'attempt 2'"
other() { two && [ "$(sleeps)" != "$first" ]; }
until_ "its processes run" other
for p in $first; do if kill -0 "$p" 2>/dev/null; then fail "process $p of the first attempt lives beside the second"; fi; done
ok "kill -9 of the daemon: nothing of the first attempt lives"
# An agent that is killed takes all of its job with it.
before=$(sleeps)
agent=$(ps -o ppid= -p "$(pgrep -u deployhook-test -fx 'sleep 300')" | tr -d ' ')
kill -9 "$agent"
until_ "the run has failed" sh -c "deployhook run $run --json | grep -q '\"state\": *\"failed\"'"
deployhook run "$run" | grep -q 'it was killed: a step did it, or the machine is out of memory; the journal of its unit says more' || { deployhook run "$run"; fail "the killed agent is not named"; }
for p in $before; do until_ "process $p is gone" sh -c "! kill -0 $p"; done
ok "a killed agent takes its steps with it"

# --- no connection is refused while it is restarted
commit=$(git --git-dir=/srv/git/shop.git rev-parse main 2>/dev/null || cat "$here/commit")
body='{"ref":"refs/heads/docs","before":"1111111111111111111111111111111111111111","after":"'$commit'","repository":{"full_name":"acme/shop","html_url":"https://github.com/acme/shop"},"sender":{"login":"alice"},"head_commit":{"id":"'$commit'","message":"one"},"commits":[]}'
sign=$(printf %s "$body" | openssl dgst -sha256 -hmac $secret | sed 's/.* //')
# Two senders, each one process: starting one a push would take minutes.
echo "$body" | tr -d '\n' >body.json
for sender in a b; do
	for ((i = 0; i < PUSHES / 2; i++)); do
		[ $i = 0 ] || echo next
		cat <<C
url = "http://127.0.0.1:8484/hooks/github"
header = "Content-Type: application/json"
header = "X-GitHub-Event: push"
header = "X-GitHub-Delivery: $sender$i"
header = "X-Hub-Signature-256: sha256=$sign"
header = "Connection: close"
data-binary = "@body.json"
output = "/dev/null"
write-out = "%{http_code}\\n"
max-time = 60
C
	done >"$sender.curl"
	curl -s --rate 50/s -K "$sender.curl" >"$sender.codes" &
	pushers="${pushers:-} $!"
done
for ((i = 0; i < RESTARTS; i++)); do systemctl restart deployhook; done
for p in $pushers; do
	kill -0 "$p" || fail "the pushes were over before the restarts: $(wc -l ./*.codes)"
	wait "$p"
done
cat a.codes b.codes >codes
sort codes | uniq -c
[ "$(grep -c '^200$' codes)" = "$PUSHES" ] || fail "not all of $PUSHES pushes were answered 200"
ok "no push was refused during $RESTARTS restarts"

systemd-analyze security deployhook.service --no-pager | tail -3
score=$(systemd-analyze security deployhook.service --no-pager | grep -o 'Overall exposure.*' | grep -o '[0-9]\.[0-9]')
[ "$(echo "$score" | tr -d .)" -le 15 ] || { systemd-analyze security deployhook.service --no-pager | grep -v '✓'; fail "systemd-analyze security says $score"; }
ok "systemd-analyze security: $score"

# --- what is not right is said
systemctl stop deployhook-test.socket 'deployhook-test@*.service'
run=$(deployhook trigger slow --wait 2>/dev/null || true)
deployhook run "$run" | grep -q 'the agent socket /run/deployhook-agents/test.sock is not there: sudo systemctl enable --now' || { deployhook run "$run"; fail "a missing socket is not named"; }
systemctl start deployhook-test.socket
printf '[Socket]\nListenStream=\nListenStream=127.0.0.1:8485\n' | (mkdir -p /etc/systemd/system/deployhook.socket.d && cat >/etc/systemd/system/deployhook.socket.d/port.conf)
systemctl daemon-reload
systemctl stop deployhook.socket deployhook.service
systemctl start deployhook.socket
timeout 10 systemctl start deployhook 2>/dev/null && fail "it starts with another port than its socket's"
systemctl stop deployhook
journalctl -u deployhook --no-pager | grep -q "systemd's socket is 127.0.0.1:8485 and server.listen is 127.0.0.1:8484: make them equal" || fail "the two ports are not named"
ok "what is not right is said"
echo "all held"
