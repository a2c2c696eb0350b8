"""Layers written in NumPy."""

import numpy as np


def numpy_group_norm(h, groups):
    """The norm in float64, by its definition."""
    h = np.asarray(h, np.float64)
    b, height, width, c = h.shape
    grouped = h.reshape(b, height, width, groups, c // groups)
    mean = grouped.mean(axis=(1, 2, 4), keepdims=True)
    variance = grouped.var(axis=(1, 2, 4), keepdims=True)
    return ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(h.shape)
