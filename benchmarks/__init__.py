"""One script for each question about speed or quality. Programs are compared within one run."""
