"""The controls of the page, in Gradio: boxes, sliders, settings and galleries.

Gradio is an optional dependency, so each function is handed the module.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Protocol, runtime_checkable

from diffjax.app import edits, limits
from diffjax.app.limits import Told
from diffjax.generation import recipe
from diffjax.generation.chain import Cascade
from diffjax.generation.jobs import name_of

SOURCES = ("upload", "clipboard")
# The settings that a wish to draw has, in the order of `limits.wish`, and then that of the best.
WISH = ("negative", "new_seed", "seed", "guidance", "steps", "count", "scale", "best")


@runtime_checkable
class Control(Protocol):
    """What the page uses of a component of Gradio's."""

    elem_id: str | None


@runtime_checkable
class Button(Control, Protocol):
    """A button."""

    def click(self, *arguments: object, **named: object) -> object:
        """Says what a click does."""


def subject_of(told: Told) -> str:
    """What the page draws, in words."""
    return "what you write" if told.text else "what you choose" if told.classes else "pictures"


def stages_of(sizes: Sequence[int]) -> str:
    """How many stages there are, and their sizes, in words."""
    many = "one stage" if len(sizes) == 1 else f"{len(sizes)} stages"
    return f"{many}: {' px, then '.join(map(str, sizes))} px"


def settings_part(gr: ModuleType, told: Told, trained: Cascade, scored: bool) -> dict[str, Control]:
    """The settings by name. scored: whether a CLIP says how well pictures fit."""
    own, px = trained.stages[0].settings, trained.stages[0].task.size_px
    scale_of = max(stage.settings.classifier_guidance for stage in trained.stages)
    with gr.Accordion("Settings", open=False):
        count = gr.Slider(
            1,
            limits.MAX_PICTURES,
            1,
            step=1,
            label="Pictures" + " of each class" * bool(told.classes),
            elem_id="count",
        )
        best = gr.Checkbox(
            False, label="Keep only the one that fits best", visible=scored, elem_id="best"
        )
        negative = prompt_box(
            gr, "Negative prompt: what to keep away from", "", "negative", told.text
        )
        new_seed = gr.Checkbox(True, label="A new seed each time", elem_id="new_seed")
        seed = gr.Number(0, precision=0, label="Seed", elem_id="seed")
        guidance = gr.Slider(
            0,
            limits.MAX_GUIDANCE,
            own.guidance_weight,
            step=limits.GUIDANCE_STEP,
            label=f"Guidance, of the {px} px stage",
            info="1 is off; more keeps closer to what is asked for",
            visible=told.weighed,
        )
        scale = gr.Slider(
            0,
            limits.MAX_GUIDANCE,
            scale_of,
            step=limits.GUIDANCE_STEP,
            label="Guidance by the classifier",
            info="0 is off; more keeps closer to the class",
            visible=told.scaled,
            elem_id="scale",
        )
        steps = gr.Slider(
            1,
            told.steps,
            own.num_steps,
            step=1,
            label=f"Steps, of the {px} px stage",
            info="other values than at first are compiled once, which takes a while",
        )
    values = (negative, new_seed, seed, guidance, steps, count, scale, best)
    return dict(zip(WISH, values, strict=True))


def stage_gallery(gr: ModuleType, stage: int, sizes: Sequence[int]):
    """The title and the pictures of a stage; small pictures are enlarged without smoothing."""
    last = stage == len(sizes) - 1
    with gr.Column(scale=2 + stage, min_width=130):
        gr.Markdown(f"{sizes[stage]} px", elem_classes="title")
        return gr.Gallery(
            show_label=False,
            columns=1,
            height="auto",
            fit_columns=False,
            object_fit="contain",
            buttons=["download", "fullscreen"],
            interactive=False,
            elem_id=f"stage{stage}",
            elem_classes=["stage"] if last else ["stage", "small"],
        )


def shelf_gallery(gr: ModuleType):
    """All that the visitor has made."""
    return gr.Gallery(
        label="Yours, until you leave the page",
        columns=5,
        height="auto",
        fit_columns=False,
        object_fit="contain",
        buttons=["download", "fullscreen"],
        interactive=False,
        visible=False,
        elem_id="mine",
    )


def picture_box(gr: ModuleType, label: str, name: str):
    """A place for an uploaded picture."""
    return gr.Image(
        label=label, type="filepath", sources=SOURCES, buttons=[], height=240, elem_id=name
    )


def frames_slider(gr: ModuleType):
    """The number of frames of a film."""
    return gr.Slider(edits.LEAST_FRAMES, edits.MOST_FRAMES, 8, step=1, label="Frames")


def subject_box(gr: ModuleType, told: Told, label: str, placeholder: str, name: str):
    """A prompt box; or a list of the classes, of which a visitor chooses some."""
    if told.text or told.classes is None:
        return prompt_box(gr, label, placeholder, name, told.text)
    known = told.classes
    every = range(known.num + known.null)
    return gr.Dropdown(
        [(name_of(i, known), i) for i in every],
        value=[0],
        multiselect=True,
        max_choices=limits.MAX_OF_CLASSES,
        label=label if label != "Prompt" else "Classes",
        elem_id=name,
    )


def prompt_box(gr: ModuleType, label: str, placeholder: str, name: str, visible: bool = True):
    """A text box for a prompt; the Enter key sends it."""
    return gr.Textbox(
        visible=visible,
        label=label,
        placeholder=placeholder,
        max_length=recipe.MAX_PROMPT_CHARACTERS,
        lines=1,
        max_lines=4,
        elem_id=name,
    )
