"""How the parameters of the U-Nets are split over a mesh, by the names of their layers.

fsdp splits what is kept, tensor the work (Rajbhandari et al. 2020; Shoeybi et al. 2019).
"""

from diffjax.devices.mesh import SPLIT_INPUTS, SPLIT_OUTPUTS, Rules

RULES: Rules = (
    (r"(.*/)?finish/.*", (None,)),  # few channels
    (r"(.*/)?(conv_0|qkv|q|text_kv|scale_shift|dense_0|value|draw)/kernel", SPLIT_OUTPUTS),
    (r"(.*/)?(conv_1|out|skip|\w+_stride|dense_1)/kernel", SPLIT_INPUTS),
    (r"(.*/)?head/conv/kernel", ("fsdp", None)),  # 3 output channels
    (r"(.*/)?(label/embedding|vector/kernel|vector_tokens/kernel)", (None, "fsdp")),
    (r"(uncertainty|schedule)/.*", (None,)),  # a few numbers beside the network's
    (r"(.*/)?(stem|text_in)/kernel", (None, "fsdp")),  # 3 input channels; text of any width
    (r"(.*/)?text_pool/score/kernel", (None,)),  # one column per pooling head
    (r"(.*/)?(bias|scale)", (None,)),  # a vector per layer: not worth a gather
)
