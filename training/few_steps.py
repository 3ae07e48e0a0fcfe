"""
Distils the embedded pair by latent consistency (arXiv 2310.04378): one LoRA for each side (arXiv 2311.05556), which
together reach in one step what the guided mean of both reaches in many. Stages: canvases that the pair composes,
LoRAs. A killed run that is started again with the same arguments goes on from its last state.
"""

from collections.abc import Callable

import numpy as np
import torch
from diffusers import LCMScheduler, UniPCMultistepScheduler
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.scripts.common.files import written
from images_that_sound.scripts.common.models import EMBEDDED

from .loop import NOISE, Run, parse_run, tokenize, train, trapezoid, write_tensors
from .world import KINDS, describe, draw


# Composed canvases: how many are made at once, and in how many steps.
BATCH_SIZE, CANVAS_STEPS = 50, 10
# Levels of the teacher. One of its steps leads from one of so many levels of noise to the next.
GUIDANCE_SCALE, NUM_LEVELS = 10.0, 25
RANK = 12
LAYERS = [
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj"),
]
# Constant of the pseudo-Huber loss.
HUBER = 0.001
SIDES = ("unet", "unet_audio")


# -------------------- Canvases --------------------


def prompts_of(run: Run, number: int) -> tuple[list[str], list[str]]:
    """Prompts of a batch of canvases: each picture and sound equally often, in random pairs."""
    numbers = np.random.default_rng([run.seed, 7, number])
    prompts = []
    for kind in KINDS:
        labels = []
        while len(labels) < BATCH_SIZE:
            _, name, attributes = draw(kind, run.seed, int(numbers.integers(2**31)))
            labels.append({"name": name, "attributes": attributes})
        prompts.append([describe(kind, label, numbers) for label in labels])
    return prompts[0], prompts[1]


@torch.no_grad()
def make_canvases(
    run: Run, pipe: ImagesThatSoundPipeline, prompts_of: Callable[[Run, int], tuple[list[str], list[str]]], **size: int
) -> tuple[torch.Tensor, list[str], list[str]]:
    """
    Latents (N, C, h, w) that the pair composes, and their prompts, from disk if they are there. `prompts_of` gives the
    prompts of a batch by its number, `size` is that of the pipeline's call.
    """
    pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config)
    latents, prompts, audio_prompts = [], [], []
    for number in range(run.num_draws // BATCH_SIZE):
        image, audio = prompts_of(run, number)
        path = run.work_dir / f"composed-{number:04d}.pt"
        if not path.exists():
            generator = torch.Generator().manual_seed(run.seed + number)
            steps = {"num_inference_steps": CANVAS_STEPS, "output_type": "latent"}
            output = pipe(image, audio, generator=generator, **steps, **size)
            write_tensors(path, output.images.float().cpu())
            print(f"composed {number + 1} of {run.num_draws // BATCH_SIZE} batches", flush=True)
        latents.append(torch.load(path, weights_only=True))
        prompts += image
        audio_prompts += audio
    return torch.cat(latents), prompts, audio_prompts


# -------------------- Training --------------------


class Levels:
    """The levels of noise, and what `LCMScheduler` makes of a noise prediction at each."""

    def __init__(self, device: str) -> None:
        scheduler = LCMScheduler(**NOISE, original_inference_steps=NUM_LEVELS)
        self.step = NOISE["num_train_timesteps"] // NUM_LEVELS
        self.signal = scheduler.alphas_cumprod.to(device)
        self.boundary = scheduler.get_scalings_for_boundary_condition_discrete

    def scales(self, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Shares of signal and noise, `(B, 1, 1, 1)` each."""
        signal = self.signal[timesteps][:, None, None, None]
        return signal.sqrt(), (1 - signal).sqrt()

    def clean(self, noisy: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        alpha, sigma = self.scales(timesteps)
        return (noisy - sigma * noise) / alpha

    def next(
        self, noisy: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The next level's latents by a step of DDIM (arXiv 2010.02502, equation 12), and its timesteps."""
        nearer = (timesteps - self.step).clamp(min=0)
        alpha, sigma = self.scales(nearer)
        return alpha * self.clean(noisy, noise, timesteps) + sigma * noise, nearer

    def consistent(self, noisy: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The consistency function (equation 9 of the paper)."""
        skip, out = (each[:, None, None, None] for each in self.boundary(timesteps))
        return skip * noisy + out * self.clean(noisy, noise, timesteps)


def train_loras(
    run: Run,
    pipe: ImagesThatSoundPipeline,
    canvases: tuple[torch.Tensor, list[str], list[str]],
    guidance_scale: float = GUIDANCE_SCALE,
) -> None:
    """Adds a LoRA to each side and trains both at once, since only their mean is asked to be consistent."""
    latents, *prompts = canvases
    levels = Levels(run.device)
    unets = [getattr(pipe, side).requires_grad_(False) for side in SIDES]
    torch.manual_seed(run.seed)
    for unet in unets:
        unet.to(memory_format=torch.channels_last)
        unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=LAYERS))
    loras = torch.nn.ParameterList(each for unet in unets for each in unet.parameters() if each.requires_grad)
    print(f"{sum(each.numel() for each in loras)} parameters", flush=True)
    with torch.no_grad():
        nothing = pipe.text_encoder(tokenize(pipe.tokenizer, [""], run.device)).last_hidden_state
        embeddings = [read_all(pipe, each, run.device) for each in prompts]

    def student(noisy: torch.Tensor, timesteps: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        with run.autocast():
            noises = [unet(noisy, timesteps, read[rows]).sample.float() for unet, read in zip(unets, embeddings)]
        return sum(noises) / 2

    @torch.no_grad()
    def teacher(noisy: torch.Tensor, timesteps: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        noises = []
        both, times = torch.cat([noisy] * 2).contiguous(memory_format=torch.channels_last), torch.cat([timesteps] * 2)
        for unet, read in zip(unets, embeddings):
            unet.disable_adapters()
            with run.autocast():
                told = torch.cat([nothing.expand(len(noisy), -1, -1), read[rows]])
                unconditional, conditional = unet(both, times, told).sample.float().chunk(2)
            unet.enable_adapters()
            noises.append(unconditional + guidance_scale * (conditional - unconditional))
        return sum(noises) / 2

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, generator = run.generators(0, step)
        rows = numbers.integers(len(latents), size=run.batch_size)
        clean = latents[rows].to(run.device)
        level = torch.from_numpy(numbers.integers(NUM_LEVELS, size=run.batch_size)).to(run.device)
        timesteps = (level + 1) * levels.step - 1
        alpha, sigma = levels.scales(timesteps)
        noisy = alpha * clean + sigma * torch.randn(clean.shape, generator=generator).to(run.device)
        with torch.no_grad():
            closer, nearer = levels.next(noisy, teacher(noisy, timesteps, rows), timesteps)
            target = levels.consistent(closer, student(closer, nearer, rows), nearer)
        found = levels.consistent(noisy, student(noisy, timesteps, rows), timesteps)
        return ((found - target).square() + HUBER**2).sqrt().mean() - HUBER

    train(run, "lora", loras, loss_of_step, learning_rate_at=trapezoid)


@torch.no_grad()
def read_all(pipe: ImagesThatSoundPipeline, prompts: list[str], device: str) -> torch.Tensor:
    """Embeddings (N, L, D) of prompts."""
    batches = [prompts[first : first + BATCH_SIZE] for first in range(0, len(prompts), BATCH_SIZE)]
    return torch.cat([pipe.text_encoder(tokenize(pipe.tokenizer, each, device)).last_hidden_state for each in batches])


def save_loras(run: Run, pipe: ImagesThatSoundPipeline) -> None:
    """Writes both LoRAs as float16 into one file, which `load_few_step_lora_weights` takes."""
    weights = {
        f"{side}.{name}": value.detach().cpu().half().contiguous()
        for side in SIDES
        for name, value in get_peft_model_state_dict(getattr(pipe, side)).items()
    }
    run.output_dir.mkdir(parents=True, exist_ok=True)
    with written(run.output_dir / "pytorch_lora_weights.safetensors") as file:
        save_file(weights, file)


def main(input_args: list[str] | None = None) -> None:
    steps, work_dir = {"lora": 2000}, "outputs/train_few_steps"
    run = parse_run(__doc__, input_args, work_dir=work_dir, num_draws=1000, batch_size=8, steps=steps)
    pipe = ImagesThatSoundPipeline.from_pretrained(EMBEDDED).to(run.device)
    pipe.set_progress_bar_config(disable=True)
    train_loras(run, pipe, make_canvases(run, pipe, prompts_of))
    save_loras(run, pipe)


if __name__ == "__main__":
    main()
