"""
Repeats the comparison of the paper on the embedded checkpoint: the image side alone, the audio side alone, imprint,
SDS, and the averaging of noise, over pairs of prompts and seeds, judged by CLIP and CLAP. A stopped run goes on.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .common.arguments import (
    Models,
    Samples,
    Scores,
    add_device_arguments,
    add_process_arguments,
    new_parser,
    run,
    values_of,
)
from .common.files import check_own_folder, write_json
from .common.presets import MATCHED, WORLD_PROMPTS
from .common.progress import tell


if TYPE_CHECKING:
    import PIL.Image
    from diffusers import DiffusionPipeline


# Each method's pipeline and arguments of its call.
METHODS = {
    "image": ("ImagesThatSoundPipeline", {"audio_weight": 0.0, "image_guidance_start": 0.0}),
    "audio": ("ImagesThatSoundPipeline", {"audio_weight": 1.0}),
    "imprint": ("ImagesThatSoundImprintPipeline", {}),
    "sds": (
        "ImagesThatSoundSDSPipeline",
        {
            "image_start_step": 60,
            "learning_rate": 2e-3,
            "canvas_kwargs": {"hidden_size": 64, "num_frequencies": 64},
        },
    ),
    "ours": ("ImagesThatSoundPipeline", {}),
}
# The embedded checkpoint has no vocoder: its sounds are Griffin-Lim's already.
SCORES = Scores(scores=["clip", "clap"], clip_model="embedded", clap_model="embedded")


def pairs_of(names: list[str]) -> list[tuple[str, str]]:
    """A picture and a sound for each name of a pair."""
    everything = {f"{p}-{s}": (p, s) for p in WORLD_PROMPTS["picture"] for s in WORLD_PROMPTS["sound"]}
    if names == ["all"]:
        return list(everything.values())
    if names == ["matched"]:
        return list(MATCHED.items())
    for name in names:
        if name not in everything:
            raise ValueError(f"`pairs` has to be all, matched, or among {sorted(everything)}, but names {name!r}.")
    return [everything[name] for name in names]


def compare(
    models: Models,
    samples: Samples,
    *,
    methods: list[str],
    pairs: list[str],
    num_sds_iterations: int = 600,
    report_to: str | None = None,
) -> Iterator[str]:
    """Makes what is missing, evaluates each method that has samples; yields the lines of a table."""
    from accelerate.utils import tqdm

    from .. import pipelines
    from .common.models import load_pipeline
    from .common.sampling import own_share, start
    from .common.scoring import evaluate_samples, load_scorer, table, write_csv

    prompts, home = pairs_of(pairs), samples.output_dir
    accelerator, models = start(models, home, report_to)
    load = cache(lambda name: load_pipeline(models, getattr(pipelines, name)))
    # Pair by pair, so that the time left is soon known.
    shared = [(method, pair) for pair in own_share(accelerator, prompts) for method in methods]
    folders = [folder for method, pair in shared for folder in samples_of(samples, method, pair).folders]
    num_there = sum(folder.exists() for folder in folders)
    if accelerator.is_main_process:
        tell(plan_of(samples, methods, prompts, num_sds_iterations))
    if num_there:
        tell(f"{num_there} of {len(folders)} samples were there already.")
    with tqdm(total=len(folders), initial=num_there, desc="Samples", smoothing=0) as bar:
        for method, pair in shared:
            pipe, own = load(METHODS[method][0]), METHODS[method][1]
            if method == "sds":
                own = {**own, "num_iterations": num_sds_iterations}
            pipe.set_progress_bar_config(desc=method)
            for folder in make(models, samples_of(samples, method, pair), pipe, pair, own):
                bar.update()
                yield folder
    accelerator.wait_for_everyone()
    rows, scorer = [], load_scorer(SCORES, models)
    for method in METHODS:
        if (home / method).exists():
            means = evaluate_samples(home / method, scorer, SCORES.models, accelerator, griffin_lim=False)
            if means:
                yield f"{method}:"
            yield from table(means)
            rows += [
                {"method": method, **{k: v for k, v in row.items() if not k.endswith("prompt")}} for row in means[-1:]
            ]
    if accelerator.is_main_process:
        write_json(home / "comparison.json", rows)
        write_csv(home / "comparison.csv", rows)
        figure(samples).save(home / "comparison.png")
        yield f"{'method':<10} {'n':>5}" + "".join(f" {name:>19}" for name in SCORES.scores)
        for row in rows:
            cells = "".join(f" {row[name]:>10.3f} ± {row[name + '_interval']:>6.3f}" for name in SCORES.scores)
            yield f"{row['method']:<10} {row['num_samples']:>5}{cells}"


def plan_of(samples: Samples, methods: list[str], prompts: list[tuple[str, str]], num_sds_iterations: int) -> str:
    """What `compare` is going to do, in words."""
    number = len(prompts) * samples.num_samples
    plan = (
        f"{len(methods) * number} samples: pairs of prompts {len(prompts)}, seeds of each {samples.num_samples},"
        f" methods {len(methods)} ({', '.join(methods)})."
    )
    if "sds" in methods:
        plan += f" Each of the {number} by sds takes {num_sds_iterations} iterations."
    return f"{plan} A stopped run goes on when it is started again."


def samples_of(samples: Samples, method: str, pair: tuple[str, str]) -> Samples:
    """Those of one pair by one method, computed at once where the method can."""
    folder = samples.output_dir / method / "-".join(pair)
    return replace(samples, output_dir=folder, num_images_per_prompt=1 if method == "sds" else samples.num_samples)


def make(
    models: Models, samples: Samples, pipe: "DiffusionPipeline", pair: tuple[str, str], own: dict
) -> Iterator[str]:
    """The samples of one pair by one method that are missing; `own` are the method's arguments of the call."""
    from ..pipelines import ImagesThatSoundImprintPipeline
    from .common.models import with_checkpoint_defaults
    from .common.sampling import complete_settings, imprinted_pictures_of, make_missing, pictures_of

    for folder in (samples.output_dir.parent, samples.output_dir):
        check_own_folder(folder)
    prompts = {"prompt": WORLD_PROMPTS["picture"][pair[0]], "audio_prompt": WORLD_PROMPTS["sound"][pair[1]]}
    arguments = with_checkpoint_defaults({**prompts, **own}, pipe)
    for folder in make_missing(
        pipe,
        samples,
        complete_settings(models, pipe, arguments),
        arguments=arguments,
        seeds=samples.seeds,
        pictures=imprinted_pictures_of if isinstance(pipe, ImagesThatSoundImprintPipeline) else pictures_of,
    ):
        yield str(folder)


def figure(samples: Samples) -> "PIL.Image.Image":
    """The first sample of each pair that belongs together, by each method that has samples."""
    import PIL.Image
    import PIL.ImageDraw
    import PIL.ImageFont

    from .common.samples import read_picture

    font, width, height, line = PIL.ImageFont.load_default(size=15), 384, 96, 22
    methods = [method for method in METHODS if (samples.output_dir / method).exists()]
    sheet = PIL.Image.new("RGB", (len(methods) * (width + 4), line + len(MATCHED) * (height + line)))
    pen = PIL.ImageDraw.Draw(sheet)
    for column, method in enumerate(methods):
        pen.text((column * (width + 4) + 4, 2), method, font=font, fill="white")
        for row, (picture, sound) in enumerate(MATCHED.items()):
            left, top = column * (width + 4), line + row * (height + line)
            pen.text((left + 4, top + 2), f"{picture}, {sound}", font=font, fill="gray")
            folder = samples_of(samples, method, (picture, sound)).output_dir
            found = sorted(folder.glob("seed-*/image.png"))
            if found:
                sheet.paste(read_picture(found[0]).convert("RGB").resize((width, height)), (left, top + line))
    return sheet


def main(input_args: list[str] | None = None) -> None:
    parser = new_parser("compare", __doc__)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="Default: all.")
    parser.add_argument(
        "--pairs", nargs="+", default=["all"], help="all 100, matched (the 10 that belong), or such as castle-bell."
    )
    parser.add_argument("--num_samples", type=int, default=2, help="Seeds of each pair. Default: %(default)s.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_sds_iterations", type=int, default=600, help="Default: %(default)s.")
    parser.add_argument("--output_dir", type=Path, default="comparison")
    add_process_arguments(parser)
    add_device_arguments(parser)
    args = parser.parse_args(input_args)
    own = {name: getattr(args, name) for name in ("methods", "pairs", "num_sds_iterations", "report_to")}
    run(lambda: compare(values_of(Models, args), values_of(Samples, args, video=False), **own))


if __name__ == "__main__":
    main()
