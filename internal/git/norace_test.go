//go:build !race

package git_test

// raced says that memory is that of the race detector.
const raced = false
