"""From prompts to files."""
