"""The ground: types, keys, trees, digests, files, errors, signals. Knows nothing of diffusion."""
