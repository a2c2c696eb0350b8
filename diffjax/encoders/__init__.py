"""Frozen networks that turn text into columns, and their weights."""
