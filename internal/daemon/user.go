package daemon

import (
	"os"
	"os/user"
	"strconv"
)

// userName is the user that this process runs as, by its number when it has no
// name here.
func userName() string {
	id := strconv.Itoa(os.Getuid())
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}
