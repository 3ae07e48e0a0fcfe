"""Pictures and sounds of one's own to begin with, compared with the stock pipelines of either side."""

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import STABLE_DIFFUSION, two_sides
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    UniPCMultistepScheduler,
)

from images_that_sound.pipelines import (
    Canvas,
    ImagesThatSoundImg2ImgPipeline,
    ImagesThatSoundImprintPipeline,
    ImagesThatSoundPipeline,
)
from images_that_sound.pipelines.images_that_sound_canvas import fit_pictures, imprint


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SCHEDULERS = [DDIMScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler, DPMSolverMultistepScheduler]
CALL = {"num_inference_steps": 5, "guidance_scale": 2.0, "output_type": "latent"}
OWN = {"audio_guidance_scale": 2.0, "image_guidance_start": 0.0, "crop_right": 0}


@pytest.fixture(scope="module")
def pipe():
    return two_sides(ImagesThatSoundImg2ImgPipeline, STABLE_DIFFUSION)


@pytest.fixture(autouse=True)
def paper_scheduler(pipe):
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)


def picture(width=64, height=256, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PIL.Image.fromarray(values)


def sound(pipe, columns=64, seed=0):
    number = pipe.mel_spectrogram.num_samples(columns)
    return (0.1 * np.random.default_rng(seed).standard_normal(number)).astype(np.float32)


def half_mask(width=64, height=256):
    return PIL.Image.fromarray(np.repeat([[0, 255]], width // 2, axis=1).repeat(height, axis=0).astype(np.uint8))


def generators(number):
    return [torch.Generator().manual_seed(seed) for seed in range(number)]


def draw(pipe, **arguments):
    call = {"prompt": "a castle", "audio_prompt": "a bell", "generator": torch.Generator().manual_seed(0), **CALL}
    width = {} if "audio" in arguments else {"width": 64}
    return pipe(**{**call, **OWN, **width, **arguments})


def stock_of(pipe, stock_class, side="image"):
    suffix = "" if side == "image" else "_audio"
    parts = {name: getattr(pipe, name + suffix) for name in ("unet", "vae", "text_encoder")}
    extras = dict.fromkeys(("safety_checker", "feature_extractor"))
    stock = stock_class(**parts, tokenizer=pipe.tokenizer, scheduler=None, requires_safety_checker=False, **extras)
    stock.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    stock.set_progress_bar_config(disable=True)
    return stock


def stock_latents(stock, prompt="a castle", **arguments):
    return stock(prompt, **{"generator": torch.Generator().manual_seed(0), **CALL, **arguments}).images


# -------------------- The stock pipelines --------------------


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("strength", [0.3, 0.8])
def test_the_image_side_alone_is_stable_diffusions(pipe, scheduler, strength):
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    latents = draw(pipe, image=picture(), strength=strength, audio_weight=0.0, negative_prompt="dark").images
    stock = stock_of(pipe, StableDiffusionImg2ImgPipeline)
    expected = stock_latents(stock, image=picture(), strength=strength, negative_prompt="dark")
    assert torch.equal(latents, expected)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_with_a_mask_the_image_side_alone_is_stable_diffusions(pipe, scheduler, strength):
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    given = {"image": picture(), "mask_image": half_mask(), "strength": strength}
    latents = draw(pipe, audio_weight=0.0, **given).images
    stock = stock_of(pipe, StableDiffusionInpaintPipeline)
    assert torch.equal(latents, stock_latents(stock, height=256, width=64, **given))


def test_several_samples_are_those_of_the_stock_pipeline(pipe):
    stock = stock_of(pipe, StableDiffusionImg2ImgPipeline)
    for generator in (torch.Generator().manual_seed(3), generators(2)):
        state = [each.get_state() for each in (generator if isinstance(generator, list) else [generator])]
        given = {"image": picture(), "num_images_per_prompt": 2, "generator": generator}
        latents = draw(pipe, audio_weight=0.0, **given).images
        for each, before in zip(generator if isinstance(generator, list) else [generator], state):
            each.set_state(before)
        assert torch.equal(latents, stock_latents(stock, **given))


def test_the_audio_side_alone_is_the_same_of_its_models(pipe):
    waveform = sound(pipe)
    canvas = pipe.mel_spectrogram.audio_to_canvas(torch.from_numpy(waveform)[None])
    given = {"strength": 0.6, "negative_prompt": "noise"}
    latents = draw(pipe, audio=waveform, audio_weight=1.0, strength=0.6, negative_audio_prompt="noise").images
    stock = stock_of(pipe, StableDiffusionImg2ImgPipeline, "audio")
    expected = stock_latents(stock, "a bell", image=canvas.expand(-1, 3, -1, -1), **given)
    assert torch.equal(latents, expected)


def test_at_full_strength_it_is_the_main_pipeline(pipe):
    main = ImagesThatSoundPipeline(**pipe.components)
    main.set_progress_bar_config(disable=True)
    schedule = {"audio_weight": [0.5, 0.4, 0.6, 0.5, 0.5]}
    expected = draw(main, generator=generators(2), num_images_per_prompt=2, **schedule).images
    latents = draw(
        pipe, image=picture(), strength=1.0, generator=generators(2), num_images_per_prompt=2, **schedule
    ).images
    assert torch.equal(latents, expected)


# -------------------- What is given --------------------


def test_a_list_of_generators_is_single_calls(pipe):
    pictures = [picture(seed=0), picture(seed=1)]
    together = draw(pipe, image=pictures, generator=generators(2)).images
    for row, generator in enumerate(generators(2)):
        alone = draw(pipe, image=pictures[row], generator=generator).images
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)


def test_what_a_mask_keeps_is_kept_in_the_latents(pipe):
    callback_steps = []

    def follow(pipe, step, timestep, tensors):
        callback_steps.append(set(tensors))
        return {}

    arguments = {"image": picture(), "mask_image": half_mask(), "callback_on_step_end": follow}
    first = draw(pipe, callback_on_step_end_tensor_inputs=["prompt_embeds"], **arguments).images
    other = draw(pipe, **{**arguments, "prompt": "a dog", "audio_prompt": "rain"}).images
    assert torch.equal(first[..., :4], other[..., :4]) and not torch.equal(first[..., 4:], other[..., 4:])
    assert callback_steps[0] == {"prompt_embeds"} and callback_steps[-1] == {"latents"}
    pixels = torch.from_numpy(np.asarray(picture())).permute(2, 0, 1)[None] / 255
    distribution = pipe.vae.encode(2 * pixels - 1).latent_dist
    expected = 0.18215 * distribution.sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(first[..., :4], expected[..., :4])


def test_a_span_of_time_is_a_mask(pipe):
    by_pixels = draw(pipe, image=picture(), mask_image=half_mask()).images
    assert torch.equal(draw(pipe, image=picture(), mask_start_in_s=0.32).images, by_pixels)
    assert not torch.equal(draw(pipe, image=picture(), mask_end_in_s=0.32).images, by_pixels)


def test_a_sound_with_a_picture_is_imprinted_first(pipe):
    waveform, seen = sound(pipe), []
    encode = pipe.vae_audio.encode

    def spy(pixels):
        seen.append(pixels)
        return encode(pixels)

    pipe.vae_audio.encode = spy
    try:
        output = draw(pipe, audio=waveform, image=picture(), magnitude_ratio=0.7, output_type="pt")
    finally:
        del pipe.vae_audio.encode
    canvas = pipe.mel_spectrogram.audio_to_canvas(torch.from_numpy(waveform)[None])
    pixels = torch.from_numpy(np.asarray(picture())).permute(2, 0, 1)[None] / 255
    expected = imprint(canvas, pixels, 0.7)
    torch.testing.assert_close(seen[0], 2 * expected.expand(-1, 3, -1, -1) - 1)
    assert output.audios.shape == (1, len(waveform)) and output.spectrograms.shape == (1, 1, 256, 64)


def test_a_folded_canvas_begins_with_a_square_picture_or_a_folded_sound(pipe):
    waveform = sound(pipe, columns=60)
    output = draw(pipe, audio=waveform, canvas_layout="folded", strength=0.4, output_type="pt")
    assert output.images.shape == (1, 3, 512, 32) and output.audios.shape == (1, len(waveform))
    canvas = pipe.mel_spectrogram.audio_to_canvas(torch.from_numpy(waveform)[None])
    strip = torch.nn.functional.pad(canvas, (0, 4))
    folded = torch.cat([strip[..., :32], strip[..., 32:]], dim=-2)
    torch.testing.assert_close(Canvas(512, 32, 60, folded=True).put(canvas, silence=0.0), folded)
    square = picture(width=32, height=512)
    latents = draw(pipe, image=square, canvas_layout="folded", width=32, audio_weight=0.0).images
    stock = stock_of(pipe, StableDiffusionImg2ImgPipeline)
    assert torch.equal(latents, stock_latents(stock, image=square))


# -------------------- Pictures of other sizes --------------------


@pytest.mark.parametrize("size", [(60, 80), (300, 100), (40, 1), (7, 500)])
def test_fitted_pictures_keep_their_shape(size):
    gray = torch.ones(1, 1, size[1], size[0])
    for mode in ("repeat", "center"):
        fitted = fit_pictures(gray, 64, 256, mode, 0.0)
        assert fitted.shape == (1, 1, 64, 256)
        scale = min(64 / size[1], 256 / size[0])
        width, height = (max(round(side * scale), 1) for side in size)
        times = 256 // width if mode == "repeat" else 1
        assert float(fitted.sum()) == pytest.approx(times * width * height)
        assert abs(float(fitted[..., :128].sum()) - float(fitted[..., 128:].sum())) <= 2 * height
    assert float(fit_pictures(gray, 64, 256, "crop", 0.0).min()) == pytest.approx(1.0)
    assert torch.equal(fit_pictures(gray, size[1], size[0], "repeat", 0.0), gray)


def test_cropped_and_stretched_pictures_are_pillows():
    photo = picture(60, 80)
    pixels = torch.from_numpy(np.asarray(photo)).permute(2, 0, 1)[None] / 255
    stretched = np.asarray(photo.resize((128, 32), PIL.Image.Resampling.BILINEAR))
    fitted = fit_pictures(pixels, 32, 128, "stretch", 0.0)
    np.testing.assert_allclose(fitted[0].permute(1, 2, 0).numpy() * 255, stretched, atol=1.5)
    covering = np.asarray(photo.resize((128, 171), PIL.Image.Resampling.BILINEAR))[69:101]
    cropped = fit_pictures(pixels, 32, 128, "crop", 0.0)
    np.testing.assert_allclose(cropped[0].permute(1, 2, 0).numpy() * 255, covering, atol=1.5)


def test_imprint_takes_the_same_modes(pipe):
    paints = ImagesThatSoundImprintPipeline.from_pipe(pipe)
    call = {"image": picture(60, 80), "audio": sound(pipe, columns=400), "output_type": "pt", "audio_prompt": None}
    outputs = [paints(resize_mode=mode, **call).spectrograms for mode in ("repeat", "center", "crop", "stretch")]
    assert all(not torch.equal(outputs[i], outputs[j]) for i in range(4) for j in range(i))
    with pytest.raises(ValueError, match="`resize_mode` has to be .*, but is 'fill'"):
        paints(resize_mode="fill", **call)


# -------------------- Bad input --------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": None}, "`image`, `audio` or both have to be given"),
        ({"strength": 1.1}, "`strength` has to be in 0..1, but is 1.1"),
        ({"strength": "all"}, "`strength` has to be a finite number"),
        ({"strength": 0.1}, "`strength` has to leave one of 5 steps"),
        ({"resize_mode": "fill"}, "`resize_mode` has to be 'repeat', 'center', 'crop' or 'stretch', but is 'fill'"),
        ({"magnitude_ratio": 2}, "`magnitude_ratio` has to be in 0..1"),
        ({"image": "portrait.jpg"}, "`image` has to be a picture"),
        ({"image": [picture(), picture(), picture()], "prompt": ["a", "b"]}, "`image` .*equally many|equally many"),
        ({"mask_image": half_mask(32)}, "`mask_image` has to be of the canvas' height and width"),
        ({"mask_image": "mask.png"}, "`mask_image` has to be a picture"),
        ({"mask_image": half_mask(), "mask_start_in_s": 0.1}, "`mask_image` excludes"),
        ({"mask_start_in_s": 0.5, "mask_end_in_s": 0.2}, "`mask_start_in_s` has to be before"),
        ({"mask_start_in_s": -1}, "`mask_start_in_s` has to be in"),
        ({"audio": np.zeros(4000, np.float32)}, "`audio` has to be finite and not silent"),
        ({"audio": np.zeros(0, np.float32)}, "`audio`"),
        ({"audio": np.ones(4000, np.float32), "width": 64}, "`width` and `audio_length_in_s` follow from `audio`"),
    ],
)
def test_bad_input_is_refused(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        draw(pipe, **{"image": picture(), **arguments})
