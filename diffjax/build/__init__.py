"""From a config or a workdir to objects."""
