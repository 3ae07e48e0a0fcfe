"""Finds the best of many seeds for a part of the price: candidates are judged on the way, the worse ones dropped."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .common.border import run
from .common.files import check_own_folder, keep_settings, write_json
from .common.parsers import add_options, add_sample_arguments, add_score_arguments, call_arguments, new_parser
from .common.presets import GENERATE_PRESETS, RIFFUSION_PRESETS
from .common.requests import read_request
from .common.values import Models, Request, Scores, option, values_of


if TYPE_CHECKING:
    from ..selection import Halving, Rung, Scorer

# Fractions of the steps at which candidates are judged, and shares of them that go on.
RUNGS, SHARES = [0.2, 0.5], [0.3, 0.1]
PRESETS = {**GENERATE_PRESETS, **RIFFUSION_PRESETS}
# Arguments of the call that are nothing without a ControlNet, which this command does not load.
OF_CONTROLNETS = (
    "resize_mode",
    *(
        f"{side}{name}"
        for side in ("", "audio_")
        for name in ("controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end")
    ),
)


@dataclass(frozen=True, kw_only=True)
class SearchRequest(Request):
    """A request for a search."""

    scores: Scores
    keep: int = option("Number of the best to keep. Default: %(default)s.", 3, type=int)
    rungs: list[float] | None = option(
        f"Fractions of the steps at which to judge. Default: {RUNGS}, or none, which runs all candidates in full, if"
        " the scheduler can't stop on the way.",
        type=float,
        nargs="*",
    )
    shares: list[float] | None = option(
        f"Shares of the candidates that go on after each halt. Default: {SHARES}.", type=float, nargs="*"
    )


def parse_args(input_args: list[str] | None = None) -> SearchRequest:
    parser, arguments = new_parser("search", __doc__), call_arguments("ImagesThatSoundPipeline")
    add_sample_arguments(parser, PRESETS, {name: arguments[name] for name in arguments if name not in OF_CONTROLNETS})
    add_options(parser, Models, "scheduler", "few_steps")
    add_score_arguments(parser)
    group = parser.add_argument_group("search", "--num_samples candidates, of which the best are finished.")
    add_options(group, SearchRequest, "keep", "rungs", "shares")
    args = parser.parse_args(input_args)
    request = read_request(args, PRESETS, arguments, SearchRequest, scores=values_of(Scores, args))
    if given := [name for name in ("timesteps", "sigmas") if request.call[name] is not None]:
        raise ValueError(f"`{given[0]}` can't be given to a search, which counts in `num_inference_steps`.")
    return request


def search(request: SearchRequest) -> Iterator[str]:
    """Makes the best samples; yields the lines of a report."""
    from ..pipelines import ImagesThatSoundPipeline
    from ..pipelines.images_that_sound_denoising import memories_of
    from ..selection import Halving, rungs_of
    from .common.models import load_pipeline, with_checkpoint_defaults
    from .common.sampling import (
        complete_settings,
        made_by,
        make_samples,
        own_share,
        report_samples,
        say_unknown_words,
        start,
    )
    from .common.scoring import load_scorer, scores_of

    samples, judges = request.samples, request.scores.for_samples_of(request.models.model)
    fractions, shares = RUNGS if request.rungs is None else request.rungs, request.shares
    shares = (SHARES if fractions else []) if shares is None else shares
    rungs = rungs_of(samples.num_samples, request.keep, fractions, shares)
    accelerator, models = start(request.models, samples.output_dir, request.report_to)
    pipe = load_pipeline(models, ImagesThatSoundPipeline)
    if request.rungs is None and memories_of(pipe.scheduler):
        rungs = []
    scorer = load_scorer(judges, models, pipe)
    if "lift" in judges.scores:
        judges = replace(judges, lift_by=made_by(models, pipe))
    arguments = with_checkpoint_defaults(request.call, pipe)
    settings = complete_settings(models, pipe, arguments)
    say_unknown_words(settings)
    judged_by = {"scores": judges.scores, **judges.models}
    # Candidates on the way.
    folder = samples.output_dir / ".search"
    check_own_folder(folder)
    keep_settings(folder, {**arguments, **made_by(models, pipe), **judged_by})
    halving = Halving(pipe, arguments, scorer, folder, samples.num_images_per_prompt)
    report = halve(halving, request, rungs, arguments["num_inference_steps"], accelerator.num_processes)
    finalists = report[-1]["kept"]

    mine = own_share(accelerator, finalists)
    for path in make_samples(
        pipe,
        samples,
        settings,
        arguments=arguments,
        seeds=mine,
        of_seeds=lambda seeds: halving.resume(seeds, 1.0),
    ):
        yield str(path)
    for seed in mine:
        scores_of(samples.folder(seed), scorer, judges.models)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        scores = {seed: scores_of(samples.folder(seed), scorer, judges.models) for seed in finalists}
        yield from write_report(request, report, scores, scorer)
    report_samples(accelerator, [samples.folder(seed) for seed in finalists])


def halve(
    halving: "Halving", request: SearchRequest, rungs: list["Rung"], num_steps: int, num_processes: int
) -> list[dict]:
    """The report of a search, with a bar over the steps of all candidates, and a line on how long they take."""
    from accelerate.utils import tqdm

    from .common.forecast import clock, say_duration

    def steps_of(number: int, start: float, end: float) -> int:
        return number * (round(end * num_steps) - round(start * num_steps))

    begin = clock()

    def count(*batch: float) -> None:
        if bar.n == 0:
            seconds = (clock() - begin) * bar.total / steps_of(*batch) / num_processes
            say_duration(f"Searching {len(seeds)} candidates in {num_steps} steps", seconds)
        bar.update(steps_of(*batch) * num_processes)

    halts, seeds = [rung.fraction for rung in rungs], request.samples.seeds
    stages = zip([len(seeds), *(rung.keep for rung in rungs)], [0, *halts], [*halts, 1])
    with tqdm(total=sum(steps_of(*stage) for stage in stages), desc="Steps of all candidates") as bar:
        return halving(seeds, rungs, request.keep, count)


def write_report(
    request: SearchRequest, report: list[dict], scores: dict[int, dict], scorer: "Scorer"
) -> Iterator[str]:
    """Writes `search.json`: what happened at each rung, the finalists' scores, the best, and what it cost."""
    from ..selection import best, best_of
    from .common.scoring import choice_scores

    samples, seeds = request.samples, list(scores)
    combined = choice_scores([scores[seed] for seed in seeds], scorer)
    order = [seeds[i] for i in best(combined, len(seeds))]
    winners = [seeds[i] for i in best_of(combined, request.keep)]
    spent = sum(rung["num_candidates"] * (rung["step_rows"] + rung["judge_rows"]) for rung in report)
    total = samples.num_samples * sum(rung["step_rows"] for rung in report)
    summary = {
        "best": winners,
        "finalists": {str(seed): scores[seed] for seed in order},
        "rungs": report,
        "unet_rows": spent,
        "unet_rows_of_full_runs": total,
    }
    write_json(samples.output_dir / "search.json", summary)
    if len(winners) < request.keep:
        yield f"{len(order) - len(best_of(combined, len(order)))} of {len(order)} finalists have problems."
    for place, seed in enumerate(winners, start=1):
        shown = {**scores[seed], "combined": combined[seeds.index(seed)]}
        numbers = ", ".join(f"{name} {shown[name]:.3f}" for name in ("combined", *scorer.names))
        yield f"{place}. {samples.folder(seed)}: {numbers}"
    yield f"This took {spent / total:.0%} of the work that all {samples.num_samples} in full would have been."


def main(input_args: list[str] | None = None) -> None:
    run(lambda: search(parse_args(input_args)))


if __name__ == "__main__":
    main()
