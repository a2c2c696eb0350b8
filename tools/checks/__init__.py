"""Measures what trained systems of emoji can do."""
