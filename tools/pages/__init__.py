"""Writes the pages of docs/ that are computed."""
