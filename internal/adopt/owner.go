package adopt

import (
	"errors"
	"os"
	"syscall"
)

// ownerOf gives whose a file is.
func ownerOf(name string) (uid, gid int, err error) {
	st, err := os.Stat(name)
	if err != nil {
		return 0, 0, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, errors.New("its owner cannot be told")
	}
	return int(sys.Uid), int(sys.Gid), nil
}
