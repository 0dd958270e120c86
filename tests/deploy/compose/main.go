// Reads a compose file as `docker compose config` does: by the library that this is made of.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions(os.Args[1:], cli.WithName("sealtape"), cli.WithOsEnv, cli.WithProfiles([]string{"*"}))
	if err == nil {
		project, failed := options.LoadProject(context.Background())
		if failed == nil {
			text, _ := project.MarshalJSON()
			fmt.Println(string(text))
			return
		}
		err = failed
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
