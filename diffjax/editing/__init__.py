"""Changes a person's pictures with a trained cascade."""
