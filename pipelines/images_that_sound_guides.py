"""Guides of a side besides its prompt: ControlNets and IP-Adapters, and the pictures that they see."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers import ControlNetModel, DiffusionPipeline, MultiControlNetModel, UNet2DConditionModel
from diffusers.image_processor import PipelineImageInput
from diffusers.models.embeddings import ImageProjection
from diffusers.utils.torch_utils import is_compiled_module

from .images_that_sound_canvas import Windows, check_resize_mode, fit_pictures, read_pictures
from .images_that_sound_checks import check_number, check_tensor, shown
from .images_that_sound_lora import AudioSidePipeline
from .images_that_sound_sides import expand_rows


# Config entries that a ControlNet has to share with the UNet that it was copied from.
SAME_AS_UNET = (
    *("in_channels", "cross_attention_dim", "encoder_hid_dim", "block_out_channels", "layers_per_block"),
    *("class_embed_type", "addition_embed_type"),
)


def nets_of(controlnet: torch.nn.Module | list[torch.nn.Module] | None) -> list[torch.nn.Module]:
    """The ControlNets of a component or a list, without what `torch.compile` puts around them."""
    controlnet = _uncompiled(controlnet)
    if isinstance(controlnet, MultiControlNetModel):
        controlnet = list(controlnet.nets)
    nets = controlnet if isinstance(controlnet, (list, tuple)) else [controlnet]
    return [_uncompiled(net) for net in nets if net is not None]


def _uncompiled(module: torch.nn.Module | None) -> torch.nn.Module | None:
    return module._orig_mod if is_compiled_module(module) else module


def check_controlnet(controlnet: torch.nn.Module | list, unet: UNet2DConditionModel, vae_scale_factor: int) -> None:
    """Raises `ValueError` unless a ControlNet, or each of several, adds to what a UNet computes."""
    nets = nets_of(controlnet)
    if not nets:
        raise ValueError("`controlnet` has to hold at least one `ControlNetModel`, but holds none.")
    for net in nets:
        if not isinstance(net, ControlNetModel):
            raise ValueError(
                "`controlnet` has to be a `ControlNetModel`, a list of them or a `MultiControlNetModel`, but is or"
                f" holds a `{type(net).__name__}`."
            )
        for name in SAME_AS_UNET:
            found, wanted = (_comparable(model.config.get(name)) for model in (net, unet))
            if found != wanted:
                raise ValueError(f"`controlnet` does not fit `unet`: its `{name}` has to be {wanted}, but is {found}.")
        channels = net.config.conditioning_embedding_out_channels
        if 2 ** (len(channels) - 1) != vae_scale_factor:
            raise ValueError(
                f"`controlnet` does not fit `vae`: it makes pictures {2 ** (len(channels) - 1)} times smaller"
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
    """

    controlnet: torch.nn.Module | None = None
    pictures: list[torch.Tensor] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    guess_mode: bool = False
    adapter_images: list[torch.Tensor] | None = None
    image_embeds: list[torch.Tensor] | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of control images, by the argument."""
        if len(self.pictures) == 1:
            return {"control_image": len(self.pictures[0])}
        return {f"control_image[{i}]": len(pictures) for i, pictures in enumerate(self.pictures)}

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
) -> Guides:
    """
    Reads the arguments of a call about ControlNets.

    Args:
        controlnet ([`ControlNetModel`] or [`MultiControlNetModel`], *optional*): The component.
        size (`tuple[int, int]`): Height and width of the canvas in pixels.
        resize_mode (`str`): As in `fit_pictures`.
        image, scale, start, end, guess_mode: `control_image`, `controlnet_conditioning_scale`,
            `control_guidance_start`, `control_guidance_end` and `guess_mode` of the call.

    Raises:
        ValueError: For arguments that do not make sense.
    """
    check_resize_mode(resize_mode)
    nets = nets_of(controlnet)
    numbers = {
        "controlnet_conditioning_scale": (scale, -float("inf"), float("inf")),
        "control_guidance_start": (start, 0, 1),
        "control_guidance_end": (end, 0, 1),
    }
    scales, starts, ends = (_per_net(name, *each, max(len(nets), 1)) for name, each in numbers.items())
    for first, last in zip(starts, ends):
        if first >= last:
            raise ValueError(
                f"`control_guidance_start` has to be before `control_guidance_end`, but they are {first} and {last}."
            )
    if image is None:
        if {*scales} != {1.0} or any(starts) or {*ends} != {1.0}:
            raise ValueError(f"Without `control_image`, none of {[f'`{name}`' for name in numbers]} can be given.")
        return Guides()
    if not nets:
        raise ValueError(
            "`control_image` needs a `controlnet`: load the pipeline with `from_pretrained(..., controlnet=...)`."
        )
    several = isinstance(_uncompiled(controlnet), MultiControlNetModel)
    images = _images_per_net(image, len(nets)) if several else [image]
    pictures = [_read_control_image(each, net, size, resize_mode) for each, net in zip(images, nets)]
    return Guides(controlnet, pictures, scales, starts, ends, guess_mode)


def read_ip_adapter(
    guides: Guides,
    pipe: DiffusionPipeline,
    image: PipelineImageInput | None,
    embeds: list[torch.Tensor] | None,
    guided: bool,
) -> Guides:
    """
    Adds the arguments of a call about IP-Adapters, `ip_adapter_image` and `ip_adapter_image_embeds`. `guided` says
    whether the prompt guides the image side. Raises `ValueError` for arguments that do not make sense.
    """
    projections = getattr(getattr(pipe.unet, "encoder_hid_proj", None), "image_projection_layers", [])
    given = {"ip_adapter_image": image, "ip_adapter_image_embeds": embeds}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ValueError("`ip_adapter_image` and `ip_adapter_image_embeds` exclude each other, but both are given.")
    if names and not projections:
        raise ValueError(f"`{names[0]}` needs an IP-Adapter: call `pipe.load_ip_adapter(...)` before.")
    if projections and not names:
        raise ValueError(
            "`ip_adapter_image` or `ip_adapter_image_embeds` has to be given, since an IP-Adapter is loaded;"
            " `pipe.unload_ip_adapter()` takes it away."
        )
    if embeds is not None:
        return replace(guides, image_embeds=_check_image_embeds(embeds, projections, guided))
    return replace(guides, adapter_images=_read_adapter_images(pipe, image, len(projections))) if names else guides


def prepare_guides(guides: Guides, pipe: DiffusionPipeline, batch_size: int, guided: bool) -> Guides | None:
    """
    Guides on the device, with as many rows as the batch has, and with the pictures of IP-Adapters encoded. `None` if
    nothing guides.
    """
    image_embeds, device = None, pipe._execution_device
    if guides.adapter_images is not None or guides.image_embeds is not None:
        stock = AudioSidePipeline.of(pipe, pipe.image_side)
        stock.register_modules(image_encoder=pipe.image_encoder, feature_extractor=pipe.feature_extractor)
        image_embeds = stock.prepare_ip_adapter_image_embeds(
            guides.adapter_images, guides.image_embeds, device, batch_size, guided
        )
        image_embeds = [each.to(pipe.unet.dtype) for each in image_embeds]
    elif not guides.pictures:
        return None
    pictures = [expand_rows(each, batch_size).to(device, pipe.unet.dtype) for each in guides.pictures]
    return replace(guides, pictures=pictures, image_embeds=image_embeds)


def _read_adapter_images(pipe: DiffusionPipeline, image: PipelineImageInput, number: int) -> list[torch.Tensor]:
    if pipe.image_encoder is None or pipe.feature_extractor is None:
        raise ValueError(
            "`ip_adapter_image` needs `image_encoder` and `feature_extractor`; without them give"
            " `ip_adapter_image_embeds`."
        )
    images = image if isinstance(image, list) else [image]
    if len(images) != number:
        raise ValueError(
            f"`ip_adapter_image` has to be a list with an entry for each of {number} IP-Adapters, but has"
            f" {len(images)}."
        )
    side = pipe.image_encoder.config.image_size
    shape = ("B", pipe.image_encoder.config.num_channels, side, side)
    return [check_tensor("ip_adapter_image", _pixels_of(pipe, each), shape) for each in images]


def _pixels_of(pipe: DiffusionPipeline, image: PipelineImageInput) -> torch.Tensor:
    if isinstance(image, torch.Tensor):
        return image
    try:
        return pipe.feature_extractor(image, return_tensors="pt").pixel_values
    except Exception as error:  # the feature extractor raises anything for values that are no picture
        raise ValueError(
            "`ip_adapter_image` has to be a picture, an array, a tensor or a list of them for each IP-Adapter, but"
            f" is {shown(image)}: {error}"
        ) from error


def _per_net(name: str, value: Any, least: float, most: float, number: int) -> list[float]:
    values = list(value) if isinstance(value, (list, tuple)) else [value] * number
    if len(values) != number:
        raise ValueError(
            f"`{name}` has to be a number, or a list of one for each of {number} ControlNets, but has {len(values)}."
        )
    return [check_number(name, each, least, most) for each in values]


def _images_per_net(control_image: Any, number: int) -> list:
    """Pictures for each of several ControlNets, of a list with an entry for each, or of such a list per prompt."""
    entries = control_image if isinstance(control_image, (list, tuple)) else [control_image]
    per_prompt = any(isinstance(each, (list, tuple)) for each in entries)
    lists = entries if per_prompt else [entries]
    if not all(isinstance(each, (list, tuple)) and len(each) == number for each in lists):
        raise ValueError(
            f"`control_image` has to be a list of one for each of {number} ControlNets, or a list of such lists, one"
            f" for each prompt, but is {shown(control_image)}."
        )
    return [list(each) for each in zip(*lists)] if per_prompt else list(entries)


def _read_control_image(
    image: PipelineImageInput, net: ControlNetModel, size: tuple[int, int], resize_mode: str
) -> torch.Tensor:
    """Canvases `(b, C, H, W)` in 0..1, on black, with the channels that a ControlNet sees."""
    pictures = fit_pictures(read_pictures(image, "control_image"), *size, resize_mode, ground=0.0)
    channels = net.config.conditioning_channels
    if channels == 1:
        return pictures.mean(dim=1, keepdim=True)
    if pictures.shape[1] == 1:
        return pictures.expand(-1, channels, -1, -1)
    return check_tensor("control_image", pictures, ("B", channels, *size))


def _check_image_embeds(
    embeds: list[torch.Tensor], projections: torch.nn.ModuleList, guided: bool
) -> list[torch.Tensor]:
    if not isinstance(embeds, (list, tuple)) or len(embeds) != len(projections):
        raise ValueError(
            f"`ip_adapter_image_embeds` has to be a list with a tensor for each of {len(projections)} IP-Adapters, but"
            f" is {shown(embeds)}."
        )
    for each, projection in zip(embeds, projections):
        size = projection.image_embeds.in_features if isinstance(projection, ImageProjection) else "D"
        # IP-Adapter Plus reads a sequence for each picture.
        tokens = ("L",) if size == "D" and getattr(each, "ndim", 3) == 4 else ()
        check_tensor("ip_adapter_image_embeds", each, (2 if guided else 1, "N", *tokens, size))
    return list(embeds)
