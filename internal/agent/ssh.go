package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"deployhook/internal/agent/wire"
)

// stdio is the stream of an agent that sshd has started: two pipes, or one
// socket twice. It is closed when nothing comes for long.
type stdio struct {
	in, out *os.File
	silence *time.Timer
}

// openStdio takes descriptors 0 and 1.
func openStdio() (*stdio, error) {
	var files [2]*os.File
	for i := range files {
		fd, err := unix.FcntlInt(uintptr(i), unix.F_DUPFD_CLOEXEC, 3)
		if err == nil {
			err = unix.SetNonblock(fd, true) // so that Close ends a Read
		}
		if err != nil {
			return nil, fmt.Errorf("deployhook agent --ssh is started by deployhook itself, through sshd: %w", err)
		}
		files[i] = os.NewFile(uintptr(fd), "connection")
	}
	s := &stdio{in: files[0], out: files[1]}
	s.silence = time.AfterFunc(wire.Silence, func() { s.Close() })
	return s, nil
}

func (s *stdio) Read(b []byte) (int, error) {
	n, err := s.in.Read(b)
	if n > 0 {
		s.silence.Reset(wire.Silence)
	}
	return n, err
}

func (s *stdio) Close() error {
	s.silence.Stop()
	return errors.Join(s.in.Close(), s.out.Close())
}

func (s *stdio) Write(b []byte) (int, error)        { return s.out.Write(b) }
func (s *stdio) LocalAddr() net.Addr                { return stdioAddr{} }
func (s *stdio) RemoteAddr() net.Addr               { return stdioAddr{} }
func (s *stdio) SetReadDeadline(t time.Time) error  { return s.in.SetReadDeadline(t) }
func (s *stdio) SetWriteDeadline(t time.Time) error { return s.out.SetWriteDeadline(t) }
func (s *stdio) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

type stdioAddr struct{}

func (stdioAddr) Network() string { return "ssh" }
func (stdioAddr) String() string  { return "ssh" }

const (
	programUse  = 30 * 24 * time.Hour // without a use, until a program is removed
	halfProgram = 24 * time.Hour      // until one is that did not come to its end
)

// tidyPrograms notes that this program is in use, and removes those of other
// versions beside it that have not been for long. One whose time is to come was
// used when the clock was ahead: nobody knows for how long it has not been, and
// its time begins now. What cannot be removed is in nobody's way.
func tidyPrograms(own string, err error) {
	if err != nil || !strings.HasPrefix(filepath.Base(own), "agent-") {
		return
	}
	now := time.Now()
	_ = os.Chtimes(own, now, now)
	entries, _ := os.ReadDir(filepath.Dir(own))
	for _, e := range entries {
		st, err := e.Info()
		if err != nil || !st.Mode().IsRegular() {
			continue
		}
		age := now.Sub(st.ModTime())
		if age < -halfProgram {
			_ = os.Chtimes(filepath.Join(filepath.Dir(own), e.Name()), now, now)
			continue
		}
		if strings.HasPrefix(e.Name(), "agent-") && age > programUse || strings.HasPrefix(e.Name(), ".new-") && age > halfProgram {
			os.Remove(filepath.Join(filepath.Dir(own), e.Name()))
		}
	}
}
