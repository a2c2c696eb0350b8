"""python -m diffjax.sample --workdir runs/cascade --prompt "an openmoji drawing of a red apple"

    python -m diffjax.sample --workdir runs/digits --class 7 --seeds 0-3
    python -m diffjax.sample --checkpoint stable-diffusion-v1-5 "a photo of a red apple"
    python -m diffjax.sample --checkpoint 64x64_diffusion.pt --class 207

Makes pictures with trained stages, from prompts or classes, or from seeds alone if the stages have
no such condition. Writes a PNG for each picture and stage, and a sheet of all with their prompts.
The metadata of each PNG say what it was made of, and --like PICTURE.png makes it again. Pictures
that are there already are not made again, so an interrupted run can be continued. Exit codes: 0
done, 2 bad input, 5 storage, 143 terminated.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from diffjax.core import command
from diffjax.core.errors import ConfigError, require
from diffjax.generation import watch
from diffjax.generation.recipe import MAX_ALSO


def parser() -> argparse.ArgumentParser:
    """The flags."""
    from diffjax.generation import jobs

    flags = command.parser("sample", __doc__)
    command.add_stages(flags, checkpoint=True)
    flags.add_argument(
        "words", nargs="*", metavar="PROMPT", help="prompts, as --prompt; in quotation marks"
    )
    flags.add_argument("--prompt", action="append", default=[], help="may be given many times")
    flags.add_argument("--prompts", type=command.path, help="a file with one prompt a line")
    flags.add_argument(
        "--class",
        dest="classes",
        action="append",
        default=[],
        help="a class by name or number, such as 7, seven, 0-9 or none; may be given many times",
    )
    flags.add_argument(
        "--as-written",
        action="store_true",
        help="tell prompts as they are; else one that names no style of the training data gets one",
    )
    flags.add_argument("--negative", help="a prompt that guidance moves away from")
    flags.add_argument(
        "--and",
        dest="also",
        action="append",
        default=[],
        metavar="PROMPT[:SHARE]",
        help="a further prompt of every picture; SHARE is its weight beside the first prompt, 1 by "
        "default, below 0 to move away from it; may be given many times",
    )
    flags.add_argument(
        "--guide-by",
        metavar="PLACE[@STEP][@AVERAGE]",
        help="autoguidance: guidance moves away from the guess of this weaker version of the "
        "model, such as runs/a@1000 or runs/a@decay_0.9; or classifier guidance: along the "
        "gradient of this classifier of noised pictures, by --classifier-guidance; or several, "
        "with commas",
    )
    flags.add_argument("--seeds", help="as 0, 3,5 or 0-7: pictures per prompt; 0 by default")
    flags.add_argument(
        "--like",
        type=command.path,
        help="make this picture again; it must be of this command. Other flags change its settings",
    )
    flags.add_argument(
        "--anyway", action="store_true", help="--like even if the picture's parameters were others"
    )
    flags.add_argument(
        "--best-of",
        type=int,
        default=1,
        metavar="N",
        help="make N candidates of each picture and keep the one that --clip says fits its prompt "
        "best",
    )
    flags.add_argument(
        "--clip",
        metavar="WHERE",
        help="the CLIP that chooses and guides: the workdir or export of one, a folder, file or "
        "name of others' ones, or shipped; else that of the config",
    )
    flags.add_argument(
        "--vector",
        metavar="WHAT",
        help="what tells a decoder the vector of its picture: prior, text (that of the prompt "
        "itself), none, or a picture's file; the prior by default (docs/unclip.md)",
    )
    flags.add_argument(
        "--size", type=int, metavar="PX", help="the side of the pictures, of a stage of latents"
    )
    jobs.add_settings(flags, critics=True)
    flags.add_argument(
        "--out", type=command.path, default=Path("out"), help="folder for the pictures"
    )
    flags.add_argument(
        "--overwrite", action="store_true", help="replace other files of the same names"
    )
    flags.add_argument(
        "--no-metadata", action="store_true", help="do not write into PNGs what they were made of"
    )
    flags.add_argument(
        "--film",
        action="store_true",
        help="also write a film of the denoising, as WebP and GIF; takes twice as long",
    )
    command.add_parameters(flags)
    command.add_loras(flags)
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the flags, samples and writes the pictures; returns the exit code."""
    return command.run_command(parser(), lambda flags: print(run(flags)), arguments)


def run(flags: argparse.Namespace) -> Path:
    """Makes and writes the pictures that are not there yet; returns the path of the sheet."""
    from diffjax.build.guides import classifiers
    from diffjax.build.stages import decoders, loading, places, students
    from diffjax.devices import mesh
    from diffjax.generation import folder, jobs, making
    from diffjax.generation.wanted import check_guidance, jobs_of
    from diffjax.tasks.settings import SampleSettings

    like = read_like(flags.like) if flags.like else None
    wanted = asked(flags, like)
    dirs = [flags.checkpoint] if flags.checkpoint else None
    dirs = dirs or students.instead(
        loading.stage_dirs(flags.workdir, flags.stages),
        flags,
        [origin.step for origin, _ in like.stages] if like else None,
    )
    # this finds the mistakes that do not depend on the stages, before the stages are loaded
    pictured = [place for place in dirs if not places.is_prior(place)]
    count = len(like.stages) if like else sum(map(places.num_stages, dirs))
    jobs.settings_of(flags, [SampleSettings()] * count)
    mesh.keep_compilations()
    stages = load(flags, dirs, like)
    stages = decoders.told(stages, dirs, flags.vector, like)
    if like and not flags.anyway:
        decoders.check_like(like, stages)
    stages = stages if flags.size is None else stages.at_size(flags.size)
    settings = jobs.settings_of(flags, [stage.settings for stage in stages.stages])
    todo = jobs_of(wanted, stages)
    check_guidance(wanted, settings, [stage.task.guide for stage in stages.stages])
    stages = stages.with_settings(settings)
    stages = classifiers.needed(stages, asked=flags.guide_by is not None)
    stages, best = criticised(flags, pictured, like, stages, todo)
    if flags.film:
        watch.check_memory(stages)
    slots = folder.plan_files(
        flags.out,
        todo,
        stages,
        films=flags.film,
        metadata=not flags.no_metadata,
        overwrite=flags.overwrite,
        best=best,
    )
    folder.delete_half_written(flags.out)
    slots = making.write_missing(slots, stages, best)
    if like:
        print(folder.compare(flags.like, like, slots, stages))
    return folder.write_sheet(flags.out, slots)


def asked(flags: argparse.Namespace, like):
    """The jobs that the flags describe; what they leave open is taken from the recipe `like`."""
    from diffjax.build.stages import decoders
    from diffjax.generation import jobs
    from diffjax.generation.wanted import Wanted, parse_also

    prompts = jobs.read_prompts([*flags.words, *flags.prompt], flags.prompts)
    seeds = jobs.parse_seeds(flags.seeds) if flags.seeds is not None else [0]
    negative = jobs.check_prompt("--negative", flags.negative) if flags.negative else None
    also = tuple(map(parse_also, flags.also))
    require(len(also) <= MAX_ALSO, "--and", len(also), f"at most {MAX_ALSO}")
    if like:
        also = also or like.also
        prompts = prompts or ([like.prompt] if like.encoder else [])
        seeds = seeds if flags.seeds is not None else [like.seed]
        negative = like.negative if flags.negative is None else negative
    if flags.vector and not prompts and flags.vector not in decoders.WORDS:
        prompts = [""]  # the picture says it all
    label = like.label if like else None
    return Wanted(prompts, seeds, negative, flags.classes, label, also, flags.as_written)


def criticised(flags: argparse.Namespace, dirs: Sequence[Path], like, stages, todo):
    """(the stages, guided by a CLIP if their settings say so; what chooses among candidates)."""
    from diffjax.build.guides import clips
    from diffjax.generation import best

    guides = any(stage.settings.clip_guidance for stage in stages.stages)
    clips.check_flags(flags.best_of, flags.clip, guides, todo, stages)
    if flags.best_of == 1 and not guides:
        return stages, None
    clip = clips.load(flags.clip or clips.named_by(dirs), verify=flags.verify)
    if guides:
        if like and not flags.anyway:
            clips.check_like(like, clip)
        stages = clips.guided(stages, clip)
    if flags.best_of == 1:
        return stages, None
    return stages, best.Best(flags.best_of, clip.fingerprint, best.scorer(clip))


def read_like(path: Path):
    """The recipe in a picture's metadata.

    Raises:
      ConfigError: the picture has none, or one that this program cannot have written.
    """
    from diffjax.generation import parse

    try:
        return parse.read(path)
    except ValueError as error:
        raise ConfigError("--like", str(path), str(error).removeprefix(f"{path}: ")) from None


def load(flags: argparse.Namespace, dirs: Sequence[Path], like):
    """The stages of the workdirs, or with `like` those of them that made that picture."""
    from diffjax.build.guides import classifiers, clips, guiding
    from diffjax.build.others import ancestors, stable_diffusion
    from diffjax.build.stages import again, loading, loras, places

    if flags.checkpoint and not ancestors.is_one(flags.checkpoint):
        stable_diffusion.check_place(flags.checkpoint)
    named = guiding.parse(flags.guide_by) if flags.guide_by is not None else []
    by_classifiers, guides = classifiers.split(named)
    scaled = flags.classifier_guidance is not None
    given = [loras.parse(text) for text in flags.lora]
    loras.read(given)  # a wrong file is told before the stages are loaded
    if like is None:
        stages = loras.merged(loading.load(dirs, flags.ema, flags.verify), given)
        dirs = [place for place in dirs if not places.is_prior(place)]
        stages = guiding.guided(clips.configured(stages), guides, flags.verify)
        by_classifiers = by_classifiers or classifiers.named_by(stages, dirs, scaled)
        return classifiers.guided(stages, by_classifiers, flags.verify)
    stages = again.load_like(like, dirs, flags.ema, flags.verify, flags.anyway)
    dirs = [place for place in dirs if not places.is_prior(place)]
    stages = loras.merged(stages, given, like)
    if not flags.anyway:
        loras.check_like(like, stages)
    guides = guides or guiding.of_recipe(like, dirs)
    stages = guiding.guided(stages, guides, flags.verify)
    if not flags.anyway and flags.guide_by is None:
        guiding.check_like(like, stages, lambda origin: origin.guide)
    by_classifiers = by_classifiers or classifiers.named_by(stages, dirs, scaled)
    stages = classifiers.guided(stages, by_classifiers, flags.verify)
    if not flags.anyway:
        guiding.check_like(like, stages, lambda origin: origin.classifier)
    return stages


if __name__ == "__main__":
    command.start(main)
