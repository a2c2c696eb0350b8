"""The mathematics of diffusion: pure functions of arrays and callables, jax and nothing else."""
