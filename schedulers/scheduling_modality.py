"""Schedule of the two sides: the steps at which each acts, and its weight."""

from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config

from ..pipelines.images_that_sound_denoising import audio_noise_shares


class ModalityScheduler(SchedulerMixin, ConfigMixin):
    """
    A schedule of the two sides that can be saved and loaded. Give it to
    [`~images_that_sound.pipelines.ImagesThatSoundPipeline.__call__`] as `audio_weight`.

    `fade=0` is the paper's schedule ([arXiv 2405.12221](https://arxiv.org/abs/2405.12221), section 3.2): each side is
    silent or acts in full, and the weights are divided by their sum. With a higher value the side that joins later
    fades in along half a period of a cosine.

    Args:
        audio_weight (`float`, defaults to 0.5): The audio model's weight while both act in full, 0 to 1.
        image_guidance_start (`float`, defaults to 0.1): Fraction of the steps before which the image model is silent.
        image_guidance_end (`float`, defaults to 1.0): Fraction of the steps from which it is silent again.
        audio_guidance_start (`float`, defaults to 0.0): The same for the audio model.
        audio_guidance_end (`float`, defaults to 1.0): The same for the audio model.
        fade (`float`, defaults to 0.0): Fraction of the steps over which a side that starts late fades in, 0 to 1.

    Raises:
        ValueError: If a value is not in 0..1, or a side starts after its end.
    """

    @register_to_config
    def __init__(
        self,
        audio_weight: float = 0.5,
        image_guidance_start: float = 0.1,
        image_guidance_end: float = 1.0,
        audio_guidance_start: float = 0.0,
        audio_guidance_end: float = 1.0,
        fade: float = 0.0,
    ):
        self._arguments = {
            "audio_weight": audio_weight,
            "image_guidance_start": image_guidance_start,
            "image_guidance_end": image_guidance_end,
            "audio_guidance_start": audio_guidance_start,
            "audio_guidance_end": audio_guidance_end,
            "fade": fade,
        }
        audio_noise_shares(0, **self._arguments)

    def audio_noise_shares(self, num_inference_steps: int) -> list[float]:
        """
        The audio model's share of the noise at each step. The image model's is one minus it. A model with share 0
        need not run.

        Args:
            num_inference_steps (`int`): Number of denoising steps.

        Returns:
            `list[float]` of length `num_inference_steps`, each in 0..1.

        Raises:
            ValueError: If neither model acts at a step.
        """
        return audio_noise_shares(num_inference_steps, **self._arguments)
