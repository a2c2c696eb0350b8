"""The device mesh, where arrays lie on it, and how several processes work together."""
