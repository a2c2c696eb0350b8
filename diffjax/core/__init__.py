"""What all other modules use: types, keys, trees, digests, files, errors, signals, commands."""
