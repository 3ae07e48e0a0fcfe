"""What was distilled for few steps, on both sides by one call: as stock Stable Diffusion has it on each."""

import copy

import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler, StableDiffusionPipeline, TCDScheduler, UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict

from images_that_sound.pipelines import ImagesThatSoundImg2ImgPipeline


CALL = {"prompt": "a castle", "audio_prompt": "a bell", "width": 64, "crop_right": 0, "output_type": "latent"}
SCHEDULERS = {
    "lcm": (LCMScheduler, {}, {}),
    "tcd": (TCDScheduler, {}, {"eta": 0.3}),
    "hyper-sd": (DDIMScheduler, {"timestep_spacing": "trailing"}, {}),
}


def lora_of(unet, seed=0, prefix="unet"):
    torch.manual_seed(seed)
    adapted = copy.deepcopy(unet)
    adapted.add_adapter(LoraConfig(r=4, init_lora_weights=False, target_modules=["to_q", "conv1", "time_emb_proj"]))
    return {f"{prefix}.{name}": value for name, value in get_peft_model_state_dict(adapted).items()}


def latents_of(pipe, audio_weight):
    return pipe(**CALL, audio_weight=audio_weight, generator=torch.Generator().manual_seed(0)).images


@pytest.mark.parametrize("name", SCHEDULERS)
def test_each_side_alone_is_stable_diffusion_with_that_lora(pipe, stable_diffusion_folder, auffusion_folder, name):
    scheduler_class, options, arguments = SCHEDULERS[name]
    scheduler = scheduler_class.from_config(pipe.scheduler.config, **options)
    lora = lora_of(pipe.unet)
    pipe.load_few_step_lora_weights(lora, None if name == "lcm" else scheduler, num_inference_steps=4)
    assert type(pipe.scheduler) is scheduler_class
    sides = ((stable_diffusion_folder, "prompt", 0.0), (auffusion_folder, "audio_prompt", 1.0))
    for folder, prompt, audio_weight in sides:
        stock = StableDiffusionPipeline.from_pretrained(folder)
        stock.set_progress_bar_config(disable=True)
        stock.scheduler = scheduler
        stock.load_lora_weights(lora)
        expected = stock(
            CALL[prompt],
            height=256,
            width=64,
            num_inference_steps=4,
            guidance_scale=1.0,
            output_type="latent",
            generator=torch.Generator().manual_seed(0),
            **arguments,
        ).images
        assert torch.equal(latents_of(pipe, audio_weight), expected)


def test_a_file_may_hold_a_lora_of_its_own_for_each_side(pipe):
    apart, image, audio = copy.deepcopy(pipe), lora_of(pipe.unet, 1), lora_of(pipe.unet_audio, 2)
    apart.load_lora_weights(image, adapter_name="a")
    apart.audio.load_lora_weights(audio, adapter_name="a")
    apart.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    call = {"guidance_scale": 1.0, "audio_guidance_scale": 1.0, "image_guidance_start": 0.0, "num_inference_steps": 8}
    expected = apart(**CALL, **call, generator=torch.Generator().manual_seed(0)).images
    pipe.load_few_step_lora_weights({**image, **lora_of(pipe.unet_audio, 2, "unet_audio")})
    assert torch.equal(latents_of(pipe, None), expected)
    assert pipe.get_list_adapters() == {"unet": ["few_steps"]}
    assert pipe.audio.get_list_adapters() == {"unet": ["few_steps"]}


def test_a_sibling_takes_few_steps_too(pipe):
    pipe.load_few_step_lora_weights(lora_of(pipe.unet), num_inference_steps=5)
    sibling = ImagesThatSoundImg2ImgPipeline.from_pipe(pipe)
    assert isinstance(sibling.scheduler, LCMScheduler)
    wanted = {"num_inference_steps": 5, "guidance_scale": 1.0, "audio_guidance_scale": 1.0}
    assert wanted.items() <= sibling.default_arguments.items()


def test_what_does_not_fit_leaves_the_pipeline_as_it_was(pipe, tmp_path):
    def state():
        adapters = pipe.get_list_adapters(), pipe.audio.get_list_adapters()
        return (pipe.scheduler, pipe.default_arguments, *adapters)

    before = state()
    wide = UNet2DConditionModel.from_config(pipe.unet.config, block_out_channels=(64, 64))
    image_only = {**lora_of(wide), **lora_of(pipe.unet_audio, prefix="unet_audio")}
    good = lora_of(pipe.unet)
    for arguments, message in (
        ((lora_of(wide),), "has to be a LoRA for the architecture of `unet`, but"),
        ((image_only,), "has to be a LoRA for the architecture of `unet`, but"),
        ((good, "lcm"), "`scheduler` has to be a scheduler of diffusers, but is 'lcm'"),
        ((good, None, 0), "`num_inference_steps` has to be .* but is 0"),
        ((tmp_path,), "no file named pytorch_lora_weights"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            pipe.load_few_step_lora_weights(*arguments)
        assert state() == before
    pipe.load_few_step_lora_weights(good)
    with pytest.raises(ValueError, match="`adapter_name`"):
        pipe.load_few_step_lora_weights(good)
