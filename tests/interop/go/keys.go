package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

const (
	typeEd25519     = 1 // a log's, or a session's
	typeCosignature = 4 // a witness's: Ed25519 with a time
)

// A keyring has the keys that must have signed; the first one is the log's.
type keyring struct {
	verifiers []note.Verifier
	log       string
}

func newKeyring(vkeys []string) (*keyring, error) {
	keys := &keyring{}
	for _, vkey := range vkeys {
		verifier, kind, err := newVerifier(vkey)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", vkey, err)
		}
		if (len(keys.verifiers) == 0) != (kind == typeEd25519) {
			return nil, errors.New("the log's key comes first, then those of witnesses")
		}
		keys.verifiers = append(keys.verifiers, verifier)
	}
	keys.log = keys.verifiers[0].Name()
	return keys, nil
}

func newVerifier(vkey string) (note.Verifier, byte, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, 0, errors.New("not a verifier key")
	}
	raw, err := strictBase64(parts[2])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize {
		return nil, 0, errors.New("not an Ed25519 key")
	}
	if err := checkPoint(raw[1:]); err != nil {
		return nil, 0, err
	}
	if raw[0] == typeEd25519 {
		verifier, err := note.NewVerifier(vkey)
		if err != nil {
			return nil, 0, err
		}
		return strict{verifier}, raw[0], nil
	}
	id, err := hex.DecodeString(parts[1])
	want := sha256.Sum256(append([]byte(parts[0]+"\n"), raw...))
	if raw[0] != typeCosignature || err != nil || !bytes.Equal(id, want[:4]) {
		return nil, 0, errors.New("not a key of a witness")
	}
	return cosigner{parts[0], binary.BigEndian.Uint32(id), ed25519.PublicKey(raw[1:])}, raw[0], nil
}

// A cosigner verifies cosignatures of type 4, which sumdb/note does not know.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.hash }

func (c cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	seconds := binary.BigEndian.Uint64(sig)
	signed := fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", seconds, msg)
	return seconds < 1<<63 && checkPoint(sig[8:40]) == nil && ed25519.Verify(c.key, signed, sig[8:])
}

// strict refuses signatures whose R is of small order, which crypto/ed25519 takes.
type strict struct{ note.Verifier }

func (s strict) Verify(msg, sig []byte) bool {
	return len(sig) == ed25519.SignatureSize && checkPoint(sig[:32]) == nil && s.Verifier.Verify(msg, sig)
}

// The y of the points of small order, little-endian, without the sign of x.
var smallOrder = func() map[string]bool {
	known := map[string]bool{}
	for _, text := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	} {
		raw, err := hex.DecodeString(text)
		if err != nil {
			panic(err)
		}
		known[string(raw)] = true
	}
	return known
}()

func checkPoint(encoded []byte) error {
	y := bytes.Clone(encoded)
	y[31] &= 0x7f
	if smallOrder[string(y)] {
		return errors.New("a point of small order")
	}
	if y[0] >= 0xed && y[31] == 0x7f && bytes.Count(y[1:31], []byte{0xff}) == 30 {
		return errors.New("a point in its second encoding")
	}
	return nil
}

// open verifies a note; all keys must have signed it.
func (k *keyring) open(data []byte) (string, error) {
	if err := checkForm(data); err != nil {
		return "", err
	}
	opened, err := note.Open(data, note.VerifierList(k.verifiers...))
	if err != nil {
		return "", err
	}
	if len(opened.Sigs) != len(k.verifiers) {
		return "", fmt.Errorf("%d of %d keys have signed", len(opened.Sigs), len(k.verifiers))
	}
	return opened.Text, nil
}

// checkForm refuses what docs/spec/tree-and-checkpoints.md does and sumdb/note does not.
func checkForm(data []byte) error {
	if len(data) > 1<<20 {
		return errors.New("a note of more than a mebibyte")
	}
	if bytes.IndexByte(data, 0x7f) >= 0 {
		return errors.New("a control character")
	}
	at := bytes.LastIndex(data, []byte("\n\n"))
	if at < 0 || at+2 == len(data) || data[len(data)-1] != '\n' {
		return errors.New("no signatures behind an empty line")
	}
	lines := strings.Split(string(data[at+2:len(data)-1]), "\n")
	seen := map[string]bool{}
	for _, line := range lines {
		name, encoded, found := strings.Cut(strings.TrimPrefix(line, "— "), " ")
		raw, err := strictBase64(encoded)
		if !found || err != nil || len(raw) < 5 || !isName(name) {
			return errors.New("a malformed signature line")
		}
		key := name + string(raw[:4])
		if seen[key] {
			return errors.New("two signatures by one key")
		}
		seen[key] = true
	}
	if len(lines) > 100 {
		return errors.New("more than 100 signatures")
	}
	return nil
}

func isName(name string) bool {
	printable := func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' || r == '+' }
	return name != "" && utf8.RuneCountInString(name) <= 255 && !strings.ContainsFunc(name, printable)
}

// strictBase64 takes the one form of its bytes: sumdb takes stray bits and line breaks.
func strictBase64(text string) ([]byte, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || base64.StdEncoding.EncodeToString(raw) != text {
		return nil, errors.New("not standard base64 in its only form")
	}
	return raw, nil
}
