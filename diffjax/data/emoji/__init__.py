"""The embedded data set: emoji drawings with captions."""
