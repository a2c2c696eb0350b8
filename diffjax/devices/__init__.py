"""The mesh over the devices, where arrays lie on it, and the other processes."""
