package wire

import (
	"io"

	"github.com/klauspost/compress/zstd"
)

// Packed is the Content-Encoding of a body that is compressed.
const Packed = "zstd"

// packWindow bounds what either end keeps of a compressed body.
const packWindow = 1 << 20

// Pack compresses what is written to it. Its Close is the end of the body and
// does not close w.
func Pack(w io.Writer) (io.WriteCloser, error) {
	return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(packWindow), zstd.WithLowerEncoderMem(true))
}

// Unpack reads what was compressed, within bounded memory.
func Unpack(r io.Reader) (io.ReadCloser, error) {
	d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(packWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}
