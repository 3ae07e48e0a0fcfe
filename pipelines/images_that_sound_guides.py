"""What guides the image side besides its prompt: ControlNets and IP-Adapters, and the pictures that they see."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    MultiControlNetModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.image_processor import PipelineImageInput, VaeImageProcessor
from diffusers.loaders import IPAdapterMixin
from diffusers.models.embeddings import ImageProjection
from diffusers.schedulers import KarrasDiffusionSchedulers
from diffusers.utils.torch_utils import is_compiled_module
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
    SpeechT5HifiGan,
)

from .images_that_sound_checks import LARGEST_NUMBER, check_number, check_tensor, read_pictures, shown
from .images_that_sound_pictures import check_resize_mode, fit_pictures
from .images_that_sound_prompts import expand_rows
from .images_that_sound_two_sides import PAPER_ARGUMENTS, TwoSidesMixin


# Of pictures that are brought to the canvas' size here.
PICTURES = VaeImageProcessor(do_resize=False, do_normalize=False, do_convert_rgb=True)

# What has to be the same in a ControlNet as in the UNet that it was copied from.
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
            own, wanted = (_comparable(model.config.get(name)) for model in (net, unet))
            if own != wanted:
                raise ValueError(f"`controlnet` does not fit `unet`: its `{name}` has to be {wanted}, but is {own}.")
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
class ImageGuides:
    """
    What a call gives to ControlNets ([arXiv 2302.05543](https://arxiv.org/abs/2302.05543)) and IP-Adapters
    ([arXiv 2308.06721](https://arxiv.org/abs/2308.06721)). Called, it returns what the image side's UNet takes of
    them.

    Args:
        controlnet ([`ControlNetModel`] or [`MultiControlNetModel`], *optional*): The component.
        pictures (`list[torch.Tensor]`): What each ControlNet sees, of shape `(b, C, H, W)` in 0..1.
        scales (`list[float]`): What the residuals of each are multiplied by.
        starts, ends (`list[float]`): Fractions of the steps taken, 0..1, between which each is run.
        num_skipped (`int`): How many of the scheduler's timesteps are not taken, but left out at the beginning.
        adapter_images (`list[torch.Tensor]`, *optional*): What the image encoder reads for each IP-Adapter.
        image_embeds (`list[torch.Tensor]`, *optional*): For each IP-Adapter, with guidance behind the negative ones.
    """

    controlnet: torch.nn.Module | None = None
    pictures: list[torch.Tensor] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    num_skipped: int = 0
    adapter_images: list[torch.Tensor] | None = None
    image_embeds: list[torch.Tensor] | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many control images there are, by the argument."""
        if len(self.pictures) == 1:
            return {"control_image": len(self.pictures[0])}
        return {f"control_image[{i}]": len(pictures) for i, pictures in enumerate(self.pictures)}

    def __call__(
        self, index: int, num_timesteps: int, latents: torch.Tensor, timestep: torch.Tensor, embeds: torch.Tensor
    ) -> dict[str, Any]:
        """At one of the scheduler's timesteps, by its index; with guidance all tensors are doubled."""
        unet_kwargs = {}
        if self.image_embeds is not None:
            rows = [each[-len(latents) :] for each in self.image_embeds]
            unet_kwargs["added_cond_kwargs"] = {"image_embeds": rows}
        scales = self._scales_at(index - self.num_skipped, num_timesteps - self.num_skipped)
        if any(scales):
            names = ("down_block_additional_residuals", "mid_block_additional_residual")
            unet_kwargs |= zip(names, self._residuals(scales, latents, timestep, embeds))
        return unet_kwargs

    def _scales_at(self, step: int, num_steps: int) -> list[float]:
        return [
            0.0 if step / num_steps < start or (step + 1) / num_steps > end else scale
            for scale, start, end in zip(self.scales, self.starts, self.ends)
        ]

    def _residuals(
        self, scales: list[float], latents: torch.Tensor, timestep: torch.Tensor, embeds: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Those of the ControlNets whose scale is not 0, added up."""
        guess_mode = nets_of(self.controlnet)[0].config.global_pool_conditions
        # As in diffusers: such a ControlNet sees nothing but what is guided by the prompt.
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
    """Leaves out all but some of several ControlNets inside, so that hooks on the whole still work."""
    whole = _uncompiled(controlnet)
    nets = getattr(whole, "nets", [])
    if len(indices) < len(nets):
        whole.nets = torch.nn.ModuleList(nets[i] for i in indices)
    try:
        yield
    finally:
        if len(indices) < len(nets):
            whole.nets = nets


class GuidedTwoSidesMixin(TwoSidesMixin, IPAdapterMixin):
    """Both sides, of which the image side may be guided by ControlNets and IP-Adapters."""

    # `unet_audio` and `controlnet` are left out: in the chain they would push `unet` off the device at every step, and
    # `unet` them.
    model_cpu_offload_seq = "text_encoder->text_encoder_audio->image_encoder->unet->vae->vae_audio->vocoder"
    _optional_components = [*TwoSidesMixin._optional_components, "controlnet", "image_encoder", "feature_extractor"]
    _callback_tensor_inputs = [*TwoSidesMixin._callback_tensor_inputs, "pred_original_sample"]
    _paper_arguments = PAPER_ARGUMENTS

    # diffusers' own, for the same components.
    encode_image = StableDiffusionPipeline.encode_image
    prepare_ip_adapter_image_embeds = StableDiffusionPipeline.prepare_ip_adapter_image_embeds

    # Optional components have no default: diffusers would ignore what a caller of `DiffusionPipeline` passes for them.
    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        unet_audio: UNet2DConditionModel,
        vocoder: SpeechT5HifiGan,
        vae_audio: AutoencoderKL,
        text_encoder_audio: CLIPTextModel,
        controlnet: ControlNetModel | list[ControlNetModel] | tuple[ControlNetModel] | MultiControlNetModel,
        image_encoder: CLIPVisionModelWithProjection,
        feature_extractor: CLIPImageProcessor,
        spectrogram: dict | None = None,
        default_arguments: dict | None = None,
    ):
        super().__init__(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            unet_audio=unet_audio,
            vocoder=vocoder,
            vae_audio=vae_audio,
            text_encoder_audio=text_encoder_audio,
            spectrogram=spectrogram,
            default_arguments=default_arguments,
        )
        if controlnet is not None and unet is not None:
            check_controlnet(controlnet, unet, self.vae_scale_factor)
        if isinstance(controlnet, (list, tuple)):
            controlnet = MultiControlNetModel(controlnet)
        self.register_modules(controlnet=controlnet, image_encoder=image_encoder, feature_extractor=feature_extractor)

    @classmethod
    def extract_init_dict(cls, config_dict: dict, **kwargs: Any) -> tuple[dict, dict, dict]:
        """What a repo names, without the feature extractor of its safety checker."""
        if not any(config_dict.get("image_encoder") or [None]):
            config_dict = {**config_dict, "feature_extractor": [None, None]}
        return super().extract_init_dict(config_dict, **kwargs)

    def resolve_guides(
        self,
        size: tuple[int, int],
        resize_mode: str,
        guided: bool,
        *,
        control_image: PipelineImageInput | list | None = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        ip_adapter_image: PipelineImageInput | None = None,
        ip_adapter_image_embeds: list[torch.Tensor] | None = None,
    ) -> ImageGuides:
        """
        What a call's arguments ask for; `size` is height and width of the canvas, and `guided` says whether the image
        side is guided by its prompt. Raises `ValueError` for what does not make sense.
        """
        check_resize_mode(resize_mode)
        nets = nets_of(self.controlnet)
        numbers = {
            "controlnet_conditioning_scale": (controlnet_conditioning_scale, -LARGEST_NUMBER, LARGEST_NUMBER),
            "control_guidance_start": (control_guidance_start, 0, 1),
            "control_guidance_end": (control_guidance_end, 0, 1),
        }
        scales, starts, ends = (_per_net(name, *each, max(len(nets), 1)) for name, each in numbers.items())
        for start, end in zip(starts, ends):
            if start >= end:
                raise ValueError(
                    f"`control_guidance_start` has to be before `control_guidance_end`, but they are {start} and"
                    f" {end}."
                )
        adapter = self._resolve_adapter(ip_adapter_image, ip_adapter_image_embeds, guided)
        if control_image is None:
            if {*scales} != {1.0} or any(starts) or {*ends} != {1.0}:
                raise ValueError(f"Without `control_image`, none of {[f'`{name}`' for name in numbers]} can be given.")
            return ImageGuides(**adapter)
        if not nets:
            raise ValueError(
                "`control_image` needs a `controlnet`: load the pipeline with `from_pretrained(..., controlnet=...)`."
            )
        self._check_controlnet()
        several = isinstance(_uncompiled(self.controlnet), MultiControlNetModel)
        images = _images_per_net(control_image, len(nets)) if several else [control_image]
        pictures = [_read_control_image(image, net, size, resize_mode) for image, net in zip(images, nets)]
        return ImageGuides(self.controlnet, pictures, scales, starts, ends, **adapter)

    def _check_controlnet(self) -> None:
        check_controlnet(self.controlnet, self.unet, self.vae_scale_factor)
        if self.controlnet.dtype != self.unet.dtype:
            raise ValueError(
                f"`controlnet` has to be in the precision of `unet`, {self.unet.dtype}, but is in"
                f" {self.controlnet.dtype}. `pipe.to(dtype)` changes both."
            )

    def _resolve_adapter(
        self, image: PipelineImageInput | None, embeds: list[torch.Tensor] | None, guided: bool
    ) -> dict[str, list[torch.Tensor]]:
        projections = getattr(getattr(self.unet, "encoder_hid_proj", None), "image_projection_layers", [])
        given = {"ip_adapter_image": image, "ip_adapter_image_embeds": embeds}
        names = [name for name, value in given.items() if value is not None]
        if len(names) > 1:
            raise ValueError(
                "`ip_adapter_image` and `ip_adapter_image_embeds` exclude each other, but both are given."
            )
        if names and not projections:
            raise ValueError(f"`{names[0]}` needs an IP-Adapter: call `pipe.load_ip_adapter(...)` before.")
        if projections and not names:
            raise ValueError(
                "`ip_adapter_image` or `ip_adapter_image_embeds` has to be given, since an IP-Adapter is loaded;"
                " `pipe.unload_ip_adapter()` takes it away."
            )
        if embeds is not None:
            return {"image_embeds": _check_image_embeds(embeds, projections, guided)}
        return {"adapter_images": self._read_adapter_images(image, len(projections))} if names else {}

    def _read_adapter_images(self, image: PipelineImageInput, number: int) -> list[torch.Tensor]:
        if self.image_encoder is None or self.feature_extractor is None:
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
        side = self.image_encoder.config.image_size
        shape = ("B", self.image_encoder.config.num_channels, side, side)
        return [check_tensor("ip_adapter_image", self._pixels_of(each), shape) for each in images]

    def _pixels_of(self, image: PipelineImageInput) -> torch.Tensor:
        if isinstance(image, torch.Tensor):
            return image
        try:
            return self.feature_extractor(image, return_tensors="pt").pixel_values
        except Exception as error:  # of what is no picture the feature extractor can say anything
            raise ValueError(
                "`ip_adapter_image` has to be a picture, an array, a tensor or a list of them for each IP-Adapter, but"
                f" is {shown(image)}: {error}"
            ) from error

    def prepare_guides(
        self, guides: ImageGuides, batch_size: int, guided: bool, num_skipped: int = 0
    ) -> ImageGuides | None:
        """
        Puts what guides a call of so many rows on the device, once IP-Adapters' images are encoded; `None` where
        nothing does. `num_skipped` of the scheduler's timesteps are left out at the beginning.
        """
        image_embeds = None
        if guides.adapter_images is not None or guides.image_embeds is not None:
            image_embeds = self.prepare_ip_adapter_image_embeds(
                guides.adapter_images, guides.image_embeds, self._execution_device, batch_size, guided
            )
            image_embeds = [each.to(self.unet.dtype) for each in image_embeds]
        elif not guides.pictures:
            return None
        pictures = [
            expand_rows(each, batch_size).to(self._execution_device, self.unet.dtype) for each in guides.pictures
        ]
        return replace(guides, pictures=pictures, num_skipped=num_skipped, image_embeds=image_embeds)


def _per_net(name: str, value: Any, least: float, most: float, number: int) -> list[float]:
    values = list(value) if isinstance(value, (list, tuple)) else [value] * number
    if len(values) != number:
        raise ValueError(
            f"`{name}` has to be a number, or a list of one for each of {number} ControlNets, but has {len(values)}."
        )
    return [check_number(name, each, least, most) for each in values]


def _images_per_net(control_image: Any, number: int) -> list:
    """What each of several ControlNets sees, where an entry for each is given, or such a list for each prompt."""
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
    """Canvases `(b, C, H, W)` in 0..1 of as many channels as a ControlNet sees, on black."""
    pictures = fit_pictures(read_pictures(PICTURES, image, "control_image"), *size, resize_mode, ground=0.0)
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
