"""
Trains the embedded checkpoint of colorization from nothing: two small pixel models in the format of DeepFloyd IF
(stage I, x4 stage II, learned variance, T5 encoder) on the drawings of `world` in colour. Stages: data,
tokenizer, text encoder, stage I, stage II. A killed run that is started again with the same arguments goes on.
"""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from images_that_sound.pipelines import FactorizedColorizationPipeline
from images_that_sound.pipelines.images_that_sound_deepfloyd import MAX_LENGTH

from . import world as drawn_world
from .loop import Run, learn_tokenizer, make_data, noised, parse_run, save, train


NOISE = {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 1000}
EMBEDDING_SIZE = 64
# Sides of a crop of the full picture that stage II learns from.
CROP = 64
# The most noise that stage II finds on its low-resolution input.
MAX_NOISE_LEVEL = 250


def describe(world: ModuleType, label: dict, colored: bool, generator: np.random.Generator) -> str:
    """A prompt for a drawing of a world, in colour or not."""
    words = world.describe("picture", label, generator)
    if not colored:
        return words
    words = words.replace(", grayscale", "").removeprefix("a painting of ").removeprefix("a picture of ")
    return f"a colorful photo of {words}"


def make_tokenizer(run: Run, world: ModuleType, labels: list[dict], vocab_size: int) -> T5Tokenizer:
    generator = np.random.default_rng(0)
    prompts = (describe(world, label, i % 2 == 0, generator) for i, label in enumerate(labels))
    return learn_tokenizer(run, T5Tokenizer, prompts, vocab_size=vocab_size, max_length=MAX_LENGTH)


def tokenize(tokenizer: T5Tokenizer, prompts: list[str], device: str) -> dict[str, torch.Tensor]:
    return tokenizer(prompts, padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt").to(
        device
    )


def train_text_encoder(run: Run, world: ModuleType, labels: list[dict], tokenizer: T5Tokenizer) -> T5EncoderModel:
    """Learns to read: the mean embedding has to tell the subject, and whether it is to be in colour."""
    subjects = world.KINDS["picture"]
    torch.manual_seed(run.seed)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=EMBEDDING_SIZE,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        use_cache=False,
    )
    text_encoder = T5EncoderModel(config)
    reader = torch.nn.ModuleDict({"text_encoder": text_encoder, "head": torch.nn.Linear(64, len(subjects) + 1)})
    reader.to(run.device)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, _ = run.generators(10, step)
        prompts, targets = [], torch.zeros(2 * run.batch_size, len(subjects) + 1)
        for row in range(len(targets)):
            label, colored = labels[int(numbers.integers(len(labels)))], row % 2
            prompts.append(describe(world, label, bool(colored), numbers))
            targets[row, subjects.index(label["name"])] = 1
            targets[row, -1] = colored
        tokens = tokenize(tokenizer, prompts, run.device)
        hidden = text_encoder(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None]
        pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        return torch.nn.functional.binary_cross_entropy_with_logits(reader["head"](pooled), targets.to(run.device))

    train(run, "text", reader, loss_of_step)
    return text_encoder.requires_grad_(False)


def new_unet(run: Run, channels: tuple[int, ...], sample_size: int, stage: int) -> UNet2DConditionModel:
    torch.manual_seed(run.seed + stage)
    plain = len(channels) - 1
    unet = UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=3 * stage,
        out_channels=6,
        layers_per_block=1,
        block_out_channels=channels,
        down_block_types=("ResnetDownsampleBlock2D",) * plain + ("SimpleCrossAttnDownBlock2D",),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D",) + ("ResnetUpsampleBlock2D",) * plain,
        act_fn="gelu",
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        attention_head_dim=16,
        cross_attention_dim=EMBEDDING_SIZE,
        cross_attention_norm="group_norm",
        encoder_hid_dim=EMBEDDING_SIZE,
        encoder_hid_dim_type="text_proj",
        class_embed_type="timestep" if stage == 2 else None,
        resnet_time_scale_shift="scale_shift",
        norm_num_groups=8,
    )
    return unet.to(run.device, memory_format=torch.channels_last)


def to_pixels(pictures: np.ndarray, colored: np.ndarray) -> torch.Tensor:
    """Pictures (B, H, W, 3) in 0..255 to (B, 3, H, W) in -1..1, in gray unless `colored` (B,)."""
    batch = torch.from_numpy(pictures.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
    gray = batch.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    return torch.where(torch.from_numpy(colored)[:, None, None, None], batch, gray)


def draw_batch(run: Run, world: ModuleType, data: tuple, numbers: np.random.Generator) -> tuple:
    """Pictures (B, H, W, 3), which of them to see in colour, and their prompts, one in eight left empty."""
    pictures, labels = data
    rows = numbers.integers(len(pictures), size=run.batch_size)
    colored = numbers.random(run.batch_size) < 0.8
    prompts = [
        "" if numbers.random() < 0.125 else describe(world, labels[row], bool(color), numbers)
        for row, color in zip(rows, colored)
    ]
    return pictures[rows], colored, prompts


def diffusion_loss(
    run: Run,
    scheduler: DDPMScheduler,
    unet: UNet2DConditionModel,
    clean: torch.Tensor,
    embeddings: torch.Tensor,
    generator: torch.Generator,
    **conditions: torch.Tensor,
) -> torch.Tensor:
    """
    The squared error of the noise, and a little of the variational bound for the variance alone (arXiv 2102.09672,
    equations 15 and 16). `conditions` may hold `upscaled` and `class_labels`.
    """
    noisy, timesteps, noise = noised(scheduler, clean, generator)
    upscaled = conditions.pop("upscaled", None)
    rows = noisy if upscaled is None else torch.cat([noisy, upscaled], dim=1)
    with run.autocast():
        predicted = unet(
            rows.contiguous(memory_format=torch.channels_last),
            timesteps,
            encoder_hidden_states=embeddings,
            **conditions,
        ).sample.float()
    noise_pred, fraction = predicted.chunk(2, dim=1)
    bound = _variance_bound(scheduler, clean, noisy, timesteps, noise_pred.detach(), fraction)
    return (noise_pred - noise).square().mean() + 1e-3 * bound


def _variance_bound(
    scheduler: DDPMScheduler,
    clean: torch.Tensor,
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    noise_pred: torch.Tensor,
    fraction: torch.Tensor,
) -> torch.Tensor:
    """Divergence of the learned step from the true one, in bits; the variance lies between its bounds."""
    alphas_cumprod = scheduler.alphas_cumprod.to(clean.device)
    now = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    before = torch.where(timesteps > 0, alphas_cumprod[(timesteps - 1).clamp(min=0)], 1.0).view(-1, 1, 1, 1)
    beta = 1 - now / before
    low = ((1 - before) / (1 - now) * beta).clamp(min=1e-20).log()
    share = (fraction + 1) / 2
    log_variance = share * beta.log() + (1 - share) * low
    predicted_clean = ((noisy - (1 - now).sqrt() * noise_pred) / now.sqrt()).clamp(-1, 1)
    mean_difference = before.sqrt() * beta / (1 - now) * (clean - predicted_clean)
    divergence = (
        -1 + log_variance - low + (low - log_variance).exp() + mean_difference.square() * (-log_variance).exp()
    )
    later = (timesteps > 0).float().view(-1, 1, 1, 1)
    return (later * 0.5 * divergence).mean() * NOISE["num_train_timesteps"] / np.log(2)


def train_stage_1(
    run: Run, world: ModuleType, data: tuple, read: Callable[[list[str]], torch.Tensor]
) -> UNet2DConditionModel:
    """Learns by turns from whole pictures at a quarter of their size and from square pieces at half of it."""
    unet, scheduler = new_unet(run, (32, 64, 96, 128), 64, stage=1), DDPMScheduler(**NOISE)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, generator = run.generators(11, step)
        pictures, colored, prompts = draw_batch(run, world, data, numbers)
        if step % 3 == 2:
            left = int(numbers.integers(pictures.shape[2] - pictures.shape[1] + 1))
            pictures = pictures[:, :, left : left + pictures.shape[1]]
        clean = to_pixels(pictures, colored).to(run.device)
        clean = torch.nn.functional.avg_pool2d(clean, 2 if step % 3 == 2 else 4)
        return diffusion_loss(run, scheduler, unet, clean, read(prompts), generator)

    train(run, "stage_1", unet, loss_of_step)
    return unet


def train_stage_2(
    run: Run, world: ModuleType, data: tuple, read: Callable[[list[str]], torch.Tensor]
) -> UNet2DConditionModel:
    """Learns from crops at full size and the same crops at a quarter of it, enlarged and with some noise."""
    unet, scheduler = new_unet(run, (32, 48, 64), 4 * CROP, stage=2), DDPMScheduler(**NOISE)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, generator = run.generators(12, step)
        pictures, colored, prompts = draw_batch(run, world, data, numbers)
        top, left = (4 * int(numbers.integers((side - CROP) // 4 + 1)) for side in pictures.shape[1:3])
        clean = to_pixels(pictures[:, top : top + CROP, left : left + CROP], colored).to(run.device)
        small = torch.nn.functional.avg_pool2d(clean, 4)
        upscaled = torch.nn.functional.interpolate(small, clean.shape[-2:], mode="bilinear", align_corners=True)
        levels = torch.randint(0, MAX_NOISE_LEVEL, (len(clean),), generator=generator).to(run.device)
        upscaled = scheduler.add_noise(
            upscaled, torch.randn(upscaled.shape, generator=generator).to(run.device), levels
        )
        conditions = {"upscaled": upscaled, "class_labels": levels}
        return diffusion_loss(run, scheduler, unet, clean, read(prompts), generator, **conditions)

    train(run, "stage_2", unet, loss_of_step)
    return unet


def train_colorization(run: Run, world: ModuleType, vocab_size: int) -> None:
    """Trains and saves the checkpoint on a world's drawings, with so many tokens."""
    data = make_data(run, world.draw, ("colored",))["colored"]
    tokenizer = make_tokenizer(run, world, data[1], vocab_size)
    text_encoder = train_text_encoder(run, world, data[1], tokenizer)

    @torch.no_grad()
    def read(prompts: list[str]) -> torch.Tensor:
        return text_encoder(**tokenize(tokenizer, prompts, run.device)).last_hidden_state

    unet = train_stage_1(run, world, data, read)
    unet_super_resolution = train_stage_2(run, world, data, read)
    learned = DDPMScheduler(**NOISE, variance_type="learned_range", clip_sample=True)
    pipe = FactorizedColorizationPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        unet=unet,
        scheduler=learned,
        unet_super_resolution=unet_super_resolution,
        scheduler_super_resolution=learned,
        image_noising_scheduler=DDPMScheduler(**NOISE),
    )
    save(pipe, run.output_dir)


def main(input_args: list[str] | None = None) -> None:
    steps = {"text": 400, "stage_1": 2400, "stage_2": 1000}
    work_dir = "outputs/train_colorization"
    run = parse_run(__doc__, input_args, work_dir=work_dir, num_draws=4000, batch_size=16, steps=steps)
    train_colorization(run, drawn_world, vocab_size=600)


if __name__ == "__main__":
    main()
