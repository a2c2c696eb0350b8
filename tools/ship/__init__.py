"""Makes the files that come with the package, and their cards."""
