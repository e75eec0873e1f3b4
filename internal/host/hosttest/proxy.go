package hosttest

import (
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy stands between the near end and a host.
type Proxy struct {
	Port int

	to   string
	up   atomic.Int64
	down atomic.Int64
	wg   sync.WaitGroup

	mu     sync.Mutex
	change *sync.Cond
	frozen bool
	closed bool
	rate   int64 // bytes per second and direction; 0 = as fast as it goes
	conns  map[net.Conn]bool
}

// NewProxy makes a proxy before a host; it ends with the test.
func NewProxy(t testing.TB, s *Server) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Port: l.Addr().(*net.TCPAddr).Port, to: net.JoinHostPort(s.Address, strconv.Itoa(s.Port)), conns: map[net.Conn]bool{}}
	p.change = sync.NewCond(&p.mu)
	p.wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.carry(near) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// carry carries a connection both ways until either end has ended.
func (p *Proxy) carry(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer far.Close()
	p.mu.Lock()
	p.conns[near], p.conns[far] = true, true
	closed := p.closed
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.conns, near)
		delete(p.conns, far)
		p.mu.Unlock()
	}()
	if closed {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.copy(far, near, &p.up) })
	both.Go(func() { p.copy(near, far, &p.down) })
	both.Wait()
}

func (p *Proxy) copy(to, from net.Conn, count *atomic.Int64) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(p.piece(buf))
		if n > 0 {
			if !p.pass(from, n) {
				return
			}
			count.Add(int64(n))
			if _, werr := to.Write(buf[:n]); werr != nil {
				from.Close()
				return
			}
		}
		if err != nil {
			if err == io.EOF {
				_ = to.(*net.TCPConn).CloseWrite()
			} else {
				to.Close()
			}
			return
		}
	}
}

// piece is as much of a buffer as may be read at once.
func (p *Proxy) piece(buf []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate > 0 {
		return buf[:min(int64(len(buf)), max(1, p.rate/10))]
	}
	return buf
}

// pass waits as long as so many bytes take, and while the proxy is frozen;
// false: the connection was cut meanwhile.
func (p *Proxy) pass(c net.Conn, n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if rate := p.rate; rate > 0 {
		p.mu.Unlock()
		time.Sleep(time.Duration(n) * time.Second / time.Duration(rate)) // the line is slow: that is what is tested
		p.mu.Lock()
	}
	for p.frozen && p.conns[c] {
		p.change.Wait()
	}
	return p.conns[c]
}

// Cut ends all connections at once.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		// A reset, as a machine that has restarted sends.
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	clear(p.conns)
	p.change.Broadcast()
}

// Freeze has all connections fall silent, those that come too, until Thaw.
func (p *Proxy) Freeze() { p.set(func() { p.frozen = true }) }

// Thaw ends Freeze.
func (p *Proxy) Thaw() { p.set(func() { p.frozen = false }) }

// Limit makes the line so slow, in bytes a second each way; 0 takes it back.
func (p *Proxy) Limit(rate int64) { p.set(func() { p.rate = rate }) }

func (p *Proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	p.change.Broadcast()
}

// Bytes says how many went to the host and how many came from it, so far.
func (p *Proxy) Bytes() (up, down int64) { return p.up.Load(), p.down.Load() }
