"""Measures what a task is worth on held-out data."""
