package setup

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// randomSecret is 32 random bytes as a line of 64 hex characters: nothing in
// it needs escaping anywhere.
func randomSecret() ([]byte, error) {
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	return []byte(hex.EncodeToString(b) + "\n"), nil
}

// deployKey is a new ed25519 key in OpenSSH's form.
func deployKey() ([]byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "deployhook")
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(block), nil
}

// publicHalf is the line for the forge's form; comment says whose it is.
func publicHalf(private, comment string) (string, error) {
	key, err := ssh.ParsePrivateKey([]byte(private))
	if err != nil {
		return "", fmt.Errorf("reading its public half: %w", err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey()))) + " " + comment, nil
}
