package deploy

import (
	"strings"
	"testing"
	"time"
)

// at reads a time with its offset, or without one in UTC.
func at(t testing.TB, text string) time.Time {
	t.Helper()
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04"} {
		if v, err := time.Parse(layout, text); err == nil {
			return v
		}
	}
	t.Fatalf("%q is no time", text)
	return time.Time{}
}

func cronOf(t testing.TB, text, zone string) *Cron {
	t.Helper()
	c, err := ParseCron(text, zone)
	if err != nil {
		t.Fatalf("%s %s: %v", text, zone, err)
	}
	return c
}

func TestScheduleComesWhenItsFieldsSay(t *testing.T) {
	for _, tt := range []struct {
		cron, zone, after string
		want              []string
	}{
		{"0 2 * * *", "", "2026-04-01T01:59:59", []string{"2026-04-01T02:00", "2026-04-02T02:00"}},
		{"0 2 * * *", "", "2026-04-01T02:00", []string{"2026-04-02T02:00"}},
		{"*/15 * * * *", "", "2026-04-01T23:46", []string{"2026-04-02T00:00", "2026-04-02T00:15", "2026-04-02T00:30"}},
		{"*/10 * * * * *", "", "2026-12-31T23:59:45", []string{"2026-12-31T23:59:50", "2027-01-01T00:00:00", "2027-01-01T00:00:10"}},
		{"5/20 * * * *", "", "2026-04-01T00:00", []string{"2026-04-01T00:05", "2026-04-01T00:25", "2026-04-01T00:45", "2026-04-01T01:05"}},
		{"0 9-17/4 * * MON-FRI", "", "2026-04-03T10:00", []string{"2026-04-03T13:00", "2026-04-03T17:00", "2026-04-06T09:00"}},
		{"0 0 * * 7", "", "2026-04-01T00:00", []string{"2026-04-05T00:00", "2026-04-12T00:00"}},
		{"0 0 * * sun,6", "", "2026-04-01T00:00", []string{"2026-04-04T00:00", "2026-04-05T00:00"}},
		{"0 0 * * 5-7", "", "2026-04-01T00:00", []string{"2026-04-03T00:00", "2026-04-04T00:00", "2026-04-05T00:00", "2026-04-10T00:00"}},
		{"0 0 1 jan,JUL *", "", "2026-04-01T00:00", []string{"2026-07-01T00:00", "2027-01-01T00:00"}},
		// Both restricted: either is enough; with * before a step both count.
		{"0 0 13 * FRI", "", "2026-04-08T00:00", []string{"2026-04-10T00:00", "2026-04-13T00:00", "2026-04-17T00:00"}},
		{"0 0 */2 * MON", "", "2026-04-01T00:00", []string{"2026-04-13T00:00", "2026-04-27T00:00"}},
		{"0 0 29 2 *", "", "2026-01-01T00:00", []string{"2028-02-29T00:00", "2032-02-29T00:00"}},
		{"0 0 29 2 *", "", "2096-02-29T00:00", []string{"2104-02-29T00:00"}}, // 2100 has none
		{"0 0 31 * *", "", "2026-03-31T00:00", []string{"2026-05-31T00:00", "2026-07-31T00:00"}},
		{"@hourly", "", "2026-04-01T00:30", []string{"2026-04-01T01:00"}},
		{"@daily", "Asia/Kolkata", "2026-04-01T00:00:00Z", []string{"2026-04-02T00:00:00+05:30"}},
		{"@weekly", "", "2026-04-01T00:00", []string{"2026-04-05T00:00"}},
		{"@monthly", "", "2026-04-01T00:00", []string{"2026-05-01T00:00"}},
		{"@Yearly", "", "2026-04-01T00:00", []string{"2027-01-01T00:00"}},

		// Berlin goes from 02:00 to 03:00 on 2026-03-29: 02:30 is not there, and
		// comes at once after the change. It goes from 03:00 back to 02:00 on
		// 2026-10-25: 02:30 is there twice, and comes the first time.
		{"30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", []string{"2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"}},
		{"*/10 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", []string{"2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"}},
		{"0 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", []string{"2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"}},
		{"30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", []string{"2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"}},
		{"30 2 * * *", "Europe/Berlin", "2026-10-25T02:30:00+02:00", []string{"2026-10-26T02:30:00+01:00"}},
		{"30 2 * * *", "Europe/Berlin", "2026-10-25T02:10:00+01:00", []string{"2026-10-26T02:30:00+01:00"}},
		{"0 3 * * *", "Europe/Berlin", "2026-10-25T02:59:59+02:00", []string{"2026-10-25T03:00:00+01:00"}},
		// Every hour goes by the hours that pass.
		{"30 * * * *", "Europe/Berlin", "2026-03-29T01:00:00+01:00", []string{"2026-03-29T01:30:00+01:00", "2026-03-29T03:30:00+02:00", "2026-03-29T04:30:00+02:00"}},
		{"0 * * * *", "Europe/Berlin", "2026-03-29T01:00:00+01:00", []string{"2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00"}},
		{"30 * * * *", "Europe/Berlin", "2026-10-25T02:00:00+02:00", []string{"2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25T03:30:00+01:00"}},
		{"0 * * * *", "Europe/Berlin", "2026-10-25T02:00:00+02:00", []string{"2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00"}},
		{"59 59 * * * *", "Europe/Berlin", "2026-10-25T02:30:00+02:00", []string{"2026-10-25T02:59:59+02:00", "2026-10-25T02:59:59+01:00"}},
		// New York, the other way round of the year in Sydney, half an hour on Lord Howe.
		{"30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", []string{"2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"}},
		{"30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", []string{"2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"}},
		{"30 2 * * *", "Australia/Sydney", "2026-10-03T00:00:00Z", []string{"2026-10-04T03:00:00+11:00", "2026-10-05T02:30:00+11:00"}},
		{"15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", []string{"2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"}},
		{"45 1 * * *", "Australia/Lord_Howe", "2026-04-03T20:00:00Z", []string{"2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"}},
		// Midnight is not there in Beirut, a whole day was not in Samoa.
		{"0 0 * * *", "Asia/Beirut", "2026-03-28T12:00:00Z", []string{"2026-03-29T01:00:00+03:00", "2026-03-30T00:00:00+03:00"}},
		{"0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00-10:00", []string{"2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"}},
		{"0 * * * *", "Pacific/Apia", "2011-12-29T23:00:00-10:00", []string{"2011-12-31T00:00:00+14:00", "2011-12-31T01:00:00+14:00"}},
	} {
		c, next := cronOf(t, tt.cron, tt.zone), at(t, tt.after)
		for _, want := range tt.want {
			if next = c.Next(next); !next.Equal(at(t, want)) {
				t.Errorf("%s after %s comes at %s, want %s", c, tt.after, next.Format(time.RFC3339), want)
				break
			}
		}
	}
}

func TestScheduleNonsenseIsOneSentence(t *testing.T) {
	for _, tt := range []struct{ cron, zone, want string }{
		{"", "", "this has 0"},
		{"* * * *", "", "five fields (minute hour day month weekday), or six with seconds first; this has 4"},
		{"* * * * * * *", "", "this has 7"},
		{"60 * * * *", "", `minute "60": 0 to 59 or * is wanted`},
		{"-1 * * * *", "", `minute "": 0 to 59 or * is wanted`},
		{"+1 * * * *", "", `minute "+1"`},
		{"* 24 * * *", "", `hour "24"`},
		{"* * 0 * *", "", `day "0": 1 to 31 or * is wanted`},
		{"* * * 13 *", "", `month "13": 1 to 12, JAN to DEC or * is wanted`},
		{"* * * * 8", "", `weekday "8": 0 to 7, SUN to SAT or * is wanted`},
		{"* * * * MONDAY", "", `weekday "MONDAY"`},
		{"*/0 * * * *", "", `minute "*/0": a step is a number from 1 to 59`},
		{"*/60 * * * *", "", "a step is a number from 1 to 59"},
		{"*/x * * * *", "", "a step is a number"},
		{"*/ * * * *", "", "a step is a number"},
		{"5-1 * * * *", "", "the range runs backwards"},
		{"0 0 * * FRI-MON", "", "the range runs backwards"},
		{"1,,2 * * * *", "", `minute ""`},
		{"1-2-3 * * * *", "", `minute "2-3"`},
		{"* * L * *", "", `day "L"`},
		{"? * * * *", "", `minute "?"`},
		{"99999999999999999999 * * * *", "", "minute"},
		{"0 0 30 2 *", "", "this time never comes: no such month has such a day"},
		{"0 0 31 4,6,9,11 *", "", "this time never comes"},
		{"@every 5m", "", `"@every 5m" is none of @hourly, @daily`},
		{"@reboot", "", "is none of"},
		{"TZ=UTC * * * * *", "", "the zone stands in timezone"},
		{"0 0 * * *", "Mars/Olympus", `"Mars/Olympus" is no time zone: a name like Europe/Berlin is wanted`},
		{"0 0 * * *", "../../etc/passwd", "is no time zone"},
		{"0 0 * * *", "/etc/localtime", "is no time zone"},
		{"0 0 * * *", "Local", "is no time zone"},
		{strings.Repeat("*", 201), "", "the schedule has 201 bytes; at most 200 are allowed"},
		{"0\x00 * * * *", "", `minute "0?"`},
	} {
		c, err := ParseCron(tt.cron, tt.zone)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("%q %q: %v, %v; want %q", tt.cron, tt.zone, c, err, tt.want)
		}
	}
}

// In a whole year of a zone that changes its clocks, each time comes once and
// in order, and every hour as often as hours pass.
func TestYearHasEachTimeOnce(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		cron string
		want int
	}{{"30 2 * * *", 365}, {"0 0 * * *", 365}, {"0 * * * *", 8760}, {"*/20 1-3 * * *", 365*9 - 3}} {
		c := cronOf(t, tt.cron, "Europe/Berlin")
		end := time.Date(2026, 12, 31, 23, 59, 59, 0, c.zone)
		n := 0
		for next := c.Next(time.Date(2025, 12, 31, 23, 59, 59, 0, c.zone)); !next.After(end); n++ {
			later := c.Next(next)
			if !later.After(next) {
				t.Fatalf("%s: after %v comes %v", c, next, later)
			}
			next = later
		}
		if n != tt.want {
			t.Errorf("%s came %d times, want %d", c, n, tt.want)
		}
	}
}

func FuzzSchedulesComeInOrder(f *testing.F) {
	for _, s := range []string{"0 2 * * *", "*/10 * * * * *", "30 1-3/2 13 jan-mar FRI", "@daily", "0 0 29 2 *", "5/20 * * * 5-7", "0 0 30 2 *", "a b c d e", "*/0 * * * *"} {
		for _, zone := range []string{"", "Europe/Berlin", "Pacific/Apia", "Australia/Lord_Howe", "nowhere"} {
			f.Add(s, zone, int64(1774746000))
		}
	}
	f.Fuzz(func(t *testing.T, text, zone string, seconds int64) {
		c, err := ParseCron(text, zone)
		if err != nil {
			return
		}
		if again, err := ParseCron(c.source, zone); err != nil || again.String() != c.String() {
			t.Fatalf("%q is read as %q, which is read as %v, %v", text, c, again, err)
		}
		last := time.Unix(((seconds%1e10)+1e10)%1e10, 0)
		for range 20 {
			next := c.Next(last)
			if next.IsZero() {
				t.Fatalf("%q after %v never comes", c, last)
			}
			if !next.After(last) || next.Nanosecond() != 0 {
				t.Fatalf("%q after %v comes at %v", c, last, next)
			}
			last = next
		}
	})
}
