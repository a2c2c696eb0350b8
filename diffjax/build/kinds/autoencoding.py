"""Makes the task of shortening pictures to latents from its config."""

from collections.abc import Iterable, Mapping

from ml_collections import ConfigDict

from diffjax.build.kinds import perceptual
from diffjax.build.models import DTYPES
from diffjax.core.errors import require
from diffjax.models.autoencoder.discriminator import Discriminator
from diffjax.models.autoencoder.network import Autoencoder, Sizes
from diffjax.models.layers import convolve
from diffjax.models.layers.level import KEPT
from diffjax.tasks.adversary import Adversary
from diffjax.tasks.autoencoding import Autoencoding, Weights
from diffjax.tasks.codes import Following

# The section by which such a config is known.
SECTION, PERCEPTUAL = "autoencoding", "autoencoding.perceptual"
CHOICES: Mapping[str, Iterable[str]] = {
    "model.kind": ("autoencoder",),
    "model.remat": ("none", *KEPT),
}


def task_of(config: ConfigDict) -> Autoencoding:
    """The task, with the weights of its perceptual distance.

    Raises:
      ConfigError: there are no such weights.
    """
    options, crop_px = config.autoencoding, config.data.crop_px
    distance, params = perceptual.distance_of(options.perceptual, PERCEPTUAL)
    return Autoencoding(
        name=config.stage,
        model=model_of(config),
        size_px=crop_px or config.data.size_px,
        weights=Weights(
            perceptual=options.perceptual_weight,
            kl=options.kl_weight,
            codes=options.code_weight,
            commitment=options.commitment,
        ),
        perceptual=distance,
        adversary=adversary_of(config),
        following=Following(options.code_average, options.code_restart),
        frozen={} if distance is None else {"perceptual": params},
    )


def model_of(config: ConfigDict) -> Autoencoder:
    """The network."""
    model = config.model
    sizes = Sizes(
        channels=model.channels,
        mults=tuple(model.mults),
        num_blocks=model.num_blocks,
        attention=tuple(model.attention_levels),
        latent=model.latent,
        codes=model.codes,
        patch=model.get("patch", 1),  # configs of before have none
    )
    return Autoencoder(
        sizes,
        remat=model.remat,
        convolution=convolve.fastest_convolution(),
        dtype=DTYPES[model.dtype],
    )


def adversary_of(config: ConfigDict) -> Adversary | None:
    """The discriminator, when it begins and how much it counts; None for no weight."""
    options = config.autoencoding
    if not options.adversary_weight:
        return None
    judge = Discriminator(
        options.adversary_layers, options.adversary_width, DTYPES[config.model.dtype]
    )
    return Adversary(judge, options.adversary_start, options.adversary_weight)


def check(config: ConfigDict) -> None:
    """Checks what only such a config has.

    Raises:
      ConfigError: a value is not allowed.
    """
    model, options = config.model, config.autoencoding
    num_levels = len(model.mults)
    require(num_levels > 0, "model.mults", model.mults, "must have at least one level")
    for level in model.attention_levels:
        require(0 <= level < num_levels, "model.attention_levels", model.attention_levels,
                f"levels are 0 to {num_levels - 1}")  # fmt: skip
    patch = model.get("patch", 1)
    require(patch > 0, "model.patch", patch, "must be at least 1")
    stride, size_px, crop_px = model_of(config).stride, config.data.size_px, config.data.crop_px
    halves = f"must be a multiple of {stride}: model.patch and each level of model.mults but one"
    for key, side in (("data.size_px", size_px), ("data.crop_px", crop_px)):
        require(side % stride == 0, key, side, halves)
    require(crop_px <= size_px, "data.crop_px", crop_px, f"must be at most data.size_px, {size_px}")
    for key in ("code_average", "code_restart"):
        require(not options[key] or model.codes > 0, f"autoencoding.{key}", options[key],
                "needs a codebook: model.codes above 0")  # fmt: skip
    require(not options.adversary_weight or config.train.accumulate == 1, "train.accumulate",
            config.train.accumulate,
            "must be 1: the adversary is weighed by gradients of the whole batch")  # fmt: skip
    if options.adversary_weight:
        smallest, side = 2 ** (options.adversary_layers + 2), crop_px or size_px
        require(side >= smallest, "autoencoding.adversary_layers", options.adversary_layers,
                f"so many halvings want pictures of {smallest} px, not {side}")  # fmt: skip
    perceptual.check(options.perceptual, PERCEPTUAL)
