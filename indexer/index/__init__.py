"""The index: where sessions and their commands are searched."""
