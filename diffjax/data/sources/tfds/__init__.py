"""Data sets that tensorflow-datasets has prepared, read without TensorFlow."""

from diffjax.data.sources.tfds.records import Source, open_source

__all__ = ["Source", "open_source"]
