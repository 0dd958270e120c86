"""What the bytes mean: formats, errors and settings, as pure functions without socket, file or clock."""
