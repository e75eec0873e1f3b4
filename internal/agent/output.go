package agent

import (
	"net/http"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

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

// output is a piece of what a step printed.
type output struct {
	kind byte
	data []byte
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
	for c := range p.chunks {
		if total += int64(len(c.data)); total > wire.OutputMost {
			s.stop(stopOutput)
			continue
		}
		if broken {
			continue
		}
		if err := wire.WriteFrame(w, c.kind, c.data); err != nil {
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
	var bufs [2][]byte
	for i := 0; ; i ^= 1 {
		if bufs[i] == nil {
			bufs[i] = make([]byte, outputChunk)
		}
		if p.ending.Load() {
			_ = r.SetReadDeadline(time.Now().Add(drainTime))
		}
		n, err := r.Read(bufs[i])
		if n > 0 {
			p.chunks <- output{kind, bufs[i][:n]}
		}
		if err != nil {
			return
		}
	}
}
