"""Files of improved-diffusion, guided-diffusion and glide-text2im: tensors by their names alone.

Widths, levels and classes follow from the shapes of the tensors. Heads, the order of queries, keys
and values, and the noise schedule do not: a config has to say them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from diffjax.core.trees import Params, PyTree
from diffjax.encoders import tensors, torch_archive, torch_legacy
from diffjax.encoders.ancestors.names import Shape, source_of
from diffjax.encoders.matching import SourceOf, Tensor, matched
from diffjax.models.unet import UNet

SUFFIXES = (".pt", ".pth")
STEM = "input_blocks.0.0.weight"
MOST_BLOCKS = 1000  # of a file
# What numbers of channels mean.
OUTPUTS = {3: "predicts the noise alone", 6: "predicts the noise and a variance"}
INPUTS = {
    3: "starts from noise alone", 6: "enlarges a smaller picture", 7: "fills holes",
    10: "enlarges a smaller picture and fills holes",
}  # fmt: skip
TOKENS, PLACES = "token_embedding.weight", "positional_embedding"  # of GLIDE


class Facts(NamedTuple):
    """What the shapes of the tensors say.

    widths: the channels of each level. embedding: the width of the sinusoids. classes: 0 for none.
    text: the ids, places, width and layers of a text transformer; () for none.
    """

    widths: tuple[int, ...]
    num_blocks: int
    attention: tuple[int, ...]
    embedding: int
    scale_shift: bool
    in_blocks: bool
    inputs: int
    outputs: int
    classes: int
    text: tuple[int, ...] = ()


def read(file: Path) -> dict[str, Tensor]:
    """The tensors of a file of PyTorch, or of safetensors. No code of the file is run.

    Raises:
      ValueError: there is no such file, or it is damaged or holds more than tensors; one line.
    """
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file")
    if file.suffix == ".safetensors":
        return {one.name: one for one in tensors.safetensors_file(file, ())}
    if torch_archive.is_archive(file):
        return dict(torch_archive.read(file))
    return dict(torch_legacy.read(file))


def facts_of(stored: Mapping[str, Tensor], where: Path) -> Facts:
    """What the shapes of a U-Net's tensors say.

    Raises:
      ValueError: they are not those of such a U-Net; one line.
    """
    shapes = {name: tuple(one.shape) for name, one in stored.items()}
    if "out.2.positional_embedding" in shapes or "out.2.qkv_proj.weight" in shapes:
        raise ValueError(f"{where}: a classifier, which draws nothing")
    ends = [shapes.get(name, ()) for name in (STEM, "out.2.weight", "time_embed.0.weight")]
    if [len(shape) for shape in ends] != [4, 4, 2] or not all(map(all, ends)):
        raise ValueError(f"{where}: holds no U-Net of improved-diffusion or guided-diffusion")
    stem, out, time = ends
    levels: list[list[tuple[int, bool]]] = [[]]  # of each block its width, and if it attends
    in_blocks = f"input_blocks.{_first_move(shapes)}.0.in_layers.0.weight" in shapes
    moves = _moves(shapes, in_blocks)
    for n in range(1, MOST_BLOCKS):
        shape = shapes.get(f"input_blocks.{n}.0.out_layers.3.weight")
        if n in moves:
            levels.append([])
        elif shape:
            levels[-1].append((shape[0], f"input_blocks.{n}.1.norm.weight" in shapes))
        else:
            break
    if any(not level or len(level) != len(levels[0]) or len(set(level)) != 1 for level in levels):
        raise ValueError(f"{where}: its levels are unlike those of OpenAI's U-Nets")
    first = "input_blocks.1.0"
    emb, conv = (shapes.get(f"{first}.{name}.weight", (0,))[0] for name in
                 ("emb_layers.1", "in_layers.2"))  # fmt: skip
    return Facts(
        widths=tuple(level[0][0] for level in levels),
        num_blocks=len(levels[0]),
        attention=tuple(i for i, level in enumerate(levels) if level[0][1]),
        embedding=time[1],
        scale_shift=emb == 2 * conv,
        in_blocks=in_blocks,
        inputs=stem[1],
        outputs=out[0],
        classes=shapes.get("label_emb.weight", (0,))[0],
        text=_text_of(shapes),
    )


def _text_of(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    tokens, places = (shapes.get(name, ()) for name in (TOKENS, PLACES))
    if len(tokens) != 2 or len(places) != 2:
        return ()
    name = "transformer.resblocks.{}.ln_1.weight"
    layers = next(n for n in range(MOST_BLOCKS + 1) if name.format(n) not in shapes)
    return (tokens[0], places[0], tokens[1], layers)


def _first_move(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The first block on the way down that halves the picture; 0 if none does.

    By its shapes, a residual block that halves is like any other. So its place follows from the way
    up, where each level has one block more than on the way down, the last of which doubles.
    """
    ups = [n for n in range(MOST_BLOCKS) if _moves_up(shapes, n)]
    return ups[0] + 1 if ups else 0


def _moves_up(shapes: Mapping[str, tuple[int, ...]], n: int) -> bool:
    last = [f"output_blocks.{n}.{i}" for i in (1, 2)]
    return any(f"{one}.conv.weight" in shapes or f"{one}.in_layers.0.weight" in shapes
               for one in last)  # fmt: skip


def _moves(shapes: Mapping[str, tuple[int, ...]], in_blocks: bool) -> set[int]:
    """The blocks on the way down that change the resolution."""
    if not in_blocks:
        return {n for n in range(MOST_BLOCKS) if f"input_blocks.{n}.0.op.weight" in shapes}
    count = sum(_moves_up(shapes, n) for n in range(MOST_BLOCKS))
    return {_first_move(shapes) * (i + 1) for i in range(count)}


def facts_of_model(model: UNet, inputs: int, outputs: int) -> Facts:
    """The same of a network with so many channels at its ends."""
    levels, words = range(len(model.mults)), model.words
    return Facts(
        widths=tuple(model.width * mult for mult in model.mults),
        num_blocks=model.num_blocks,
        attention=tuple(level for level in levels if level in model.attention_levels),
        embedding=(model.embedding_width or 4 * model.width) // 4,
        scale_shift=model.scale_shift,
        in_blocks=model.resample == "block" and len(model.mults) > 1,
        inputs=inputs,
        outputs=outputs,
        classes=model.num_classes + model.null_class if model.num_classes else 0,
        text=()
        if words is None
        else (
            words.vocabulary,
            words.length,
            words.tower.width,
            words.tower.layers,
        ),
    )


def difference(there: Facts, wanted: Facts) -> str:
    """What of a file is not as wanted, in words; "" if all is."""
    if there.outputs != wanted.outputs:
        said, asked = (OUTPUTS.get(n, "predicts") for n in (there.outputs, wanted.outputs))
        return (
            f"{said} ({there.outputs} channels), and the config's {asked} "
            f"({wanted.outputs} channels)"
        )
    if there.inputs != wanted.inputs:
        said, asked = (INPUTS.get(n, f"takes {n} channels") for n in (there.inputs, wanted.inputs))
        return f"{said}, and the config's {asked}"
    if there.classes != wanted.classes:
        said, asked = (f"knows {n} classes" if n else "knows no classes" for n in
                       (there.classes, wanted.classes))  # fmt: skip
        return f"{said}, and the config's {asked}"
    if bool(there.text) != bool(wanted.text):
        said, asked = ("is told a text" if n else "is told no text" for n in
                       (there.text, wanted.text))  # fmt: skip
        return f"{said}, and the config's {asked}"
    if there.text[:1] != wanted.text[:1]:
        said, asked = (f"{one.text[0]:,}" for one in (there, wanted))
        return f"knows {said} token ids, and the config's vocabulary has {asked}"
    if there.widths != wanted.widths:
        said, asked = (" ".join(map(str, one)) for one in (there.widths, wanted.widths))
        return f"is of another size: its levels have {said} channels, the config's {asked}"
    for name, one, other in zip(Facts._fields, there, wanted, strict=True):
        if one != other:
            return f"is another network: {name} is {one}, and the config's is {other}"
    return ""


def params_of(model: UNet, shapes: PyTree, stored: Mapping[str, Tensor], where: Path) -> Params:
    """The parameters of a network, whose tree of shapes is given, from tensors that fit it.

    Raises:
      ValueError: a tensor is missing, has another shape, or is none of this network's; one line.
    """
    params, left = matched(shapes, sources(model), stored, where, "this U-Net")
    if left:
        raise ValueError(f"{where}: {min(left)} is not of this U-Net, and {len(left)} in all")
    return params


def sources(model: UNet) -> SourceOf:
    """Where each parameter lies in such a file."""
    shape = Shape(len(model.mults), model.num_blocks, tuple(model.attention_levels))
    return lambda ours: source_of("openai", ours, shape)
