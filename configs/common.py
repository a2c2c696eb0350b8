"""What several configs share: a stage with text, and settings for laptops, pods and tests."""

import ml_collections

from configs import pieces


def stage_config(name: str, size_px: int) -> ml_collections.ConfigDict:
    """The defaults of a stage of the cascade, with text and perhaps a low-resolution picture."""
    return pieces.stage(name, size_px, text=pieces.text(), low_res=pieces.low_res())


def for_a_laptop(config: ml_collections.ConfigDict) -> None:
    """Settings for short runs in float32, of minutes or hours on two CPU cores."""
    config.model.dtype = "float32"
    # A small network on large patches learns x_0, which has few directions, much sooner than eps or
    # v, which fill all directions (Li & He 2025, "Back to Basics").
    config.diffusion.update(predict="x_0", weighting="x_0")
    config.optim.update(learning_rate=1e-3, warmup_steps=100, decay="cosine")
    config.train.update(
        ema=("decay_0.999",), log_every=20, sample_every=1_000, save_every=1_000,
        snapshot_every=1_000,
    )  # fmt: skip
    # The background is white, the largest value, and dynamic thresholds turn it grey: 46 of 100
    # pictures of base64 were right with them, and 81 with static ones.
    config.sample.threshold = "static"


# Things that do not look alike; each is drawn in two styles.
DEMO_NAMES = (
    "red_apple",
    "banana",
    "watermelon",
    "strawberry",
    "pizza",
    "hamburger",
    "grinning_face",
    "red_heart",
    "rainbow",
    "sunflower",
    "cactus",
    "dog_face",
    "penguin",
    "frog",
    "smiling_face_with_sunglasses",
    "soccer_ball",
)


def for_minutes(config: ml_collections.ConfigDict) -> None:
    """Settings of `make demo`, which learns a few dozen pictures by heart in minutes."""
    config.data.names = DEMO_NAMES
    # What it learns by heart is also what an evaluation looks at, if there is one.
    config.data.update(validation_split="train", validation_names=DEMO_NAMES)
    config.train.update(ema=("decay_0.99",), sample_every=0, save_every=500)


def for_a_pod(config: ml_collections.ConfigDict) -> None:
    """The paper's batch, steps, optimiser and text encoder (Imagen, sec. 4.1, app. F).

    The paper's pictures are not public: --config.data.name=... names a captioned TFDS data set or
    a prepared folder. 128 tokens and an average of 0.9999 are NeMo's; the paper gives neither.
    """
    config.data.update(name="", batch_size=2048)
    config.text.update(encoder="google/t5-v1_1-xxl", width=4096, max_tokens=128)
    config.model.update(dtype="bfloat16", scan=True, remat="products")
    config.diffusion.update(predict="eps", weighting="eps")
    config.optim.update(learning_rate=1e-4, warmup_steps=10_000, decay="constant")
    config.train.update(
        num_steps=2_500_000,
        ema=("decay_0.9999",),
        log_every=100,
        sample_every=10_000,
        save_every=5_000,
        snapshot_every=25_000,
    )
    config.sample.update(num_steps=256, num_images=64, noise=0.3)


def for_tests(config: ml_collections.ConfigDict, sampled: bool = True) -> None:
    """Settings for tests: made-up pictures and a few steps, which take seconds."""
    config.data.update(name="fake/16", batch_size=8)
    config.optim.update(warmup_steps=2)
    config.train.update(num_steps=4, log_every=2, sample_every=4, save_every=2, snapshot_every=2)
    if sampled:
        config.sample.update(num_steps=2, num_images=2)
