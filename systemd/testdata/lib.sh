# What the scripts that run on a real systemd share. They are sourced with
# here= the directory that was copied there.

# grep -q ends at the first hit, and who still writes to it then fails.
grep() {
	case $1 in
	-q) shift && command grep "$@" >/dev/null ;;
	-q*) set -- "-${1#-q}" "${@:2}" && command grep "$@" >/dev/null ;;
	*) command grep "$@" ;;
	esac
}
ok() { echo "ok: $*"; }
fail() {
	said="NOT ok: $*"
	echo "$said"
	exit 1
}
# at_end COMMAND…: what else a failure shows. What failed stands last once more,
# because a long output is cut in its middle.
at_end() {
	show_at_end=("$@")
	trap 'at_line=$LINENO' ERR
	trap ended EXIT
}
ended() {
	local code=$?
	if [ "$code" != 0 ]; then
		"${show_at_end[@]}" || true
		echo "${said-NOT ok: exit status $code after line ${at_line-?}}"
	fi
	exit "$code"
}
# until_ WHAT COMMAND…: waits for a state.
until_() {
	local what=$1 i
	shift
	for ((i = 0; i < 900; i++)); do
		if "$@" >/dev/null 2>&1; then return 0; fi
		sleep 0.1
	done
	fail "waited in vain until $what"
}
show() { systemctl show -p "$1" --value "${2:-deployhook}"; }
state() { deployhook run "$1" --json | grep -m1 '"state"' | cut -d'"' -f4; }
has_state() { [ "$(state "$1")" = "$2" ]; }
readyz() { [ "$(curl -s http://127.0.0.1:8484/readyz)" = ready ]; }
restarted() { [ "$(show MainPID)" != "$1" ] && [ "$(show MainPID)" != 0 ] && readyz; }
