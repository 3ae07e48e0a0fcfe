"""The audio side of a pipeline: loading it, encoding both prompts, playing canvases, defaults of checkpoints."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput, scale_lora_layers, unscale_lora_layers
from transformers import CLIPTextModel, PreTrainedModel

from .images_that_sound_audio_prior import HUB_ARGUMENTS, AudioPriorRepo, check_vocoder, same_weights
from .images_that_sound_checks import check_generator, check_tensor, get_logger, shown
from .images_that_sound_guides import Guides, prepare_guides
from .images_that_sound_loading import SelfContainedSavingMixin, check_not_offloaded, exact_vocoder, kept_in_float32
from .images_that_sound_lora import AudioSidePipeline
from .images_that_sound_sides import (
    Guided,
    Request,
    Side,
    common_batch_size,
    expand_rows,
    prediction_type_of,
    tokenize,
)
from .images_that_sound_spectrogram import PIECE, SPECTROGRAMS, MelSpectrogram, audio_problems


logger = get_logger(__name__)

# Parts that the audio side may have itself, by the image side's names.
SHARED_PARTS = ("text_encoder", "tokenizer", "vae", "scheduler")
# Columns of a loop that are played once more after its end.
LOOP_OVERLAP = 32
# Attribute of an audio UNet with its spectrogram constants and default arguments.
HABITS_NAME = "_images_that_sound_habits"


@dataclass
class ImagesThatSoundPipelineOutput(BaseOutput):
    """
    Result of the pipelines with an audio side.

    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` of shape `(B, H, W, 3)` or `torch.Tensor` of shape
            `(B, 3, H, W)`): Pictures in 0..1 as the image side's VAE decodes them; or latents of shape
            `(B, C, H / 8, W / 8)`.
        spectrograms (`list[PIL.Image.Image]`, `np.ndarray` of shape `(B, M, T, 1)` or `torch.Tensor` of shape
            `(B, 1, M, T)`): Gray canvases in 0..1: a row per mel bin, low frequencies at the bottom, a column per
            `hop_length` samples. `None` for latents.
        audios (`np.ndarray` or `torch.Tensor` of shape `(B, N)`): Float32 waveforms in -1..1 at `pipe.sampling_rate`.
            `None` for latents.
    """

    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor
    spectrograms: list[PIL.Image.Image] | np.ndarray | torch.Tensor | None
    audios: np.ndarray | torch.Tensor | None


class AudioSideMixin(SelfContainedSavingMixin):
    """
    A [`DiffusionPipeline`] with an image side and an audio side. A class inherits it before [`DiffusionPipeline`].
    `_paper_arguments` are the arguments of its call that a checkpoint may set, with the paper's values.
    """

    _optional_components = ["unet_audio", "vocoder", "vae_audio", "text_encoder_audio", "tokenizer_audio"]
    _callback_tensor_inputs = [
        "latents",
        "prompt_embeds",
        "negative_prompt_embeds",
        "audio_prompt_embeds",
        "negative_audio_prompt_embeds",
    ]
    _paper_arguments: dict[str, Any] = {}

    # Values before the first call. Callbacks of diffusers read and set them during a call.
    _guidance_scale = _audio_guidance_scale = 1.0
    _interrupt = False
    _num_timesteps = 0

    def _register(self, spectrogram: dict | None, default_arguments: dict | None, **modules: Any) -> None:
        """Registers the constructor's arguments."""
        # `Sibling(**pipe.components)` hands on modules without the config that belongs to the audio side.
        habits = getattr(modules["unet_audio"], HABITS_NAME, None)
        if habits is not None and spectrogram is None and default_arguments is None:
            spectrogram, default_arguments = habits["spectrogram"], habits["default_arguments"]
        self.mel_spectrogram = MelSpectrogram.from_dict(spectrogram or {})
        check_vocoder(modules["vocoder"], self.mel_spectrogram)
        self.register_modules(**{**modules, "vocoder": exact_vocoder(modules["vocoder"])})
        self.set_default_arguments(default_arguments)
        self.register_to_config(spectrogram=self.mel_spectrogram.to_dict())
        self._keep_habits()
        vae = self.audio_side.vae
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1) if vae is not None else 8
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)

    def _keep_habits(self) -> None:
        """Keeps the audio side's config at its UNet, for pipelines that are made of the same components."""
        if self.unet_audio is not None:
            names = ("spectrogram", "default_arguments", "audio_prediction_type")
            setattr(self.unet_audio, HABITS_NAME, {name: self.config.get(name) for name in names})

    def set_default_arguments(self, default_arguments: dict | None) -> None:
        """Sets the values that calls take for arguments that are left out, and keeps them in the config."""
        if not isinstance(default_arguments, (dict, type(None))):
            raise ValueError(f"`default_arguments` has to be a dict of call arguments, but is {default_arguments!r}.")
        # A checkpoint names the arguments of all pipelines that it serves.
        known = {name: value for name, value in (default_arguments or {}).items() if name in self._paper_arguments}
        self.default_arguments = {**self._paper_arguments, **known}
        self.register_to_config(default_arguments=default_arguments)

    def resolve_default(self, name: str, value: Any) -> Any:
        """An argument of the call, or its default of the checkpoint, else of the paper, if it is `None`."""
        return self.default_arguments[name] if value is None else value

    @property
    def sampling_rate(self) -> int:
        """Samples per second of the returned waveforms."""
        return self.mel_spectrogram.sampling_rate

    @property
    def guidance_scale(self) -> float:
        return self._guidance_scale

    @property
    def audio_guidance_scale(self) -> float:
        return self._audio_guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        return self.image_side.is_guided(self._guidance_scale)

    @property
    def num_timesteps(self) -> int:
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        return self._interrupt

    @property
    def image_side(self) -> Side:
        """The models of the image side."""
        return Side(unet=self.unet, **{name: getattr(self, name) for name in SHARED_PARTS})

    @property
    def audio_side(self) -> Side:
        """The models of the audio side, which shares whatever it does not have itself."""
        parts = {name: getattr(self, f"{name}_audio", None) for name in SHARED_PARTS}
        parts = {name: getattr(self, name) if part is None else part for name, part in parts.items()}
        return Side(unet=self.unet_audio, **parts)

    @property
    def audio(self) -> AudioSidePipeline:
        """
        The audio side as a stock [`StableDiffusionPipeline`] of the same modules: `pipe.audio.load_lora_weights(...)`,
        `pipe.audio.set_adapters(...)`, `pipe.audio.load_textual_inversion(...)`.

        Raises:
            ValueError: If there is no audio side yet.
        """
        self._check_audio_prior()
        return AudioSidePipeline.of(self, self.audio_side)

    def load_audio_prior(
        self,
        pretrained_model_name_or_path: str | os.PathLike,
        subfolder: str = "",
        revision: str | None = None,
        spectrogram: str | dict | MelSpectrogram | None = None,
        quantization_config: Any = None,
        dtype: torch.dtype | None = None,
        variant: str | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Loads the audio side: `unet_audio`, `vocoder`, and `vae_audio` and `text_encoder_audio` if they differ from the
        image side's. Its spectrogram constants and its default arguments apply from then on.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): A Hub repo such as
                `auffusion/auffusion-full-no-adapter`, or a folder of the same layout: `unet`, `vae`, `text_encoder`,
                `tokenizer`, and `vocoder` either as Auffusion stores it (`config.json`, `vocoder.pt`) or as
                [`~transformers.SpeechT5HifiGan`]. A repo without vocoder has to be called Riffusion, such as
                `riffusion/riffusion-model-v1`. A single file (`.safetensors`, `.ckpt`) is read by
                [`StableDiffusionPipeline.from_single_file`]. From a repo of both sides the audio side is loaded.
            subfolder (`str`, *optional*, defaults to `""`): Folder inside the repo that holds this layout.
            revision (`str`, *optional*): Branch, tag or commit of the repo.
            spectrogram (`str`, `dict` or [`MelSpectrogram`], *optional*): `"auffusion"`, `"riffusion"`, or constants,
                if the repo's spectrograms differ from those that it names or that are known of its kind.
            quantization_config (such as [`~diffusers.TorchAoConfig`], *optional*): Quantization of `unet_audio` by
                diffusers. A single file can't be quantized.
            kwargs:
                `cache_dir`, `token`, `force_download`, `local_files_only`, as in `from_pretrained`.

        Raises:
            ValueError: If a part is missing or does not fit the image side, the spectrogram constants are unknown, or
                offloading is already enabled.
        """
        check_not_offloaded(self, "load_audio_prior")
        if set(kwargs) - HUB_ARGUMENTS:
            raise ValueError(f"`load_audio_prior` takes {sorted(HUB_ARGUMENTS)} besides, but got {sorted(kwargs)}.")
        kwargs["revision"] = revision
        # The first audio side gets the constants that the pipeline was made with, if it names none.
        reads = self.mel_spectrogram if self.unet_audio is None else SPECTROGRAMS["auffusion"]
        repo = AudioPriorRepo(pretrained_model_name_or_path, subfolder, kwargs, spectrogram, vocoder_reads=reads)
        repo.quantization_config, repo.dtype, repo.variant = quantization_config, dtype, variant
        default_arguments, vocoder = repo.default_arguments, repo.load_vocoder()
        check_vocoder(vocoder, repo.spectrogram)
        modules = {**self._load_audio_modules(repo), "vocoder": vocoder}
        if default_arguments is not None or repo.spectrogram != self.mel_spectrogram:
            self.set_default_arguments(default_arguments)
            self.mel_spectrogram = repo.spectrogram
            self.register_to_config(spectrogram=repo.spectrogram.to_dict())
        for module in modules.values():
            if isinstance(module, torch.nn.Module):
                module.to(self.device)
        self.register_modules(**modules)
        self._keep_habits()

    def _load_audio_modules(self, repo: AudioPriorRepo) -> dict[str, Any]:
        """The audio side's modules without the vocoder, `None` for those that equal the image side's."""
        quantized = {"quantization_config": repo.quantization_config}
        dtype = repo.dtype or self.unet.dtype
        modules = {"unet_audio": repo.load_audio(UNet2DConditionModel, "unet", dtype=dtype, **quantized)}
        for name, model_class in (("vae", AutoencoderKL), ("text_encoder", CLIPTextModel)):
            # Unrounded, since rounding twice differs from rounding once.
            audio, image = repo.load_audio(model_class, name, dtype=torch.float32), getattr(self, name)
            shared = image is not None and same_weights(audio, image)
            wanted = repo.dtype or (self.unet if image is None else image).dtype
            modules[f"{name}_audio"] = None if shared else audio.to(wanted)
        return modules

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> "AudioSideMixin":
        """[`DiffusionPipeline.from_pretrained`], except that `dtype` leaves the vocoder in float32."""
        for name in ("dtype", "torch_dtype"):
            dtype = kwargs.get(name)
            if isinstance(dtype, torch.dtype):
                dtype = {"default": dtype}
            if isinstance(dtype, dict):
                kwargs[name] = {**dtype, "vocoder": torch.float32}
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> "AudioSideMixin":
        """
        [`DiffusionPipeline.from_pipe`], except that optional components may be left out, and that the shared ones keep
        their precision unless `dtype` is given.
        """
        absent = {name: None for name in cls._optional_components if name not in pipeline.components}
        precision = {} if {"dtype", "torch_dtype"} & set(kwargs) else {"dtype": pipeline.unet.dtype}
        return super().from_pipe(pipeline, **{**absent, **precision, **kwargs})

    def to(self, *args: Any, **kwargs: Any) -> "AudioSideMixin":
        """[`DiffusionPipeline.to`], except that the vocoder keeps its float32 weights, which half precision ruins."""
        with kept_in_float32([] if self.vocoder is None else [self.vocoder]):
            return super().to(*args, **kwargs)

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        audio_prompt: str | list[str] | None,
        device: torch.device | None = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        do_audio_classifier_free_guidance: bool = True,
        negative_prompt: str | list[str] | None = None,
        negative_audio_prompt: str | list[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        audio_prompt_embeds: torch.Tensor | None = None,
        negative_audio_prompt_embeds: torch.Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
        audio_clip_skip: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor | None]:
        """
        Encodes both prompts, each with its side's text encoder. Prompts over the tokenizer's length are cut, with a
        warning.

        Args:
            prompt (`str` or `list[str]`): Picture to see. `None` if `prompt_embeds` are given, or for no embeddings.
            audio_prompt (`str` or `list[str]`): Sound to hear. `None` if `audio_prompt_embeds` are given, or for no
                embeddings.
            device (`torch.device`, *optional*): Device of the embeddings.
            num_images_per_prompt (`int`, defaults to 1): Repetitions of each prompt.
            do_classifier_free_guidance (`bool`, defaults to `True`): Whether to encode the negative prompt.
            do_audio_classifier_free_guidance (`bool`, defaults to `True`): Whether to encode the negative audio
                prompt.
            negative_prompt (`str` or `list[str]`, *optional*): Picture to avoid.
            negative_audio_prompt (`str` or `list[str]`, *optional*): Sound to avoid.
            prompt_embeds, ... (`torch.Tensor` of shape `(B, L, D)`, *optional*): Embeddings to use as they are.
            lora_scale (`float`, *optional*): Scale of the LoRA layers of the text encoders.
            clip_skip (`int`, *optional*): Number of final text-encoder layers to skip for `prompt`.
            audio_clip_skip (`int`, *optional*): Number of final text-encoder layers to skip for `audio_prompt`.

        Returns:
            Tuple of the image side's embeddings, its negative ones, and the same of the audio side, each of shape
            `(B * num_images_per_prompt, L, D)`. They are `None` for a side of which nothing is given, negative ones
            also without guidance.
        """
        if isinstance(device, (int, bool)):
            raise TypeError(
                "`encode_prompt` takes `prompt` and `audio_prompt` before `device`, unlike Stable Diffusion's; that of"
                " one side is `pipe.audio.encode_prompt`, or this one with `None` for the other prompt."
            )
        audio_embeds = (audio_prompt_embeds, negative_audio_prompt_embeds)
        image = Request("prompt", prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, clip_skip)
        audio = Request("audio_prompt", audio_prompt, negative_audio_prompt, *audio_embeds, audio_clip_skip)
        encoded = []
        for request, side, guided in (
            (image, self.image_side, do_classifier_free_guidance),
            (audio, self.audio_side, do_audio_classifier_free_guidance),
        ):
            pair = (None, None)
            if not request.is_empty:
                request.check_prompts(side, guided)
                pair = self._encode_side(side, request, guided, device, lora_scale)
            encoded += [each if each is None else each.repeat_interleave(num_images_per_prompt, 0) for each in pair]
        return tuple(encoded)

    def guide(
        self,
        image: Request,
        audio: Request,
        batch_size: int,
        guides: tuple[Guides, Guides] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
    ) -> tuple[Guided, Guided]:
        """
        Encodes the requests of a call, checked before, for both sides.

        Args:
            image, audio ([`Request`]): Prompts and scales of either side.
            batch_size (`int`): `B`, a multiple of the number of prompts.
            guides (`tuple[Guides, Guides]`, *optional*): Guides of the image side and of the audio side.
            cross_attention_kwargs (`dict`, *optional*): Arguments of the attention processors of both UNets.

        Returns:
            Tuple of two [`Guided`]: the image side and the audio side.
        """
        sides = []
        for request, side, guide in zip((image, audio), (self.image_side, self.audio_side), guides or (None, None)):
            embeds, kwargs, guided = (None, None), {}, side.is_guided(request.guidance_scale)
            if not request.is_empty:
                lora_scale = dict(cross_attention_kwargs or {}).get("scale")
                embeds = self._encode_side(side, request, guided, None, lora_scale)
            if cross_attention_kwargs is not None:
                kwargs["cross_attention_kwargs"] = dict(cross_attention_kwargs)
            wanted = prediction_type_of(self.scheduler)
            is_audio = side.unet is self.unet_audio
            sides.append(
                Guided(
                    side,
                    *(expand_rows(each, batch_size * max(len(request.columns), 1)) for each in embeds),
                    guidance_scale=request.guidance_scale,
                    guidance_rescale=request.guidance_rescale,
                    timestep_cond=self._embed_guidance(side, request.guidance_scale, batch_size),
                    guides=None if guide is None else prepare_guides(guide, self, batch_size, guided),
                    starts=request.columns,
                    unet_kwargs=kwargs,
                    predicts=(is_audio and self.config.get("audio_prediction_type")) or wanted,
                    wanted=wanted,
                )
            )
        return tuple(sides)

    def _embed_guidance(self, side: Side, guidance_scale: float, batch_size: int) -> torch.Tensor | None:
        """Embedding `(B, D)` of the guidance scale for a UNet that takes it (arXiv 2210.03142)."""
        if not side.takes_guidance:
            return None
        scales = torch.full((batch_size,), guidance_scale - 1)
        embedding = AudioSidePipeline.of(self, side).get_guidance_scale_embedding(
            scales, embedding_dim=side.unet.config.time_cond_proj_dim
        )
        return embedding.to(self._execution_device, side.unet.dtype)

    def _encode_side(
        self,
        side: Side,
        request: Request,
        guided: bool,
        device: torch.device | None,
        lora_scale: float | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Embeddings and negative embeddings `(b, L, D)` in the UNet's precision, one row for each prompt."""
        device = device or self._execution_device
        dtype = (side.text_encoder if self.unet is None else self.unet).dtype
        # A LoRA of the image side must not change how audio prompts are read by a text encoder that both share.
        is_shared = request.name == "audio_prompt" and side.text_encoder is self.text_encoder
        with _lora_scaled(side.text_encoder, lora_scale), _lora_off(side.text_encoder if is_shared else None):
            pair = request.encode(partial(self._encode_words, side, name=request.name, device=device), guided)
        return tuple(each if each is None else each.to(device, dtype) for each in pair)

    def _encode_words(
        self, side: Side, prompts: list[str], name: str, device: torch.device, clip_skip: int | None = None
    ) -> torch.Tensor:
        if hasattr(self, "maybe_convert_prompt"):
            prompts = self.maybe_convert_prompt(prompts, side.tokenizer)
        tokens = tokenize(side.tokenizer, prompts).input_ids
        if tokens.max() >= side.text_encoder.config.vocab_size:
            raise ValueError(
                f"`{name}` or its negative holds a token that the other side alone knows: {shown(prompts)}. Load the"
                " textual inversion into both sides, `pipe.audio.load_textual_inversion` first."
            )
        if clip_skip is None:
            return side.text_encoder(tokens.to(device))[0]
        layers = side.text_encoder(tokens.to(device), output_hidden_states=True).hidden_states
        # transformers moved the norm from `text_model` to the encoder itself.
        model = getattr(side.text_encoder, "text_model", side.text_encoder)
        return model.final_layer_norm(layers[-1 - clip_skip])

    def _check_audio_prior(self) -> None:
        if self.unet_audio is None:
            raise ValueError(
                "`unet_audio` is not loaded yet. Call `pipe.load_audio_prior(...)` with a repo such as"
                " 'auffusion/auffusion-full-no-adapter' or 'riffusion/riffusion-model-v1', or load a repo that holds"
                " both sides."
            )

    def _check_batch(
        self,
        requests: tuple[Request, ...],
        counts: dict[str, int],
        num_images_per_prompt: int,
        generator: torch.Generator | list[torch.Generator] | None,
    ) -> int:
        """
        Checks the requests and generators of a call, and returns the batch size. `counts` are the numbers of other
        inputs, by their argument.
        """
        sides = {"prompt": self.image_side, "audio_prompt": self.audio_side}
        counts = {**counts, **{request.name: request.check(sides[request.name]) for request in requests}}
        batch_size = common_batch_size(counts, num_images_per_prompt)
        check_generator(generator, batch_size)
        return batch_size

    def _check_playable(self, name: str, columns: int) -> None:
        least = self.mel_spectrogram.min_columns
        if self.vocoder is None and columns < least:
            raise ValueError(f"`{name}` has to give at least {least} columns to Griffin-Lim, but gives {columns}.")

    @torch.no_grad()
    def play(self, spectrograms: torch.Tensor, circular: bool = False) -> torch.Tensor:
        """
        Waveforms `(B, N)` of gray canvases `(B, 1, M, T)` in 0..1, by the vocoder, else by Griffin-Lim. Circular ones
        go on at their beginning: what follows the end fades over into it.
        """
        check_tensor("spectrograms", spectrograms, ("B", 1, self.mel_spectrogram.num_mel_bins, "T"))
        if not circular:
            return self.mel_spectrogram.canvas_to_audio(spectrograms, self.vocoder)
        padded = torch.cat([spectrograms, spectrograms[..., :LOOP_OVERLAP]], dim=-1)
        end = spectrograms.shape[-1] * self.mel_spectrogram.hop_length
        audios = self.mel_spectrogram.canvas_to_audio(padded, self.vocoder)
        audios, following = audios[..., :end], audios[..., end:]
        rising = torch.linspace(0, 1, following.shape[-1], device=audios.device)
        audios[..., : len(rising)] = torch.lerp(following, audios[..., : len(rising)], rising)
        return audios

    def convert(
        self, canvases: torch.Tensor, audios: torch.Tensor, output_type: str
    ) -> tuple[list[PIL.Image.Image] | np.ndarray | torch.Tensor, np.ndarray | torch.Tensor]:
        """Canvases in 0..1 and waveforms as `"pil"` (with arrays of waveforms), `"np"` or `"pt"`."""
        audios = audios.cpu()
        return self.convert_canvases(canvases, output_type), audios if output_type == "pt" else audios.numpy()

    def convert_canvases(
        self, canvases: torch.Tensor, output_type: str
    ) -> list[PIL.Image.Image] | np.ndarray | torch.Tensor:
        """Canvases `(B, C, H, W)` in 0..1 as `"pil"`, `"np"` or `"pt"`."""
        if output_type == "pil":
            return _pillow(canvases)
        return self.image_processor.postprocess(canvases, output_type, do_denormalize=[False] * len(canvases))

    def _report(self, images: torch.Tensor, spectrograms: torch.Tensor, audios: torch.Tensor) -> None:
        """Warns of faults of samples. Sums of canvases stand for them: they are finite if all values are."""
        for i, (image, spectrogram, audio) in enumerate(zip(images, spectrograms, audios.cpu().numpy())):
            problems = audio_problems(audio)
            for name, canvas in (("spectrogram", spectrogram), ("picture", image)):
                if not torch.isfinite(canvas.sum(dtype=torch.float32)):
                    problems.insert(0, f"the {name} has values that are not finite")
            if problems:
                logger.warning(f"Sample {i}: {'; '.join(problems)}.")


def _pillow(canvases: torch.Tensor) -> list[PIL.Image.Image]:
    """Canvases `(B, C, H, W)` in 0..1 as pictures; `VaeImageProcessor` takes three times the memory."""
    rows = torch.empty(*canvases.permute(0, 2, 3, 1).shape, dtype=torch.uint8)
    for piece, levels in zip(canvases.split(PIECE, dim=-1), rows.split(PIECE, dim=2)):
        levels.copy_(piece.float().mul(255).round().permute(0, 2, 3, 1))
    rows = rows.squeeze(-1).numpy()
    return [PIL.Image.fromarray(row) for row in rows]


@contextmanager
def _lora_off(text_encoder: PreTrainedModel | None) -> Iterator[None]:
    """Leaves out the LoRA layers of a text encoder inside the context, but for those that are fused."""
    modules = [] if text_encoder is None else text_encoder.modules()
    layers = [each for each in modules if hasattr(each, "lora_A") and not (each.disable_adapters or each.merged)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@contextmanager
def _lora_scaled(text_encoder: PreTrainedModel | None, scale: float | None) -> Iterator[None]:
    """Scales the LoRA layers of a text encoder inside the context."""
    active = scale is not None and hasattr(text_encoder, "peft_config")
    if active:
        scale_lora_layers(text_encoder, scale)
    try:
        yield
    finally:
        if active:
            unscale_lora_layers(text_encoder, scale)
