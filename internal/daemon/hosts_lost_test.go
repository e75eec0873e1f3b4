package daemon_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"deployhook/internal/host/hosttest"
)

// lostConfig deploys to web1 and web2. A commit that says "hang" and when holds
// web2 up there, once for each such text.
func (f *fleet) lostConfig() string {
	hang := func(when string) string {
		m := f.path("hung-$(cat index.txt)")
		return `if [ $DEPLOYHOOK_HOST = web2 ] && grep -q "hang-` + when + `" index.txt && [ ! -e "` + m + `" ]; then touch "` + m + `"; sleep 1000; fi`
	}
	return f.config(`
      deploy:
        hosts: [web1, web2]
        release: ` + f.path("srv") + `
        steps: [ { name: build, run: 'cp index.txt built.txt; ` + hang("step") + `' } ]
        restart: '` + f.restarts() + `; ` + hang("restart") + `'
`)
}

// hangs pushes a text and waits until web2 is held up by it.
func (f *fleet) hangs(text string) int64 {
	f.t.Helper()
	id := f.push(text)
	f.until(text+" is held up", func() bool { return f.exists("hung-" + text) })
	return id
}

// sends pushes a text with a file that takes a slow line seconds, and waits
// until some of it is on its way.
func (f *fleet) sends(text string, line *hosttest.Proxy) int64 {
	f.t.Helper()
	big := make([]byte, 4<<20)
	_, _ = rand.Read(big)
	if err := os.WriteFile(filepath.Join(f.repo(), "big.bin"), big, 0o644); err != nil {
		f.t.Fatal(err)
	}
	line.Limit(1 << 20)
	before, _ := line.Bytes()
	id := f.push(text)
	f.until("the tree is on its way", func() bool { up, _ := line.Bytes(); return up > before+1<<20 })
	return id
}

func TestConnectionThatIsCutFailsOrIsSettled(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	line := f.behind(1)
	f.start(f.lostConfig())
	f.want(f.push("one"), "succeeded")

	id := f.hangs("hang-step")
	line.Cut()
	r := f.want(id, "failed")
	saying(t, why(r), "job deploy: web2: step build: ")
	f.everywhere("one")

	id = f.sends("tree", line)
	line.Cut()
	line.Limit(0)
	r = f.want(id, "failed")
	saying(t, why(r), "job deploy: web2: ")
	f.everywhere("one")
	if got := f.restarted(0); got != "one" {
		t.Errorf("web1 was restarted on %q", got)
	}

	id = f.hangs("hang-restart")
	line.Cut()
	f.want(id, "succeeded")
	f.everywhere("hang-restart")
	if got := f.restarted(1); got != "one hang-restart hang-restart" {
		t.Errorf("web2 was restarted on %q", got)
	}
}

func TestConnectionThatFallsSilentFailsOrIsSettled(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	line := f.behind(1)
	f.start(f.lostConfig())
	f.want(f.push("one"), "succeeded")

	id := f.hangs("hang-step")
	line.Freeze()
	r := f.want(id, "failed")
	saying(t, why(r), "job deploy: web2: step build: ")
	f.everywhere("one")
	line.Thaw()

	id = f.hangs("hang-restart")
	line.Freeze()
	f.until("the switch is cut short", func() bool { return strings.Contains(f.log.String(), "the switch was cut short") })
	line.Thaw()
	f.wantLong(id, "succeeded")
	f.everywhere("hang-restart")
}

func TestConnectionThatFallsSilentWhileATreeIsSentFails(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	line := f.behind(1)
	f.start(f.lostConfig())
	f.want(f.push("one"), "succeeded")
	id := f.sends("tree", line)
	line.Freeze()
	line.Limit(0)
	r := f.wantLong(id, "failed")
	saying(t, why(r), "job deploy: web2: ")
	f.everywhere("one")
	line.Thaw()
	f.want(f.push("two"), "succeeded")
	f.everywhere("two")
}

func TestSessionThatIsKilledWithinASwitchIsSettled(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	f.start(f.config(`
      deploy:
        hosts: [web1, web2]
        release: ` + f.path("srv") + `
        steps: [ { run: 'cp index.txt built.txt' } ]
        restart: '` + f.restarts() + `; [ "$DEPLOYHOOK_HOST$(cat index.txt)" = web2kills ] && [ ! -e ` + f.path("killed") + ` ] || exit 0; touch ` + f.path("killed") + `; read -r _ _ _ sshd _ < /proc/$PPID/stat; kill -KILL "$sshd"; sleep 1000'
`))
	f.want(f.push("one"), "succeeded")
	f.want(f.push("kills"), "succeeded")
	f.everywhere("kills")
	if got := f.restarted(1); !f.exists("killed") || got != "one kills kills" {
		t.Errorf("web2 was restarted on %q", got)
	}
}

func TestCancelAndStopDuringASwitchPutAllHostsBack(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	f.start(f.lostConfig())
	f.want(f.push("one"), "succeeded")
	id := f.hangs("hang-restart-1")
	f.wantOn("hang-restart-1", "hang-restart-1")
	f.cancel(id)
	r := f.want(id, "canceled")
	saying(t, why(r), "by ", "; on web1, web2 ", "is current again")
	f.everywhere("one")

	id = f.hangs("hang-step-2")
	f.cancel(id)
	f.want(id, "canceled")

	id = f.hangs("hang-restart-3")
	f.stop() // longer than the grace
	f.everywhere("one")
	f.start(f.lostConfig())
	if r := f.want(id, "succeeded"); r.Jobs[0].Attempt != 2 {
		t.Errorf("the deploy took %d attempts", r.Jobs[0].Attempt)
	}
	f.everywhere("hang-restart-3")
}

func TestPathThatOnlyAPersonCanSettleIsBlockedOnItsHost(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	f.start(f.config(""))
	f.want(f.push("one"), "succeeded")
	command := func(host string) string { return "deployhook unlock " + host + ":" + f.path("srv") + " --abandon" }

	// Cut short on web1, and web2 has somebody else's switch by then.
	f.failAt(0, "daemon", "linked")
	id := f.push("two")
	f.died()
	foreign := filepath.Join(f.hosts[1].Root, ".deployhook", "intent.json")
	if err := os.WriteFile(foreign, []byte(`{"format":1,"daemon":"other","run":1,"job":"deploy","attempt":1,"from":null,"to":"releases/20260101T000000Z-1234567","phase":"switching"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	f.start(f.config(""))
	r := f.want(id, "lost")
	saying(t, why(r), "web2: another deployhook left an unfinished switch here", command("web2"), "on web1 ", "is current again")
	if strings.Contains(why(r), command("web1")) {
		t.Errorf("web1 is blocked too: %s", why(r))
	}
	if got := stands(r.Jobs[0]); !strings.HasPrefix(got, "web1 canceled put_back; web2 lost prepared (web2: another deployhook left an unfinished switch here") {
		t.Errorf("the hosts stand %s", got)
	}
	f.everywhere("one")
	next := f.push("three")
	f.until("the next deploy says how to go on", func() bool { return strings.Contains(text(f.job(next, "deploy").WaitingFor), command("web2")) })
	if _, err := f.client.Abandon(t.Context(), "web2", f.path("srv")); err != nil {
		t.Fatal(err)
	}
	f.want(next, "succeeded")
	f.everywhere("three")
	f.stop()

	// With on_crash: stop nothing goes on by itself where the switch was made.
	f.extra = "        on_crash: stop\n"
	f.start(f.config(""))
	f.failAt(0, "daemon", "linked")
	id = f.push("four")
	f.died()
	f.start(f.config(""))
	r = f.want(id, "lost")
	saying(t, why(r), command("web1"), "on_crash is stop")
	if strings.Contains(why(r), command("web2")) {
		t.Errorf("web2 is blocked too: %s", why(r))
	}
	if got := stands(r.Jobs[0]); !strings.HasPrefix(got, "web1 lost switched (the switch to ") || !strings.HasSuffix(got, "; web2 canceled prepared") {
		t.Errorf("the hosts stand %s", got)
	}
	f.wantOn("four", "three")
	next = f.push("five")
	f.until("the next deploy says how to go on", func() bool { return strings.Contains(text(f.job(next, "deploy").WaitingFor), command("web1")) })
	if _, err := f.client.Abandon(t.Context(), "web1", f.path("srv")); err != nil {
		t.Fatal(err)
	}
	f.want(next, "succeeded")
	f.everywhere("five")
}

func TestSecretsAreInNoCommandLineAndOneNameIsForAllHosts(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	f.start(f.config(`
      deploy:
        hosts: [web1, web2]
        secrets: { KEY: { environment: TEST_SECRET } }
        release: ` + f.path("srv") + `
        steps: [ { run: 'cp index.txt built.txt; echo "the key is $KEY"; for i in 1 2 3 4 5; do sh -c "sleep 0.1"; done' } ]
`))
	stop, leaks := make(chan struct{}), make(chan string, 1)
	go func() {
		defer close(leaks)
		for {
			select {
			case <-stop:
				return
			default:
			}
			lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, name := range lines {
				if b, err := os.ReadFile(name); err == nil && strings.Contains(string(b), secret) {
					leaks <- strings.ReplaceAll(string(b), "\x00", " ")
					return
				}
			}
		}
	}()
	id := f.push("one")
	r := f.want(id, "succeeded")
	close(stop)
	if leak, ok := <-leaks; ok {
		t.Errorf("a command line has the secret: %s", leak)
	}
	log := f.logOf(id)
	if strings.Count(log, "the key is ***") != 2 || strings.Contains(log, secret) {
		t.Errorf("the log is\n%s", log)
	}
	key, err := os.ReadFile(f.hosts[0].Identity)
	if err != nil || strings.Contains(f.log.String(), strings.Split(string(key), "\n")[1]) {
		t.Errorf("the daemon's log has the key of a host, %v", err)
	}
	if len(r.Jobs[0].Hosts) != 2 {
		t.Errorf("the hosts are %+v", r.Jobs[0].Hosts)
	}

	// The name of a release that exists on one host is for none.
	f.stop()
	f.last = f.commit("two")
	for i := range 100 {
		at := fmt.Sprintf("%s-%s", timeAfter(i), f.last[:7])
		if err := os.Mkdir(filepath.Join(f.hosts[1].Root, "releases", at), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f.start(f.config(""))
	f.want(f.send(strings.Repeat("0", 40), f.last).Runs[0], "succeeded")
	f.everywhere("two")
	for _, h := range f.hosts {
		target, err := os.Readlink(filepath.Join(h.Root, "current"))
		if err != nil || !strings.HasSuffix(target, f.last[:7]+"-2") {
			t.Errorf("current of %s is %s, %v", h.Name, target, err)
		}
	}
}

func TestInPlaceGoesFromHostToHostAndSaysWhichHasWhat(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	config := f.config(`
      deploy:
        hosts: [web1, web2, web3]
        release: { path: ` + f.path("srv") + `, strategy: in_place }
        steps: [ { name: build, run: 'cp index.txt built.txt; ! grep -q "broken.*$DEPLOYHOOK_HOST" index.txt' } ]
        restart: 'echo "$(cat index.txt)" >> ` + f.path("restarts-$DEPLOYHOOK_HOST") + `; ! grep -q "crash.*$DEPLOYHOOK_HOST" index.txt'
`)
	f.start(config)
	has := func(want ...string) {
		t.Helper()
		for i, w := range want {
			b, err := os.ReadFile(filepath.Join(f.hosts[i].Root, "index.txt"))
			if got := strings.TrimSpace(string(b)); err != nil || got != w {
				t.Errorf("%s has %q, %v; want %q", f.hosts[i].Name, got, err, w)
			}
		}
	}
	f.want(f.push("one"), "succeeded")
	has("one", "one", "one")
	one := f.last[:7]
	r := f.want(f.push("broken-web2"), "failed")
	saying(t, why(r), "job deploy: web2: step build: exit status 1; the files in ", "stay those of commit "+f.last[:7],
		"; web1 has commit "+f.last[:7]+"; web3 was not changed and has commit "+one)
	has("broken-web2", "broken-web2", "one")

	// A file that was changed by hand on one host stops it before any is changed.
	if err := os.WriteFile(filepath.Join(f.hosts[2].Root, "index.txt"), []byte("by hand\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r = f.want(f.push("two"), "failed")
	saying(t, why(r), "job deploy: web3: ", "index.txt")
	has("broken-web2", "broken-web2", "by hand")
	if err := os.WriteFile(filepath.Join(f.hosts[2].Root, "index.txt"), []byte("one\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f.want(f.push("three"), "succeeded")
	has("three", "three", "three")

	// Cut short between two hosts, it goes on with those that are left.
	f.failAt(1, "daemon", "in-place-renamed")
	id := f.push("four")
	f.died()
	has("four")
	f.start(config)
	f.want(id, "succeeded")
	has("four", "four", "four")
	if got := f.restarted(0); strings.Count(got, "four") != 1 {
		t.Errorf("web1, which was done, was restarted on %q", got)
	}
	// A rollback goes from host to host, too.
	got, err := f.client.Rollback(t.Context(), rollback(""))
	if err != nil {
		t.Fatal(err)
	}
	f.want(got.Run, "succeeded")
	has("three", "three", "three")
}
