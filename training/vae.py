"""
Trains the VAE: squares of 256 pixels to 16x16 latents. Its encoder is a linear code of patches, which carries the fine
lines of harmonics without any training; its decoder learns to draw from that code.

`python -m training.open_world` makes the material first; `OPEN_WORLD_MATERIAL` names its folder.
"""

from itertools import product

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import Decoder, Encoder
from diffusers.models.resnet import ResnetBlock2D

from .loop import Run, parse_run, save_model, train, trapezoid
from .open_world.pictures import SQUARE
from .open_world.squares import Squares, make_squares


PATCH, LATENT_CHANNELS = 16, 12
CHANNELS, NORM_GROUPS = (8, 16, 32, 64, 128), 2
# Beside latents, whose variance is one.
CONSTANT = 100.0
# The encoder's noise: a small constant.
LOG_VARIANCE = -6.0
CROP = 128
# Full squares in the last steps: normalisation sees then what it will see.
FULL_SHARE = 0.8
# Spread of the noise that is added to latents, whose spread is one: what a UNet predicts is never exact.
LATENT_NOISE = 0.07


class PatchCode:
    """The strongest principal components of 16x16 patches, whitened: (B, H, W) in -1..1 to (B, C, H / 16, W / 16)."""

    def __init__(self, mean: torch.Tensor, covariance: torch.Tensor, channels: int) -> None:
        self.covariance = covariance
        variances, directions = torch.linalg.eigh(covariance)
        scales, directions = variances[-channels:].sqrt(), directions[:, -channels:]
        self.to_code, self.from_code, self.mean = (directions / scales).T, directions * scales, mean
        self.offset = -self.to_code @ mean

    @classmethod
    def learn(cls, data: dict[str, Squares], channels: int) -> "PatchCode":
        """The code of pictures and sounds, of which sounds count more."""
        means, moments = [], []
        for kind, weight in (("picture", 0.25), ("sound", 0.75)):
            values = patches(torch.from_numpy(data[kind].pixels).float() / 127.5 - 1).transpose(0, 1).flatten(1)
            means.append(weight * values.mean(dim=1).double())
            moments.append(weight * (values @ values.T / values.shape[1]).double())
        mean = sum(means)
        return cls(mean, sum(moments) - torch.outer(mean, mean), channels)

    def encode(self, squares: torch.Tensor) -> torch.Tensor:
        code = torch.einsum("cd,bdhw->bchw", self.to_code.float(), patches(squares))
        return code + self.offset.float()[:, None, None]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        values = torch.einsum("dc,bchw->bdhw", self.from_code.float(), latents)
        return torch.nn.functional.pixel_shuffle(values + self.mean.float()[:, None, None], PATCH)[:, 0]

    def halves(self, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """
        The code in two steps: from 4x4 patches to `rank` directions of 8x8 patches, (R, 16, 2, 2), and from these to
        the code, (C, R, 2, 2). The directions are those that matter most for the code of the data.
        """
        whole = self.to_code.reshape(-1, 2, 8, 2, 8).permute(1, 3, 0, 2, 4).flatten(3).flatten(0, 2)  # (4C, 64)
        spread = self.covariance.reshape(2, 8, 2, 8, 2, 8, 2, 8)
        quarters = sum(spread[i, :, j, :, i, :, j, :].reshape(64, 64) for i in (0, 1) for j in (0, 1)) / 4
        root, inverse = matrix_root(quarters)
        _, _, directions = torch.linalg.svd(whole @ root, full_matrices=False)
        gather = directions[:rank] @ inverse  # (R, 64)
        scatter = whole @ root @ directions[:rank].T  # (4C, R)
        # 8x8 patches are 2x2 places of 4x4 patches, which hold 2x2 places of 2x2 pixels.
        gather = gather.reshape(-1, 2, 2, 2, 2, 2, 2)  # R, rows of 4, 2 and 1 pixels, columns of 4, 2 and 1
        gather = gather.permute(0, 3, 6, 2, 5, 1, 4).reshape(-1, 16, 2, 2)
        return gather.float(), scatter.reshape(2, 2, -1, rank).permute(2, 3, 0, 1).float()


def matrix_root(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The symmetric root of a covariance, and its inverse."""
    values, vectors = torch.linalg.eigh(matrix)
    values = values.clamp(min=1e-9 * values.max())
    return (vectors * values.sqrt()) @ vectors.T, (vectors / values.sqrt()) @ vectors.T


def patches(squares: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pixel_unshuffle(squares[:, None], PATCH)


def new_vae(code: PatchCode) -> AutoencoderKL:
    """One that halves four times, with few channels at full resolution, which costs most; its encoder is the code."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(CHANNELS),
        up_block_types=("UpDecoderBlock2D",) * len(CHANNELS),
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=code.to_code.shape[0],
        norm_num_groups=NORM_GROUPS,
        mid_block_add_attention=False,
        scaling_factor=1.0,
        sample_size=SQUARE,
    )
    with torch.no_grad():
        _encode_as(vae, code)
        _begin_linear(vae.decoder)
    return vae


def _encode_as(vae: AutoencoderKL, code: PatchCode) -> None:
    """
    Sets the encoder's weights such that it computes the code. All residual branches are silent. Patches of 2, 4, 8 and
    16 pixels are gathered by the strided convolutions, those of 8 in as many directions as there are channels.
    """
    encoder, count = vae.encoder, code.to_code.shape[0]
    for parameter in [*encoder.parameters(), *vae.quant_conv.parameters()]:
        parameter.zero_()
    # The mean of red, green and blue.
    encoder.conv_in.weight[0, :, 1, 1] = 1 / 3
    for block in encoder.down_blocks[:-1]:
        _pass_on(block.resnets[0])
    for channels, block in ((1, encoder.down_blocks[0]), (4, encoder.down_blocks[1])):
        for channel, place in product(range(channels), range(4)):
            block.downsamplers[0].conv.weight[4 * channel + place, channel, place // 2, place % 2] = 1
    gather, spread = code.halves(CHANNELS[2])
    encoder.down_blocks[2].downsamplers[0].conv.weight[:, :16, :2, :2] = gather
    encoder.down_blocks[3].downsamplers[0].conv.weight[:count, : CHANNELS[2], :2, :2] = spread
    encoder.down_blocks[3].downsamplers[0].conv.bias[:count] = code.offset
    _pass_on_in_pairs(encoder, count)
    vae.quant_conv.weight[:count, :count, 0, 0] = torch.eye(count)
    vae.quant_conv.bias[count:] = LOG_VARIANCE


def _pass_on(resnet: ResnetBlock2D) -> None:
    """A silent block hands its first channels on."""
    if resnet.conv_shortcut is not None:
        count = min(resnet.conv_shortcut.weight.shape[:2])
        resnet.conv_shortcut.weight[:count, :count, 0, 0] = torch.eye(count)


def _pass_on_in_pairs(encoder: Encoder, count: int) -> None:
    """
    Latents reach the end in pairs x and -x, since silu(x) - silu(-x) = x. Large constants in each group make the
    normalisation before it nearly constant, and these pairs keep its mean at zero.
    """
    last, norm, final = encoder.down_blocks[-1].resnets[0].conv_shortcut, encoder.conv_norm_out, encoder.conv_out
    size, share = norm.num_channels // norm.num_groups, -(-count // norm.num_groups)
    last.bias[:] = CONSTANT * torch.tensor([1.0, -1.0]).repeat(norm.num_channels // 2)
    for latent in range(count):
        place = latent // share * size + 2 * (latent % share)
        last.bias[place : place + 2] = 0
        last.weight[place, latent], last.weight[place + 1, latent] = 1, -1
        norm.weight[place : place + 2] = CONSTANT * (1 - 2 * share / size) ** 0.5
        final.weight[latent, place, 1, 1], final.weight[latent, place + 1, 1, 1] = 1, -1


def _begin_linear(decoder: Decoder) -> None:
    """An untrained decoder without residual branches, whose end hands two channels on as the encoder's does."""
    for resnet in decoder.modules():
        if isinstance(resnet, ResnetBlock2D):
            resnet.conv2.weight.zero_()
            resnet.conv2.bias.zero_()
    last, norm, final = decoder.up_blocks[-1].resnets[0].conv_shortcut, decoder.conv_norm_out, decoder.conv_out
    final.weight.zero_()
    for place in range(0, norm.num_channels, norm.num_channels // norm.num_groups):
        last.weight[place + 1] = -last.weight[place]
        last.weight[place + 2 : place + 4] = 0
        last.bias[place : place + 4] = torch.tensor([0.0, 0.0, 2.0, -2.0])
        norm.weight[place : place + 2] = 2**0.5
        final.weight[:, place, 1, 1], final.weight[:, place + 1, 1, 1] = 0.5, -0.5


def to_vae_input(canvases: np.ndarray, device: str = "cpu") -> torch.Tensor:
    """Canvases (B, H, W) in 0..255 to pictures (B, 3, H, W) in -1..1."""
    batch = torch.from_numpy(np.asarray(canvases, np.float32))[:, None] / 127.5 - 1
    return batch.expand(-1, 3, -1, -1).contiguous().to(device)


def reconstruction_loss(decoded: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """The error of decoded pictures (B, 3, H, W) and of their edges, which keeps fine lines from blurring."""
    error = decoded - batch
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 0.5 * edges


def crops_of_step(data: dict[str, Squares], numbers: np.random.Generator, batch_size: int, size: int) -> np.ndarray:
    """Crops (B, S, S): half of them of sounds, and drawings, wild squares and mixtures of two kinds."""
    crops = np.empty((batch_size, size, size), np.float32)
    for row in range(batch_size):
        kind = numbers.choice(("sound", "fresh sound", "picture", "wild", "mixture"), p=(0.3, 0.25, 0.15, 0.1, 0.2))
        if kind == "mixture":
            weight = numbers.uniform(0.2, 0.8)
            parts = (_busy_crop(data[each], numbers, size) for each in ("sound", "picture"))
            crops[row] = weight * next(parts) + (1 - weight) * next(parts)
        else:
            crops[row] = _busy_crop(data[kind], numbers, size)
    return crops


def _busy_crop(squares: Squares, numbers: np.random.Generator, size: int) -> np.ndarray:
    """One of two crops, the one that holds more, since much of a square is empty."""
    square = squares.pixels[int(numbers.integers(len(squares.pixels)))]
    places = numbers.integers(square.shape[0] - size + 1, size=(2, 2))
    return max((square[y : y + size, x : x + size].astype(np.float32) for y, x in places), key=np.std)


def train_vae(run: Run, data: dict[str, Squares]) -> AutoencoderKL:
    """
    Learns to draw from the code, which is fixed, so that fine lines are there to learn from at once. A VAE that is
    saved there already learns further, with its code, since the UNets know its latents.
    """
    torch.manual_seed(run.seed)
    saved = run.output_dir / "vae"
    vae = AutoencoderKL.from_pretrained(saved) if saved.exists() else new_vae(PatchCode.learn(data, LATENT_CHANNELS))
    vae.to(run.device)
    decoder = torch.nn.Sequential(vae.post_quant_conv, vae.decoder)
    pixels = run.batch_size * CROP**2

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, generator = run.generators(1, step)
        size = CROP if step < FULL_SHARE * run.steps["vae"] else SQUARE
        crops = crops_of_step(data, numbers, max(pixels // size**2, 1), size)
        batch = to_vae_input(crops, run.device)
        with torch.no_grad():
            latents = vae.encode(batch).latent_dist.mean
        noise = LATENT_NOISE * torch.randn(latents.shape, generator=generator)
        return reconstruction_loss(decoder(latents + noise.to(run.device)), batch[:, :1])

    train(run, "vae", decoder, loss_of_step, learning_rate_at=trapezoid)
    return vae.requires_grad_(False)


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: np.ndarray) -> torch.Tensor:
    """Latent means (N, C, H / 16, W / 16) of squares (N, H, W) in 0..255."""
    batches = np.split(pixels, range(16, len(pixels), 16))
    return torch.cat([vae.encode(to_vae_input(batch, vae.device)).latent_dist.mean.cpu() for batch in batches])


def main(input_args: list[str] | None = None) -> None:
    steps, work_dir = {"vae": 4000}, "outputs/open_world"
    run = parse_run(__doc__, input_args, work_dir=work_dir, num_draws=1000, batch_size=4, steps=steps)
    data = make_squares(run.work_dir, run.num_draws)
    vae = train_vae(run, data)
    save_model(vae, run.output_dir / "vae")


if __name__ == "__main__":
    main()
