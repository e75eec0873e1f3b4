package git

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"
)

const (
	formatMost = 16 << 10 // columns of a width that a placeholder asks for; git's FORMATTING_LIMIT
	substMost  = 16 << 20 // bytes of a file with export-subst, before and after
)

// errSubst is a file that grows beyond all measure.
var errSubst = fmt.Errorf("with its placeholders filled in it has more than %d bytes", substMost)

// pretty fills in $Format:…$ of one commit, as git archive does for files with
// the attribute export-subst.
//
// Source: gitattributes(5), git-log(1) "PRETTY FORMATS", and git's pretty.c
// where these leave questions.
type pretty struct {
	c   *commitText
	env prettyEnv

	described bool // %(describe) is filled in once in an archive
	out       []byte

	// Of the placeholder %w, %< and %> that came last.
	wrapFrom               int
	width, indent, hanging int
	padding                int // columns; negative: the column to reach
	flush                  byte
	truncate               string
}

// prettyEnv is what placeholders ask for besides the commit.
type prettyEnv interface {
	// abbreviate gives the shortest beginning of an id that is no other's.
	abbreviate(plumbing.Hash) (string, error)
	// names gives the refs that point to the commit, in the order git has them.
	names() ([]string, error)
	// describe names the commit by the tag before it.
	describe(describeOptions) (string, error)
	// mapped gives a person's name and address as .mailmap has them.
	mapped(name, mail string) (string, string, error)
	// date writes a time of a commit in one of git's ways.
	date(p person, how byte) string
}

// subst gives a file's content with all placeholders filled in.
func (p *pretty) subst(content []byte) ([]byte, error) {
	const begin = "$Format:"
	p.out = nil
	for {
		head, rest, ok := bytes.Cut(content, []byte(begin))
		format, tail, closed := bytes.Cut(rest, []byte("$"))
		if !ok || !closed {
			p.out = append(p.out, content...)
			return p.out, nil
		}
		p.out = append(p.out, head...)
		text, _, _ := strings.Cut(string(format), "\x00")
		if err := p.fill(text); err != nil {
			return nil, err
		}
		if len(p.out) > substMost {
			return nil, errSubst
		}
		content = tail
	}
}

// fill appends a format.
func (p *pretty) fill(format string) error {
	p.wrapFrom, p.width, p.indent, p.hanging, p.flush, p.truncate = len(p.out), 0, 0, 0, 0, ""
	for format != "" {
		text, rest, ok := strings.Cut(format, "%")
		p.out = append(p.out, text...)
		if !ok {
			break
		}
		if strings.HasPrefix(rest, "%") {
			p.out = append(p.out, '%')
			format = rest[1:]
			continue
		}
		n, err := p.item(rest)
		if err != nil {
			return err
		}
		if n == 0 {
			p.out = append(p.out, '%')
		}
		if len(p.out) > substMost {
			return errSubst
		}
		format = rest[n:]
	}
	p.rewrap(0, 0, 0)
	if p.c.latin1 {
		// What is filled in, and all before it, goes back to the encoding of the
		// commit where that has its letters.
		if b, ok := toLatin1(p.out); ok {
			p.out = b
		}
	}
	return nil
}

// item appends what one placeholder stands for, and gives how long it is; 0 =
// it is none.
func (p *pretty) item(s string) (int, error) {
	magic := byte(0)
	if s != "" && strings.IndexByte("-+ ", s[0]) >= 0 {
		magic, s = s[0], s[1:]
		if strings.HasPrefix(s, "w") {
			return 0, nil
		}
	}
	before := len(p.out)
	one := p.one
	if p.flush != 0 {
		one = p.padded
	}
	n, err := one(s)
	if err != nil || magic == 0 {
		return n, err
	}
	switch added := len(p.out) > before; {
	case magic == '-' && !added:
		p.out = bytes.TrimRight(p.out, "\n")
	case magic == '+' && added:
		p.insert(before, '\n')
	case magic == ' ' && added:
		p.insert(before, ' ')
	}
	return n + 1, nil
}

func (p *pretty) insert(i int, c byte) {
	p.out = append(p.out, 0)
	copy(p.out[i+1:], p.out[i:])
	p.out[i] = c
}

func (p *pretty) add(s string) { p.out = append(p.out, s...) }

// one is item without + and its kin.
func (p *pretty) one(s string) (int, error) {
	if rest, ok := strings.CutPrefix(s, "(describe"); ok {
		return p.describe(s, rest)
	}
	if rest, ok := strings.CutPrefix(s, "(trailers"); ok {
		return p.trailers(s, rest), nil
	}
	switch at(s, 0) {
	case 'n':
		p.add("\n")
	case 'x':
		if len(s) < 3 {
			return 0, nil
		}
		c, err := strconv.ParseUint(s[1:3], 16, 8)
		if err != nil {
			return 0, nil
		}
		p.out = append(p.out, byte(c))
		return 3, nil
	case 'C':
		return p.color(s), nil
	case 'w':
		return p.wrap(s), nil
	case '<', '>':
		return p.pad(s), nil
	case 'H':
		p.add(p.c.hash.String())
	case 'h':
		return 1, p.short(p.c.hash)
	case 'T':
		p.add(p.c.tree.String())
	case 't':
		return 1, p.short(p.c.tree)
	case 'P', 'p':
		for i, h := range p.c.parents {
			if i > 0 {
				p.add(" ")
			}
			if s[0] == 'P' {
				p.add(h.String())
			} else if err := p.short(h); err != nil {
				return 0, err
			}
		}
	case 'm':
		p.add(">")
	case 'd', 'D':
		names, err := p.env.names()
		if err != nil || len(names) == 0 {
			return 1, err
		}
		text := strings.Join(names, ", ")
		if s[0] == 'd' {
			text = " (" + text + ")"
		}
		p.add(text)
	case 'a':
		return p.person(s, p.c.author)
	case 'c':
		return p.person(s, p.c.committer)
	case 'e':
		p.add(p.c.encoding)
	case 'G':
		return p.signature(s), nil
	case 'g': // of the reflog, where there is none
		if len(s) > 1 && strings.IndexByte("dDsnNeE", s[1]) >= 0 {
			return 2, nil
		}
		return 0, nil
	case 's':
		p.add(p.c.subject(" "))
	case 'f':
		p.sanitized()
	case 'b':
		p.add(p.c.body())
	case 'B':
		p.add(p.c.message)
	default:
		return 0, nil
	}
	return 1, nil
}

func (p *pretty) short(h plumbing.Hash) error {
	s, err := p.env.abbreviate(h)
	p.add(s)
	return err
}

// person appends a part of who wrote or committed.
func (p *pretty) person(s string, line string) (int, error) {
	part := at(s, 1)
	who, ok := parsePerson(line)
	if ok {
		if strings.IndexByte("NEL", part) >= 0 && part != 0 {
			var err error
			if who.name, who.mail, err = p.env.mapped(who.name, who.mail); err != nil {
				return 0, err
			}
		}
		switch part {
		case 'n', 'N':
			p.add(who.name)
			return 2, nil
		case 'e', 'E':
			p.add(who.mail)
			return 2, nil
		case 'l', 'L':
			name, _, _ := strings.Cut(who.mail, "@")
			p.add(name)
			return 2, nil
		}
		if who.seconds != "" && part != 0 {
			if part == 't' {
				p.add(who.seconds)
				return 2, nil
			}
			if strings.IndexByte("dDriIhs", part) >= 0 {
				p.add(p.env.date(who, part))
				return 2, nil
			}
		}
	}
	if part != 0 && strings.IndexByte("netdDri", part) >= 0 {
		return 2, nil
	}
	return 0, nil
}

// signature is what git says of a commit whose signature it cannot check: keys
// are nothing that a mirror has.
func (p *pretty) signature(s string) int {
	switch at(s, 1) {
	case '?':
		if p.c.signed {
			p.add("E")
		} else {
			p.add("N")
		}
	case 'T':
		p.add("undefined")
	case 'G', 'S', 'K', 'F', 'P':
	default:
		return 0
	}
	return 2
}

// sanitized appends the first line of the message as a file name.
func (p *pretty) sanitized() {
	line, _, _ := strings.Cut(p.c.fromSubject(), "\n")
	start, gap := len(p.out), false
	for i := 0; i < len(line); i++ {
		c := line[i]
		if c != '.' && c != '_' && (c > 0x7f || !isAlnum(c)) {
			gap = true
			continue
		}
		if gap && len(p.out) > start {
			p.add("-")
		}
		gap = false
		p.out = append(p.out, c)
		for c == '.' && at(line, i+1) == '.' {
			i++
		}
	}
	p.out = append(p.out[:start], bytes.TrimRight(p.out[start:], ".-")...)
}

func isAlnum(c byte) bool {
	in, _ := inClass("alnum", c)
	return in
}

// color passes over a color: an archive has none, unless it is forced.
func (p *pretty) color(s string) int {
	if len(s) > 1 && s[1] == '(' {
		end := strings.IndexByte(s, ')')
		if end < 0 {
			return 0
		}
		if name, ok := strings.CutPrefix(s[2:end], "always,"); ok {
			p.add(colors[strings.TrimSpace(name)])
		}
		return end + 1
	}
	for _, name := range []string{"red", "green", "blue", "reset"} {
		if strings.HasPrefix(s[1:], name) {
			return 1 + len(name)
		}
	}
	return 0
}

// colors are the sequences of the plain colors.
var colors = map[string]string{
	"black": "\x1b[30m", "red": "\x1b[31m", "green": "\x1b[32m", "yellow": "\x1b[33m", "blue": "\x1b[34m", "magenta": "\x1b[35m", "cyan": "\x1b[36m", "white": "\x1b[37m",
	"reset": "\x1b[m", "bold": "\x1b[1m", "dim": "\x1b[2m", "ul": "\x1b[4m", "reverse": "\x1b[7m",
}

// describeOptions are those of %(describe:…).
type describeOptions struct {
	tags           bool
	abbrev         int // digits; negative: as many as it takes
	match, exclude []string
}

func (p *pretty) describe(s, rest string) (int, error) {
	if p.described {
		return 0, nil
	}
	p.described = true
	opts := describeOptions{abbrev: -1}
	inner, tail, ok := strings.Cut(rest, ")")
	if !ok || inner != "" && inner[0] != ':' {
		return 0, nil
	}
	if inner != "" {
		for _, o := range strings.Split(inner[1:], ",") {
			key, value, has := strings.Cut(o, "=")
			switch {
			case key == "tags" && (!has || isTrue(value)):
				opts.tags = true
			case key == "tags" && isFalse(value):
				opts.tags = false
			case key == "abbrev" && has:
				n, err := strconv.Atoi(value)
				if err != nil || n < 0 {
					return 0, nil
				}
				opts.abbrev = n
			case key == "match" && has && value != "":
				opts.match = append(opts.match, value)
			case key == "exclude" && has && value != "":
				opts.exclude = append(opts.exclude, value)
			default:
				return 0, nil
			}
		}
	}
	name, err := p.env.describe(opts)
	if err != nil {
		return 0, err
	}
	p.add(name)
	return len(s) - len(tail), nil
}

func isTrue(s string) bool {
	switch strings.ToLower(s) {
	case "true", "yes", "on", "1":
		return true
	}
	return false
}

func isFalse(s string) bool {
	switch strings.ToLower(s) {
	case "false", "no", "off", "0", "":
		return true
	}
	return false
}

// wrap reads %w(width,indent,hanging).
func (p *pretty) wrap(s string) int {
	end := strings.IndexByte(s, ')')
	if at(s, 1) != '(' || end < 0 {
		return 0
	}
	var n [3]int
	if inner := s[2:end]; inner != "" {
		parts := strings.Split(inner, ",")
		if len(parts) > len(n) {
			return 0
		}
		for i, part := range parts {
			v, err := strconv.Atoi(strings.TrimLeft(part, " \t"))
			if part != "" && (err != nil || v < 0 || v > formatMost) {
				return 0
			}
			n[i] = v
		}
	}
	p.rewrap(n[0], n[1], n[2])
	return end + 1
}

// rewrap wraps what came since the %w before, and notes the one that begins.
func (p *pretty) rewrap(width, indent, hanging int) {
	if p.width == width && p.indent == indent && p.hanging == hanging {
		return
	}
	if p.wrapFrom < len(p.out) {
		text := string(p.out[p.wrapFrom:])
		p.out = append(p.out[:p.wrapFrom], wrapped(text, p.indent, p.hanging, p.width)...)
	}
	p.wrapFrom, p.width, p.indent, p.hanging = len(p.out), width, indent, hanging
}

// pad reads %<(…), %>(…), %>>(…) and %><(…), each also with |, which the next
// placeholder is padded by.
func (p *pretty) pad(s string) int {
	i, flush := 1, s[0]
	if flush == '>' && at(s, 1) == '<' {
		i, flush = 2, 'b'
	} else if flush == '>' && at(s, 1) == '>' {
		i, flush = 2, 's'
	}
	column := at(s, i) == '|'
	if column {
		i++
	}
	end := strings.IndexByte(s, ')')
	if at(s, i) != '(' || end < i {
		return 0
	}
	number, how, cutting := strings.Cut(s[i+1:end], ",")
	n, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil || n < -formatMost || n > formatMost || n == 0 {
		return 0
	}
	if n < 0 {
		const terminal = 80 // columns, where there is none
		if column {
			n += terminal
		}
		if n < 0 {
			return 0
		}
	}
	if cutting && how != "trunc" && how != "ltrunc" && how != "mtrunc" {
		p.padding, p.flush = n, flush
		if column {
			p.padding = -n
		}
		return 0
	}
	p.padding, p.flush, p.truncate = n, flush, how
	if column {
		p.padding = -n
	}
	return end + 1
}

// padded is one after a %< or %>.
func (p *pretty) padded(s string) (int, error) {
	before, padding := p.out, p.padding
	if padding < 0 {
		text, _, _ := bytes.Cut(before, []byte{0}) // git looks no further
		line := string(text[bytes.LastIndexByte(text, '\n')+1:])
		padding = -padding - columns(line)
	}
	p.out = nil
	n := 0
	for {
		color := at(s, n) == 'C'
		got, err := p.one(s[min(n, len(s)):])
		if err != nil {
			return 0, err
		}
		n += got
		if !color || at(s, n) != '%' {
			break
		}
		n++
	}
	text := string(p.out)
	p.out = before
	size := columns(text)
	if p.flush == 's' {
		for size > padding && len(p.out) > 1 && p.out[len(p.out)-1] == ' ' {
			p.out = p.out[:len(p.out)-1]
			padding++
		}
		p.flush = '>'
	}
	if size > padding {
		switch p.truncate {
		case "ltrunc":
			text = replaced(text, 0, size-(padding-2))
		case "mtrunc":
			text = replaced(text, padding/2-1, size-(padding-2))
		case "trunc":
			text = replaced(text, padding-2, size-(padding-2))
		}
		p.add(text)
	} else {
		left := 0
		switch p.flush {
		case '>':
			left = padding - size
		case 'b':
			left = (padding - size) / 2
		}
		p.add(strings.Repeat(" ", left) + text + strings.Repeat(" ", padding-size-left))
	}
	p.flush = 0
	return n, nil
}

// replaced puts two dots in the place of width columns from a column on.
func replaced(s string, from, width int) string {
	var b strings.Builder
	col, done := 0, false
	for _, r := range s {
		w := runeColumns(r)
		if col >= from && col < from+width {
			if !done {
				b.WriteString("..")
				done = true
			}
		} else {
			b.WriteRune(r)
		}
		col += w
	}
	return b.String()
}

// columns is how wide a text is on a terminal.
func columns(s string) int {
	n := 0
	for _, r := range s {
		n += runeColumns(r)
	}
	return n
}

// runeColumns is what East Asian Width and combining marks make of a letter.
func runeColumns(r rune) int {
	switch {
	case r < ' ' || r >= 0x7f && r < 0xa0, r >= 0x300 && r <= 0x36f, r >= 0x200b && r <= 0x200f, r >= 0x20d0 && r <= 0x20f0, r >= 0xfe00 && r <= 0xfe0f, r == 0xfeff:
		return 0
	case r >= 0x1100 && r <= 0x115f, r >= 0x2e80 && r <= 0x303e, r >= 0x3041 && r <= 0xa4cf, r >= 0xac00 && r <= 0xd7a3, r >= 0xf900 && r <= 0xfaff,
		r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60, r >= 0xffe0 && r <= 0xffe6, r >= 0x1f300 && r <= 0x1f64f, r >= 0x1f900 && r <= 0x1f9ff, r >= 0x20000 && r <= 0x3fffd:
		return 2
	}
	return 1
}

// wrapped breaks lines at width columns; below 1 it only indents.
//
// Source: git's strbuf_add_wrapped_text (utf8.c).
func wrapped(s string, indent, hanging, width int) string {
	var b strings.Builder
	if width <= 0 {
		for line := range strings.Lines(s) {
			b.WriteString(strings.Repeat(" ", indent) + line)
			indent = hanging
		}
		return b.String()
	}
	i, from, space, w := 0, 0, -1, indent
	for {
		if i < len(s) && !isSpace(s[i]) {
			r, n := utf8.DecodeRuneInString(s[i:])
			w, i = w+runeColumns(r), i+n
			continue
		}
		brk := false
		if w <= width || space < 0 {
			if i == len(s) && i == from {
				return b.String()
			}
			if space >= 0 {
				b.WriteString(s[space:i])
			} else {
				b.WriteString(strings.Repeat(" ", indent) + s[from:i])
			}
			if i == len(s) {
				return b.String()
			}
			space = i
			switch s[i] {
			case '\t':
				w |= 7
			case '\n':
				space++
				if at(s, space) == '\n' {
					b.WriteByte('\n')
					brk = true
				} else if !isAlnum(at(s, space)) {
					brk = true
				} else {
					b.WriteByte(' ')
				}
			}
			if !brk {
				w, i = w+1, i+1
				continue
			}
		}
		b.WriteByte('\n')
		i = space
		if i < len(s) && isSpace(s[i]) {
			i++
		}
		from, space, w, indent = i, -1, hanging, hanging
	}
}

// isSpace is what git takes for white space.
func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// commitText is a commit as it was written.
type commitText struct {
	hash, tree        plumbing.Hash
	parents           []plumbing.Hash
	author, committer string
	encoding          string
	signed, latin1    bool
	message           string
}

// parseCommit reads a commit object.
func parseCommit(hash plumbing.Hash, b []byte) (*commitText, error) {
	c := &commitText{hash: hash}
	text, _, _ := strings.Cut(string(b), "\x00")
	head, message, _ := strings.Cut(text, "\n\n")
	c.message = message
	for line := range strings.Lines(head) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch key {
		case "tree":
			c.tree = plumbing.NewHash(value)
		case "parent":
			c.parents = append(c.parents, plumbing.NewHash(value))
		case "author":
			c.author = value
		case "committer":
			c.committer = value
		case "encoding":
			c.encoding = value
		case "gpgsig":
			c.signed = true
		}
	}
	if c.tree.IsZero() {
		return nil, errors.New("it names no directory")
	}
	// Of the encodings that old commits have, this one needs no tables; others
	// stay as they are.
	if e := strings.ToLower(c.encoding); e == "iso-8859-1" || e == "latin1" || e == "latin-1" {
		c.latin1 = true
		c.message, c.author, c.committer = fromLatin1(c.message), fromLatin1(c.author), fromLatin1(c.committer)
	}
	return c, nil
}

func fromLatin1(s string) string {
	r := make([]rune, len(s))
	for i := range len(s) {
		r[i] = rune(s[i])
	}
	return string(r)
}

func toLatin1(b []byte) ([]byte, bool) {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r > 0xff || r == utf8.RuneError {
			return nil, false
		}
		out, i = append(out, byte(r)), i+n
	}
	return out, true
}

// fromSubject is the message from its first line that is not blank.
func (c *commitText) fromSubject() string { return skipBlank(c.message) }

func skipBlank(s string) string {
	for s != "" {
		line, rest, _ := strings.Cut(s, "\n")
		if strings.TrimRight(line, blanks+"\v\f") != "" {
			return s
		}
		s = rest
	}
	return s
}

// paragraph gives the lines up to the first blank one, and what follows.
func (c *commitText) paragraph() (lines []string, rest string) {
	s := c.fromSubject()
	for s != "" {
		line, after, _ := strings.Cut(s, "\n")
		s = after
		line = strings.TrimRight(line, blanks+"\v\f")
		if line == "" {
			break
		}
		lines = append(lines, line)
	}
	return lines, s
}

func (c *commitText) subject(between string) string {
	lines, _ := c.paragraph()
	return strings.Join(lines, between)
}

func (c *commitText) body() string {
	_, rest := c.paragraph()
	return skipBlank(rest)
}

// person is who is named in a commit.
type person struct {
	name, mail    string
	seconds, zone string // empty: there is no time
}

// parsePerson reads "Name <address> seconds zone".
func parsePerson(line string) (person, bool) {
	open := strings.IndexByte(line, '<')
	if open < 0 {
		return person{}, false
	}
	end := strings.IndexByte(line[open:], '>')
	if end < 0 {
		return person{}, false
	}
	p := person{name: strings.Trim(line[:open], blanks), mail: line[open+1 : open+end]}
	// The time stands behind the last >, whatever stands between.
	words := strings.Fields(line[strings.LastIndexByte(line, '>')+1:])
	if len(words) >= 2 && strings.Trim(words[0], "0123456789") == "" && len(words[1]) > 1 && strings.Trim(words[1][1:], "0123456789") == "" && (words[1][0] == '+' || words[1][0] == '-') {
		p.seconds, p.zone = words[0], words[1]
	}
	return p, true
}
