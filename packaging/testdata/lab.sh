#!/bin/bash
# Runs in a fresh Debian with a real systemd, as root: see lab_test.go. first.deb
# is the package, second.deb one of a later version.
set -eu -o pipefail
here=$PWD
# shellcheck source=../systemd/testdata/lib.sh
. "$here/lib.sh"
shown() {
	tail -n 40 "$here"/*.log
	journalctl -u "deployhook*" --no-pager -n 60
}
at_end shown
is() { [ "$(show "$1")" = "$2" ]; }
has() { [ -e "/usr/lib/systemd/system/$1" ] || [ -e "/usr/local/lib/systemd/system/$1" ]; }
units() { (cd /usr/lib/systemd/system && [ -e deployhook.service ] || cd /usr/local/lib/systemd/system && printf '%s\n' deployhook* | grep -v @); }
# tree lists what a package and what it started could have left.
tree() {
	find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp -o -path /var/log -o -path /var/lib/dpkg \
		-o -path /var/lib/systemd -o -path /var/cache -o -path /lab -o -path /lab.out -o -path /out -o -path /root -o -path /srv -o -path /opt \) -prune -o -print |
		grep -vE '^/etc/(passwd|group|shadow|gshadow|subuid|subgid)-$|^/etc/\.pwd\.lock$' | sort
}
# push sends a signed push of a branch that nothing wants; prints the status.
push() {
	local body sign
	body='{"ref":"refs/heads/docs","before":"1111111111111111111111111111111111111111","after":"2222222222222222222222222222222222222222","repository":{"full_name":"acme/shop","html_url":"https://github.com/acme/shop"},"sender":{"login":"alice"},"head_commit":{"id":"2222222222222222222222222222222222222222","message":"'$1'"},"commits":[]}'
	sign=$(printf %s "$body" | openssl dgst -sha256 -hmac "$secret" | sed 's/.* //')
	curl -s -m 90 -o /dev/null -w '%{http_code}\n' -H 'X-GitHub-Event: push' -H "X-GitHub-Delivery: $1" -H "X-Hub-Signature-256: sha256=$sign" \
		-H 'Content-Type: application/json' -d "$body" http://127.0.0.1:8484/hooks/github
}

# The lab's root leaves out documentation; a server does not.
rm -f /etc/dpkg/dpkg.cfg.d/*
tree >before.list

# --- install
dpkg -i first.deb 2>&1 | tee install.log
grep -q '^deployhook: installed, and not started: sudo deployhook init sets it up$' install.log || fail "the installation does not say how it goes on"
for user in deployhook deployhook-test deploy; do
	getent passwd "$user" | grep -q nologin || fail "the user $user: $(getent passwd "$user")"
done
id -nG deployhook | grep -qw deployhook-admin || fail "deployhook is not in deployhook-admin"
[ "$(stat -c '%a %U %G' /etc/deployhook)" = "755 root root" ] || fail "/etc/deployhook: $(stat -c '%a %U %G' /etc/deployhook)"
[ -z "$(ls -A /etc/deployhook)" ] || fail "the package writes a config"
for unit in $(units); do
	if systemctl is-enabled --quiet "$unit" || systemctl is-active --quiet "$unit"; then fail "$unit is enabled or runs before there is a config"; fi
done
grep -rl /usr/local/bin /usr/lib/systemd/system/deployhook* && fail "a unit of the package calls /usr/local/bin"
[[ "$(deployhook version)" == "deployhook "* && "$(deployhook version)" != *99.0.0* ]] || fail "$(deployhook version)"
zcat /usr/share/man/man1/deployhook.1.gz | grep -q DEPLOYHOOK || fail "the man page"
bash -c 'source /usr/share/bash-completion/completions/deployhook' || fail "bash does not take its completion"
deployhook check /usr/share/doc/deployhook/deploy.yaml.example >/dev/null 2>check.log || fail "the example: $(cat check.log)"
for unit in /usr/lib/systemd/system/deployhook*; do
	systemd-analyze verify "$unit" 2>&1 | grep deployhook && fail "systemd-analyze verify has something to say of $unit"
done
ok "installed: users, units, man pages, completions, and nothing runs"

# --- configure: the config of this test, all else by init
configure() {
	install -D -m 0644 config.yaml /etc/deployhook/deploy.yaml
	deployhook init --dry-run >init.log 2>&1 || fail "init --dry-run: $(cat init.log)"
	[ ! -e /etc/deployhook/init.list ] || fail "a dry run changes something"
	deployhook init >init.log 2>&1 || fail "init: $(cat init.log)"
	grep -q '^  Payload URL ' init.log || fail "init does not print GitHub's form: $(cat init.log)"
	grep -q '/etc/systemd/system/deployhook.service ' init.log && fail "init writes units beside the package's"
	secret=$(cat /etc/deployhook/credentials/github-webhook)
}
secret=none
configure
until_ "it is ready" readyz
deployhook trigger shop --branch main --wait || fail "the first deploy"
[ "$(cat /srv/shop/current/server.js)" = "// one" ] || fail "what is live: $(cat /srv/shop/current/server.js)"
[ "$(push first)" = 200 ] || fail "a signed push"
ok "configured, and deployed once"

# --- upgrade while a run is going on, and pushes come
mkdir -m 0755 /opt/gate
echo "# by hand" >>/etc/deployhook/deploy.yaml
systemctl reload deployhook
config=$(sha256sum /etc/deployhook/deploy.yaml)
enabled=$(for unit in $(units); do echo "$unit $(systemctl is-enabled "$unit")"; done)
run=$(deployhook trigger slow)
until_ "its step runs" sh -c "deployhook logs $run | grep -q begun"
pid=$(show MainPID)
(
	for ((i = 0; i < 3000; i++)); do
		[ ! -e upgraded ] || break
		push "upgrade-$i" || true
	done >pushes.log
) &
pushes=$!
dpkg -i second.deb >upgrade.log 2>&1 &
dpkg=$!
until_ "the upgrade asks the daemon to end" is ActiveState deactivating
touch /opt/gate/go
wait $dpkg || fail "the upgrade: $(cat upgrade.log)"
until_ "it is ready" readyz
for _ in 1 2 3; do push "after-$_" >>after.log; done
touch upgraded
wait $pushes
[ "$(show MainPID)" != "$pid" ] || fail "the daemon was not restarted"
[ "$(deployhook version | cut -d' ' -f1-2)" = "deployhook 99.0.0" ] || fail "$(deployhook version)"
[ "$(readlink "/proc/$(show MainPID)/exe")" = /usr/bin/deployhook ] || fail "the old binary runs: $(readlink "/proc/$(show MainPID)/exe")"
until_ "the run has ended" has_state "$run" succeeded
deployhook run "$run" | grep -q 'attempt 2' && fail "the run that the grace was long enough for was begun again"
refused=$(grep -vc '^20[02]$' pushes.log || true)
[ "$refused" = 0 ] || fail "$refused of $(wc -l <pushes.log) pushes were refused: $(sort pushes.log | uniq -c)"
[ "$(wc -l <pushes.log)" -ge 2 ] || fail "only $(wc -l <pushes.log) pushes came during the upgrade"
[ "$(sha256sum /etc/deployhook/deploy.yaml)" = "$config" ] || fail "the upgrade changed the config"
[ "$(for unit in $(units); do echo "$unit $(systemctl is-enabled "$unit")"; done)" = "$enabled" ] || fail "the upgrade changed what is enabled"
ok "upgraded while a run went on: it survived, and none of $(wc -l <pushes.log) pushes was refused"

rm /opt/gate/go
sed -i 's/shutdown_grace: 30s/shutdown_grace: 1s/' /etc/deployhook/deploy.yaml
systemctl restart deployhook
until_ "it is ready" readyz
run=$(deployhook trigger slow)
until_ "its step runs" sh -c "deployhook logs $run | grep -q begun"
dpkg -i first.deb >downgrade.log 2>&1 || fail "going back: $(cat downgrade.log)"
until_ "the run is taken up again" sh -c "deployhook run $run | grep -q 'attempt 2'"
touch /opt/gate/go
until_ "the run has ended" has_state "$run" succeeded
ok "a run that the grace was too short for goes on as its on_crash says, with the version before"

# --- a config that the new version would not take
pid=$(show MainPID)
cp -p /etc/deployhook/deploy.yaml good.yaml
echo 'pipelinse: {}' >>/etc/deployhook/deploy.yaml
dpkg -i second.deb >bad.log 2>&1 || fail "an upgrade fails because of the config"
grep -q 'this version does not take /etc/deployhook/deploy.yaml, so the one before goes on running' bad.log || fail "a bad config is not named: $(cat bad.log)"
[[ "$(show MainPID)" = "$pid" && "$(push bad-config)" = 200 ]] || fail "a bad config ended the daemon"
cp -p good.yaml /etc/deployhook/deploy.yaml
systemctl restart deployhook
ok "an upgrade leaves a daemon alone whose config the new version does not take"

# --- what was installed by hand counts over the package, and it says so
install -D -m 0755 /usr/bin/deployhook /usr/local/bin/deployhook
cp /usr/lib/systemd/system/deployhook.service /etc/systemd/system/
dpkg -i second.deb >byhand.log 2>&1
grep -q '/etc/systemd/system/deployhook.service hides the unit of the package' byhand.log || fail "a unit by hand is not named: $(cat byhand.log)"
grep -q '/usr/local/bin/deployhook comes before' byhand.log || fail "a binary by hand is not named: $(cat byhand.log)"
rm /usr/local/bin/deployhook /etc/systemd/system/deployhook.service
systemctl daemon-reload
hash -r
ok "what make install left is named"

# --- remove
dpkg -r deployhook >remove.log 2>&1 || fail "$(cat remove.log)"
pgrep -u deployhook >/dev/null && fail "left running: $(pgrep -au deployhook)"
[ ! -e /usr/bin/deployhook ] || fail "the binary is still there"
has deployhook.service && fail "the unit is still there"
find /etc/systemd/system -name 'deployhook*' -type l | grep . && fail "still enabled"
[[ -e /etc/deployhook/deploy.yaml && -e /var/lib/deployhook/deployhook.db && -e /srv/shop/current/server.js ]] || fail "removing took config, data or releases"
ok "removed: nothing runs, config, data and releases are kept"

dpkg -i second.deb >again.log 2>&1 || fail "$(cat again.log)"
systemctl is-active --quiet deployhook && fail "a second installation starts it"
grep -q 'not started: sudo deployhook init' again.log && fail "it asks for init beside a config"
for unit in $(units); do systemctl enable --now "$unit" 2>/dev/null; done
until_ "it is ready" readyz
deployhook run "$run" | grep -q slow || fail "the runs are gone"
ok "installed again: it has its config and its runs"

# --- purge
dpkg -P deployhook 2>&1 | tee purge.log
grep -q '^deployhook: kept /srv/shop$' purge.log || fail "the releases are not named"
grep -q '^deployhook: kept the users deployhook, deployhook-test and deploy' purge.log || fail "the users are not named"
[ "$(cat /srv/shop/current/server.js)" = "// one" ] || fail "the purge took a release"
grep -qE 'warning|cannot|could not|No such' purge.log && fail "the purge complains"
tree >after.list
left=$(comm -13 before.list after.list)
[ -z "$left" ] || fail "the purge left: $left"
gone=$(comm -23 before.list after.list)
[ -z "$gone" ] || fail "something else is gone: $gone"
systemctl list-unit-files 'deployhook*' --no-legend | grep . && fail "systemd still knows units"
ok "purged: nothing of it is left but releases and users, and it says so"

# --- releases where data was
dpkg -i first.deb >last.log 2>&1
mkdir -p /var/lib/deployhook-agent/shop/releases /var/lib/deployhook
echo 'pipelines: { shop: { jobs: { deploy: { release: { path: "/var/lib/deployhook-agent/shop" }, steps: [] } } } }' >/etc/deployhook/deploy.yaml
dpkg -P deployhook >last.log 2>&1
[ -d /var/lib/deployhook-agent/shop/releases ] || fail "the purge took releases"
[ ! -e /var/lib/deployhook ] || fail "/var/lib/deployhook is left"
grep -q 'kept /var/lib/deployhook-agent: it has the releases of /var/lib/deployhook-agent/shop' last.log || fail "not named: $(cat last.log)"
dpkg -i first.deb >last.log 2>&1
mkdir -p /var/lib/deployhook/one /var/lib/deployhook-test/two/.deployhook /srv/data
ln -s /var/lib/deployhook/one /srv/one
rm -r /var/lib/deployhook-agent
ln -s /srv/data /var/lib/deployhook-agent
touch /var/lib/deployhook-test/two/.deployhook/releases.ndjson
printf 'pipelines: { a: { jobs: { b: { release: "/srv/none" }, c: { release: /srv/one } } } }\n# release: /srv/shop\n' >/etc/deployhook/deploy.yaml
dpkg -P deployhook >last.log 2>&1
[[ -d /var/lib/deployhook/one && -d /var/lib/deployhook-test/two && -d /srv/data ]] || fail "the purge took releases"
[ ! -L /var/lib/deployhook-agent ] || fail "a link is left"
grep -q '^deployhook: kept /var/lib/deployhook: it has the releases of /srv/one$' last.log || fail "not named: $(cat last.log)"
grep -q '^deployhook: kept /var/lib/deployhook-test: it has the releases of /var/lib/deployhook-test/two$' last.log || fail "not named: $(cat last.log)"
grep -q '^deployhook: kept /srv/data, to which /var/lib/deployhook-agent pointed$' last.log || fail "not named: $(cat last.log)"
grep -q 'kept /srv/shop' last.log && fail "a comment is taken for a path"
rm -r /var/lib/deployhook /var/lib/deployhook-test /srv/one
ok "releases below a directory of deployhook's own are kept too"

# --- a machine without systemd-sysusers
for user in deployhook deployhook-test deploy; do userdel "$user"; done
groupdel deployhook-admin
mv /usr/bin/systemd-sysusers /usr/bin/away
dpkg -i first.deb >useradd.log 2>&1 || fail "$(cat useradd.log)"
mv /usr/bin/away /usr/bin/systemd-sysusers
[ "$(getent passwd deployhook-test | cut -d: -f5-)" = "deployhook test jobs:/var/lib/deployhook-test:/usr/sbin/nologin" ] || fail "useradd: $(getent passwd deployhook-test)"
getent passwd deploy >/dev/null || fail "no user deploy"
id -nG deployhook | grep -qw deployhook-admin || fail "deployhook is not in deployhook-admin"
[ "$(stat -c '%a %U %G' /etc/deployhook)" = "755 root root" ] || fail "/etc/deployhook: $(stat -c '%a %U %G' /etc/deployhook)"
ok "without systemd-sysusers the users are made too"

# --- as rpm calls the scripts: the new one's with 2, then the old one's with 1
configure
until_ "it is ready" readyz
pid=$(show MainPID)
sh postinst 2 || fail "an upgrade by rpm"
[ "$(show MainPID)" != "$pid" ] || fail "rpm's upgrade does not restart it"
pid=$(show MainPID)
sh prerm 1 || fail "an upgrade by rpm"
sh postrm 1 || fail "an upgrade by rpm"
[[ "$(show MainPID)" = "$pid" && "$(systemctl is-enabled deployhook)" = enabled ]] || fail "the old package's scripts touch the new one's daemon"
sh prerm 0 || fail "a removal by rpm"
systemctl is-active --quiet deployhook && fail "it still runs"
systemctl is-enabled --quiet deployhook && fail "it is still enabled"
sh postrm 0 >rpm.log || fail "a removal by rpm"
grep -q '^deployhook: kept: /etc/deployhook, /var/lib/deployhook' rpm.log || fail "it does not say what is kept: $(cat rpm.log)"
[ -e /etc/deployhook/deploy.yaml ] || fail "the config is gone"
sh postinst 1 >rpm.log || fail "an installation by rpm"
systemctl is-active --quiet deployhook && fail "an installation starts it"
ok "rpm's arguments do the same"

# --- the .tar.gz, as docs/packages.md says
dpkg -P deployhook >/dev/null 2>&1
for user in deployhook deployhook-test deploy; do userdel "$user"; done
groupdel deployhook-admin
chmod 2775 /usr/local /usr/local/bin
tar -xzf first.tar.gz -C /usr/local --strip-components=1 --no-overwrite-dir
[ "$(stat -c %a /usr/local) $(stat -c %a /usr/local/bin)" = "2775 2775" ] || fail "the .tar.gz changes /usr/local: $(stat -c %a /usr/local)"
systemd-sysusers deployhook.conf
systemctl daemon-reload
hash -r
[ "$(command -v deployhook)" = /usr/local/bin/deployhook ] || fail "$(command -v deployhook)"
[ "$(show FragmentPath)" = /usr/local/lib/systemd/system/deployhook.service ] || fail "systemd takes the unit from $(show FragmentPath)"
id -nG deployhook | grep -qw deployhook-admin || fail "deployhook is not in deployhook-admin"
configure
until_ "it is ready" readyz
[ "$(readlink "/proc/$(show MainPID)/exe")" = /usr/local/bin/deployhook ] || fail "$(readlink "/proc/$(show MainPID)/exe") runs"
ok "the .tar.gz works below /usr/local"
echo "all held"
