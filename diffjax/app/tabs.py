"""The tabs of the page, in Gradio: one for each thing that a visitor can ask for."""

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

from diffjax.app import controls, edits
from diffjax.app.controls import Button, Control
from diffjax.app.limits import Told

EDITOR_PX = 512
BRUSH = 3 / 32  # radius of the brush, as a fraction of the picture's side
TAKE = "Take the last picture"


def draw_tab(gr: ModuleType, told: Told):
    """(what to draw, the button)."""
    with gr.Tab("Draw"):
        prompt = controls.subject_box(
            gr, told, "Prompt", "an openmoji drawing of a woman astronaut", "prompt"
        )
        return prompt, gr.Button("Draw", variant="primary", elem_id="draw")


def paint_tab(gr: ModuleType, told: Told, size_px: int):
    """(the editor, the button that takes a picture, what to draw there, the button).

    size_px: of the pictures.
    """
    with gr.Tab("Draw anew in part"):
        editor = gr.ImageEditor(
            label="Paint over what is to be drawn anew",
            sources=controls.SOURCES,
            transforms=(),
            layers=False,
            brush=gr.Brush(
                default_size=max(1, round(BRUSH * size_px)),
                colors=["#ff00ff"],
                color_mode="fixed",
            ),
            buttons=[],
            height=360,
            canvas_size=(EDITOR_PX, EDITOR_PX),
            elem_id="editor",
        )
        take = gr.Button(TAKE, size="sm", elem_id="take")
        instead = controls.subject_box(gr, told, "What to draw there", "a red apple", "instead")
        return editor, take, instead, gr.Button("Draw anew", variant="primary", elem_id="paint")


class EditTab(NamedTuple):
    """The controls of an edit that only a decoder of vectors can do.

    kind: a method of `edits.Desk`, which takes the values of `own` and then of the `settings`. own:
    the picture first. take: the button that takes the last picture. go: the one that begins.
    """

    kind: str
    own: Sequence[Control]
    settings: Sequence[str]
    take: Button
    go: Button


def edit_tabs(gr: ModuleType) -> list[EditTab]:
    """The tabs of all such edits."""
    usual = ("new_seed", "seed", "steps")
    with gr.Tab("Vary"):
        given = controls.picture_box(gr, "A picture of which to make others", "varied")
        take = gr.Button(TAKE, size="sm")
        eta = gr.Slider(
            0,
            1,
            1,
            step=edits.ETA_STEP,
            label="How much is drawn anew",
            info="1 keeps what the picture shows; 0 gives the picture itself, as the model sees it",
            elem_id="eta",
        )
        go = gr.Button("Vary", variant="primary", elem_id="vary")
        tabs = [EditTab("variations", (given, eta), (*usual, "count"), take, go)]
    with gr.Tab("Between two"):
        with gr.Row():
            ends = [
                controls.picture_box(gr, f"The {nth} picture", nth) for nth in ("first", "second")
            ]
        take, frames = gr.Button(TAKE, size="sm"), controls.frames_slider(gr)
        go = gr.Button("Go from one to the other", variant="primary", elem_id="between")
        tabs.append(EditTab("interpolation", (*ends, frames), usual, take, go))
    with gr.Tab("As a text changes"):
        given = controls.picture_box(gr, "A picture", "changed")
        take = gr.Button(TAKE, size="sm")
        texts = (
            controls.prompt_box(gr, "What it shows", "a red apple", "shows"),
            controls.prompt_box(gr, "What it shall show", "a green apple", "shall"),
        )
        far = gr.Slider(
            edits.THETA_STEP,
            1,
            0.5,
            step=edits.THETA_STEP,
            label="How far",
            info="at 1 nothing but the difference of the texts is left",
            elem_id="theta",
        )
        frames = controls.frames_slider(gr)
        go = gr.Button("Change", variant="primary", elem_id="change")
        tabs.append(EditTab("diff", (given, *texts, far, frames), usual, take, go))
    return tabs
