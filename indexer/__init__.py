"""The reading end: search, replay, verify and the command line."""
