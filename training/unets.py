"""
Trains the UNets on squares: the image UNet, then the audio UNet, which starts as the image UNet. Run `training.vae`
and `training.text` before; what they saved is read from `--output_dir`. UNets that are saved there already are trained
further; a stage of 0 steps leaves its UNet as it is.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.embeddings import TextTimeEmbedding
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from .loop import Run, mostly, parse_run, save_model, tokenize, train_unet, trapezoid, velocity_weights, write_tensors
from .open_world.pictures import WILD
from .open_world.squares import Squares, describe, make_squares
from .text import POOLED_WIDTH, POOLING_HEADS, TEXT_WIDTH
from .vae import encode


CHANNELS = (64, 64, 144)
# Share of squares that hold anything anywhere, which starts, masks and the ControlNet live on; more of them cost less
# once the names are known.
WILD_SHARE = 1 / 16
# Wordings of each label that are read once, before the training.
NUM_WORDINGS = {"picture": 24, "sound": 12, WILD: 64}


def new_unet(pooling: TextTimeEmbedding, latent_channels: int) -> UNet2DConditionModel:
    """One that reads prompts by `pooling` and predicts of any latents that they are nothing but noise."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=latent_channels,
        out_channels=latent_channels,
        layers_per_block=1,
        block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        # The prompt, pooled, joins the time embedding, which scales and shifts all features: the cheapest memory for
        # many things, since it is spent once a canvas and not once a pixel.
        addition_embed_type="text",
        addition_embed_type_num_heads=POOLING_HEADS,
        resnet_time_scale_shift="scale_shift",
        attention_head_dim=4,
        norm_num_groups=16,
    )
    unet.add_embedding.load_state_dict(pooling.state_dict())
    predict_input(unet)
    return unet.to(memory_format=torch.channels_last)


@torch.no_grad()
def predict_input(unet: UNet2DConditionModel) -> None:
    """
    Sets an untrained UNet's weights such that it predicts its input, which strong noise nearly is. Otherwise it first
    has to learn to copy noise exactly, and what a prompt tells of it hides in its errors until then.

    Each channel of the latents travels in two of `conv_in`'s, once negated, over the last skip connection to
    `conv_out`. In pairs they pass the normalisation on the way, since their mean is zero and the variance of whitened
    latents one, and the activation, since silu(x) - silu(-x) = x.
    """
    first, last, final = unet.conv_in, unet.up_blocks[-1].resnets[-1], unet.conv_out
    pairs = torch.eye(first.in_channels).repeat_interleave(2, dim=0)
    pairs[1::2] *= -1
    count, skipped = len(pairs), last.in_channels - first.out_channels
    for layer in (first, last.conv2, last.conv_shortcut):
        layer.weight[:count] = layer.bias[:count] = 0
    first.weight[:count, :, 1, 1] = pairs
    last.conv_shortcut.weight[:count, skipped : skipped + count, 0, 0] = torch.eye(count)
    final.weight.zero_()
    final.bias.zero_()
    final.weight[:, :count, 1, 1] = pairs.T


class Prompts:
    """Embeddings (L, D) of some wordings of each label, read once."""

    def __init__(self, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, seed: int) -> None:
        self.text_encoder, self.tokenizer, self.seed = text_encoder, tokenizer, seed
        self.empty = self.read([""])[0]

    @torch.no_grad()
    def read(self, prompts: list[str]) -> torch.Tensor:
        return self.text_encoder(tokenize(self.tokenizer, prompts, self.text_encoder.device)).last_hidden_state

    def of(self, kind: str, labels: list[dict]) -> torch.Tensor:
        """Embeddings (N, W, L, D) of `W` wordings of each of `N` labels."""
        numbers = np.random.default_rng([self.seed, 7])
        return torch.stack(
            [self.read([describe(kind, label, numbers) for _ in range(NUM_WORDINGS[kind])]) for label in labels]
        )


def batches(
    latents: dict[str, torch.Tensor], words: dict[str, torch.Tensor], empty: torch.Tensor, kind: str, batch_size: int
) -> Callable[[int, np.random.Generator], tuple[torch.Tensor, list[torch.Tensor]]]:
    """For `train_unet`: from a step to latents (B, C, 16, 16) and embeddings; among pictures are wild squares."""

    def batch_of_step(step: int, numbers: np.random.Generator) -> tuple[torch.Tensor, list[torch.Tensor]]:
        clean, embeddings = [], []
        for _ in range(batch_size):
            is_wild = kind == "picture" and numbers.random() < WILD_SHARE
            each = WILD if is_wild else kind
            row = int(numbers.integers(len(latents[each])))
            wordings = words[each][0 if is_wild else row]
            clean.append(latents[each][row])
            embeddings.append(mostly(lambda: wordings[int(numbers.integers(len(wordings)))], numbers, empty))  # noqa: B023
        return torch.stack(clean), embeddings

    return batch_of_step


def load_stages(run: Run) -> tuple[AutoencoderKL, CLIPTextModel, CLIPTokenizer, TextTimeEmbedding]:
    """Models that the stages before saved."""
    folder = run.output_dir
    vae = AutoencoderKL.from_pretrained(folder / "vae").to(run.device)
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder").to(run.device)
    pooling = TextTimeEmbedding(TEXT_WIDTH, POOLED_WIDTH, POOLING_HEADS)
    pooling.load_state_dict(load_file(folder / "pooling" / "model.safetensors"))
    return vae, text_encoder, CLIPTokenizer.from_pretrained(folder / "tokenizer"), pooling


def latents_of(folder: Path, vae: AutoencoderKL, kind: str, pixels: np.ndarray) -> torch.Tensor:
    """Latents of squares, from the work folder if an earlier run wrote them; another VAE wants another folder."""
    file = folder / f"latents-{kind}.pt"
    if not file.exists():
        write_tensors(file, encode(vae, pixels))
    return torch.load(file, weights_only=True)


def begun(run: Run, name: str, unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """The UNet of that name that was saved before, to be trained further, or else the given one."""
    folder = run.output_dir / name
    if folder.exists():
        unet = UNet2DConditionModel.from_pretrained(folder)
    return unet.to(run.device, memory_format=torch.channels_last)


def train_unets(run: Run, data: dict[str, Squares]) -> None:
    vae, text_encoder, tokenizer, pooling = load_stages(run)
    prompts = Prompts(text_encoder, tokenizer, run.seed)
    torch.manual_seed(run.seed)
    unet = new_unet(pooling, vae.config.latent_channels)
    for stage, kind, name, kinds in (
        ("image", "picture", "unet", ("picture", WILD)),
        ("audio", "sound", "unet_audio", ("sound",)),
    ):
        unet = begun(run, name, unet)
        if run.steps[stage]:
            latents = {each: latents_of(run.work_dir, vae, each, data[each].pixels) for each in kinds}
            words = {each: prompts.of(each, data[each].labels[: 1 if each == WILD else None]) for each in kinds}
            of_step = batches(latents, words, prompts.empty, kind, run.batch_size)
            options = {"weights_of": velocity_weights, "learning_rate_at": trapezoid, "betas": (0.9, 0.99)}
            train_unet(run, kind, unet, of_step, torch.stack, **options)
            save_model(deepcopy(unet), run.output_dir / name)


def main(input_args: list[str] | None = None) -> None:
    steps, work_dir = {"image": 1500, "audio": 1500}, "outputs/open_world"
    run = parse_run(__doc__, input_args, work_dir=work_dir, num_draws=1000, batch_size=64, steps=steps)
    train_unets(run, make_squares(run.work_dir, run.num_draws))


if __name__ == "__main__":
    main()
