"""Score distillation sampling (DreamFusion, arXiv 2209.14988): the canvases that are optimised, and their loss."""

import math
from collections.abc import Callable

import torch


class PixelCanvas(torch.nn.Module):
    """
    A canvas whose pixels are the parameters, through a sigmoid.

    Args:
        height (`int`): Rows.
        width (`int`): Columns.
        num_channels (`int`, defaults to 1): Channels.
    """

    def __init__(self, height: int, width: int, num_channels: int = 1):
        super().__init__()
        self.pixels = torch.nn.Parameter(0.01 * torch.randn(1, num_channels, height, width))

    def forward(self) -> torch.Tensor:
        """The canvas, `torch.Tensor` of shape `(1, C, H, W)` in 0..1."""
        return self.pixels.sigmoid()


class FourierCanvas(torch.nn.Module):
    """
    A canvas drawn by a small network from the Fourier features of each pixel's place (arXiv 2006.10739), which keeps
    neighbours alike.

    Args:
        height (`int`): Rows.
        width (`int`): Columns.
        num_channels (`int`, defaults to 1): Channels.
        num_frequencies (`int`, defaults to 128): Random frequencies, each giving a sine and a cosine.
        hidden_size (`int`, defaults to 256): Channels between the layers.
        frequency_scale (`float`, defaults to 10.0): Standard deviation of the frequencies, in periods per canvas.
    """

    def __init__(
        self,
        height: int,
        width: int,
        num_channels: int = 1,
        num_frequencies: int = 128,
        hidden_size: int = 256,
        frequency_scale: float = 10.0,
    ):
        super().__init__()
        self.height, self.width = height, width
        self.register_buffer("frequencies", frequency_scale * torch.randn(2, num_frequencies))
        layers: list[torch.nn.Module] = []
        for channels in (2 * num_frequencies, hidden_size, hidden_size):
            layers += [torch.nn.Conv2d(channels, hidden_size, 1), torch.nn.ReLU(), torch.nn.BatchNorm2d(hidden_size)]
        self.layers = torch.nn.Sequential(*layers, torch.nn.Conv2d(hidden_size, num_channels, 1), torch.nn.Sigmoid())
        self._features: torch.Tensor | None = None

    def forward(self) -> torch.Tensor:
        """The canvas, `torch.Tensor` of shape `(1, C, H, W)` in 0..1."""
        if self._features is None or self._features.device != self.frequencies.device:
            self._features = self._fourier_features()
        return self.layers(self._features)

    @torch.no_grad()
    def _fourier_features(self) -> torch.Tensor:
        device = self.frequencies.device
        rows = torch.arange(self.height, device=device) / self.height
        columns = torch.arange(self.width, device=device) / self.width
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
        phases = 2 * math.pi * places @ self.frequencies
        return torch.cat([phases.sin(), phases.cos()], dim=-1).permute(2, 0, 1)[None]


CANVASES: dict[str, Callable[..., torch.nn.Module]] = {"fourier": FourierCanvas, "pixels": PixelCanvas}


def draw_timesteps(
    count: int,
    num_train_timesteps: int,
    generator: torch.Generator | None = None,
    min_timestep: float = 0.02,
    max_timestep: float = 0.98,
) -> torch.Tensor:
    """
    Uniform timesteps for score distillation.

    Args:
        count (`int`): How many.
        num_train_timesteps (`int`): The prior's number of timesteps.
        generator (`torch.Generator`, *optional*): Source of randomness, on the CPU.
        min_timestep (`float`, defaults to 0.02): Least timestep as a fraction, included.
        max_timestep (`float`, defaults to 0.98): Largest timestep as a fraction, included.

    Returns:
        `torch.Tensor` of shape `(count,)`, int64.
    """
    first, last = int(num_train_timesteps * min_timestep), int(num_train_timesteps * max_timestep)
    return torch.randint(first, last + 1, (count,), generator=generator)


def score_distillation_weights(timesteps: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """The weights one minus alpha-bar of timesteps `(B,)`, as DreamFusion has them; `(B,)`."""
    return 1 - alphas_cumprod.to(timesteps.device)[timesteps]


def score_distillation_loss(
    inputs: torch.Tensor, noise_pred: torch.Tensor, noise: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """
    A loss whose gradient at `inputs` is `weights * (noise_pred - noise) / B` (arXiv 2209.14988, equation 3).

    Args:
        inputs (`torch.Tensor` of shape `(B, C, H, W)`): What the prior saw before the noise was added.
        noise_pred (`torch.Tensor` of shape `(B, C, H, W)`): The prior's guided noise prediction.
        noise (`torch.Tensor` of shape `(B, C, H, W)`): The noise that was added.
        weights (`torch.Tensor` of shape `(B,)`): Of `score_distillation_weights`.

    Returns:
        `torch.Tensor` of shape `()`.
    """
    gradient = torch.nan_to_num(weights.view(-1, 1, 1, 1) * (noise_pred - noise)).detach().float()
    target = inputs.detach().float() - gradient
    return 0.5 * (inputs.float() - target).square().sum() / len(inputs)
