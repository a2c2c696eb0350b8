"""Data: the embedded emoji set, any prepared TFDS set, and the iterators that feed a step."""
