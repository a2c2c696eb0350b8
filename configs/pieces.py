"""The sections of a stage's config: those that every task needs, and one for each condition.

The conditions are `text`, `tokens`, `classes`, `embedding`, `mask` and `low_res`; a config has only
the sections of its own conditions. A config with a section `lora` changes a trained stage, and one
with a section `start` may begin with the weights of one.
"""

from ml_collections import ConfigDict


def stage(name: str, size_px: int, **told: ConfigDict) -> ConfigDict:
    """The defaults of a stage that makes pictures of `size_px`.

    told: the names of its conditions; without any it is an unconditional model.
    """
    config = ConfigDict()
    config.stage = name
    config.seed = 0
    config.data = data(size_px)
    config.update(told)
    config.model = model()
    config.diffusion = diffusion()
    config.optim = optim()
    config.train = train()
    config.sample = sample()
    config.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))  # -1: what is left
    return config


def latent_stage(name: str, size_px: int, **told: ConfigDict) -> ConfigDict:
    """The defaults of a stage that learns the latents of pictures of `size_px`."""
    config = stage(name, size_px, **told)
    config.latent = latent()
    config.sample.threshold = "none"  # latents are not bounded
    return config


def latent() -> ConfigDict:
    """The frozen autoencoder whose latents are learned, and how they are scaled."""
    return ConfigDict(
        dict(
            autoencoder="",  # a workdir of configs/autoencoder.py, diffusers:FOLDER or a file
            factor=8,  # a picture's side divided by its latent's
            channels=4,
            scale=(),  # z = (raw - shift) scale: one for all channels, or one for each;
            shift=(),  # (): measured on the data when a run begins
            by_channel=True,  # measure each channel by itself
            mark="",  # of the autoencoder's weights, written when a run begins
            cached=True,  # encode each picture once; false: in each step
            cache="",  # a folder of encoded pictures; none: the user's own
            crops=1,  # squares of each picture that are kept, with data.aspect="random"
            tile_px=1024,  # larger pictures are decoded in tiles of this side; 0: none are
        )
    )


def prior_stage(name: str, size_px: int) -> ConfigDict:
    """The defaults of a stage that makes the CLIP vectors of pictures from texts."""
    config = stage(name, size_px, text=text(), vectors=vectors())
    config.model = prior_model()
    config.diffusion.update(schedule="discrete_cosine", predict="x_0", weighting="x_0")
    config.optim.update(name="adamw", groups=NO_DECAY)
    config.sample.update(threshold="none", guidance_weight=1.0, best_of=2)
    return config


def prior_ar_stage(name: str, size_px: int) -> ConfigDict:
    """The defaults of a stage that makes the same vectors bucket after bucket."""
    config = prior_stage(name, size_px)
    del config.diffusion, config.vectors.scale
    config.model.update(kind="prior_ar", width=1664, num_heads=26)
    config.autoregressive = ConfigDict(
        dict(
            components=319,  # principal ones, which are measured on the data when a run begins
            buckets=1024,  # of each
            dots=1024,  # buckets of the product of a picture's vector and its text's
            basis="",  # the file of the components, written when a run begins
            mark="",  # and its fingerprint
        )
    )
    config.sample = ConfigDict(dict(num_images=8, guidance_weight=1.0, best_of=1))
    return config


def prior_model() -> ConfigDict:
    """The causal transformer of a prior (Ramesh et al. 2022, table 3)."""
    return ConfigDict(
        dict(
            kind="prior",
            width=2048,
            num_blocks=24,
            num_heads=32,
            remat="none",  # "products": the backward pass computes all but these again; "full"
            dtype="bfloat16",
        )
    )


def pairs_stage(name: str, size_px: int) -> ConfigDict:
    """The defaults of a stage that compares pictures of `size_px` with texts."""
    config = ConfigDict()
    config.stage = name
    config.seed = 0
    config.data = data(size_px)
    config.tokens = tokens()
    config.model = clip_model()
    config.contrastive = contrastive()
    config.optim = optim()
    config.optim.update(name="adamw", b1=0.9, b2=0.98, eps=1e-6, clip_norm=0.0, groups=NO_DECAY)
    config.train = train()
    config.sample = ConfigDict(dict(num_images=8))
    config.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))  # -1: what is left
    return config


def autoencoder_stage(name: str, size_px: int) -> ConfigDict:
    """The defaults of a stage that shortens pictures of `size_px` to latents."""
    config = ConfigDict()
    config.stage = name
    config.seed = 0
    config.data = data(size_px)
    config.data.caption_key = ""
    config.model = autoencoder_model()
    config.autoencoding = autoencoding()
    config.start = start()
    config.optim = optim()
    config.optim.update(learning_rate=4.5e-6, warmup_steps=0, b1=0.5, b2=0.9, clip_norm=0.0)
    config.train = train()
    config.train.ema = ()
    config.sample = ConfigDict(dict(num_images=8))
    config.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))  # -1: what is left
    return config


def classifier_stage(name: str, size_px: int, num: int, names: tuple[str, ...] = ()) -> ConfigDict:
    """The defaults of a stage that tells the class of a noised picture, one of `num`."""
    config = ConfigDict()
    config.stage = name
    config.seed = 0
    config.data = data(size_px)
    config.data.update(caption_key="", aspect="random", flip=True)
    config.classes = ConfigDict(dict(num=num, names=names))
    config.model = classifier_model()
    config.diffusion = ConfigDict(
        dict(
            schedule="linear",  # of the noise: a name of diffjax.diffusion.schedule.SCHEDULES
            logsnr_min=-20.0,  # where the schedule has ends to choose
            logsnr_max=20.0,
            shift=1.0,  # as of a stage that makes pictures
            zero_snr=False,
            discrete=True,  # see the num_levels steps of a chain alone, as of its table
            num_levels=1000,
        )
    )
    config.classifying = ConfigDict(
        dict(min_crop=0.8)  # training sees random squares of at least this share; 1: whole pictures
    )
    config.optim = optim()
    config.optim.update(
        name="adamw", learning_rate=3e-4, warmup_steps=0, decay="linear", weight_decay=0.05,
        clip_norm=0.0,
    )  # fmt: skip
    config.train = train()
    config.train.ema = ()
    config.sample = ConfigDict(dict(num_images=8))
    config.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))  # -1: what is left
    return config


def classifier_model() -> ConfigDict:
    """The encoder half of ADM's U-Net, and its attention pool (Dhariwal & Nichol 2021, sec. 4)."""
    return ConfigDict(
        dict(
            kind="classifier",
            width=128,
            embedding_width=0,  # of the noise level; 0: 4 x width
            mults=(1, 1, 2, 2, 4, 4),
            num_blocks=2,
            attention_levels=(3, 4, 5),
            head_width=64,
            norm_groups=32,  # of each norm; 0: 32, or fewer in small networks
            steps=1000,  # of a chain, of which it is told one; 0: it is told the log SNR
            remat="none",  # "products": the backward pass computes all but these again; "full"
            dtype="bfloat16",
        )
    )


def autoencoder_model() -> ConfigDict:
    """The encoder and the decoder; a level has `channels` times its entry of `mults`."""
    return ConfigDict(
        dict(
            kind="autoencoder",
            channels=128,
            mults=(1, 2, 4, 4),  # each level but the last halves the picture
            num_blocks=2,  # one more in the decoder
            attention_levels=(),
            latent=4,  # channels of the latent
            codes=0,  # vectors of its codebook; 0: the latent is drawn from a Gaussian
            patch=1,  # pixel unshuffle before the stem, and back after the last convolution
            remat="none",  # "products": the backward pass computes all but these again; "full"
            dtype="bfloat16",
        )
    )


def autoencoding() -> ConfigDict:
    """The loss of an autoencoder, in the units of its paper (docs/autoencoder.md)."""
    return ConfigDict(
        dict(
            perceptual="lite0",  # or "lpips:FOLDER" (docs/autoencoder.md); "": none
            perceptual_weight=1.0,
            kl_weight=1e-6,  # of a Gaussian latent
            code_weight=1.0,  # of a codebook: how codes come to latents
            commitment=0.25,  # and latents to codes
            code_average=0.0,  # above 0: codes are averages that keep this share in a step
            code_restart=0.0,  # codes chosen less often in a step begin anew; 0: none
            adversary_weight=0.5,  # 0: no discriminator
            adversary_start=50_001,  # its first step
            adversary_layers=3,
            adversary_width=64,
        )
    )


# The paper decays all weights that are not gains or biases (Radford et al. 2021, sec. 2.5).
NO_DECAY = (r".*(scale|bias) weight_decay=0",)


def tokens() -> ConfigDict:
    """How captions become ids."""
    return ConfigDict(
        dict(
            vocabulary="openai",  # or "emoji", or a file of merges (docs/clip.md)
            length=77,  # ids of a caption, with those of its start and end
        )
    )


def prompt_tokens(vocabulary: str = "gpt2", length: int = 128) -> ConfigDict:
    """How captions become ids for a network with a text transformer (Nichol et al. 2022)."""
    return ConfigDict(
        dict(
            vocabulary=vocabulary,  # "emoji", "openai", "gpt2", or a file of merges (docs/glide.md)
            length=length,  # places for the ids of a caption
            drop=0.0,  # the share of rows that train with the empty text
        )
    )


def start() -> ConfigDict:
    """The weights that a run begins with."""
    return ConfigDict(
        dict(
            base="",  # a workdir or an export of the same network, or "shipped"; "": new weights
            average="",  # of its averages; "": the one that it is sampled with
        )
    )


def clip_model() -> ConfigDict:
    """The two towers of a CLIP."""
    return ConfigDict(
        dict(
            kind="clip",
            patch=32,
            image_width=768,
            image_layers=12,
            image_heads=12,
            text_width=512,
            text_layers=12,
            text_heads=8,
            embed=512,  # width of the features
            activation="quick_gelu",  # or "gelu"
            remat="none",  # "products": the backward pass computes all but these again; "full"
            dtype="bfloat16",
        )
    )


def contrastive() -> ConfigDict:
    """The loss of pairs."""
    return ConfigDict(
        dict(
            loss="softmax",  # CLIP's; or "sigmoid", SigLIP's
            chunk=512,  # rows of logits in memory at a time, each against the whole batch
            backbone="",  # "lite0": a frozen network below a head of model.image_width
            drop=0.0,  # the share of numbers of a backbone's vector that training leaves out
            shift_px=0,  # pictures are moved by up to so many pixels, at random
            noised=False,  # compare noised pictures, for guidance (docs/sampling.md)
        )
    )


def data(size_px: int) -> ConfigDict:
    """The records that training reads."""
    return ConfigDict(
        dict(
            name=f"emoji/{size_px}",  # folder:DIR, tar:GLOB, parquet:GLOB, ...: docs/data.md
            split="train",
            validation=0.0,  # share kept out of training, of a source that has no splits
            validation_split="validation",  # what train.evaluate_every looks at
            names=(),  # keep only records with these names; none: keep all
            validation_names=(),  # the same for validation_split, to which names does not apply
            size_px=size_px,
            crop_px=0,  # train on random crops of this side; 0: whole pictures
            batch_size=32,  # over all devices
            embeddings="",  # a cache made by diffjax.embed; none: the captions are encoded first
            image_key="image",
            caption_key="captions",  # "": none, for a task that is told no text
            caption_words=(),  # train on captions with one of these words alone; none: on all
            captions="auto",  # of a folder: beside the pictures; "folder": its name; or "none"
            aspect="centre",  # what of a picture that is no square: "centre", "random", or "pad"
            ground="white",  # what shows where a picture is transparent, and around "pad"
            flip=False,  # mirror half of the pictures whose captions name no side
            max_bad_fraction=0.01,  # share of the records that may be broken and are skipped
            allow_changed=False,  # go on although the data are no longer those of the run's start
            workers=0,  # processes that read and decode; 0: threads of the main process
        )
    )


def text() -> ConfigDict:
    """The captions, and the frozen encoder that embeds them."""
    return ConfigDict(
        dict(
            encoder="t5-nano",
            width=0,  # of its embeddings; 0: ask the encoder
            max_tokens=96,
            drop=0.1,  # Imagen, sec. 4.1
        )
    )


def classes(num: int, names: tuple[str, ...] = ()) -> ConfigDict:
    """One of `num` classes, the `label` of a record. names: for diffjax.sample --class."""
    return ConfigDict(dict(num=num, drop=0.1, names=names))


def embedding(of: str, width: int, encoder: str = "") -> ConfigDict:
    """A vector of `width` numbers from another network, the field `of` of a record.

    encoder: "clip:PLACE", which computes it from the picture; "": the records have it.
    """
    return ConfigDict(dict(of=of, width=width, drop=0.1, encoder=encoder))


def vectors(clip: str = "clip:emoji", width: int = 128) -> ConfigDict:
    """The vectors of a CLIP that a prior learns to make of texts, and a decoder is told."""
    return ConfigDict(
        dict(
            clip=clip,  # a folder, file, workdir or name, as in docs/clip.md; "": to plan only
            width=width,
            scale=0.0,  # what unit vectors are multiplied by; 0: sqrt(width), 17.2 in the paper
            mark="",  # the fingerprint of the CLIP, written when a run begins
        )
    )


def mask() -> ConfigDict:
    """A picture with a hole, which the task fills."""
    return ConfigDict(
        dict(
            drop=0.1,  # the share of rows in which the hole is everything
            strokes=0.0,  # the share of holes that are thick lines; the others are rectangles
            known=False,  # the network is told 1 where the picture is known, and not in the hole
        )
    )


def low_res(size_px: int = 0) -> ConfigDict:
    """The smaller picture that a stage starts from; size_px = 0 means that there is none.

    degrade: what training does to it, "blur" or "bsr" (docs/unclip.md); "": nothing.
    """
    return ConfigDict(dict(size_px=size_px, max_aug_level=1.0, degrade=""))


def lora(base: str) -> ConfigDict:
    """Low-rank changes of a trained stage, which are trained in its place (docs/lora.md)."""
    return ConfigDict(
        dict(
            base=base,  # its workdir, export or Stable Diffusion; "shipped"; "untrained", for tests
            checkpoint="",  # digest of the base; a run writes it down and compares it on a resume
            rank=8,
            alpha=0.0,  # changes are multiplied by alpha / rank; 0: alpha = rank
            targets=("attention",),  # also "feed_forward", or patterns of whole paths of kernels
            prior="",  # a data set of the new thing's class; python -m diffjax.lora prior draws it
            prior_share=0.5,  # of all examples
            prior_weight=1.0,  # how much the loss of such an example counts
            prior_target="pictures",  # what it leads to; "base": to what the base says of it
        )
    )


def distil(teacher: str) -> ConfigDict:
    """A student that learns to take `sample.num_steps` steps of DDIM (docs/distillation.md)."""
    return ConfigDict(
        dict(
            teacher=teacher,  # its workdir, export, ...; "shipped"; "untrained", for tests
            checkpoint="",  # digest of the teacher; a run writes it down and compares on a resume
            teacher_steps=16,  # a multiple of sample.num_steps
            guidance_weight=1.0,  # of the teacher; the student is sampled without guidance
        )
    )


def rehearsal() -> ConfigDict:
    """Training on the own way from noise, in `sample.num_steps` steps (docs/rehearsal.md)."""
    return ConfigDict(
        dict(
            perceptual="lite0",  # beside the squared error; "lpips:FOLDER"; "": none
            perceptual_weight=0.02,
        )
    )


def model() -> ConfigDict:
    """The options of all networks; each config adds those of its own network."""
    return ConfigDict(
        dict(
            scan=False,  # equal blocks as one scan: a shorter program, the same network
            remat="none",  # "products": the backward pass computes all but these again; "full"
            num_heads=0,  # 0: as many heads of head_width as fill the channels
            patch=1,  # pixel unshuffle before the stem, and back after the head
        )
    )


def diffusion() -> ConfigDict:
    """The noise schedule, what the network predicts, and how errors are weighted."""
    return ConfigDict(
        dict(
            schedule="cosine",  # a name of diffjax.diffusion.schedule.SCHEDULES
            logsnr_min=-20.0,  # where the schedule has ends to choose
            logsnr_max=20.0,
            shift=1.0,  # base_px / size_px: noise for large pictures (simple diffusion)
            predict="v",  # a kind of diffjax.diffusion.predict.KINDS
            weighting="v",  # a name of diffjax.diffusion.training.weighting.NAMES
            zero_snr=False,  # the last level holds no signal (docs/dit.md)
            # or "stratified": a batch's levels spread evenly; "importance": where losses are large;
            # "logit_normal": most in the middle, as for flows
            times="uniform",
            times_mean=0.0,  # of log(u / (1 - u)), of logit_normal
            times_std=1.0,
            offset_noise=0.0,  # noise on whole channels, 0.1 in its first description; 0: none
            objective="simple",  # or "hybrid", "vlb": they learn the variance, at num_levels levels
            over="u",  # or "logsnr": levels count by their width in log SNR, not as visited
            num_levels=1000,  # of hybrid and vlb, and where importance remembers losses
            discrete=False,  # train at the num_levels steps of the table alone, not between them
            vlb_weight=0.001,  # of the bound in hybrid
            self_condition=0.0,  # how often the network sees its own last guess
            uncertainty=0,  # features of a learned uncertainty by level; 0: none
            learned_schedule=0,  # hidden units of a learned monotone schedule; 0: none
            precondition=False,  # EDM's scaling of the input; with predict="edm" all of it
        )
    )


def optim() -> ConfigDict:
    """The optimiser and its learning rate."""
    return ConfigDict(
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


def train() -> ConfigDict:
    """How long a run trains, and when it logs, saves and samples."""
    return ConfigDict(
        dict(
            num_steps=100_000,
            accumulate=1,  # micro-batches that make up a batch, one after the other
            ema=("decay_0.9999",),  # see diffjax.training.averages; the first is sampled with
            snapshot_every=2_000,  # of averages power_S, of which diffjax.ema makes others
            log_every=50,
            sample_every=2_000,
            evaluate_every=0,  # losses, likelihoods and more on held-out data; 0: never
            evaluate_examples=64,  # so many of them, spread over data.validation_split
            evaluate_scores=(),  # "lite0": FD-lite0 and KID of them as a set; "clip:WHERE"
            save_every=2_000,
            keep=3,
            keep_every=0,  # and every step that this divides, for good; 0: none
            max_bad_steps=10,  # so many in a row with no finite loss or gradient end the run
            max_seconds=0.0,  # stop and save after so long, to be gone on from; 0: at the last step
            allow_dtype_change=False,  # go on with another model.dtype than the run was begun with
        )
    )


def sample() -> ConfigDict:
    """How the stage is sampled, in previews and by diffjax.sample."""
    return ConfigDict(
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
            clip_guidance=0.0,  # scale of guidance by a CLIP, in diffjax.sample alone; 0: none
            clip="shipped",  # the CLIP that guides: a workdir, a folder, ... (docs/clip.md)
            classifier_guidance=0.0,  # scale of guidance by a classifier, in diffjax.sample alone
            classifier="",  # its workdir or export (docs/classifier.md); "": none
            prompts=(),  # of the grids made while training; none: captions of the data
            num_images=8,
        )
    )
