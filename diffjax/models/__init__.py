"""The networks: Flax Linen modules. They take a noise level and know nothing else of diffusion."""
