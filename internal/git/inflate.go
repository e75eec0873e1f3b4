package git

import (
	"bytes"
	"errors"
	"io"

	"github.com/klauspost/compress/zlib"
)

var (
	errShort   = errors.New("it is cut short")
	errDeflate = errors.New("it is no zlib stream")
	errSize    = errors.New("it has another size than it says")
)

// zinflater inflates from one slice to another, and may be used again. It is
// for one goroutine.
type zinflater struct {
	src bytes.Reader
	z   io.ReadCloser // nil until something was inflated
}

// zlib inflates the zlib stream at the beginning of src into dst, which must
// have just its size, and says how many bytes of src it has. The error is
// [errShort] when src may go on, else [errSize] or [errDeflate].
func (z *zinflater) zlib(dst, src []byte) (used int, err error) {
	z.src.Reset(src)
	if z.z == nil {
		z.z, err = zlib.NewReader(&z.src)
	} else {
		err = z.z.(zlib.Resetter).Reset(&z.src, nil)
	}
	if err != nil {
		return 0, inflateError(err)
	}
	for n := 0; err == nil && n < len(dst); {
		var more int
		more, err = z.z.Read(dst[n:])
		if n += more; err == io.EOF && n < len(dst) {
			return 0, errSize
		}
	}
	var past [1]byte
	for err == nil { // up to the checksum
		var more int
		if more, err = z.z.Read(past[:]); more > 0 {
			return 0, errSize
		}
	}
	if err != io.EOF {
		return 0, inflateError(err)
	}
	return len(src) - z.src.Len(), nil
}

func inflateError(err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return errShort
	}
	return errDeflate
}
