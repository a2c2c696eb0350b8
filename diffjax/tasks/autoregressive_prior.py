"""The autoregressive prior: from a text to a CLIP vector, bucket after bucket.

Ramesh et al. 2022, sec. 2.2. A vector is the buckets of its principal components, and the network
says how likely each bucket is, given the text and the buckets before it.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from diffjax.core import rng
from diffjax.core.types import PRNGKey, PRNGKeys
from diffjax.devices.mesh import Rules
from diffjax.models.clip.clip import unit
from diffjax.tasks.buckets import BASIS, Buckets, Codes
from diffjax.tasks.conditions import Text, told_by
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import ALONE, Columns, ExampleShapes, Losses, Model, Params, Peers, register
from diffjax.tasks.vectors import (
    IMAGE_VECTOR,
    TEXT_VECTOR,
    TextVector,
    Vectors,
    dots,
    nearest_of,
    preview_of,
)


@register
@dataclass(frozen=True)
class AutoregressivePrior:
    """What training and sampling of such a prior must agree on.

    text, vector: what it is told. buckets: of the components; their basis is `frozen["basis"]`.
    settings: of previews, of which the guidance weight counts alone. best_of: so many vectors are
    made of a text, and the one with the largest z . z_t is kept.
    """

    name: str
    model: Model
    text: Text
    vector: TextVector
    buckets: Buckets
    settings: SampleSettings = field(default_factory=SampleSettings)
    best_of: int = 1
    whole_batch: bool = False
    frozen: Params = field(default_factory=dict, compare=False)

    @property
    def conditions(self) -> tuple[Text, TextVector]:
        """The text and its vector."""
        return self.text, self.vector

    @property
    def sharding(self) -> Rules:
        """The model's rules of how parameters are split over a mesh."""
        return self.model.sharding

    @property
    def size_px(self) -> int:
        """It makes no pictures."""
        return 0

    def columns(self) -> ExampleShapes:
        """The vector of a picture, and the text with its vector."""
        told = {name: shape for one in self.conditions for name, shape in one.columns().items()}
        vector = jax.ShapeDtypeStruct((self.vector.width,), jnp.float32)
        return {IMAGE_VECTOR: vector, **told}

    def prompts(self) -> ExampleShapes:
        """The columns of one row that sampling reads."""
        return {name: shape for one in self.conditions for name, shape in one.prompts().items()}

    def init(self, key: PRNGKey) -> Params:
        """Initial parameters. To be jitted."""
        told = {
            name: jnp.zeros((1, *shape.shape), shape.dtype)
            for name, shape in self.prompts().items()
        }
        codes = jnp.zeros((1, self.buckets.components), jnp.int32)
        return self.model.init(key, codes, jnp.zeros(1, jnp.int32), **told)["params"]

    def draw(self, key: PRNGKey, batch: Columns, step: Int[Array, ""]) -> Columns:
        """Which rows train without their text."""
        return {**batch, **self.text.draw(key, batch)}

    def loss(self, params: Params, batch: Columns, peers: Peers = ALONE) -> Losses:
        """-log p(bucket | text, buckets before), as a mean over the components, in nats.

        metrics: the same of the first component, which has most of the variance.
        """
        basis, z = self.frozen[BASIS], batch[IMAGE_VECTOR]
        codes = self.buckets.encode(basis, z)
        dot = self.buckets.of_dot(basis, dots(z, batch[TEXT_VECTOR]))
        dot = jnp.where(batch["keep_text"], dot, self.buckets.dots)
        told = told_by(self.conditions, batch)
        logits = self.model.apply({"params": params}, codes, dot, **told)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, codes)
        return Losses(jnp.mean(loss, axis=-1), {"loss_first": loss[:, 0]})

    def prompted(self, batch: Columns) -> dict[str, Array]:
        """A batch of training with the columns that sampling reads."""
        columns = dict(batch)
        for one in self.conditions:
            columns |= one.shown(batch)
        return columns

    def vectors(
        self, params: Params, columns: Columns, keys: PRNGKeys, settings: SampleSettings
    ) -> Vectors:
        """The unit vectors for the texts in `columns`."""

        def one(keys: PRNGKeys) -> Vectors:
            codes = sample(params, columns, keys, task=self, settings=settings)
            return unit(self.buckets.decode(self.frozen[BASIS], codes))

        return nearest_of(one, keys, self.best_of, columns[TEXT_VECTOR])

    def preview(self, params: Params, batch: Columns, keys: PRNGKeys) -> Columns:
        """`made_vector`, and `made`: the picture of the batch that is nearest to it."""
        made = self.vectors(params, self.prompted(batch), keys, self.settings)
        return preview_of(made, batch)


def sample(
    params: Params,
    columns: Columns,
    keys: PRNGKeys,
    *,
    task: AutoregressivePrior,
    settings: SampleSettings,
) -> Codes:
    """The buckets [b k] for the texts in `columns`, from one key per row.

    The bucket of the product is drawn from the larger half of those of the data. Guidance moves the
    logits away from those of no text: l_0 + w (l - l_0). Keys and values of places are kept, so
    each place goes through the network once.
    """
    keys, weight = rng.stream(keys, task.name), settings.guidance_weight
    given: Columns = {}
    absent: Columns = {}
    for one in task.conditions:
        own = one.given(columns, keys, settings)
        given, absent = {**given, **own}, {**absent, **one.absent(own, columns)}
    likely = jnp.log(task.buckets.likely_dots(task.frozen[BASIS]))
    dot = chosen(rng.stream(keys, "dot"), jnp.broadcast_to(likely, (len(keys), len(likely))))
    guided = weight != 1
    if guided:
        given = {name: jnp.concatenate([given[name], absent[name]]) for name in given}
        dot = jnp.concatenate([dot, jnp.full_like(dot, task.buckets.dots)])
    variables, mask = {"params": params}, given["text_mask"]

    def next_of(logits: Float[Array, "_ 1 n"], index: Int[Array, ""]) -> Int[Array, " b"]:
        said = logits[:, 0]
        if guided:
            told, untold = jnp.split(said, 2)
            said = untold + weight * (told - untold)
        return chosen(rng.stream(keys, "code", index), said)

    def body(carry, index: Int[Array, ""]):
        logits, kept = carry
        code = next_of(logits, index)
        both = jnp.concatenate([code, code]) if guided else code
        return task.model.apply(variables, both, index, mask, kept, method="go_on"), code

    first = task.model.apply(variables, dot, **given, method="begin")
    last = task.buckets.components - 1
    (logits, _), codes = jax.lax.scan(body, first, jnp.arange(last))
    return jnp.concatenate([codes.T, next_of(logits, jnp.int32(last))[:, None]], axis=1)


def chosen(keys: PRNGKeys, logits: Float[Array, "b n"]) -> Int[Array, " b"]:
    """A number drawn for each row from its logits and its key."""
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)
