package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

// A folder has a log's objects below it, as docs/spec/log.md names them.
type folder string

func (f folder) Height() int                     { return height }
func (f folder) SaveTiles([]tlog.Tile, [][]byte) {}

// ReadTiles reads hash tiles; sumdb has their height in the path, tlog-tiles has not.
func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, tile := range tiles {
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
		var err error
		if data[i], err = os.ReadFile(filepath.Join(string(f), path)); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// bundle reads the entries of tile n of level 0.
func (f folder) bundle(n, size int64) ([][]byte, error) {
	tile := tlog.Tile{H: height, L: -1, N: n, W: int(min(1<<height, size-n<<height))}
	path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/data/", height), "tile/entries/", 1)
	data, err := os.ReadFile(filepath.Join(string(f), path))
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for len(data) > 0 {
		if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
			return nil, fmt.Errorf("%s ends inside an entry", path)
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		entries, data = append(entries, data[2:end]), data[end:]
	}
	if len(entries) != tile.W {
		return nil, fmt.Errorf("%s has %d entries", path, len(entries))
	}
	return entries, nil
}

func (f folder) open(keys *keyring) (tlog.Tree, tlog.HashReader, error) {
	data, err := os.ReadFile(filepath.Join(string(f), "checkpoint"))
	if err != nil {
		return tlog.Tree{}, nil, err
	}
	tree, err := openCheckpoint(data, keys)
	return tree, tlog.TileHashReader(tree, f), err
}

func checkLog(args []string, keys *keyring) error {
	log := folder(args[0])
	step, err := decimal(args[1])
	if err != nil || step == 0 {
		return fmt.Errorf("%w: a step of 1 or more entries", errUsage)
	}
	tree, reader, err := log.open(keys)
	if err != nil {
		return err
	}
	root, err := tlog.TreeHash(tree.N, reader)
	if err != nil || root != tree.Hash {
		return fmt.Errorf("the tiles do not give the root: %w", err)
	}
	for index := int64(0); index < tree.N; index += step {
		entries, err := log.bundle(index>>height, tree.N)
		if err != nil {
			return err
		}
		path, err := tlog.ProveRecord(tree.N, index, reader)
		if err != nil {
			return err
		}
		leaf := tlog.RecordHash(entries[index&(1<<height-1)])
		if err := checkRecord(path, tree, index, leaf); err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
	}
	fmt.Println(tree.N)
	return nil
}

func proveInclusion(args []string, keys *keyring) error {
	index, tree, reader, err := openFor(args, keys)
	if err != nil {
		return err
	}
	if index >= tree.N {
		return errors.New("an index beyond the tree")
	}
	path, err := tlog.ProveRecord(tree.N, index, reader)
	printHashes(path)
	return err
}

func proveConsistency(args []string, keys *keyring) error {
	old, tree, reader, err := openFor(args, keys)
	if err != nil {
		return err
	}
	if old < 1 || old >= tree.N {
		return errors.New("sumdb proves from a size of 1 or more to a larger one")
	}
	path, err := tlog.ProveTree(tree.N, old, reader)
	printHashes(path)
	return err
}

func openFor(args []string, keys *keyring) (int64, tlog.Tree, tlog.HashReader, error) {
	number, err := decimal(args[1])
	if err != nil {
		return 0, tlog.Tree{}, nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	tree, reader, err := folder(args[0]).open(keys)
	return number, tree, reader, err
}
