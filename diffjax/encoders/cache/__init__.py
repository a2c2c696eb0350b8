"""Embeddings on disk: computed once, read by row."""
