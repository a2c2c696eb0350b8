"""Turns a config or a workdir into objects; the modules below see no config."""
