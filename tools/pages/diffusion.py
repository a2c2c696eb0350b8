"""Writes docs/diffusion.md from the docstrings of diffjax.diffusion and the bench of the samplers.

    python -m tools.pages.diffusion

The page shows the first paragraph of a docstring, which is the equation, and all works that the
docstring cites. A test checks that the page is up to date.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ROOT / "diffjax/diffusion"
PAGE = ROOT / "docs/diffusion.md"
SECTIONS = {
    "The process": ("process", "schedule", "table", "made"),
    "Predictions and losses": (
        "predict", "training/loss", "training/objectives", "training/terms", "training/weighting",
        "training/times", "training/offset", "training/variational", "training/self_condition",
        "training/uncertainty", "training/augment", "training/distillation",
    ),
    "Likelihood": tuple(f"likelihood/{name}" for name in ("bound", "flow", "chain", "gaussian")),
    "Sampling": tuple(
        f"sampling/{name}"
        for name in ("sampler", "spacing", "step", "ancestral", "solver", "pseudo")
    ),
    "Guidance and editing": tuple(
        f"sampling/{name}" for name in ("guidance", "threshold", "inpaint", "tiles")
    ),
}  # fmt: skip
IN_BRACKETS = re.compile(r"\(([^()]*(?:\b(?:19|20)\d\d[a-z]?\b|Imagen)[^()]*)\)")
IN_TEXT = re.compile(
    r"[A-Z]\w+(?: & [A-Z]\w+| et al\.)? (?:19|20)\d\d[a-z]?"
    r"(?:, (?:app|sec|eq|alg|algorithm|table)\.? [\w.]*\w(?: (?:and|to) \d+)?)*"
)

INTRODUCTION = """\
# The diffusion core, function by function

Everything is said in log SNR, `logsnr = log(alpha^2 / sigma^2)`, with `x_t = alpha x_0 + sigma
eps` and `alpha^2 + sigma^2 = 1`. A schedule is a decreasing function from u in [0, 1], clean to
noise, to logsnr. A network predicts one of the kinds of `predict`; a denoiser returns x_0_hat; a
sampler is a step rule scanned down a ladder of log SNRs, the last of which may be +inf, the clean
image. l is short for logsnr and h for half a step in it; a step goes from the level t to s < t.

Data are [b *shape]: vectors [b d], coordinates [b n 3], sequences [b t c], pictures [b h w c].
Tiles alone are of pictures. What this page names can be imported from its package too, as in `from
diffjax.diffusion.sampling import sample`; `inpaint` cannot, since its module has that name.

Tests compare each function with a closed form (exact denoisers of Gaussians and of mixtures, whose
density, flow and conditionals are known), and the samplers, tables and thresholds with diffusers
and k-diffusion, rung by rung, on the same noise and the same random network
(`tests/diffusion/test_peers.py`).

Beside schedules, predictions, weightings, times and samplers, a config or a flag chooses:

| key or flag | what it chooses |
|---|---|
| `diffusion.objective` = `hybrid`, `vlb` | a learned variance, at `num_levels` levels |
| `diffusion.times` = `importance` | levels in proportion to the losses seen at them |
| `diffusion.times` = `logit_normal` | levels of a flow, with `times_mean` and `times_std` |
| `diffusion.offset_noise` = 0.1 | noise on whole channels |
| `diffusion.zero_snr` | the last level holds no signal: sampling starts from noise alone |
| `diffusion.over` = `logsnr` | levels count by their width in log SNR |
| `diffusion.self_condition` = 0.5 | how often the network sees its own last guess |
| `diffusion.uncertainty` = 128 | features of a learned uncertainty by level |
| `diffusion.learned_schedule` = 1024 | hidden units of a learned monotone schedule |
| `diffusion.precondition`, with `predict` = `edm` | EDM's preconditioning |
| `classes.num`, `embedding.of`, `mask.drop` | condition: a class, a vector, a picture with a hole |
| `sample.sampler` = `ddpm_learned` | draws with the learned variance, in a config that learns one |
| `--class` | the class that is drawn |
| `--and "PROMPT:SHARE"` | a picture composed of several prompts |
| `--guide-by PLACE@STEP` | autoguidance by a weaker version of the model |
| `--guidance-rescale`, `--guidance-from`, `--guidance-to` | guidance's rescale and interval |

This page is written from the docstrings by `python -m tools.pages.diffusion`.
"""

SAMPLERS = """\
## How good each sampler is for its evaluations

A mixture of three Gaussians in the plane with its exact denoiser, on the Karras spacing from sigma
80 to 0.002, by `python -m benchmarks.samplers`. *Path*: the median distance from where the exact
flow takes the same noise. *Draws*: the sliced 2-Wasserstein distance of 16,384 draws from exact
ones; the last row is what exact draws have among themselves. The order is that of the error as the
steps shrink, measured in `tests/diffusion/sampling/test_solver.py`. Heun in sigma needs more than
16 evaluations on so long a ladder: its second slope is taken where the first, over-long step has
landed.

{table}
![error over evaluations](samplers.png)

A Swiss roll learned by a small network and drawn by every sampler with 40 evaluations; blue, the
way of 30 points (`examples/swiss_roll.py`):

![Swiss roll](swiss_roll.png)
"""


def page() -> str:
    """The whole page in Markdown."""
    parts = [INTRODUCTION]
    for title, modules in SECTIONS.items():
        parts += [f"## {title}\n", *(module_table(name) for name in modules)]
    table = (ROOT / "docs/samplers.md").read_text()
    return "\n".join([*parts, SAMPLERS.format(table=table)])


def module_table(name: str) -> str:
    """A module's first line and the table of its public functions and types."""
    tree = ast.parse((CODE / f"{name}.py").read_text())
    head = (ast.get_docstring(tree) or "").split("\n\n")[0]
    rows = [
        row(node)
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    table = ["", "| | | source |", "|---|---|---|", *rows] if rows else []
    return "\n".join([f"### `{name}`", "", one_line(head), *table]) + "\n"


def row(node: ast.FunctionDef | ast.ClassDef) -> str:
    """| `name(arguments)` | first paragraph | sources |."""
    text = one_line(ast.get_docstring(node) or "")
    first = one_line((ast.get_docstring(node) or "").split("\n\n")[0])
    sources = IN_BRACKETS.findall(text)
    rest = IN_BRACKETS.sub("", text)
    sources = list(dict.fromkeys([*sources, *IN_TEXT.findall(rest)]))
    for source in sources:
        first = re.sub(r"\s*" + re.escape(f"({source})"), "", first)
    call = node.name
    if isinstance(node, ast.FunctionDef):
        names = [a.arg for a in (*node.args.args, *node.args.kwonlyargs)]
        call += f"({', '.join(names)})"
    return f"| `{call}` | {escaped(first)} | {escaped('; '.join(sources))} |"


def one_line(text: str) -> str:
    """A paragraph with single spaces."""
    return re.sub(r"\s+", " ", text).strip()


def escaped(text: str) -> str:
    """The text with its bars and stars escaped, for a cell of a Markdown table."""
    return re.sub(r"([|*])", r"\\\1", text)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE.relative_to(ROOT))
