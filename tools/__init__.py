"""Scripts that made what the repository ships: t5-nano and the golden files."""
