"""The networks: Flax Linen modules that are handed a noise level and know no diffusion."""
