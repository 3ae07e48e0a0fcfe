"""Who speaks at which denoising step: the audio model's share of the noise, step by step."""

import math

from .images_that_sound_checks import check_integer, shown


def audio_noise_shares(
    num_inference_steps: int,
    audio_weight: float | list[float] = 0.5,
    image_guidance_start: float = 0.1,
    image_guidance_end: float = 1.0,
    audio_guidance_start: float = 0.0,
    audio_guidance_end: float = 1.0,
    fade: float = 0.0,
) -> list[float]:
    """
    Normalised weights of the audio model's noise ([arXiv 2405.12221](https://arxiv.org/abs/2405.12221), section 3.2:
    a step function for each modality, divided by their sum).

    Args:
        num_inference_steps (`int`): Number of denoising steps.
        audio_weight (`float` or `list[float]`): The audio model's weight where both speak, 0..1, one or one per step.
        image_guidance_start, image_guidance_end (`float`): Fractions of the steps, 0..1: the image model speaks from
            the first to before the second.
        audio_guidance_start, audio_guidance_end (`float`): The same for the audio model.
        fade (`float`): Fraction of the steps, 0..1, over which a model that starts late fades in along half a period
            of a cosine.

    Returns:
        `list[float]` of length `num_inference_steps`, each in 0..1. At 0 the audio model is silent, at 1 the image
        model.

    Raises:
        ValueError: If an argument is out of its range, a start is after its end, or no model speaks at a step.
    """
    check_integer("num_inference_steps", num_inference_steps, least=0)
    edges = {
        "image_guidance_start": image_guidance_start,
        "image_guidance_end": image_guidance_end,
        "audio_guidance_start": audio_guidance_start,
        "audio_guidance_end": audio_guidance_end,
    }
    for name, value in {**edges, "fade": fade}.items():
        _check_fraction(name, value)
    for modality in ("image", "audio"):
        start, end = edges[f"{modality}_guidance_start"], edges[f"{modality}_guidance_end"]
        if start > end:
            raise ValueError(
                f"`{modality}_guidance_start` has to be at most `{modality}_guidance_end`, but is {start} against"
                f" {end}."
            )
    shares = []
    for step, weight in enumerate(_weight_per_step(audio_weight, num_inference_steps)):
        image = (1 - weight) * _strength(step, num_inference_steps, image_guidance_start, image_guidance_end, fade)
        audio = weight * _strength(step, num_inference_steps, audio_guidance_start, audio_guidance_end, fade)
        if image + audio == 0:
            raise ValueError(
                f"No model speaks at step {step} of {num_inference_steps}: `audio_weight` is {weight} there, the image"
                f" model speaks from {image_guidance_start} to {image_guidance_end} of the steps, the audio model from"
                f" {audio_guidance_start} to {audio_guidance_end}."
            )
        shares.append(audio / (image + audio))
    return shares


def _strength(step: int, num_inference_steps: int, start: float, end: float, fade: float) -> float:
    first, stop = round(start * num_inference_steps), round(end * num_inference_steps)
    if not first <= step < stop:
        return 0.0
    faded_in = step - first + 1
    if first == 0 or faded_in >= fade * num_inference_steps:
        return 1.0
    return 0.5 - 0.5 * math.cos(math.pi * faded_in / (fade * num_inference_steps))


def _weight_per_step(audio_weight: float | list[float], num_inference_steps: int) -> list[float]:
    if not isinstance(audio_weight, (list, tuple)):
        _check_fraction("audio_weight", audio_weight)
        return [audio_weight] * num_inference_steps
    if len(audio_weight) != num_inference_steps:
        raise ValueError(
            f"`audio_weight` has to be one number or one for each of the {num_inference_steps} steps, but has"
            f" {len(audio_weight)} entries."
        )
    for weight in audio_weight:
        _check_fraction("audio_weight", weight)
    return list(audio_weight)


def _check_fraction(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"`{name}` has to be a number between 0 and 1, but is {shown(value)}.")
