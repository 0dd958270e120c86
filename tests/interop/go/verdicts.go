package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
)

// A question is one line: a command's name, its files' bytes in base64, and the keys.
type question struct {
	Check  string   `json:"check"`
	Inputs [][]byte `json:"inputs"`
	Keys   []string `json:"keys"`
}

var checks = map[string]struct {
	inputs int
	run    check
}{
	"checkpoint":  {1, checkCheckpoint},
	"inclusion":   {2, checkInclusion},
	"consistency": {3, checkConsistency},
	"session":     {2, checkSession},
}

// verdicts answers each line of JSON with one line: 0, or 1 and why.
func verdicts(in io.Reader, out io.Writer) error {
	lines := bufio.NewReaderSize(in, 1<<16)
	answers := bufio.NewWriter(out)
	defer answers.Flush()
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err != nil && err != io.EOF {
			return err
		}
		var asked question
		if err := json.Unmarshal(line, &asked); err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
		chosen := checks[asked.Check]
		if chosen.run == nil || len(asked.Inputs) != chosen.inputs || len(asked.Keys) == 0 {
			return fmt.Errorf("%w: %q with %d inputs", errUsage, asked.Check, len(asked.Inputs))
		}
		keys, err := newKeyring(asked.Keys)
		if err == nil {
			err = chosen.run(asked.Inputs, keys)
		}
		if err != nil {
			fmt.Fprintf(answers, "1 %q\n", err.Error())
		} else {
			fmt.Fprintln(answers, "0")
		}
		if lines.Buffered() == 0 {
			answers.Flush()
		}
	}
}
