"""Stand-ins for what is dear in a command, such as loading, sampling and training.

Each notes what it is given. `of_COMMAND(stand, cascade)` puts those of a command in place.
"""

import dataclasses
import hashlib
import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from tests.encoders.clip import small

GREY = np.full((16, 16, 3), 128, np.uint8)


class Stand:
    """Puts stand-ins in the place of what is dear; each notes what it is given."""

    def __init__(self, monkeypatch):
        self._patch, self.noted = monkeypatch, []

    def put(self, place, name, answer=None, gives=None):
        """`place.name(...)` notes its arguments and returns `answer`, or gives(*its arguments)."""

        def noting(*args, **kwargs):
            kept = {k: v for k, v in kwargs.items() if not callable(v)}
            self.noted.append((name, _said(args), _said(kept)))
            return answer if gives is None else gives(*args, **kwargs)

        self._patch.setattr(place, name, noting)


def _said(value):
    """As text that two runs of a test share."""
    if value is os.environ or callable(value):
        return type(value).__name__
    if isinstance(value, dict):
        return {k: _said(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_said(one) for one in value]
    if isinstance(value, np.ndarray):
        return hashlib.sha256(value.tobytes()).hexdigest()
    if hasattr(value, "stages") and hasattr(value, "encoder"):  # a cascade: how it is sampled
        return [_said(one.settings) for one in value.stages] if hasattr(
            next(iter(value.stages), None), "settings"
        ) else repr(value)  # fmt: skip
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return [type(value).__name__, *(_said(getattr(value, f.name)) for f in fields)]
    return re.sub("0x[0-9a-f]+", "", str(value))


def of_main(stand, cascade):
    from diffjax import main
    from diffjax.devices import cluster, processes

    stand.put(main, "run", 0)
    stand.put(main, "dry_run", 0)
    stand.put(main, "compile_only", 0)
    stand.put(
        cluster,
        "find_cluster",
        gives=lambda *args, num_processes=None, **more: "cluster" if num_processes else None,
    )  # fmt: skip
    stand.put(processes, "initialize")
    stand.put(processes, "end_if_failed", gives=lambda code: code)


def of_loading(stand, cascade):
    from diffjax.build.guides import guiding
    from diffjax.build.stages import loading, loras, places
    from diffjax.devices import mesh

    for place in (loading, places):
        stand.put(place, "stage_dirs", [Path("a"), Path("b")])
    stand.put(places, "is_prior", False)
    stand.put(loading, "load", cascade)
    stand.put(loading, "load_like", cascade)
    stand.put(guiding, "guided", gives=lambda stages, guides, verify: stages)
    stand.put(loras, "read", [])
    stand.put(loras, "merged", gives=lambda stages, given, like=None: stages)
    stand.put(mesh, "keep_compilations")


def of_sample(stand, cascade):
    from diffjax.build.guides import classifiers, clips, guiding
    from diffjax.build.others import stable_diffusion
    from diffjax.build.stages import decoders
    from diffjax.generation import best, rows, watch
    from diffjax.generation.chain import Cascade

    stand.put(stable_diffusion, "check_place")
    stand.put(Cascade, "at_size", gives=lambda stages, size_px: stages)
    stand.put(clips, "load", small.fake())
    stand.put(clips, "named_by", "the config's")
    stand.put(clips, "guided", gives=lambda stages, clip: stages)
    stand.put(classifiers, "named_by", [])
    stand.put(classifiers, "needed", gives=lambda stages, asked: stages)
    stand.put(best, "scorer", gives=lambda clip: lambda prompt, picture: 0.5)
    stand.put(guiding, "guided", gives=lambda stages, guides, verify: stages)
    of_loading(stand, cascade)
    stand.put(decoders, "told", gives=lambda stages, dirs, vector, like: stages)
    stand.put(rows, "make", gives=lambda stages, todo: iter([[GREY[:8, :8], GREY]] * len(todo)))
    stand.put(watch, "frames", [GREY, GREY])


def of_edit(stand, cascade):
    from diffjax.build.stages import decoders
    from diffjax.editing import by_vector, interpolate, request, ways

    of_loading(stand, cascade)
    stand.put(decoders, "clip_of", small.fake())
    stand.put(by_vector, "check_decoder")
    for place, name in (
        (by_vector, "write_variations"),
        (by_vector, "write_diff"),
        (ways, "write_ways"),
        (request, "write_redrawn"),
        (request, "write_upscaled"),
        (interpolate, "write_film"),
    ):
        stand.put(place, name, Path("made"))


def of_embed(stand, cascade):
    from diffjax import embed
    from diffjax.data import caption_files, captions
    from diffjax.devices import processes
    from diffjax.encoders.cache import cache

    some = captions.Captions(1, lambda: iter([("a dog",)]))
    stand.put(embed, "load_encoder", "encoder")
    stand.put(captions, "from_data_set", some)
    stand.put(caption_files, "from_files", some)
    stand.put(embed, "find_cluster")
    stand.put(processes, "initialize")
    stand.put(processes, "wait_for_all")
    stand.put(embed, "Lines", lambda done, encoded: None)
    stand.put(cache, "extend", 1)
    stand.put(cache, "open_cache", type("Opened", (list,), {"header": "h"})())


def of_ema(stand, cascade):
    from diffjax import ema

    stand.put(ema, "snapshot_table", "table")
    stand.put(ema, "reconstruct", (Path("made"), SimpleNamespace(error=0.0)))


def of_evaluate(stand, cascade):
    from diffjax.build.reports import matching, report
    from diffjax.build.stages import places, priors
    from diffjax.devices import mesh

    stand.put(places, "stage_dirs", gives=lambda *args, **more: [Path("a")])
    stand.put(matching, "only_clip", False)
    stand.put(priors, "only_prior", False)
    stand.put(report, "load", "loaded")
    stand.put(report, "report", {"stages": []})
    stand.put(report, "swept", [{"sweep": {"axes": [], "rows": []}}])
    stand.put(mesh, "keep_compilations")


def of_judge(stand, cascade):
    from diffjax.generation import rows

    of_loading(stand, cascade)
    stand.put(rows, "make", gives=lambda stages, todo: iter([[GREY[:8, :8], GREY]] * len(todo)))


def of_lora(stand, cascade):
    from diffjax.build.stages import loras
    from diffjax.generation import rows

    of_loading(stand, cascade)
    stand.put(loras, "export", "a line")
    stand.put(loras, "read", ["a file"])
    stand.put(loras, "described", ["lines"])
    stand.put(rows, "make", gives=lambda stages, todo: iter([[GREY[:8, :8]]] * len(todo)))


def of_doctor(stand, cascade):
    from diffjax import doctor

    stand.put(doctor, "look", gives=lambda *args: iter(()))


def of_serving(stand, cascade):
    from diffjax import serving

    of_loading(stand, cascade)
    stand.put(serving, "save", gives=lambda out, *more: out.mkdir(exist_ok=True))


def of_app(stand, cascade):
    from diffjax.app import __main__ as app
    from diffjax.app import page, programs, server
    from diffjax.build.guides import clips
    from diffjax.generation import best

    of_loading(stand, cascade)
    stand.put(clips, "load", small.fake())
    stand.put(best, "scorer", gives=lambda clip: lambda prompt, picture: 0.5)
    stand.put(app.importlib.util, "find_spec", True)  # Gradio, which is not asked for anything
    stand.put(app, "check_free")
    stand.put(app, "guided", gives=lambda cascade, dirs, guide_by: cascade)
    stand.put(programs, "warm_up")
    stand.put(programs, "keep_no_more_programs")
    stand.put(app.signals, "on_signals", gives=lambda receive: receive())  # it ends at once
    stand.put(page, "build", "page")
    stand.put(server, "own_environment")
    stand.put(
        server, "launch",
        gives=lambda page, room, host, port, auth, origins, followers: stand.noted.append(
            (host, port, auth, sorted(origins.behind), origins.addresses)
        ),
    )  # fmt: skip


def of_checkpoint(stand, cascade):
    """Nothing is dear: the checkpoints are tiny."""


def of_data(stand, cascade):
    from PIL import Image

    from diffjax.data import __main__ as data
    from diffjax.data.report import Report
    from diffjax.data.sources.fake import Shapes

    found = Report(
        source="shapes", total=1, records=1, sizes=((8, 8),), formats={"PNG": 1},
        captions=(("a red circle on white",),), labels={}, classes=(), duplicates=(), broken=(),
    )  # fmt: skip
    stand.put(data, "open_source", Shapes(3, 8))
    stand.put(data, "report", found)
    stand.put(data, "prepare", {"train": []})
    stand.put(data, "sheet_of", Image.fromarray(GREY))
    stand.put(data, "_tokens_of", len)
    stand.put(data, "_embed", Path("embeddings"))
