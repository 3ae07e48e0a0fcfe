"""What the commands share that score samples: arguments, loading, and `scores.json` beside each sample."""

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile
import torch

from images_that_sound.pipelines import ImagesThatSoundPipeline, MelSpectrogram
from images_that_sound.scripts.hub import hub_errors
from images_that_sound.scripts.play import canvas_of
from images_that_sound.scripts.samples import read_picture, sample_settings, write_json
from images_that_sound.scripts.sampling import EMBEDDED, load_pipeline
from images_that_sound.selection import SCORES, CLAPScore, CLIPScore, Scorer


PUBLISHED = {"clip_model": "openai/clip-vit-base-patch16", "clap_model": "laion/clap-htsat-unfused"}


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("scores", "`embedded` knows the world of the embedded checkpoint only.")
    group.add_argument("--scores", nargs="+", choices=SCORES, default=["clip", "clap"], help="Default: %(default)s.")
    for name, repo in PUBLISHED.items():
        group.add_argument(f"--{name}", help=f"Repo, folder or embedded. Default: as the samples', or {repo}.")


def fill_in_score_models(args: argparse.Namespace, model: str | None) -> None:
    """Samples of the embedded checkpoint are scored by its own scores, all others by the published ones."""
    for name, repo in PUBLISHED.items():
        if getattr(args, name) is None:
            setattr(args, name, "embedded" if model == "embedded" else repo)


def load_scorer_for(args: argparse.Namespace, settings: list[dict]) -> Scorer:
    """
    Loads what scores samples that were made before.

    Args:
        args (`argparse.Namespace`): Of `add_score_arguments` and `add_device_arguments`.
        settings (`list[dict]`): Of the samples; lifts are judged by the models that made them, which have to be the
            same for all.
    """
    made_by = {(each.get("model"), each.get("audio_model")) for each in settings}
    models = {model for model, _ in made_by}
    fill_in_score_models(args, "embedded" if models == {"embedded"} else None)
    if "lift" not in args.scores:
        return load_scorer(args)
    if len(made_by) > 1:
        raise ValueError(f"`scores` may name lift for samples of one model only, but these are of {sorted(models)}.")
    ((args.model, args.audio_model),) = made_by
    args.device_map = None
    return load_scorer(args, load_pipeline(args, ImagesThatSoundPipeline))


def load_scorer(args: argparse.Namespace, pipe: ImagesThatSoundPipeline | None = None) -> Scorer:
    """Loads what `--scores` names; `pipe` is what judges by lifts."""
    scores = {}
    for name, score_class in (("clip", CLIPScore), ("clap", CLAPScore)):
        if name not in args.scores:
            continue
        source = getattr(args, f"{name}_model")
        try:
            with hub_errors(source, f"{name}_model"):
                if source == "embedded":
                    score = score_class.from_pretrained(EMBEDDED, subfolder=name, dtype=torch.float32)
                else:
                    score = score_class.from_pretrained(source)
        except OSError as error:
            raise ValueError(
                f"`{name}_model` has to be a repo or folder of a checkpoint, but {source} is none: {error}"
            ) from error
        scores[name] = score.to(args.device)
    return Scorer(**scores, pipe=pipe if "lift" in args.scores else None)


def scores_of(args: argparse.Namespace, folder: Path, scorer: Scorer, griffin_lim: bool = False) -> dict[str, float]:
    """
    A sample's scores, from its `scores.json` where the same models gave them, else computed and written there.

    Args:
        args (`argparse.Namespace`): Of `add_score_arguments`.
        folder (`Path`): The sample's.
        scorer ([`Scorer`]): Of `load_scorer`.
        griffin_lim (`bool`, defaults to `False`): Whether to add `clap_griffin_lim`, of a sound that Griffin-Lim makes
            from the saved spectrogram.
    """
    file = folder / "scores.json"
    models = {name: getattr(args, name) for name in PUBLISHED}
    saved = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    known = saved.get("scores", {}) if saved.get("models") == models else {}
    missing = Scorer(
        clip=None if "clip" in known else scorer.clip,
        clap=None if "clap" in known else scorer.clap,
        pipe=None if "image_lift" in known else scorer.pipe,
    )
    settings = sample_settings(folder)
    new = {}
    if missing.clip or missing.clap or missing.pipe:
        picture = np.asarray(read_picture(folder / "image.png").convert("RGB"), np.float32) / 255
        audio, sampling_rate = soundfile.read(folder / "audio.wav", dtype="float32")
        scores = missing(
            torch.from_numpy(picture).permute(2, 0, 1)[None],
            audio[None],
            sampling_rate,
            [settings.get("prompt") or ""],
            [settings.get("audio_prompt") or ""],
            canvas_layout=settings.get("canvas_layout", "strip"),
        )
        new = {name: values[0] for name, values in scores.items()}
    if griffin_lim and scorer.clap and "clap_griffin_lim" not in known:
        mel = MelSpectrogram.from_dict(settings.get("spectrogram", {}))
        canvas = canvas_of(read_picture(folder / "spectrogram.png"), mel)
        audio = mel.griffin_lim(mel.canvas_to_log_mel(canvas)).numpy()
        new["clap_griffin_lim"] = scorer.clap(audio, mel.sampling_rate, [settings.get("audio_prompt") or ""]).item()
    if new:
        write_json(file, {"models": models, "scores": {**known, **new}})
    return {**known, **new}
