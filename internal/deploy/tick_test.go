package deploy

import (
	"testing"
	"time"
)

// scheduled is a config with one pipeline and schedules.
func scheduled(t testing.TB, crons ...string) *Config {
	t.Helper()
	p := Pipeline{Name: "nightly", Jobs: []Job{{Name: "go", Hosts: []string{Local}}}}
	for _, c := range crons {
		p.On.Schedules = append(p.On.Schedules, ScheduleTrigger{Cron: cronOf(t, c, "")})
	}
	return &Config{Digest: "d", Pipelines: []Pipeline{p}}
}

func TestMissedTicksAreOneThatIsLateAndSaysSo(t *testing.T) {
	for _, tt := range []struct{ cron, last, now, due, next, why string }{
		{"0 2 * * *", "2026-04-01T02:00", "2026-04-02T01:59:59", "", "2026-04-02T02:00", ""},
		{"0 2 * * *", "2026-04-01T02:00", "2026-04-02T02:00", "2026-04-02T02:00", "2026-04-03T02:00", "schedule 0 2 * * *, due at 2026-04-02T02:00:00Z"},
		{"0 2 * * *", "2026-04-01T02:00", "2026-04-02T02:00:59", "2026-04-02T02:00", "2026-04-03T02:00", "schedule 0 2 * * *, due at 2026-04-02T02:00:00Z"},
		{"0 2 * * *", "2026-04-01T02:00", "2026-04-02T05:30", "2026-04-02T02:00", "2026-04-03T02:00",
			"schedule 0 2 * * *, due at 2026-04-02T02:00:00Z, late by 3h30m0s"},
		{"0 2 * * *", "2026-04-01T02:00", "2026-04-03T05:30", "2026-04-03T02:00", "2026-04-04T02:00",
			"schedule 0 2 * * *, due at 2026-04-03T02:00:00Z, late by 3h30m0s; the time before it was missed"},
		{"0 2 * * *", "2026-04-01T02:00", "2026-04-10T02:00", "2026-04-10T02:00", "2026-04-11T02:00",
			"schedule 0 2 * * *, due at 2026-04-10T02:00:00Z, late by 0s; 8 times before it were missed"},
		{"* * * * * *", "2026-01-01T00:00", "2026-04-10T02:00", "2026-04-10T02:00", "2026-04-10T02:00:01",
			"schedule * * * * * *, due at 2026-04-10T02:00:00Z, late by 0s; 1000 times or more before it were missed"},
		{"* * 1 1 2 *", "2025-01-01T00:00", "2026-04-10T02:00", "2026-02-01T01:59:59", "2027-02-01T01:00",
			"schedule * * 1 1 2 *, due at 2026-02-01T01:59:59Z, late by 1632h0m1s; 1000 times or more before it were missed"},
		// A clock that was set back brings nothing a second time.
		{"0 2 * * *", "2026-04-02T02:00", "2026-04-02T01:30", "", "2026-04-03T02:00", ""},
	} {
		cfg, now := scheduled(t, tt.cron), at(t, tt.now)
		clocks := cfg.Clocks()
		clocks[0].Last = at(t, tt.last)
		ticks, next := Due(cfg, clocks, now)
		if !next.Equal(at(t, tt.next)) {
			t.Errorf("%s at %s: the next is %v, want %s", tt.cron, tt.now, next, tt.next)
		}
		if tt.due == "" {
			if len(ticks) > 0 {
				t.Errorf("%s at %s: %+v is due", tt.cron, tt.now, ticks)
			}
			continue
		}
		if len(ticks) != 1 || !ticks[0].Due.Equal(at(t, tt.due)) {
			t.Errorf("%s at %s: %+v is due, want %s", tt.cron, tt.now, ticks, tt.due)
			continue
		}
		d := Plan(cfg, ticks[0].Event())
		if len(d.Runs) != 1 || d.Runs[0].Why != tt.why || d.Runs[0].Event != Scheduled || d.Runs[0].Ref != "" || d.Message != "nightly: run starts: "+tt.why {
			t.Errorf("%s at %s: %q, %+v; want %q", tt.cron, tt.now, d.Message, d.Runs, tt.why)
		}
	}
}

func TestEachScheduleHasItsOwnTicks(t *testing.T) {
	cfg := scheduled(t, "0 2 * * *", "0 3 * * *", "0 4 * * *")
	clocks := cfg.Clocks()
	for i := range clocks {
		clocks[i].Last = at(t, "2026-04-01T12:00")
	}
	clocks = append(clocks, Clock{Pipeline: "gone", Schedule: "0 2 * * *"}, Clock{Pipeline: "nightly", Schedule: "of another time"})
	ticks, next := Due(cfg, clocks, at(t, "2026-04-02T03:30"))
	if len(ticks) != 2 || ticks[0].Schedule != "0 2 * * *" || ticks[1].Schedule != "0 3 * * *" || !next.Equal(at(t, "2026-04-02T04:00")) {
		t.Errorf("%+v are due, and the next comes at %v", ticks, next)
	}
	if d := Plan(cfg, (&Tick{Pipeline: "nightly", Schedule: "1 1 1 1 *"}).Event()); len(d.Runs) > 0 || d.Message != "no pipeline wants a schedule of nightly" {
		t.Errorf("a schedule that is gone: %+v", d)
	}
}

func TestClockThatWasWrongBeginsAnew(t *testing.T) {
	now := at(t, "2026-04-02T03:30")
	clocks := []Clock{{Pipeline: "a", Last: now.Add(23 * time.Hour)}, {Pipeline: "b", Last: now.Add(25 * time.Hour)}, {Pipeline: "c", Last: now}}
	wrong := SetRight(clocks, now)
	if len(wrong) != 1 || wrong[0].Pipeline != "b" || !clocks[1].Last.Equal(now) || clocks[0].Last.Equal(now) {
		t.Errorf("wrong are %+v of %+v", wrong, clocks)
	}
}
