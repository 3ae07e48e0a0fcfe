"""Lift: the help of a prompt in predicting noise on a result, a score that needs no other model."""

from dataclasses import replace

import torch
from diffusers import DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor

from ..pipelines.images_that_sound_checks import check_integer, check_tensor, shown
from ..pipelines.images_that_sound_denoising import add_noise
from ..pipelines.images_that_sound_sides import Guided, are_words, prediction_type_of


@torch.no_grad()
def prediction_lift(
    pipe: DiffusionPipeline,
    latents: torch.Tensor,
    prompt: str | list[str],
    audio_prompt: str | list[str],
    num_draws: int = 16,
    seed: int = 0,
    audio_latents: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Lift of a prompt for each model on finished latents ([arXiv 2505.13740](https://arxiv.org/abs/2505.13740)): the
    drop of the model's squared error on noise if it reads the prompt instead of nothing, averaged over timesteps.
    Above 0, the prompt explains the result. Noises and timesteps are the same for every result.

    Args:
        pipe ([`~images_that_sound.pipelines.ImagesThatSoundPipeline`]): Holds both models.
        latents (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`): Results without noise.
        prompt (`str` or `list[str]`): Intended picture, one for all or one per result.
        audio_prompt (`str` or `list[str]`): Intended sound, one for all or one per result.
        num_draws (`int`, defaults to 16): Number of noises. Their timesteps are spread evenly over all.
        seed (`int`, defaults to 0): Seed of the noises.
        audio_latents (`torch.Tensor` of shape `(B, C, h, w)`, *optional*): Input of the audio model if it differs, as
            in the folded layout.

    Returns:
        Two `torch.Tensor` of shape `(B,)`: Mean differences of squared errors by the image and the audio model.

    Raises:
        ValueError: If there are not as many prompts as results.
    """
    check_tensor("latents", latents, ("B", pipe.unet.config.in_channels, "H", "W"))
    check_integer("num_draws", num_draws, most=pipe.scheduler.config.num_train_timesteps)
    check_integer("seed", seed, least=0, most=2**63)
    prompts, audio_prompts = (
        [each] * len(latents) if isinstance(each, str) else each for each in (prompt, audio_prompt)
    )
    for name, value in (("prompt", prompts), ("audio_prompt", audio_prompts)):
        if not are_words(value):
            raise ValueError(f"`{name}` has to be a string or a list of strings, but is {shown(value)}.")
        if len(value) != len(latents):
            raise ValueError(f"`{name}` has to hold {len(latents)}, one per result, but holds {len(value)}.")
    if any(getattr(unet, "encoder_hid_proj", None) is not None for unet in (pipe.unet, pipe.unet_audio)):
        raise ValueError(
            "`pipe` has an IP-Adapter, by which no lift is known: call `pipe.unload_ip_adapter()` before."
        )
    device = pipe._execution_device
    embeds, negative_embeds, audio_embeds, negative_audio_embeds = pipe.encode_prompt(prompts, audio_prompts, device)
    audio_latents = latents if audio_latents is None else audio_latents
    kind = prediction_type_of(pipe.scheduler)
    image = Guided(pipe.image_side, embeds, negative_embeds, predicts=kind, wanted="epsilon")
    kind = pipe.config.get("audio_prediction_type") or kind
    audio = Guided(pipe.audio_side, audio_embeds, negative_audio_embeds, predicts=kind, wanted="epsilon")
    return _lift(pipe, image, latents, num_draws, seed), _lift(pipe, audio, audio_latents, num_draws, seed)


def _lift(pipe: DiffusionPipeline, side: Guided, latents: torch.Tensor, num_draws: int, seed: int) -> torch.Tensor:
    """Mean differences `(B,)` of the squared errors without and with the prompt."""
    generator, num_train_timesteps = torch.Generator().manual_seed(seed), pipe.scheduler.config.num_train_timesteps
    latents, lift = latents.to(side.embeds), torch.zeros(len(latents))
    both = replace(side, embeds=torch.cat([side.negative_embeds, side.embeds]))
    for draw in range(num_draws):
        timestep = torch.tensor(int((draw + 0.5) / num_draws * num_train_timesteps), device=latents.device)
        noise = randn_tensor(latents.shape[1:], generator=generator, device=latents.device, dtype=latents.dtype)
        noisy = add_noise(pipe.scheduler, latents, noise.expand_as(latents), timestep.expand(len(latents)))
        errors = (both.predict_noise(torch.cat([noisy] * 2), timestep) - noise).float().square().mean(dim=(1, 2, 3))
        error_without, error_with = errors.cpu().chunk(2)
        lift += (error_without - error_with) / num_draws
    return lift
