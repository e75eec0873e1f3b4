package git_test

import (
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"deployhook/internal/git"
)

func TestForgeKeysHaveTheFingerprintsThatTheirOwnersPublish(t *testing.T) {
	published := map[string]string{
		"github.com " + ssh.KeyAlgoED25519:     "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU",
		"github.com " + ssh.KeyAlgoECDSA256:    "SHA256:p2QAMXNIC1TJYWeIOttrVc98/R1BUFWu3/LiyKgUfQM",
		"gitlab.com " + ssh.KeyAlgoED25519:     "SHA256:eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8",
		"gitlab.com " + ssh.KeyAlgoECDSA256:    "SHA256:HbW3g8zUjNSksFbqTiUWPWg2Bq1x8xdGUrliXFzSnUw",
		"bitbucket.org " + ssh.KeyAlgoED25519:  "SHA256:ybgmFkzwOSotHTHLJgHO0QN8L0xErw6vd0VhFA9m3SM",
		"bitbucket.org " + ssh.KeyAlgoECDSA256: "SHA256:FC73VB6C4OQLSCrjEayhMp9UMxS97caD/Yyi2bhW/J0",
		"codeberg.org " + ssh.KeyAlgoED25519:   "SHA256:mIlxA9k46MmM6qdJOdMnAQpzGxF4WIVVL+fj+wZbw0g",
		"codeberg.org " + ssh.KeyAlgoECDSA256:  "SHA256:T9FYDEHELhVkulEKKwge5aVhVTbqCW0MIRwAfpARs/E",
	}
	rest := []byte(git.ForgeKeys)
	for len(rest) > 0 {
		marker, hosts, key, comment, next, err := ssh.ParseKnownHosts(rest)
		if err != nil || marker != "" || comment != "" {
			t.Fatalf("%.60q: %q, %q, %v", rest, marker, comment, err)
		}
		name := hosts[0] + " " + key.Type()
		if got := ssh.FingerprintSHA256(key); got != published[name] {
			t.Errorf("%s has %s, published is %s", name, got, published[name])
		}
		for _, other := range hosts[1:] {
			if !strings.HasSuffix(other, "."+hosts[0]+"]:443") {
				t.Errorf("%s stands beside %s", other, hosts[0])
			}
		}
		delete(published, name)
		rest = next
	}
	if len(published) > 0 {
		t.Errorf("there is no key for %v", published)
	}
}
