"""
Measures a LoRA of own sounds on the embedded checkpoint, with a sound that its world lacks: shots of a laser, which
are synthesised here. A judge that steers nothing tells it from the world's ten sounds.

    python -m benchmarks.own_sounds --make my_sounds                # ten sounds to learn from
    images-that-sound train-lora --audio_dir my_sounds --output_dir my_lora
    python -m benchmarks.own_sounds --audio_lora my_lora
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile
import torch

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.scripts.common.files import write_json
from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.scripts.common.own_files import source_and_weight
from images_that_sound.scripts.common.presets import WORLD_PROMPTS
from images_that_sound.selection import CLIPScore
from training.judges import HELD_OUT_SEED, JUDGE_SEED, draws, half_overlaid, new_judge, recognise, share
from training.loop import write_tensors
from training.world import SOUNDS, SPECTROGRAM, WIDTH


CAPTION = "laser shots"
NUM_SOUNDS = 10
# The number of the new sound among the judge's classes, after the world's.
LASER = len(SOUNDS)
PICTURES = ("castle", "kitten", "train", "tiger", "pond")
# Seeds that nothing else uses.
FIRST_SEED = 700_000


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make", type=Path, metavar="FOLDER", help="Write ten sounds to learn from, and stop.")
    parser.add_argument(
        "--audio_lora", help="The LoRA to measure, and perhaps its weight: FOLDER:0.6. Without one, the checkpoint is."
    )
    parser.add_argument("--work_dir", type=Path, default="outputs/own_sounds", help="Keeps the judge and the numbers.")
    parser.add_argument("--num_samples", type=int, default=20, help="Of the new sound alone, and with pictures.")
    parser.add_argument("--num_others", type=int, default=5, help="Samples of each of the world's sounds, alone.")
    return parser.parse_args()


# -------------------- Sounds --------------------


def shot(numbers: np.random.Generator, sampling_rate: int) -> np.ndarray:
    """A tone that falls by octaves within a third of a second, with a little of its overtones."""
    length = numbers.uniform(0.2, 0.45)
    time = np.arange(round(length * sampling_rate)) / sampling_rate
    high, low = numbers.uniform(3500, 6500), numbers.uniform(150, 400)
    frequency = low + (high - low) * np.exp(-time / (length * numbers.uniform(0.2, 0.35)))
    phase = 2 * np.pi * np.cumsum(frequency) / sampling_rate
    tone = np.sin(phase) + 0.3 * np.sin(2 * phase) * (2 * frequency < sampling_rate / 2)
    return tone * np.minimum(time / 0.005, 1) * np.exp(-2.5 * time / length)


def lasers(numbers: np.random.Generator, seconds: float, sampling_rate: int = 16000) -> np.ndarray:
    """Shots at intervals of a gun's own, as float32 waveform of shape (N,)."""
    audio = np.zeros(round(seconds * sampling_rate))
    interval, start = numbers.uniform(0.35, 0.7), numbers.uniform(0.0, 0.2)
    gun = int(numbers.integers(2**31))
    while start < seconds:
        one = shot(np.random.default_rng(gun), sampling_rate)
        begin = round(start * sampling_rate)
        part = audio[begin : begin + len(one)]
        part += numbers.uniform(0.7, 1.0) * one[: len(part)]
        start += interval * numbers.uniform(0.95, 1.05)
    audio += 0.002 * numbers.standard_normal(len(audio))
    return (0.9 * audio / np.abs(audio).max()).astype(np.float32)


def write_sounds(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(NUM_SOUNDS):
        numbers = np.random.default_rng([1, i])
        rate = int(numbers.choice([16000, 22050, 44100, 48000]))
        audio = lasers(numbers, float(numbers.uniform(0.8, 7.0)), rate)
        soundfile.write(folder / f"{CAPTION.replace(' ', '_')}-{i:02d}.wav", audio, rate)


def canvases_of_lasers(seed: int, count: int) -> torch.Tensor:
    """Canvases (B, H, W) in 0..1 of sounds as long as a canvas, or shorter with silence after them."""
    canvases = []
    for i in range(count):
        numbers = np.random.default_rng([seed, 2, i])
        whole = WIDTH / SPECTROGRAM.columns_per_second
        audio = lasers(numbers, whole if i % 2 else float(numbers.uniform(0.8, whole)))
        audio = np.pad(audio, (0, round(whole * SPECTROGRAM.sampling_rate) - len(audio)))
        canvases.append(SPECTROGRAM.audio_to_canvas(torch.from_numpy(audio))[0])
    return torch.stack(canvases)


# -------------------- Judge --------------------


def labelled(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Canvases (B, H, W) in 0..1 of the world's sounds and, a tenth as many, of the new one, with their classes."""
    canvases, labels = draws("sound", seed, count)
    new = canvases_of_lasers(seed, count // 10)
    return torch.cat([canvases / 255, new]), torch.cat([labels, torch.full((len(new),), LASER)])


def trained_judge(folder: Path, num_draws: int = 800, num_steps: int = 200) -> torch.nn.Module:
    """Half of what it learns from is overlaid with pictures, which it has to hear through."""
    judge, file = new_judge(LASER + 1), folder / "judge.pt"
    if file.exists():
        judge.load_state_dict(torch.load(file, weights_only=True))
        return judge.eval()
    canvases, labels = labelled(JUDGE_SEED, num_draws)
    pictures = draws("picture", JUDGE_SEED, num_draws // 4)[0] / 255
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=num_steps)
    for _ in range(num_steps):
        rows = torch.randint(len(canvases), (24,))
        batch = half_overlaid(canvases[rows], pictures[torch.randint(len(pictures), (12,))])
        torch.nn.functional.cross_entropy(judge(batch[:, None]), labels[rows]).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    write_tensors(file, judge.state_dict())
    return judge.eval()


# -------------------- Samples --------------------


class Listener:
    """A pipeline and the judges of what it makes: the CLIP that ships tells the world's pictures apart."""

    def __init__(self, pipe: ImagesThatSoundPipeline, judge: torch.nn.Module):
        self.pipe, self.judge = pipe, judge
        self.clip = CLIPScore.from_pretrained(EMBEDDED, subfolder="clip", dtype=torch.float32)
        self.pictures = list(WORLD_PROMPTS["picture"].values())
        self.prompts = self.clip.embed_prompts(self.pictures)

    @torch.no_grad()
    def judged(self, prompts: list[str], audio_prompt: str, **kwargs: object) -> tuple[list[int], list[bool]]:
        """For each prompt of a picture the class of sound that is heard, and whether the picture is recognised."""
        found, seen = [], []
        for first in range(0, len(prompts), 10):
            batch = prompts[first : first + 10]
            generators = [torch.Generator().manual_seed(FIRST_SEED + first + i) for i in range(len(batch))]
            output = self.pipe(batch, audio_prompt, generator=generators, output_type="pt", **kwargs)
            canvases = self.pipe.mel_spectrogram.audio_to_canvas(output.audios)[:, 0]
            found += recognise(self.judge, canvases).tolist()
            for prompt, image in zip(batch, output.images.float()):
                likeness = (self.clip.embed_canvases(image[None])[0] @ self.prompts.T).mean(dim=0)
                seen.append(self.pictures[int(likeness.argmax())] == prompt)
        return found, seen


def counted(name: str, classes: list[int], wanted: list[int]) -> dict:
    """How many are recognised, and as what the others are heard."""
    missed = [(*SOUNDS, "laser")[found] for found, each in zip(classes, wanted) if found != each]
    row = {**share(len(classes) - len(missed), len(classes)), "heard_instead": missed}
    print(name, row, flush=True)
    return row


def measure(listener: Listener, num_samples: int, num_others: int) -> dict:
    alone, new = {"audio_weight": 1.0, "image_guidance_start": 0.0}, [LASER] * num_samples
    report = {"laser alone": counted("laser alone", listener.judged([""] * num_samples, CAPTION, **alone)[0], new)}
    pictures = [WORLD_PROMPTS["picture"][PICTURES[i % len(PICTURES)]] for i in range(num_samples)]
    classes, seen = listener.judged(pictures, CAPTION)
    report["laser with pictures"] = counted("laser with pictures", classes, new)
    both = [heard == LASER and shown for heard, shown in zip(classes, seen)]
    for name, flags in (("their pictures", seen), ("both", both)):
        report[name] = share(sum(flags), len(flags))
        print(name, report[name], flush=True)
    if not num_others:
        return report
    classes = []
    for name in SOUNDS:
        classes += listener.judged([""] * num_others, WORLD_PROMPTS["sound"][name], **alone)[0]
    wanted = np.repeat(np.arange(len(SOUNDS)), num_others).tolist()
    return {**report, "the others alone": counted("the others alone", classes, wanted)}


def main() -> None:
    args = parse_args()
    if args.make:
        write_sounds(args.make)
        return
    judge = trained_judge(args.work_dir)
    canvases, labels = labelled(HELD_OUT_SEED, 200)
    right = recognise(judge, canvases) == labels
    print("judge on held-out draws:", share(int(right.sum()), len(right)))
    pipe = ImagesThatSoundPipeline.from_pretrained(EMBEDDED)
    pipe.set_progress_bar_config(disable=True)
    if args.audio_lora:
        source, weight = source_and_weight(args.audio_lora)
        pipe.audio.load_lora_weights(source, adapter_name="own")
        pipe.audio.set_adapters("own", weight)
    report = measure(Listener(pipe, judge), args.num_samples, args.num_others)
    write_json(args.work_dir / f"{Path(args.audio_lora).name if args.audio_lora else 'without'}.json", report)


if __name__ == "__main__":
    main()
