// Command interop checks what Sealtape wrote with golang.org/x/mod/sumdb's note and tlog, which share
// no code with it. What those packages take and docs/spec does not is refused on top of them.
//
//	interop checkpoint NOTE VKEY...               a checkpoint: the log's key first, then witnesses
//	interop inclusion PROOF ENTRY VKEY...         a tlog-proof of an entry's bytes
//	interop consistency OLD NEW PROOF VKEY...     that checkpoint OLD is a prefix of NEW
//	interop session HEADERS NOTE VKEY             frames' headers of 84 bytes under a checkpoint
//	interop log DIR STEP VKEY...                  a log's tiles: its root, and every STEPth entry
//	interop prove DIR INDEX VKEY                  prints the inclusion proof out of the tiles
//	interop grow DIR OLD VKEY                     prints the consistency proof out of the tiles
//	interop verdicts                              many of the first four: JSON lines in, "0" or "1" out
//
// All signatures by the keys named must be there and verify. The exit status is 0 when everything
// holds, 1 when something does not, and 64 for a command that makes no sense.
package main

import (
	"errors"
	"fmt"
	"os"
)

type command struct {
	files int // arguments before the keys
	run   func(args []string, keys *keyring) error
}

var commands = map[string]command{
	"checkpoint":  {1, onFiles(1, checkCheckpoint)},
	"inclusion":   {2, onFiles(2, checkInclusion)},
	"consistency": {3, onFiles(3, checkConsistency)},
	"session":     {2, onFiles(2, checkSession)},
	"log":         {2, checkLog},
	"prove":       {2, proveInclusion},
	"grow":        {2, proveConsistency},
}

var errUsage = errors.New("usage")

func main() {
	err := run(os.Args[1:])
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(64)
	case err != nil:
		fmt.Fprintln(os.Stderr, "refused:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "verdicts" {
		return verdicts(os.Stdin, os.Stdout)
	}
	if len(args) == 0 || commands[args[0]].run == nil {
		return fmt.Errorf("%w: see the comment at the beginning of main.go", errUsage)
	}
	chosen := commands[args[0]]
	if len(args) < 2+chosen.files {
		return fmt.Errorf("%w: %s takes %d arguments and then keys", errUsage, args[0], chosen.files)
	}
	keys, err := newKeyring(args[1+chosen.files:])
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return chosen.run(args[1:1+chosen.files], keys)
}

type check func(inputs [][]byte, keys *keyring) error

// onFiles reads the arguments as files.
func onFiles(count int, run check) func([]string, *keyring) error {
	return func(args []string, keys *keyring) error {
		inputs := make([][]byte, count)
		for i, name := range args {
			data, err := os.ReadFile(name)
			if err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			inputs[i] = data
		}
		return run(inputs, keys)
	}
}
