"""
Trains the UNets on squares: the image UNet, then the audio UNet, which starts as the image UNet, each with a table of
tokens for all names, which `training.text` then learns to say. Run `training.vae` before; what it saved is read from
`--output_dir`. UNets that are saved there already are trained further; a stage of 0 steps leaves its UNet as it is.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.utils import BaseOutput
from safetensors.torch import load_file, save_file

from .loop import Run, mostly, parse_run, save_model, train_unet, trapezoid, velocity_weights, write_tensors
from .open_world.pictures import WILD
from .open_world.squares import Squares, make_squares
from .vae import encode


CHANNELS = (64, 64, 144)
# Share of squares that hold anything anywhere, which starts, masks and the ControlNet live on; more of them cost less
# once the names are known.
WILD_SHARE = 1 / 16
POOLING_HEADS = 4
# Tokens of a prompt and their width; those in front may come before a name is said, so that they can't depend on it.
MAX_TOKENS, FRONT_TOKENS, TEXT_WIDTH = 32, 16, 128


def new_unet(latent_channels: int) -> UNet2DConditionModel:
    """One that predicts of any latents that they are nothing but noise."""
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


class Named(torch.nn.Module):
    """
    A UNet that learns its prompts along with itself: 16 tokens for each name, behind 16 that all prompts share. Tokens
    of its own let a UNet learn hundreds of names ten times as fast as embeddings of words do. The text encoder then
    learns to say these tokens.

    Args:
        unet ([`UNet2DConditionModel`]): Reads tokens (B, L, D).
        names (`list[str]`): Names to learn.
        learned (`dict[str, torch.Tensor]`, *optional*): Tokens of an earlier stage: `front`, which stays as it is, and
            `empty`, those of no prompt, which stay too.
    """

    def __init__(
        self, unet: UNet2DConditionModel, names: list[str], learned: dict[str, torch.Tensor] | None = None
    ) -> None:
        super().__init__()
        self.unet, self.names = unet, names
        size = (MAX_TOKENS - FRONT_TOKENS) * TEXT_WIDTH
        self.words = torch.nn.Embedding(len(names), size)
        new = {"front": torch.randn(FRONT_TOKENS, TEXT_WIDTH), "empty": torch.randn(1, size)}
        self.common = torch.nn.ParameterDict(learned or new).requires_grad_(learned is None)

    def tokens(self, rows: torch.Tensor) -> torch.Tensor:
        """Tokens (B, L, D) of names by their numbers (B,), -1 for none, on the sphere on which a text encoder ends."""
        known = self.words(rows.clamp(min=0))
        known = torch.where(rows[:, None] < 0, self.common["empty"], known)
        known = known.view(len(rows), MAX_TOKENS - FRONT_TOKENS, TEXT_WIDTH)
        front = self.common["front"].expand(len(rows), -1, -1)
        return torch.nn.functional.layer_norm(torch.cat([front, known], dim=1), (TEXT_WIDTH,))

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, rows: torch.Tensor) -> BaseOutput:
        return self.unet(noisy, timesteps, self.tokens(rows))


def batches(
    latents: dict[str, torch.Tensor], labels: dict[str, list[dict]], names: list[str], kind: str, batch_size: int
) -> Callable[[int, np.random.Generator], tuple[torch.Tensor, list[int]]]:
    """For `train_unet`: from a step to latents (B, C, 16, 16) and numbers of names. Some pictures are wild squares."""

    def batch_of_step(step: int, numbers: np.random.Generator) -> tuple[torch.Tensor, list[int]]:
        clean, rows = [], []
        for _ in range(batch_size):
            each = WILD if kind == "picture" and numbers.random() < WILD_SHARE else kind
            row = int(numbers.integers(len(latents[each])))
            name = WILD if each == WILD else labels[each][row]["name"]
            clean.append(latents[each][row])
            rows.append(mostly(lambda: names.index(name), numbers, -1))  # noqa: B023
        return torch.stack(clean), rows

    return batch_of_step


def latents_of(folder: Path, vae: AutoencoderKL, kind: str, pixels: np.ndarray) -> torch.Tensor:
    """Latents of squares, from the work folder if an earlier run wrote them; another VAE wants another folder."""
    file = folder / f"latents-{kind}.pt"
    if not file.exists():
        write_tensors(file, encode(vae, pixels))
    return torch.load(file, weights_only=True)


def go_on(model: Named, unet_folder: Path, words_file: Path) -> None:
    """Begins with what an earlier training saved."""
    model.unet.load_state_dict(UNet2DConditionModel.from_pretrained(unet_folder).state_dict())
    saved = load_file(words_file)
    model.words.weight.data.copy_(saved["words"])
    for name, value in model.common.items():
        value.data.copy_(saved[name])


def train_unets(run: Run, data: dict[str, Squares]) -> None:
    vae = AutoencoderKL.from_pretrained(run.output_dir / "vae").to(run.device)
    torch.manual_seed(run.seed)
    unet, learned = new_unet(vae.config.latent_channels), None
    for stage, kind, name, kinds in (
        ("image", "picture", "unet", ("picture", WILD)),
        ("audio", "sound", "unet_audio", ("sound",)),
    ):
        if not run.steps[stage]:
            continue
        words = {each: run.output_dir / "words" / f"{each}.safetensors" for each in ("picture", "sound")}
        if stage == "audio":
            unet = UNet2DConditionModel.from_pretrained(run.output_dir / "unet")
            learned = {each: load_file(words["picture"])[each].float() for each in ("front", "empty")}
        latents = {each: latents_of(run.work_dir, vae, each, data[each].pixels) for each in kinds}
        labels = {each: data[each].labels for each in kinds}
        names = list(dict.fromkeys(label["name"] for label in labels[kind])) + [WILD] * (kind == "picture")
        model = Named(unet, names, learned)
        if words[kind].exists():
            go_on(model, run.output_dir / name, words[kind])
        model.to(run.device, memory_format=torch.channels_last)
        of_step = batches(latents, labels, names, kind, run.batch_size)
        options = {"weights_of": velocity_weights, "learning_rate_at": trapezoid, "betas": (0.9, 0.99)}
        train_unet(run, kind, model, of_step, torch.tensor, **options)
        words[kind].parent.mkdir(exist_ok=True)
        learned = {"words": model.words.weight, **model.common}
        save_file({each: value.detach().cpu().half().contiguous() for each, value in learned.items()}, words[kind])
        words[kind].chmod(0o644)
        save_model(deepcopy(unet), run.output_dir / name)


def main(input_args: list[str] | None = None) -> None:
    steps, work_dir = {"image": 1500, "audio": 1500}, "outputs/open_world"
    run = parse_run(__doc__, input_args, work_dir=work_dir, num_draws=1000, batch_size=64, steps=steps)
    train_unets(run, make_squares(run.work_dir, run.num_draws))


if __name__ == "__main__":
    main()
