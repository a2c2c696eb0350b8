"""What is said of trained stages: tables, sets of pictures, and their numbers."""
