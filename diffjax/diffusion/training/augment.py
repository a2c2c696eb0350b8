"""Noise conditioning augmentation: `process.augment`, which training and sampling share."""

from diffjax.diffusion.process import augment as augment
