"""
Measures the VAE: how many of 500 fresh sounds a judge recognises that are played from their spectrogram by
Griffin-Lim, and how many if the spectrogram has gone through the VAE before. Writes vae.json and vae.png.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from diffusers import AutoencoderKL

from images_that_sound.pipelines import MelSpectrogram
from images_that_sound.scripts.common.files import write_json

from .judges import half_overlaid, new_judge, recognise, share
from .loop import write_tensors
from .open_world.squares import Squares, make_squares, sound_square
from .open_world.vocabulary import SOUNDS
from .vae import encode


# Variants of sounds from these numbers on are used nowhere else.
JUDGE_VARIANTS, HELD_OUT_VARIANTS = range(1000, 1020), range(2000, 2005)
# Fewer rounds than for sounds that are played, for a thousand of them.
HEARING = MelSpectrogram(inverse_filter_iterations=20, griffin_lim_iterations=12)


def fresh_sounds(variants: range, file: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Squares (N, 256, 256) of these variants of all sounds, in 0..1, and their numbers (N,)."""
    if not file.exists():
        write_tensors(file, torch.stack([torch.from_numpy(sound_square(n, v)[0]) for n in SOUNDS for v in variants]))
    labels = torch.arange(len(SOUNDS)).repeat_interleave(len(variants))
    return torch.load(file, weights_only=True) / 255, labels


def train_judge(squares: torch.Tensor, labels: torch.Tensor, file: Path, num_steps: int) -> torch.nn.Module:
    """Learns to name squares (N, H, W) in 0..1, half of them fainter, blurred and noisy."""
    torch.manual_seed(0)
    judge = new_judge(int(labels.max()) + 1, (24, 48, 96, 160))
    if file.exists():
        judge.load_state_dict(torch.load(file, weights_only=True))
        return judge.eval()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=num_steps)
    for step in range(num_steps):
        rows = torch.randint(len(squares), (32,))
        batch = half_overlaid(squares[rows], torch.zeros(16, *squares.shape[1:]))
        loss = torch.nn.functional.cross_entropy(judge(batch[:, None]), labels[rows])
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0:
            print(f"judge, step {step + 1}: loss {loss.item():.3f}", flush=True)
    write_tensors(file, judge.state_dict())
    return judge.eval()


def heard(squares: torch.Tensor) -> torch.Tensor:
    """Squares (N, H, W) in 0..1 as they are heard: played by Griffin-Lim, and drawn again."""
    batches = [HEARING.canvas_to_audio(batch[:, None]) for batch in squares.split(20)]
    return torch.cat([HEARING.audio_to_canvas(batch)[:, 0, :, : squares.shape[-1]] for batch in batches])


@torch.no_grad()
def through_vae(vae: AutoencoderKL, squares: torch.Tensor) -> torch.Tensor:
    """Squares (N, H, W) in 0..1, encoded and decoded."""
    latents = encode(vae, (squares * 255).numpy())
    decoded = torch.cat([vae.decode(batch).sample.mean(dim=1) for batch in latents.split(16)])
    return (decoded / 2 + 0.5).clamp(0, 1)


def draw_sheet(vae: AutoencoderKL, data: dict[str, Squares], file: Path) -> None:
    """Squares above what the VAE makes of them."""
    rows = [*data["picture"].pixels[::100][:4], *data["wild"].pixels[:2], *data["sound"].pixels[7::53][:8]]
    squares = torch.from_numpy(np.stack(rows)) / 255
    pairs = torch.cat([squares, through_vae(vae, squares)])
    lines = [torch.cat(list(each), dim=1) for each in pairs.split(7)]
    sheet = torch.cat([lines[0], lines[2], lines[1], lines[3]])
    PIL.Image.fromarray(sheet.mul(255).byte().numpy()).save(file)


def main(input_args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default="training/checkpoints/vae", help="Folder of the VAE.")
    parser.add_argument("--work_dir", type=Path, default="outputs/open_world", help="Keeps squares and judge.")
    parser.add_argument("--output", type=Path, default="training/checkpoints", help="Folder for vae.json and vae.png.")
    parser.add_argument("--judge_steps", type=int, default=900)
    args = parser.parse_args(input_args)
    vae = AutoencoderKL.from_pretrained(args.model)
    data = make_squares(args.work_dir, num_draws=1000)
    draw_sheet(vae, data, args.output / "vae.png")
    squares, labels = fresh_sounds(JUDGE_VARIANTS, args.work_dir / "judge-sounds.pt")
    judge = train_judge(squares, labels, args.work_dir / "judge-sound.pt", args.judge_steps)
    squares, labels = fresh_sounds(HELD_OUT_VARIANTS, args.work_dir / "held-out-sounds.pt")
    decoded = through_vae(vae, squares)
    canvases = {
        "drawn": squares,
        "heard": heard(squares),
        "decoded": decoded,
        "decoded and heard": heard(decoded),
    }
    report = {"error": float((decoded - squares).abs().mean()), "lost variance": lost_variance(decoded, squares)}
    for name, each in canvases.items():
        right = recognise(judge, each) == labels
        report[name] = share(int(right.sum()), len(right))
    write_json(args.output / "vae.json", report)
    print(json.dumps(report, indent=1))


def lost_variance(decoded: torch.Tensor, squares: torch.Tensor) -> float:
    """Share of the squares' variance that is lost."""
    return float((decoded - squares).square().mean() / squares.var())


if __name__ == "__main__":
    main()
