"""What every stage's config has; a stage's file changes what is its own."""

import ml_collections


def stage_config(name: str, size_px: int) -> ml_collections.ConfigDict:
    """The defaults of one stage that makes pictures of `size_px`."""
    config = ml_collections.ConfigDict()
    config.stage = name
    config.seed = 0
    config.data = ml_collections.ConfigDict(
        dict(
            name=f"emoji/{size_px}",  # a TFDS data set, a prepared folder, or "fake/COUNT"
            split="train",
            names=(),  # keep only records with these names; none: keep all
            size_px=size_px,
            crop_px=0,  # train on random crops of this side; 0: whole pictures
            batch_size=32,  # over all devices
            embeddings="",  # a cache made by diffjax.embed; none: the captions are encoded first
            image_key="image",
            caption_key="captions",
            max_broken=0.01,  # share of the records whose pictures may be broken and are skipped
        )
    )
    config.text = ml_collections.ConfigDict(
        dict(
            encoder="t5-nano",
            width=0,  # of its embeddings; 0: ask the encoder
            max_tokens=96,
            drop=0.1,  # Imagen, sec. 4.1
        )
    )
    config.model = ml_collections.ConfigDict(
        dict(
            scan=False,  # equal blocks as one scan: a shorter program, the same network
            remat="none",  # "products": the backward pass computes all but these again; "full"
            num_heads=0,  # 0: as many heads of head_width as fill the channels
            patch=1,  # pixel unshuffle before the stem, and back after the head
        )
    )
    config.diffusion = ml_collections.ConfigDict(
        dict(
            schedule="cosine",  # a name of diffjax.diffusion.schedule.SCHEDULES
            logsnr_min=-20.0,  # where the schedule has ends to choose
            logsnr_max=20.0,
            shift=1.0,  # base_px / size_px: noise for large pictures (simple diffusion)
            predict="v",  # a kind of diffjax.diffusion.predict.KINDS
            weighting="v",  # a name of diffjax.diffusion.training.weighting.NAMES
            times="uniform",  # or "stratified": the batch's noise levels spread evenly
            objective="simple",  # or "hybrid", "vlb": they learn the variance, at num_levels levels
            over="u",  # or "logsnr": levels count by their width in log SNR, not as visited
            num_levels=1000,  # of hybrid and vlb
            vlb_weight=0.001,  # of the bound in hybrid
            self_condition=0.0,  # how often the network sees its own last guess
            uncertainty=0,  # features of a learned uncertainty by level; 0: none
            learned_schedule=0,  # hidden units of a learned monotone schedule; 0: none
            precondition=False,  # EDM's scaling of the input; with predict="edm" all of it
        )
    )
    # Only for stages that start from a smaller picture; size_px = 0: this one does not.
    config.low_res = ml_collections.ConfigDict(dict(size_px=0, max_aug_level=1.0))
    config.optim = ml_collections.ConfigDict(
        dict(
            name="adam",
            learning_rate=1e-4,
            warmup_steps=10_000,
            decay="constant",  # or "cosine", or "cooldown": constant, to 0 over the last fifth
            b1=0.9,
            b2=0.999,
            eps=1e-8,
            weight_decay=0.0,
            clip_norm=1.0,
            groups=(),  # "PATTERN rate=0.1 weight_decay=0": parameters with options of their own
        )
    )
    config.train = ml_collections.ConfigDict(
        dict(
            num_steps=100_000,
            accumulate=1,  # micro-batches that make up a batch, one after the other
            ema=("decay_0.9999",),  # see diffjax.training.averages; the first is sampled with
            snapshot_every=2_000,  # of averages power_S, of which diffjax.ema makes others
            log_every=50,
            sample_every=2_000,
            save_every=2_000,
            keep=3,
            keep_every=0,  # and every step that this divides, for good; 0: none
            max_bad_steps=10,  # so many in a row with no finite loss or gradient end the run
            max_seconds=0.0,  # stop and save after so long, to be gone on from; 0: at the last step
            allow_dtype_change=False,  # go on with another model.dtype than the run was begun with
        )
    )
    config.sample = ml_collections.ConfigDict(
        dict(
            sampler="ddpm",  # a name of diffjax.diffusion.sampling.sampler.SAMPLERS
            noise=0.0,  # gamma of ddpm, eta of ddim and dpmpp_2m_sde, churn of euler and heun
            spacing="uniform",  # a name of diffjax.diffusion.sampling.spacing.SPACINGS
            num_steps=32,
            guidance_weight=3.0,
            guidance_rescale=0.0,  # against over-exposure; 0.7 in its paper
            guidance_from=-100.0,  # guidance is on between these log SNRs
            guidance_to=100.0,
            threshold="dynamic",  # "static", "none"
            percentile=99.5,
            aug_level=0.1,
            prompts=(),  # of the grids made while training; none: captions of the data
            num_images=8,
        )
    )
    config.mesh = ml_collections.ConfigDict(dict(data=-1, fsdp=1, tensor=1))  # -1: what is left
    return config


def for_a_laptop(config: ml_collections.ConfigDict) -> None:
    """Short runs in float32: what two CPU cores can do in minutes or hours."""
    config.model.dtype = "float32"
    # A small net on large patches learns x_0, which lies near few directions, long before it
    # learns eps or v, which fill them all (Li & He 2025, "Back to Basics").
    config.diffusion.update(predict="x_0", weighting="x_0")
    config.optim.update(learning_rate=1e-3, warmup_steps=100, decay="cosine")
    config.train.update(
        ema=("decay_0.999",), log_every=20, sample_every=1_000, save_every=1_000,
        snapshot_every=1_000,
    )  # fmt: skip
    # The ground is white, the largest value there is: dynamic thresholds turn it grey, and of 100
    # pictures of base64 46 were right; with these 81.
    config.sample.threshold = "static"


# Things that look unlike each other, drawn in two styles each.
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
    """A few dozen pictures, learned by heart: what `make demo` trains."""
    config.data.names = DEMO_NAMES
    config.train.update(ema=("decay_0.99",), sample_every=0, save_every=500)


def for_a_pod(config: ml_collections.ConfigDict) -> None:
    """The paper's batch, steps, optimiser and text, on any accelerators (Imagen, sec. 4.1, app. F).

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


def for_tests(config: ml_collections.ConfigDict) -> None:
    """Made-up pictures, a handful of steps, seconds."""
    config.data.update(name="fake/16", batch_size=8)
    config.optim.update(warmup_steps=2)
    config.train.update(num_steps=4, log_every=2, sample_every=4, save_every=2, snapshot_every=2)
    config.sample.update(num_steps=2, num_images=2)
