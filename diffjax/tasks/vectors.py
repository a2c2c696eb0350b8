"""The columns of a CLIP's unit vectors, which a prior makes and a decoder is told."""

# Of each picture, and of the caption that the text of the row is of.
IMAGE_VECTOR, TEXT_VECTOR = "image_vector", "text_vector"
