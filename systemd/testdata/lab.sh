#!/bin/bash
# Runs in a fresh machine with a real systemd, as root: see lab_test.go.
set -eu -o pipefail
here=$PWD
. "$here/lib.sh"
shown() {
	cat /etc/deployhook/deploy.yaml
	systemctl status --no-pager -n 0 deployhook
	curl -s http://127.0.0.1:8484/readyz
	deployhook runs
	journalctl -u deployhook --no-pager -n 60
}
at_end shown
journal() { journalctl -u deployhook --no-pager -o cat "$@"; }

# --- docs/vps.md, command by command
# Its reader is alice, who may use sudo.
useradd -m alice
echo 'alice ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/alice
cat >before.sh <<'B'
set -eu
here=$(dirname "$0")
config=/etc/deployhook/deploy.yaml
case $1 in
program)
	if [ -e "$here/package.deb" ]; then dpkg -i "$here/package.deb"; exit; fi
	install -m 0755 "$here/deployhook" /usr/local/bin/deployhook
	;;
trigger)
	grep -v '^ *#' $config | diff - "$here/deploy.yaml" || { echo "init does not write the page's deploy.yaml"; exit 1; }
	# No network here: the repository is on this machine.
	sed -i 's,^    auth:.*,    clone_url: /srv/git/shop.git,' $config
	systemctl reload deployhook
	;;
token)
	# The page shows the token's config alone: here it stands beside the other,
	# which then needs the word that the page asks for.
	{
		sed '/^hooks:/,$d' $config
		echo "hooks:"
		sed -n '/^hooks:/,/^pipelines:/p' $config "$here/token.yaml" | grep '^  '
		echo "pipelines:"
		for f in $config "$here/token.yaml"; do sed '1,/^pipelines:/d; s/^    repository: .*/&\n    hook: github/' "$f"; done
	} >/etc/deployhook/merged.yaml
	mv /etc/deployhook/merged.yaml $config
	;;
esac
B
chmod 755 "$here"
sudo -u alice bash "$here/doc.sh" 2>&1 | tee "$here/doc.log"
rm /etc/sudoers.d/alice
ok "every command of vps.md"
grep -q '^  Payload URL         https://deploy.example.com/hooks/github$' "$here/doc.log" || fail "GitHub's form"
grep -q '^  Key                 ssh-ed25519 AAAA' "$here/doc.log" || fail "the deploy key"
grep -q "$(cat /etc/deployhook/credentials/github-webhook)" "$here/doc.log" && fail "the secret goes into a log"
[ "$(stat -c '%a %U' /etc/deployhook/credentials/github-webhook)" = "600 root" ] || fail "the secret's file"
readyz || fail "readyz"
grep -q 'HTTP/1.1 202' "$here/doc.log" || fail "the token"
grep -q '"message":"enable-course: run starts for a payload of hook webhook"' "$here/doc.log" || fail "the answer to the token"
grep -q '^\*  [0-9]\{8\}T[0-9]\{6\}Z-[0-9a-f]\{7\} *live' "$here/doc.log" || fail "the release"
until_ "the course is enabled" sh -c 'deployhook logs 2 | grep -q "go-101 is enabled"'
ok "the page's token starts the page's pipeline"
grep -q '^What deployhook doctor still finds:$' "$here/doc.log" || fail "init does not end with doctor"
deployhook doctor --config /etc/deployhook/deploy.yaml >doctor.log 2>&1 || true
cat doctor.log
# Nobody serves the page's https:// here.
grep '^failure' doctor.log | grep -v -e ' url ' -e ' proxy ' && fail "doctor finds what init should have seen to"
for name in config secrets modes users units daemon sockets agents sudo repository release port; do
	grep -q "^ok  *$name " doctor.log || fail "doctor: $name is not ok after init"
done
ok "doctor finds nothing else after init"

if [ -e package.deb ]; then
	[ "$(readlink "/proc/$(show MainPID)/exe")" = /usr/bin/deployhook ] || fail "not the package's program runs"
	[ "$(cat /srv/shop/current/server.js)" = "// one" ] || fail "what is live"
	[ "$(show ActiveState shop)" = active ] || fail "the application does not run"
	ok "the page with the package ends with a deployed commit"
	echo "all held"
	exit
fi
systemd-analyze verify /etc/systemd/system/deployhook.service 2>&1 | grep deployhook.service && fail "systemd-analyze verify has something to say"
[ "$(show ActiveState shop)" = active ] || fail "sudo in restart did not start the application"
ok "sudo systemctl restart works in restart"

# --- who may what
[ "$(stat -c '%a %U %G' /run/deployhook/control.sock)" = "660 deployhook deployhook-admin" ] || fail "socket: $(stat -c '%a %U %G' /run/deployhook/control.sock)"
[ "$(stat -c '%a %U' /var/lib/deployhook)" = "750 deployhook" ] || fail "data: $(stat -c '%a %U' /var/lib/deployhook)"
[ "$(stat -c %a /var/lib/deployhook/deployhook.db)" = 600 ] || fail "database: $(stat -c %a /var/lib/deployhook/deployhook.db)"
sudo -u alice deployhook runs >/dev/null || fail "alice is in deployhook-admin"
useradd -m bob
if sudo -u bob deployhook runs 2>bob.log; then fail "bob is not in deployhook-admin"; fi
if sudo -u bob deployhook init --repository github.com/acme/shop 2>init.log; then fail "bob sets the server up"; fi
grep -q '^deployhook: init makes users and units, and only root may$' init.log && grep -q 'hint: sudo deployhook init; deployhook init --dry-run shows what it would do' init.log || fail "bob is told: $(cat init.log)"
grep -q 'this user may not open it' bob.log && grep -q 'hint: join the group deployhook-admin' bob.log || fail "bob is told: $(cat bob.log)"
if sudo -u bob cat /var/lib/deployhook/deployhook.db 2>/dev/null; then fail "bob reads the database"; fi
[ "$(stat -c %a /srv/shop/current/server.js)" = 644 ] || fail "files of a release: $(stat -c %a /srv/shop/current/server.js)"
ok "the socket is for deployhook-admin, the data for nobody else"

# --- a signed push, as GitHub sends it: the secret is systemd's credential
commit=$(git --git-dir=/srv/git/shop.git rev-parse main)
body='{"ref":"refs/heads/docs","before":"1111111111111111111111111111111111111111","after":"'$commit'","repository":{"full_name":"acme/shop","html_url":"https://github.com/acme/shop"},"sender":{"login":"alice"},"head_commit":{"id":"'$commit'","message":"one"},"commits":[]}'
sign=$(printf %s "$body" | openssl dgst -sha256 -hmac "$(cat /etc/deployhook/credentials/github-webhook)" | sed 's/.* //')
answer=$(curl -s -w ' %{http_code}' -H 'X-GitHub-Event: push' -H "X-GitHub-Delivery: a" -H "X-Hub-Signature-256: sha256=$sign" -H 'Content-Type: application/json' -d "$body" http://127.0.0.1:8484/hooks/github)
[[ $answer == *"no pipeline wants branch docs: shop wants main"*" 200" ]] || fail "a signed push is answered $answer"
ok "LoadCredential= gives the secret"

# --- the journal
journal | grep -q 'msg=ready' || fail "no ready in the journal"
journal -p warning | grep -q 'level=INFO' && fail "information has the priority of a warning"
journal | grep -q '^<' && fail "priorities are not read"
journal | grep -q 'npm ci' && fail "the output of steps is in the journal"
[[ "$(show StatusText)" == *"pipelines, "*" running" ]] || fail "status: $(show StatusText)"
ok "the journal has the daemon's log with priorities"

# --- reload
good=$(cat /etc/deployhook/deploy.yaml)
printf '%s\n  slow:\n    jobs: { wait: { steps: [ { run: "echo begun; exec sleep 300" } ] } }\n' "$good" >/etc/deployhook/deploy.yaml
systemctl reload deployhook || fail "reload of a good file"
echo 'pipelinse: {}' >>/etc/deployhook/deploy.yaml
if systemctl reload deployhook 2>/dev/null; then fail "reload of a bad file succeeds"; fi
journal | grep -q 'did you mean "pipelines"' || fail "the journal does not say why the reload failed"
[ "$(show ActiveState)" = active ] || fail "a bad reload ended the service"
sed -i '$d' /etc/deployhook/deploy.yaml
ok "reload takes a good file, and a bad one is its error"

# --- kill -9 in the middle of a run
run=$(deployhook trigger slow)
until_ "the step runs" sh -c "deployhook logs $run | grep -q begun"
pid=$(show MainPID)
kill -9 "$pid"
until_ "it is restarted" restarted "$pid"
until_ "the run is taken up again" sh -c "deployhook run $run | grep -q 'attempt 2'"
until_ "its step runs" sh -c "deployhook logs $run | grep -q 'attempt 2'"
[ "$(pgrep -cx sleep -u deployhook-test)" = 1 ] || fail "steps of the killed daemon live on: $(pgrep -ax sleep -u deployhook-test)"
journal -p warning | grep -q 'level=WARN msg="job was cut short' || fail "warnings have no priority"
journalctl DEPLOYHOOK_RUN="$run" --no-pager -o cat | grep -q 'msg="job started"' || fail "the journal has no field for the run"
ok "kill -9: restarted by systemd, the run goes on, nothing is left of its first attempt"

# --- the watchdog, with less patience than the unit's
mkdir -p /etc/systemd/system/deployhook.service.d
printf '[Service]\nWatchdogSec=6\nTimeoutAbortSec=2\n' >/etc/systemd/system/deployhook.service.d/test.conf
systemctl daemon-reload
began=$(date +%s)
systemctl restart deployhook
took=$(($(date +%s) - began))
until_ "it is ready after a restart" readyz
[ "$took" -le 45 ] || fail "the restart took $took s with a grace of 30 s"
journal | grep -q 'msg=stopped' || fail "it did not stop by itself"
ok "a stop with a running job ends within the grace ($took s)"
pid=$(show MainPID)
restarts=$(show NRestarts)
for ((i = 0; i < 90; i++)); do
	[ "$(show MainPID)" = "$pid" ] || fail "a daemon that is well was restarted"
	sleep 0.1
done
kill -STOP "$pid"
until_ "the watchdog has it restarted" restarted "$pid"
[ "$(show NRestarts)" -gt "$restarts" ] || fail "NRestarts"
journalctl -u deployhook --no-pager | grep -q 'Watchdog timeout' || fail "not by the watchdog"
ok "the watchdog restarts a daemon that hangs"

# --- the end
deployhook cancel "$run"
until_ "the run is canceled" has_state "$run" canceled
began=$(date +%s%N)
systemctl stop deployhook
took=$((($(date +%s%N) - began) / 1000000))
[ "$took" -lt 5000 ] || fail "an idle daemon took $took ms to stop"
[ "$(show Result)" = success ] || fail "the stop's result is $(show Result)"
[ -e /run/deployhook/control.sock ] && fail "the socket is left behind"
pgrep -u deployhook >/dev/null && fail "left running: $(pgrep -au deployhook)"
ok "an idle daemon stops in $took ms and leaves nothing behind"

# --- what is missing is said
mv /etc/deployhook/credentials/github-webhook /etc/deployhook/credentials/away
if systemctl start deployhook 2>/dev/null; then fail "it starts without its credential"; fi
systemctl stop deployhook.socket deployhook
mv /etc/deployhook/credentials/away /etc/deployhook/credentials/github-webhook
gpasswd -d deployhook deployhook-admin >/dev/null
if systemctl start deployhook 2>/dev/null; then fail "it starts without its group"; fi
systemctl stop deployhook
journal | grep -q 'giving the control socket to the group deployhook-admin: operation not permitted: put .* (usermod -aG deployhook-admin deployhook)' || fail "the group is not named"
ok "what is missing at a start is said in the journal"
gpasswd -a deployhook deployhook-admin >/dev/null

# --- init: twice, from a broken state, and back
systemctl start deployhook
deployhook init >init.log 2>&1 || { cat init.log; fail "init the second time"; }
grep -q '^Everything is there already; nothing was changed.$' init.log || { cat init.log; fail "the second init does something"; }
rm /etc/sudoers.d/deployhook /etc/systemd/system/deployhook-test.socket
deployhook init --dry-run >init.log 2>&1 || fail "init --dry-run"
grep -q '^deployhook: 5 things to do; nothing was changed$' init.log && [ ! -e /etc/sudoers.d/deployhook ] || { cat init.log; fail "a dry run"; }
deployhook init >init.log 2>&1 || { cat init.log; fail "init of what is missing"; }
[ -e /etc/sudoers.d/deployhook ] && systemctl is-active -q deployhook-test.socket || fail "init does not mend"
ok "init may be run again, and mends what is missing"
rm /etc/systemd/system/deployhook.service.d/test.conf # of this script
deployhook init --remove >init.log 2>&1 || { cat init.log; fail "init --remove"; }
cat init.log
systemctl is-active -q deployhook.socket deployhook.service deployhook-test.socket && fail "something still runs"
grep -q '^leaves     /etc/deployhook/deploy.yaml: it was changed after init made it$' init.log || fail "what stays is not named"
for path in /etc/sudoers.d/deployhook /etc/deployhook/credentials /etc/systemd/system/deployhook.service /etc/systemd/system/deployhook.service.d /etc/sysusers.d/deployhook.conf; do
	[ ! -e $path ] || fail "$path is left"
done
find /etc /usr/local -newer "$here/test.sh" -name '*deployhook*' | grep -v -e '^/etc/deployhook$' -e '^/usr/local/bin/deployhook$' && fail "this is left and not named"
ok "init --remove takes back what init made and names the rest"
deployhook init >init.log 2>&1 || { cat init.log; fail "init after a removal"; }
until_ "it is ready again" readyz
ok "init works again after a removal"
echo "all held"
