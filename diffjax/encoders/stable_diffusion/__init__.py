"""Loads and saves the checkpoints of Stable Diffusion 1 and 2."""
