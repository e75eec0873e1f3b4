#!/bin/bash
# What doctor says of a healthy installation and of broken ones, on a real
# systemd, as root: see doctor_test.go.
set -eu -o pipefail
here=$PWD
. "$here/lib.sh"
shown() {
	journalctl --no-pager -n 60
	deployhook doctor
}
at_end shown
restart() {
	systemctl restart deployhook
	until_ "it is ready" readyz
}

systemd-sysusers "$here/deployhook.sysusers"
useradd -m alice
useradd -m bob
usermod -aG deployhook-admin alice
install -d -m 0755 /etc/deployhook
install -d -m 0700 /etc/deployhook/credentials
(umask 077 && echo 0123456789abcdef0123456789abcdef >/etc/deployhook/credentials/github-webhook)
install -d -o deploy -g deploy /srv/shop
chmod -R go+rX /srv/git
mkdir -p /etc/systemd/system/deployhook.service.d
printf '[Service]\nLoadCredential=github-webhook:/etc/deployhook/credentials/github-webhook\n' >/etc/systemd/system/deployhook.service.d/credentials.conf
printf 'deploy ALL=(root) NOPASSWD: /usr/bin/systemctl restart shop\n' >/etc/sudoers.d/deployhook
chmod 0440 /etc/sudoers.d/deployhook
cat >/etc/deployhook/deploy.yaml <<'Y'
server:
  url: http://127.0.0.1:8484
  agent: { test: /run/deployhook-agents/test.sock, deploy: /run/deployhook-agents/deploy.sock }
hooks:
  github: { provider: github, secret: { credential: github-webhook } }
pipelines:
  shop:
    repository: github.com/acme/shop
    clone_url: /srv/git/shop.git
    on: { push: { branches: [main] } }
    jobs:
      test: { steps: [ { run: test -f server.js } ] }
      deploy:
        release: /srv/shop
        steps: [ { run: echo two } ]
        restart: sudo systemctl restart shop
Y
chmod 0644 /etc/deployhook/deploy.yaml
systemctl daemon-reload
systemctl enable -q --now deployhook
until_ "it is ready" readyz

# --- a healthy one
began=$(date +%s%N)
deployhook doctor >healthy 2>&1 || { cat healthy; fail "a healthy installation fails"; }
cat healthy
took=$((($(date +%s%N) - began) / 1000000))
[ "$took" -lt 20000 ] || fail "doctor took $took ms"
# The lab's machine has no clock of its own and little else to say.
grep '^warning' healthy | grep -v -e ' clock ' -e ' memory ' -e ' data ' -e ' release ' && fail "a healthy installation is warned of this"
for name in config secrets modes users units daemon sockets agents sudo repository port url github proxy notify; do
	grep -q "^ok  *$name " healthy || fail "$name is not ok"
done
ok "a healthy installation has no failure ($took ms)"
journalctl -u deployhook --no-pager | grep -i -e 'refused' -e 'level=WARN' && fail "doctor leaves this in the journal"
ok "doctor leaves nothing in the daemon's journal"
deployhook doctor --json >checks.json 2>/dev/null || fail "--json"
[ "$(head -c 1 checks.json)" = "[" ] && grep -q '"name": "units"' checks.json && grep -q '"state": "ok"' checks.json || fail "JSON: $(head -c 300 checks.json)"

# --- others than root say what they could not see
sudo -u alice deployhook doctor >alice 2>&1 || { cat alice; fail "a member of deployhook-admin is told of failures"; }
grep -q 'sudo deployhook doctor' alice && grep -q '^ok  *agents ' alice && grep -q '^ok  *release ' alice || { cat alice; fail "alice"; }
sudo -u bob deployhook doctor >bob 2>&1 || { cat bob; fail "somebody is told of failures"; }
grep -q '^warning  daemon .*was not asked' bob || { cat bob; fail "bob"; }
ok "alice and bob are told what they may see"

# --- what is broken: doctor fails, says which, and what to type
# broken CHECK STATE TEXT FIX: each a part of what stands there.
broken() {
	local out code=0
	out=$(deployhook doctor --json 2>err) || code=$?
	if [ "$2" = failure ] && [ $code != 1 ]; then
		echo "$out"
		fail "exit code $code with a broken $1"
	fi
	# One object a line.
	echo "$out" | tr -d '\n' | sed 's/},/},\n/g' | grep "\"name\": \"$1\"" | grep "\"state\": \"$2\"" | grep -F -- "$3" | grep -qF -- "$4" || {
		echo "$out"
		fail "$1 is not said: $3 / $4"
	}
	ok "$1: $3"
}
well() {
	until_ "it is ready" readyz
	deployhook doctor >well 2>&1 || { cat well; fail "it is not well again: $1"; }
}

systemctl disable -q deployhook.service
broken units failure "deployhook.service is disabled" "sudo systemctl enable deployhook.service"
systemctl enable -q deployhook.service

systemctl stop deployhook-agent.socket
systemctl stop 'deployhook-agent@*'
broken units failure "deployhook-agent.socket is inactive" "sudo systemctl start deployhook-agent.socket"
broken sockets failure "/run/deployhook-agents/deploy.sock is not there" "sudo systemctl enable --now deployhook-agent.socket"
broken agents failure "no agent for deploy jobs: the agent socket /run/deployhook-agents/deploy.sock is not there" "sudo systemctl restart"
systemctl start deployhook-agent.socket
well "the agent's socket"

sed -i 's/^RestartSec=3/RestartSec=7/' /etc/systemd/system/deployhook.service
broken units warning "/etc/systemd/system/deployhook.service is not what this version brings" "systemctl daemon-reload"
broken units failure "systemd still has units as they were" "sudo systemctl daemon-reload"
sed -i 's/^RestartSec=7/RestartSec=3/' /etc/systemd/system/deployhook.service
systemctl daemon-reload
well "the unit"

rm /etc/sudoers.d/deployhook
broken sudo failure "sudo does not allow it to deploy" "deploy ALL=(root) NOPASSWD: /usr/bin/systemctl restart shop"
echo 'deploy ALL=(root) /usr/bin/systemctl restart shop' | install -m 0440 /dev/stdin /etc/sudoers.d/deployhook
broken sudo failure "sudo asks deploy for a password" "NOPASSWD"
# What doctor says to type is what mends it.
(deployhook doctor || true) 2>/dev/null | sed -n 's/^ *-> //p' | grep sudoers >fix
bash ./fix
broken sudo ok "1 command allowed without a password" ""
well "sudo"
echo 'nonsense' >/etc/sudoers.d/broken
broken sudo warning "visudo finds fault with the sudoers files: /etc/sudoers.d/" "sudo visudo -c"
rm /etc/sudoers.d/broken

chown root: /srv/shop
broken release failure "the release path /srv/shop cannot be written by deploy" "sudo chown -R deploy: /srv/shop"
chown deploy: /srv/shop

usermod -aG deployhook-admin deploy
broken users failure "deploy is in the group deployhook-admin" "sudo gpasswd -d deploy deployhook-admin"
gpasswd -d deploy deployhook-admin >/dev/null

chown deploy /etc/deployhook/deploy.yaml
broken modes failure "deploy.yaml can be changed by its owner deploy" "sudo chown root:root /etc/deployhook/deploy.yaml"
chown root /etc/deployhook/deploy.yaml
chmod 0644 /etc/deployhook/credentials/github-webhook
broken modes failure "everybody on this machine may read the secret" "sudo chmod go-rwx"
chmod 0600 /etc/deployhook/credentials/github-webhook
chmod 0755 /var/lib/deployhook
broken modes failure "/var/lib/deployhook has mode 0755" "sudo chmod 0750 /var/lib/deployhook"
chmod 0750 /var/lib/deployhook
well "modes"

echo fedcba9876543210fedcba9876543210 >/etc/deployhook/credentials/github-webhook
broken secrets warning "is newer than what the daemon was started with" "sudo systemctl restart deployhook"
restart
well "the credential"
echo short >/etc/deployhook/credentials/github-webhook
broken secrets failure "it has 5 characters, and 16 are the least" "deployhook check"
echo fedcba9876543210fedcba9876543210 >/etc/deployhook/credentials/github-webhook
mv /etc/systemd/system/deployhook.service.d/credentials.conf .
systemctl daemon-reload
broken secrets failure "deployhook.service has no LoadCredential=github-webhook:" "LoadCredential=github-webhook:/etc/deployhook/credentials/github-webhook"
# And again: what it says to type.
(deployhook doctor || true) 2>/dev/null | sed -n 's/^ *-> //p' | grep -e LoadCredential= -e '^sudo systemctl' >fix
bash ./fix
until_ "it is ready" readyz
well "LoadCredential"

mv /srv/git/shop.git /srv/git/away.git
broken repository failure "pipeline shop:" ""
mv /srv/git/away.git /srv/git/shop.git
chmod 0700 /srv/git
broken repository failure "/srv/git cannot be entered by deployhook" "sudo chmod o+rx /srv/git"
chmod 0755 /srv/git

sed -i 's/branches: \[main\]/branches: [mian]/' /etc/deployhook/deploy.yaml
broken repository warning "waits for branch mian" ""
broken config warning "has changed since the daemon read it" "sudo systemctl reload deployhook"
sed -i 's/branches: \[mian\]/branches: [main]/' /etc/deployhook/deploy.yaml
echo 'pipelinse: {}' >>/etc/deployhook/deploy.yaml
broken config failure 'did you mean \"pipelines\"' "deployhook check"
sed -i '$d' /etc/deployhook/deploy.yaml
well "deploy.yaml"

cp /usr/local/bin/deployhook /usr/local/bin/new
mv /usr/local/bin/new /usr/local/bin/deployhook
broken daemon warning "the program was replaced since the daemon was started" "sudo systemctl restart deployhook"
restart

systemctl stop deployhook.service deployhook.socket
broken daemon failure "no daemon answers on /run/deployhook/control.sock" "sudo systemctl start deployhook"
broken port failure "nothing listens on 127.0.0.1:8484" "sudo systemctl start deployhook"
broken url failure "the connection was refused" "curl -v"
broken release ok "by their modes" ""
systemd-socket-activate -l 127.0.0.1:8484 --inetd -a /bin/cat >/dev/null 2>&1 &
other=$!
until_ "something else listens" bash -c 'echo >/dev/tcp/127.0.0.1/8484'
broken port failure "127.0.0.1:8484 does not answer as deployhook does" "sudo systemctl start deployhook"
kill $other
wait $other || true
systemctl start deployhook.socket deployhook.service
well "after a stop"

printf '[Socket]\nListenStream=\nListenStream=127.0.0.1:8485\n' | install -D -m 0644 /dev/stdin /etc/systemd/system/deployhook.socket.d/port.conf
systemctl daemon-reload
broken port failure "deployhook.socket listens on 127.0.0.1:8485 and server.listen is 127.0.0.1:8484" "ListenStream=127.0.0.1:8484"
rm -r /etc/systemd/system/deployhook.socket.d
systemctl daemon-reload
well "the port"
echo "all held"
