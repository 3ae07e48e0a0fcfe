"""
Trains the embedded checkpoint from nothing: a small Stable Diffusion whose world is drawn and synthesised by `world`.
Stages: data, tokenizer, text encoder, VAE, image UNet, audio UNet (from the image one). A killed run that is started
again with the same arguments goes on from its last state.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UniPCMultistepScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.scripts.common.files import write_json
from images_that_sound.scripts.common.vocabulary import words_of

from .loop import (
    NOISE,
    SHARD_SIZE,
    Run,
    learn_tokenizer,
    make_data,
    mostly,
    parse_run,
    save,
    small_text_config,
    tokenize,
    train,
    train_unet,
    write_tensors,
)
from .vae import reconstruction_loss, to_vae_input
from .world import HEIGHT, KINDS, SPECTROGRAM, WIDTH, describe, draw


CROP_WIDTH = 128
LATENT_CHANNELS = 4
# Directions of the latent space below this share of the strongest one's variance are the VAE's noise.
VARIANCE_FLOOR = 3e-4
# Arguments of calls of the pipelines on this checkpoint, if they are left out.
DEFAULT_ARGUMENTS = {
    "height": HEIGHT,
    "width": WIDTH,
    "crop_right": 0,
    "num_inference_steps": 10,
    "num_audio_inference_steps": 25,
    "num_crops": 1,
    "crop_width": WIDTH,
    "num_iterations": 2000,
    "image_start_step": 250,
}


def make_tokenizer(run: Run, data: dict) -> CLIPTokenizer:
    generator = np.random.default_rng(0)
    prompts = (describe(kind, label, generator) for kind in data for label in data[kind][1])
    return learn_tokenizer(run, CLIPTokenizer, prompts, vocab_size=1024, max_length=77)


def known_words(
    data: dict, names: dict[str, tuple[str, ...]], describe: Callable[[str, dict, np.random.Generator], str]
) -> dict[str, dict[str, list[str]]]:
    """The `vocabulary.json` of a world: for each kind the names of what there is, and all words of its prompts."""
    generator = np.random.default_rng(0)
    words = {
        kind: {word for label in labels for _ in range(2) for word in words_of(describe(kind, label, generator))}
        for kind, (_, labels) in data.items()
    }
    return {kind: {"names": list(names[kind]), "words": sorted(words[kind])} for kind in data}


def train_text_encoder(run: Run, data: dict, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Learns to read: the pooled embedding has to tell the subject, and each attribute of the drawing."""
    config = CLIPTextConfig(**small_text_config(tokenizer), projection_dim=64)
    torch.manual_seed(run.seed)
    text_encoder = CLIPTextModel(config).to(run.device)
    facts = {kind: [_facts(kind, label) for label in data[kind][1]] for kind in data}
    names = sorted({fact for kind in facts for each in facts[kind] for fact in each})
    reader = torch.nn.ModuleDict({"text_encoder": text_encoder, "head": torch.nn.Linear(64, len(names))})
    reader.to(run.device)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, _ = run.generators(0, step)
        prompts, targets = [], torch.zeros(2 * run.batch_size, len(names))
        for row in range(2 * run.batch_size):
            kind = ("picture", "sound")[row % 2]
            index = int(numbers.integers(len(facts[kind])))
            prompts.append(describe(kind, data[kind][1][index], numbers))
            targets[row, [names.index(fact) for fact in facts[kind][index]]] = 1
        pooled = text_encoder(tokenize(tokenizer, prompts, run.device)).pooler_output
        return torch.nn.functional.binary_cross_entropy_with_logits(reader["head"](pooled), targets.to(run.device))

    train(run, "text", reader, loss_of_step)
    return text_encoder.requires_grad_(False)


def _facts(kind: str, label: dict) -> list[str]:
    words = [f"{kind}={label['name']}"]
    return words + [f"{kind}.{key}={value}" for key, value in label["attributes"].items() if isinstance(value, str)]


def train_vae(run: Run, data: dict) -> AutoencoderKL:
    """Learns to draw both pictures and spectrograms, and mixtures of the two, from a latent of 1/8 of the size."""
    torch.manual_seed(run.seed)
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
    ).to(run.device, memory_format=torch.channels_last)
    # Under the full noise of an untrained posterior it would learn to leave the latents empty.
    torch.nn.init.constant_(vae.quant_conv.bias[LATENT_CHANNELS:], -6.0)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, generator = run.generators(1, step)
        crops = _mixed_crops(data, numbers, max(run.batch_size // 4, 1))
        return vae_loss(run, vae, crops, generator, divergence_weight=3e-4)

    train(run, "vae", vae, loss_of_step)
    return vae.requires_grad_(False)


def vae_loss(
    run: Run, vae: AutoencoderKL, crops: np.ndarray, generator: torch.Generator, divergence_weight: float
) -> torch.Tensor:
    """Errors of decoded crops (B, H, W) in 0..255 and of their edges, and the posterior's divergence."""
    batch = to_vae_input(crops, run.device)
    with run.autocast():
        posterior = vae.encode(batch).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(run.device)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample
    divergence = posterior.kl().float().mean() / posterior.mean[0].numel()
    return reconstruction_loss(decoded.float(), batch) + divergence_weight * divergence


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


def encode_data(run: Run, data: dict, vae: AutoencoderKL) -> dict[str, torch.Tensor]:
    """Latent means (N, C, H / 8, W / 8) of all draws, from disk if an earlier run wrote them."""
    latents = {}
    for kind, (canvases, _) in data.items():
        shards = np.split(canvases, range(SHARD_SIZE, len(canvases), SHARD_SIZE))
        paths = [run.work_dir / f"latents-{kind}-{shard:04d}.pt" for shard in range(len(shards))]
        for path, shard in zip(paths, shards, strict=True):
            if not path.exists():
                write_tensors(path, _encode(run, shard, vae))
        latents[kind] = torch.cat([torch.load(path, weights_only=True) for path in paths])
    return latents


@torch.no_grad()
def _encode(run: Run, canvases: np.ndarray, vae: AutoencoderKL) -> torch.Tensor:
    batches = []
    for batch in np.split(canvases, range(50, len(canvases), 50)):
        with run.autocast():
            batches.append(vae.encode(to_vae_input(batch, run.device)).latent_dist.mean.half().cpu())
    return torch.cat(batches)


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
        # Rotated, the VAE's noise has not one variance for each channel; a small constant stands for it.
        quant.weight[channels:], quant.bias[channels:] = 0, -6
        post_quant.bias += (post_quant.weight[:, :, 0, 0].double() @ mean).float()
        post_quant.weight[:, :, 0, 0] = (post_quant.weight[:, :, 0, 0].double() @ from_white).float()
    return {
        kind: torch.einsum("dc,nchw->ndhw", to_white, latents[kind].double() - mean[:, None, None]).float()
        for kind in latents
    }


def new_unet(run: Run) -> UNet2DConditionModel:
    torch.manual_seed(run.seed)
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
    return unet.to(run.device, memory_format=torch.channels_last)


def new_pipeline(
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
    unet_audio: UNet2DConditionModel,
) -> ImagesThatSoundPipeline:
    return ImagesThatSoundPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=UniPCMultistepScheduler(**NOISE, timestep_spacing="leading", steps_offset=1),
        unet_audio=unet_audio,
        vocoder=None,
        **dict.fromkeys(("vae_audio", "text_encoder_audio", "tokenizer_audio")),
        **dict.fromkeys(("controlnet", "audio_controlnet", "image_encoder", "feature_extractor")),
        spectrogram=SPECTROGRAM.to_dict(),
        default_arguments=DEFAULT_ARGUMENTS,
    )


def main(input_args: list[str] | None = None) -> None:
    steps = {"text": 800, "vae": 1600, "image": 4500, "audio": 3000}
    work_dir = "outputs/train_embedded"
    run = parse_run(__doc__, input_args, work_dir=work_dir, num_draws=8000, batch_size=32, steps=steps)
    data = make_data(run, draw, ("picture", "sound"))
    tokenizer = make_tokenizer(run, data)
    text_encoder = train_text_encoder(run, data, tokenizer)
    vae = train_vae(run, data)
    latents = whiten(vae, encode_data(run, data, vae))

    @torch.no_grad()
    def read(prompts: list[str]) -> torch.Tensor:
        return text_encoder(tokenize(tokenizer, prompts, run.device)).last_hidden_state

    def batch_of(kind: str) -> Callable[[int, np.random.Generator], tuple[torch.Tensor, list[str]]]:
        def batch_of_step(step: int, numbers: np.random.Generator) -> tuple[torch.Tensor, list[str]]:
            labels = data[kind][1]
            rows = numbers.integers(len(labels), size=run.batch_size)
            prompts = [mostly(partial(describe, kind, labels[row], numbers), numbers) for row in rows]
            return latents[kind][rows], prompts

        return batch_of_step

    unet, unet_audio = new_unet(run), new_unet(run)
    train_unet(run, "picture", unet, batch_of("picture"), read)
    unet_audio.load_state_dict(unet.state_dict())
    train_unet(run, "sound", unet_audio, batch_of("sound"), read)
    save(new_pipeline(vae, text_encoder, tokenizer, unet, unet_audio), run.output_dir)
    write_json(run.output_dir / "vocabulary.json", known_words(data, KINDS, describe))


if __name__ == "__main__":
    main()
