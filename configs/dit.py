"""Diffusion transformers: their sizes, and how they are trained as flows."""

# Peebles & Xie 2023, table 1; heads of 64, but for the largest.
SIZES = {
    "S": dict(width=384, num_blocks=12, head_width=64),
    "B": dict(width=768, num_blocks=12, head_width=64),
    "L": dict(width=1024, num_blocks=24, head_width=64),
    "XL": dict(width=1152, num_blocks=28, head_width=72),
}
