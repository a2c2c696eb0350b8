"""Measures how good trained tasks are, and the pictures that they make."""
