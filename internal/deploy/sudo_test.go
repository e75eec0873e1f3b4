package deploy

import (
	"strings"
	"testing"
)

func find(program string) string {
	if program == "systemctl" {
		return "/usr/bin/systemctl"
	}
	return ""
}

func TestOnlyPlainCommandsGetALineForSudo(t *testing.T) {
	for command, want := range map[string]string{
		"sudo systemctl restart shop":       `/usr/bin/systemctl restart shop`,
		"sudo -n systemctl restart shop":    `/usr/bin/systemctl restart shop`,
		"sudo -- systemctl restart shop":    `/usr/bin/systemctl restart shop`,
		"sudo systemctl restart 'shop'":     `/usr/bin/systemctl restart shop`,
		"sudo systemctl reload a:b,c=d":     `/usr/bin/systemctl reload a\:b\,c\=d`,
		"sudo /opt/x":                       `/opt/x ""`,
		"sudo systemctl restart 'shop two'": "",
		"sudo systemctl restart 'sh*p'":     "",
		"sudo systemctl restart ''":         "",
		"sudo -u www-data x":                "",
		"sudo -i systemctl restart shop":    "",
		"sudo A=b systemctl restart shop":   "",
		"sudo systemctl restart $NAME":      "",
		"sudo systemctl restart shop*":      "",
		"sudo systemctl restart \"shop":     "",
		"sudo nothing-like-that":            "",
		"sudo ":                             "",
	} {
		if got, ok := Sudoers(command, find); got != want || ok != (want != "") {
			t.Errorf("%q gives %q", command, got)
		}
	}
}

func TestSudosOfJobsAreFoundOnce(t *testing.T) {
	restart := "sudo systemctl restart shop && echo done"
	here := []string{"web1", Local}
	c := &Config{Pipelines: []Pipeline{{Name: "shop", Jobs: []Job{
		{Name: "far", Hosts: here[:1], Steps: []Step{{Run: "sudo reboot"}}},
		{Name: "test", Hosts: here, Steps: []Step{{Run: "sudo apt-get update; true\nsudoku"}}},
		{Name: "deploy", Hosts: here, Release: &ReleaseSpec{}, Restart: restart, Steps: []Step{{Run: restart}, {Run: "make \\\n  x || sudo systemctl \\\n stop shop"}}},
	}}}}
	var got []string
	for _, u := range c.Sudos() {
		got = append(got, u.Where+" "+string(u.Agent)+" "+u.Command)
	}
	want := "shop/test test sudo apt-get update|shop/deploy deploy sudo systemctl restart shop|shop/deploy deploy sudo systemctl   stop shop"
	if strings.Join(got, "|") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "|"), want)
	}
}

func TestSudoIsAskedForWhatTheShellWouldRun(t *testing.T) {
	for line, want := range map[string]string{
		"sudo systemctl restart shop":              "systemctl|restart|shop",
		"sudo -n systemctl restart shop":           "systemctl|restart|shop",
		"sudo -u www-data php artisan cache:clear": "-u|www-data|php|artisan|cache:clear",
		"sudo -- systemctl restart shop":           "systemctl|restart|shop",
		`sudo systemctl restart "my shop" 'x y'z`:  "systemctl|restart|my shop|x yz",
		"sudo systemctl restart ''":                "systemctl|restart|",
		"sudo systemctl restart $APP":              "not plain",
		"sudo systemctl restart `cat x`":           "not plain",
		"sudo rm /srv/*":                           "not plain",
		"sudo tee /etc/x < y":                      "not plain",
		"sudo FOO=bar systemctl restart x":         "not plain",
		"sudo -E systemctl restart x":              "not plain",
		"sudo ":                                    "not plain",
		"sudo -u":                                  "not plain",
		`sudo systemctl restart "open`:             "not plain",
	} {
		args, plain := SudoArgs(line)
		got := strings.Join(args, "|")
		if !plain {
			got = "not plain"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
	for script, want := range map[string]string{
		"sudo a": "sudo a",
		"npm ci\nsudo a b && sudo c; echo sudo d": "sudo a b|sudo c",
		"sudo a \\\n  b":        "sudo a    b",
		"echo 'x' | sudo tee y": "sudo tee y",
		"sudoku":                "",
	} {
		if got := strings.Join(sudos(script), "|"); got != want {
			t.Errorf("%q: %q, want %q", script, got, want)
		}
	}
}

func FuzzSudo(f *testing.F) {
	f.Add("sudo systemctl restart shop")
	f.Add("sudo -u www-data \"a b\" 'c'")
	f.Add("a && sudo b; sudo $c \\\n d")
	f.Fuzz(func(t *testing.T, script string) {
		for _, command := range sudos(script) {
			args, plain := SudoArgs(command)
			if plain && len(args) == 0 {
				t.Errorf("%q is no command", command)
			}
			if plain && strings.HasPrefix(args[0], "-") && args[0] != "-u" && args[0] != "-g" && !strings.Contains(command, " -- ") {
				t.Errorf("%q gives sudo the option %s", command, args[0])
			}
			if line, ok := Sudoers(command, find); ok && (!plain || !strings.HasPrefix(line, "/") || strings.ContainsAny(line, "\n*?")) {
				t.Errorf("%q gives the line %q", command, line)
			}
		}
	})
}
