"""Factorized colorization (arXiv 2404.11615): colours for a gray picture that stays what it is."""

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import DDPMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import PipelineImageInput, VaeImageProcessor
from diffusers.utils import BaseOutput, replace_example_docstring
from diffusers.utils.torch_utils import randn_tensor
from transformers import T5EncoderModel, T5Tokenizer

# Named although unused: diffusers copies the files that this one names, and no others.
from .images_that_sound_canvas import Windows, read_pictures, resolve_windows
from .images_that_sound_checks import (
    callback_inputs,
    check_generator,
    check_integer,
    check_output_type,
    tensors_returned,
)
from .images_that_sound_deepfloyd import DeepFloydMixin, predict_pixel_noise, raise_if_gated
from .images_that_sound_files import written
from .images_that_sound_loading import SelfContainedSavingMixin, check_not_offloaded
from .images_that_sound_picture_reading import upright
from .images_that_sound_sides import Request, Side, common_batch_size, expand_rows


# Height and width of the picture are this many times those of stage I.
UPSCALING = 4

EXAMPLE_DOC_STRING = """
    Examples:
        ```py
        >>> import torch
        >>> from diffusers.utils import load_image
        >>> from images_that_sound.pipelines import FactorizedColorizationPipeline

        >>> pipe = FactorizedColorizationPipeline.from_pretrained(
        ...     "DeepFloyd/IF-I-M-v1.0", variant="fp16", dtype=torch.float16
        ... )
        >>> pipe.load_super_resolution("DeepFloyd/IF-II-M-v1.0", variant="fp16")
        >>> pipe.enable_model_cpu_offload()
        >>> output = pipe(load_image("castle.png"), "a colorful photo of a castle with bell towers")
        >>> output.images[0].save("castle-in-colours.png")
        ```
"""


@dataclass
class FactorizedColorizationPipelineOutput(BaseOutput):
    """
    Result of [`FactorizedColorizationPipeline`].

    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` of shape `(B, H, W, 3)` or `torch.Tensor` of shape
            `(B, 3, H, W)`): Colour pictures in 0..1.
        gray_errors (`list[float]`): Mean absolute difference, 0 to 1, between the mean of each picture's channels and
            the gray picture.
    """

    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor
    gray_errors: list[float]


class FactorizedColorizationPipeline(SelfContainedSavingMixin, DeepFloydMixin, DiffusionPipeline):
    r"""
    Pipeline that colours gray pictures: DeepFloyd IF denoises with a prompt, and before every step the gray picture,
    equally noisy, replaces the mean over the channels ([Factorized Diffusion,
    arXiv 2404.11615](https://arxiv.org/abs/2404.11615), section 3.4). Stage I works at a quarter of the size, stage II
    at the full one.

    Load it from a stage I repo and then call [`~FactorizedColorizationPipeline.load_super_resolution`], or from a repo
    that holds both stages.

    Args:
        tokenizer ([`~transformers.T5Tokenizer`], *optional*): Tokenizer of the prompts, not needed with embeddings.
        text_encoder ([`~transformers.T5EncoderModel`], *optional*): Encoder of the prompts, not needed with
            embeddings.
        unet ([`UNet2DConditionModel`]): Noise predictor of stage I.
        scheduler ([`DDPMScheduler`]): Scheduler of stage I.
        unet_super_resolution ([`UNet2DConditionModel`], *optional*): Noise predictor of stage II.
        scheduler_super_resolution ([`DDPMScheduler`], *optional*): Scheduler of stage II.
        image_noising_scheduler ([`DDPMScheduler`], *optional*): Adds the noise that stage II expects in its input.
    """

    model_cpu_offload_seq = "text_encoder->unet->unet_super_resolution"
    _optional_components = [
        "tokenizer",
        "text_encoder",
        "unet_super_resolution",
        "scheduler_super_resolution",
        "image_noising_scheduler",
    ]
    _callback_tensor_inputs = ["latents", "prompt_embeds", "negative_prompt_embeds"]

    # Values before the first call. Callbacks of diffusers read and set them during a call.
    _guidance_scale = 1.0
    _interrupt = False
    _num_timesteps = 0

    # Optional components have no default: diffusers would ignore what a caller of `DiffusionPipeline` passes for them.
    def __init__(
        self,
        tokenizer: T5Tokenizer,
        text_encoder: T5EncoderModel,
        unet: UNet2DConditionModel,
        scheduler: DDPMScheduler,
        unet_super_resolution: UNet2DConditionModel,
        scheduler_super_resolution: DDPMScheduler,
        image_noising_scheduler: DDPMScheduler,
    ):
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            unet=unet,
            scheduler=scheduler,
            unet_super_resolution=unet_super_resolution,
            scheduler_super_resolution=scheduler_super_resolution,
            image_noising_scheduler=image_noising_scheduler,
        )
        self.image_processor = VaeImageProcessor(do_resize=False, do_normalize=False, do_convert_rgb=True)

    @property
    def guidance_scale(self) -> float:
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        return self._guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        return self._interrupt

    def load_super_resolution(
        self,
        pretrained_model_name_or_path: str | os.PathLike,
        subfolder: str = "",
        **kwargs: Any,
    ) -> None:
        """
        Loads stage II: `unet_super_resolution`, `scheduler_super_resolution` and `image_noising_scheduler`.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): A Hub repo such as `DeepFloyd/IF-II-M-v1.0`, or a
                folder of the same layout.
            subfolder (`str`, *optional*, defaults to `""`): Folder inside the repo that holds this layout.
            kwargs:
                `revision`, `variant`, `cache_dir`, `token`, `force_download`, `local_files_only`, as in
                `from_pretrained`.

        Raises:
            ValueError: If a part is missing or does not fit stage I, the repo is gated, or offloading is already
                enabled.
        """
        check_not_offloaded(self, "load_super_resolution")
        parts = {}
        for folder, model_class in (
            ("unet", UNet2DConditionModel),
            ("scheduler", DDPMScheduler),
            ("image_noising_scheduler", DDPMScheduler),
        ):
            path = "/".join(filter(None, (subfolder, folder)))
            dtype = {"dtype": self.unet.dtype} if folder == "unet" else {}
            try:
                parts[folder] = model_class.from_pretrained(
                    pretrained_model_name_or_path, subfolder=path, **kwargs, **dtype
                )
            except Exception as error:
                raise_if_gated(error, pretrained_model_name_or_path)
                raise ValueError(
                    f"No {model_class.__name__} can be loaded from `{path}` of `{pretrained_model_name_or_path}`:"
                    f" {error}"
                ) from error
        if parts["unet"].config.in_channels != 2 * self.unet.config.in_channels:
            raise ValueError(
                f"`{pretrained_model_name_or_path}` is no stage II: its UNet takes {parts['unet'].config.in_channels}"
                f" channels instead of {2 * self.unet.config.in_channels}."
            )
        self.register_modules(
            unet_super_resolution=parts["unet"].to(self.device),
            scheduler_super_resolution=parts["scheduler"],
            image_noising_scheduler=parts["image_noising_scheduler"],
        )

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        device: torch.device | None = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: str | list[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Encodes prompts for both stages.

        Args:
            prompt (`str` or `list[str]`): Picture in colour, or `None` if `prompt_embeds` are given.
            device (`torch.device`, *optional*): Device of the embeddings.
            num_images_per_prompt (`int`, defaults to 1): Repetitions of each prompt.
            do_classifier_free_guidance (`bool`, defaults to `True`): Whether to encode the negative prompt.
            negative_prompt (`str` or `list[str]`, *optional*): Picture to avoid.
            prompt_embeds, negative_prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*): Embeddings to use
                as they are.

        Returns:
            Embeddings and negative ones of shape `(B * num_images_per_prompt, L, D)`. The negative ones are `None`
            without guidance.
        """
        device = device or self._execution_device
        request = Request("prompt", prompt, negative_prompt, prompt_embeds, negative_prompt_embeds)
        encode_words = partial(self.encode_deepfloyd_prompt, self.tokenizer, self.text_encoder, device=device)
        # The text encoder may be the only model that is loaded, to encode once and be dropped.
        dtype = (self.text_encoder if self.unet is None else self.unet).dtype
        pair = request.encode(encode_words, do_classifier_free_guidance)
        return tuple(
            each if each is None else each.to(device, dtype).repeat_interleave(num_images_per_prompt, dim=0)
            for each in pair
        )

    def check_inputs(
        self,
        image: torch.Tensor,
        request: Request,
        *,
        num_inference_steps: int,
        start_diffusion_step: int,
        noise_level: int,
        output_type: str = "pil",
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> int:
        """Returns the batch size. Raises `ValueError` for arguments of the call that do not make sense."""
        if self.unet_super_resolution is None:
            raise ValueError(
                "`unet_super_resolution` is not loaded yet. Call `pipe.load_super_resolution(...)` with a stage II"
                " repo such as 'DeepFloyd/IF-II-M-v1.0', or load a repo that holds both stages."
            )
        num_prompts = request.check(Side(self.unet, self.text_encoder, self.tokenizer, None, self.scheduler))
        batch_size = common_batch_size({"image": len(image), "prompt": num_prompts}, num_images_per_prompt)
        for name, side in (("height", image.shape[-2]), ("width", image.shape[-1])):
            if side % UPSCALING:
                raise ValueError(f"The {name} of `image` has to be a multiple of {UPSCALING}, but is {side}.")
        check_generator(generator, batch_size)
        check_integer("num_inference_steps", num_inference_steps, most=self.scheduler.config.num_train_timesteps)
        check_integer("start_diffusion_step", start_diffusion_step, least=0, most=num_inference_steps - 1)
        levels = self.image_noising_scheduler.config.num_train_timesteps
        check_integer("noise_level", noise_level, least=0, most=levels - 1)
        check_output_type(output_type, ("pil", "np", "pt"))
        return batch_size

    def _denoise(
        self,
        unet: UNet2DConditionModel,
        scheduler: DDPMScheduler,
        gray: torch.Tensor,
        images: torch.Tensor,
        *,
        embeds: dict[str, torch.Tensor],
        windows: Windows | None,
        generator: torch.Generator | list[torch.Generator] | None,
        on_step_end: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        start_diffusion_step: int | None = None,
        upscaled: torch.Tensor | None = None,
        noise_level: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One stage: pictures `(B, 3, H, W)` in -1..1 from noise `images` under gray pictures `(B, 3, H, W)`."""

        def draw() -> torch.Tensor:
            return randn_tensor(gray.shape, generator, gray.device, gray.dtype)

        takes_generator = "generator" in inspect.signature(scheduler.step).parameters
        step_kwargs = {"generator": generator} if takes_generator else {}
        takes_variance = "variance_type" in inspect.signature(type(scheduler).__init__).parameters
        takes_variance = takes_variance and scheduler.config.variance_type in ("learned", "learned_range")
        for i, t in enumerate(scheduler.timesteps):
            if self.interrupt:
                break
            noised_gray = scheduler.add_noise(gray, draw(), t.expand(len(gray)))
            if start_diffusion_step is not None and i < start_diffusion_step:
                # The skipped step draws its noise, so that a seed gives the result of the paper's code.
                draw()
                continue
            if i == start_diffusion_step:
                images = noised_gray
            images = with_gray(images, noised_gray)
            rows = scheduler.scale_model_input(images, t)
            rows = rows if upscaled is None else torch.cat([rows, upscaled], dim=1)
            predicted = self.predict_noise(unet, rows, t, embeds["prompt_embeds"], noise_level, windows)
            if not takes_variance:
                predicted = predicted.chunk(2, dim=1)[0]
            images = scheduler.step(predicted, t, images, **step_kwargs, return_dict=False)[0]
            images = on_step_end(t, images)
        return images

    def predict_noise(
        self,
        unet: UNet2DConditionModel,
        rows: torch.Tensor,
        timestep: torch.Tensor,
        embeds: torch.Tensor,
        noise_level: torch.Tensor | None,
        windows: Windows | None,
    ) -> torch.Tensor:
        """
        Noise and variance of one stage, which sees a wide picture in windows.

        Args:
            unet ([`UNet2DConditionModel`]): Noise predictor of the stage.
            rows (`torch.Tensor` of shape `(B, C, H, W)`): Noisy pictures, for stage II with those of stage I.
            timestep (`torch.Tensor` of shape `()`): Noise level.
            embeds (`torch.Tensor` of shape `(2 * B, L, D)` or `(B, L, D)`): With guidance the negative prompts first.
            noise_level (`torch.Tensor` of shape `(B,)`, *optional*): Stage II's level of the low-resolution noise.
            windows ([`Windows`], *optional*): Places of the windows.

        Returns:
            `torch.Tensor` of shape `(B, 6, H, W)`.
        """
        if windows is None:
            return predict_pixel_noise(unet, rows, timestep, embeds, self.guidance_scale, class_labels=noise_level)

        def predict(pieces: torch.Tensor, places: list[int]) -> torch.Tensor:
            # With guidance the negative prompts come first.
            halves = embeds.chunk(2 if self.do_classifier_free_guidance else 1)
            stacked = torch.cat([half.repeat(len(places), 1, 1) for half in halves])
            levels = None if noise_level is None else noise_level.repeat(len(places))
            return predict_pixel_noise(unet, pieces, timestep, stacked, self.guidance_scale, class_labels=levels)

        return windows.merge(rows, predict)

    @torch.no_grad()
    @replace_example_docstring(EXAMPLE_DOC_STRING)
    def __call__(
        self,
        image: PipelineImageInput,
        prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        num_inference_steps: int = 30,
        guidance_scale: float = 10.0,
        start_diffusion_step: int = 7,
        noise_level: int = 50,
        exact_gray: bool = False,
        circular: bool = False,
        window_width: int = 1024,
        window_stride: int | None = None,
        window_batch_size: int = 1,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],
    ) -> FactorizedColorizationPipelineOutput | tuple:
        r"""
        Colours gray pictures.

        Args:
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of them): Pictures to colour, in 0..1 if
                they are arrays, height and width multiples of 4. The mean of the channels counts.
            prompt (`str` or `list[str]`, *optional*): Picture in colour; as many as pictures, or one of either for
                all.
            negative_prompt (`str` or `list[str]`, *optional*): Picture to avoid; one for all or one per prompt. Unused
                if `guidance_scale` is at most 1.
            num_inference_steps (`int`, defaults to 30): Number of denoising steps of each stage.
            guidance_scale (`float`, defaults to 10.0): Scale of classifier-free guidance. 1 and below turn it off.
            start_diffusion_step (`int`, defaults to 7): Step, counted from 0, at which stage I starts, from the gray
                picture with that step's noise. Higher values stay closer to the gray picture, with less colour. Stage
                II takes all steps.
            noise_level (`int`, defaults to 50): Timestep of the noise that stage II gets on the picture of stage I.
            exact_gray (`bool`, defaults to `False`): Whether to shift the result so that the mean of its channels is
                the gray picture, up to the clamp to 0..1.
            circular (`bool`, defaults to `False`): Whether the picture tiles, its right end beside its left one.
            window_width (`int`, defaults to 1024): Pixels of the windows in which both stages see a picture that is
                wider, a multiple of 4.
            window_stride (`int`, *optional*, defaults to half of the window): Pixels from one window to the next, a
                multiple of 4. Windows that overlap are averaged at each step.
            window_batch_size (`int`, defaults to 1): Windows that a stage sees at once. More are faster and take more
                memory.
            num_images_per_prompt (`int`, defaults to 1): Tries for each pair of picture and prompt.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*): Source of the noise, one for all or
                one per result.
            prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*): Embeddings to take instead of `prompt`, so
                that the text encoder can be dropped.
            negative_prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*): Embeddings to take instead of
                `negative_prompt`.
            output_type (`str`, defaults to `"pil"`): `"pil"`, `"np"` or `"pt"`.
            return_dict (`bool`, defaults to `True`): Whether to return a [`FactorizedColorizationPipelineOutput`] or a
                plain tuple.
            callback_on_step_end (`Callable`, *optional*): Called as `callback(pipe, step, timestep, callback_kwargs)`
                after each step. Tensors in the dict that it returns replace those at work. `pipe._interrupt = True`
                skips the steps that are left. The steps of stage II are counted after those of stage I.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["latents"]`): Tensors for the callback,
                among `latents`, the pictures in -1..1, `prompt_embeds` and `negative_prompt_embeds`.

        Examples:

        Returns:
            [`FactorizedColorizationPipelineOutput`] or `tuple`: Pictures, and their difference from the gray ones.

        Raises:
            ValueError: For an argument that does not make sense; the message names it, its value and what is allowed.
        """
        # 1. Check inputs
        inputs = callback_inputs(self, callback_on_step_end, callback_on_step_end_tensor_inputs)
        image = read_pictures(image)
        request = Request("prompt", prompt, negative_prompt, prompt_embeds, negative_prompt_embeds)
        batch_size = self.check_inputs(
            image,
            replace(request, guidance_scale=guidance_scale),
            num_inference_steps=num_inference_steps,
            start_diffusion_step=start_diffusion_step,
            noise_level=noise_level,
            output_type=output_type,
            num_images_per_prompt=num_images_per_prompt,
            generator=generator,
        )
        windows = resolve_windows(
            image.shape[-1], window_width, window_stride, UPSCALING, batch_size=window_batch_size, circular=circular
        )
        self._guidance_scale, self._interrupt = guidance_scale, False
        device = self._execution_device

        # 2. Encode the prompt, once for both stages
        embeds = self.encode_prompt(
            prompt,
            device,
            num_images_per_prompt,
            self.do_classifier_free_guidance,
            negative_prompt=negative_prompt,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
        )
        tensors = dict(
            zip(("prompt_embeds", "negative_prompt_embeds"), (expand_rows(rows, batch_size) for rows in embeds))
        )
        if self.do_classifier_free_guidance:
            tensors["prompt_embeds"] = torch.cat([tensors["negative_prompt_embeds"], tensors["prompt_embeds"]])

        # 3. Prepare the gray picture at both sizes, in -1..1
        dtype = self.unet.dtype
        gray = expand_rows(image.to(device, torch.float32).mean(dim=1, keepdim=True), batch_size)
        large = (2 * gray - 1).to(dtype).expand(-1, 3, -1, -1)
        size = (gray.shape[-2] // UPSCALING, gray.shape[-1] // UPSCALING)
        small = torch.nn.functional.interpolate(large, size, mode="bilinear", align_corners=False)

        self.scheduler.set_timesteps(num_inference_steps, device=device)
        self.scheduler_super_resolution.set_timesteps(num_inference_steps, device=device)
        self._num_timesteps = 2 * num_inference_steps - start_diffusion_step
        numbers = iter(range(self._num_timesteps))
        with self.progress_bar(total=self._num_timesteps) as progress_bar:

            def on_step_end(t: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
                progress_bar.update()
                step = next(numbers)
                if callback_on_step_end is None:
                    return images
                known = {**tensors, "latents": images}
                given = {name: known[name] for name in inputs}
                replaced = tensors_returned(callback_on_step_end(self, step, t, given), known)
                images = replaced.pop("latents", images)
                tensors.update(replaced)
                return images

            # 4. Stage I, at a quarter of the size
            images = self._denoise(
                self.unet,
                self.scheduler,
                small,
                randn_tensor(small.shape, generator, device, dtype),
                embeds=tensors,
                windows=windows,
                generator=generator,
                on_step_end=on_step_end,
                start_diffusion_step=start_diffusion_step,
            )

            # 5. Stage II, from stage I's picture with some noise
            noise = randn_tensor(large.shape, generator, device, dtype)
            levels = torch.full((len(large),), noise_level, device=device)
            upscaled = torch.nn.functional.interpolate(images, large.shape[-2:], mode="bilinear", align_corners=True)
            upscaled = self.image_noising_scheduler.add_noise(
                upscaled, randn_tensor(large.shape, generator, device, dtype), levels
            )
            images = self._denoise(
                self.unet_super_resolution,
                self.scheduler_super_resolution,
                large,
                noise,
                embeds=tensors,
                windows=windows,
                generator=generator,
                on_step_end=on_step_end,
                upscaled=upscaled,
                noise_level=levels,
            )

        # 6. Convert, and measure the difference from gray
        images = (images.float() / 2 + 0.5).clamp(0, 1)
        if exact_gray:
            images = with_gray(images, gray).clamp(0, 1)
        gray_errors = (images.mean(dim=1, keepdim=True) - gray).abs().mean(dim=(1, 2, 3)).tolist()
        images = self.image_processor.postprocess(images, output_type, do_denormalize=[False] * len(images))
        self.maybe_free_model_hooks()
        if not return_dict:
            return images, gray_errors
        return FactorizedColorizationPipelineOutput(images=images, gray_errors=gray_errors)


def with_gray(images: torch.Tensor, gray: torch.Tensor) -> torch.Tensor:
    """
    Pictures with the lightness of others: the projection of arXiv 2404.11615, section 3.4.

    Args:
        images (`torch.Tensor` of shape `(B, 3, H, W)`): Source of the colours, the differences from the mean.
        gray (`torch.Tensor` of shape `(B, C, H, W)`): Source of the mean over channels.

    Returns:
        `torch.Tensor` of shape `(B, 3, H, W)`.
    """
    return gray.mean(dim=1, keepdim=True) + (images - images.mean(dim=1, keepdim=True))
