"""The task of denoising one column, such as pictures, latents, vectors or waveforms."""

import math
from dataclasses import dataclass, field
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from diffjax.core import rng
from diffjax.core.types import (
    Data,
    Network,
    PRNGKey,
    PRNGKeys,
    Reshaped,
    Schedule,
)
from diffjax.devices.mesh import Rules
from diffjax.diffusion.predict import Kind, precondition
from diffjax.diffusion.training.times import Importance, TimeSampler, record, uniform
from diffjax.images import pixels
from diffjax.tasks import sampling
from diffjax.tasks.conditions import (
    COSINE,
    NEGATIVE,
    NO_TEXT,
    Condition,
    LowRes,
    Masked,
    Text,
    Tokens,
    told_by,
)
from diffjax.tasks.critic import ClassifierCritic, Critic
from diffjax.tasks.learning import Learning, by_noise_level
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.space import LATENT, WEIGHTS, Space
from diffjax.tasks.task import (
    ALONE,
    Columns,
    ExampleShapes,
    Losses,
    Memory,
    Model,
    Params,
    Peers,
    register,
)

Kinds = TypeVar("Kinds", bound=Condition)


@register
@dataclass(frozen=True)
class Denoising:
    """What training and sampling of one stage must agree on.

    shape: of one example of the column `of` as it is made; training may see smaller crops, of
    side `crop_px`. A uint8 column is a picture and is learned in [-1, 1]. times: how noise levels
    are drawn. settings: how previews are sampled. learning: what is learned beside x_0 and how
    errors count. guide: a weaker version of it, whose parameters are `frozen["guide"]`: guidance
    leads away from what that says (Karras et al. 2024b), in place of the null condition. critic:
    says how well data fit what was asked for, with the parameters `frozen["critic"]`; guidance
    follows its gradient, as far as `settings.clip_guidance` says. classifier: the same with the
    parameters `frozen["classifier"]` and `settings.classifier_guidance`; it knows noised data and
    reads `label`. space: of the latents that it
    learns in place of pictures, `of` being "latent"; its autoencoder is `frozen["space"]`. What it
    makes is then decoded, so `size_px` and all that callers see are those of pictures. If a
    condition on text wants it, `frozen["no_text"]` [l d] is the embedding of the empty text.
    `frozen["negative_..."]` are the columns of one row of the negative prompt that counts if no
    other is given.
    """

    name: str
    model: Model
    shape: tuple[int, ...]
    conditions: tuple[Condition, ...] = ()
    schedule: Schedule = COSINE
    predict: Kind = "v"
    weighting: str = "v"
    times: TimeSampler | Importance = uniform
    settings: SampleSettings = field(default_factory=SampleSettings)
    learning: Learning = field(default_factory=Learning)
    crop_px: int = 0
    of: str = "image"
    whole_batch: bool = False
    frozen: Params = field(default_factory=dict, compare=False)
    guide: "Denoising | None" = None
    critic: Critic | None = None
    classifier: ClassifierCritic | None = None
    space: Space | None = None

    @property
    def sharding(self) -> Rules:
        """The model's rules of how parameters are split over a mesh."""
        return self.model.sharding

    @property
    def size_px(self) -> int:
        """The side of the pictures that the task makes."""
        return self.shape[0] * (self.space.factor if self.space else 1)

    @property
    def clipped(self) -> bool:
        """Whether its data are in [-1, 1], as pictures are, and are clipped to it."""
        return self.space is None

    @property
    def reads(self) -> str:
        """The column that `draw` and `loss` read what is learned from."""
        return "image" if self.space and not self.space.cached else self.of

    @property
    def low_res(self) -> LowRes | None:
        """The condition on a smaller picture, if there is one."""
        return self.condition(LowRes)

    @property
    def low_res_px(self) -> int | None:
        """The side of the picture that it starts from; None for a stage that starts from noise."""
        return self.low_res.size_px if self.low_res else None

    @property
    def factor(self) -> int:
        """The side of its pictures divided by that of the pictures that it starts from."""
        return self.low_res.factor if self.low_res else 1

    @property
    def text(self) -> Text | None:
        """The condition on text, if there is one."""
        return self.condition(Text)

    @property
    def takes_prompts(self) -> bool:
        """Whether it is told a text, as embeddings or as tokens."""
        return self.text is not None or self.condition(Tokens) is not None

    def condition(self, kind: type[Kinds]) -> Kinds | None:
        """The condition of a kind, if there is one."""
        return next((one for one in self.conditions if isinstance(one, kind)), None)

    def columns(self) -> ExampleShapes:
        """The column that is learned, as it is stored on disk, and those of the conditions."""
        sides = (self.crop_px, self.crop_px, *self.shape[2:]) if self.crop_px else self.shape
        dtype: DTypeLike = jnp.uint8 if self.reads == "image" else jnp.float32
        if self.space and self.space.cached:
            sides, dtype = (*self.shape[:2], self.space.num_moments), jnp.float16
        elif self.space:
            sides = (self.size_px, self.size_px, 3)
        told = {name: shape for one in self.conditions for name, shape in one.columns().items()}
        return {self.reads: jax.ShapeDtypeStruct(sides, dtype), **told}

    def prompts(self) -> ExampleShapes:
        """The columns of one row that sampling reads."""
        return {name: shape for one in self.conditions for name, shape in one.prompts().items()}

    def init(self, key: PRNGKey) -> Params:
        """Initial parameters, for the smallest example that the network takes. To be jitted."""
        x = jnp.zeros((1, *self.smallest()))
        batch = {
            name: jnp.zeros((1, *shape.shape), shape.dtype)
            for name, shape in self.columns().items()
            if name != self.reads
        }
        drawn = [one.draw(key, {"row": jnp.zeros(1), **batch}) for one in self.conditions]
        batch = {**batch, self.of: x, **{name: c for part in drawn for name, c in part.items()}}
        if self.space:
            sides = [side * self.space.factor for side in x.shape[1:3]]
            batch["image"] = jnp.zeros((1, *sides, 3))
        if self.text and self.text.embeds_blank:
            batch[NO_TEXT] = jnp.zeros((1, self.text.max_tokens, self.text.width))
        told = jax.eval_shape(lambda: told_by(self.conditions, batch))
        if self.space and "masked" in told:
            told |= {"masked": x, "mask": x[..., :1]}
        told = {name: jnp.zeros(one.shape, one.dtype) for name, one in told.items()}
        x_t = self.learning.beside(x, jnp.zeros_like(x))
        params = self.model.init(key, x_t, jnp.zeros(1), **told)["params"]
        return {**params, **self.learning.init(key)}

    def smallest(self) -> tuple[int, ...]:
        """The shape of the smallest example that the network takes.

        Only the parameters of a canvas depend on the size of the picture.
        """
        stride: int | None = getattr(self.model, "stride", None)
        if len(self.shape) != 3 or stride is None or getattr(self.model, "canvas", False):
            return self.shape
        side = math.lcm(stride, self.factor)
        return (side, side, *self.shape[2:])

    def first_memory(self) -> Memory:
        """The history of losses by noise level, if times are drawn by it."""
        return self.times.first() if isinstance(self.times, Importance) else None

    def remember(self, memory: Memory, batch: Columns, losses: Losses) -> Memory:
        """The history with the losses of a batch, without the weights of its times."""
        return record(memory, batch["u"], losses.per_example / batch["weight"])

    def draw(
        self, key: PRNGKey, batch: Columns, step: Int[Array, ""], memory: Memory = None
    ) -> Columns:
        """Times `u` with their `weight`, noise `eps`, and the random draws of the conditions.

        Of latents also `latent_eps`, with which they are drawn from their moments.
        """
        x = batch[self.reads]
        key_u, key_eps = jax.random.split(rng.stream(key, "diffusion"))
        sampler = self.times.given(memory) if isinstance(self.times, Importance) else self.times
        times = sampler(key_u, len(x))
        told = {name: c for one in self.conditions for name, c in one.draw(key, batch).items()}
        shape = (len(x), *self.shape) if self.space else x.shape
        eps = jax.random.normal(key_eps, shape)
        if self.space:
            told["latent_eps"] = jax.random.normal(rng.stream(key, LATENT), shape)
        told |= self.learning.draw(key, len(x))
        if getattr(self.model, "dropout", 0.0):
            told["dropout_key"] = jax.random.split(rng.stream(key, "dropout"), len(x))
        return {**batch, **told, "u": times.u, "weight": times.weight,
                "eps": self.learning.noise(key, eps)}  # fmt: skip

    def loss(self, params: Params, batch: Columns, peers: Peers = ALONE) -> Losses:
        """The weighted error of each row. metrics: the mean error at high and at low noise."""
        return self.loss_of(params, batch, *self.seen(batch))

    def loss_of(self, params: Params, batch: Columns, x_0: Data, told: Columns) -> Losses:
        """`loss` of this x_0, with the `eps` at the times `u` of the batch, told `told`."""
        if "dropout_key" in batch:
            told = {**told, "dropout_key": batch["dropout_key"]}
        schedule = self.learning.schedule_of(self.schedule, params)
        network = self.learning.for_training(self.bind(params, told), self.predict, batch)
        objective = self.learning.objective_of(schedule, self.predict, self.weighting)
        error = objective(network, x_0, batch["eps"], batch["u"])
        logsnr_t = objective.logsnr(batch["u"])
        loss = self.learning.uncertain(error, logsnr_t, params)
        return Losses(batch["weight"] * loss, by_noise_level(error, logsnr_t))

    def seen(self, batch: Columns) -> tuple[Data, Columns]:
        """(x_0, what the network is told) of a batch that `draw` made."""
        batch = self.known(batch)
        if not self.space:
            x_0 = decoded(batch[self.of])
            return x_0, told_by(self.conditions, {**batch, self.of: x_0})
        weights, columns = self.frozen[WEIGHTS], dict(batch)
        if self.reads == "image":
            columns["image"] = decoded(batch["image"])
            moments = self.space.moments(weights, columns["image"])
        else:
            moments = batch[self.of].astype(jnp.float32)
        told = self.space.told(weights, told_by(self.conditions, columns))
        return self.space.draw(moments, batch["latent_eps"]), told

    def known(self, columns: Columns) -> Columns:
        """The columns with what conditions read of `frozen`: the embedding of the empty text.

        Columns of a negative prompt in `frozen` count where there is no other.
        """
        names = [name for name in self.frozen if name == NO_TEXT or name.startswith(NEGATIVE)]
        if not names:
            return columns
        rows = len(next(iter(columns.values())))
        held = {x: jnp.broadcast_to(y := self.frozen[x], (rows, *y.shape)) for x in names}
        blank = {NO_TEXT: held[NO_TEXT]} if NO_TEXT in held else {}
        return {**held, **columns, **blank}

    def clean(self, batch: Columns) -> Data:
        """x_0 of a batch without random draws: of latents the middle."""
        column = decoded(batch[self.reads])
        if not self.space:
            return column
        if self.reads == "image":
            return self.space.encode(self.frozen[WEIGHTS], column)
        return self.space.mean(column.astype(jnp.float32))

    def learned(self, picture: Data) -> Reshaped:
        """Pictures in [-1, 1] as the data that the task learns: as they are, or as latents."""
        return self.space.encode(self.frozen[WEIGHTS], picture) if self.space else picture

    def pictured(self, x_0: Data) -> Reshaped:
        """Data of the task as they are shown: as they are, or latents decoded, in [-1, 1]."""
        if not self.space:
            return x_0
        return jnp.clip(self.space.decode(self.frozen[WEIGHTS], x_0), -1.0, 1.0)

    def bind(self, params: Params, told: Columns) -> Network:
        """The network with its parameters and conditions."""
        network = lambda x_t, logsnr_t: self.model.apply(  # noqa: E731
            {"params": params}, x_t, logsnr_t, **told
        )
        return precondition(network) if self.learning.precondition else network

    def schedule_of(self, params: Params) -> Schedule:
        """The schedule for sampling: the learned one, if one is learned."""
        return self.learning.schedule_of(self.schedule, params)

    def prompted(self, batch: Columns) -> dict[str, Array]:
        """A batch of training with the columns that sampling reads: its text, its small picture."""
        true = {self.reads: decoded(batch[self.reads])} if self.reads in batch else {}
        columns = dict(batch)
        for one in self.conditions:
            columns |= one.shown({**self.known(batch), **true})
        return columns

    def preview(self, params: Params, batch: Columns, keys: PRNGKeys) -> Columns:
        """`made` from the batch's own conditions, and the `low_res` or `masked` it started from."""
        columns = self.prompted(batch)
        made = sampling.sample(params, columns, keys, task=self, settings=self.settings)
        started = {"low_res": columns["low_res"]} if self.low_res else {}
        if self.condition(Masked):
            started["masked"] = columns["picture"] * (1.0 - columns["hole"])
        return {"made": made, **started}


def decoded(column: Array) -> Float[Array, "b *shape"]:
    """The column as it is learned: pictures in bytes become float32 in [-1, 1]."""
    return pixels.from_uint8(column) if column.dtype == jnp.uint8 else column
