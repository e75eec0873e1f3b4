package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/store"
	"deployhook/internal/store/storetest"
)

// TestMain lets the test's own binary be a daemon that accepts until it is killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "accept" {
		acceptUntilKilled(os.Args[2])
		return
	}
	os.Exit(m.Run())
}

func open(dir string) (*store.Store, error) {
	return store.Open(context.Background(), dir, slog.New(slog.DiscardHandler))
}

func mustOpen(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store { return mustOpen(t, t.TempDir()) })
}

func acceptUntilKilled(dir string) {
	s, err := open(dir)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var n atomic.Int64
	done := make(chan int64)
	for range 16 {
		go func() {
			for {
				i := n.Add(1)
				d := &deploy.Delivery{Hook: "h", Key: fmt.Sprint(i), BodyHash: fmt.Sprint(i), Received: time.Now(), Body: []byte(strings.Repeat("x", 8000))}
				r := deploy.NewRun{Pipeline: "shop", Event: deploy.Payload, Jobs: []deploy.NewJob{{Name: "go", Hosts: []string{"local"}, Ready: true}}}
				rc, err := s.Accept(context.Background(), d, []deploy.NewRun{r})
				if err != nil {
					fmt.Println(err)
					os.Exit(1)
				}
				done <- rc.Runs[0]
			}
		}()
	}
	for id := range done {
		fmt.Println(id)
	}
}

func TestWhatWasAcceptedSurvivesAKill(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		cmd := exec.Command("/proc/self/exe", "accept", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var ids []int64
		sc := bufio.NewScanner(out)
		for sc.Scan() {
			id, err := strconv.ParseInt(sc.Text(), 10, 64)
			if err != nil {
				t.Fatal(sc.Text())
			}
			if ids = append(ids, id); len(ids) == 300 {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		s := mustOpen(t, dir)
		for _, id := range ids {
			r, err := s.Run(t.Context(), id)
			if err != nil || len(r.Jobs) != 1 {
				t.Fatalf("run %d was accepted and is lost: %v", id, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, "deployhook.db")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDaemonThatIsEndingIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	again, err := open(dir)
	if cerr := <-closed; cerr != nil || err != nil {
		t.Fatalf("%v, %v", cerr, err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	_, err := open(dir)
	if want := fmt.Sprintf("another deployhook (pid %d) uses the data directory %s", os.Getpid(), dir); err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := mustOpen(t, dir)
	if again.Daemon() != s.Daemon() || len(s.Daemon()) != 16 {
		t.Errorf("the daemon's id was %q and is %q", s.Daemon(), again.Daemon())
	}
}

func TestBadDatabasesAreOneSentence(t *testing.T) {
	damaged := t.TempDir()
	if err := os.WriteFile(filepath.Join(damaged, "deployhook.db"), []byte(strings.Repeat("this is no database ", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	newer := t.TempDir()
	s, err := open(newer)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	store.SetVersion(t, filepath.Join(newer, "deployhook.db"), 99)
	files, err := filepath.Glob("migrations/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	newest := 0
	if _, err := fmt.Sscanf(filepath.Base(slices.Max(files)), "%d_", &newest); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		damaged: "is damaged",
		newer:   fmt.Sprintf("the database is of a newer deployhook (schema 99, this one knows %d): install that version again", newest),
	} {
		_, err := open(dir)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := open(file); err == nil || !strings.Contains(err.Error(), "making the data directory") {
		t.Errorf("a file instead of a directory: %v", err)
	}
}

// mount makes a small file system; it needs root, which CI has.
func mount(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test mounts a file system and needs root")
		}
		t.Skip("this test mounts a file system and needs root")
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFullDiskRefusesAndGoesOnWhenThereIsRoom(t *testing.T) {
	dir := mount(t, "size=3m")
	s := mustOpen(t, dir)
	accept := func(i int) error {
		d := &deploy.Delivery{Hook: "h", Key: fmt.Sprint(i), BodyHash: fmt.Sprint(i), Received: time.Now(), Body: noise(40_000, i)}
		_, err := s.Accept(t.Context(), d, nil)
		return err
	}
	full := 0
	for i := range 200 {
		if err := accept(i); err != nil {
			if !errors.Is(err, deploy.ErrFull) {
				t.Fatalf("delivery %d: %v, want %v", i, err, deploy.ErrFull)
			}
			full = i
			break
		}
	}
	if full == 0 {
		t.Fatal("the disk was never full")
	}
	if _, err := s.Deliveries(t.Context(), deploy.DeliveryFilter{Limit: 10}); err != nil {
		t.Errorf("reading from a full disk: %v", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=20m"); err != nil {
		t.Fatal(err)
	}
	if err := accept(1000); err != nil {
		t.Errorf("with room again: %v", err)
	}
	list, err := s.Deliveries(t.Context(), deploy.DeliveryFilter{Limit: 1000})
	if err != nil || len(list) != full+1 {
		t.Errorf("%d deliveries are there, %v; %d were accepted", len(list), err, full+1)
	}
}

// noise is what does not compress.
func noise(n, seed int) []byte {
	b := make([]byte, n)
	x := uint32(seed)*2654435761 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

func TestReadOnlyDirectoryIsOneSentence(t *testing.T) {
	dir := mount(t, "size=3m")
	s, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, "size=3m"); err != nil {
		t.Fatal(err)
	}
	if _, err = open(dir); err == nil || !strings.Contains(err.Error(), "cannot be written") {
		t.Errorf("got %v", err)
	}
}

func TestOldThingsGoAndTheRestStays(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	now := time.Now()
	for i, age := range []time.Duration{400 * 24 * time.Hour, 300 * 24 * time.Hour, 0} {
		d := &deploy.Delivery{Hook: "h", Key: fmt.Sprint(i), BodyHash: fmt.Sprint(i), Received: now.Add(-age), Body: []byte("{}")}
		if _, err := s.Accept(t.Context(), d, nil); err != nil {
			t.Fatal(err)
		}
	}
	for {
		more, err := s.Trim(t.Context(), now)
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			break
		}
	}
	list, err := s.Deliveries(t.Context(), deploy.DeliveryFilter{Limit: 10})
	if err != nil || len(list) != 2 || list[1].Key != "1" {
		t.Errorf("the deliveries are %+v, %v", list, err)
	}
}

func BenchmarkAccept(b *testing.B) {
	s, err := open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var n atomic.Int64
	body := []byte(strings.Repeat(`{"a line of a push": "as they are", "n": 1}`, 180))
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := fmt.Sprint(n.Add(1))
			d := &deploy.Delivery{Hook: "h", Key: i, BodyHash: i, SameBody: true, Received: time.Now(), Body: body,
				Push: &deploy.RefMove{Repository: "r", Ref: "refs/heads/" + i, After: i}}
			r := deploy.NewRun{Pipeline: "shop", Event: deploy.Push, Ref: "refs/heads/" + i, Queue: deploy.QueueLatest,
				Jobs: []deploy.NewJob{{Name: "test", Ready: true}, {Name: "deploy", Needs: []string{"test"}}}}
			if _, err := s.Accept(b.Context(), d, []deploy.NewRun{r}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func FuzzLinesOfLogs(f *testing.F) {
	f.Add([]byte{1, 2, 3})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) { store.DecodeLines(b) })
}

// Who gives up while the writer is at it gets the error alone: what the writer
// still finds is nobody's.
func TestCallersThatGiveUpShareNothingWithTheWriter(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	now := time.Now()
	for i := range 300 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*5*time.Microsecond) // at another moment each time
		_, _ = s.Trim(ctx, now)
		_, _, _ = s.Clocks(ctx, []deploy.Clock{{Pipeline: "p", Schedule: "0 0 * * *"}}, now)
		cancel()
	}
}
