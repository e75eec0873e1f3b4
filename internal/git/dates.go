package git

import (
	"fmt"
	"strconv"
	"time"
)

// date writes a time of a commit as git does: d, D (RFC 2822), i (like ISO
// 8601), I (ISO 8601), s (the day), r (how long ago) or h (for people).
//
// Source: git's date.c.
func (p person) date(now time.Time, how byte) string {
	seconds, err := strconv.ParseInt(p.seconds, 10, 64)
	if err != nil || seconds > 1<<40 {
		seconds = 0
	}
	zone, err := strconv.Atoi(p.zone)
	if err != nil || zone < -9999 || zone > 9999 {
		zone = 0
	}
	minutes := zone/100*60 + zone%100
	t := time.Unix(seconds, 0).In(time.FixedZone("", minutes*60))
	tz := fmt.Sprintf("%+05d", zone)
	switch how {
	case 'D':
		return t.Format("Mon, 2 Jan 2006 15:04:05 ") + tz
	case 'i':
		return t.Format("2006-01-02 15:04:05 ") + tz
	case 'I':
		if zone == 0 {
			return t.Format("2006-01-02T15:04:05Z")
		}
		return t.Format("2006-01-02T15:04:05") + tz[:3] + ":" + tz[3:]
	case 's':
		return t.Format("2006-01-02")
	case 'r':
		return ago(now, t)
	case 'h':
		return forPeople(now, t, tz)
	}
	return t.Format("Mon Jan 2 15:04:05 2006 ") + tz
}

// ago says how long something is past, in the steps that git has.
func ago(now, t time.Time) string {
	n := now.Unix() - t.Unix()
	if n < 0 {
		return "in the future"
	}
	if n < 90 {
		return count(n, "second") + " ago"
	}
	if n = (n + 30) / 60; n < 90 {
		return count(n, "minute") + " ago"
	}
	if n = (n + 30) / 60; n < 36 {
		return count(n, "hour") + " ago"
	}
	n = (n + 12) / 24
	switch {
	case n < 14:
		return count(n, "day") + " ago"
	case n < 70:
		return count((n+3)/7, "week") + " ago"
	case n < 365:
		return count((n+15)/30, "month") + " ago"
	case n < 1825:
		months := (n*12*2 + 365) / (365 * 2)
		if months%12 == 0 {
			return count(months/12, "year") + " ago"
		}
		return count(months/12, "year") + ", " + count(months%12, "month") + " ago"
	}
	return count((n+183)/365, "year") + " ago"
}

func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.FormatInt(n, 10) + " " + what + "s"
}

// forPeople leaves out of a time what whoever reads it now knows.
func forPeople(now, t time.Time, tz string) string {
	if now.Year() != t.Year() {
		return t.Format("Jan 2 2006")
	}
	day := t.Format("Jan 2 15:04")
	if now.Month() != t.Month() || t.Day() > now.Day() {
		return t.Format("Mon ") + day
	}
	switch {
	case t.Day() == now.Day():
		return ago(now, t)
	case t.Day()+5 > now.Day():
		text := t.Format("Mon 15:04")
		if now.Format("-0700") != tz {
			text += " " + tz
		}
		return text
	}
	return t.Format("Mon ") + day
}
