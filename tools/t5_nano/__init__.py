"""Makes the text encoder that comes with the package, and measures it."""
