package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	headerSize = 84
	maxPath    = 63
	maxExtra   = 1 << 16
)

func checkCheckpoint(inputs [][]byte, keys *keyring) error {
	_, err := openCheckpoint(inputs[0], keys)
	return err
}

// openCheckpoint verifies a checkpoint and that it is of the log whose key signed it.
func openCheckpoint(data []byte, keys *keyring) (tlog.Tree, error) {
	text, err := keys.open(data)
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return tlog.Tree{}, errors.New("a checkpoint has exactly three lines")
	}
	if lines[0] != keys.log {
		return tlog.Tree{}, fmt.Errorf("a checkpoint of %s, not of %s", lines[0], keys.log)
	}
	size, err := decimal(lines[1])
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := hash(lines[2])
	if err != nil {
		return tlog.Tree{}, err
	}
	if empty, _ := tlog.TreeHash(0, nil); size == 0 && root != empty {
		return tlog.Tree{}, errors.New("an empty tree with another root")
	}
	return tlog.Tree{N: size, Hash: root}, nil
}

func checkInclusion(inputs [][]byte, keys *keyring) error {
	head, signed, found := bytes.Cut(inputs[0], []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !found || lines[0] != "c2sp.org/tlog-proof@v1" {
		return errors.New("not a tlog-proof")
	}
	lines = lines[1:]
	if len(lines) > 0 && strings.HasPrefix(lines[0], "extra ") {
		extra, err := strictBase64(strings.TrimPrefix(lines[0], "extra "))
		if err != nil || len(extra) > maxExtra {
			return errors.New("malformed extra data")
		}
		lines = lines[1:]
	}
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "index ") {
		return errors.New("a proof without an index")
	}
	index, err := decimal(strings.TrimPrefix(lines[0], "index "))
	if err != nil {
		return err
	}
	path, err := hashes(lines[1:])
	if err != nil {
		return err
	}
	tree, err := openCheckpoint(signed, keys)
	if err != nil {
		return err
	}
	return checkRecord(path, tree, index, tlog.RecordHash(inputs[1]))
}

// checkRecord is tlog.CheckRecord, which panics for an index beyond the tree.
func checkRecord(path tlog.RecordProof, tree tlog.Tree, index int64, leaf tlog.Hash) error {
	if index >= tree.N {
		return errors.New("an index beyond the tree")
	}
	return tlog.CheckRecord(path, tree.N, tree.Hash, index, leaf)
}

func checkConsistency(inputs [][]byte, keys *keyring) error {
	old, err := openCheckpoint(inputs[0], keys)
	if err != nil {
		return err
	}
	tree, err := openCheckpoint(inputs[1], keys)
	if err != nil {
		return err
	}
	var lines []string
	if len(inputs[2]) > 0 {
		text, ended := strings.CutSuffix(string(inputs[2]), "\n")
		if !ended {
			return errors.New("a proof whose last line does not end")
		}
		lines = strings.Split(text, "\n")
	}
	path, err := hashes(lines)
	if err != nil {
		return err
	}
	switch {
	case old.N > tree.N:
		return errors.New("the older tree is the larger one")
	case old.N == tree.N:
		// sumdb has no proof from a tree to itself, and none from the empty one: nothing but equality.
		if len(path) > 0 || old.Hash != tree.Hash {
			return errors.New("two trees of one size")
		}
		return nil
	case old.N == 0:
		if len(path) > 0 {
			return errors.New("a proof from the empty tree has no hashes")
		}
		return nil
	}
	return tlog.CheckTree(path, tree.N, tree.Hash, old.N, old.Hash)
}

func checkSession(inputs [][]byte, keys *keyring) error {
	tree, err := openCheckpoint(inputs[1], keys)
	if err != nil {
		return err
	}
	if len(inputs[0])%headerSize != 0 || int64(len(inputs[0])/headerSize) != tree.N {
		return fmt.Errorf("not %d headers of %d bytes", tree.N, headerSize)
	}
	var stored store
	for at := 0; at < len(inputs[0]); at += headerSize {
		header := inputs[0][at : at+headerSize]
		if err := stored.add(tlog.RecordHash(header)); err != nil {
			return err
		}
	}
	root, err := tlog.TreeHash(tree.N, &stored)
	if err != nil {
		return err
	}
	if root != tree.Hash {
		return errors.New("the frames do not give the checkpoint's root")
	}
	return nil
}

// A store keeps a tree's hashes in memory, in the order in which sumdb stores them.
type store struct {
	hashes []tlog.Hash
	size   int64
}

func (s *store) add(leaf tlog.Hash) error {
	more, err := tlog.StoredHashesForRecordHash(s.size, leaf, s)
	s.hashes = append(s.hashes, more...)
	s.size++
	return err
}

func (s *store) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		found[i] = s.hashes[index]
	}
	return found, nil
}

func decimal(text string) (int64, error) {
	number, err := strconv.ParseInt(text, 10, 64)
	if err != nil || number < 0 || strconv.FormatInt(number, 10) != text {
		return 0, fmt.Errorf("%q is not a number", text)
	}
	return number, nil
}

func hash(text string) (tlog.Hash, error) {
	raw, err := strictBase64(text)
	if err != nil || len(raw) != tlog.HashSize {
		return tlog.Hash{}, errors.New("not a hash in base64")
	}
	return tlog.Hash(raw), nil
}

func hashes(lines []string) ([]tlog.Hash, error) {
	if len(lines) > maxPath {
		return nil, fmt.Errorf("more than %d hashes", maxPath)
	}
	found := make([]tlog.Hash, len(lines))
	for i, line := range lines {
		var err error
		if found[i], err = hash(line); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func printHashes(path []tlog.Hash) {
	for _, one := range path {
		fmt.Println(base64.StdEncoding.EncodeToString(one[:]))
	}
}
