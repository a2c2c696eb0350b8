"""Scripts that make or measure what the repository ships: models, golden files and pages."""
