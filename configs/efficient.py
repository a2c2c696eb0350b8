"""The Efficient U-Nets of both super-resolution stages at the paper's scale."""

# What app. F.2 and F.3 give: 128 x (1, 2, 4, 8) channels with (2, 4, 8, 8) blocks, heads 8 at the
# last level, 3 x 3 kernels, 1 x 1 convolutions on the blocks' skips (fig. A.27). Left open, and
# chosen here: skips are added (fig. A.29 draws a sum), 1 / sqrt 2 multiplies the skip alone,
# a convolution whose pixels are repeated goes up (no checkerboard, the cheapest).
PAPER = dict(
    kind="efficient_unet",
    width=128,
    mults=(1, 2, 4, 8),
    num_blocks=(2, 4, 8, 8),
    attention_levels=(-1,),
    head_width=64,
    num_heads=8,
    token_width=512,
    skip="add",
    skip_conv=True,
    upsampling="repeat",
)
# NVIDIA's JAX-Toolbox, SR 600M: a fifth level, attention at 1/8 and 1/16, pixel shuffle.
TOOLBOX = dict(
    PAPER,
    mults=(1, 2, 4, 8, 8),
    num_blocks=(2, 4, 8, 8, 2),
    attention_levels=(2, 3),
    token_width=1024,
    upsampling="shuffle",
)
