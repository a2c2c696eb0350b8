"""One script per question; ratios in one run, never a timed assertion in a test."""
