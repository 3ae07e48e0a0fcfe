"""
Random arguments for everything that is called: each call returns, or raises a `ValueError`, or a `TypeError` for a
wrong type. Absurd sizes are refused by the commands and the page, not here.

    python tests/fuzz_calls.py --num_calls 3000 --seed 0

prints each other outcome with the seed and the index that repeat it.
"""

import argparse
import inspect
import logging
import os
import random
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import PIL.Image
import torch
import transformers
from accelerate import Accelerator
from conftest import DEEPFLOYD, FIXTURES, STABLE_DIFFUSION, two_sides
from diffusers import DDIMScheduler
from diffusers.callbacks import SDCFGCutoffCallback

from images_that_sound.pipelines import (
    FactorizedColorizationPipeline,
    ImagesThatSoundBlocks,
    ImagesThatSoundImg2ImgPipeline,
    ImagesThatSoundImprintPipeline,
    ImagesThatSoundPipeline,
    ImagesThatSoundSDSPipeline,
    MelSpectrogram,
)
from images_that_sound.pipelines.images_that_sound_score_distillation import PixelCanvas
from images_that_sound.schedulers import ModalityScheduler, ScoreDistillationScheduler
from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.selection import CLAPScore, CLIPScore, prediction_lift


# Forward passes after which a call is interrupted, so that none takes long, and those of the call at work.
MOST_PASSES, PASSES = 4, Counter()


class Target(NamedTuple):
    """What is called, with arguments that are right, and the names of those that are replaced."""

    call: Callable
    arguments: dict[str, Any]
    names: list[str]


class Returning:
    """An object with the method of either kind of schedule, which returns something."""

    def __init__(self, value: Any):
        self.value = value

    def audio_noise_shares(self, num_inference_steps: int) -> Any:
        return self.value

    def draw(self, *arguments: Any) -> Any:
        return self.value


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def tensors(*shape: int) -> list[torch.Tensor]:
    """A right one, and others that are wrong in one respect."""
    right = torch.rand(shape, generator=generator())
    wrong = [right.double(), right.half(), right.to(torch.int64), right > 0.5, right.to(torch.complex64), right[0]]
    wrong += [right[None], torch.cat([right, right]), right[:0], right[..., :0], right[..., :-1], right * torch.nan]
    return [right, *wrong, right.numpy(), right.tolist(), right * 1e30, -right]


def numbers() -> list[Any]:
    return [0, 1, 2, 3, -1, 8, 16, 99, 0.0, 0.3, 1.0, 1.5, -0.5, 1e-300, 1e30] + [
        float("nan"), float("inf"), -float("inf"), np.float32(0.5), np.int64(2), torch.tensor(0.5), 1j
    ]  # fmt: skip


def words() -> list[Any]:
    strings = ["", " ", "a castle", "\0", "🏰" * 50]
    return [*strings, b"a", ["a"], ["a", "b"], ["a", 1], [""], ("a",)]


def junk() -> list[Any]:
    other = [None, [], [None], {}, {"a": 1}, (), object(), lambda *_, **__: None, Path("a"), range(3), generator()]
    return [*numbers(), *words(), *other, np.zeros(3), torch.zeros(()), torch.zeros(0), torch.float16]


def pictures() -> list[Any]:
    modes = [PIL.Image.new(mode, (16, 16)) for mode in ("RGB", "RGBA", "L", "1", "P", "CMYK", "F", "I", "I;16", "LA")]
    arrays = [np.zeros((16, 16, 3), np.uint8), np.zeros((1, 16, 16, 3), np.float32), np.array(["a"]), np.array([None])]
    mixed = [modes[:2], [modes[0], modes[0].resize((8, 8))], [modes[0], torch.zeros(3, 16, 16)], [[modes[0]]]]
    return [*modes, *arrays, *mixed, PIL.Image.new("RGB", (0, 0)), *tensors(1, 3, 16, 16), *tensors(1, 1, 16, 16)]


def callbacks() -> list[Any]:
    returned = [None, 5, {}, {"latents": 5}, {"latents": None}, {"latents": torch.zeros(1, 4, 32, 3)}, {"a": 1}, []]
    for name in ("latents", "prompt_embeds", "audio_prompt_embeds"):
        shapes = [(3, 77, 32), (2, 5, 32), (1, 77, 32), (1, 4, 32, 2), (2, 4, 32, 2)]
        returned += [{name: torch.zeros(shape)} for shape in shapes] + [{name: torch.zeros(2, 77, 32).double()}]
    cutoff = SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=0)
    return [lambda *_, value=value: value for value in returned] + [cutoff]


SPECIAL: dict[str, Callable[[], list[Any]]] = {
    "embeds": lambda: tensors(1, 77, 32) + tensors(1, 5, 32) + tensors(1, 77, 33),
    "latents": lambda: tensors(1, 4, 32, 2) + tensors(2, 4, 32, 2),
    "prompt": words,
    "prompts": words,
    "image": pictures,
    "timesteps": lambda: [[900, 100], [100, 900], [], [1000], [5.0], (3, 1), [True]],
    "sigmas": lambda: [[10.0, 1.0, 0.0], [1.0], [1.0, 2.0], ["a"], [float("nan")]],
    "scale": lambda: [*numbers(), [1.0], [0.0, 1.0], [], ["a"]],
    "ip_adapter_image_embeds": lambda: [[each] for each in tensors(2, 1, 8)] + [[], None],
    "audio": lambda: tensors(1, 3200) + tensors(3200) + tensors(1, 5) + [np.zeros(3200), np.ones(4000, np.float32)],
    "audios": lambda: [np.ones(shape, np.float32) for shape in ((1, 3200), (2, 3200), (3200,), (1, 0), (0, 5))],
    "canvas": lambda: ["pixels", "fourier", "oil", PixelCanvas, torch.nn.Linear, lambda **_: 5, torch.nn.Identity()],
    "canvases": lambda: tensors(1, 3, 256, 16) + tensors(1, 1, 256, 16),
    "spectrograms": lambda: tensors(1, 1, 256, 16) + tensors(1, 1, 8, 16),
    "log_mel": lambda: tensors(1, 256, 8) + tensors(1, 8, 8),
    "generator": lambda: [generator(), [generator()], [generator(), generator()], [None], [5], (generator(),), []],
    "callback_on_step_end": callbacks,
    "tensor_inputs": lambda: [["latents"], ["canvas"], ["a"], [["a"]], "latents", [1], ["prompt_embeds"] * 2, []],
    "cross_attention_kwargs": lambda: [{"scale": v} for v in (0.5, 0, None)],
    "audio_weight": lambda: (
        [[0.5], [0.5, 0.5], (0.5,), ModalityScheduler, ModalityScheduler()]
        + [Returning(value) for value in ([0.5], [2.0], None, "a", [None], 0.5)]
    ),
    "timestep_scheduler": lambda: (
        [ScoreDistillationScheduler, ScoreDistillationScheduler(), DDIMScheduler()]
        + [Returning(v) for v in (None, (1, 2), (torch.zeros(1), torch.zeros(1)), (torch.tensor([5]), torch.ones(1)))]
    ),
    "canvas_kwargs": lambda: [{name: value} for name in ("num_channels", "height", "a") for value in (1, 3, -1, "a")],
    "optimizer": lambda: ["SGD", "Adam", "LBFGS", "SparseAdam", "Muon", "Optimizer", "Adafactor", "__name__", "swa"],
    "optimizer_kwargs": lambda: [{"lr": -1}, {"betas": 5}, {"fused": True}, {"params": []}, {"a": 1}, {1: 2}],
    "accelerator": lambda: [Accelerator(cpu=True), None],
    "checkpoint_dir": lambda: [tempfile.mkdtemp(), "/dev/null/a", "\0", "a" * 5000, Path(tempfile.mkdtemp())],
    "output_type": lambda: ["pil", "np", "pt", "latent", "jpg", ["pil"]],
    "constants": lambda: [{name: v} for name in MelSpectrogram().to_dict() for v in (10**9, 1, -1, "a")],
    "canvas_layout": lambda: ["strip", "folded", ["strip"]],
}


def special_to(name: str) -> list[Any]:
    """Values that are nearly right for an argument; numbers for those that nothing else is known of."""
    best = [key for key in SPECIAL if name == key or name.endswith(f"_{key}")]
    return SPECIAL[max(best, key=len)]() if best else numbers()


def interrupted(pipe: diffusers.DiffusionPipeline) -> diffusers.DiffusionPipeline:
    """A pipeline that interrupts itself."""

    def count(*_: Any) -> None:
        PASSES["all"] += 1
        pipe._interrupt |= PASSES["all"] >= MOST_PASSES

    for name, module in pipe.components.items():
        if name.startswith("unet") and module is not None:
            module.register_forward_hook(count)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make_targets() -> dict[str, Target]:
    """All that is called, by name; pipelines more often than others."""
    pipe = interrupted(two_sides(ImagesThatSoundPipeline, STABLE_DIFFUSION))
    color = FactorizedColorizationPipeline.from_pretrained(DEEPFLOYD)
    color.load_super_resolution(FIXTURES / "models" / "deepfloyd-if-stage-2")
    prompts = {"prompt": "a castle", "audio_prompt": "a bell"}
    size = {"width": 16, "crop_right": 0}
    sds = {**prompts, **size, "num_iterations": 1, "image_start_step": 0, "num_crops": 1, "crop_width": 16}
    calls = {
        "two sides": (pipe, {**prompts, **size, "num_inference_steps": 1}),
        "img2img": (
            interrupted(two_sides(ImagesThatSoundImg2ImgPipeline, STABLE_DIFFUSION)),
            {**prompts, **size, "image": torch.full((1, 3, 16, 16), 0.5), "num_inference_steps": 2},
        ),
        "imprint": (
            interrupted(two_sides(ImagesThatSoundImprintPipeline, STABLE_DIFFUSION)),
            {**prompts, **size, "num_inference_steps": 1, "num_audio_inference_steps": 1},
        ),
        "sds in pixels": (interrupted(two_sides(ImagesThatSoundSDSPipeline, DEEPFLOYD)), {**sds, "canvas": "pixels"}),
        "sds in latents": (
            interrupted(two_sides(ImagesThatSoundSDSPipeline, STABLE_DIFFUSION)),
            {**sds, "canvas_kwargs": {"num_frequencies": 4, "hidden_size": 4}},
        ),
        "colorize": (
            interrupted(color),
            {"image": torch.full((1, 3, 16, 16), 0.5), "prompt": "a castle", "num_inference_steps": 1}
            | {"start_diffusion_step": 0},
        ),
    }
    targets = {}
    for name in ("sds in pixels", "sds in latents"):
        calls[name][0].unet.register_to_config(sample_size=8)
    for name, (each, arguments) in calls.items():
        targets[name] = Target(each, arguments, [key for key in inspect.signature(each.__call__).parameters])
    latents = torch.zeros(1, 4, 32, 2)
    blocks = ImagesThatSoundBlocks().init_pipeline()
    blocks.update_components(**pipe.components)
    blocks.set_progress_bar_config(disable=True)
    inputs = [each.name for each in blocks.blocks.inputs]
    mel, canvas = MelSpectrogram(), torch.full((1, 1, 256, 16), 0.5)
    sound, log_mel = torch.rand(1, 3200, generator=generator()), torch.zeros(1, 256, 16)
    lift = {"latents": latents, **prompts, "num_draws": 1}
    clip = CLIPScore.from_pretrained(EMBEDDED, subfolder="clip", dtype=torch.float32)
    clap = CLAPScore.from_pretrained(EMBEDDED, subfolder="clap", dtype=torch.float32)
    targets |= {
        "blocks": Target(blocks, {**calls["two sides"][1], "output": "images"}, inputs),
        "decode": Target(pipe.decode, {"latents": latents}, ["latents"]),
        "encode_prompt": Target(pipe.encode_prompt, prompts, [*prompts, *NEGATIVES, *EMBEDDINGS]),
        "play": Target(pipe.play, {"spectrograms": canvas}, ["spectrograms"]),
        "audio_to_log_mel": Target(mel.audio_to_log_mel, {"audio": sound}, ["audio"]),
        "audio_to_canvas": Target(mel.audio_to_canvas, {"audio": sound}, ["audio"]),
        "griffin_lim": Target(mel.griffin_lim, {"log_mel": log_mel, "num_iterations": 1}, ["log_mel"]),
        "spectrogram": Target(MelSpectrogram.from_dict, {"constants": {}}, ["constants"]),
        "modality": _constructor(ModalityScheduler),
        "score distillation": _constructor(ScoreDistillationScheduler),
        "clip": Target(clip, {"canvases": canvas, "prompts": ["a castle"]}, ["canvases", "prompts"]),
        "clap": Target(
            clap,
            {"audios": np.ones((1, 3200), np.float32), "sampling_rate": 16000, "prompts": ["a bell"]},
            ["audios", "sampling_rate", "prompts"],
        ),
        "lift": Target(lambda **kwargs: prediction_lift(pipe, **kwargs), lift, list(lift)),
    }
    return targets


EMBEDDINGS = ("prompt_embeds", "negative_prompt_embeds", "audio_prompt_embeds", "negative_audio_prompt_embeds")
NEGATIVES = ("negative_prompt", "negative_audio_prompt")


def _constructor(scheduler_class: type) -> Target:
    return Target(scheduler_class, {}, [key for key in inspect.signature(scheduler_class).parameters])


def draw_arguments(target: Target, source: random.Random) -> dict[str, Any]:
    """The right arguments with one to three of them replaced."""
    arguments = dict(target.arguments)
    for name in source.sample(target.names, min(source.choice((1, 1, 1, 2, 3)), len(target.names))):
        arguments[name] = source.choice(special_to(name) if source.random() < 0.7 else junk())
        words = name.removesuffix("_embeds")
        if words != name and words in arguments and source.random() < 0.8:
            arguments[words] = None
    return arguments


def run_call(targets: dict[str, Target], seed: int, index: int) -> tuple[str, str, dict[str, Any], Exception | None]:
    """Name of the target, `"result"`, `"refused"` or `"broken"`, what was replaced, and what was raised."""
    PASSES.clear()
    source = random.Random(f"{seed} {index}")
    names = list(targets)
    name = source.choice(names[:6] if source.random() < 0.75 else names[6:])
    arguments = draw_arguments(targets[name], source)
    given = {key: value for key, value in arguments.items() if value is not targets[name].arguments.get(key, ...)}
    try:
        targets[name].call(**arguments)
    except (ValueError, TypeError) as error:
        return name, "refused", given, error
    except Exception as error:
        return name, "broken", given, error
    return name, "result", given, None


def silence() -> None:
    """What is logged or warned of is not what is looked for."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    transformers.logging.set_verbosity_error()


def stop_endless(*_: Any) -> None:
    raise TimeoutError("the call does not end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_calls", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="Index of the first call.")
    parser.add_argument("--most_seconds", type=int, default=120, help="After which a call counts as endless.")
    parser.add_argument("--traceback", action="store_true")
    args = parser.parse_args()
    silence()
    signal.signal(signal.SIGALRM, stop_endless)
    targets, outcomes, seconds, start = make_targets(), Counter(), Counter(), time.time()
    # Where folders appear that calls name.
    os.chdir(tempfile.mkdtemp())
    for index in range(args.first, args.first + args.num_calls):
        began = time.time()
        signal.alarm(args.most_seconds)
        name, outcome, given, error = run_call(targets, args.seed, index)
        outcomes[outcome] += 1
        if outcome == "broken":
            shown = {key: repr(value)[:120] for key, value in given.items()}
            print(f"--seed {args.seed} --first {index} {name}: {type(error).__name__}: {error!s:.200} {shown}")
            if args.traceback:
                traceback.print_exception(error)
        seconds[name] += time.time() - began
        if index % 500 == 499:
            print(index + 1 - args.first, "calls:", dict(outcomes), flush=True)
    print("Seconds:", {name: round(value) for name, value in seconds.most_common(8)})
    print(f"{dict(outcomes)} of {args.num_calls} calls in {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
