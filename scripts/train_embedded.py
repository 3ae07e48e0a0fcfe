"""
Trains the embedded checkpoint from nothing: a small Stable Diffusion whose world is drawn and synthesised by
`embedded_world`. Stages: data, tokenizer, text encoder, VAE, image UNet, audio UNet (from the image one). A killed run
that is started again with the same arguments goes on where it was.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel, compute_snr
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerBase

from images_that_sound.pipelines import ImagesThatSoundPipeline, MelSpectrogram
from images_that_sound.scripts.embedded_world import (
    SOUNDS,
    SUBJECTS,
    describe_picture,
    describe_sound,
    draw_picture,
    make_sound,
)


HEIGHT, WIDTH = 128, 512
SPECTROGRAM = MelSpectrogram(num_mel_bins=HEIGHT)
KINDS = {"picture": SUBJECTS, "sound": SOUNDS}
SHARD_SIZE = 500
CROP_WIDTH = 128
LATENT_CHANNELS = 4
# Directions of the latent space below this share of the strongest one's variance are the VAE's own noise.
VARIANCE_FLOOR = 3e-4
# What calls of the pipelines do on this checkpoint where arguments are left out.
DEFAULT_ARGUMENTS = {
    "height": HEIGHT,
    "width": WIDTH,
    "crop_right": 0,
    "num_inference_steps": 25,
    "num_audio_inference_steps": 25,
    "num_crops": 1,
    "crop_width": WIDTH,
    "num_iterations": 2000,
    "image_start_step": 250,
}
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", required=True, help="Where the finished checkpoint is saved.")
    parser.add_argument("--work_dir", default="train_embedded", help="Data, checkpoints and log.jsonl of this run.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_draws", type=int, default=8000, help="Draws of each modality to learn from.")
    parser.add_argument("--text_steps", type=int, default=800)
    parser.add_argument("--vae_steps", type=int, default=1600)
    parser.add_argument("--image_steps", type=int, default=4500)
    parser.add_argument("--audio_steps", type=int, default=3000)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--save_every", type=int, default=200, help="Steps between checkpoints.")
    parser.add_argument("--bfloat16", action="store_true", help="Run forward passes in bfloat16.")
    return parser.parse_args(input_args)


# -------------------- Data --------------------


def draw(kind: str, seed: int, index: int) -> tuple[np.ndarray, str, dict]:
    """
    One training draw: canvas of shape (H, W), or (H, W, 3) for a "colored" one, as uint8, the name of what it shows,
    and the drawing's attributes. A colored picture is the picture of the same numbers in colour.
    """
    generator = np.random.default_rng([seed, {"picture": 0, "sound": 1, "colored": 0}[kind], index])
    if kind == "sound":
        audio, name, attributes = draw_waveform(generator)
        canvas = SPECTROGRAM.audio_to_canvas(torch.from_numpy(audio))[0]
        return canvas.mul(255).round().byte().numpy(), name, attributes
    name = str(generator.choice(SUBJECTS))
    picture, attributes = draw_picture(name, generator, HEIGHT, WIDTH, colored=kind == "colored")
    return np.asarray(picture), name, attributes


def draw_waveform(generator: np.random.Generator) -> tuple[np.ndarray, str, dict]:
    """A sound as waveform of shape (N,), the name of what it is, and its attributes."""
    name = str(generator.choice(SOUNDS))
    length_in_s = WIDTH / SPECTROGRAM.columns_per_second
    audio, attributes = make_sound(name, generator, length_in_s, SPECTROGRAM.sampling_rate)
    return audio, name, attributes


def _draw_shard(task: tuple[Callable, str, int, int, str]) -> None:
    draw_one, kind, seed, shard, path = task
    torch.set_num_threads(1)
    draws = [draw_one(kind, seed, shard * SHARD_SIZE + i) for i in range(SHARD_SIZE)]
    labels = [{"name": name, "attributes": attributes} for _, name, attributes in draws]
    write_atomically(Path(path).with_suffix(".json"), lambda file: file.write(json.dumps(labels).encode()))
    write_atomically(Path(path), lambda file: np.save(file, np.stack([canvas for canvas, _, _ in draws])))


def make_data(
    args: argparse.Namespace, kinds: tuple[str, ...] = ("picture", "sound"), draw_one: Callable = draw
) -> dict[str, tuple[np.ndarray, list[dict]]]:
    """
    Draws what is missing on disk by `draw_one(kind, seed, index)`; returns for each kind the stacked arrays, such as
    canvases (N, H, W) as uint8, and their labels.
    """
    paths = {
        kind: [Path(args.work_dir) / f"{kind}-{shard:04d}.npy" for shard in range(args.num_draws // SHARD_SIZE)]
        for kind in kinds
    }
    tasks = [
        (draw_one, kind, args.seed, i, str(path))
        for kind in kinds
        for i, path in enumerate(paths[kind])
        if not path.exists()
    ]
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        for count, _ in enumerate(pool.imap_unordered(_draw_shard, tasks), start=1):
            print(f"drawn {count} of {len(tasks)} shards", flush=True)
    return {
        kind: (
            np.concatenate([np.load(path, allow_pickle=False) for path in paths[kind]]),
            [label for path in paths[kind] for label in json.loads(path.with_suffix(".json").read_text())],
        )
        for kind in kinds
    }


def describe(kind: str, label: dict, generator: np.random.Generator) -> str:
    """A prompt for a labelled draw, worded anew at every call."""
    words = describe_picture if kind == "picture" else describe_sound
    return words(label["name"], label["attributes"], generator)


def write_atomically(path: Path, write: Callable) -> None:
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as file:
        write(file)
    os.replace(temporary, path)


# -------------------- Training loop --------------------


def train(
    args: argparse.Namespace, stage: str, model: torch.nn.Module, loss_of_step: Callable, num_steps: int
) -> None:
    """
    Minimises `loss_of_step(step)` with AdamW, a one-cycle learning rate and an average of the weights, which `model`
    holds in the end. Every draw is seeded by its step, so that a resumed run equals one that was never killed.
    """
    checkpoint = Path(args.work_dir) / f"{stage}.pt"
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.learning_rate, total_steps=num_steps, pct_start=0.1)
    average = EMAModel(model.parameters(), decay=0.998)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "average": average}
    first_step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=args.device, weights_only=True)
        first_step = state.pop("step")
        for name, part_state in state.items():
            parts[name].load_state_dict(part_state)
    model.train()
    losses, start = [], time.time()
    for step in range(first_step, num_steps):
        # Dropout draws from the global generator.
        torch.manual_seed(args.seed + step)
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
        if (step + 1) % 50 == 0 or step + 1 == num_steps:
            log(args, stage=stage, step=step + 1, loss=float(np.mean(losses)), seconds=round(time.time() - start, 1))
            losses = []
        if (step + 1) % args.save_every == 0 or step + 1 == num_steps:
            state = {"step": step + 1, **{name: part.state_dict() for name, part in parts.items()}}
            write_atomically(checkpoint, partial(torch.save, state))
    average.copy_to(model.parameters())
    model.eval()


def autocast(args: argparse.Namespace) -> torch.autocast:
    return torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.bfloat16)


def log(args: argparse.Namespace, **entry: object) -> None:
    line = json.dumps(entry)
    print(line, flush=True)
    with open(Path(args.work_dir) / "log.jsonl", "a") as file:
        file.write(line + "\n")


def generators_of_step(args: argparse.Namespace, stage: int, step: int) -> tuple[np.random.Generator, torch.Generator]:
    numbers = np.random.default_rng([args.seed, stage, step])
    return numbers, torch.Generator().manual_seed(int(numbers.integers(2**62)))


# -------------------- Stages --------------------


def learn_tokenizer(
    args: argparse.Namespace, tokenizer_class: type, prompts: Iterable[str], vocab_size: int, max_length: int
) -> PreTrainedTokenizerBase:
    """
    A tokenizer whose pieces are learned from the world's prompts, from disk where an earlier run wrote it: learned
    again, it numbers its tokens otherwise.
    """
    folder = Path(args.work_dir) / "tokenizer"
    if folder.exists():
        return tokenizer_class.from_pretrained(folder)
    tokenizer = tokenizer_class().train_new_from_iterator(prompts, vocab_size=vocab_size)
    tokenizer.model_max_length = max_length
    partial_folder = folder.with_name("tokenizer.part")
    tokenizer.save_pretrained(partial_folder)
    os.replace(partial_folder, folder)
    return tokenizer


def make_tokenizer(args: argparse.Namespace, data: dict) -> CLIPTokenizer:
    generator = np.random.default_rng(0)
    prompts = (describe(kind, label, generator) for kind in data for label in data[kind][1])
    return learn_tokenizer(args, CLIPTokenizer, prompts, vocab_size=1024, max_length=77)


def tokenize(tokenizer: CLIPTokenizer, prompts: list[str], device: str) -> torch.Tensor:
    tokens = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
    return tokens.input_ids.to(device)


def train_text_encoder(args: argparse.Namespace, data: dict, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Learns to read: the pooled embedding has to tell what is described, and each attribute of the drawing."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=256,
        projection_dim=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(args.seed)
    text_encoder = CLIPTextModel(config).to(args.device)
    facts = {kind: [_facts(kind, label) for label in data[kind][1]] for kind in data}
    names = sorted({fact for kind in facts for each in facts[kind] for fact in each})
    reader = torch.nn.ModuleDict({"text_encoder": text_encoder, "head": torch.nn.Linear(64, len(names))})
    reader.to(args.device)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, _ = generators_of_step(args, 0, step)
        prompts, targets = [], torch.zeros(2 * args.batch_size, len(names))
        for row in range(2 * args.batch_size):
            kind = ("picture", "sound")[row % 2]
            index = int(numbers.integers(len(facts[kind])))
            prompts.append(describe(kind, data[kind][1][index], numbers))
            targets[row, [names.index(fact) for fact in facts[kind][index]]] = 1
        pooled = text_encoder(tokenize(tokenizer, prompts, args.device)).pooler_output
        return torch.nn.functional.binary_cross_entropy_with_logits(reader["head"](pooled), targets.to(args.device))

    train(args, "text_encoder", reader, loss_of_step, args.text_steps)
    return text_encoder.requires_grad_(False)


def _facts(kind: str, label: dict) -> list[str]:
    words = [f"{kind}={label['name']}"]
    return words + [f"{kind}.{key}={value}" for key, value in label["attributes"].items() if isinstance(value, str)]


def train_vae(args: argparse.Namespace, data: dict) -> AutoencoderKL:
    """Learns to draw both pictures and spectrograms, and mixtures of the two, from a latent of 1/8 of the size."""
    torch.manual_seed(args.seed)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        scaling_factor=1.0,
        sample_size=WIDTH,
    ).to(args.device, memory_format=torch.channels_last)
    # Under the full noise of an untrained posterior it would learn to leave the latents empty.
    torch.nn.init.constant_(vae.quant_conv.bias[LATENT_CHANNELS:], -6.0)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, generator = generators_of_step(args, 1, step)
        batch = to_vae_input(_mixed_crops(data, numbers, max(args.batch_size // 4, 1)), args.device)
        with autocast(args):
            posterior = vae.encode(batch).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(args.device)
            decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        error = decoded.float() - batch
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        return error.abs().mean() + 0.5 * edges + 3e-4 * posterior.kl().float().mean() / posterior.mean[0].numel()

    train(args, "vae", vae, loss_of_step, args.vae_steps)
    return vae.requires_grad_(False)


def _mixed_crops(data: dict, numbers: np.random.Generator, batch_size: int) -> np.ndarray:
    crops = np.empty((batch_size, HEIGHT, CROP_WIDTH), np.float32)
    for row in range(batch_size):
        picture, sound = (_random_crop(data[kind][0], numbers) for kind in ("picture", "sound"))
        weight = (0.0, 1.0, numbers.random())[row % 3]
        crops[row] = weight * picture + (1 - weight) * sound
    return crops


def _random_crop(canvases: np.ndarray, numbers: np.random.Generator) -> np.ndarray:
    left = int(numbers.integers(WIDTH - CROP_WIDTH + 1))
    return canvases[int(numbers.integers(len(canvases)))][:, left : left + CROP_WIDTH].astype(np.float32)


def to_vae_input(canvases: np.ndarray, device: str) -> torch.Tensor:
    """Canvases (B, H, W) in 0..255 to pictures (B, 3, H, W) in -1..1."""
    batch = torch.from_numpy(np.asarray(canvases, np.float32))[:, None] / 127.5 - 1
    return batch.expand(-1, 3, -1, -1).to(device, memory_format=torch.channels_last)


@torch.no_grad()
def encode_data(args: argparse.Namespace, data: dict, vae: AutoencoderKL) -> dict[str, torch.Tensor]:
    """Latent means (N, C, H / 8, W / 8) of all draws, from disk where an earlier run wrote them."""
    path = Path(args.work_dir) / "latents.pt"
    if path.exists():
        return torch.load(path, weights_only=True)
    latents = {}
    for kind, (canvases, _) in data.items():
        batches = []
        for batch in np.split(canvases, range(50, len(canvases), 50)):
            with autocast(args):
                batches.append(vae.encode(to_vae_input(batch, args.device)).latent_dist.mean.half().cpu())
        latents[kind] = torch.cat(batches)
    write_atomically(path, lambda file: torch.save(latents, file))
    return latents


def whiten(vae: AutoencoderKL, latents: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Folds into the VAE's outer 1x1 convolutions that latents have zero mean and uncorrelated channels of unit variance.
    What a small VAE tells of details is otherwise drowned by one direction, the brightness, and lost to diffusion's
    noise first.
    """
    vae.cpu()
    values = torch.cat([latents[kind].double().transpose(0, 1).flatten(1) for kind in latents], dim=1)
    mean = values.mean(dim=1)
    variances, directions = torch.linalg.eigh(torch.cov(values))
    print(f"variances of the latents: {variances.tolist()}", flush=True)
    scales = variances.clamp(min=VARIANCE_FLOOR * variances.max()).sqrt()
    to_white, from_white = (directions / scales).T, directions * scales
    channels = len(mean)
    with torch.no_grad():
        quant, post_quant = vae.quant_conv, vae.post_quant_conv
        quant.weight[:channels, :, 0, 0] = (to_white @ quant.weight[:channels, :, 0, 0].double()).float()
        quant.bias[:channels] = (to_white @ (quant.bias[:channels].double() - mean)).float()
        # Rotated, the VAE's noise has no variance of its own for each channel; a small constant stands for it.
        quant.weight[channels:], quant.bias[channels:] = 0, -6
        post_quant.bias += (post_quant.weight[:, :, 0, 0].double() @ mean).float()
        post_quant.weight[:, :, 0, 0] = (post_quant.weight[:, :, 0, 0].double() @ from_white).float()
    return {
        kind: torch.einsum("dc,nchw->ndhw", to_white, latents[kind].double() - mean[:, None, None]).float()
        for kind in latents
    }


def new_unet(args: argparse.Namespace) -> UNet2DConditionModel:
    torch.manual_seed(args.seed)
    unet = UNet2DConditionModel(
        sample_size=(HEIGHT // 8, WIDTH // 8),
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=(64, 96, 128),
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        # Besides the cross-attention the prompt, pooled, joins the time embedding, so that all levels read it.
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    return unet.to(args.device, memory_format=torch.channels_last)


def train_unet(
    args: argparse.Namespace,
    kind: str,
    unet: UNet2DConditionModel,
    latents: torch.Tensor,
    labels: list[dict],
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    num_steps: int,
) -> None:
    """Learns to predict noise; min-SNR weights (arXiv 2303.09556), one prompt in eight left empty for guidance."""
    scheduler = DDPMScheduler(**NOISE)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, generator = generators_of_step(args, 2 if kind == "picture" else 3, step)
        rows = numbers.integers(len(latents), size=args.batch_size)
        prompts = ["" if numbers.random() < 0.125 else describe(kind, labels[row], numbers) for row in rows]
        with torch.no_grad():
            embeddings = text_encoder(tokenize(tokenizer, prompts, args.device)).last_hidden_state
        clean = latents[rows]
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = torch.randint(0, NOISE["num_train_timesteps"], (len(rows),), generator=generator)
        noisy = scheduler.add_noise(clean, noise, timesteps).to(args.device, memory_format=torch.channels_last)
        with autocast(args):
            predicted = unet(noisy, timesteps.to(args.device), embeddings).sample.float()
        signal_to_noise = compute_snr(scheduler, timesteps)
        weights = (signal_to_noise.clamp(max=5) / signal_to_noise).to(args.device)
        return (weights * (predicted - noise.to(args.device)).square().mean(dim=(1, 2, 3))).mean()

    train(args, f"unet_{kind}", unet, loss_of_step, num_steps)


def save(pipe: ImagesThatSoundPipeline, output_dir: Path) -> None:
    """Writes the checkpoint with float16 weights that load as float32 unless asked otherwise."""
    pipe.to("cpu", torch.float16).save_pretrained(output_dir)
    # transformers would take the weights' type for the one to compute in.
    config_file = output_dir / "text_encoder" / "config.json"
    config = {**json.loads(config_file.read_text()), "dtype": "float32"}
    config_file.write_text(json.dumps(config, indent=2) + "\n")


def main(input_args: list[str] | None = None) -> None:
    args = parse_args(input_args)
    Path(args.work_dir).mkdir(parents=True, exist_ok=True)
    start = time.time()
    data = make_data(args)
    log(args, stage="data", seconds=round(time.time() - start, 1))
    tokenizer = make_tokenizer(args, data)
    text_encoder = train_text_encoder(args, data, tokenizer)
    vae = train_vae(args, data)
    latents = whiten(vae, encode_data(args, data, vae))
    unet, unet_audio = new_unet(args), new_unet(args)
    train_unet(
        args, "picture", unet, latents["picture"], data["picture"][1], tokenizer, text_encoder, args.image_steps
    )
    unet_audio.load_state_dict(unet.state_dict())
    train_unet(
        args, "sound", unet_audio, latents["sound"], data["sound"][1], tokenizer, text_encoder, args.audio_steps
    )
    pipe = ImagesThatSoundPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        unet_audio=unet_audio,
        vocoder=None,
        vae_audio=None,
        text_encoder_audio=None,
        spectrogram=SPECTROGRAM.to_dict(),
        default_arguments=DEFAULT_ARGUMENTS,
    )
    save(pipe, Path(args.output_dir))


if __name__ == "__main__":
    main()
