package pipeline

// mask stands where a secret was.
var mask = []byte("***")

// redactor masks secrets in a stream, also where one is cut by the border
// between two chunks. It is for one stream: stdout and stderr have one each.
type redactor struct {
	masks  *masks
	held   []byte // the end of the stream so far that may be the beginning of a secret
	joined []byte // memory for held and the chunk behind it
	out    []byte // memory for what is shown in place of a chunk that has a secret
}

// write takes the next piece of the stream and gives what can be shown of it:
// the piece itself where there is nothing to mask. The result is valid until
// the next call.
func (r *redactor) write(chunk []byte) []byte {
	if len(r.held) == 0 {
		if len(r.masks.all) == 0 {
			return chunk
		}
		return r.scan(chunk, false)
	}
	r.joined = append(append(r.joined[:0], r.held...), chunk...)
	return r.scan(r.joined, false)
}

// flush gives what was held back when the stream has ended.
func (r *redactor) flush() []byte {
	r.joined = append(r.joined[:0], r.held...)
	return r.scan(r.joined, true)
}

func (r *redactor) scan(text []byte, last bool) []byte {
	r.out, r.held = r.out[:0], r.held[:0]
	clean := 0 // text before it is in out
	var escapes escapeSearch
	for i := r.masks.next(text, 0, &escapes); i < len(text); i = r.masks.next(text, i, &escapes) {
		n, partial := r.masks.match(text[i:])
		// A longer secret may still begin here: with the rest of the stream
		// to come, wait for it before masking the shorter one.
		if partial && !last {
			r.held = append(r.held, text[i:]...)
			text = text[:i]
			break
		}
		if n > 0 {
			r.out = append(append(r.out, text[clean:i]...), mask...)
			i += n
			clean = i
			continue
		}
		i++
	}
	if clean == 0 {
		return text
	}
	r.out = append(r.out, text[clean:]...)
	return r.out
}
