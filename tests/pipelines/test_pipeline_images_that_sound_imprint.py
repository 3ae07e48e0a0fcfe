"""Imprint, compared with stock diffusers pipelines, formulas and its own single calls."""

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionPipeline

from images_that_sound.pipelines import ImagesThatSoundImprintPipeline, MelSpectrogram


PROMPTS = ("castle towers", "bell ringing")
SMALL = dict(height=256, width=64, num_inference_steps=2, num_audio_inference_steps=3, crop_right=0, output_type="pt")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stable_diffusion(folder, prompt: str, latents: torch.Tensor, steps: int) -> torch.Tensor:
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    call = dict(latents=latents, num_inference_steps=steps, guidance_scale=7.5, output_type="np")
    return torch.from_numpy(pipe(prompt, height=256, width=64, **call).images).permute(0, 3, 1, 2)


def test_equals_two_runs_of_stable_diffusion(imprint_pipe, stable_diffusion_folder, auffusion_folder):
    output = imprint_pipe(*PROMPTS, **SMALL, generator=generator())

    source = generator()
    latents, audio_latents = (torch.randn(1, 4, 32, 8, generator=source) for _ in range(2))
    picture = stable_diffusion(stable_diffusion_folder, PROMPTS[0], latents, 2)
    spectrogram = stable_diffusion(auffusion_folder, PROMPTS[1], audio_latents, 3)
    expected = spectrogram.mean(1, keepdim=True) * (1 - 0.5 * (1 - picture.mean(1, keepdim=True)))
    torch.testing.assert_close(output.images, picture, atol=1e-6, rtol=0)
    torch.testing.assert_close(output.spectrograms, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("custom", [{"timesteps": [900, 500, 100]}, {"sigmas": [9.0, 2.0, 0.5]}])
def test_custom_schedules_are_the_pictures(imprint_pipe, stable_diffusion_folder, custom):
    stock = StableDiffusionPipeline.from_pretrained(stable_diffusion_folder, safety_checker=None)
    for pipe in (imprint_pipe, stock):
        pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
        pipe.set_progress_bar_config(disable=True)
    arguments = {**SMALL, "num_inference_steps": None, "num_audio_inference_steps": 1}
    output = imprint_pipe(*PROMPTS, **arguments, **custom, generator=generator())
    call = dict(custom, latents=torch.randn(1, 4, 32, 8, generator=generator()), guidance_scale=7.5, output_type="np")
    picture = torch.from_numpy(stock(PROMPTS[0], height=256, width=64, **call).images).permute(0, 3, 1, 2)
    torch.testing.assert_close(output.images, picture, atol=1e-5, rtol=0)


def test_own_picture_and_own_sound(imprint_pipe):
    picture = PIL.Image.fromarray(np.linspace(0, 255, 100 * 256).reshape(256, 100).astype(np.uint8))
    audio = 0.3 * np.sin(np.arange(16000) * 2 * np.pi * 440 / 16000).astype(np.float32)
    output = imprint_pipe(image=picture, audio=audio, magnitude_ratio=0.8, output_type="np")

    canvas = MelSpectrogram().audio_to_canvas(torch.from_numpy(audio))[0].numpy()
    gray = np.asarray(picture, np.float32) / 255
    np.testing.assert_allclose(output.images[0, :, :, 0], gray, atol=1e-5)
    np.testing.assert_allclose(output.spectrograms[0, :, :, 0], canvas * (1 - 0.8 * (1 - gray)), atol=1e-5)
    assert output.audios.shape == (1, 16000)

    inverted = imprint_pipe(image=picture, audio=audio, invert_image=False, output_type="np")
    np.testing.assert_allclose(inverted.spectrograms[0, :, :, 0], canvas * (1 - 0.5 * gray), atol=1e-5)

    # Beside a narrow picture the sound stays, either way.
    for invert_image in (True, False):
        narrow = imprint_pipe(
            image=picture.crop((0, 0, 40, 256)), audio=audio, invert_image=invert_image, output_type="np"
        )
        heard = narrow.spectrograms[0, :, :, 0]
        np.testing.assert_allclose(heard[:, :30], canvas[:, :30], atol=1e-6)
        np.testing.assert_allclose(heard[:, 70:], canvas[:, 70:], atol=1e-6)
        assert heard[:, 30:70].sum() < 0.95 * canvas[:, 30:70].sum()


def test_own_picture_on_a_made_sound_draws_as_without_it(imprint_pipe):
    made = imprint_pipe(*PROMPTS, **SMALL, generator=generator(), magnitude_ratio=0.0)
    source = generator()
    torch.randn(1, 4, 32, 8, generator=source)
    white = torch.ones(1, 3, 20, 20)
    own = imprint_pipe(audio_prompt=PROMPTS[1], image=white, resize_mode="stretch", **SMALL, generator=source)
    torch.testing.assert_close(own.spectrograms, made.spectrograms, atol=1e-6, rtol=0)


def test_own_sound_of_odd_length_under_a_made_picture(imprint_pipe):
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, 160 * 61).astype(np.float32)
    output = imprint_pipe(PROMPTS[0], audio=audio, num_inference_steps=2, output_type="pt")
    assert output.images.shape == (1, 3, 256, 61)
    assert output.spectrograms.shape == (1, 1, 256, 61)
    assert output.audios.shape == (1, 160 * 61)


def test_batches_give_what_single_calls_give(imprint_pipe):
    prompts = [["castle towers", "kittens"], ["bell ringing", "meow"]]
    batch = imprint_pipe(*prompts, **SMALL, num_images_per_prompt=2, generator=[generator(i) for i in range(4)])
    for i in range(4):
        single = imprint_pipe(prompts[0][i // 2], prompts[1][i // 2], **SMALL, generator=generator(i))
        torch.testing.assert_close(batch.spectrograms[i], single.spectrograms[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(batch.images[i], single.images[0], atol=1e-4, rtol=0)


def test_embeddings_stand_in_for_prompts(imprint_pipe):
    expected = imprint_pipe(*PROMPTS, **SMALL, negative_prompt="dogs", generator=generator())
    embeds, negative, audio, negative_audio = imprint_pipe.encode_prompt(*PROMPTS, negative_prompt="dogs")
    output = imprint_pipe(
        prompt_embeds=embeds,
        negative_prompt_embeds=negative,
        audio_prompt_embeds=audio,
        negative_audio_prompt_embeds=negative_audio,
        **SMALL,
        generator=generator(),
    )
    assert torch.equal(output.spectrograms, expected.spectrograms)


def test_callback_sees_every_step_and_can_interrupt(imprint_pipe):
    seen = []

    def stop(pipe, step, timestep, tensors):
        seen.append((step, int(timestep)))
        pipe._interrupt = step == 2
        return tensors

    output = imprint_pipe(
        *PROMPTS, **{**SMALL, "output_type": "latent"}, generator=generator(), callback_on_step_end=stop
    )
    assert [step for step, _ in seen] == [0, 1, 2]
    assert output.images.shape == output.spectrograms.shape == (1, 4, 32, 8)
    assert output.audios is None


def test_tuple_equals_dictionary_and_dtype_and_saving(imprint_pipe, tmp_path):
    output = imprint_pipe(*PROMPTS, **SMALL, generator=generator())
    plain = imprint_pipe(*PROMPTS, **SMALL, generator=generator(), return_dict=False)
    assert all(torch.equal(first, second) for first, second in zip(output.to_tuple(), plain))
    imprint_pipe.save_pretrained(tmp_path)
    loaded = ImagesThatSoundImprintPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(loaded(*PROMPTS, **SMALL, generator=generator()).spectrograms, output.spectrograms)
    half = imprint_pipe.to(torch.bfloat16)(*PROMPTS, **SMALL, generator=generator())
    assert half.audios.dtype == torch.float32 and imprint_pipe.vocoder.dtype == torch.float32


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(prompt="a"), "`audio_prompt`"),
        (dict(prompt="a", audio_prompt="b", magnitude_ratio=1.5), "`magnitude_ratio` has to be in 0..1, but is 1.5"),
        (dict(prompt="a", audio_prompt="b", image=torch.zeros(1, 3, 8, 8)), "`image` stands in for"),
        (dict(audio_prompt="b", image=torch.full((1, 3, 8, 8), -2.0)), "`image` has to be in 0..1, but reaches -2"),
        (dict(prompt="a", audio=np.zeros(16000, np.float32)), "`audio` has to be finite and not silent"),
        (dict(prompt="a", audio=np.ones((1, 1, 1600), np.float32)), "`audio` has to be a floating-point tensor"),
        (dict(prompt="a", audio=np.ones(16000, np.float32), width=64), "`width`"),
        (dict(prompt=["a", "b"], audio_prompt=["a", "b", "c"]), "equally many"),
        (dict(prompt="a", audio_prompt="b", num_audio_inference_steps=0), "`num_audio_inference_steps`"),
        (dict(prompt="a", audio_prompt="b", height=128), "`height` has to be 256"),
        (dict(prompt="a", audio_prompt="b", width=60), "`width`"),
        (dict(prompt="a", audio_prompt="b", audio_latents=torch.zeros(1, 4, 8, 8)), "`audio_latents`"),
        (dict(prompt="a", audio_prompt="b", output_type="jpg"), "`output_type`"),
        (dict(prompt="a", audio_prompt="b", generator=[torch.Generator()] * 2), "`generator`"),
    ],
)
def test_bad_input_is_refused(imprint_pipe, arguments, words):
    with pytest.raises(ValueError, match=words):
        imprint_pipe(**arguments)


def test_missing_audio_side_is_only_missed_where_it_is_needed(stable_diffusion_folder):
    pipe = ImagesThatSoundImprintPipeline.from_pretrained(stable_diffusion_folder)
    pipe.set_progress_bar_config(disable=True)
    with pytest.raises(ValueError, match="load_audio_prior"):
        pipe(*PROMPTS)
    audio = 0.5 * np.ones(16000, np.float32)
    assert pipe("castle towers", audio=audio, num_inference_steps=1, output_type="pt").images.shape[-1] == 100


def test_model_offloading_gives_the_same(imprint_pipe):
    expected = imprint_pipe(*PROMPTS, **SMALL, generator=generator())
    imprint_pipe.enable_model_cpu_offload(device="cpu")
    for _ in range(2):
        output = imprint_pipe(*PROMPTS, **SMALL, generator=generator())
        assert torch.equal(output.spectrograms, expected.spectrograms) and torch.equal(output.audios, expected.audios)
