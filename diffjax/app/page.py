"""The page itself, in Gradio.

Gradio is an optional dependency, so it is imported inside the functions that need it. One request
is drawn at a time, whoever sent it. Only a visitor's own session knows what the visitor made, and
the files have names that nobody can guess. `limits` checks the raw values of each request.
"""

import functools
import html
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from diffjax.app import drawing, limits
from diffjax.app.followers import Followers
from diffjax.app.frames import Frame, Kept, ranked, shown_frames
from diffjax.app.limits import Told
from diffjax.app.room import Room
from diffjax.core.errors import StorageError
from diffjax.generation import parse
from diffjax.generation.best import Score
from diffjax.generation.chain import Cascade
from diffjax.generation.jobs import name_of

MAX_WAITING = 16
KEPT_JOBS = 40
KEPT_SECONDS = 4 * 3600
SWEEP_SECONDS = 600
EDITOR_PX = 512
BRUSH = 3 / 32  # radius of the brush, as a fraction of the picture's side


Request = TypeVar("Request", limits.Wish, limits.Painting, bool)


def build(trained: Cascade, room: Room, followers: Followers, score: Score | None = None):
    """The page of a cascade, a gr.Blocks, which keeps its files in the folder of `room`.

    followers: know who still waits. score: of a prompt and a picture; with it, pictures show their
    scores, the best first.
    """
    import gradio as gr

    folder = room.folder
    programs = drawing.Programs()
    told_of_models = drawing.told_of(trained)
    checked_wish = functools.partial(limits.wish, told=told_of_models)

    def checked(check: Callable[..., Request], *values: object) -> Request:
        try:
            return check(*values)
        except limits.Refused as refused:
            raise refusal(str(refused)) from None

    def refusal(line: str) -> Exception:
        # the message of a gr.Error is shown as HTML
        return gr.Error(html.escape(line, quote=False), title="Not drawn", print_exception=False)

    def shown(
        kept: list[Kept],
        wish: limits.Wish,
        coming: Iterator[Frame],
        only_best: bool,
        session: str | None,
    ) -> Iterator[dict]:
        room.make()
        yield {seed: wish.jobs[0].seed}
        frame = None
        columns = 1 if len(wish.jobs) == 1 else 2
        try:
            for frame in coming:
                check_waits(session)
                stages = frame.stages if score else [[p for p, _ in s] for s in frame.stages]
                pictures = [gr.Gallery(stage, columns=columns) for stage in stages]
                yield {**dict(zip(galleries, pictures, strict=True)), told: frame.told}
        except StorageError:
            raise refusal("There is no room for further pictures.") from None
        new, others = ranked(frame, only_best) if frame else ([], [])
        if score is not None:
            for i, gallery in enumerate(galleries):
                yield {gallery: gr.Gallery([(one.paths[i], one.caption) for one in new])}
            forget(others)
        kept = [*(new if score else reversed(new)), *kept][:KEPT_JOBS]
        whole = [(path, one.caption) for one in kept for path in one.paths[-1:]]
        shelf = gr.Gallery(whole, visible=True)
        yield {made: kept, mine: shelf, told: "Done. Open a picture to download it."}

    def check_waits(session: str | None) -> None:
        if not followers.waits(session):
            raise refusal("You have left.")

    def draw(
        prompt, negative, new_seed, seed, guidance, steps, count, scale, best, kept, request=None
    ):
        session = session_of(request)
        check_waits(session)
        only = checked(limits.switch, "only the best", best)
        wish = checked(
            checked_wish, prompt, negative, new_seed, seed, guidance, steps, count, scale
        )
        programs.use(wish)
        here = drawing.wished(trained, wish)
        said_of = lambda job: drawing.drawn_of(job, here)  # noqa: E731
        coming = drawing.draw(here, wish.jobs)
        frames = shown_frames(here, folder, wish.jobs, coming, said_of, score)
        yield from shown(kept, wish, frames, only, session)

    def paint(
        edited, prompt, negative, new_seed, seed, guidance, steps, count, scale, best, kept,
        request=None,
    ):  # fmt: skip
        session = session_of(request)
        check_waits(session)
        only = checked(limits.switch, "only the best", best)
        wish = checked(
            checked_wish, prompt, negative, new_seed, seed, guidance, steps, count, scale
        )
        painting = checked(limits.painting, edited, folder)
        programs.use(wish)
        here = drawing.wished(trained, wish)
        if not drawing.squared(painting, here.stages[-1].task.size_px)[1].any():
            raise refusal("picture: paint within its middle square")
        said_of = lambda job: drawing.painted_of(job, here, painting)  # noqa: E731
        coming = drawing.paint(here, wish.jobs, painting)
        frames = shown_frames(here, folder, wish.jobs, coming, said_of, score)
        yield from shown(kept, wish, frames, only, session)

    for function in (draw, paint):  # Gradio gives the request to an argument of this type
        function.__annotations__["request"] = gr.Request

    def take_last(kept):
        if not kept:
            raise refusal("There is no picture yet: draw one, or upload one.")
        return kept[0].paths[-1]

    def forget(kept: list[Kept]) -> None:
        drawing.forget([Path(path) for one in kept or () for path in one.paths])

    own = trained.stages[0].settings
    scales = [stage.settings.classifier_guidance for stage in trained.stages]
    sizes = [stage.task.size_px for stage in trained.stages]
    blocks = gr.Blocks(
        title="diffjax",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(SWEEP_SECONDS, KEPT_SECONDS),
    )
    with blocks:
        made = gr.State([], time_to_live=KEPT_SECONDS, delete_callback=forget)
        gr.Markdown(
            f"# diffjax\nDraws {subject_of(told_of_models)}, in {stages_of(sizes)}.",
            elem_id="head",
        )
        with gr.Row():
            with gr.Column(scale=5, min_width=300):
                with gr.Tabs():
                    with gr.Tab("Draw"):
                        prompt = subject_box(
                            gr,
                            told_of_models,
                            "Prompt",
                            "an openmoji drawing of a woman astronaut",
                            "prompt",
                        )
                        go = gr.Button("Draw", variant="primary", elem_id="draw")
                    with gr.Tab("Draw anew in part"):
                        editor = gr.ImageEditor(
                            label="Paint over what is to be drawn anew",
                            sources=("upload", "clipboard"),
                            transforms=(),
                            layers=False,
                            brush=gr.Brush(
                                default_size=max(1, round(BRUSH * sizes[-1])),
                                colors=["#ff00ff"],
                                color_mode="fixed",
                            ),
                            buttons=[],
                            height=360,
                            canvas_size=(EDITOR_PX, EDITOR_PX),
                            elem_id="editor",
                        )
                        take = gr.Button("Take the last picture", size="sm", elem_id="take")
                        instead = subject_box(
                            gr, told_of_models, "What to draw there", "a red apple", "instead"
                        )
                        again = gr.Button("Draw anew", variant="primary", elem_id="paint")
                with gr.Accordion("Settings", open=False):
                    count = gr.Slider(
                        1,
                        limits.MAX_PICTURES,
                        1,
                        step=1,
                        label="Pictures" + " of each class" * bool(told_of_models.classes),
                        elem_id="count",
                    )
                    best = gr.Checkbox(
                        False,
                        label="Keep only the one that fits best",
                        visible=score is not None,
                        elem_id="best",
                    )
                    negative = prompt_box(
                        gr,
                        "Negative prompt: what to keep away from",
                        "",
                        "negative",
                        told_of_models.text,
                    )
                    new_seed = gr.Checkbox(True, label="A new seed each time", elem_id="new_seed")
                    seed = gr.Number(0, precision=0, label="Seed", elem_id="seed")
                    guidance = gr.Slider(
                        0,
                        limits.MAX_GUIDANCE,
                        own.guidance_weight,
                        step=limits.GUIDANCE_STEP,
                        label=f"Guidance, of the {sizes[0]} px stage",
                        info="1 is off; more keeps closer to what is asked for",
                        visible=told_of_models.weighed,
                    )
                    scale = gr.Slider(
                        0,
                        limits.MAX_GUIDANCE,
                        max(scales),
                        step=limits.GUIDANCE_STEP,
                        label="Guidance by the classifier",
                        info="0 is off; more keeps closer to the class",
                        visible=told_of_models.scaled,
                        elem_id="scale",
                    )
                    steps = gr.Slider(
                        1,
                        told_of_models.steps,
                        own.num_steps,
                        step=1,
                        label=f"Steps, of the {sizes[0]} px stage",
                        info="other values than at first are compiled once, which takes a while",
                    )
            with gr.Column(scale=6, min_width=300):
                told = gr.Markdown("What is drawn appears here.", elem_id="told")
                with gr.Row(equal_height=False):
                    galleries = [stage_gallery(gr, i, sizes) for i in range(len(sizes))]
        mine = gr.Gallery(
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
        settings = [negative, new_seed, seed, guidance, steps, count, scale, best, made]
        outputs = [*galleries, told, made, mine, seed]
        one_at_a_time = functools.partial(
            gr.on,
            outputs=outputs,
            preprocess=False,
            concurrency_limit=1,
            concurrency_id="drawing",
            show_progress="minimal",
            show_progress_on=galleries,
        )
        sent = [box.submit if told_of_models.text else None for box in (prompt, instead)]
        draws, paints = ([button.click, *filter(None, [by_key])]
                         for button, by_key in zip((go, again), sent, strict=True))  # fmt: skip
        one_at_a_time(draws, draw, [prompt, *settings], api_name="draw")
        one_at_a_time(paints, paint, [editor, instead, *settings], api_name="paint")
        take.click(take_last, made, editor, api_visibility="private")
    return blocks.queue(max_size=MAX_WAITING, default_concurrency_limit=1, api_open=False)


def session_of(request: object) -> str | None:
    """The session of a request of Gradio's; None if there is none."""
    session = getattr(request, "session_hash", None)
    return session if isinstance(session, str) else None


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


def subject_of(told: Told) -> str:
    """What the page draws, in words."""
    return "what you write" if told.text else "what you choose" if told.classes else "pictures"


def stages_of(sizes: Sequence[int]) -> str:
    """How many stages there are, and their sizes, in words."""
    many = "one stage" if len(sizes) == 1 else f"{len(sizes)} stages"
    return f"{many}: {' px, then '.join(map(str, sizes))} px"


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
        max_length=parse.MAX_PROMPT_CHARACTERS,
        lines=1,
        max_lines=4,
        elem_id=name,
    )
