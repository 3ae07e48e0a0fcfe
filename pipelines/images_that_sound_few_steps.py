"""A LoRA that makes few steps do, on both sides, with the scheduler and the arguments that it wants."""

import os
import textwrap
from typing import Any

import torch
from diffusers import LCMScheduler, SchedulerMixin

from .images_that_sound_checks import check_integer, shown


class FewStepsMixin:
    """One call for a pipeline whose two UNets share an architecture, and with it what was distilled for one."""

    def load_few_step_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | os.PathLike | dict[str, torch.Tensor],
        scheduler: SchedulerMixin | None = None,
        num_inference_steps: int = 8,
        adapter_name: str = "few_steps",
        **kwargs: Any,
    ) -> None:
        """
        Loads a LoRA that was distilled for few steps without guidance into both UNets, sets the scheduler that it
        wants, and makes `num_inference_steps`, no guidance and both sides from the first step on what calls do where
        nothing else is said. LCM-LoRA ([arXiv 2311.05556](https://arxiv.org/abs/2311.05556)) wants
        [`LCMScheduler`], TCD ([arXiv 2402.19159](https://arxiv.org/abs/2402.19159)) [`TCDScheduler`], Hyper-SD
        ([arXiv 2404.13686](https://arxiv.org/abs/2404.13686)) [`DDIMScheduler`] with `timestep_spacing="trailing"`.

        Args:
            pretrained_model_name_or_path_or_dict (`str`, `os.PathLike` or `dict[str, torch.Tensor]`):
                A Hub repo such as `latent-consistency/lcm-lora-sdv1-5`, a folder, a file, or weights by their names.
                The audio side loads the same, or the weights whose names begin with `unet_audio.` where there are any.
            scheduler ([`~diffusers.SchedulerMixin`], *optional*):
                Takes the place of the pipeline's; a [`LCMScheduler`] with its config where left out.
            num_inference_steps (`int`, defaults to 8):
                Steps of a call that names no number.
            adapter_name (`str`, defaults to `"few_steps"`):
                What it is called on either side.
            kwargs:
                `weight_name`, `subfolder`, `revision` and the rest that `load_lora_weights` takes, for both sides.

        Raises:
            ValueError: If there is no audio side yet, if the LoRA does not fit a side, if the name is taken, or for
                what is no scheduler or number of steps. The pipeline is then as it was.
        """
        self._check_audio_prior()
        check_integer("num_inference_steps", num_inference_steps)
        if scheduler is None:
            scheduler = LCMScheduler.from_config(self.scheduler.config)
        elif not isinstance(scheduler, SchedulerMixin):
            raise ValueError(f"`scheduler` has to be a scheduler of diffusers, but is {shown(scheduler)}.")
        # The audio side's loader leaves nothing behind where a LoRA does not fit.
        self.load_audio_lora_weights(pretrained_model_name_or_path_or_dict, adapter_name, **kwargs)
        try:
            self.load_lora_weights(pretrained_model_name_or_path_or_dict, adapter_name, **kwargs)
        except Exception as error:  # diffusers, PEFT and torch raise different ones, and leave empty layers
            self.delete_audio_adapters(adapter_name)
            if not any(self.get_list_adapters().values()):
                self.unload_lora_weights()
            raise ValueError(
                "`pretrained_model_name_or_path_or_dict` has to be a LoRA for the architecture of `unet`, but does not"
                f" fit: {textwrap.shorten(str(error), 400)}"
            ) from error
        self.scheduler = scheduler
        wanted = {
            "num_inference_steps": num_inference_steps,
            "guidance_scale": 1.0,
            "audio_guidance_scale": 1.0,
            "image_guidance_start": 0.0,
        }
        default_arguments = {**(self.config.default_arguments or {}), **wanted}
        self._set_default_arguments(default_arguments)
        self.register_to_config(default_arguments=default_arguments)
