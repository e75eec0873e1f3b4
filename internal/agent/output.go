package agent

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"deployhook/internal/agent/wire"
)

// pipes carry a step's output: from its process, through two readers, to one
// sender. A step that prints faster than the near end reads is held up by that
// and not kept in memory.
type pipes struct {
	read   [2]*os.File // stdout, stderr
	write  [2]*os.File // the process's ends
	chunks chan output
	ending atomic.Bool // the process has ended
}

// output is a piece of what a step printed: the frames of it, one behind the
// other, and how many bytes they hold.
type output struct {
	frames []byte
	size   int64
}

// newPipes makes the pipes of a command.
func newPipes(cmd *exec.Cmd) (*pipes, error) {
	p := &pipes{chunks: make(chan output)}
	for i := range p.read {
		var err error
		if p.read[i], p.write[i], err = os.Pipe(); err != nil {
			p.started()
			p.close()
			return nil, err
		}
		// What a step prints comes in fewer and larger pieces. A user may have
		// no more memory for pipes: then they stay as they are.
		_, _ = unix.FcntlInt(p.write[i].Fd(), unix.F_SETPIPE_SZ, pipeSize)
	}
	cmd.Stdout, cmd.Stderr = p.write[0], p.write[1]
	return p, nil
}

// started gives the process's ends away.
func (p *pipes) started() {
	for _, f := range p.write {
		if f != nil {
			f.Close()
		}
	}
}

// close ends the reading, whatever is still to come.
func (p *pipes) close() {
	for _, f := range p.read {
		if f != nil {
			f.Close()
		}
	}
}

// finish says that the processes have ended: pipes that still give nothing for
// drainTime are held by something out of reach.
func (p *pipes) finish() {
	p.ending.Store(true)
	for _, f := range p.read {
		_ = f.SetReadDeadline(time.Now().Add(drainTime))
	}
}

// send passes output on until both pipes have ended. When nobody listens any
// more, or the step has printed too much, it is ended and the rest thrown away.
func (p *pipes) send(w http.ResponseWriter, s *step) {
	var readers sync.WaitGroup
	for i, f := range p.read {
		readers.Go(func() { p.pump(f, wire.FrameStdout+byte(i)) })
	}
	go func() { readers.Wait(); close(p.chunks) }()
	total, flusher, broken := int64(0), http.NewResponseController(w), false
	processors := 0 // that this process used before the flood
	defer func() {
		if processors > 0 {
			runtime.GOMAXPROCS(processors)
		}
	}()
	for c := range p.chunks {
		if total += c.size; total > wire.OutputMost {
			s.stop(stopOutput)
			continue
		}
		if total > floodFrom && processors == 0 {
			// From reader to sender to connection there is little to do at
			// once: on several processors most of it is waking the next one.
			processors = runtime.GOMAXPROCS(1)
		}
		if broken {
			continue
		}
		if _, err := w.Write(c.frames); err != nil {
			broken = true
			s.stop(stopCanceled)
			continue
		}
		_ = flusher.Flush()
	}
}

// pump reads a pipe until its end. Two buffers are enough: when the second is
// taken, the first has been sent.
func (p *pipes) pump(r *os.File, kind byte) {
	var bufs [2]frames
	for i := 0; ; i ^= 1 {
		if p.ending.Load() {
			_ = r.SetReadDeadline(time.Now().Add(drainTime))
		}
		out, err := bufs[i].read(r, kind)
		if out.size > 0 {
			p.chunks <- out
		}
		if err != nil {
			return
		}
	}
}

// frames is memory for frames that are read from a pipe at once, each behind
// the room for its head.
type frames struct {
	memory []byte
	places [][]byte
}

// read reads what a pipe has.
func (f *frames) read(r *os.File, kind byte) (out output, err error) {
	const room = wire.FrameHead + wire.FrameMost
	if f.memory == nil {
		f.memory = make([]byte, outputFrames*room)
		for at := 0; at < len(f.memory); at += room {
			f.places = append(f.places, f.memory[at+wire.FrameHead:at+room])
		}
	}
	raw, err := r.SyscallConn()
	if err != nil {
		return output{}, err
	}
	n, rerr := 0, error(nil)
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, rerr = unix.Readv(int(fd), f.places)
			if rerr != unix.EINTR {
				return rerr != unix.EAGAIN
			}
		}
	})
	if err == nil {
		err = rerr
	}
	if err == nil && n == 0 {
		err = io.EOF
	}
	if n <= 0 {
		return output{}, err
	}
	end := 0
	for left := n; left > 0; {
		size := min(left, wire.FrameMost)
		wire.FrameHeader(f.memory[end:], kind, size)
		end += wire.FrameHead + size
		left -= size
	}
	return output{f.memory[:end], int64(n)}, err
}
