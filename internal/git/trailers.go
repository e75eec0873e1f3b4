package git

import (
	"strings"
)

// trailerOptions are those of %(trailers:…).
type trailerOptions struct {
	keys                         []string // empty: all
	only, unfold, noKey, noValue bool
	separator, between           string
	separated, betweenGiven      bool
}

// trailers appends the trailers of the message, and gives how long the
// placeholder is.
func (p *pretty) trailers(s, rest string) int {
	inner, tail, ok := strings.Cut(rest, ")")
	if !ok || inner != "" && inner[0] != ':' {
		return 0
	}
	o := trailerOptions{}
	if inner != "" && !o.parse(p, inner[1:]) {
		return 0
	}
	p.add(o.text(p.c.message))
	return len(s) - len(tail)
}

func (o *trailerOptions) parse(p *pretty, s string) bool {
	for _, part := range strings.Split(s, ",") {
		key, value, has := strings.Cut(part, "=")
		on := !has || isTrue(value)
		if has && !on && !isFalse(value) && key != "key" && key != "separator" && key != "key_value_separator" {
			return false
		}
		switch {
		case key == "key" && has:
			o.keys, o.only = append(o.keys, strings.TrimSuffix(value, ":")), true
		case key == "only":
			o.only = on
		case key == "unfold":
			o.unfold = on
		case key == "valueonly":
			o.noKey = on
		case key == "keyonly":
			o.noValue = on
		case key == "separator":
			o.separator, o.separated = literal(value), true
		case key == "key_value_separator":
			o.between, o.betweenGiven = literal(value), true
		default:
			return false
		}
	}
	return true
}

// literal fills in %n, %% and %xNN.
func literal(s string) string {
	l := &pretty{}
	for s != "" {
		text, rest, ok := strings.Cut(s, "%")
		l.add(text)
		if !ok {
			break
		}
		n := 0
		switch at(rest, 0) {
		case '%':
			l.add("%")
			n = 1
		case 'n', 'x':
			n, _ = l.one(rest)
		}
		if n == 0 {
			l.add("%")
		}
		s = rest[n:]
	}
	return string(l.out)
}

// text gives the trailers of a message.
func (o *trailerOptions) text(message string) string {
	lines, whole := trailerBlock(message)
	if !o.only && !o.unfold && !o.separated && len(o.keys) == 0 && !o.noKey && !o.noValue && !o.betweenGiven {
		return whole
	}
	var b strings.Builder
	for _, l := range lines {
		key, value, is := trailer(l)
		if !is && o.only {
			continue
		}
		if is && len(o.keys) > 0 && !hasKey(o.keys, key) {
			continue
		}
		if !is && len(o.keys) > 0 {
			continue
		}
		text := strings.TrimRight(l, "\n")
		if is {
			if o.unfold {
				value = strings.Join(strings.FieldsFunc(value, func(r rune) bool { return r == '\n' }), "\n")
				value = unfolded(value)
			}
			between := ": "
			if o.betweenGiven {
				between = o.between
			}
			switch {
			case o.noKey && o.noValue:
				text = ""
			case o.noKey:
				text = value
			case o.noValue:
				text = key
			default:
				text = key + between + value
			}
		}
		if o.separated && b.Len() > 0 {
			b.WriteString(o.separator)
		}
		b.WriteString(text)
		if !o.separated {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// unfolded makes one line of several.
func unfolded(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\n' {
			for i+1 < len(s) && isSpace(s[i+1]) {
				i++
			}
			b.WriteByte(' ')
			continue
		}
		b.WriteByte(s[i])
	}
	return strings.TrimSpace(b.String())
}

func hasKey(keys []string, key string) bool {
	for _, k := range keys {
		if strings.EqualFold(k, key) {
			return true
		}
	}
	return false
}

// trailer reads "Key: value", with the lines that go on with it.
func trailer(l string) (key, value string, ok bool) {
	key, value, ok = strings.Cut(l, ":")
	key = strings.TrimRight(key, " \t")
	ok = ok && key != "" && strings.IndexFunc(key, func(r rune) bool {
		return r > 0x7f || r != '-' && !isAlnum(byte(r))
	}) < 0
	return key, strings.TrimSpace(value), ok
}

// trailerBlock finds the trailers at the end of a message: its last paragraph,
// if that is no title, and if all of it are trailers or a quarter is and one
// was made by git.
//
// Source: git-interpret-trailers(1).
func trailerBlock(message string) (items []string, whole string) {
	text := strings.TrimRight(message, blanks)
	i := -1
	all := strings.Split(text, "\n")
	for n := len(all) - 1; n > 0; n-- {
		if strings.TrimSpace(all[n]) == "" {
			i = n + 1
			break
		}
	}
	if i < 0 || text == "" || strings.TrimSpace(strings.Join(all[:i], "")) == "" {
		return nil, ""
	}
	good, bad, known := 0, 0, false
	for _, l := range all[i:] {
		if len(items) > 0 && l != "" && isSpace(l[0]) {
			items[len(items)-1] += "\n" + l
			continue
		}
		items = append(items, l)
		_, _, is := trailer(l)
		made := strings.HasPrefix(l, "Signed-off-by: ") || strings.HasPrefix(l, "(cherry picked from commit ")
		known = known || made
		if is || made {
			good++
		} else {
			bad++
		}
	}
	if good == 0 || bad > 0 && (!known || good*3 < bad) {
		return nil, ""
	}
	return items, strings.Join(all[i:], "\n") + "\n"
}
