"""Common parts of the trainings: arguments, drawn data, a loop that goes on after a kill, and saving."""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, DiffusionPipeline, ModelMixin, UNet2DConditionModel
from diffusers.training_utils import EMAModel, compute_snr
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedTokenizerBase

from images_that_sound.scripts.common.files import write_json, written


SHARD_SIZE = 500
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


@dataclass(frozen=True)
class Run:
    """A training run, as the arguments of `parse_run` describe it; `steps` are those of each stage."""

    output_dir: Path
    work_dir: Path
    device: str
    seed: int
    num_draws: int
    batch_size: int
    learning_rate: float
    save_every: int
    bfloat16: bool
    steps: dict[str, int]
    compile: bool = False

    def autocast(self) -> torch.autocast:
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bfloat16)

    def log(self, **entry: object) -> None:
        line = json.dumps(entry)
        print(line, flush=True)
        self.work_dir.mkdir(parents=True, exist_ok=True)
        with open(self.work_dir / "log.jsonl", "a") as file:
            file.write(line + "\n")

    def generators(self, stage: int, step: int) -> tuple[np.random.Generator, torch.Generator]:
        """Sources of all that a step of a stage draws, so that a resumed run equals one that was never killed."""
        numbers = np.random.default_rng([self.seed, stage, step])
        return numbers, torch.Generator().manual_seed(int(numbers.integers(2**62)))


def parse_run(
    description: str,
    input_args: list[str] | None,
    *,
    work_dir: str,
    num_draws: int,
    batch_size: int,
    steps: dict[str, int],
) -> Run:
    """Reads a run from the command line. Each stage has an argument such as `--vae_steps`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder for the finished checkpoint.")
    parser.add_argument("--work_dir", type=Path, default=work_dir, help="Data, checkpoints, log.jsonl.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_draws", type=int, default=num_draws, help="Draws of each kind to learn from.")
    for stage, count in steps.items():
        parser.add_argument(f"--{stage}_steps", type=int, default=count, help="Default: %(default)s.")
    parser.add_argument("--batch_size", type=int, default=batch_size)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--save_every", type=int, default=200, help="Steps between checkpoints.")
    parser.add_argument("--bfloat16", action="store_true", help="Run forward passes in bfloat16.")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="Compile the UNets, which takes minutes at first (`embedded` and `open_embedded`).",
    )
    values = vars(parser.parse_args(input_args))
    values["steps"] = {stage: values[f"{stage}_steps"] for stage in steps}
    return Run(**{field.name: values[field.name] for field in fields(Run)})


# -------------------- Data --------------------


def _draw_shard(task: tuple[Callable, str, int, int, Path]) -> None:
    draw_one, kind, seed, shard, path = task
    torch.set_num_threads(1)
    draws = [draw_one(kind, seed, shard * SHARD_SIZE + i) for i in range(SHARD_SIZE)]
    write_json(path.with_suffix(".json"), [{"name": name, "attributes": attributes} for _, name, attributes in draws])
    with written(path) as file:
        np.save(file, np.stack([canvas for canvas, _, _ in draws]))


def make_data(
    run: Run, draw_one: Callable[[str, int, int], tuple], kinds: tuple[str, ...]
) -> dict[str, tuple[np.ndarray, list[dict]]]:
    """
    Draws missing data on disk.

    Args:
        run ([`Run`]): Its folder gets the shards.
        draw_one (`Callable`): From a kind, a seed and an index to an array, the name of what it shows and attributes.
        kinds (`tuple[str, ...]`): Kinds to draw.

    Returns:
        `dict`: For each kind the stacked arrays, such as canvases `(N, H, W)` as uint8, and their labels.
    """
    start = time.time()
    shards = range(run.num_draws // SHARD_SIZE)
    paths = {kind: [run.work_dir / f"{kind}-{shard:04d}.npy" for shard in shards] for kind in kinds}
    tasks = [(draw_one, kind, run.seed, shard, paths[kind][shard]) for kind in kinds for shard in shards]
    missing = [task for task in tasks if not task[-1].exists()]
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        for count, _ in enumerate(pool.imap_unordered(_draw_shard, missing), start=1):
            print(f"drawn {count} of {len(missing)} shards", flush=True)
    data = {
        kind: (
            np.concatenate([np.load(path, allow_pickle=False) for path in paths[kind]]),
            [label for path in paths[kind] for label in json.loads(path.with_suffix(".json").read_text())],
        )
        for kind in kinds
    }
    run.log(stage="data", kinds=kinds, seconds=round(time.time() - start, 1))
    return data


def learn_tokenizer(
    run: Run, tokenizer_class: type, prompts: Iterable[str], vocab_size: int, max_length: int
) -> PreTrainedTokenizerBase:
    """
    A tokenizer whose pieces are learned from the world's prompts, from disk if an earlier run wrote it: learned
    again, it numbers its tokens otherwise.
    """
    folder = run.work_dir / "tokenizer"
    if folder.exists():
        return tokenizer_class.from_pretrained(folder)
    tokenizer = tokenizer_class().train_new_from_iterator(prompts, vocab_size=vocab_size)
    tokenizer.model_max_length = max_length
    with written(folder) as partial_folder:
        tokenizer.save_pretrained(partial_folder)
    return tokenizer


def tokenize(tokenizer: PreTrainedTokenizerBase, prompts: list[str], device: str) -> torch.Tensor:
    tokens = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
    return tokens.input_ids.to(device)


def mostly(prompt: Callable[[], object], numbers: np.random.Generator, empty: object = "") -> object:
    """A prompt, or its embedding; one in eight is `empty`, for guidance."""
    return empty if numbers.random() < 0.125 else prompt()


# -------------------- Training --------------------


def noised(
    scheduler: DDPMScheduler, clean: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy ones of clean samples (B, C, H, W) at random timesteps, the timesteps (B,), and the noise."""
    noise = torch.randn(clean.shape, generator=generator).to(clean.device)
    timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(clean),), generator=generator)
    timesteps = timesteps.to(clean.device)
    return scheduler.add_noise(clean, noise, timesteps), timesteps, noise


def min_snr_weights(scheduler: DDPMScheduler, timesteps: torch.Tensor) -> torch.Tensor:
    """Weights (B,) of errors of the noise that keep details, which hardly count, from ruling (arXiv 2303.09556)."""
    signal_to_noise = compute_snr(scheduler, timesteps)
    return signal_to_noise.clamp(max=5) / signal_to_noise


def velocity_weights(scheduler: DDPMScheduler, timesteps: torch.Tensor) -> torch.Tensor:
    """Weights (B,) that make errors of the noise those of the velocity (arXiv 2202.00512)."""
    return 1 + 1 / compute_snr(scheduler, timesteps)


def noise_loss(predicted: torch.Tensor, noise: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The squared error of predicted noise (B, C, H, W), samples weighted by (B,)."""
    return (weights * (predicted - noise).square().mean(dim=(1, 2, 3))).mean()


def trapezoid(share: float) -> float:
    """Share of the highest learning rate after a share of all steps: a short rise, a plateau, a long way down."""
    return min(share / 0.02 + 1e-3, 1.0, (1 - share) / 0.3)


def train(
    run: Run,
    stage: str,
    model: torch.nn.Module,
    loss_of_step: Callable[[int], torch.Tensor],
    *,
    learning_rate_at: Callable[[float], float] | None = None,
    average_decay: float = 0.998,
    betas: tuple[float, float] = (0.9, 0.999),
) -> None:
    """
    Minimises `loss_of_step(step)` with AdamW, a one-cycle learning rate and an average of the weights, which `model`
    holds in the end. Every draw is seeded by its step, so that a resumed run equals one that was never killed.

    Args:
        run ([`Run`]): Its folder gets the checkpoint.
        stage (`str`): Name of the checkpoint, and of the steps in `run.steps`; no steps change nothing.
        model (`torch.nn.Module`): All its parameters are trained.
        loss_of_step (`Callable`): From a step, whose draws `run.generators` makes, to the loss.
        learning_rate_at (`Callable`, *optional*): Instead of one cycle: from the share of the steps that are done to
            the share of the highest learning rate. A run may then go on to another number of steps than it began with.
        average_decay (`float`, defaults to 0.998): Decay of the average of the weights.
        betas (`tuple[float, float]`): AdamW's decays of the averages of gradients and of their squares.
    """
    num_steps = run.steps[stage]
    if num_steps == 0:
        model.eval()
        return
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.learning_rate, betas=betas, weight_decay=1e-2)
    if learning_rate_at is None:
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, run.learning_rate, total_steps=num_steps, pct_start=0.1
        )
    else:
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_at(step / num_steps))
    average = EMAModel(model.parameters(), decay=average_decay)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "average": average}
    first_step = _resume(run, stage, parts)
    model.train()
    losses, start = [], time.time()
    for step in range(first_step, num_steps):
        # Dropout draws from the global generator.
        torch.manual_seed(run.seed + step)
        # On a CPU plain matrix products go backwards many times faster than the fused attention.
        with sdpa_kernel(SDPBackend.MATH):
            loss = loss_of_step(step)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        average.step(model.parameters())
        losses.append(loss.item())
        is_last = step + 1 == num_steps
        if (step + 1) % 50 == 0 or is_last:
            run.log(stage=stage, step=step + 1, loss=float(np.mean(losses)), seconds=round(time.time() - start, 1))
            losses = []
        if (step + 1) % run.save_every == 0 or is_last:
            state = {"step": step + 1, **{name: part.state_dict() for name, part in parts.items()}}
            write_tensors(run.work_dir / f"{stage}.pt", state)
    average.copy_to(model.parameters())
    model.eval()


def train_unet(
    run: Run,
    kind: str,
    unet: UNet2DConditionModel,
    batch_of_step: Callable[[int, np.random.Generator], tuple[torch.Tensor, list[str]]],
    read: Callable[[list[str]], torch.Tensor],
    *,
    weights_of: Callable[[DDPMScheduler, torch.Tensor], torch.Tensor] = min_snr_weights,
    **schedule: object,
) -> None:
    """
    Learns to predict noise. `batch_of_step` gives clean latents (B, C, H, W) and their prompts, `read` the embeddings
    (B, L, D) of prompts, `weights_of` the weights (B,) of the errors at timesteps, `schedule` what else `train` takes.
    """
    scheduler = DDPMScheduler(**NOISE)
    if run.compile:
        unet.compile(dynamic=False)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, generator = run.generators(2 if kind == "picture" else 3, step)
        clean, prompts = batch_of_step(step, numbers)
        embeddings = read(prompts)
        noisy, timesteps, noise = noised(scheduler, clean.to(run.device), generator)
        with run.autocast():
            predicted = unet(noisy.contiguous(memory_format=torch.channels_last), timesteps, embeddings).sample.float()
        return noise_loss(predicted, noise, weights_of(scheduler, timesteps))

    train(run, {"picture": "image", "sound": "audio"}[kind], unet, loss_of_step, **schedule)


def _resume(run: Run, stage: str, parts: dict) -> int:
    """Loads what an earlier run wrote into the parts; returns the number of steps that it took."""
    checkpoint = run.work_dir / f"{stage}.pt"
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, map_location=run.device, weights_only=True)
    step = state.pop("step")
    for name, part_state in state.items():
        parts[name].load_state_dict(part_state)
    return step


def small_text_config(tokenizer: PreTrainedTokenizerBase, width: int = 64) -> dict:
    """The size of the checkpoints' text models, in CLIP's and RoBERTa's words."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def write_tensors(path: Path, content: object) -> None:
    with written(path) as file:
        torch.save(content, file)


def save_model(model: ModelMixin, folder: Path) -> None:
    """Writes one model of a checkpoint with float16 weights, without the path that it came from."""
    model.to("cpu", torch.float16).save_pretrained(folder)
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text())
    config.pop("_name_or_path", None)
    write_json(config_file, config)


def save(pipe: DiffusionPipeline, output_dir: Path) -> None:
    """Writes a checkpoint with float16 weights that load as float32 unless asked otherwise."""
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            component.to("cpu", torch.float16)
    pipe.save_pretrained(output_dir)
    load_as_float32(output_dir / "text_encoder")


def load_as_float32(folder: Path) -> None:
    """Says so in a model's config: transformers would take the weights' type for the one to compute in."""
    config_file = folder / "config.json"
    write_json(config_file, {**json.loads(config_file.read_text()), "dtype": "float32"})
