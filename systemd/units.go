// Package systemd has the units of deployhook and the users that they run as.
package systemd

import "embed"

// Units are the files, by their names: units name the program
// /usr/local/bin/deployhook.
//
//go:embed *.service *.socket *.sysusers
var Units embed.FS
