"""The names of single layers in the files of Stable Diffusion 1, which the small ones lack."""

import pytest

from diffjax.encoders.stable_diffusion.names import Shape, source_of

SD1 = Shape(num_levels=4, num_blocks=2, attention=(0, 1, 2), linear=False)


@pytest.mark.parametrize(
    ("ours", "diffusers", "compvis"),
    [
        ("up_3_to_2/conv", "up_blocks.0.upsamplers.0.conv", "output_blocks.2.1.conv"),
        ("up_2_to_1/conv", "up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"),
        ("up_1_to_0/conv", "up_blocks.2.upsamplers.0.conv", "output_blocks.8.2.conv"),
        ("down_2_to_3/conv", "down_blocks.2.downsamplers.0.conv", "input_blocks.9.0.op"),
        ("down_3_1/res/conv_1", "down_blocks.3.resnets.1.conv2", "input_blocks.11.0.out_layers.3"),
        ("up_0_2/attention/proj_in", "up_blocks.3.attentions.2.proj_in",
         "output_blocks.11.1.proj_in"),
        ("middle_1/res/shift", "mid_block.resnets.1.time_emb_proj", "middle_block.2.emb_layers.1"),
    ],
)  # fmt: skip
def test_a_layer_has_the_name_that_it_has_in_version_1(ours, diffusers, compvis):
    for layout, theirs in (("diffusers", diffusers), ("compvis", compvis)):
        assert source_of(layout, f"{ours}/kernel", SD1).names == (f"{theirs}.weight",)
