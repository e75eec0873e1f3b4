package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"deployhook/internal/deploy"
)

// pairOf makes a certificate and its key in PEM. With an issuer it is one that
// a root of that name signed.
func pairOf(t testing.TB, begin, end time.Time, issuer string, names ...string) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: begin, NotAfter: end, DNSNames: names}
	parent, signer := own, private
	if issuer != "" {
		parent = &x509.Certificate{Subject: pkix.Name{CommonName: issuer}}
		if signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, own, parent, private.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

func TestTLSAndProxiesThatCannotBe(t *testing.T) {
	for _, tt := range []struct{ server, want string }{
		{"tls: {}", "deploy.yaml:1:16: server.tls: certificate and key are wanted here"},
		{"tls: { certificate: /c }", "deploy.yaml:1:31: server.tls.certificate: a certificate without its key: server.tls.key is wanted too"},
		{"tls: { key: { credential: k } }", "deploy.yaml:1:37: server.tls.key.credential: a key without its certificate: server.tls.certificate is wanted too"},
		{"tls: { certificate: '', key: /k }", "deploy.yaml:1:40: server.tls.key: a key without its certificate: server.tls.certificate is wanted too"},
		{"tls: { cert: /c, key: /k }", "deploy.yaml:1:18: server.tls.cert: unknown key; write certificate"},
		{"tls: { certificate: { credential: c, file: /c }, key: /k }", "deploy.yaml:1:48: server.tls.certificate.file: unknown key"},
		{"tls: { certificate: { credential: ../c }, key: /k }", "deploy.yaml:1:45: server.tls.certificate.credential: this is not the name of a credential, as in LoadCredential=NAME:PATH"},
		{"tls: { certificate: [/c], key: /k }", "deploy.yaml:1:31: server.tls.certificate: a path or a section with credential is wanted here, not a list"},
		{"tls: { certificate: ~/c, key: /k }", "deploy.yaml:1:31: server.tls.certificate: ~ stands for no home directory here: write the whole path"},
		{"tls: on", "deploy.yaml:1:16: server.tls: a section with certificate or key is wanted here, not text"},
		{"tls: { certificate: /c, key: /k, min_version: 1.0 }", "deploy.yaml:1:44: server.tls.min_version: unknown key"},
		{"trusted_proxies: [10.0.0.0/8, nginx]", `deploy.yaml:1:41: server.trusted_proxies: an address or a network is wanted here, like 10.0.0.5 or 10.0.0.0/8, not "nginx"`},
		{"trusted_proxies: '*'", `deploy.yaml:1:28: server.trusted_proxies: an address or a network is wanted here, like 10.0.0.5 or 10.0.0.0/8, not "*"`},
		{"trusted_proxies: ::/0", "deploy.yaml:1:28: server.trusted_proxies: ::/0 is everybody: then each sender could write the address that it is known by"},
		{"trusted_proxies: 10.0.0.1/8", "deploy.yaml:1:28: server.trusted_proxies: 10.0.0.1/8 is not a network: did you mean 10.0.0.0/8, or 10.0.0.1 alone"},
		{"trusted_proxies: 10.0.0.0/33", "server.trusted_proxies: an address or a network is wanted here"},
		{"trusted_proxies: 10.0.0.1:80", "server.trusted_proxies: an address or a network is wanted here"},
		{"trusted_proxies: 'fe80::1%eth0'", "server.trusted_proxies: an address or a network is wanted here"},
		{"trusted_proxies: '::ffff:10.0.0.0/104'", "server.trusted_proxies: an address or a network is wanted here"},
		{"trusted_proxies: { a: b }", "deploy.yaml:1:30: server.trusted_proxies: "},
		{"trusted_proxies: [[10.0.0.1]]", "deploy.yaml:1:29: server.trusted_proxies[0]: "},
	} {
		got := problemsOf(t, "server: { "+tt.server+" }\n")
		if len(got) != 1 || !strings.Contains(got[0], tt.want) {
			t.Errorf("%s:\n got %s\nwant %s", tt.server, strings.Join(got, "\n     "), tt.want)
		}
	}
}

func TestProxiesAreAddressesAndNetworks(t *testing.T) {
	for text, want := range map[string]string{
		"[]": "", "10.0.0.5": "10.0.0.5", "[10.0.0.5, 192.168.0.0/16]": "10.0.0.5, 192.168.0.0/16", "'::1'": "::1", "2001:db8::/32": "2001:db8::/32",
		"'::ffff:10.0.0.5'": "10.0.0.5", "10.0.0.5/32": "10.0.0.5",
	} {
		if got := networksText(parsed(t, "server: { trusted_proxies: "+text+" }\n").Server.TrustedProxies); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	if got := networksText(parsed(t, "{}").Server.TrustedProxies); got != "127.0.0.0/8, ::1" {
		t.Errorf("without a word %s are believed", got)
	}
}

func TestNearerSourceOfACertificateCounts(t *testing.T) {
	const file = "server: { tls: { certificate: { credential: c }, key: { credential: k } } }\n"
	t.Setenv("DEPLOYHOOK_SERVER_TLS_KEY", "/variable")
	f, err := loaded(t, file, "--server-tls-certificate", "/flag")
	if err != nil {
		t.Fatal(err)
	}
	want := TLS{Certificate: deploy.Secret{Name: certificateName, File: "/flag"}, Key: deploy.Secret{Name: keyName, File: "/variable"}}
	if f.Server.TLS != want {
		t.Errorf("got %+v, want %+v", f.Server.TLS, want)
	}
	if _, err = loaded(t, file, "--server-tls-key=/a", "--server-tls-key-credential=b"); err == nil || err.Error() != "--server-tls-key-credential: a path and a credential: one of them is wanted" {
		t.Errorf("both by a flag: %v", err)
	}
}

func TestCheckSaysWhatIsWrongWithAPair(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	year := 365 * 24 * time.Hour
	good, key := pairOf(t, now.Add(-time.Hour), now.Add(year), "", "deploy.example.com")
	_, other := pairOf(t, now.Add(-time.Hour), now.Add(year), "")
	leaf, leafKey := pairOf(t, now.Add(-time.Hour), now.Add(year), "Root", "deploy.example.com")
	late, lateKey := pairOf(t, now.Add(time.Hour), now.Add(year), "", "deploy.example.com")
	soon, soonKey := pairOf(t, now.Add(-year), now.Add(13*24*time.Hour+time.Hour), "", "deploy.example.com")
	enough, enoughKey := pairOf(t, now.Add(-year), now.Add(14*24*time.Hour+time.Hour), "", "deploy.example.com")
	over, overKey := pairOf(t, now.Add(-year), now.Add(-time.Hour), "", "deploy.example.com")
	encrypted := []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
	legacy := []byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n")
	damaged := []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	for _, tt := range []struct {
		name             string
		certificate, key []byte
		url              string
		errors, warnings []string
	}{
		{"good", good, key, "https://deploy.example.com", nil, nil},
		{"good, with text around it", append([]byte("subject=x\n"), good...), append([]byte("Bag Attributes\n"), key...), "", nil, nil},
		{"the key of another", good, other, "", []string{"3:34: server.tls.key: DIR/key: the key is not that of the certificate, or the server's own certificate does not come first in its file"}, nil},
		{"exchanged", key, good, "", []string{"2:35: server.tls.certificate: DIR/certificate: this is a key, not a certificate: are the two exchanged"}, nil},
		{"twice the certificate", good, good, "", []string{"3:34: server.tls.key: DIR/key: this is a certificate, not a key: are the two exchanged"}, nil},
		{"empty", nil, key, "", []string{"2:35: server.tls.certificate: DIR/certificate: it is empty"}, nil},
		{"no PEM", []byte("hello"), key, "", []string{"2:35: server.tls.certificate: DIR/certificate: there is no certificate in it: PEM is wanted, which has a line -----BEGIN CERTIFICATE-----"}, nil},
		{"damaged", damaged, key, "", []string{"2:35: server.tls.certificate: DIR/certificate: its certificate is damaged (malformed certificate)"}, nil},
		{"key without PEM", good, []byte("hello"), "", []string{"3:34: server.tls.key: DIR/key: there is no private key in it: PEM is wanted, which has a line -----BEGIN PRIVATE KEY-----"}, nil},
		{"key with a password", good, encrypted, "", []string{"3:34: server.tls.key: DIR/key: the key has a password, which nobody could type: openssl pkey -in KEY -out NEWKEY writes it without"}, nil},
		{"old key with a password", good, legacy, "", []string{"3:34: server.tls.key: DIR/key: the key has a password, which nobody could type: openssl pkey -in KEY -out NEWKEY writes it without"}, nil},
		{"key of ssh", good, []byte(strings.ReplaceAll(string(key), " PRIVATE", " OPENSSH PRIVATE")), "", []string{"3:34: server.tls.key: DIR/key: this is a key of ssh, not that of a certificate"}, nil},
		{"damaged key", good, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "", []string{"3:34: server.tls.key: DIR/key: the key is damaged or of an unknown kind (failed to parse private key)"}, nil},
		{"too long", bytes.Repeat(good, 200), key, "", []string{"2:35: server.tls.certificate: DIR/certificate: it is over 64 KiB"}, nil},
		{"ends soon", soon, soonKey, "", nil, []string{"2:35: server.tls.certificate: the certificate ends in 13 days, on 2026-06-14 13:00 UTC: renew it"}},
		{"ends in 14 days", enough, enoughKey, "", nil, nil},
		{"has ended", over, overKey, "", nil, []string{"2:35: server.tls.certificate: the certificate has ended on 2026-06-01 11:00 UTC, and senders refuse it: renew it"}},
		{"not yet", late, lateKey, "", nil, []string{"2:35: server.tls.certificate: the certificate does not count before 2026-06-01 13:00 UTC: is the clock right"}},
		{"of another name", good, key, "https://ci.example.com:8443/x", nil, []string{"2:35: server.tls.certificate: the certificate is not for ci.example.com, the name in server.url, and senders will refuse it"}},
		{"without its chain", leaf, leafKey, "", nil, []string{"2:35: server.tls.certificate: the file has the server's certificate alone: senders miss the one between it and its root (certbot: fullchain.pem, not cert.pem)"}},
		{"with a chain", append(bytes.Clone(leaf), good...), leafKey, "", nil, nil},
		{"the chain first", append(bytes.Clone(good), leaf...), leafKey, "", []string{"3:34: server.tls.key: DIR/key: the key is not that of the certificate, or the server's own certificate does not come first in its file"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, b := range map[string][]byte{"certificate": tt.certificate, "key": tt.key} {
				if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			// A relative path begins at the file's directory, with links followed.
			text := "server:\n  tls: {             certificate: certificate,\n                            key: key }\n  url: '" + tt.url + "'\n"
			path := filepath.Join(dir, "deploy.yaml")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := Load(path, nil)
			if err != nil {
				t.Fatal(err)
			}
			errs, warnings := CheckTLS(t.Context(), f, now)
			lines := func(list Problems) (out []string) {
				for _, p := range list {
					out = append(out, strings.TrimPrefix(strings.ReplaceAll(p.String(), dir, "DIR"), "deploy.yaml:"))
				}
				return out
			}
			same(t, lines(errs), tt.errors...)
			same(t, lines(warnings), tt.warnings...)
			_, _, err = ReadPair(t.Context(), f.Server.TLS)
			if (err == nil) != (tt.errors == nil) {
				t.Errorf("check says %q, and the daemon reads it with %v", tt.errors, err)
			}
			if err != nil && !strings.HasSuffix(strings.ReplaceAll(err.Error(), dir, "DIR"), tt.errors[0][len("2:34: "):]) {
				t.Errorf("check says %q, and the daemon %v", tt.errors, err)
			}
		})
	}
}

func TestPairThatThisUserCannotRead(t *testing.T) {
	now := time.Now()
	certificate, key := pairOf(t, now.Add(-time.Hour), now.Add(24*time.Hour*365), "")
	dir := t.TempDir()
	for name, b := range map[string][]byte{"c.pem": certificate, "k.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	check := func(certificate, key string) (errs, warnings Problems) {
		t.Helper()
		return CheckTLS(t.Context(), parsed(t, "server: { tls: { certificate: "+certificate+", key: "+key+" } }\n"), now)
	}
	c, k := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	_, warnings := check(c, k)
	if len(warnings) != 1 || warnings[0].Message != "every user of this machine can read the key: chmod o= "+k {
		t.Errorf("a key for all: %v", warnings)
	}
	errs, _ := check(c, k+".none")
	if len(errs) != 1 || errs[0].Message != k+".none is not there" || errs[0].Unread {
		t.Errorf("no key: %+v", errs)
	}
	errs, _ = check(c, dir)
	if len(errs) != 1 || errs[0].Message != dir+" is not a regular file" {
		t.Errorf("a directory: %+v", errs)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	errs, _ = check(c, filepath.Join(dir, "pipe"))
	if len(errs) != 1 || !strings.HasSuffix(errs[0].Message, "is not a regular file") {
		t.Errorf("a pipe: %+v", errs)
	}
	errs, _ = check("{ credential: tls-certificate }", "{ credential: tls-key }")
	if len(errs) != 2 || errs[1].String() != "deploy.yaml:1:83: server.tls.key.credential: there are no systemd credentials here: the unit needs LoadCredential=tls-key:PATH" || !errs[0].Unread || !errs[1].Unread {
		t.Errorf("credentials outside of the unit: %+v", errs)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if errs, _ = check("{ credential: c.pem }", "{ credential: k.pem }"); len(errs) > 0 {
		t.Errorf("credentials: %v", errs)
	}

	// Root reads everything: the test's own binary looks as another user.
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("the rest of this test needs root")
		}
		t.Skip("the rest of this test needs root")
	}
	if err := os.Chmod(k, 0o600); err != nil {
		t.Fatal(err)
	}
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "self"), self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, "self"), "-test.run=^TestReadAsAnotherUser$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "READ_AS_ANOTHER="+c+" "+k)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	want := k + " cannot be read by user nobody: give the unit LoadCredential=tls-key:" + k + " and write {credential: tls-key} here, or copy it where that user can read it (docs/proxy.md): permission denied\n"
	if err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%v\n%s\nwant %s", err, out, want)
	}
}

// TestReadAsAnotherUser is a part of the one above.
func TestReadAsAnotherUser(t *testing.T) {
	certificate, key, ok := strings.Cut(os.Getenv("READ_AS_ANOTHER"), " ")
	if !ok {
		return
	}
	errs, _ := CheckTLS(t.Context(), parsed(t, "server: { tls: { certificate: "+certificate+", key: "+key+" } }\n"), time.Now())
	if len(errs) != 1 || !errs[0].Unread {
		t.Fatalf("%+v", errs)
	}
	t.Logf("%s", errs[0].Message)
	if _, err := os.ReadFile(key); err == nil || !os.IsPermission(err) || !strings.Contains(err.Error(), fs.ErrPermission.Error()) {
		t.Errorf("reading the key: %v", err)
	}
}
