package systemd

import "testing"

// TestDoctorOnARealSystemd has doctor look at a healthy installation, and then
// at what was broken in it, one thing after the other; twice what doctor says
// to type is typed.
func TestDoctorOnARealSystemd(t *testing.T) {
	m := inLab(t, "doctor.sh")
	m.build("deployhook")
	m.units(".")
	m.repository()
	m.run(nil, "-c", "-t", "420")
}
