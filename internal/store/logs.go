package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"

	"deployhook/internal/deploy"
)

// rawMost bounds what a compressed value of the database may grow to.
const rawMost = 32 << 20

// One encoder and one decoder serve all: EncodeAll and DecodeAll may be called
// from several goroutines, and each further one would hold its own window.
var (
	encoder, _ = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(128<<10), zstd.WithLowerEncoderMem(true))
	decoder, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(rawMost), zstd.WithDecoderLowmem(true))
)

func compress(b []byte) []byte {
	if b == nil {
		return nil
	}
	return encoder.EncodeAll(b, make([]byte, 0, len(b)/3+64))
}

func decompress(b []byte) ([]byte, error) {
	if b == nil {
		return nil, nil
	}
	return decoder.DecodeAll(b, nil)
}

// SaveStep writes how a step stands, and what it wrote for later jobs in the
// same transaction.
func (s *Store) SaveStep(ctx context.Context, at deploy.StepAt, st deploy.RunStep) error {
	var code any
	if st.ExitCode != nil {
		code = *st.ExitCode
	}
	return s.write(ctx, func(t *tx) error {
		if err := t.saveOutputs(at, st.Outputs); err != nil {
			return err
		}
		return t.exec(`INSERT OR REPLACE INTO steps (run, job, attempt, host, idx, name, state, exit_code, signal, error, tries, started_ms, ended_ms)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			at.Run, at.Job, at.Attempt, at.Host, at.Index, st.Name, st.State, code, st.Signal, st.Error, st.Tries, ms(st.Started), ms(st.Ended))
	})
}

// AppendLog writes a chunk of a step's output; one with the same seq is
// replaced in its place. lines hold at most a few hundred KiB.
func (s *Store) AppendLog(ctx context.Context, at deploy.StepAt, seq int64, lines []deploy.LogLine) error {
	blob := compress(encodeLines(lines))
	return s.write(ctx, func(t *tx) error {
		return t.exec(`INSERT INTO logs (run, job, attempt, host, idx, seq, lines) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (run, job, attempt, host, idx, seq) DO UPDATE SET lines = excluded.lines`,
			at.Run, at.Job, at.Attempt, at.Host, at.Index, seq, blob)
	})
}

// DropLog removes a step's chunks from one seq to another, both included.
func (s *Store) DropLog(ctx context.Context, at deploy.StepAt, from, to int64) error {
	return s.write(ctx, func(t *tx) error {
		return t.exec(`DELETE FROM logs WHERE run = ? AND job = ? AND attempt = ? AND host = ? AND idx = ? AND seq BETWEEN ? AND ?`,
			at.Run, at.Job, at.Attempt, at.Host, at.Index, from, to)
	})
}

// logPage is how many chunks are read at once: the reader's memory is bound by
// it, whatever the length of the log.
const logPage = 8

// Log gives a run's output in the order in which it was written, from after
// f.After on. It ends with fn's first error.
func (s *Store) Log(ctx context.Context, run int64, f deploy.LogFilter, fn func(deploy.LogChunk) error) error {
	if f.Tail > 0 {
		return s.logTail(ctx, run, f, fn)
	}
	after := f.After
	for {
		page, err := s.logChunks(ctx, run, f, "AND logs.id > ? ORDER BY logs.id", after)
		if err != nil {
			return s.explain(err)
		}
		for i := range page {
			// Decoded one by one: lines take many times the room of the page.
			if err := page[i].decode(); err != nil {
				return err
			}
			if err := fn(page[i].chunk); err != nil {
				return err
			}
			after = page[i].chunk.ID
			page[i] = packed{}
		}
		if len(page) < logPage {
			return nil
		}
	}
}

// logTail gives the last chunks of a run's output, in their order, which hold
// f.Tail lines or more.
func (s *Store) logTail(ctx context.Context, run int64, f deploy.LogFilter, fn func(deploy.LogChunk) error) error {
	var tail []deploy.LogChunk // the last first
	lines, before := 0, int64(math.MaxInt64)
	for more := true; more && lines < f.Tail; {
		page, err := s.logChunks(ctx, run, f, "AND logs.id > ? AND logs.id < ? ORDER BY logs.id DESC", f.After, before)
		if err != nil {
			return s.explain(err)
		}
		more = len(page) == logPage
		for i := 0; i < len(page) && lines < f.Tail; i++ {
			if err := page[i].decode(); err != nil {
				return err
			}
			tail, before = append(tail, page[i].chunk), page[i].chunk.ID
			lines += len(page[i].chunk.Lines)
		}
	}
	for _, c := range slices.Backward(tail) {
		if err := fn(c); err != nil {
			return err
		}
	}
	return nil
}

// packed is a chunk as the database has it.
type packed struct {
	chunk deploy.LogChunk
	blob  []byte
}

func (p *packed) decode() error {
	raw, err := decompress(p.blob)
	if err == nil {
		p.chunk.Lines, err = decodeLines(raw)
	}
	if err != nil {
		return fmt.Errorf("reading log chunk %d of run %d: %w", p.chunk.ID, p.chunk.At.Run, err)
	}
	return nil
}

// logChunks reads a page of chunks. more is SQL, written here and never from
// outside.
func (s *Store) logChunks(ctx context.Context, run int64, f deploy.LogFilter, more string, args ...any) ([]packed, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT logs.id, logs.job, logs.attempt, logs.host, logs.idx, coalesce(steps.name, ''), lines
		FROM logs LEFT JOIN steps USING (run, job, attempt, host, idx)
		WHERE run = ? AND (? = '' OR logs.job = ?) AND (? = '' OR steps.name = ?) AND (? = '' OR logs.host = ?) `+more+` LIMIT ?`,
		append(append([]any{run, f.Job, f.Job, f.Step, f.Step, f.Host, f.Host}, args...), logPage)...)
	if err != nil {
		return nil, err
	}
	var page []packed
	err = scanAll(rows, func(rows *sql.Rows) error {
		p := packed{chunk: deploy.LogChunk{At: deploy.StepAt{Run: run}}}
		c := &p.chunk
		err := rows.Scan(&c.ID, &c.At.Job, &c.At.Attempt, &c.At.Host, &c.At.Index, &c.StepName, &p.blob)
		page = append(page, p)
		return err
	})
	return page, err
}

// encodeLines writes lines one after the other: time in milliseconds since
// 1970, stream and open flag, length, text.
func encodeLines(lines []deploy.LogLine) []byte {
	size := 0
	for _, l := range lines {
		size += len(l.Text) + 16
	}
	b := make([]byte, 0, size)
	for _, l := range lines {
		b = binary.AppendUvarint(b, uint64(l.Time.UnixMilli()))
		flags := uint64(l.Stream) << 1
		if l.Open {
			flags |= 1
		}
		b = binary.AppendUvarint(b, flags)
		b = binary.AppendUvarint(b, uint64(len(l.Text)))
		b = append(b, l.Text...)
	}
	return b
}

var errLines = errors.New("the chunk is damaged")

func decodeLines(b []byte) ([]deploy.LogLine, error) {
	lines := make([]deploy.LogLine, 0, len(b)/32)
	next := func() (uint64, bool) {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, false
		}
		b = b[n:]
		return v, true
	}
	for len(b) > 0 {
		at, ok1 := next()
		flags, ok2 := next()
		size, ok3 := next()
		if !ok1 || !ok2 || !ok3 || size > uint64(len(b)) {
			return nil, errLines
		}
		lines = append(lines, deploy.LogLine{
			Time: time.UnixMilli(int64(at)).UTC(), Stream: uint8(flags >> 1), Open: flags&1 == 1, Text: b[:size:size],
		})
		b = b[size:]
	}
	return lines, nil
}
