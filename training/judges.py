"""Judges of the embedded world: small classifiers of canvases, trained on draws that no checkpoint learned from."""

from pathlib import Path

import torch

from images_that_sound.pipelines import MelSpectrogram
from images_that_sound.selection import share_and_interval

from .loop import write_tensors
from .world import KINDS, draw


# Draws of these seeds are used nowhere else: training of the checkpoint takes seed 0.
JUDGE_SEED, HELD_OUT_SEED = 101, 102


def new_judge(num_classes: int, widths: tuple[int, ...] = (16, 32, 64, 96)) -> torch.nn.Module:
    """A small convolutional classifier of canvases (B, 1, 128, 512) in 0..1."""
    layers, channels = [torch.nn.AvgPool2d(2)], 1
    for width in widths:
        layers += [torch.nn.Conv2d(channels, width, 3, 2, 1), torch.nn.BatchNorm2d(width), torch.nn.ReLU()]
        channels = width
    head = [torch.nn.Conv2d(channels, channels + 32, 3, 1, 1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)]
    return torch.nn.Sequential(*layers, *head, torch.nn.Flatten(), torch.nn.Linear(channels + 32, num_classes))


def draws(kind: str, seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    canvases, labels = [], []
    for index in range(count):
        canvas, name, _ = draw(kind, seed, index)
        canvases.append(torch.from_numpy(canvas.copy()))
        labels.append(KINDS[kind].index(name))
    return torch.stack(canvases), torch.tensor(labels)


def train_judge(kind: str, folder: Path, num_draws: int = 4000, num_steps: int = 600) -> tuple[torch.nn.Module, float]:
    """
    Learns on fresh draws, half of them plain, half blurred, noisy and faintly overlaid with a draw of the other
    modality, since a canvas that is both is what it has to read.

    Args:
        kind (`str`): "picture" or "sound".
        folder (`Path`): Keeps the judge.
        num_draws (`int`, defaults to 4000): Fresh draws of the modality.
        num_steps (`int`, defaults to 600): Steps of the optimiser.

    Returns:
        `tuple[torch.nn.Module, float]`: The judge, and its accuracy on plain held-out draws.
    """
    judge = new_judge(len(KINDS[kind]))
    file = folder / f"judge-{kind}.pt"
    if file.exists():
        judge.load_state_dict(torch.load(file, weights_only=True))
    else:
        _fit_judge(kind, judge, num_draws, num_steps)
        write_tensors(file, judge.state_dict())
    canvases, labels = draws(kind, HELD_OUT_SEED, 500)
    return judge.eval(), float((recognise(judge.eval(), canvases / 255) == labels).float().mean())


def _fit_judge(kind: str, judge: torch.nn.Module, num_draws: int, num_steps: int) -> None:
    canvases, labels = draws(kind, JUDGE_SEED, num_draws)
    others, _ = draws("sound" if kind == "picture" else "picture", JUDGE_SEED, num_draws // 4)
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=num_steps)
    for step in range(num_steps):
        rows = torch.randint(len(canvases), (32,))
        batch = half_overlaid(canvases[rows] / 255, others[torch.randint(len(others), (16,))] / 255)
        loss = torch.nn.functional.cross_entropy(judge(batch[:, None]), labels[rows])
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0:
            print(f"judge of {kind}s, step {step + 1}: loss {loss.item():.3f}", flush=True)


def half_overlaid(batch: torch.Tensor, overlay: torch.Tensor) -> torch.Tensor:
    """Canvases (B, H, W), the second half of them faintly overlaid with others (B / 2, H, W), noisy and blurred."""
    weight = 0.5 * torch.rand(len(overlay), 1, 1)
    plain, mixed = batch.split([len(batch) - len(overlay), len(overlay)])
    mixed = (1 - weight) * mixed + weight * overlay + 0.1 * weight * torch.randn_like(overlay)
    blur = int(torch.randint(4, ())) * 2 + 1
    mixed = torch.nn.functional.avg_pool2d(mixed[:, None], blur, 1, blur // 2, count_include_pad=False)[:, 0]
    return torch.cat([plain, mixed])


@torch.no_grad()
def recognise(judge: torch.nn.Module, canvases: torch.Tensor) -> torch.Tensor:
    """Class numbers (B,) of canvases (B, H, W) in 0..1."""
    return torch.cat([judge(batch[:, None]).argmax(dim=1) for batch in canvases.split(50)])


def recognised(judges: dict, mel: MelSpectrogram, output: object, kind: str, names: list[str]) -> list[bool]:
    """For each sample whether it is recognised: pictures from their pixels, sounds from their waveforms."""
    if kind == "picture":
        canvases = output.images.float().mean(dim=1)
    else:
        canvases = mel.audio_to_canvas(output.audios)[:, 0]
    targets = torch.tensor([KINDS[kind].index(name) for name in names])
    return (recognise(judges[kind], canvases) == targets).tolist()


def share(count: int, total: int) -> dict:
    """A share with its 95 % interval."""
    value, low, high = share_and_interval(count, total)
    return {"count": count, "total": total, "share": value, "interval": [low, high]}
