"""Successive halving: all candidates are denoised part of the way, and only the better ones go on."""

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from diffusers import DiffusionPipeline
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..pipelines.images_that_sound_denoising import memories_of
from ..pipelines.images_that_sound_files import written
from ..pipelines.images_that_sound_spectrogram import audio_problems
from .ranking import best, choice_score
from .scorer import Scorer


@dataclass(frozen=True)
class Rung:
    """
    A halt during denoising, at which the worse candidates are given up.

    Args:
        fraction (`float`): Fraction of the denoising steps, 0 to 1, at which the candidates are judged.
        keep (`int`): Number of candidates that go on.
    """

    fraction: float
    keep: int


def rungs_of(num_candidates: int, keep: int, fractions: list[float], shares: list[float]) -> list[Rung]:
    """
    Rungs at fractions of the steps, each of which keeps a share of all candidates, and at least `keep`.

    Raises:
        ValueError: If the fractions do not rise within 0..1, or the shares do not fall within 0..1.
    """
    if len(fractions) != len(shares):
        raise ValueError(f"`rungs` and `shares` have to be as many, but are {fractions} and {shares}.")
    if not all(low < high for low, high in zip([0, *fractions], [*fractions, 1])):
        raise ValueError(f"`rungs` have to rise between 0 and 1, but are {fractions}.")
    if not all(high >= low > 0 for high, low in zip([1, *shares], shares)):
        raise ValueError(f"`shares` have to fall between 1 and 0, but are {shares}.")
    if not 0 < keep <= num_candidates:
        raise ValueError(f"`keep` has to be from 1 to the {num_candidates} candidates, but is {keep}.")
    return [Rung(f, max(math.ceil(share * num_candidates), keep)) for f, share in zip(fractions, shares)]


class Halving:
    """
    Narrows candidates down to the better ones. A file keeps the state of each candidate at each rung: a stopped run
    goes on from it, and processes exchange their results through it.

    Args:
        pipe ([`~images_that_sound.pipelines.ImagesThatSoundPipeline`]): Its scheduler may need nothing but the latents
            from step to step if there are rungs, such as DDIM or Euler.
        arguments (`dict`): Arguments of the call, with both prompts, without numbers of samples and seeds.
        scorer ([`Scorer`]): Scores the canvas that the scheduler expects at the end.
        folder (`str` or `Path`): Folder of the files.
        batch_size (`int`, defaults to 8): Candidates computed at once.

    Raises:
        ValueError: On a call with rungs, if the scheduler has a memory or no step is between two rungs.
    """

    def __init__(
        self,
        pipe: DiffusionPipeline,
        arguments: dict[str, Any],
        scorer: Scorer,
        folder: str | os.PathLike,
        batch_size: int = 8,
    ):
        self.pipe, self.scorer, self.folder, self.batch_size = pipe, scorer, Path(folder), batch_size
        self.prompt, self.audio_prompt = arguments["prompt"], arguments["audio_prompt"]
        self.arguments = self._with_embeddings(arguments)
        self.state = PartialState()

    def __call__(
        self,
        seeds: list[int],
        rungs: list[Rung],
        keep: int | None = None,
        callback_on_batch_end: Callable[[int, float, float], Any] = lambda *batch: None,
    ) -> list[dict]:
        """
        Denoises the candidates from rung to rung, and those that are left to the end.

        Args:
            seeds (`list[int]`): Seeds of the candidates.
            rungs (`list[Rung]`): From the first to the last.
            keep (`int`, *optional*): Number of candidates to keep at the end, all that reach it by default.
            callback_on_batch_end (`Callable`, *optional*): Called with the number of candidates in the batch, and with
                the fractions of the steps at its start and end.

        Returns:
            `list[dict]`: For each rung and for the end: `fraction`, `scores` of each seed (at the end `nan` for a
            sound with problems), seeds `kept`, and the UNet rows spent on a candidate, `step_rows` and `judge_rows`.
        """
        memories = memories_of(self.pipe.scheduler)
        if rungs and memories:
            raise ValueError(
                f"`scheduler` has to go from step to step without a memory, such as DDIMScheduler, if there are"
                f" `rungs`, but {type(self.pipe.scheduler).__name__} has {memories}."
            )
        report, start = [], 0.0
        for rung in (*rungs, Rung(1.0, keep or (rungs[-1].keep if rungs else len(seeds)))):
            for seed_batch in self._batches(seeds, rung.fraction):
                self._climb(seed_batch, start, rung.fraction)
                callback_on_batch_end(len(seed_batch), start, rung.fraction)
            self.state.wait_for_everyone()
            found = {seed: self._read(seed, rung.fraction)[1] for seed in seeds}
            judged = [found[seed]["scores"] for seed in seeds]
            # Files of an earlier version hold fewer.
            names = [name for name in judged[0] if all(name in each for each in judged)]
            scores = {name: [each[name] for each in judged] for name in names}
            kept = sorted(seeds[i] for i in best(choice_score(scores), rung.keep))
            report.append(
                {
                    "fraction": rung.fraction,
                    "scores": {str(seed): found[seed]["scores"] for seed in seeds},
                    "kept": kept,
                    "num_candidates": len(seeds),
                    "step_rows": found[seeds[0]]["step_rows"],
                    "judge_rows": found[seeds[0]]["judge_rows"],
                }
            )
            seeds, start = kept, rung.fraction
        return report

    def resume(self, seeds: list[int], fraction: float) -> dict[str, Any]:
        """Arguments of a call that goes on with candidates from a rung, or from the end."""
        states = [self._read(seed, fraction)[0] for seed in seeds]
        generators = []
        for state in states:
            generators.append(torch.Generator())
            generators[-1].set_state(state["generator"])
        latents = torch.stack([state["latents"] for state in states])
        return {"latents": latents, "generator": generators, "denoising_start": fraction}

    @torch.no_grad()
    def _with_embeddings(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments with the prompts encoded, once for all calls."""
        prompts = ("prompt", "audio_prompt", "negative_prompt", "negative_audio_prompt")
        embeds = self.pipe.encode_prompt(
            **{name: arguments.get(name) for name in prompts},
            lora_scale=(arguments.get("cross_attention_kwargs") or {}).get("scale"),
        )
        names = ("prompt_embeds", "negative_prompt_embeds", "audio_prompt_embeds", "negative_audio_prompt_embeds")
        others = {name: value for name, value in arguments.items() if name not in prompts}
        return {**others, **dict(zip(names, embeds))}

    def _batches(self, seeds: list[int], fraction: float) -> Iterator[list[int]]:
        """This process's share of the candidates that are not there yet."""
        mine = seeds[self.state.process_index :: self.state.num_processes]
        missing = [seed for seed in mine if not self._file(seed, fraction).exists()]
        for first in range(0, len(missing), self.batch_size):
            yield missing[first : first + self.batch_size]

    def _climb(self, seeds: list[int], start: float, end: float) -> None:
        """Denoises candidates from one rung to the next, scores them, and writes their files."""
        if start:
            begin = self.resume(seeds, start)
        else:
            begin = {"generator": [torch.Generator().manual_seed(seed) for seed in seeds]}
        expected = {}

        def note(pipe: DiffusionPipeline, step: int, timestep: torch.Tensor, tensors: dict) -> dict:
            expected.update(tensors)
            return {}

        call = {**self.arguments, **begin, "num_images_per_prompt": len(seeds)}
        with counted_rows(self.pipe) as step_rows:
            latents = self.pipe(
                **call,
                denoising_end=end,
                output_type="latent",
                callback_on_step_end=note,
                callback_on_step_end_tensor_inputs=["pred_original_sample"],
            ).images
        if end < 1 and not expected:
            raise ValueError(f"`rungs` have to be a step apart, but none is from {start} to {end} of the steps.")
        with counted_rows(self.pipe) as judge_rows:
            scores = self._judge(expected["pred_original_sample"] if end < 1 else latents, call, done=end == 1)
        self.folder.mkdir(parents=True, exist_ok=True)
        for row, (seed, generator) in enumerate(zip(seeds, call["generator"])):
            facts = {
                "scores": {name: values[row] for name, values in scores.items()},
                "step_rows": sum(step_rows) / len(seeds),
                "judge_rows": sum(judge_rows) / len(seeds),
            }
            tensors = {"latents": latents[row].cpu().contiguous(), "generator": generator.get_state()}
            with written(self._file(seed, end)) as file:
                save_file(tensors, file, metadata={"facts": json.dumps(facts)})

    def _judge(self, latents: torch.Tensor, call: dict[str, Any], done: bool) -> dict[str, list[float]]:
        """Scores of the canvases that are expected at the end; if they are `done`, `nan` for sounds with problems."""
        # A call with no step left decodes.
        output = self.pipe(**{**call, "latents": latents, "denoising_start": 1.0}, output_type="pt")
        audios = output.audios.numpy()
        scores = self.scorer(
            output.images,
            audios,
            self.pipe.sampling_rate,
            [self.prompt] * len(latents),
            [self.audio_prompt] * len(latents),
            latents,
            call.get("canvas_layout", "strip"),
        )
        off = [done and bool(audio_problems(audio)) for audio in audios]
        return {name: [math.nan if o else v for o, v in zip(off, values)] for name, values in scores.items()}

    def _file(self, seed: int, fraction: float) -> Path:
        return self.folder / f"seed-{seed:06d}-{fraction:.4f}.safetensors"

    def _read(self, seed: int, fraction: float) -> tuple[dict[str, torch.Tensor], dict]:
        path = self._file(seed, fraction)
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["facts"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"The candidate {path} can't be read: {error}. Remove it to make it anew.") from error


@contextmanager
def counted_rows(pipe: DiffusionPipeline) -> Iterator[list[int]]:
    """Rows of each forward pass of the pipeline's two UNets while it is open."""
    rows: list[int] = []
    hooks = [
        unet.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
        for unet in (pipe.unet, pipe.unet_audio)
    ]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()
