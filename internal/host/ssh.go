package host

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"deployhook/internal/agent/wire"
	"deployhook/internal/deploy"
)

// ErrUnreachable is a host to which there is no connection now: it may be
// there later.
var ErrUnreachable = errors.New("the host cannot be reached")

// unreachable is the sentence about an [ErrUnreachable].
type unreachable string

func (e unreachable) Error() string      { return string(e) }
func (unreachable) Is(target error) bool { return target == ErrUnreachable }

const (
	dialTime  = 15 * time.Second // to a TCP connection
	loginTime = 2 * time.Minute  // from a connection to the agent's first line, its program not counted
	lostTime  = 60 * time.Second // from the last that came of a lost agent until it has ended, whatever it does
	jumpsMost = 8                // hosts to go through
)

// What tests make shorter.
var (
	// silenceTime is how long a host may say nothing while something is waited for.
	silenceTime = wire.Silence
	// agentSilence is how long nothing may come of an agent whose host still says
	// something: a packet of its sshd is seen when it is whole.
	agentSilence = 90 * time.Second
)

// remote is what is remembered of a host over SSH.
type remote struct {
	hosts *Hosts
	name  string
	turn  chan bool // held while it is found out, or true: no agent of an earlier daemon lives there

	mu   sync.Mutex
	lost []lostAgent
}

// lostAgent is one whose exit nobody has seen.
type lostAgent struct {
	nonce string
	until time.Time // then it has ended by itself
}

func (h *Hosts) remote(name string) *remote {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.remotes[name]
	if r == nil {
		r = &remote{hosts: h, name: name, turn: make(chan bool, 1)}
		r.turn <- false
		h.remotes[name] = r
	}
	return r
}

func (r *remote) open(ctx context.Context, far *deploy.Host, progress Progress) (*Conn, error) {
	c, err := r.start(ctx, far, progress)
	if err != nil {
		return nil, err
	}
	if err := r.settle(ctx, c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// start starts an agent over a connection of its own.
func (r *remote) start(ctx context.Context, far *deploy.Host, progress Progress) (*Conn, error) {
	l, err := r.hosts.link(ctx, far)
	if err != nil {
		return nil, err
	}
	s := &session{link: l, remote: r, name: far.Name, mark: "deployhook-far " + rand.Text() + " ", progress: progress}
	s.conn = &Conn{
		o: &r.hosts.o, far: true, conn: s, process: s, done: make(chan struct{}),
		bury: func() { s.bury(far) }, after: func() error {
			l.close()
			r.hosts.use(s.conn.nonce, false)
			return s.unseen()
		},
	}
	c, err := s.login(ctx)
	if err != nil {
		l.close()
		if s.sent != nil {
			<-s.sent
		}
		return nil, err
	}
	r.hosts.use(c.nonce, true)
	return c, nil
}

// use notes whether an agent over SSH is in use.
func (h *Hosts) use(nonce string, used bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if used {
		h.live[nonce] = true
	} else {
		delete(h.live, nonce)
	}
}

// settle waits until no agent lives on the host that runs what this one will
// run again: of the daemon before this one as long as one of its can be there,
// and those to which the connection was lost.
func (r *remote) settle(ctx context.Context, c *Conn) error {
	var alone bool
	select {
	case alone = <-r.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { r.turn <- alone }()
	if !alone {
		// Agents of another daemon with the same user are not told apart: they
		// are waited for no longer than one of ours could be there.
		if wait := time.Until(r.hosts.began.Add(lostTime)); wait > 0 {
			if err := r.await(ctx, c, wire.Await{Except: r.hosts.inUse(), Wait: wait.Milliseconds()}); err != nil {
				return err
			}
		}
		alone = true
	}
	r.mu.Lock()
	lost := slices.Clone(r.lost)
	r.mu.Unlock()
	if len(lost) == 0 {
		return nil
	}
	q := wire.Await{Kill: true}
	for _, l := range lost {
		q.Nonces = append(q.Nonces, l.nonce)
		q.Wait = max(q.Wait, time.Until(l.until).Milliseconds())
	}
	if err := r.await(ctx, c, q); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = slices.DeleteFunc(r.lost, func(l lostAgent) bool { return slices.Contains(lost, l) })
	return nil
}

func (r *remote) await(ctx context.Context, c *Conn, q wire.Await) error {
	a, err := callFor[wire.Awaited](ctx, c, lostTime+callTime, wire.RouteAwait, q)
	if err == nil && a.Alive > 0 && q.Kill {
		err = errors.New("an agent to which the connection was lost does not end there and cannot be killed")
	}
	return err
}

// lose remembers an agent whose exit was not seen, since its last word.
func (r *remote) lose(nonce string, heard time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = append(r.lost, lostAgent{nonce, heard.Add(lostTime)})
}

// inUse are the agents over SSH that are in use.
func (h *Hosts) inUse() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.live))
}

// link is a connection to a host, and those to the hosts that it goes through.
type link struct {
	*ssh.Client
	through []*ssh.Client // the nearest first
	line    *tcpLine
}

// close ends it at once.
func (l *link) close() {
	l.line.Close() // nothing is said any more: saying it could take as long as the far end likes
	if l.Client != nil {
		l.Client.Close()
	}
	for _, c := range l.through {
		c.Close()
	}
}

// link logs in to a host.
func (h *Hosts) link(ctx context.Context, far *deploy.Host) (*link, error) {
	route, err := h.route(far)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	first := route[0]
	raw, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "tcp", first.addr())
	if err != nil {
		return nil, via(route, 0, first.dialError(ctx, err))
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		shortQueue(tcp)
	}
	l := &link{line: watch(raw, silenceTime)}
	stop := context.AfterFunc(ctx, func() { l.line.Close() })
	defer stop()
	var conn net.Conn = l.line
	for i, hop := range route {
		if i > 0 {
			if conn, err = l.Client.DialContext(ctx, "tcp", hop.addr()); err != nil {
				l.close()
				return nil, via(route, i, l.line.said(hop.forwardError(ctx, route[i-1], err)))
			}
			l.through = append(l.through, l.Client)
		}
		if l.Client, err = h.shake(ctx, hop, conn); err != nil {
			l.close()
			return nil, via(route, i, l.line.said(err))
		}
	}
	return l, nil
}

// unsentMost is how many bytes may wait here until a slow line takes them.
const unsentMost = 128 << 10

// shortQueue keeps the kernel from queueing more than a slow line sends soon:
// what asks whether the other end is there would wait behind it.
func shortQueue(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err == nil {
		// A kernel that does not know it queues more.
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentMost)
		})
	}
}

// via names the host on the way that an error is of.
func via(route []*hop, i int, err error) error {
	if i == len(route)-1 {
		return err
	}
	return fmt.Errorf("its jump host %s: %w", route[i].name, err)
}

// shake logs in over a connection.
func (h *Hosts) shake(ctx context.Context, p *hop, conn net.Conn) (*ssh.Client, error) {
	known, err := p.known()
	if err != nil {
		return nil, err
	}
	login, err := h.keys(ctx, p)
	if err != nil {
		return nil, err
	}
	defer login.close()
	config := &ssh.ClientConfig{
		Config:            ssh.Config{KeyExchanges: keyExchanges, Ciphers: ciphers, MACs: macs},
		User:              p.user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeysCallback(login.signers)},
		HostKeyAlgorithms: known.algorithms(p),
		HostKeyCallback:   known.check(p),
		ClientVersion:     "SSH-2.0-deployhook",
	}
	c, chans, reqs, err := ssh.NewClientConn(conn, p.knownAs(), config)
	if err != nil {
		return nil, p.shakeError(ctx, login, err)
	}
	client := ssh.NewClient(c, chans, reqs)
	if p.keepalive > 0 {
		go keepAlive(client, p.keepalive)
	}
	return client, nil
}

// keepAlive asks a connection regularly, so that something comes back: whoever
// waits for that sees when nothing does. It ends with the connection.
func keepAlive(c *ssh.Client, every time.Duration) {
	gone := make(chan struct{})
	go func() { _ = c.Wait(); close(gone) }()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-gone:
			return
		case <-tick.C:
		}
		if _, _, err := c.SendRequest("keepalive@openssh.com", true, nil); err != nil {
			return
		}
	}
}

// The algorithms of OpenSSH 9 that are here too: none with SHA-1, no CBC, and
// none that authenticates before it encrypts.
//
// Source: sshd_config(5) of OpenSSH 9.9, Ciphers, KexAlgorithms, MACs.
var (
	keyExchanges = []string{
		ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519, ssh.KeyExchangeECDHP256, ssh.KeyExchangeECDHP384,
		ssh.KeyExchangeECDHP521, ssh.KeyExchangeDH16SHA512, ssh.KeyExchangeDHGEXSHA256,
	}
	ciphers = []string{
		ssh.CipherAES128GCM, ssh.CipherAES256GCM, ssh.CipherChaCha20Poly1305, ssh.CipherAES128CTR, ssh.CipherAES192CTR, ssh.CipherAES256CTR,
	}
	macs        = []string{ssh.HMACSHA256ETM, ssh.HMACSHA512ETM}
	hostKeyAlgs = []string{
		ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01, ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01,
		ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
	}
)

// hop is a host on the way, with what is written of it and what ssh_config
// says besides.
type hop struct {
	name       string // in deploy.yaml, or in a ProxyJump
	place      string // where its settings stand, for sentences
	inFile     bool   // the place is a file of ssh's
	host       string
	port       int
	user       string
	identity   *deploy.Secret
	files      []string // of private keys, from ssh_config
	certs      []string // of certificates, from ssh_config
	agent      string   // socket of an SSH agent; empty: $SSH_AUTH_SOCK; none: none
	only       bool     // no keys but those that are named
	hostKey    string
	knownLines string
	knownFiles []string
	alias      string // under which its host key is known
	keepalive  time.Duration
}

func (p *hop) addr() string { return net.JoinHostPort(p.host, strconv.Itoa(p.port)) }

// knownAs is the address under which its host key is looked for.
func (p *hop) knownAs() string {
	if p.alias != "" {
		return net.JoinHostPort(p.alias, "22")
	}
	return p.addr()
}

// tcpLine is a TCP connection that is ended when nothing comes for long. What is
// sent says nothing: the kernel takes it.
type tcpLine struct {
	net.Conn
	timer *time.Timer
	most  atomic.Int64 // 0: it may be silent
	began time.Time
	last  atomic.Int64 // when something came, in nanoseconds after it began: the clock may be set meanwhile
	late  atomic.Bool  // it was ended for its silence
}

func watch(c net.Conn, most time.Duration) *tcpLine {
	w := &tcpLine{Conn: c, began: time.Now()}
	w.most.Store(int64(most))
	w.timer = time.AfterFunc(most, func() {
		if w.most.Load() > 0 {
			w.late.Store(true)
			w.Close()
		}
	})
	return w
}

// patience changes how long it may be silent; 0: for ever.
func (w *tcpLine) patience(most time.Duration) {
	w.most.Store(int64(most))
	w.moved()
}

func (w *tcpLine) moved() {
	if most := w.most.Load(); most > 0 {
		w.timer.Reset(time.Duration(most))
	} else {
		w.timer.Stop()
	}
}

func (w *tcpLine) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 {
		w.last.Store(int64(time.Since(w.began)))
		w.moved()
	}
	return n, err
}

func (w *tcpLine) Close() error {
	w.timer.Stop()
	return w.Conn.Close()
}

// heard is when something came last.
func (w *tcpLine) heard() time.Time { return w.began.Add(time.Duration(w.last.Load())) }

// said is an error of the connection, or that it was silent.
func (w *tcpLine) said(err error) error {
	if w.late.Load() {
		return unreachable(fmt.Sprintf("it answered the connection and then said nothing for %v: is it overloaded, or is this no sshd?", time.Duration(w.most.Load())))
	}
	return err
}
