"""Makes the chain of a whole Karlo: text tower, prior, decoder and upsampler of one folder."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp

from diffjax.build.others import karlo
from diffjax.core import digest
from diffjax.core.errors import ConfigError
from diffjax.core.trees import Params
from diffjax.devices import mesh
from diffjax.encoders.t5 import TextEncoder
from diffjax.encoders.unclip import texts
from diffjax.generation import rows
from diffjax.generation.chain import Cascade, TrainedStage
from diffjax.generation.recipe import FROM_A_FILE, Origin
from diffjax.generation.telling import Prior, Teller
from diffjax.tasks.conditions import NEGATIVE
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.prior import DiffusionPrior

FLAG, PREFIX = "--checkpoint", "karlo:"


def load(where: Path) -> Cascade:
    """The chain of a folder, with its parameters on every device that samples.

    Raises:
      ConfigError: it is not whole, or its parts do not fit each other; one line.
    """
    try:
        return _load(where)
    except (ValueError, OSError) as error:
        raise ConfigError(FLAG, str(where), str(error).removeprefix(f"{where}: ")) from None


def _load(where: Path) -> Cascade:
    texts.check_noise(where)
    tower = texts.load(where)
    prior, of_prior = karlo.prior_of(where)
    decoder, of_decoder = karlo.decoder_of(where)
    upsampler, of_upsampler = karlo.upsampler_of(where)
    check_parts(tower, prior, decoder, upsampler, where)
    encoder = texts.text_encoder(tower, f"{PREFIX}{where.name}")
    everywhere = mesh.replicated(mesh.make_mesh(devices=mesh.sampling_devices()))
    blank = no_text(encoder)

    def placed(task: Denoising, params: Params, *, told: bool) -> tuple[TrainedStage, Origin]:
        mark = digest.digest_of({"net": params, "frozen": task.frozen}, {"name": task.name})
        frozen = {**task.frozen, **(blank if told else {})}
        task = dataclasses.replace(task, frozen=jax.device_put(frozen, everywhere))
        origin = Origin(task.name, task.size_px, None, FROM_A_FILE, mark)
        return TrainedStage(task, jax.device_put(params, everywhere), task.settings), origin

    first, whose = placed(prior, of_prior, told=True)
    assert isinstance(first.task, DiffusionPrior)
    made = Prior(first.task, first.params, first.settings, whose, encoder)
    small, of_small = placed(decoder, of_decoder, told=True)
    large, of_large = placed(upsampler, of_upsampler, told=False)
    print(f"karlo: {where}, {decoder.size_px} px and {upsampler.size_px} px")
    teller = Teller("prior", encoder, made)
    return Cascade((small, large), (of_small, of_large), encoder, teller=teller)


def no_text(encoder: TextEncoder) -> dict[str, jax.Array]:
    """What guidance leads away from if no negative prompt is given: the empty text, of one row."""
    columns = rows.columns_of(encoder, [""])
    return {f"{NEGATIVE}{name}": jnp.asarray(column[0]) for name, column in columns.items()}


def check_parts(
    tower: texts.Loaded,
    prior: DiffusionPrior,
    decoder: Denoising,
    upsampler: Denoising,
    where: Path,
) -> None:
    """Checks that the parts of a folder are of one chain.

    Raises:
      ValueError: they are of different models; one line.
    """
    states, vectors = tower.projection.shape
    for task in (prior, decoder):
        wanted = {"text": states, "text_vector": vectors}
        for name, width in wanted.items():
            reads = task.prompts()[name].shape[-1]
            if reads != width:
                raise ValueError(
                    f"{where}: its {task.name} reads {name} of width {reads}, its text encoder "
                    f"gives {width}: parts of different models"
                )
        length = task.prompts()["text"].shape[0]
        if length != tower.model.length:
            raise ValueError(
                f"{where}: its {task.name} reads {length} tokens, its text encoder "
                f"{tower.model.length}: parts of different models"
            )
    if upsampler.low_res_px != decoder.size_px:
        raise ValueError(
            f"{where}: its upsampler starts from {upsampler.low_res_px} px, its decoder makes "
            f"{decoder.size_px}: parts of different models"
        )
