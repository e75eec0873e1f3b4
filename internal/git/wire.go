package git

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// The two ways in which servers are asked, which are git's protocols 2 and 0.
// Protocol 2 is asked for: a commit comes without the list of refs, of which
// some repositories have a million.
//
// Source: git's Documentation/gitprotocol-common.txt, gitprotocol-v2.txt and
// gitprotocol-pack.txt.

const (
	pktMost     = 65520   // bytes of a packet, its length included
	linesMost   = 1 << 20 // of an answer before its pack
	shallowSaid = 1 << 17 // shallow commits that a server may name
)

// errNotGit is an answer that is none of git's.
var errNotGit = errors.New("it does not speak git")

// packet is one of a server's, by its kind.
type packet byte

const (
	packetData packet = iota
	packetFlush
	packetDelim
	packetEnd
)

// packets reads the packets of a server.
type packets struct {
	r   *bufio.Reader
	buf []byte
}

func newPackets(r io.Reader) *packets { return &packets{r: bufio.NewReaderSize(r, 32<<10)} }

// bound bounds what is still to be read to n bytes.
func (p *packets) bound(n int64) { p.r = bufio.NewReader(io.LimitReader(p.r, n)) }

// next reads one packet, whose content is valid until the next one is read.
// [io.EOF]: there is none. A packet that says an error is a [*serverSaid].
func (p *packets) next() (packet, []byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := 0
	for _, c := range head {
		digit := strings.IndexByte("0123456789abcdefABCDEF", c)
		if digit < 0 {
			return 0, nil, errNotGit
		}
		if digit > 15 {
			digit -= 6
		}
		n = n<<4 | digit
	}
	switch {
	case n < 3:
		return packet(n + 1), nil, nil
	case n < len(head) || n > pktMost:
		return 0, nil, errNotGit
	}
	p.buf = sized(p.buf, pktMost)[:n-len(head)]
	if _, err := io.ReadFull(p.r, p.buf); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	if text, ok := bytes.CutPrefix(p.buf, []byte("ERR ")); ok {
		return 0, nil, &serverSaid{strings.TrimSpace(string(text))}
	}
	return packetData, p.buf, nil
}

// line is next for packets of text.
func (p *packets) line() (packet, string, error) {
	kind, b, err := p.next()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return kind, string(bytes.TrimSuffix(b, []byte("\n"))), err
}

// raw gives what is left, packets or not.
func (p *packets) raw() io.Reader { return p.r }

// pkt adds a packet of text to a request.
func pkt(to *bytes.Buffer, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	fmt.Fprintf(to, "%04x%s\n", len(text)+5, text)
}

const (
	flushPkt = "0000"
	delimPkt = "0001"
)

// greeting is how a server begins.
type greeting struct {
	v2       bool
	features map[string]string // what it can
	in       *packets          // of protocol 0: the refs follow
	first    string            // the first of them
	head     string            // of protocol 0: what HEAD points to; empty: that was not said
}

func (g *greeting) can(feature string) bool {
	_, ok := g.features[feature]
	return ok
}

// canFetch says whether the fetch of protocol 2 has a feature.
func (g *greeting) canFetch(feature string) bool {
	for _, f := range strings.Fields(g.features["fetch"]) {
		if f == feature {
			return true
		}
	}
	return false
}

// greet reads how a server begins. [io.EOF]: it says nothing.
func greet(in *packets) (*greeting, error) {
	g := &greeting{features: map[string]string{}, in: in}
	kind, b, err := in.next()
	if err != nil {
		return nil, err
	}
	line := strings.TrimSuffix(string(b), "\n")
	if strings.HasPrefix(line, "# service=") {
		if kind, _, err = in.line(); err != nil || kind != packetFlush {
			return nil, errors.Join(errNotGit, err)
		}
		if kind, line, err = in.line(); err != nil {
			return nil, err
		}
	}
	if line == "version 1" {
		if kind, line, err = in.line(); err != nil {
			return nil, err
		}
	}
	if kind == packetFlush {
		return nil, transport.ErrEmptyRemoteRepository
	}
	if line != "version 2" {
		return g, g.old(line)
	}
	g.v2 = true
	for range linesMost {
		kind, line, err := in.line()
		switch {
		case err != nil:
			return nil, err
		case kind == packetFlush:
			return g, g.format()
		}
		name, value, _ := strings.Cut(line, "=")
		const most = 64
		if len(g.features) < most {
			g.features[name] = value
		}
	}
	return nil, errNotGit
}

// old reads the first line of protocol 0: a ref, NUL, and what the server can.
func (g *greeting) old(line string) error {
	ref, features, ok := strings.Cut(line, "\x00")
	if !ok {
		return errNotGit
	}
	for _, f := range strings.Fields(features) {
		name, value, _ := strings.Cut(f, "=")
		g.features[name] = value
		if target, ok := strings.CutPrefix(value, "HEAD:"); ok && name == "symref" {
			g.head = target
		}
	}
	g.first = ref
	return g.format()
}

func (g *greeting) format() error {
	if f := g.features["object-format"]; f != "" && f != "sha1" {
		return errSHA256
	}
	return nil
}

// errEnough ends a list of refs early.
var errEnough = errors.New("enough is known")

// advertised is a ref as a remote tells of it.
type advertised struct {
	name   string
	id     plumbing.Hash
	peeled plumbing.Hash // what a tag object leads to; zero: it is none, or that was not said
	target string        // what HEAD points to; empty: that was not said
}

// refs gives the refs of a greeting of protocol 0.
func (g *greeting) refs(fn func(advertised) error) error {
	var last advertised // whose tag, if it is one, may follow
	give := func() error {
		if last.name == "" {
			return nil
		}
		return fn(last)
	}
	line := g.first
	for {
		id, name, ok := strings.Cut(line, " ")
		switch {
		case len(id) == 64:
			return errSHA256
		case !ok || !plumbing.IsHash(id):
			return errNotGit
		case strings.HasSuffix(name, "^{}"): // capabilities^{} is of an empty repository
			if name == last.name+"^{}" {
				last.peeled = plumbing.NewHash(id)
			}
		default:
			if err := give(); err != nil {
				return enough(err)
			}
			last = advertised{name: name, id: plumbing.NewHash(id)}
			if name == "HEAD" {
				last.target = g.head
			}
		}
		kind, next, err := g.in.line()
		if err != nil {
			return err
		}
		// Of a repository that is a shallow clone itself; no ref follows.
		if kind != packetData || strings.HasPrefix(next, "shallow ") {
			return enough(give())
		}
		line = next
	}
}

func enough(err error) error {
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// listed reads what ls-refs of protocol 2 answers.
func listed(in *packets, fn func(advertised) error) error {
	for {
		kind, line, err := in.line()
		switch {
		case err != nil:
			return err
		case kind != packetData:
			return nil
		}
		id, name, ok := strings.Cut(line, " ")
		name, attributes, _ := strings.Cut(name, " ")
		switch {
		case id == "unborn":
			continue
		case !ok || !plumbing.IsHash(id):
			return errNotGit
		}
		r := advertised{name: name, id: plumbing.NewHash(id)}
		for _, a := range strings.Fields(attributes) {
			if peeled, ok := strings.CutPrefix(a, "peeled:"); ok && plumbing.IsHash(peeled) {
				r.peeled = plumbing.NewHash(peeled)
			} else if target, ok := strings.CutPrefix(a, "symref-target:"); ok {
				r.target = target
			}
		}
		if err := fn(r); err != nil {
			return enough(err)
		}
	}
}

// request is what a server is asked for.
type request struct {
	wants, haves, shallows []plumbing.Hash
	depth                  int // commits; 0: all
}

// agent is what servers are told about who asks.
const agent = "deployhook"

// encode writes the request, in the protocol of a greeting. All is said at
// once: the haves are few, and the answer is the pack.
func (q *request) encode(g *greeting) []byte {
	var b bytes.Buffer
	list := func(word string, ids []plumbing.Hash) {
		for _, id := range ids {
			pkt(&b, "%s %s", word, id)
		}
	}
	if g.v2 {
		pkt(&b, "command=fetch")
		g.tell(&b)
		b.WriteString(delimPkt)
		for _, word := range []string{"thin-pack", "no-progress", "ofs-delta"} {
			pkt(&b, "%s", word)
		}
		list("want", q.wants)
		list("shallow", q.shallows)
		if q.depth > 0 {
			pkt(&b, "deepen %d", q.depth)
		}
		list("have", q.haves)
		pkt(&b, "done")
		b.WriteString(flushPkt)
		return b.Bytes()
	}
	var words []string
	// Azure DevOps answers only who speaks multi_ack. One round of haves with
	// a done is all that is sent, so that it changes no more than the number
	// of lines that acknowledge them.
	for _, one := range [][]string{{"multi_ack_detailed", "multi_ack"}, {"side-band-64k", "side-band"}, {"thin-pack"}, {"no-progress"}, {"ofs-delta"}} {
		for _, word := range one {
			if g.can(word) {
				words = append(words, word)
				break
			}
		}
	}
	if g.can("agent") {
		words = append(words, "agent="+agent)
	}
	for i, id := range q.wants {
		if i == 0 {
			pkt(&b, "want %s %s", id, strings.Join(words, " "))
		} else {
			pkt(&b, "want %s", id)
		}
	}
	list("shallow", q.shallows)
	if q.depth > 0 {
		pkt(&b, "deepen %d", q.depth)
	}
	b.WriteString(flushPkt)
	list("have", q.haves)
	pkt(&b, "done")
	return b.Bytes()
}

// tell adds to a command of protocol 2 what goes with each.
func (g *greeting) tell(b *bytes.Buffer) {
	if g.can("agent") {
		pkt(b, "agent=%s", agent)
	}
	if g.can("object-format") {
		pkt(b, "object-format=sha1")
	}
}

// lsRefs is the command of protocol 2 that lists refs with these beginnings.
func (g *greeting) lsRefs(prefixes []string) []byte {
	var b bytes.Buffer
	pkt(&b, "command=ls-refs")
	g.tell(&b)
	b.WriteString(delimPkt)
	pkt(&b, "peel")
	pkt(&b, "symrefs")
	for _, p := range prefixes {
		// A name that no packet holds is none that a ref has.
		if len(p) < pktMost/2 {
			pkt(&b, "ref-prefix %s", p)
		}
	}
	b.WriteString(flushPkt)
	return b.Bytes()
}

// answer is what a server sends for a request.
type answer struct {
	shallow, unshallow []plumbing.Hash
	pack               io.Reader
}

// readAnswer reads an answer up to its pack.
func readAnswer(in *packets, v2 bool) (*answer, error) {
	a := &answer{}
	for n := range linesMost {
		if !v2 {
			// Without side bands the pack follows as it is.
			if b, err := in.r.Peek(4); err == nil && string(b) == "PACK" {
				a.pack = in.raw()
				return a, nil
			}
		}
		kind, b, err := in.next()
		switch {
		case err == io.EOF:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		case kind == packetEnd || v2 && kind == packetFlush:
			return nil, io.ErrUnexpectedEOF // no pack
		case kind != packetData:
			continue
		case n == linesMost-1 || len(a.shallow)+len(a.unshallow) > shallowSaid:
			return nil, errNotGit
		}
		line := strings.TrimSuffix(string(b[:min(len(b), 128)]), "\n")
		word, id, _ := strings.Cut(line, " ")
		switch {
		case word == "shallow" && plumbing.IsHash(id):
			a.shallow = append(a.shallow, plumbing.NewHash(id))
		case word == "unshallow" && plumbing.IsHash(id):
			a.unshallow = append(a.unshallow, plumbing.NewHash(id))
		case word == "ACK", word == "NAK":
		case v2 && (line == "acknowledgments" || line == "shallow-info"):
		case v2 && line == "packfile":
			a.pack = &bands{in: in}
			return a, nil
		case !v2 && len(b) > 0 && b[0] >= 1 && b[0] <= 3:
			a.pack = &bands{in: in}
			return a, a.pack.(*bands).take(b)
		default:
			return nil, errNotGit
		}
	}
	return nil, errNotGit
}

// bands reads the pack in an answer with side bands.
type bands struct {
	in   *packets
	left []byte
	err  error
}

// take takes one packet.
func (b *bands) take(p []byte) error {
	if len(p) == 0 {
		return errNotGit
	}
	switch p[0] {
	case 1:
		b.left = p[1:]
	case 2: // progress
	case 3:
		return &serverSaid{strings.TrimSpace(string(p[1:]))}
	default:
		return errNotGit
	}
	return nil
}

func (b *bands) Read(p []byte) (int, error) {
	for len(b.left) == 0 && b.err == nil {
		kind, data, err := b.in.next()
		switch {
		case err == io.EOF:
			b.err = io.ErrUnexpectedEOF
		case err != nil:
			b.err = err
		case kind != packetData:
			b.err = io.EOF
		default:
			b.err = b.take(data)
		}
	}
	if len(b.left) == 0 {
		return 0, b.err
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	return n, nil
}
