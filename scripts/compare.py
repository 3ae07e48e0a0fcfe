"""
Repeats the comparison of the paper on any pair of models: the image side alone, the audio side alone, imprint, SDS,
and the averaging of noise, over pairs of prompts and seeds, judged by CLIP, CLAP, FID and FAD. A stopped run goes on.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common.border import run
from .common.files import check_own_folder, keep_settings, write_json
from .common.parsers import add_device_arguments, add_options, add_spectrogram_argument, new_parser
from .common.presets import MATCHED, WORLD_PROMPTS
from .common.progress import tell
from .common.values import PUBLISHED_SCORES, Models, Request, Samples, Scores, check_count, values_of


if TYPE_CHECKING:
    import PIL.Image
    from accelerate import Accelerator
    from diffusers import DiffusionPipeline

    from ..selection import Scorer


# Each method's pipeline and arguments of its call.
METHODS = {
    "image": ("ImagesThatSoundPipeline", {"audio_weight": 0.0, "image_guidance_start": 0.0}),
    "audio": ("ImagesThatSoundPipeline", {"audio_weight": 1.0}),
    "imprint": ("ImagesThatSoundImprintPipeline", {}),
    "sds": ("ImagesThatSoundSDSPipeline", {}),
    "ours": ("ImagesThatSoundPipeline", {}),
}
# The paper's values, for other models: 40 000 iterations from pixels, and four samples of each pair.
EMBEDDED_SDS = {
    "image_start_step": 60,
    "learning_rate": 2e-3,
    "canvas_kwargs": {"hidden_size": 64, "num_frequencies": 64},
}
SDS_MODEL, SDS_ITERATIONS, EMBEDDED_SDS_ITERATIONS, SDS_SAMPLES = "DeepFloyd/IF-I-M-v1.0", 40_000, 600, 4
NUM_SAMPLES, EMBEDDED_NUM_SAMPLES = 10, 2
# The method that each distance is measured from.
REFERENCES = {"fid": "image", "fad": "audio"}
# A side alone does not hear its partner, so that it gets other seeds for each, this far apart.
SEEDS_APART = 1000

Pair = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """
    A comparison to make.

    Args:
        models ([`Models`]): Models that make the samples.
        samples ([`Samples`]): Samples of each pair of prompts, and the folder of all.
        scores ([`Scores`]): Scores that judge.
        methods (`list[str]`): Among `METHODS`.
        prompts (`dict[str, dict[str, str]]`): Prompts of pictures and of sounds, by names.
        pairs (`list[Pair]`): Names of pictures and sounds that go together.
        call (`dict`): Arguments of the methods' calls that have them.
        distances (`bool`): Whether to measure FID and FAD.
        sds_model (`str`): Image side of SDS.
        num_sds_samples (`int`): Samples of SDS for each pair.
        num_sds_iterations (`int`): Iterations of SDS for each sample.
        report_to (`str`): A tracker of accelerate.
    """

    models: Models
    samples: Samples
    scores: Scores
    methods: list[str]
    prompts: dict[str, dict[str, str]]
    pairs: list[Pair]
    call: dict[str, Any]
    distances: bool
    sds_model: str
    num_sds_samples: int
    num_sds_iterations: int
    report_to: str | None = None

    def __post_init__(self) -> None:
        for name in ("num_sds_samples", "num_sds_iterations"):
            check_count(name, getattr(self, name))

    def samples_of(self, method: str, pair: Pair) -> Samples:
        """Samples of one pair by one method."""
        samples = replace(self.samples, output_dir=self.samples.output_dir / method / "-".join(pair))
        if method == "sds":
            return replace(samples, num_samples=self.num_sds_samples, num_images_per_prompt=1)
        partner = {"image": ("sound", 1), "audio": ("picture", 0)}.get(method)
        if partner is None:
            return samples
        place = list(self.prompts[partner[0]]).index(pair[partner[1]])
        return replace(samples, seed=samples.seed + SEEDS_APART * place)

    def arguments_of(self, method: str, pair: Pair) -> dict[str, Any]:
        """Arguments of one method's call for one pair."""
        prompts = {"prompt": self.prompts["picture"][pair[0]], "audio_prompt": self.prompts["sound"][pair[1]]}
        arguments = {**prompts, **METHODS[method][1], **self.call}
        if method == "imprint" and "num_inference_steps" in self.call:
            arguments["num_audio_inference_steps"] = self.call["num_inference_steps"]
        if method == "sds":
            arguments.pop("num_inference_steps", None)
            usual = EMBEDDED_SDS if self.sds_model == "embedded" else {}
            arguments |= {**usual, "num_iterations": self.num_sds_iterations}
        return arguments

    @property
    def plan(self) -> str:
        """The work to be done, in words."""
        numbers = {method: self.samples_of(method, self.pairs[0]).num_samples for method in self.methods}
        plan = (
            f"{len(self.pairs) * sum(numbers.values())} samples: pairs of prompts {len(self.pairs)}, seeds of each"
            f" {self.samples.num_samples}, methods {len(self.methods)} ({', '.join(self.methods)})."
        )
        if "sds" in self.methods:
            number = len(self.pairs) * self.num_sds_samples
            plan += f" Each of the {number} by sds takes {self.num_sds_iterations} iterations."
        return f"{plan} A stopped run goes on when it is started again."


def named_prompts(prompts: list[str] | None, audio_prompts: list[str] | None) -> dict[str, dict[str, str]]:
    """Prompts of the published examples, or the given ones, whose names are numbers."""
    given = {"picture": prompts, "sound": audio_prompts}
    return {
        kind: WORLD_PROMPTS[kind] if texts is None else {f"{kind}-{i}": prompt for i, prompt in enumerate(texts)}
        for kind, texts in given.items()
    }


def matched(prompts: dict[str, dict[str, str]]) -> list[Pair]:
    """The published examples' pairs; of other prompts the first of both, the second of both, and so on."""
    return list(MATCHED.items()) if prompts == WORLD_PROMPTS else list(zip(*prompts.values()))


def pairs_of(names: list[str], prompts: dict[str, dict[str, str]]) -> list[Pair]:
    """A picture and a sound for each name of a pair."""
    everything = {f"{p}-{s}": (p, s) for p in prompts["picture"] for s in prompts["sound"]}
    if names == ["all"]:
        return list(everything.values())
    if names == ["matched"]:
        return matched(prompts)
    for name in names:
        if name not in everything:
            raise ValueError(f"`pairs` has to be all, matched, or among {sorted(everything)}, but names {name!r}.")
    return [everything[name] for name in names]


def compare(comparison: Comparison) -> Iterator[str]:
    """Makes what is missing, evaluates each method that has samples; yields the lines of a table."""
    from .common.sampling import start
    from .common.scoring import load_scorer

    accelerator, models = start(comparison.models, comparison.samples.output_dir, comparison.report_to)
    comparison = replace(comparison, models=models)
    scorer = load_scorer(comparison.scores, models)
    features = {}
    if comparison.distances and accelerator.is_main_process:
        from .common.distances import load_features

        # Before hours of work, since it may lack a library or the network.
        features = load_features(comparison.scores, scorer, models.device)
    yield from make_all(comparison, accelerator)
    yield from judge(comparison, accelerator, scorer, features)


def make_all(comparison: Comparison, accelerator: "Accelerator") -> Iterator[str]:
    """The samples that are missing: pair by pair, so that the time left is soon known, and those of SDS at last."""
    from accelerate.utils import tqdm

    from .. import pipelines
    from .common.forecast import clock, say_duration
    from .common.models import load_pipeline
    from .common.sampling import named, own_share

    # All methods are compared, and so have to share what earlier runs made theirs by.
    keep_settings(comparison.samples.output_dir, {**named(comparison.models), **comparison.call})
    load = cache(lambda name: load_pipeline(models_of(comparison, accelerator, name), getattr(pipelines, name)))
    methods = [method for method in comparison.methods if method != "sds"]
    shared = [(method, pair) for pair in own_share(accelerator, comparison.pairs) for method in methods]
    # Each of them by all processes together, as the command `sds` makes it.
    together = [("sds", pair) for pair in comparison.pairs if "sds" in comparison.methods]

    def missing(works: list[tuple[str, Pair]]) -> int:
        return sum(not folder.exists() for work in works for folder in comparison.samples_of(*work).folders)

    total = sum(comparison.samples_of(*work).num_samples for work in (*shared, *together))
    num_there = total - missing([*shared, *together])
    if accelerator.is_main_process:
        tell(comparison.plan)
    if num_there:
        tell(f"{num_there} of {total} samples were there already.")
    with tqdm(total=total, initial=num_there, desc="Samples", smoothing=0) as bar:
        begin, said = clock(), False
        for i, (method, pair) in enumerate((*shared, *together)):
            # The methods take different times, so that whole pairs tell how long the others take.
            if not said and bar.n > num_there and i < len(shared) and i % len(methods) == 0:
                said, left = True, missing(shared)
                seconds = (clock() - begin) * (1 + left / (bar.n - num_there))
                say_duration(f"Making {bar.n - num_there + left} samples{' besides sds' if together else ''}", seconds)
            pipe = load(METHODS[method][0])
            pipe.set_progress_bar_config(desc=method)
            for folder in make(comparison, accelerator, pipe, method, pair):
                bar.update()
                yield str(folder)
    accelerator.wait_for_everyone()


def models_of(comparison: Comparison, accelerator: "Accelerator", pipeline: str) -> Models:
    """Source of a pipeline. SDS may have another image side."""
    if pipeline != METHODS["sds"][0]:
        return comparison.models
    return replace(comparison.models, model=comparison.sds_model, device=str(accelerator.device))


def make(
    comparison: Comparison, accelerator: "Accelerator", pipe: "DiffusionPipeline", method: str, pair: Pair
) -> Iterator[Path]:
    """The samples of one pair by one method that are missing."""
    from .common.models import with_checkpoint_defaults
    from .common.sampling import complete_settings, imprinted_pictures_of, make_missing
    from .common.unfinished import finished, precision_of, state_of

    samples = comparison.samples_of(method, pair)
    for folder in (samples.output_dir.parent, samples.output_dir):
        check_own_folder(folder)
    arguments = with_checkpoint_defaults(comparison.arguments_of(method, pair), pipe)
    if method == "sds" and arguments.get("width") and arguments.get("crop_width"):
        # A canvas that is narrower than the checkpoint's crops is seen as a whole.
        arguments["crop_width"] = min(arguments["crop_width"], arguments["width"])
    further: dict[str, Any] = {"pictures": imprinted_pictures_of} if method == "imprint" else {}
    by = precision_of(accelerator) if method == "sds" else {}
    settings = complete_settings(models_of(comparison, accelerator, METHODS[method][0]), pipe, {**arguments, **by})
    if method == "sds":
        further["of_seeds"] = lambda seeds: state_of(samples, seeds[0], settings, accelerator)
        further["accelerator"] = accelerator
    made = make_missing(pipe, samples, settings, arguments=arguments, seeds=samples.seeds, **further)
    yield from finished(samples, made, accelerator) if method == "sds" else made


def judge(
    comparison: Comparison, accelerator: "Accelerator", scorer: "Scorer", features: dict[str, Any]
) -> Iterator[str]:
    """Evaluates each method that has samples, and writes the comparison; yields the lines of tables."""
    from .common.scoring import evaluate_samples, table, write_csv

    home, models, rows = comparison.samples.output_dir, comparison.scores.models, []
    made = {method: home / method for method in METHODS if (home / method).exists()}
    for method, folder in made.items():
        means = evaluate_samples(folder, scorer, models, accelerator, griffin_lim=False)
        if means:
            yield f"{method}:"
        yield from table(means)
        rows += [
            {"method": method, **{k: v for k, v in row.items() if not k.endswith("prompt")}} for row in means[-1:]
        ]
    if not accelerator.is_main_process:
        return
    if features:
        from .common.distances import distances

        found = distances(made, REFERENCES, features)
        rows = [{**row, **found[row["method"]]} for row in rows]
    write_json(home / "comparison.json", rows)
    write_csv(home / "comparison.csv", rows)
    figure(comparison).save(home / "comparison.png")
    yield from summary(rows, comparison)


def summary(rows: list[dict], comparison: Comparison) -> Iterator[str]:
    """The comparison as lines to print."""
    scores = comparison.scores
    columns = [name for name in REFERENCES if name in rows[0]]
    heads = "".join(f" {name:>19}" for name in scores.scores) + "".join(f" {name:>10}" for name in columns)
    yield f"{'method':<10} {'n':>5}{heads}"
    for row in rows:
        cells = "".join(f" {row[name]:>10.3f} ± {row[name + '_interval']:>6.3f}" for name in scores.scores)
        cells += "".join(f" {'-' if math.isnan(row[name]) else f'{row[name]:.3f}':>10}" for name in columns)
        yield f"{row['method']:<10} {row['num_samples']:>5}{cells}"
    if columns:
        seen = "the embedded CLIP" if scores.clip_model == "embedded" else "Inception"
        heard = "the embedded CLAP" if scores.clap_model == "embedded" else "VGGish"
        yield f"fid: Fréchet distance from the samples of image, by {seen}; fad: from those of audio, by {heard}."


def figure(comparison: Comparison) -> "PIL.Image.Image":
    """The first sample of each pair that belongs together, by each method that has samples."""
    import PIL.Image
    import PIL.ImageDraw
    import PIL.ImageFont
    import PIL.ImageOps

    from .common.samples import read_picture

    font, width, height, line = PIL.ImageFont.load_default(size=15), 384, 96, 22
    methods = [method for method in METHODS if (comparison.samples.output_dir / method).exists()]
    pairs = matched(comparison.prompts)
    sheet = PIL.Image.new("RGB", (len(methods) * (width + 4), line + len(pairs) * (height + line)))
    pen = PIL.ImageDraw.Draw(sheet)
    for column, method in enumerate(methods):
        pen.text((column * (width + 4) + 4, 2), method, font=font, fill="white")
        for row, pair in enumerate(pairs):
            left, top = column * (width + 4), line + row * (height + line)
            pen.text((left + 4, top + 2), ", ".join(pair), font=font, fill="gray")
            found = sorted(comparison.samples_of(method, pair).output_dir.glob("seed-*/image.png"))
            if found:
                picture = read_picture(found[0]).convert("RGB")
                # The beginning of a long one.
                picture = picture.crop((0, 0, min(picture.width, picture.height * width // height), picture.height))
                sheet.paste(PIL.ImageOps.contain(picture, (width, height)), (left, top + line))
    return sheet


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser("compare", __doc__)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="Default: all.")
    parser.add_argument(
        "--model", default="embedded", help="Repo or folder of the image side, or of both. Default: embedded."
    )
    parser.add_argument("--audio_model", help="Repo or folder of the audio side, such as Auffusion's.")
    add_spectrogram_argument(parser, "Spectrograms of the audio side. Default: those that are known of it.")
    parser.add_argument("--prompt", nargs="+", help="Prompts of pictures. Default: ten of the published examples.")
    parser.add_argument(
        "--audio_prompt", nargs="+", help="Prompts of sounds. Default: ten, nine of the published examples."
    )
    parser.add_argument(
        "--pairs",
        nargs="+",
        default=["all"],
        help="all, each picture with each sound; matched (those that belong together, of your prompts the first of"
        " both and so on); or such as castle-bell, of your prompts picture-0-sound-0. Default: all.",
    )
    parser.add_argument("--num_samples", type=int, help="Seeds of each pair. Default: the paper's 10; embedded: 2.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_images_per_prompt", type=int, help="Samples computed at once. Default: --num_samples.")
    parser.add_argument("--width", type=int, help="Width of the canvases. Default: the checkpoint's.")
    parser.add_argument(
        "--num_inference_steps", type=int, help="Steps of all methods but sds. Default: the checkpoint's."
    )
    add_options(parser, Models, "scheduler")
    parser.add_argument(
        "--sds_model", help=f"Image side of sds. Default: the paper's {SDS_MODEL}; embedded: embedded."
    )
    parser.add_argument(
        "--num_sds_samples",
        type=int,
        help="Samples of sds for each pair. Default: --num_samples, at most the paper's 4.",
    )
    parser.add_argument(
        "--num_sds_iterations",
        type=int,
        help=f"Default: the paper's {SDS_ITERATIONS}; embedded: {EMBEDDED_SDS_ITERATIONS}.",
    )
    parser.add_argument(
        "--distances",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="Whether to measure FID and FAD, against image and audio alone; by Inception and VGGish (pip install"
        ' "images-that-sound[compare]") unless embedded CLIP and CLAP judge. Default: yes.',
    )
    for name, repo in PUBLISHED_SCORES.items():
        parser.add_argument(f"--{name}", help=f"Repo, folder or embedded. Default: embedded for embedded, or {repo}.")
    parser.add_argument("--output_dir", type=Path, default="comparison")
    add_options(parser, Request, "report_to")
    add_device_arguments(parser)
    add_options(parser, Models, "quantization")
    return parser.parse_args(input_args)


def read_comparison(args: argparse.Namespace) -> Comparison:
    """The request, with the defaults that depend on the model."""
    embedded = args.model == "embedded" and args.audio_model in (None, "embedded")
    usual = {
        "num_samples": EMBEDDED_NUM_SAMPLES if embedded else NUM_SAMPLES,
        "sds_model": "embedded" if embedded else SDS_MODEL,
        "num_sds_iterations": EMBEDDED_SDS_ITERATIONS if embedded else SDS_ITERATIONS,
    }
    args = argparse.Namespace(**{k: usual.get(k) if v is None else v for k, v in vars(args).items()})
    if args.num_images_per_prompt is None:
        args.num_images_per_prompt = args.num_samples
    if args.num_sds_samples is None:
        args.num_sds_samples = min(args.num_samples, SDS_SAMPLES)
    prompts = named_prompts(args.prompt, args.audio_prompt)
    call = {name: getattr(args, name) for name in ("width", "num_inference_steps")}
    return values_of(
        Comparison,
        args,
        models=values_of(Models, args),
        samples=values_of(Samples, args, video=False),
        scores=values_of(Scores, args, scores=["clip", "clap"]).for_samples_of(args.model),
        prompts=prompts,
        pairs=pairs_of(args.pairs, prompts),
        call={name: value for name, value in call.items() if value is not None},
    )


def main(input_args: list[str] | None = None) -> None:
    args = parse_args(input_args)
    run(lambda: compare(read_comparison(args)))


if __name__ == "__main__":
    main()
