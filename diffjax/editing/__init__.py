"""A person's pictures, changed by a trained cascade."""
