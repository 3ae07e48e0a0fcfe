"""The checkpoint that ships with the project."""

import torch
from safetensors.torch import load_file

from images_that_sound.pipelines import (
    ImagesThatSoundImprintPipeline,
    ImagesThatSoundPipeline,
    ImagesThatSoundSDSPipeline,
)
from images_that_sound.pipelines.images_that_sound_canvas import Windows
from images_that_sound.scripts.common.models import EMBEDDED, SHIPPED


SMALL_CANVAS = {"hidden_size": 16, "num_frequencies": 8}


def sizes_of(folder):
    """Bytes of each part's weights, all of which are float16."""
    files = list(folder.rglob("*.safetensors"))
    for file in files:
        assert {value.dtype for value in load_file(file).values() if value.is_floating_point()} == {torch.float16}
    return {file.parent.name: file.stat().st_size for file in files}


def test_weights_are_small_and_float16():
    sizes = sizes_of(EMBEDDED)
    assert sizes.keys() == {"unet", "unet_audio", "vae", "text_encoder", "clip", "clap", "lcm_lora"}
    assert sizes["lcm_lora"] <= 3 * 10**6
    assert sizes["clip"] + sizes["clap"] <= 10 * 10**6
    assert sum(sizes.values()) - sizes["clip"] - sizes["clap"] - sizes["lcm_lora"] <= 25 * 10**6
    colorization = sizes_of(SHIPPED["embedded-colorization"])
    assert colorization.keys() == {"text_encoder", "unet", "unet_super_resolution"}
    assert sum(colorization.values()) <= 15 * 10**6


def test_the_audio_side_alone_of_a_folder_that_holds_both():
    whole = ImagesThatSoundPipeline.from_pretrained(EMBEDDED)
    parts = ImagesThatSoundPipeline.from_pretrained(EMBEDDED, unet_audio=None)
    assert parts.unet_audio is None
    parts.load_audio_prior(EMBEDDED)
    assert parts.vae_audio is None and parts.text_encoder_audio is None and parts.vocoder is None
    call = {"width": 64, "num_inference_steps": 2, "output_type": "latent"}
    latents = [
        pipe("trains", "train whistling", **call, generator=torch.Generator().manual_seed(0)).images
        for pipe in (whole, parts)
    ]
    assert torch.equal(*latents)


def test_score_distillation_by_the_embedded_pixel_prior():
    pipe = ImagesThatSoundSDSPipeline.from_pretrained(SHIPPED["embedded-colorization"])
    pipe.load_audio_prior(EMBEDDED)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.image_prior == "pixel"
    crops = []
    pipe.unet.register_forward_pre_hook(lambda _, inputs: crops.append(inputs[0].shape))
    call = {"num_iterations": 1, "image_start_step": 0, "num_crops": 2, "canvas_kwargs": SMALL_CANVAS}
    output = pipe("castle towers", "bell ringing", **call)
    assert crops == [(4, 3, 64, 64)]
    assert output.spectrograms[0].size == (512, 128) and output.audios.shape == (1, 81920)


def test_the_audio_unet_is_another_than_the_image_unet_it_came_from():
    pipe = ImagesThatSoundPipeline.from_pretrained(EMBEDDED)
    image, audio = pipe.unet.state_dict(), pipe.unet_audio.state_dict()
    assert image.keys() == audio.keys() and not all(torch.equal(image[name], audio[name]) for name in image)
    assert pipe.vae_audio is None and pipe.text_encoder_audio is None and pipe.vocoder is None
    assert {model.dtype for model in (pipe.unet, pipe.unet_audio, pipe.vae, pipe.text_encoder)} == {torch.float32}


def test_a_square_picture_that_is_played_in_two_halves():
    pipe = ImagesThatSoundPipeline.from_pretrained(EMBEDDED)
    pipe.set_progress_bar_config(disable=True)
    output = pipe("a painting of tigers", "tiger growling", canvas_layout="folded", num_inference_steps=2)
    assert output.images[0].size == (256, 256)
    assert output.spectrograms[0].size == (512, 128)
    assert output.audios.shape == (1, 81920)


def test_the_baselines_run_from_it_too():
    imprint = ImagesThatSoundImprintPipeline.from_pretrained(EMBEDDED)
    imprint.set_progress_bar_config(disable=True)
    steps = dict(num_inference_steps=2, num_audio_inference_steps=2)
    output = imprint("a painting of tigers", "tiger growling", output_type="pt", **steps)
    assert output.spectrograms.shape == (1, 1, 128, 512) and output.audios.shape == (1, 81920)

    sds = ImagesThatSoundSDSPipeline.from_pretrained(EMBEDDED)
    sds.set_progress_bar_config(disable=True)
    losses = []
    output = sds(
        "a painting of tigers",
        "tiger growling",
        num_iterations=2,
        image_start_step=1,
        num_crops=1,
        canvas_kwargs=SMALL_CANVAS,
        output_type="pt",
        callback_on_step_end=lambda pipe, iteration, sample, tensors: losses.append(tensors),
    )
    assert sds.image_prior == "latent" and output.spectrograms.shape == (1, 1, 128, 512)
    assert losses[0]["image_loss"] is None and losses[1]["image_loss"] > 0 and losses[1]["audio_loss"] > 0


@torch.no_grad()
def test_no_border_of_a_window_shows():
    """Steps to the next column are as large at borders as elsewhere, rises alone too, unless nothing is merged."""
    pipe = ImagesThatSoundPipeline.from_pretrained(EMBEDDED)
    pipe.set_progress_bar_config(disable=True)
    near = torch.zeros(1535, dtype=torch.bool)
    near[[510, 511, 512, 1022, 1023, 1024]] = True
    ratios = {}
    for stride in (256, 512):
        latents = pipe(
            ["castle towers"] * 4,
            ["bell ringing"] * 4,
            width=1536,
            window_stride=stride,
            audio_window_stride=stride,
            num_inference_steps=4,
            generator=[torch.Generator().manual_seed(seed) for seed in range(4)],
            output_type="latent",
        ).images
        canvases = pipe.decode_latents(latents, pipe.vae, Windows(512, 256, 1536)).mean(dim=1)
        steps = canvases.diff(dim=-1).flatten(0, 1)
        for name, size in (("steps", steps.abs()), ("rises", steps.clamp(min=0))):
            ratios[name, stride] = float(size[:, near].mean() / size[:, ~near].mean())
    assert ratios["steps", 256] < 1.25 < 1.35 < ratios["steps", 512], ratios
    assert ratios["rises", 256] < 1.35 < 1.5 < ratios["rises", 512], ratios
