"""Pictures as bytes and files: pixels, PNGs, films, sheets, and what a person brings."""
