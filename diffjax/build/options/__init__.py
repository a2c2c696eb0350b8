"""What a config is: read, overridden, saved, completed, and gone on with."""
