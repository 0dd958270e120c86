"""The command line: one file a command. What people and programs type is in docs/cli.md."""
