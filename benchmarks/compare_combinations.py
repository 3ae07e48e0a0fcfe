"""
An experiment: is there a better way to combine two noise predictions than their plain average? On the embedded
checkpoint, at equal UNet rows, for 20 pairs of prompts, judged by the two classifiers of `training.judges`.

- average: the pipeline's call.
- stochastic average: the same, but by ancestral Euler steps, which add fresh noise; the control of the next.
- AND: ancestral Euler steps whose weight lets both models' densities of the sample rise alike (SuperDiff, arXiv
  2412.17762, here for two networks; `and_weight` has the derivation).
- steered: DDIM steps whose weight leans, for each sample, to the modality that the embedded CLIP and CLAP find weaker
  on the predicted clean canvas.

A stopped run goes on.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler
from diffusers.utils.torch_utils import randn_tensor

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.pipelines.images_that_sound_noise_shares import audio_noise_shares
from images_that_sound.scripts.common.files import write_json
from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.scripts.common.presets import MIXED_PAIRS, WORLD_PROMPTS
from images_that_sound.selection import CLAPScore, CLIPScore, Scorer
from training.judges import recognised, share, train_judge
from training.world import KINDS


STEPS, GUIDANCE = 25, 10.0
# The steps after which steering looks at the predicted canvas, and how far a weight may lean.
LOOKS, LEAN = (6, 12), 0.25


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", default="compare_combinations", help="A file for each method and pair.")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--num_samples", type=int, default=15, help="Seeds of each pair.")
    parser.add_argument("--batch_size", type=int, default=15)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="Default: %(default)s.")
    parser.add_argument("--judge_draws", type=int, default=4000)
    parser.add_argument("--judge_steps", type=int, default=600)
    return parser.parse_args()


def and_weight(step: dict) -> torch.Tensor:
    """
    The audio side's weight (B, 1, 1, 1) by which both log-densities change alike over a step.

    In variance-exploding coordinates, with noise level s and noise prediction v, the score is -v / s, and densities
    obey the heat equation. By Itô's rule a step dx, whose noise has the variance 2 s |ds|, changes log p by
    -<v, dx> / s - |ds| |v|^2 / s: the Laplacians of both cancel. With dx = dx_image + w (dx_audio - dx_image), equal
    changes for the image model's v and the audio model's u ask for
        <dx, u - v> = |ds| (|v|^2 - |u|^2), so
        w = [|ds| (|v|^2 - |u|^2) - <dx_image, u - v>] / <dx_audio - dx_image, u - v>.
    v and u are predictions with their prompts; the steps are along the guided ones.
    """
    dot = lambda one, other: (one * other).sum(dim=(1, 2, 3), keepdim=True)  # noqa: E731
    v, u = step["image_text"], step["audio_text"]
    change = step["sigma"] - step["sigma_next"]
    target = change * (dot(v, v) - dot(u, u))
    weight = (target - dot(step["dx_image"], u - v)) / dot(step["dx_audio"] - step["dx_image"], u - v)
    return weight.clamp(0, 1)


def ancestral(weight_of: Callable[[dict], torch.Tensor | float]) -> Callable:
    """Sampling by ancestral Euler steps, the weight of the audio side given by `weight_of`."""

    @torch.no_grad()
    def sample(pipe: ImagesThatSoundPipeline, scorer: Scorer, prompts: tuple, generators: list) -> torch.Tensor:
        count = len(generators)
        embeds = pipe.encode_prompt([prompts[0]] * count, [prompts[1]] * count)
        scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
        scheduler.set_timesteps(STEPS)
        pipe._cross_attention_kwargs, pipe.scheduler = None, scheduler
        shape = (pipe.unet.config.in_channels, 16, 64)
        latents = randn_tensor((count, *shape), generator=generators) * scheduler.init_noise_sigma

        def predict(
            unet: torch.nn.Module, text: torch.Tensor, negative: torch.Tensor, timestep: torch.Tensor
        ) -> tuple:
            # Guidance of 0 and 1 from one pass: rows without and with the prompt.
            rows = scheduler.scale_model_input(torch.cat([latents] * 2), timestep).to(unet.dtype)
            both = unet(rows, timestep, encoder_hidden_states=torch.cat([negative, text]), return_dict=False)[0]
            without, with_text = both.float().chunk(2)
            return with_text, without + GUIDANCE * (with_text - without)

        for i, (timestep, audio_share) in enumerate(zip(scheduler.timesteps, audio_noise_shares(STEPS))):
            scheduler._step_index = i
            sigma, sigma_next = scheduler.sigmas[i], scheduler.sigmas[i + 1]
            up = (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5
            down = (sigma_next**2 - up**2) ** 0.5
            noise = randn_tensor(latents.shape, generator=generators) * up
            audio_text, audio = predict(pipe.unet_audio, embeds[2], embeds[3], timestep)
            if audio_share == 1:
                latents = latents + (down - sigma) * audio + noise
                continue
            image_text, image = predict(pipe.unet, embeds[0], embeds[1], timestep)
            step = {"sigma": sigma, "sigma_next": sigma_next, "image_text": image_text, "audio_text": audio_text}
            step["dx_image"], step["dx_audio"] = (down - sigma) * image + noise, (down - sigma) * audio + noise
            weight = weight_of(step)
            latents = latents + step["dx_image"] + weight * (step["dx_audio"] - step["dx_image"])
        return latents.to(pipe.unet.dtype)

    return sample


def average(pipe: ImagesThatSoundPipeline, scorer: Scorer, prompts: tuple, generators: list) -> torch.Tensor:
    return pipe(*prompts, num_images_per_prompt=len(generators), generator=generators, output_type="latent").images


def keep(expected: list, pipe: ImagesThatSoundPipeline, step: int, timestep: torch.Tensor, tensors: dict) -> dict:
    """A callback that collects the latents that are expected in the end."""
    expected.append(tensors["pred_original_sample"])
    return {}


@torch.no_grad()
def steered(pipe: ImagesThatSoundPipeline, scorer: Scorer, prompts: tuple, generators: list) -> torch.Tensor:
    """Each sample's weight, from one look to the next, is 0.5 and what its scores differ by, within limits."""
    latents, weights, edges = None, [0.5] * len(generators), [0, *LOOKS, STEPS]
    for first, last in zip(edges, edges[1:]):
        parts, expected = [], []
        for row, generator in enumerate(generators):
            call = {"latents": latents[row : row + 1]} if first else {"generator": generator}
            part = pipe(
                *prompts,
                **call,
                audio_weight=weights[row],
                denoising_start=first / STEPS,
                denoising_end=last / STEPS,
                output_type="latent",
                callback_on_step_end=partial(keep, expected),
                callback_on_step_end_tensor_inputs=["pred_original_sample"],
            )
            parts.append(part.images)
        latents = torch.cat(parts)
        if last < STEPS:
            steps = last - first
            clean = torch.cat(expected[steps - 1 :: steps])
            scores = judged(pipe, scorer, prompts, clean)
            weights = [0.5 + max(-LEAN, min(LEAN, clip - clap)) for clip, clap in zip(scores["clip"], scores["clap"])]
    return latents


def judged(pipe: ImagesThatSoundPipeline, scorer: Scorer, prompts: tuple, latents: torch.Tensor) -> dict:
    output = decode(pipe, prompts, latents)
    rows = [[prompt] * len(latents) for prompt in prompts]
    return scorer(output.images, output.audios.numpy(), pipe.sampling_rate, *rows)


def decode(pipe: ImagesThatSoundPipeline, prompts: tuple, latents: torch.Tensor) -> object:
    return pipe(*prompts, num_images_per_prompt=len(latents), latents=latents, denoising_start=1.0, output_type="pt")


METHODS = {
    "average": average,
    "stochastic average": ancestral(lambda step: 0.5),
    "AND": ancestral(and_weight),
    "steered": steered,
}


def main() -> None:
    args = parse_args()
    Path(args.work_dir).mkdir(parents=True, exist_ok=True)
    pipe = ImagesThatSoundPipeline.from_pretrained(EMBEDDED, dtype=getattr(torch, args.dtype))
    pipe.set_progress_bar_config(disable=True)
    ddim = pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    judges = {kind: train_judge(kind, Path(args.work_dir), args.judge_draws, args.judge_steps)[0] for kind in KINDS}
    scorer = Scorer(
        CLIPScore.from_pretrained(EMBEDDED, subfolder="clip", dtype=torch.float32),
        CLAPScore.from_pretrained(EMBEDDED, subfolder="clap", dtype=torch.float32),
    )
    report = {}
    for method in args.methods:
        counts = {"picture": 0, "sound": 0, "both": 0}
        for picture, sound in MIXED_PAIRS:
            file = Path(args.work_dir) / f"{method.replace(' ', '-')}-{picture}-{sound}.json"
            if not file.exists():
                prompts = (WORLD_PROMPTS["picture"][picture], WORLD_PROMPTS["sound"][sound])
                rows = []
                for first in range(0, args.num_samples, args.batch_size):
                    seeds = range(first, min(first + args.batch_size, args.num_samples))
                    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
                    pipe.scheduler = ddim
                    latents = METHODS[method](pipe, scorer, prompts, generators)
                    pipe.scheduler = ddim
                    output = decode(pipe, prompts, latents)
                    seen = recognised(judges, pipe.mel_spectrogram, output, "picture", [picture] * len(seeds))
                    heard = recognised(judges, pipe.mel_spectrogram, output, "sound", [sound] * len(seeds))
                    rows += list(zip(seen, heard))
                write_json(file, rows)
            for seen, heard in json.loads(file.read_text(encoding="utf-8")):
                counts["picture"] += seen
                counts["sound"] += heard
                counts["both"] += seen and heard
        total = len(MIXED_PAIRS) * args.num_samples
        report[method] = {name: share(count, total) for name, count in counts.items()}
        write_json(Path(args.work_dir) / "report.json", report)
        cells = [
            f"{name} {each['share']:.0%} ({each['interval'][0]:.0%} to {each['interval'][1]:.0%})"
            for name, each in report[method].items()
        ]
        print(f"{method:<20} {total} samples: " + ", ".join(cells), flush=True)


if __name__ == "__main__":
    main()
