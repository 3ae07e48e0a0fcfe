"""Both sides in one latent space: what the pipelines of Stable Diffusion and its audio side share."""

import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from numbers import Real
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    DiffusionPipeline,
    MultiControlNetModel,
    PNDMScheduler,
    StableDiffusionMixin,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import PipelineImageInput
from diffusers.loaders import IPAdapterMixin, StableDiffusionLoraLoaderMixin, TextualInversionLoaderMixin
from diffusers.schedulers import KarrasDiffusionSchedulers
from diffusers.utils.torch_utils import randn_tensor
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
    SpeechT5HifiGan,
)

from .images_that_sound_audio_prior import AudioPriorRepo
from .images_that_sound_audio_side import HABITS_NAME, AudioSideMixin
from .images_that_sound_canvas import LAYOUTS, Canvas, Windows, fit_pictures, resolve_windows
from .images_that_sound_checks import (
    check_choice,
    check_integer,
    check_tensor,
    get_logger,
    plain_number,
    shown,
    tensors_returned,
)
from .images_that_sound_denoising import (
    DenoisingStep,
    audio_noise_shares,
    bounds,
    count_custom_steps,
    denoise,
    denoising_steps,
    shares_over_time,
)
from .images_that_sound_guides import Guides, Onsets, check_controlnet, read_controls, read_ip_adapter, read_onsets
from .images_that_sound_loading import check_not_offloaded
from .images_that_sound_lora import FewStepsMixin
from .images_that_sound_sides import Guided, Request, check_over_time
from .images_that_sound_spectrogram import check_audio


logger = get_logger(__name__)

# Windows as wide as a canvas of the checkpoint, each half over the next, one at a time.
OWN_WINDOWS = {
    **dict.fromkeys(("window_width", "window_stride", "audio_window_width", "audio_window_stride")),
    "window_batch_size": 1,
}

# Defaults of calls that average noise: the paper's settings.
PAPER_ARGUMENTS = {
    "height": 256,
    "width": 1024,
    "crop_right": 32,
    "num_inference_steps": 100,
    "guidance_scale": 10.0,
    "audio_guidance_scale": 10.0,
    "audio_weight": 0.5,
    "image_guidance_start": 0.1,
    "image_guidance_end": 1.0,
    "audio_guidance_start": 0.0,
    "audio_guidance_end": 1.0,
    **OWN_WINDOWS,
}


# Entries of scheduler configs that decide on the noise level of a timestep, with their defaults.
NOISE_LEVELS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
}


class TwoSidesMixin(
    AudioSideMixin,
    FewStepsMixin,
    StableDiffusionMixin,
    IPAdapterMixin,
    TextualInversionLoaderMixin,
    StableDiffusionLoraLoaderMixin,
):
    """
    A [`DiffusionPipeline`] of Stable Diffusion and its audio side. LoRA, textual inversion, ControlNets and
    IP-Adapters are the image side's; `audio` has diffusers' methods for the audio side.
    """

    # `unet_audio` and the ControlNets are left out: in the chain they would push `unet` off the device at every step,
    # and `unet` them.
    model_cpu_offload_seq = "text_encoder->text_encoder_audio->image_encoder->unet->vae->vae_audio->vocoder"
    _optional_components = [
        *AudioSideMixin._optional_components,
        *("controlnet", "audio_controlnet", "image_encoder", "feature_extractor"),
    ]
    _callback_tensor_inputs = [*AudioSideMixin._callback_tensor_inputs, "pred_original_sample"]
    _paper_arguments = PAPER_ARGUMENTS

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
        tokenizer_audio: CLIPTokenizer,
        controlnet: ControlNetModel | list[ControlNetModel] | tuple[ControlNetModel] | MultiControlNetModel,
        image_encoder: CLIPVisionModelWithProjection,
        feature_extractor: CLIPImageProcessor,
        audio_controlnet: ControlNetModel | list[ControlNetModel] | tuple[ControlNetModel] | MultiControlNetModel,
        spectrogram: dict | None = None,
        default_arguments: dict | None = None,
        audio_prediction_type: str | None = None,
    ):
        super().__init__()
        if spectrogram is None:
            repair_scheduler(scheduler)
        # Read first, since registering keeps them anew.
        habits = getattr(unet_audio, HABITS_NAME, None) or {}
        self._register(
            spectrogram,
            default_arguments,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            unet_audio=unet_audio,
            vocoder=vocoder,
            vae_audio=vae_audio,
            text_encoder_audio=text_encoder_audio,
            tokenizer_audio=tokenizer_audio,
            image_encoder=image_encoder,
            feature_extractor=feature_extractor,
        )
        self.register_to_config(audio_prediction_type=audio_prediction_type or habits.get("audio_prediction_type"))
        self._keep_habits()
        for prefix, nets, owner in (("", controlnet, unet), ("audio_", audio_controlnet, unet_audio)):
            if nets is not None and owner is not None:
                check_controlnet(nets, owner, self.vae_scale_factor, prefix)
            nets = MultiControlNetModel(nets) if isinstance(nets, (list, tuple)) else nets
            self.register_modules(**{f"{prefix}controlnet": nets})

    # -------------------- Loading --------------------

    @classmethod
    def extract_init_dict(cls, config_dict: dict, **kwargs: Any) -> tuple[dict, dict, dict]:
        """Components of a repo: DDIM, the paper's sampler, for PNDM, and no feature extractor of a safety checker."""
        if not any(config_dict.get("image_encoder") or [None]):
            config_dict = {**config_dict, "feature_extractor": [None, None]}
        # A repo that was saved by one of these pipelines names what its user chose.
        if "spectrogram" not in config_dict and config_dict.get("scheduler") == ["diffusers", "PNDMScheduler"]:
            logger.warning(
                "The repo names PNDMScheduler. Unless another `scheduler` is passed, DDIMScheduler is built from its"
                " config, the paper's sampler; assign `pipe.scheduler` for another."
            )
            config_dict = {**config_dict, "scheduler": ["diffusers", "DDIMScheduler"]}
        return super().extract_init_dict(config_dict, **kwargs)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> "TwoSidesMixin":
        """
        [`DiffusionPipeline.from_pipe`], except that optional components may be left out, that the shared ones keep
        their precision unless `dtype` is given, and that Stable Diffusion's PNDM becomes DDIM unless `scheduler` is
        given.
        """
        if isinstance(pipeline.scheduler, PNDMScheduler) and not hasattr(pipeline, "mel_spectrogram"):
            if "scheduler" not in kwargs:
                logger.warning(
                    "DDIMScheduler, the paper's sampler, replaces PNDMScheduler. Pass `scheduler` for another."
                )
                # PNDM never clips, whatever its config says.
                kwargs["scheduler"] = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
        return super().from_pipe(pipeline, **kwargs)

    @classmethod
    def from_single_file(cls, pretrained_model_link_or_path: str | os.PathLike, **kwargs: Any) -> "TwoSidesMixin":
        """
        A pipeline from a single file of Stable Diffusion 1.5 (`.safetensors`, `.ckpt`), without an audio side. Takes
        the arguments of [`StableDiffusionPipeline.from_single_file`].
        """
        return cls.from_pipe(StableDiffusionPipeline.from_single_file(pretrained_model_link_or_path, **kwargs))

    def _load_audio_modules(self, repo: AudioPriorRepo) -> dict[str, Any]:
        tokenizer = repo.load(CLIPTokenizer, "tokenizer")
        # transformers makes an empty one if a repo has none.
        if not _vocabulary(tokenizer):
            raise ValueError(f"`tokenizer` of `{repo}` holds no words.")
        self.register_to_config(audio_prediction_type=self._compare_noise(repo))
        modules = super()._load_audio_modules(repo)
        # Tokens of textual inversions were added by the user.
        shared = self.tokenizer is not None and _vocabulary(tokenizer) == _vocabulary(self.tokenizer)
        modules["tokenizer_audio"] = None if shared else tokenizer
        channels, image_channels = modules["unet_audio"].config.in_channels, self.unet.config.in_channels
        if channels != image_channels:
            raise ValueError(
                f"`unet_audio` of `{repo}` has to work in the image side's latents of {image_channels} channels, but"
                f" takes {channels}."
            )
        return modules

    def _compare_noise(self, repo: AudioPriorRepo) -> str | None:
        """
        Kind of the audio side's predictions, `None` if the repo names no scheduler. Raises `ValueError` if its
        timesteps mean other noise levels than the image side's.
        """
        config = repo.scheduler_config
        if config is None:
            return None
        for name, usual in NOISE_LEVELS.items():
            audio, image = (each.get(name, usual) for each in (config, self.scheduler.config))
            if audio != image and name in self.scheduler.config:
                raise ValueError(
                    f"The scheduler of `{repo}` has to have the image side's noise levels, `{name}` {image!r}, but has"
                    f" {audio!r}."
                )
        return config.get("prediction_type", "epsilon")

    def load_audio_controlnet(
        self,
        pretrained_model_name_or_path: str | os.PathLike,
        weight_name: str | None = None,
        subfolder: str = "",
        revision: str | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Loads `audio_controlnet`, in the precision of `unet_audio`: a [`ControlNetModel`], or FoleyCrafter's temporal
        adapter (arXiv 2407.01494), a copy of Auffusion's UNet that sees onsets. An IP-Adapter is loaded after it.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): A Hub repo, such as `ymzhang319/FoleyCrafter`, or a
                folder.
            weight_name (`str`, *optional*): File of a temporal adapter, such as `temporal_adapter.ckpt`. It is read as
                plain tensors; nothing in it is executed.
            subfolder (`str`, *optional*, defaults to `""`): Folder inside the repo.
            revision (`str`, *optional*): Branch, tag or commit of the repo.
            kwargs:
                `cache_dir`, `token`, `force_download`, `local_files_only`, as in `from_pretrained`.

        Raises:
            ValueError: If it can't be read, or does not fit the audio side.
        """
        self._check_audio_prior()
        check_not_offloaded(self, "load_audio_controlnet")
        repo = AudioPriorRepo(pretrained_model_name_or_path, subfolder, {**kwargs, "revision": revision})
        controlnet = (
            repo.load(ControlNetModel, "", dtype=self.unet_audio.dtype)
            if weight_name is None
            else repo.load_onset_controlnet(self.unet_audio, weight_name)
        )
        check_controlnet(controlnet, self.unet_audio, self.vae_scale_factor, "audio_")
        self.register_modules(audio_controlnet=controlnet.to(self.unet_audio.device))

    # -------------------- Both UNets --------------------

    def enable_freeu(self, s1: float, s2: float, b1: float, b2: float) -> None:
        """FreeU ([`StableDiffusionMixin.enable_freeu`]) in both UNets."""
        for unet in self._unets():
            unet.enable_freeu(s1=s1, s2=s2, b1=b1, b2=b2)

    def disable_freeu(self) -> None:
        """Undoes `enable_freeu`."""
        for unet in self._unets():
            unet.disable_freeu()

    def _unets(self) -> list[UNet2DConditionModel]:
        return [unet for unet in (self.unet, self.unet_audio) if unet is not None]

    def fuse_qkv_projections(self, unet: bool = True, vae: bool = True) -> None:
        """[`StableDiffusionMixin.fuse_qkv_projections`], in the audio side's models too."""
        super().fuse_qkv_projections(unet, vae)
        for model in self._audio_models(unet, vae):
            model.fuse_qkv_projections()

    def unfuse_qkv_projections(self, unet: bool = True, vae: bool = True) -> None:
        """Undoes `fuse_qkv_projections`."""
        super().unfuse_qkv_projections(unet, vae)
        for model in self._audio_models(unet, vae):
            model.unfuse_qkv_projections()

    def _audio_models(self, unet: bool, vae: bool) -> list[torch.nn.Module]:
        wanted = [self.unet_audio] * unet + [self.vae_audio] * vae
        return [model for model in wanted if model is not None]

    # -------------------- Arguments of a call --------------------

    def resolve_size(
        self,
        height: int | None = None,
        width: int | None = None,
        audio_length_in_s: float | None = None,
        crop_right: int | None = None,
        canvas_layout: str = "strip",
        circular: bool = False,
    ) -> Canvas:
        """
        The canvas that the arguments of a call ask for. The checkpoint's defaults stand in for missing ones.

        Raises:
            ValueError: For an argument that does not make sense, or that does not fit the spectrogram.
        """
        check_choice("canvas_layout", canvas_layout, LAYOUTS)
        folds = 2 if canvas_layout == "folded" else 1
        if circular and folds == 2:
            raise ValueError("`circular` is for `canvas_layout='strip'`, since rows of a folded canvas do not meet.")
        crop_right = 0 if circular and crop_right is None else crop_right
        crop_right = check_integer("crop_right", self.resolve_default("crop_right", crop_right), least=0)
        height = self.default_arguments["height"] * folds if height is None else height
        if audio_length_in_s is None:
            width = self.default_arguments["width"] // folds if width is None else width
        elif width is not None:
            raise ValueError(
                f"`width` and `audio_length_in_s` exclude each other, but are {shown(width)} and"
                f" {shown(audio_length_in_s)}."
            )
        else:
            columns = self.mel_spectrogram.num_columns(_check_seconds(audio_length_in_s))
            width = -(-(columns + crop_right) // (folds * self.vae_scale_factor)) * self.vae_scale_factor
            crop_right = width * folds - columns
        height, width = self._check_size(height, width, crop_right, folds)
        if circular and crop_right:
            raise ValueError(
                f"`circular` keeps the whole canvas, a multiple of {self.vae_scale_factor} columns, but the last"
                f" {crop_right} of {width} would be cut."
            )
        return Canvas(height, width, width * folds - crop_right, folded=folds == 2, circular=circular)

    def resolve_windows(
        self,
        canvas: Canvas,
        window_width: int | None = None,
        window_stride: int | None = None,
        audio_window_width: int | None = None,
        audio_window_stride: int | None = None,
        window_batch_size: int | None = None,
    ) -> Canvas:
        """
        The canvas with the windows that the arguments of a call ask for. A canvas that is not wider than a window, or
        than nine eighths of the checkpoint's own width if none is asked for, is seen whole, or in windows of its own
        width if it is circular. Raises `ValueError` for arguments that make no sense.
        """
        arguments = {
            "window": (canvas.width, window_width, window_stride),
            "audio_window": (canvas.strip_width, audio_window_width, audio_window_stride),
        }
        windows, batch_size = [], self.resolve_default("window_batch_size", window_batch_size)
        for name, (total, width, stride) in arguments.items():
            width, widest = self.resolve_window_width(width, name)
            stride = self.resolve_default(f"{name}_stride", stride)
            further = {"name": name, "widest": widest, "batch_size": batch_size, "circular": canvas.circular}
            windows.append(resolve_windows(total, width, stride, self.vae_scale_factor, **further))
        return replace(canvas, windows=windows[0], audio_windows=windows[1])

    def resolve_window_width(self, width: int | None = None, name: str = "window") -> tuple[int, int]:
        """Pixels of a window that the argument of a call asks for, and of the widest canvas that is seen whole."""
        width, usual = self.resolve_default(f"{name}_width", width), self.default_arguments["width"]
        # Ten seconds plus the cropped strip exceed the checkpoint's canvas a little. Windows would double the time.
        return (usual, usual * 9 // 8) if width is None else (width, width)

    def _check_size(self, height: int, width: int, crop_right: int, folds: int) -> tuple[int, int]:
        height, width = (check_integer(name, each) for name, each in (("height", height), ("width", width)))
        bins = self.mel_spectrogram.num_mel_bins * folds
        if height != bins:
            raise ValueError(
                f"`height` has to be {bins} for `canvas_layout='{LAYOUTS[folds - 1]}'`, so that each row of the canvas"
                f" is one of the {bins // folds} mel bins that the sound is made from, but is {height}."
            )
        if width % self.vae_scale_factor:
            raise ValueError(f"`width` has to be a multiple of {self.vae_scale_factor}, but is {width}.")
        if crop_right >= width * folds:
            raise ValueError(
                f"`crop_right` has to be below the {width * folds} columns of the canvas, but is {crop_right}."
            )
        self._check_playable("width", width * folds)
        return height, width

    def resolve_shares(
        self,
        canvas: Canvas,
        num_inference_steps: int | None,
        audio_weight: Any,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        **edges: float | None,
    ) -> list[float | torch.Tensor]:
        """
        The audio side's share of the noise, 0 to 1, at each step that the arguments of a call ask for; a tensor `(w,)`
        for the columns of latents if the weight changes over time. The checkpoint's defaults stand in for missing
        arguments. `edges` are `image_guidance_start` and its like.

        Raises:
            ValueError: For arguments that do not make sense, or if no side acts at a step.
        """
        num_steps = self.resolve_steps(num_inference_steps, timesteps, sigmas)
        if not isinstance(audio_weight, dict):
            return self._shares(num_steps, audio_weight, edges)
        check_over_time("audio_weight", audio_weight)
        if canvas.folded:
            raise ValueError("`audio_weight` can't change over time on a folded canvas, whose columns sound twice.")
        seconds = sorted(audio_weight)
        columns = [round(second * self.mel_spectrogram.columns_per_second) for second in seconds]
        self._check_begins("audio_weight", columns[-1], canvas)
        starts = [column // self.vae_scale_factor for column in columns]
        parts = [self._shares(num_steps, audio_weight[second], edges) for second in seconds]
        return shares_over_time(starts, parts, canvas.width // self.vae_scale_factor)

    def _shares(self, num_steps: int, audio_weight: Any, edges: dict[str, float | None]) -> list[float]:
        if not hasattr(audio_weight, "audio_noise_shares"):
            edges = {name: self.resolve_default(name, value) for name, value in edges.items()}
            return audio_noise_shares(num_steps, self.resolve_default("audio_weight", audio_weight), **edges)
        given = {name: value for name, value in edges.items() if value is not None}
        if given:
            raise ValueError(
                f"`audio_weight` is a schedule, {type(audio_weight).__name__}, that decides on starts and ends"
                f" itself, so that none of these can be given besides: {given}."
            )
        # The same check as for a list, since anybody may write a schedule.
        return audio_noise_shares(num_steps, audio_weight.audio_noise_shares(num_steps), image_guidance_start=0.0)

    def resolve_steps(
        self, num_inference_steps: int | None, timesteps: list[int] | None, sigmas: list[float] | None
    ) -> int:
        """Number of steps by at most one of the arguments, else its default; `ValueError` if it makes no sense."""
        custom = {name: value for name, value in (("timesteps", timesteps), ("sigmas", sigmas)) if value is not None}
        if len(custom) + (num_inference_steps is not None) > 1:
            raise ValueError(
                "`num_inference_steps`, `timesteps` and `sigmas` exclude each other, but"
                f" {num_inference_steps}, {shown(timesteps)} and {shown(sigmas)} are given."
            )
        for name, values in custom.items():
            return count_custom_steps(self.scheduler, name, values)
        return self.resolve_num_steps("num_inference_steps", num_inference_steps)

    def resolve_request(
        self, request: Request, canvas: Canvas, guidance_scale: float | None, guidance_rescale: float = 0.0
    ) -> Request:
        """
        A request with its guidance scale, by default the checkpoint's, its rescaling, and prompts over time as lists.
        Raises `ValueError` for prompts over time that the canvas has no place for.
        """
        scale = self.resolve_default(request.name.replace("prompt", "guidance_scale"), guidance_scale)
        request = replace(request, guidance_scale=scale, guidance_rescale=guidance_rescale)
        request = request.over_time(self.mel_spectrogram.columns_per_second)
        if not request.columns:
            return request
        is_audio = request.name == "audio_prompt"
        windows = canvas.audio_windows if is_audio else canvas.windows
        if len(request.columns) > 1 and (windows is None or windows.width == windows.total):
            name = "audio_window_width" if is_audio else "window_width"
            raise ValueError(
                f"`{request.name}` can't change over time on a canvas that is seen whole: `{name}` has to be below its"
                f" {canvas.strip_width if is_audio else canvas.width} columns."
            )
        if canvas.folded and not is_audio:
            raise ValueError("`prompt` can't change over time on a folded canvas, whose columns sound twice.")
        self._check_begins(request.name, request.columns[-1], canvas)
        return request

    def _check_begins(self, name: str, column: int, canvas: Canvas) -> None:
        """Raises `ValueError` unless the last part of an argument over time begins on the canvas."""
        if column >= canvas.columns:
            begins, ends = (each / self.mel_spectrogram.columns_per_second for each in (column, canvas.columns))
            raise ValueError(
                f"`{name}` has to begin before the sound ends, at {ends:g} s, but it begins {begins:g} s after the"
                " start."
            )

    def acting(
        self, image: Request, audio: Request, audio_noise_shares: list[float | torch.Tensor]
    ) -> tuple[Request, ...]:
        """The requests of the sides that act at some step, or that ask for something nevertheless."""
        least, most = (each(map(each, map(bounds, audio_noise_shares))) for each in (min, max))
        acts = {"prompt": least < 1, "audio_prompt": most > 0}
        return tuple(request for request in (image, audio) if acts[request.name] or not request.is_empty)

    def resolve_num_steps(self, name: str, num_steps: int | None) -> int:
        """A number of denoising steps, or its default; `ValueError` for more than the scheduler was trained on."""
        most = self.scheduler.config.num_train_timesteps
        return check_integer(name, self.resolve_default(name, num_steps), most=most)

    def prepare_steps(
        self,
        audio_noise_shares: list[float | torch.Tensor],
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        denoising_start: float = 0.0,
        denoising_end: float = 1.0,
    ) -> list[DenoisingStep]:
        """Sets the scheduler for steps of these shares, and lists those between two fractions of the run."""
        first, last = (round(edge * len(audio_noise_shares)) for edge in (denoising_start, denoising_end))
        device = self._execution_device
        return denoising_steps(self.scheduler, audio_noise_shares, first, last, device, timesteps, sigmas)

    def read_guides(
        self,
        canvas: Canvas,
        resize_mode: str,
        guided: bool,
        *,
        control_image: PipelineImageInput | list | None = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        guess_mode: bool = False,
        ip_adapter_image: PipelineImageInput | None = None,
        ip_adapter_image_embeds: list[torch.Tensor] | None = None,
        prefix: str = "",
        onsets: torch.Tensor | None = None,
    ) -> Guides:
        """
        Guides of a side that the arguments of a call ask for, with the prefix `"audio_"` those of the audio side.
        `guided` says whether the side's prompt guides it. Raises `ValueError` for arguments that do not make sense.
        """
        controlnet, unet = (self.audio_controlnet, self.unet_audio) if prefix else (self.controlnet, self.unet)
        if (control_image is not None or onsets is not None) and controlnet is not None:
            check_controlnet(controlnet, unet, self.vae_scale_factor, prefix)
            if controlnet.dtype != unet.dtype:
                raise ValueError(
                    f"`{prefix}controlnet` has to be in the precision of `{'unet_audio' if prefix else 'unet'}`,"
                    f" {unet.dtype}, but is in {controlnet.dtype}. `pipe.to(dtype)` changes both."
                )
        guides = read_controls(
            controlnet,
            canvas.strip_size if prefix else (canvas.height, canvas.width),
            resize_mode,
            image=control_image,
            scale=controlnet_conditioning_scale,
            start=control_guidance_start,
            end=control_guidance_end,
            guess_mode=guess_mode,
            onsets=onsets,
            prefix=prefix,
        )
        return read_ip_adapter(guides, self, ip_adapter_image, ip_adapter_image_embeds, guided)

    def read_audio_guides(
        self,
        canvas: Canvas,
        resize_mode: str,
        guided: bool,
        onsets: Onsets | None = None,
        seen: torch.Tensor | None = None,
        **arguments: Any,
    ) -> Guides:
        """
        Guides of the audio side. `onsets` are the call's `audio_onsets`, and `seen` its picture `(b, C, H, W)` on the
        canvas; `arguments` are as for `read_guides`.
        """
        columns = None if onsets is None else read_onsets(onsets, canvas, self.mel_spectrogram, resize_mode, seen)
        return self.read_guides(canvas, resize_mode, guided, prefix="audio_", onsets=columns, **arguments)

    def seen_picture(
        self, canvas: Canvas, images: torch.Tensor | None, guides: Guides, resize_mode: str
    ) -> torch.Tensor | None:
        """Pictures `(b, C, H, W)` of a call: those to begin with `(b, C, h, w)`, else those that a ControlNet sees."""
        if images is None:
            return guides.seen
        return fit_pictures(images, canvas.height, canvas.width, resize_mode, self.mel_spectrogram.silence)

    def check_latents(self, name: str, latents: torch.Tensor | None, batch_size: int, canvas: Canvas) -> None:
        """Raises `ValueError` for latents of another shape than the canvas has."""
        if latents is not None:
            check_tensor(name, latents, self._latents_shape(batch_size, canvas))

    def _latents_shape(self, batch_size: int, canvas: Canvas) -> tuple[int, int, int, int]:
        return canvas.latents_shape(batch_size, self.unet.config.in_channels, self.vae_scale_factor)

    def prepare_latents(
        self,
        batch_size: int,
        canvas: Canvas,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Initial noise of unit variance.

        Args:
            batch_size (`int`): `B`.
            canvas ([`Canvas`]): Size of the pictures.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*): One for all or one per row.
            latents (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`, *optional*): Noise to take instead.

        Returns:
            `torch.Tensor` of shape `(B, C, H / 8, W / 8)`.
        """
        if latents is not None:
            return latents.to(self._execution_device, self.unet.dtype)
        shape = self._latents_shape(batch_size, canvas)
        return randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.unet.dtype)

    def preprocess_audio(self, audio: np.ndarray | torch.Tensor | None) -> torch.Tensor | None:
        """Canvases `(B, 1, M, T)` in 0..1 of waveforms `(N,)` or `(B, N)`."""
        if audio is None:
            return None
        waveforms = torch.from_numpy(audio) if isinstance(audio, np.ndarray) and audio.dtype.kind == "f" else audio
        check_audio(waveforms)
        if not torch.isfinite(waveforms).all() or waveforms.abs().amax() == 0:
            raise ValueError("`audio` has to be finite and not silent.")
        return self.mel_spectrogram.audio_to_canvas(torch.atleast_2d(waveforms).to(self._execution_device))

    def length_of(self, spectrograms: torch.Tensor, width: int | None, audio_length_in_s: float | None) -> float:
        """Seconds of a given sound's spectrograms `(B, 1, M, T)`, which exclude `width` and `audio_length_in_s`."""
        if width is not None or audio_length_in_s is not None:
            raise ValueError("`width` and `audio_length_in_s` follow from `audio` and can't be given besides.")
        return self.mel_spectrogram.num_samples(spectrograms.shape[-1]) / self.sampling_rate

    def prepare_extra_step_kwargs(
        self, generator: torch.Generator | list[torch.Generator] | None, eta: float | None
    ) -> dict[str, Any]:
        """The arguments among `eta` and `generator` that the scheduler's `step` takes."""
        parameters = inspect.signature(self.scheduler.step).parameters
        given = {"generator": generator} | ({} if eta is None else {"eta": eta})
        return {name: value for name, value in given.items() if name in parameters}

    # -------------------- The two halves of a call --------------------

    @torch.no_grad()
    def denoise(
        self,
        latents: torch.Tensor,
        steps: list[DenoisingStep],
        image: Guided,
        audio: Guided,
        canvas: Canvas,
        *,
        eta: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],
        put_back: Callable[[DenoisingStep, torch.Tensor], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """
        The first half of a call: both models predict the noise of the same latents, the predictions are averaged, and
        the scheduler takes a step ([arXiv 2405.12221](https://arxiv.org/abs/2405.12221), section 3.2).

        Args:
            latents (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`): Noise of unit variance if `steps` are the first
                ones, else noisy latents at the scale of the scheduler.
            steps (`list[DenoisingStep]`): From `prepare_steps`.
            image, audio ([`Guided`]): Both sides, from `guide`. A side that never acts may be empty.
            canvas ([`Canvas`]): From `resolve_size`.
            eta, generator, callback_on_step_end, callback_on_step_end_tensor_inputs: As in the call.
            put_back (`Callable`, *optional*): Returns the latents to go on with, from a step and the latents after it.

        Returns:
            `torch.Tensor` of shape `(B, C, H / 8, W / 8)`: Latents after the last step, or after the step in which
            `pipe._interrupt` was set.
        """
        if canvas.windows is not None and "ip_adapter_masks" in image.unet_kwargs.get("cross_attention_kwargs", {}):
            raise ValueError("`ip_adapter_masks` can't be given for a canvas that is seen in windows.")
        self._guidance_scale, self._audio_guidance_scale = image.guidance_scale, audio.guidance_scale
        self._num_timesteps, self._interrupt = len(steps), False
        latents = latents.to(self._execution_device, self.unet.dtype)
        if steps and steps[0].index == 0:
            latents = latents * self.scheduler.init_noise_sigma
        numbers = iter(range(len(steps)))

        def on_step_end(
            step: DenoisingStep, latents: torch.Tensor, image: Guided, audio: Guided, expected: Callable
        ) -> tuple[torch.Tensor, Guided, Guided]:
            latents = latents if put_back is None else put_back(step, latents)
            number = next(numbers)
            if callback_on_step_end is not None:
                known = self._callback_tensors(latents, image, audio)
                if "pred_original_sample" in callback_on_step_end_tensor_inputs:
                    known["pred_original_sample"] = expected()
                given = {name: known[name] for name in callback_on_step_end_tensor_inputs}
                returned = callback_on_step_end(self, number, step.timestep, given)
                latents, image, audio = self._take_returned(returned, latents, image, audio)
            if step.completes_step:
                progress_bar.update()
            return latents, image, audio

        with self.progress_bar(total=sum(step.completes_step for step in steps)) as progress_bar:
            left = takewhile(lambda _: not self.interrupt, steps)
            kwargs = self.prepare_extra_step_kwargs(generator, eta)
            return denoise(self.scheduler, image, audio, latents, left, canvas, on_step_end, **kwargs)

    def _callback_tensors(self, latents: torch.Tensor, image: Guided, audio: Guided) -> dict[str, torch.Tensor | None]:
        return {
            "latents": latents,
            "prompt_embeds": image.stacked_embeds,
            "negative_prompt_embeds": image.negative_embeds,
            "audio_prompt_embeds": audio.stacked_embeds,
            "negative_audio_prompt_embeds": audio.negative_embeds,
        }

    def _take_returned(
        self, returned: dict | None, latents: torch.Tensor, image: Guided, audio: Guided
    ) -> tuple[torch.Tensor, Guided, Guided]:
        """Latents and sides with the tensors that a callback returned and the guidance scales that it set."""
        known = self._callback_tensors(latents, image, audio)
        replaced = tensors_returned(returned, known)
        if "prompt_embeds" in replaced or self._guidance_scale != image.guidance_scale:
            image = image.with_stacked(replaced.get("prompt_embeds", known["prompt_embeds"]), self._guidance_scale)
        if "audio_prompt_embeds" in replaced or self._audio_guidance_scale != audio.guidance_scale:
            stacked = replaced.get("audio_prompt_embeds", known["audio_prompt_embeds"])
            audio = audio.with_stacked(stacked, self._audio_guidance_scale)
        return replaced.get("latents", latents), image, audio

    @torch.no_grad()
    def decode(
        self, latents: torch.Tensor, canvas: Canvas | None = None, output_type: str = "pt"
    ) -> tuple[list[PIL.Image.Image] | np.ndarray | torch.Tensor, ...]:
        """
        The second half of a call: decodes latents to pictures and spectrograms, and plays the spectrograms.

        Args:
            latents (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`): Noiseless latents.
            canvas ([`Canvas`], *optional*): From `resolve_size`; a strip that is played whole by default.
            output_type (`str`, defaults to `"pt"`): `"pil"`, `"np"` or `"pt"`.

        Returns:
            Tuple of pictures of shape `(B, 3, H, W)` and gray spectrograms of shape `(B, 1, M, T)` in 0..1, and
            float32 waveforms of shape `(B, N)`, or the same as `convert` makes it.
        """
        check_tensor("latents", latents, ("B", self.vae.config.latent_channels, "H", "W"))
        if canvas is None:
            height, width = (side * self.vae_scale_factor for side in latents.shape[-2:])
            canvas = Canvas(height, width, width)
        images, spectrograms = self._decode_canvases(latents, canvas)
        # Long pictures take much of the memory: they get their final form before the sound is made.
        sums = images.sum(dim=(1, 2, 3), dtype=torch.float32)
        images = self.convert_canvases(canvas.cut_picture(images), output_type)
        audios = self.play(spectrograms, canvas.circular)  # (B, N)
        audios = audios if canvas.circular else audios[..., : self.mel_spectrogram.num_samples(canvas.columns)]
        spectrograms = canvas.cut(spectrograms)
        self._report(sums, spectrograms, audios)
        return images, *self.convert(spectrograms, audios, output_type)

    def _decode_canvases(self, latents: torch.Tensor, canvas: Canvas) -> tuple[torch.Tensor, torch.Tensor]:
        """Whole pictures `(B, 3, H, W)` and gray spectrograms `(B, 1, M, T)` of latents `(B, C, H / 8, W / 8)`."""
        vae_audio = self.audio_side.vae
        images = self.decode_latents(latents, self.vae, canvas.windows)  # (B, 3, H, W)
        spectrograms = images
        if canvas.folded or vae_audio is not self.vae:
            strip = canvas.unfold(latents)  # (B, C, h, w), folded (B, C, h / 2, 2 * w)
            spectrograms = self.decode_latents(strip, vae_audio, canvas.audio_windows)  # (B, 3, M, T)
        return images, spectrograms.mean(dim=1, keepdim=True)

    @torch.no_grad()
    def decode_latents(
        self, latents: torch.Tensor, vae: AutoencoderKL, windows: Windows | None = None
    ) -> torch.Tensor:
        """Pictures `(B, 3, H, W)` in 0..1 of latents `(B, C, H / 8, W / 8)`. Wide ones are decoded in windows."""
        latents = latents.to(vae.dtype) / vae.config.scaling_factor

        def decoded(pieces: torch.Tensor, places: list[int] | None = None) -> torch.Tensor:
            return self.image_processor.denormalize(vae.decode(pieces, return_dict=False)[0])

        return (
            decoded(latents) if windows is None else windows.overlapping(self.vae_scale_factor).merge(latents, decoded)
        )


def repair_scheduler(scheduler: KarrasDiffusionSchedulers) -> None:
    """Repairs an old scheduler config as Stable Diffusion's constructor does: no clipping, an offset of 1."""
    if scheduler is None:
        return
    for name, value in (("clip_sample", False), ("steps_offset", 1)):
        if scheduler.config.get(name, value) != value:
            logger.warning(f"`{name}` of the scheduler is outdated, {scheduler.config[name]}, and becomes {value}.")
            scheduler.register_to_config(**{name: value})


def _vocabulary(tokenizer: CLIPTokenizer) -> dict[str, int]:
    """Tokens by their text, without those that were added."""
    added = tokenizer.get_added_vocab()
    return {token: number for token, number in tokenizer.get_vocab().items() if token not in added}


def _check_seconds(audio_length_in_s: float) -> float:
    seconds = plain_number(audio_length_in_s)
    if not isinstance(seconds, Real) or not 0 < seconds < float("inf"):
        raise ValueError(
            f"`audio_length_in_s` has to be a positive number of seconds, but is {shown(audio_length_in_s)}."
        )
    return seconds
