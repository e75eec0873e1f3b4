package deploy

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a machine without zone files knows the zones too
)

// Bounds of a schedule.
const (
	cronBytes = 200       // of its text
	cronYears = 9         // without a time it never comes: from 2096 to 2104 there is no 29 February
	zoneBytes = 64        // of the name of a zone
	dayHours  = 1<<24 - 1 // the set of all hours
)

// Cron is a checked schedule: the times at which a clock on the wall of its
// zone shows what its fields say.
type Cron struct {
	source                        string
	zone                          *time.Location
	second, minute, hour, day     uint64 // sets of numbers, as bits
	month, weekday                uint64
	anyDay, anyWeekday, everyHour bool
}

// cronField is one of the fields, in the order of six.
type cronField struct {
	name     string
	min, max int
	words    []string // names of its numbers, from min on
}

var cronFields = []cronField{
	{"second", 0, 59, nil},
	{"minute", 0, 59, nil},
	{"hour", 0, 23, nil},
	{"day", 1, 31, nil},
	{"month", 1, 12, []string{"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"}},
	{"weekday", 0, 7, []string{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}},
}

// cronNames stand for the schedules that people write most.
var cronNames = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
	"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}

// ParseCron reads five fields (minute, hour, day, month, weekday) or six, with
// seconds first, and the name of a zone as the IANA database has it; empty is
// UTC. A field is *, or a list of numbers, names and ranges, each with a step
// where one is wanted. Where both day and weekday are restricted, either is
// enough. A schedule that never comes is an error. The error is one sentence.
//
// Source: crontab(5) of Vixie cron.
func ParseCron(text, zone string) (*Cron, error) {
	if len(text) > cronBytes {
		return nil, fmt.Errorf("the schedule has %d bytes; at most %d are allowed", len(text), cronBytes)
	}
	c := &Cron{source: strings.Join(strings.Fields(text), " ")}
	loc, err := loadZone(zone)
	if err != nil {
		return nil, err
	}
	c.zone = loc
	words := c.source
	if strings.HasPrefix(words, "@") {
		long, ok := cronNames[strings.ToLower(words)]
		if !ok {
			return nil, fmt.Errorf("%q is none of @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually", clip(words))
		}
		words = long
	}
	if strings.Contains(words, "=") {
		return nil, errors.New("the zone stands in timezone, not in the schedule")
	}
	fields := strings.Fields(words)
	switch len(fields) {
	case 5:
		fields = append([]string{"0"}, fields...)
	case 6:
	default:
		return nil, fmt.Errorf("a schedule has five fields (minute hour day month weekday), or six with seconds first; this has %d", len(fields))
	}
	for i, set := range []*uint64{&c.second, &c.minute, &c.hour, &c.day, &c.month, &c.weekday} {
		if *set, err = cronFields[i].parse(fields[i]); err != nil {
			return nil, err
		}
	}
	if c.weekday&(1<<7) != 0 { // Sunday has two numbers
		c.weekday = c.weekday&^(1<<7) | 1
	}
	c.anyDay, c.anyWeekday = strings.HasPrefix(fields[3], "*"), strings.HasPrefix(fields[5], "*")
	c.everyHour = c.hour == dayHours
	// Any year does: within cronYears each has come.
	if _, ok := c.nextWall(time.Date(2096, 2, 29, 0, 0, 1, 0, time.UTC)); !ok {
		return nil, errors.New("this time never comes: no such month has such a day")
	}
	return c, nil
}

func loadZone(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	if len(name) > zoneBytes || name == "Local" {
		return nil, fmt.Errorf("%q is no time zone: a name like Europe/Berlin is wanted", clip(name))
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("%q is no time zone: a name like Europe/Berlin is wanted", clip(name))
	}
	return loc, nil
}

// parse reads one field as the set of its numbers.
func (f cronField) parse(text string) (set uint64, err error) {
	for part := range strings.SplitSeq(text, ",") {
		span, stepText, stepped := strings.Cut(part, "/")
		step := 1
		if stepped {
			if step, err = strconv.Atoi(stepText); err != nil || step < 1 || step > f.max || stepText[0] == '+' {
				return 0, fmt.Errorf("%s %q: a step is a number from 1 to %d", f.name, clip(part), f.max)
			}
		}
		first, last := f.min, f.max
		if f.name == "weekday" && span == "*" {
			last = 6
		}
		if span != "*" {
			low, high, isRange := strings.Cut(span, "-")
			if first, err = f.number(low); err != nil {
				return 0, err
			}
			switch {
			case isRange:
				if last, err = f.number(high); err != nil {
					return 0, err
				}
			case !stepped:
				last = first
			}
			if first > last {
				return 0, fmt.Errorf("%s %q: the range runs backwards", f.name, clip(part))
			}
		}
		for n := first; n <= last; n += step {
			set |= 1 << n
		}
	}
	return set, nil
}

// number reads a number or a name.
func (f cronField) number(text string) (int, error) {
	for i, w := range f.words {
		if strings.EqualFold(w, text) {
			return f.min + i, nil
		}
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < f.min || n > f.max || text[0] == '+' || text[0] == '-' {
		also := ""
		if len(f.words) > 0 {
			also = ", " + f.words[0] + " to " + f.words[len(f.words)-1]
		}
		return 0, fmt.Errorf("%s %q: %d to %d%s or * is wanted", f.name, clip(text), f.min, f.max, also)
	}
	return n, nil
}

// String is the schedule as it was written, with its zone where that is not UTC.
func (c *Cron) String() string {
	if c.zone == time.UTC {
		return c.source
	}
	return c.source + " " + c.zone.String()
}

// Next gives the first time after a moment; zero where there is none within
// nine years.
//
// A time that the zone leaves out, because its clocks go forward over it, is
// taken at the moment after it, and one that it has twice is taken once, the
// first time. A schedule of every hour is another matter: it goes by the hours
// that pass, so none of them is left out or taken twice.
func (c *Cron) Next(after time.Time) time.Time {
	after = after.In(c.zone)
	if c.everyHour {
		return c.nextOfHours(after)
	}
	wall := wallOf(after)
	for {
		next, ok := c.nextWall(wall)
		if !ok {
			return time.Time{}
		}
		if at := c.moment(next); at.After(after) {
			return at
		}
		wall = next
	}
}

// nextOfHours goes from one change of the zone's clocks to the next: between
// them wall and hours are one.
func (c *Cron) nextOfHours(after time.Time) time.Time {
	wall, limit := wallOf(after), after.AddDate(cronYears, 0, 0)
	for at := after; at.Before(limit); {
		_, end := at.ZoneBounds()
		_, offset := at.Zone()
		next, ok := c.nextWall(wall)
		if !ok {
			break
		}
		moment := next.Add(-time.Duration(offset) * time.Second)
		if end.IsZero() || moment.Before(end) {
			return time.Unix(moment.Unix(), 0).In(c.zone)
		}
		at = end
		wall = wallOf(end).Add(-time.Second) // the moment of the change counts
	}
	return time.Time{}
}

// wallOf is what the wall shows, as a time in UTC.
func wallOf(t time.Time) time.Time {
	y, m, d := t.Date()
	return time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
}

// moment is when the wall shows a time first, or the moment after it where it
// never does.
func (c *Cron) moment(wall time.Time) time.Time {
	y, m, d := wall.Date()
	t := time.Date(y, m, d, wall.Hour(), wall.Minute(), wall.Second(), 0, c.zone)
	start, end := t.ZoneBounds()
	if !wallOf(t).Equal(wall) { // within a gap: on either side of the change
		if wallOf(t).After(wall) {
			return start
		}
		return end
	}
	if start.IsZero() {
		return t
	}
	// Before the change the wall may have shown the same.
	_, before := start.Add(-time.Second).Zone()
	if earlier := time.Unix(wall.Unix()-int64(before), 0).In(c.zone); earlier.Before(start) && wallOf(earlier).Equal(wall) {
		return earlier
	}
	return t
}

// nextWall gives the first time after wall that the fields say.
func (c *Cron) nextWall(wall time.Time) (time.Time, bool) {
	t := wall.Add(time.Second)
	for last := t.Year() + cronYears; t.Year() <= last; {
		y, m, d := t.Date()
		switch {
		case c.month&(1<<uint(m)) == 0:
			t = time.Date(y, m+1, 1, 0, 0, 0, 0, time.UTC)
		case !c.dayMatches(t):
			t = time.Date(y, m, d+1, 0, 0, 0, 0, time.UTC)
		case c.hour&(1<<uint(t.Hour())) == 0:
			t = time.Date(y, m, d, t.Hour()+1, 0, 0, 0, time.UTC)
		case c.minute&(1<<uint(t.Minute())) == 0:
			t = time.Date(y, m, d, t.Hour(), t.Minute()+1, 0, 0, time.UTC)
		default:
			if later := c.second >> uint(t.Second()); later != 0 {
				return t.Add(time.Duration(bits.TrailingZeros64(later)) * time.Second), true
			}
			t = time.Date(y, m, d, t.Hour(), t.Minute()+1, 0, 0, time.UTC)
		}
	}
	return time.Time{}, false
}

func (c *Cron) dayMatches(t time.Time) bool {
	day := c.day&(1<<uint(t.Day())) != 0
	weekday := c.weekday&(1<<uint(t.Weekday())) != 0
	if c.anyDay || c.anyWeekday {
		return day && weekday
	}
	return day || weekday
}
