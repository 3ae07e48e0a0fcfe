"""Scores of samples: loading what gives them, `scores.json` beside each sample, and tables of means."""

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import tqdm

from ...pipelines import ImagesThatSoundPipeline, MelSpectrogram, audio_problems, audio_remarks
from ...selection import CLAPScore, CLIPScore, Scorer, choice_score, mean_and_interval
from ...selection.scorer import by_parts
from .canvases import canvas_of
from .files import json_text, parse_json, read_json, write_json, write_text
from .loading_errors import checkpoint_errors
from .loudness import without_gain
from .models import EMBEDDED, device_of, load_pipeline
from .own_files import values_over_time
from .presets import WORLD_PROMPTS
from .requests import PROMPTS, shipped_models
from .samples import find_samples, read_picture, sample_settings
from .sampling import made_by, own_share
from .sounds import read_waveform
from .values import PUBLISHED_SCORES, Models, Scores


# Other things that a result might be: the prompts of the published examples.
OTHER_PROMPTS = {
    "other_prompts": WORLD_PROMPTS["picture"].values(),
    "other_audio_prompts": WORLD_PROMPTS["sound"].values(),
}


def load_scorer_for(scores: Scores, models: Models, settings: list[dict]) -> tuple[Scorer, Scores]:
    """
    Loads what scores samples that were made before.

    Args:
        scores ([`Scores`]): Scores to load.
        models ([`Models`]): Device, and models that made the samples unless they ship with the package.
        settings (`list[dict]`): Settings of the samples; lifts are judged by the models that made them, which have to
            be the same for all.

    Returns:
        `tuple[Scorer, Scores]`: The scorer, and its models; if none were given, those that fit the samples.
    """
    pairs = {(each.get("model"), each.get("audio_model")) for each in settings}
    spectrogram = settings[0].get("spectrogram")
    names = {model for model, _ in pairs}
    scores = scores.for_samples_of("embedded" if names == {"embedded"} else None)
    if "lift" not in scores.scores:
        return load_scorer(scores, models), scores
    if len(pairs) > 1:
        raise ValueError(
            f"`scores` may name lift for samples of one model only, but these are of {sorted(map(str, names))}."
        )
    if models.model is None:
        ((model, audio_model),) = pairs
        models = replace(models, **shipped_models({"model": model, "audio_model": audio_model}, "sample_dir"))
    models = replace(models, spectrogram=None if models.audio_model is None else spectrogram)
    if models.model is None:
        raise ValueError("`model` has to be given for lift, since the samples do not name what made them.")
    pipe = load_pipeline(models, ImagesThatSoundPipeline)
    return load_scorer(scores, models, pipe), replace(scores, lift_by=made_by(models, pipe))


def load_scorer(scores: Scores, models: Models, pipe: ImagesThatSoundPipeline | None = None) -> Scorer:
    """Loads what `--scores` names; `pipe` is what judges by lifts."""
    loaded = {}
    for name, score_class in (("clip", CLIPScore), ("clap", CLAPScore)):
        if name not in scores.scores:
            continue
        source = scores.models[f"{name}_model"]
        with checkpoint_errors(source, f"{name}_model"):
            if source == "embedded":
                score = score_class.from_pretrained(EMBEDDED, subfolder=name, dtype=torch.float32)
            else:
                score = score_class.from_pretrained(source)
        loaded[name] = score.to(device_of(models))
    return Scorer(**loaded, pipe=pipe if "lift" in scores.scores else None, **OTHER_PROMPTS)


def scores_of(folder: Path, scorer: Scorer, models: dict[str, str], griffin_lim: bool = False) -> dict[str, float]:
    """
    A sample's scores, from its `scores.json` if the same models gave them, else computed and written there; `nan`
    for a sample with problems.

    Args:
        folder (`Path`): The sample's.
        scorer ([`Scorer`]): Result of `load_scorer`.
        models (`dict[str, str]`): Models of [`Scores`] that were loaded.
        griffin_lim (`bool`, defaults to `False`): Whether to add `clap_griffin_lim`, of a sound that Griffin-Lim makes
            from the saved spectrogram.
    """
    file = folder / "scores.json"
    known = _known_scores(file, models)
    missing = Scorer(
        clip=None if {"clip", "clip_log_probability"} <= known.keys() else scorer.clip,
        clap=None if {"clap", "clap_log_probability"} <= known.keys() else scorer.clap,
        pipe=None if "image_lift" in known else scorer.pipe,
        **OTHER_PROMPTS,
    )
    settings = sample_settings(folder)
    new = _new_scores(folder, settings, missing) if missing.names else {}
    if griffin_lim and scorer.clap and "clap_griffin_lim" not in known:
        mel = MelSpectrogram.from_dict(settings.get("spectrogram", {}))
        canvas = canvas_of(read_picture(folder / "spectrogram.png"), mel)
        audio = mel.griffin_lim(mel.canvas_to_log_mel(canvas)).numpy()
        rate, (_, prompts) = mel.sampling_rate, prompts_of(settings)
        found = by_parts(
            lambda audios, words: scorer.clap.with_log_probabilities(audios, rate, words),
            audio,
            prompts,
            audio.shape[1] / rate,
        )
        new["clap_griffin_lim"] = found[0].item()
    if problems_of(folder):
        new = dict.fromkeys(new, math.nan)
    if new:
        write_json(file, {"models": models, "scores": {**known, **new}})
    return {**known, **new}


def prompts_of(settings: dict) -> tuple[list[str | dict[float, str]], ...]:
    """Both prompts of a sample for a [`Scorer`]: words, or words over time if it was made by a score."""
    over_time = values_over_time(settings.get("score") or {})
    return tuple([over_time.get(name) or settings.get(name) or ""] for name in PROMPTS)


def choice_scores(scores: list[dict[str, float]], scorer: Scorer) -> list[float]:
    """Scores by which samples are chosen: `choice_score` of all scores that are known."""
    names = [name for name in scores[0] if name.removesuffix("_log_probability") in scorer.names]
    return choice_score({name: [each[name] for each in scores] for name in names})


def problems_of(folder: Path) -> list[str]:
    """Faults of a sample's sound: those found when it was made, and those of its file."""
    settings = sample_settings(folder)
    noted = [*map(str, settings.get("problems", []))]
    return noted or audio_problems(without_gain(read_waveform(folder / "audio.wav")[0], settings))


def remarks_of(folder: Path) -> list[str]:
    """Remarks on a sample's sound for a listener, which do not void its scores."""
    mel = MelSpectrogram.from_dict(sample_settings(folder).get("spectrogram", {}))
    return audio_remarks(read_waveform(folder / "audio.wav")[0], mel)


def _known_scores(file: Path, models: dict[str, str]) -> dict[str, float]:
    """Scores in a file by the same models; none if it is damaged, since it can be made anew."""
    try:
        saved = read_json(file)
        made = {name: saved["models"].get(name) == model for name, model in parse_json(json_text(models)).items()}
        lifts, others = made.get("lift_by"), all(made[name] for name in PUBLISHED_SCORES)
        known = {name: value for name, value in saved["scores"].items() if (lifts if "_lift" in name else others)}
        return {name: math.nan if value is None else float(value) for name, value in known.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def _new_scores(folder: Path, settings: dict, scorer: Scorer) -> dict[str, float]:
    picture = np.asarray(read_picture(folder / "image.png").convert("RGB"), np.float32) / 255
    audio, sampling_rate = read_waveform(folder / "audio.wav")
    scores = scorer(
        torch.from_numpy(picture).permute(2, 0, 1)[None],
        audio[None],
        sampling_rate,
        *prompts_of(settings),
        canvas_layout=settings.get("canvas_layout", "strip"),
    )
    return {name: values[0] for name, values in scores.items()}


# -------------------- Means --------------------


def evaluate_samples(
    sample_dir: Path, scorer: Scorer, models: dict[str, str], accelerator: Accelerator, *, griffin_lim: bool
) -> list[dict]:
    """
    Scores what has no scores yet, and writes `evaluation.json` and `evaluation.csv`.

    Args:
        sample_dir (`Path`): Every sample at or below it counts.
        scorer ([`Scorer`]): Result of `load_scorer`.
        models (`dict[str, str]`): Models of [`Scores`] that were loaded.
        accelerator (`accelerate.Accelerator`): Processes that divide the samples.
        griffin_lim (`bool`): Whether to add scores of sounds that Griffin-Lim makes from the saved spectrograms.

    Returns:
        `list[dict]`: A row for each pair of prompts and one for all: numbers of samples and of those without problems,
        and of each score of the latter the mean and half the 95 % interval; none but in the first process.
    """
    folders = find_samples(sample_dir)
    for folder in tqdm(own_share(accelerator, folders), desc="Scoring"):
        scores_of(folder, scorer, models, griffin_lim)
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        return []
    scores = [scores_of(folder, scorer, models, griffin_lim) for folder in folders]
    names = [name for name in (*scorer.names, "clap_griffin_lim") if name in scores[0]]
    rows = _means([sample_settings(folder) for folder in folders], scores, names)
    write_json(sample_dir / "evaluation.json", rows)
    write_csv(sample_dir / "evaluation.csv", rows)
    return rows


def _means(settings: list[dict], scores: list[dict], names: list[str]) -> list[dict]:
    groups: dict[tuple, list[dict]] = {}
    for each, score in zip(settings, scores):
        pair = (each.get("prompt") or each.get("image"), each.get("audio_prompt") or each.get("audio"))
        groups.setdefault(pair, []).append(score)
    rows = []
    for (prompt, audio_prompt), group in [*groups.items(), (("all", "all"), scores)]:
        sound = [score for score in group if not any(math.isnan(score[name]) for name in names)]
        row = {"prompt": prompt, "audio_prompt": audio_prompt, "num_samples": len(group), "num_scored": len(sound)}
        for name in names:
            mean_and_half = mean_and_interval([score[name] for score in sound]) if sound else (math.nan, math.nan)
            row[name], row[f"{name}_interval"] = mean_and_half
        rows.append(row)
    return rows


def write_csv(path: Path, rows: list[dict]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def table(rows: list[dict]) -> Iterator[str]:
    """The rows of `evaluate_samples` as lines to print."""
    names = [name.removesuffix("_interval") for name in (rows[0] if rows else ()) if name.endswith("_interval")]
    for row in rows:
        if row is rows[0]:
            yield f"{'picture':<34} {'sound':<26} {'n':>5}" + "".join(f" {name:>17}" for name in names)
        cells = "".join(f" {row[name]:>8.3f} ± {row[name + '_interval']:>6.3f}" for name in names)
        prompts = f"{row['prompt'] or '':<34.34} {row['audio_prompt'] or '':<26.26}"
        yield f"{prompts} {row['num_samples']:>5}{cells}"
        if row["num_scored"] < row["num_samples"]:
            yield f"{row['num_samples'] - row['num_scored']} of these have problems and do not count."
