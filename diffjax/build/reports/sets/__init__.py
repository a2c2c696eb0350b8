"""Compares sets of pictures: those that stages make, or those of a folder, with real ones."""
