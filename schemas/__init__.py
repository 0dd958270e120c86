"""What the bytes mean: formats, errors, settings. No socket, file, clock or randomness."""
