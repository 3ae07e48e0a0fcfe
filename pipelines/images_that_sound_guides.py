"""Guides of a side besides its prompt: ControlNets and IP-Adapters, the pictures that they see, and onsets."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import ControlNetModel, DiffusionPipeline, MultiControlNetModel, UNet2DConditionModel
from diffusers.image_processor import PipelineImageInput
from diffusers.models.embeddings import ImageProjection
from diffusers.utils.torch_utils import is_compiled_module

from .images_that_sound_canvas import Canvas, Windows, check_resize_mode, fit_pictures, read_pictures
from .images_that_sound_checks import check_number, check_tensor, shown
from .images_that_sound_lora import AudioSidePipeline
from .images_that_sound_sides import expand_rows
from .images_that_sound_spectrogram import MelSpectrogram, check_audio


# Config entries that a ControlNet has to share with the UNet that it was copied from.
SAME_AS_UNET = (
    *("in_channels", "cross_attention_dim", "encoder_hid_dim", "block_out_channels", "layers_per_block"),
    *("class_embed_type", "addition_embed_type"),
)


# Share of a waveform's loudest column from which on a column sounds, and contrast to the ground, 0 to 1, from which on
# something is seen in a column of a picture.
SOUNDING, SEEN = 0.1, 0.25

# Time spans in seconds, a waveform, a picture, or `"picture"` for the one that the call is given.
Onsets = list[tuple[float, float]] | np.ndarray | torch.Tensor | PIL.Image.Image | str


def nets_of(controlnet: torch.nn.Module | list[torch.nn.Module] | None) -> list[torch.nn.Module]:
    """The ControlNets of a component or a list, without what `torch.compile` puts around them."""
    controlnet = _uncompiled(controlnet)
    if isinstance(controlnet, MultiControlNetModel):
        controlnet = list(controlnet.nets)
    nets = controlnet if isinstance(controlnet, (list, tuple)) else [controlnet]
    return [_uncompiled(net) for net in nets if net is not None]


def _uncompiled(module: torch.nn.Module | None) -> torch.nn.Module | None:
    return module._orig_mod if is_compiled_module(module) else module


def check_controlnet(
    controlnet: torch.nn.Module | list, unet: UNet2DConditionModel, vae_scale_factor: int, prefix: str = ""
) -> None:
    """
    Raises `ValueError` unless a ControlNet, or each of several, adds to what a UNet computes. `prefix` is `"audio_"`
    for those of the audio side.
    """
    name_of_unet = "unet_audio" if prefix else "unet"
    nets = nets_of(controlnet)
    if not nets:
        raise ValueError(f"`{prefix}controlnet` has to hold at least one `ControlNetModel`, but holds none.")
    for net in nets:
        if not isinstance(net, ControlNetModel):
            raise ValueError(
                f"`{prefix}controlnet` has to be a `ControlNetModel`, a list of them or a `MultiControlNetModel`, but"
                f" is or holds a `{type(net).__name__}`."
            )
        for name in SAME_AS_UNET:
            found, wanted = (_comparable(model.config.get(name)) for model in (net, unet))
            if found != wanted:
                raise ValueError(
                    f"`{prefix}controlnet` does not fit `{name_of_unet}`: its `{name}` has to be {wanted}, but is"
                    f" {found}."
                )
        channels = net.config.conditioning_embedding_out_channels
        if 2 ** (len(channels) - 1) != vae_scale_factor:
            raise ValueError(
                f"`{prefix}controlnet` does not fit `vae`: it makes pictures {2 ** (len(channels) - 1)} times smaller"
                f" (`conditioning_embedding_out_channels` is {_comparable(channels)}), but the VAE"
                f" {vae_scale_factor} times."
            )


def _comparable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True)
class Guides:
    """
    ControlNets ([arXiv 2302.05543](https://arxiv.org/abs/2302.05543)) and IP-Adapters
    ([arXiv 2308.06721](https://arxiv.org/abs/2308.06721)) of a side in one call. Called, it returns further arguments
    of the UNet.

    Args:
        controlnet ([`ControlNetModel`] or [`MultiControlNetModel`], *optional*): The component.
        pictures (`list[torch.Tensor]`): Pictures for each ControlNet, of shape `(b, C, H, W)` in 0..1.
        scales (`list[float]`): Factors of the residuals of each ControlNet.
        starts, ends (`list[float]`): Fractions of the run, 0 to 1, between which each ControlNet acts.
        guess_mode (`bool`): Whether the ControlNets guide the prompted rows alone, and deep layers more.
        adapter_images (`list[torch.Tensor]`, *optional*): Pixels for the image encoder, for each IP-Adapter.
        image_embeds (`list[torch.Tensor]`, *optional*): Embeddings for each IP-Adapter; with guidance the negative
            ones first.
        prefix (`str`): `"audio_"` for the audio side, with which its arguments begin.
    """

    controlnet: torch.nn.Module | None = None
    pictures: list[torch.Tensor] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    guess_mode: bool = False
    adapter_images: list[torch.Tensor] | None = None
    image_embeds: list[torch.Tensor] | None = None
    prefix: str = ""

    @property
    def seen(self) -> torch.Tensor | None:
        """Picture `(b, C, H, W)` of the first ControlNet."""
        return self.pictures[0] if self.pictures else None

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of control images, by the argument."""
        name = f"{self.prefix}control_image"
        if len(self.pictures) == 1:
            return {name: len(self.pictures[0])}
        return {f"{name}[{i}]": len(pictures) for i, pictures in enumerate(self.pictures)}

    def at(self, windows: Windows, places: list[int], rows: int) -> "Guides":
        """
        The guides at some windows of the canvas, for a batch of `rows`: they come one window after the other, and
        negative embeddings stay the first.
        """
        embeds = self.image_embeds
        if embeds is not None:
            embeds = [torch.cat([half for half in each.split(rows) for _ in places]) for each in embeds]
        return replace(self, pictures=[windows.cut(each, places) for each in self.pictures], image_embeds=embeds)

    def __call__(
        self, latents: torch.Tensor, timestep: torch.Tensor, embeds: torch.Tensor, span: tuple[float, float]
    ) -> dict[str, Any]:
        """
        Further arguments of the UNet.

        Args:
            latents (`torch.Tensor` of shape `(B, C, h, w)`): Latents as the UNet takes them, doubled with guidance.
            timestep (`torch.Tensor` of shape `()` or `(B,)`): Noise level.
            embeds (`torch.Tensor` of shape `(B, L, D)`): Embeddings as the UNet takes them.
            span (`tuple[float, float]`): Fractions of the run, 0 to 1, between which this step lies.
        """
        unet_kwargs = {}
        if self.image_embeds is not None:
            rows = [each[-len(latents) :] for each in self.image_embeds]
            unet_kwargs["added_cond_kwargs"] = {"image_embeds": rows}
        scales = [
            0.0 if span[0] < start or span[1] > end else scale
            for scale, start, end in zip(self.scales, self.starts, self.ends)
        ]
        if any(scales):
            names = ("down_block_additional_residuals", "mid_block_additional_residual")
            unet_kwargs |= zip(names, self._residuals(scales, latents, timestep, embeds))
        return unet_kwargs

    def _residuals(
        self, scales: list[float], latents: torch.Tensor, timestep: torch.Tensor, embeds: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Sum of the residuals of the ControlNets whose scale is not 0."""
        guess_mode = self.guess_mode or nets_of(self.controlnet)[0].config.global_pool_conditions
        # As in diffusers: such a ControlNet sees the prompted rows alone.
        halved = guess_mode and len(latents) > len(self.pictures[0])
        if halved:
            latents, embeds = latents.chunk(2)[1], embeds.chunk(2)[1]
        run = [i for i, scale in enumerate(scales) if scale]
        pictures = [torch.cat([self.pictures[i]] * (len(latents) // len(self.pictures[i]))) for i in run]
        several = isinstance(_uncompiled(self.controlnet), MultiControlNetModel)
        with _only(self.controlnet, run):
            down, mid = self.controlnet(
                latents,
                timestep,
                encoder_hidden_states=embeds,
                controlnet_cond=pictures if several else pictures[0],
                conditioning_scale=[scales[i] for i in run] if several else scales[0],
                guess_mode=guess_mode,
                return_dict=False,
            )
        if halved:
            down, mid = [torch.cat([torch.zeros_like(each), each]) for each in down], torch.cat([mid * 0, mid])
        return down, mid


@contextmanager
def _only(controlnet: torch.nn.Module, indices: list[int]) -> Iterator[None]:
    """Leaves out all but some of several ControlNets inside the context, so that hooks on the whole still work."""
    whole = _uncompiled(controlnet)
    nets = getattr(whole, "nets", [])
    if len(indices) < len(nets):
        whole.nets = torch.nn.ModuleList(nets[i] for i in indices)
    try:
        yield
    finally:
        if len(indices) < len(nets):
            whole.nets = nets


def read_controls(
    controlnet: torch.nn.Module | None,
    size: tuple[int, int],
    resize_mode: str,
    *,
    image: PipelineImageInput | list | None,
    scale: float | list[float],
    start: float | list[float],
    end: float | list[float],
    guess_mode: bool = False,
    onsets: torch.Tensor | None = None,
    prefix: str = "",
) -> Guides:
    """
    Reads the arguments of a call about ControlNets.

    Args:
        controlnet ([`ControlNetModel`] or [`MultiControlNetModel`], *optional*): The component.
        size (`tuple[int, int]`): Height and width of the canvas in pixels.
        resize_mode (`str`): As in `fit_pictures`.
        image, scale, start, end, guess_mode: `control_image`, `controlnet_conditioning_scale`,
            `control_guidance_start`, `control_guidance_end` and `guess_mode` of the call.
        onsets (`torch.Tensor` of shape `(b, 1, H, W)`, *optional*): Canvases to see instead of `image`, -1 or 1.
        prefix (`str`, defaults to `""`): Beginning of the arguments' names.

    Raises:
        ValueError: For arguments that do not make sense.
    """
    check_resize_mode(resize_mode)
    nets, source = nets_of(controlnet), f"{prefix}control_image" if onsets is None else f"{prefix}onsets"
    numbers = {
        f"{prefix}controlnet_conditioning_scale": (scale, -float("inf"), float("inf")),
        f"{prefix}control_guidance_start": (start, 0, 1),
        f"{prefix}control_guidance_end": (end, 0, 1),
    }
    scales, starts, ends = (_per_net(name, *each, max(len(nets), 1)) for name, each in numbers.items())
    for first, last in zip(starts, ends):
        if first >= last:
            raise ValueError(
                f"`{prefix}control_guidance_start` has to be before `{prefix}control_guidance_end`, but they are"
                f" {first} and {last}."
            )
    if image is None and onsets is None:
        if {*scales} != {1.0} or any(starts) or {*ends} != {1.0}:
            raise ValueError(f"Without `{source}`, none of {[f'`{name}`' for name in numbers]} can be given.")
        return Guides(prefix=prefix)
    if not nets:
        name = f"{prefix}controlnet"
        raise ValueError(f"`{source}` needs a `{name}`: load the pipeline with `from_pretrained(..., {name}=...)`.")
    if onsets is not None:
        if image is not None or len(nets) > 1:
            raise ValueError(f"`{source}` guides a single ControlNet, and excludes `{prefix}control_image`.")
        pictures = [onsets.expand(-1, nets[0].config.conditioning_channels, -1, -1)]
    else:
        several = isinstance(_uncompiled(controlnet), MultiControlNetModel)
        images = _images_per_net(source, image, len(nets)) if several else [image]
        pictures = [_read_control_image(source, *each, size, resize_mode) for each in zip(images, nets)]
    return Guides(controlnet, pictures, scales, starts, ends, guess_mode, prefix=prefix)


def read_ip_adapter(
    guides: Guides,
    pipe: DiffusionPipeline,
    image: PipelineImageInput | None,
    embeds: list[torch.Tensor] | None,
    guided: bool,
) -> Guides:
    """
    Adds the arguments of a call about IP-Adapters of a side, `ip_adapter_image` and `ip_adapter_image_embeds`.
    `guided` says whether the prompt guides the side. Raises `ValueError` for arguments that do not make sense.
    """
    prefix, side = guides.prefix, "pipe.audio" if guides.prefix else "pipe"
    unet = pipe.unet_audio if prefix else pipe.unet
    projections = getattr(getattr(unet, "encoder_hid_proj", None), "image_projection_layers", [])
    given = {f"{prefix}ip_adapter_image": image, f"{prefix}ip_adapter_image_embeds": embeds}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ValueError(f"`{names[0]}` and `{names[1]}` exclude each other, but both are given.")
    if names and not projections:
        raise ValueError(f"`{names[0]}` needs an IP-Adapter: call `{side}.load_ip_adapter(...)` before.")
    if projections and not names:
        raise ValueError(
            f"{' or '.join(f'`{name}`' for name in given)} has to be given, since an IP-Adapter is loaded;"
            f" `{side}.unload_ip_adapter()` takes it away."
        )
    if embeds is not None:
        return replace(guides, image_embeds=_check_image_embeds(names[0], embeds, projections, guided))
    if not names:
        return guides
    return replace(guides, adapter_images=_read_adapter_images(names[0], pipe, image, len(projections)))


def prepare_guides(guides: Guides, pipe: DiffusionPipeline, batch_size: int, guided: bool) -> Guides | None:
    """
    Guides on the device, with as many rows as the batch has, and with the pictures of IP-Adapters encoded. `None` if
    nothing guides.
    """
    image_embeds, device = None, pipe._execution_device
    side = pipe.audio_side if guides.prefix else pipe.image_side
    if guides.adapter_images is not None or guides.image_embeds is not None:
        stock = AudioSidePipeline.of(pipe, side)
        stock.register_modules(image_encoder=pipe.image_encoder, feature_extractor=pipe.feature_extractor)
        image_embeds = stock.prepare_ip_adapter_image_embeds(
            guides.adapter_images, guides.image_embeds, device, batch_size, guided
        )
        image_embeds = [each.to(side.unet.dtype) for each in image_embeds]
    elif not guides.pictures:
        return None
    pictures = [expand_rows(each, batch_size).to(device, side.unet.dtype) for each in guides.pictures]
    return replace(guides, pictures=pictures, image_embeds=image_embeds)


def _read_adapter_images(
    name: str, pipe: DiffusionPipeline, image: PipelineImageInput, number: int
) -> list[torch.Tensor]:
    if pipe.image_encoder is None or pipe.feature_extractor is None:
        raise ValueError(f"`{name}` needs `image_encoder` and `feature_extractor`; without them give `{name}_embeds`.")
    images = image if isinstance(image, list) else [image]
    if len(images) != number:
        raise ValueError(
            f"`{name}` has to be a list with an entry for each of {number} IP-Adapters, but has {len(images)}."
        )
    side = pipe.image_encoder.config.image_size
    shape = ("B", pipe.image_encoder.config.num_channels, side, side)
    return [check_tensor(name, _pixels_of(name, pipe, each), shape) for each in images]


def _pixels_of(name: str, pipe: DiffusionPipeline, image: PipelineImageInput) -> torch.Tensor:
    if isinstance(image, torch.Tensor):
        return image
    try:
        return pipe.feature_extractor(image, return_tensors="pt").pixel_values
    except Exception as error:  # the feature extractor raises anything for values that are no picture
        raise ValueError(
            f"`{name}` has to be a picture, an array, a tensor or a list of them for each IP-Adapter, but is"
            f" {shown(image)}: {error}"
        ) from error


def _per_net(name: str, value: Any, least: float, most: float, number: int) -> list[float]:
    values = list(value) if isinstance(value, (list, tuple)) else [value] * number
    if len(values) != number:
        raise ValueError(
            f"`{name}` has to be a number, or a list of one for each of {number} ControlNets, but has {len(values)}."
        )
    return [check_number(name, each, least, most) for each in values]


def _images_per_net(name: str, control_image: Any, number: int) -> list:
    """Pictures for each of several ControlNets, of a list with an entry for each, or of such a list per prompt."""
    entries = control_image if isinstance(control_image, (list, tuple)) else [control_image]
    per_prompt = any(isinstance(each, (list, tuple)) for each in entries)
    lists = entries if per_prompt else [entries]
    if not all(isinstance(each, (list, tuple)) and len(each) == number for each in lists):
        raise ValueError(
            f"`{name}` has to be a list of one for each of {number} ControlNets, or a list of such lists, one for each"
            f" prompt, but is {shown(control_image)}."
        )
    return [list(each) for each in zip(*lists)] if per_prompt else list(entries)


def _read_control_image(
    name: str, image: PipelineImageInput, net: ControlNetModel, size: tuple[int, int], resize_mode: str
) -> torch.Tensor:
    """Canvases `(b, C, H, W)` in 0..1, on black, with the channels that a ControlNet sees."""
    pictures = fit_pictures(read_pictures(image, name), *size, resize_mode, ground=0.0)
    channels = net.config.conditioning_channels
    if channels == 1:
        return pictures.mean(dim=1, keepdim=True)
    if pictures.shape[1] == 1:
        return pictures.expand(-1, channels, -1, -1)
    return check_tensor(name, pictures, ("B", channels, *size))


def _check_image_embeds(
    name: str, embeds: list[torch.Tensor], projections: torch.nn.ModuleList, guided: bool
) -> list[torch.Tensor]:
    if not isinstance(embeds, (list, tuple)) or len(embeds) != len(projections):
        raise ValueError(
            f"`{name}` has to be a list with a tensor for each of {len(projections)} IP-Adapters, but is"
            f" {shown(embeds)}."
        )
    for each, projection in zip(embeds, projections):
        size = projection.image_embeds.in_features if isinstance(projection, ImageProjection) else "D"
        # IP-Adapter Plus reads a sequence for each picture.
        tokens = ("L",) if size == "D" and getattr(each, "ndim", 3) == 4 else ()
        check_tensor(name, each, (2 if guided else 1, "N", *tokens, size))
    return list(embeds)


# -------------------- Onsets --------------------


def read_onsets(
    onsets: Onsets, canvas: Canvas, spectrogram: MelSpectrogram, resize_mode: str, seen: torch.Tensor | None
) -> torch.Tensor:
    """
    Canvases for a ControlNet that says when it sounds, as FoleyCrafter's does (arXiv 2407.01494, section 3.3).

    Args:
        onsets (`list[tuple[float, float]]`, `np.ndarray`, `torch.Tensor`, `PIL.Image.Image` or `str`): Time spans in
            seconds; a waveform of shape `(N,)`, by its envelope; a picture, by the columns in which it shows
            something; or `"picture"` for `seen`.
        canvas ([`Canvas`]): Size of the canvas, and the part of it that is played.
        spectrogram ([`MelSpectrogram`]): Its constants.
        resize_mode (`str`): How a picture comes onto the canvas.
        seen (`torch.Tensor` of shape `(b, C, H, W)`, *optional*): Picture of the call, on the canvas, in 0..1.

    Returns:
        `torch.Tensor` of shape `(b, 1, M, T)`: 1 in columns that sound, -1 in others.

    Raises:
        ValueError: For onsets of another kind, outside the canvas, or without any sound.
    """
    if isinstance(onsets, str):
        if onsets != "picture" or seen is None:
            given = "a picture is given" if seen is not None else "no picture is given"
            raise ValueError(
                f"`audio_onsets` has to be 'picture', with a picture to begin with or a control image, but is"
                f" {onsets!r}, and {given}."
            )
        sounding = _columns_of_picture(seen, canvas)
    elif isinstance(onsets, PIL.Image.Image):
        pictures = read_pictures(onsets, "audio_onsets", ground=spectrogram.silence)
        fitted = fit_pictures(pictures, canvas.height, canvas.width, resize_mode, ground=spectrogram.silence)
        sounding = _columns_of_picture(fitted, canvas)
    elif isinstance(onsets, (np.ndarray, torch.Tensor)):
        sounding = _columns_of_sound(torch.as_tensor(onsets), canvas, spectrogram)
    else:
        sounding = _columns_of_spans(onsets, canvas, spectrogram)
    if not sounding.any(dim=-1).all():
        raise ValueError("`audio_onsets` has to hold a column that sounds, but holds none.")
    return torch.where(sounding, 1.0, -1.0)[:, None, None].expand(-1, -1, spectrogram.num_mel_bins, -1)


def _columns_of_picture(pictures: torch.Tensor, canvas: Canvas) -> torch.Tensor:
    """Whether something is seen in each column `(b, T)` of pictures `(b, C, H, W)` whose ground is their median."""
    brightness = pictures.float().mean(dim=1)
    contrast = brightness - brightness.flatten(1).median(dim=1).values[:, None, None]
    return canvas.unfold(contrast.abs()).amax(dim=-2) >= SEEN


def _columns_of_sound(audio: torch.Tensor, canvas: Canvas, spectrogram: MelSpectrogram) -> torch.Tensor:
    """Whether a waveform `(N,)` is loud in each column `(1, T)` of a canvas that is at least as long."""
    check_audio(audio)
    most = canvas.columns * spectrogram.hop_length
    if audio.dim() != 1 or len(audio) >= most + spectrogram.hop_length or not torch.isfinite(audio).all():
        raise ValueError(
            f"`audio_onsets` as a waveform has to be finite, of shape (N,), and of at most the sound's {most} samples,"
            f" but its shape is {tuple(audio.shape)}."
        )
    samples = audio.new_zeros(canvas.strip_width * spectrogram.hop_length, dtype=torch.float32)
    samples[: len(audio)] = audio[: len(samples)]
    levels = samples.view(-1, spectrogram.hop_length).square().mean(dim=-1).sqrt()
    return (levels > SOUNDING * levels.amax())[None]


def _columns_of_spans(spans: list[tuple[float, float]], canvas: Canvas, spectrogram: MelSpectrogram) -> torch.Tensor:
    """Whether each column `(1, T)` lies in one of some time spans."""
    pairs = spans if isinstance(spans, (list, tuple)) else [spans]
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise ValueError(
            "`audio_onsets` has to be a list of pairs of seconds, a waveform, a picture or 'picture', but is"
            f" {shown(spans)}."
        )
    rate, sounding = spectrogram.columns_per_second, torch.zeros(1, canvas.strip_width, dtype=torch.bool)
    for start, end in pairs:
        check_number("audio_onsets", start, least=0, most=canvas.columns / rate)
        check_number("audio_onsets", end, least=0, most=canvas.columns / rate)
        if start >= end:
            raise ValueError(f"`audio_onsets` has to hold spans that end after they start, but holds {(start, end)}.")
        sounding[:, round(start * rate) : max(round(end * rate), round(start * rate) + 1)] = True
    return sounding
