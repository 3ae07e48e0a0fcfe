"""Score distillation sampling (DreamFusion, arXiv 2209.14988): canvases, their loss, and their way to be optimised."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from .images_that_sound_checks import check_number, check_tensor, shown
from .images_that_sound_denoising import add_noise
from .images_that_sound_files import written
from .images_that_sound_sides import Guided


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
        count (`int`): Number of timesteps.
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
        inputs (`torch.Tensor` of shape `(B, C, H, W)`): Inputs of the prior before the noise was added.
        noise_pred (`torch.Tensor` of shape `(B, C, H, W)`): The prior's guided noise prediction.
        noise (`torch.Tensor` of shape `(B, C, H, W)`): The noise that was added.
        weights (`torch.Tensor` of shape `(B,)`): Result of `score_distillation_weights`.

    Returns:
        `torch.Tensor` of shape `()`.
    """
    gradient = (weights.view(-1, 1, 1, 1) * (noise_pred - noise)).detach().float()
    target = inputs.detach().float() - gradient
    return 0.5 * (inputs.float() - target).square().sum() / len(inputs)


class CanvasRun:
    """
    A canvas on its way: the module, its optimiser and the source of randomness, on disk and back.

    Args:
        generator (`torch.Generator`): Source of all randomness, on the CPU.
        accelerator (`accelerate.Accelerator`): Devices and precision of the optimisation.
        make_canvas (`Callable`): Makes the module, which returns a canvas `(1, C, H, W)` in 0..1.
        make_optimizer (`Callable`): Makes the optimiser of the module's parameters.
        checkpoint (`Path`, *optional*): File of the run's state, from which it goes on where there is one.
        settings (`dict[str, str | torch.Tensor]`): Arguments that the canvas depends on, kept beside its state.

    Raises:
        ValueError: If the file holds something else or the state of a run with other settings, or can't be written.
    """

    def __init__(
        self,
        generator: torch.Generator,
        accelerator: Accelerator,
        make_canvas: Callable[[], torch.nn.Module],
        make_optimizer: Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer],
        checkpoint: Path | None = None,
        settings: dict[str, str | torch.Tensor] = {},
    ):
        self.generator, self.accelerator, self.checkpoint, self.iteration = generator, accelerator, checkpoint, 0
        self.settings = settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            module = make_canvas().to(accelerator.device)
        self.canvas, self.optimizer = accelerator.prepare(module, make_optimizer(module.parameters()))
        try:
            if checkpoint is not None and checkpoint.exists():
                self._load(checkpoint)
            else:
                # Before anything is computed it shows whether it can be written.
                self.save()
        except (OSError, RuntimeError) as error:
            raise ValueError(f"`checkpoint_dir` has to be a folder for {checkpoint}, but: {error}") from error

    @torch.no_grad()
    def draw_canvas(self) -> torch.Tensor:
        """The canvas as it is, `(1, C, H, W)` in 0..1."""
        module = self.accelerator.unwrap_model(self.canvas)
        # Batch statistics are the canvas's own; to look at it must not change them.
        kept = {name: buffer.clone() for name, buffer in module.named_buffers()}
        canvas = module().detach().clone()
        for name, buffer in module.named_buffers():
            buffer.copy_(kept[name])
        return canvas

    def step(self, loss: torch.Tensor) -> None:
        """One step of the optimiser along the gradient of `loss`, a scalar."""
        self.accelerator.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.iteration += 1

    def save(self) -> None:
        if self.checkpoint is None or not self.accelerator.is_main_process:
            return
        state = {
            "iteration": self.iteration,
            "canvas": self.accelerator.unwrap_model(self.canvas).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "settings": self.settings,
        }
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        with written(self.checkpoint) as file:
            torch.save(state, file)

    def _load(self, checkpoint: Path) -> None:
        try:
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
            differing = _differing(state["settings"], self.settings)
            if differing:
                raise ValueError(f"its run has other settings, {'; '.join(differing)}")
            self.accelerator.unwrap_model(self.canvas).load_state_dict(state["canvas"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"])
        except Exception as error:
            raise ValueError(
                f"`checkpoint_dir` holds {checkpoint}, which is no checkpoint of such a canvas: {error}. Ask for what"
                " that run was asked for to go on with it, or name another folder."
            ) from error
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.iteration = state["iteration"]


def described(value: Any) -> str | torch.Tensor:
    """A setting as a checkpoint keeps it: tensors as they are, objects by their class and what they were made from."""
    if isinstance(value, torch.Tensor):
        return value.detach().float().cpu()
    if callable(value) or hasattr(value, "config"):
        made_from = dict(getattr(value, "config", {}))
        return f"{getattr(value, '__qualname__', type(value).__qualname__)}({made_from or ''})"
    return repr(value)


def _differing(kept: dict[str, str | torch.Tensor], settings: dict[str, str | torch.Tensor]) -> list[str]:
    """The settings in which two runs differ, in words. Embeddings may be rounded otherwise on another device."""
    differing = []
    for name in sorted(kept.keys() | settings.keys()):
        old, new = kept.get(name), settings.get(name)
        if isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor):
            if old.shape != new.shape or not torch.allclose(old, new, rtol=0, atol=1e-2):
                differing.append(f"another `{name}`")
        elif isinstance(old, torch.Tensor) or isinstance(new, torch.Tensor) or old != new:
            differing.append(f"`{name}` {shown(old)} instead of {shown(new)}")
    return differing


@contextmanager
def frozen(modules: Iterable[Any]) -> Iterator[None]:
    """Lets gradients through modules, not into their weights. Other objects are left alone."""
    modules = [module for module in modules if isinstance(module, torch.nn.Module)]
    parameters = [each for module in modules for each in module.parameters() if each.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@dataclass(frozen=True)
class SDSSettings:
    """Arguments of the call that a canvas depends on, with nothing left open."""

    height: int
    width: int
    crop_right: int
    crop_width: int
    num_crops: int
    num_iterations: int
    image_start_step: int
    image_weight: float
    audio_weight: float
    shared_timestep: bool
    timestep_scheduler: Any | None
    guidance_scale: float
    audio_guidance_scale: float
    canvas: str | Callable[..., torch.nn.Module]
    canvas_kwargs: dict[str, Any] | None
    optimizer: str
    learning_rate: float
    optimizer_kwargs: dict[str, Any] | None

    def make_canvas(self) -> torch.nn.Module:
        make = CANVASES[self.canvas] if isinstance(self.canvas, str) else self.canvas
        return make(**{"height": self.height, "width": self.width, **(self.canvas_kwargs or {})})

    def make_optimizer(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        kwargs = {"weight_decay": 1e-3} if self.optimizer == "AdamW" else {}
        kwargs = kwargs if self.optimizer_kwargs is None else self.optimizer_kwargs
        return getattr(torch.optim, self.optimizer)(parameters, **{"lr": self.learning_rate, **kwargs})

    def check_canvas(self) -> None:
        """Raises `ValueError` unless a canvas can be made that has the size of the settings."""
        if not callable(self.canvas) and not (isinstance(self.canvas, str) and self.canvas in CANVASES):
            raise ValueError(
                f"`canvas` has to be one of {sorted(CANVASES)} or make a module, but is {shown(self.canvas)}."
            )
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                drawn = self.make_canvas()()
            check_tensor("canvas", drawn, (1, 1 if drawn.shape[1] == 1 else 3, self.height, self.width))
        except Exception as error:  # the module can be anybody's
            raise ValueError(
                f"`canvas` has to make a module with `canvas_kwargs` that returns (1, 1 or 3, {self.height},"
                f" {self.width}), but {shown(self.canvas)} with {shown(self.canvas_kwargs)} does not: {error}"
            ) from error

    def check_optimizer(self) -> None:
        """Raises `ValueError` unless there is such an optimiser and it takes a step."""
        check_number("learning_rate", self.learning_rate, least=0)
        parameter = torch.nn.Parameter(torch.zeros(1, 1))
        parameter.grad = torch.zeros(1, 1)
        try:
            self.make_optimizer([parameter]).step()
        except Exception as error:  # each optimiser refuses in its own way
            raise ValueError(
                "`optimizer` has to name a class of `torch.optim` that takes `optimizer_kwargs` and steps without a"
                f" closure, but {shown(self.optimizer)} with {shown(self.optimizer_kwargs)} does not: {error}"
            ) from error

    def to_compare(
        self, embeds: dict[str, torch.Tensor | None], generator: torch.Generator | None, accelerator: Accelerator
    ) -> dict[str, str | torch.Tensor]:
        """All that a run has to share with the one whose canvas it goes on with, by argument."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "crop_right"}
        prompts = {name.removesuffix("_embeds"): rows for name, rows in embeds.items()}
        precision = {
            "mixed_precision": accelerator.mixed_precision,
            "gradient_accumulation_steps": accelerator.gradient_accumulation_steps,
        }
        seed = None if generator is None else generator.initial_seed()
        return {
            name: described(value) for name, value in {**values, **prompts, **precision, "generator": seed}.items()
        }


def latent_loss(
    guided: Guided,
    pictures: torch.Tensor,
    timesteps: torch.Tensor,
    weights: torch.Tensor,
    noise: torch.Tensor,
    posterior_noise: torch.Tensor,
) -> torch.Tensor:
    """Loss `()` of pictures `(B, 3, H, W)` in -1..1. Its gradient goes through the encoder, not through the UNet."""
    vae = guided.side.vae
    posterior = vae.encode(pictures.to(vae.dtype)).latent_dist
    latents = (posterior.mean + posterior.std * posterior_noise.to(vae.dtype)) * vae.config.scaling_factor
    with torch.no_grad():
        noisy = add_noise(guided.side.scheduler, latents.detach(), noise, timesteps)
        noise_pred = guided.predict_noise(noisy, timesteps)
    return score_distillation_loss(latents, noise_pred, noise, weights)


def is_timestep_scheduler(schedule: Any) -> bool:
    return schedule is None or (not isinstance(schedule, type) and callable(getattr(schedule, "draw", None)))


def check_drawn(drawn: Any, count: int, num_train_timesteps: int) -> None:
    """Raises `ValueError` unless a schedule's timesteps and weights are those of `count` crops."""
    tensors = isinstance(drawn, tuple) and len(drawn) == 2 and all(isinstance(each, torch.Tensor) for each in drawn)
    fits = tensors and all(each.shape == (count,) for each in drawn) and drawn[0].dtype == torch.int64
    if not fits or drawn[0].min() < 0 or drawn[0].max() >= num_train_timesteps:
        raise ValueError(
            f"`timestep_scheduler` has to draw int64 timesteps below {num_train_timesteps} and weights, both of shape"
            f" ({count},), but drew {shown(drawn)}."
        )


def check_losses(iteration: int, canvas: torch.Tensor, losses: dict[str, float | None]) -> None:
    """Raises `ValueError`, before the canvas is touched, where a prior has no number for it."""
    broken = [name for name, loss in losses.items() if loss is not None and not math.isfinite(loss)]
    if not broken:
        return
    if not torch.isfinite(canvas).all():
        raise ValueError(f"The canvas is not finite any more at iteration {iteration}: `learning_rate` is too large.")
    unets = {"image_loss": "the image prior `unet`", "audio_loss": "the audio prior `unet_audio`"}
    raise ValueError(
        f"At iteration {iteration} {' and '.join(unets[name] for name in broken)} yields values that are not finite,"
        " with which no canvas can be optimised. Its weights may be damaged, or overflow in half precision."
    )
