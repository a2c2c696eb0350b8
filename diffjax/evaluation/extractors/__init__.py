"""Networks that turn pictures into features, by which sets of pictures are compared."""
