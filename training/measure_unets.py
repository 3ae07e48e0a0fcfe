"""
Measures the UNets on squares: judges of latents, trained on squares with noise and with overlays of the other kind,
count how often they recognise samples of one side alone, and of both sides by the method's mean. Writes unets.json and
unets.png.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from images_that_sound.scripts.common.files import write_json

from .judges import share
from .loop import NOISE, tokenize
from .open_world.squares import Squares, describe, make_squares
from .unets import latents_of


# Draws of these seeds are used nowhere else.
PROMPT_SEED, NOISE_SEED, JUDGE_SEED = 103, 30_000, 101
# The image side is silent in the first steps, as in the pipelines.
IMAGE_START = 0.1
# Weight of the audio noise, and the guidance scales.
SETTINGS = {
    "picture alone": (0.0, 3.0),
    "sound alone": (1.0, 3.0),
    "guidance 5": (0.5, 5.0),
    "guidance 7.5": (0.5, 7.5),
    "guidance 10": (0.5, 10.0),
}


def new_judge(channels: int, num_classes: int) -> torch.nn.Module:
    """A small classifier of latents (B, C, 16, 16)."""
    layers = []
    for width, stride in ((48, 1), (64, 2), (96, 2), (128, 1)):
        layers += [torch.nn.Conv2d(channels, width, 3, stride, 1), torch.nn.BatchNorm2d(width), torch.nn.ReLU()]
        channels = width
    head = [torch.nn.AdaptiveMaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(4 * channels, num_classes)]
    return torch.nn.Sequential(*layers, *head)


def overlaid(latents: torch.Tensor, others: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Latents (B, C, H, W), most of them mixed with up to 0.6 of others and noisy."""
    weight, mixed, strength = torch.rand(3, len(latents), 1, 1, 1, generator=generator)
    weight = 0.6 * weight * (mixed < 0.6)
    noise = torch.randn(latents.shape, generator=generator)
    return (1 - weight) * latents + weight * others + 0.3 * strength * noise


def train_judge(
    latents: torch.Tensor, labels: torch.Tensor, others: torch.Tensor, num_steps: int
) -> tuple[torch.nn.Module, float, float]:
    """A judge, and what it recognises of plain squares and of overlaid ones."""
    torch.manual_seed(JUDGE_SEED)
    generator = torch.Generator().manual_seed(JUDGE_SEED)
    judge = new_judge(latents.shape[1], int(labels.max()) + 1)
    optimizer = torch.optim.AdamW(judge.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=num_steps)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.randint(len(latents), (count,), generator=generator)
        overlay = others[torch.randint(len(others), (count,), generator=generator)]
        return overlaid(latents[rows], overlay, generator), labels[rows]

    for _ in range(num_steps):
        batch, targets = draw(128)
        torch.nn.functional.cross_entropy(judge(batch), targets).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    judge.eval()
    batch, targets = draw(1000)
    with torch.no_grad():
        plain = (judge(latents).argmax(dim=1) == labels).float().mean().item()
        return judge, plain, (judge(batch).argmax(dim=1) == targets).float().mean().item()


class Sampler:
    """Both sides on squares: the mean of two predictions, DDIM, no pipeline around it."""

    def __init__(self, folder: Path, num_steps: int) -> None:
        # Without the audio UNet pictures alone are measured.
        names = [name for name in ("unet", "unet_audio") if (folder / name).exists()]
        self.unets = [UNet2DConditionModel.from_pretrained(folder / name) for name in names]
        self.text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.scheduler = DDIMScheduler(**NOISE, clip_sample=False, timestep_spacing="trailing")
        self.scheduler.set_timesteps(num_steps)
        self.generator = torch.Generator().manual_seed(NOISE_SEED)

    def read(self, prompts: list[str]) -> torch.Tensor:
        return self.text_encoder(tokenize(self.tokenizer, prompts, "cpu")).last_hidden_state

    @torch.no_grad()
    def sample(self, prompts: tuple[list[str], list[str]], audio_weight: float, guidance_scale: float) -> torch.Tensor:
        """Latents (B, C, 16, 16) of picture prompts and sound prompts."""
        count, channels = len(prompts[0]), self.unets[0].config.in_channels
        embeddings = [torch.cat([self.read([""] * count), self.read(each)]) for each in prompts]
        latents = torch.randn(count, channels, 16, 16, generator=self.generator)
        for i, timestep in enumerate(self.scheduler.timesteps):
            weight = (
                audio_weight if audio_weight in (0, 1) or i >= IMAGE_START * len(self.scheduler.timesteps) else 1.0
            )
            noise = 0
            for unet, share_of_side, read in zip(self.unets, (1 - weight, weight), embeddings):
                if share_of_side:
                    without, known = unet(torch.cat([latents, latents]), timestep, read).sample.chunk(2)
                    noise = noise + share_of_side * (without + guidance_scale * (known - without))
            latents = self.scheduler.step(noise, timestep, latents).prev_sample
        return latents


def chosen(data: dict[str, Squares], count: int) -> dict[str, tuple[list[str], list[str]]]:
    """For pictures and sounds names by chance, and a prompt for each."""
    picks = {}
    for kind in ("picture", "sound"):
        numbers = np.random.default_rng([PROMPT_SEED, len(kind)])
        labels = [data[kind].labels[row] for row in numbers.integers(len(data[kind].labels), size=count)]
        picks[kind] = ([label["name"] for label in labels], [describe(kind, label, numbers) for label in labels])
    return picks


def tops(judge: torch.nn.Module, latents: torch.Tensor, targets: torch.Tensor) -> dict[int, torch.Tensor]:
    """Whether each target is among the first and among the first five that the judge names."""
    with torch.no_grad():
        best = judge(latents).topk(5, dim=1).indices == targets[:, None]
    return {top: best[:, :top].any(dim=1) for top in (1, 5)}


def main(input_args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default="training/checkpoints", help="Folder of what was trained.")
    parser.add_argument("--work_dir", type=Path, default="outputs/open_world", help="Keeps the squares.")
    parser.add_argument("--output", type=Path, default="training/checkpoints", help="Folder for unets.json and .png.")
    parser.add_argument("--num_samples", type=int, default=500)
    parser.add_argument("--num_inference_steps", type=int, default=15)
    parser.add_argument("--judge_steps", type=int, default=700)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    args = parser.parse_args(input_args)
    vae = AutoencoderKL.from_pretrained(args.model / "vae").requires_grad_(False)
    data = make_squares(args.work_dir, num_draws=1000, kinds=("picture", "sound"))
    latents = {kind: latents_of(args.work_dir, vae, kind, data[kind].pixels) for kind in data}
    names = {kind: list(dict.fromkeys(label["name"] for label in data[kind].labels)) for kind in data}
    targets = {kind: torch.tensor([names[kind].index(label["name"]) for label in data[kind].labels]) for kind in data}
    judges, report = {}, {}
    for kind, other in (("picture", "sound"), ("sound", "picture")):
        judges[kind], plain, mixed = train_judge(latents[kind], targets[kind], latents[other], args.judge_steps)
        report[f"judge of {kind}s"] = {"plain": plain, "overlaid": mixed}
    print(json.dumps(report), flush=True)
    picks, sampler, rows = chosen(data, args.num_samples), Sampler(args.model, args.num_inference_steps), []
    wanted = {kind: torch.tensor([names[kind].index(name) for name in picks[kind][0]]) for kind in picks}
    for setting in args.settings:
        made = torch.cat(
            [
                sampler.sample(tuple(picks[kind][1][i : i + 50] for kind in picks), *SETTINGS[setting])
                for i in range(0, args.num_samples, 50)
            ]
        )
        found = {kind: tops(judges[kind], made, wanted[kind]) for kind in judges}
        report[setting] = {
            f"{kind} top {top}": share(int(found[kind][top].sum()), len(made)) for kind in found for top in (1, 5)
        } | {
            f"both top {top}": share(int((found["picture"][top] & found["sound"][top]).sum()), len(made))
            for top in (1, 5)
        }
        print(setting, {name: round(each["share"], 3) for name, each in report[setting].items()}, flush=True)
        with torch.no_grad():
            rows.append((vae.decode(made[:12]).sample.mean(dim=1) / 2 + 0.5).clamp(0, 1))
        write_json(args.output / "unets.json", report)
        sheet = torch.cat([torch.cat(list(row), dim=1) for row in rows])
        PIL.Image.fromarray(sheet.mul(255).byte().numpy()).resize((12 * 128, 128 * len(rows))).save(
            args.output / "unets.png"
        )


if __name__ == "__main__":
    main()
