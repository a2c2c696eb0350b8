"""CLIP: a tower for pictures and one for texts, whose features can be compared."""
