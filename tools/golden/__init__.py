"""Writes tests/golden, from what others' code says: python -m tools.golden.NAME."""
