package pipeline

// mask stands where a secret was.
var mask = []byte("***")

// redactor masks secrets in a stream, also where one is cut by the border
// between two chunks. It is for one stream: stdout and stderr have one each.
type redactor struct {
	masks *masks
	held  []byte // the end of the stream so far that may be the beginning of a secret
}

// write takes the next piece of the stream and gives what can be shown of it.
// The result is valid until the next call.
func (r *redactor) write(chunk []byte) []byte {
	if len(r.masks.all) == 0 && len(r.held) == 0 {
		return chunk
	}
	return r.scan(append(r.held, chunk...), false)
}

// flush gives what was held back when the stream has ended.
func (r *redactor) flush() []byte { return r.scan(r.held, true) }

func (r *redactor) scan(text []byte, last bool) []byte {
	out := make([]byte, 0, len(text))
	clean := 0 // text before it is in out
	for i := 0; i < len(text); {
		if !r.masks.ends[text[i]] {
			i++
			continue
		}
		n, partial := r.masks.match(text[i:])
		// A longer secret may still begin here: with the rest of the stream
		// to come, wait for it before masking the shorter one.
		if partial && !last {
			out = append(out, text[clean:i]...)
			r.held = append([]byte(nil), text[i:]...)
			return out
		}
		if n > 0 {
			out = append(append(out, text[clean:i]...), mask...)
			i += n
			clean = i
			continue
		}
		i++
	}
	r.held = nil
	return append(out, text[clean:]...)
}
