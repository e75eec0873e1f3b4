package store

import (
	"context"
	"time"
)

// checkpointPages is from how many pages on the write-ahead log goes into the
// database: 16 MB.
const checkpointPages = 4000

// checkpoints moves what is in the write-ahead log into the database, beside
// the writer, which SQLite would otherwise make wait for it. It ends when the
// writer does.
func (s *Store) checkpoints() {
	var done int64
	for range s.writer.written {
		pages := s.writer.pages.Load()
		if pages-done < checkpointPages {
			continue
		}
		if err := s.checkpoint(); err != nil {
			// A full disk, say: the log grows on, and the next time is soon.
			s.log.Debug("moving the write-ahead log into the database", "err", err)
			continue
		}
		done = pages
		s.writer.restart.Store(true)
	}
}

// checkpoint is one such move: as far as the log went when it began.
func (s *Store) checkpoint() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var busy, log, moved int
	return s.read.QueryRowContext(ctx, `PRAGMA wal_checkpoint(PASSIVE)`).Scan(&busy, &log, &moved)
}
