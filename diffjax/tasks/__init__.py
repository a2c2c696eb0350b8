"""What is trained: pure functions of columns."""
