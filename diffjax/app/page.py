"""The page itself, in Gradio: its controls, and what each of them asks for.

Gradio is an optional dependency, so it is imported inside the function that needs it. One request
is drawn at a time, whoever sent it. Only a visitor's own session knows what the visitor made, and
the files have names that nobody can guess.
"""

import functools
import html
from collections.abc import Callable, Iterator

from diffjax.app import answers, controls, tabs
from diffjax.app.answers import Studio, View
from diffjax.app.values import Refused

MAX_WAITING = 16
KEPT_SECONDS = 4 * 3600
SWEEP_SECONDS = 600


def build(studio: Studio):
    """The page of a studio, a gr.Blocks, which keeps its files in the folder of its room.

    The controls of what only a decoder of vectors can do are there if it has a CLIP for them.
    """
    import gradio as gr

    def refusal(line: str) -> Exception:
        # the message of a gr.Error is shown as HTML
        return gr.Error(html.escape(line, quote=False), title="Not drawn", print_exception=False)

    def shown(views: Iterator[View]) -> Iterator[dict]:
        try:
            for view in views:
                yield updates(view)
        except Refused as refused:
            raise refusal(str(refused)) from None

    def updates(view: View) -> dict:
        found: dict = {}
        if view.told is not None:
            found[told] = view.told
        if view.seed is not None:
            found[seed] = view.seed
        for gallery, stage in zip(galleries, view.stages or (), strict=False):
            found[gallery] = gr.Gallery(list(stage), columns=view.columns)
        if view.kept is not None:
            shelf = gr.Gallery(list(answers.shelf(view.kept)), visible=True)
            found |= {made: view.kept, mine: shelf}
        return found

    def asked(answer: Callable[..., Iterator[View]]) -> Callable[..., Iterator[dict]]:
        """The function of an event: of answer(studio, session, values of the controls)."""

        def event(request: object, *values: object) -> Iterator[dict]:
            yield from shown(answer(studio, session_of(request), values))

        event.__annotations__["request"] = gr.Request  # Gradio gives it to an argument of this type
        return event

    def take_last(kept):
        try:
            return answers.last_picture(kept)
        except Refused as refused:
            raise refusal(str(refused)) from None

    told_of = studio.told
    sizes = [stage.task.size_px for stage in studio.trained.stages]
    blocks = gr.Blocks(
        title="diffjax",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(SWEEP_SECONDS, KEPT_SECONDS),
    )
    with blocks:
        made = gr.State([], time_to_live=KEPT_SECONDS, delete_callback=answers.forget)
        gr.Markdown(
            f"# diffjax\nDraws {controls.subject_of(told_of)}, in {controls.stages_of(sizes)}.",
            elem_id="head",
        )
        with gr.Row():
            with gr.Column(scale=5, min_width=300):
                with gr.Tabs():
                    prompt, go = tabs.draw_tab(gr, told_of)
                    editor, take, instead, again = tabs.paint_tab(gr, told_of, sizes[-1])
                    edits = tabs.edit_tabs(gr) if studio.clip else ()
                boxes = controls.settings_part(gr, told_of, studio.first, studio.score is not None)
            with gr.Column(scale=6, min_width=300):
                told = gr.Markdown("What is drawn appears here.", elem_id="told")
                with gr.Row(equal_height=False):
                    galleries = [controls.stage_gallery(gr, i, sizes) for i in range(len(sizes))]
        mine = controls.shelf_gallery(gr)
        seed = boxes["seed"]
        one_at_a_time = functools.partial(
            gr.on,
            outputs=[*galleries, told, made, mine, seed],
            preprocess=False,
            concurrency_limit=1,
            concurrency_id="drawing",
            show_progress="minimal",
            show_progress_on=galleries,
        )
        sent = [box.submit if told_of.text else None for box in (prompt, instead)]
        draws, paints = ([button.click, *filter(None, [by_key])]
                         for button, by_key in zip((go, again), sent, strict=True))  # fmt: skip
        settings = [*map(boxes.__getitem__, controls.WISH), made]
        one_at_a_time(draws, asked(answers.draw), [prompt, *settings], api_name="draw")
        one_at_a_time(paints, asked(answers.paint), [editor, instead, *settings], api_name="paint")
        take.click(take_last, made, editor, api_visibility="private")
        for tab in edits:
            values = [*tab.own, *map(boxes.__getitem__, tab.settings), made]
            answer = functools.partial(answers.edit, kind=tab.kind)
            one_at_a_time([tab.go.click], asked(answer), values, api_name=tab.kind)
            name = f"take_for_{tab.kind}"
            tab.take.click(take_last, made, tab.own[0], api_name=name, api_visibility="private")
    return blocks.queue(max_size=MAX_WAITING, default_concurrency_limit=1, api_open=False)


def session_of(request: object) -> str | None:
    """The session of a request of Gradio's; None if there is none."""
    session = getattr(request, "session_hash", None)
    return session if isinstance(session, str) else None
