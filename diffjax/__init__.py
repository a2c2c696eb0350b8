"""diffjax: Imagen-style text-to-image diffusion cascades in JAX."""

__version__ = "0.1.0"
