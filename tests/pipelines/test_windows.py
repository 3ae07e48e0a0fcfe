"""Wide canvases in windows: compared with the formula, and with calls for each window alone."""

import pytest
import torch
from conftest import STABLE_DIFFUSION, controlnet_of, save_ip_adapter, two_sides
from diffusers import ControlNetModel

from images_that_sound.pipelines import ImagesThatSoundImg2ImgPipeline, ImagesThatSoundPipeline
from images_that_sound.pipelines.images_that_sound_canvas import Windows


PROMPTS = {"prompt": "a castle", "audio_prompt": "a bell"}
CALL = {
    **PROMPTS,
    **{"width": 192, "crop_right": 0, "num_inference_steps": 2, "image_guidance_start": 0.0},
    **{"guidance_scale": 2.0, "audio_guidance_scale": 3.0, "output_type": "latent"},
}
APART = {"window_width": 64, "window_stride": 64, "audio_window_width": 64, "audio_window_stride": 64}


@pytest.fixture(scope="module")
def shared():
    """One pipeline in float64 for tests that leave it as it was."""
    return two_sides(ImagesThatSoundPipeline, STABLE_DIFFUSION).to(torch.float64)


def noise(width: int = 192) -> torch.Tensor:
    return torch.randn(1, 4, 32, width // 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def latents_of(pipe, **arguments) -> torch.Tensor:
    return pipe(**{**CALL, "latents": noise(), **arguments}).images


def pieces_of(pipe, calls: list[dict]) -> torch.Tensor:
    """Calls of 64 pixels for parts of the noise, side by side."""
    parts = noise().chunk(len(calls), dim=-1)
    return torch.cat([latents_of(pipe, **{"width": 64, "latents": p, **call}) for p, call in zip(parts, calls)], -1)


@torch.no_grad()
def test_overlapping_windows_are_averaged_before_each_step(shared):
    """MultiDiffusion's equation 5 with weights that fall off linearly, for each side apart."""
    embeds = shared.encode_prompt(**PROMPTS)
    latents, scheduler = noise(), shared.scheduler
    scheduler.set_timesteps(2)
    sides = (
        (shared.unet, embeds[:2], 2.0, 64, (0, 48, 96, 128)),
        (shared.unet_audio, embeds[2:], 3.0, 96, (0, 80, 96)),
    )
    for timestep in scheduler.timesteps:
        averages = []
        for unet, (prompted, unprompted), scale, width, starts in sides:
            total, weights = torch.zeros_like(latents), torch.zeros(24, dtype=torch.float64)
            for start in starts:
                columns = range(start // 8, (start + width) // 8)
                window = latents[..., list(columns)]
                told, free = (unet(window, timestep, each, return_dict=False)[0] for each in (prompted, unprompted))
                for i, column in enumerate(columns):
                    weight = min(i + 1, len(columns) - i)
                    total[..., column] += weight * (free + scale * (told - free))[..., i]
                    weights[column] += weight
            averages.append(total / weights)
        latents = scheduler.step(sum(averages) / 2, timestep, latents).prev_sample
    windows = {"window_width": 64, "window_stride": 48, "audio_window_width": 96, "audio_window_stride": 80}
    torch.testing.assert_close(latents_of(shared, **windows), latents, atol=1e-9, rtol=0)
    torch.testing.assert_close(latents_of(shared, **windows, window_batch_size=3), latents, atol=1e-9, rtol=0)


def test_windows_that_do_not_overlap_are_calls_of_their_own(shared):
    torch.testing.assert_close(latents_of(shared, **APART), pieces_of(shared, [{}] * 3), atol=1e-9, rtol=0)
    assert (latents_of(shared) - pieces_of(shared, [{}] * 3)).abs().max() > 0.01


def test_a_canvas_of_a_windows_width_is_seen_whole(shared):
    assert torch.equal(latents_of(shared, window_width=192, audio_window_width=256), latents_of(shared))
    for width, is_whole in ((1024, True), (1152, True), (1160, False)):
        canvas = shared.resolve_windows(shared.resolve_size(width=width))
        assert (canvas.windows is None) == (canvas.audio_windows is None) == is_whole


def test_prompts_over_time_are_those_of_their_windows(shared):
    over_time = {
        "prompt": {0: "a castle", 0.64: "kittens"},
        "audio_prompt": {0.0: "a bell", 1.28: "rain"},
        "negative_prompt": {0: "fog", 1.28: "night"},
    }
    alone = [
        {"negative_prompt": "fog"},
        {"prompt": "kittens", "negative_prompt": "fog"},
        {"prompt": "kittens", "audio_prompt": "rain", "negative_prompt": "night"},
    ]
    expected = pieces_of(shared, alone)
    torch.testing.assert_close(latents_of(shared, **APART, **over_time), expected, atol=1e-9, rtol=0)
    batch = latents_of(shared, **APART, **over_time, num_images_per_prompt=2, latents=torch.cat([noise()] * 2))
    torch.testing.assert_close(batch, torch.cat([expected] * 2), atol=1e-9, rtol=0)


def test_a_window_across_two_prompts_reads_both_by_their_shares(shared):
    castle, kittens = (
        shared.encode_prompt(each, None, do_classifier_free_guidance=False)[0] for each in ("a castle", "kittens")
    )
    mixed = {"prompt": None, "prompt_embeds": 0.25 * castle + 0.75 * kittens}
    mixed["negative_prompt_embeds"] = shared.encode_prompt("", None, do_classifier_free_guidance=False)[0]
    expected = pieces_of(shared, [mixed, {"prompt": "kittens"}, {"prompt": "kittens"}])
    found = latents_of(shared, **APART, prompt={0: "a castle", 0.16: "kittens"})
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def test_guides_are_cut_as_the_canvas_is(tmp_path):
    pipe = two_sides(ImagesThatSoundPipeline, STABLE_DIFFUSION)
    pipe.register_modules(controlnet=controlnet_of(pipe.unet, 0))
    save_ip_adapter(pipe.unet, tmp_path / "adapter.safetensors")
    pipe.load_ip_adapter(str(tmp_path), "", "adapter.safetensors", image_encoder_folder="image_encoder")
    pipe.to(torch.float64)
    control = torch.rand(1, 3, 256, 192, generator=torch.Generator().manual_seed(1))
    seen = {"ip_adapter_image_embeds": [torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(2)).double()]}
    expected = pieces_of(pipe, [{**seen, "control_image": part} for part in control.chunk(3, dim=-1)])
    for batch_size in (1, 2):
        found = latents_of(pipe, **APART, **seen, control_image=control, window_batch_size=batch_size)
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    assert isinstance(pipe.controlnet, ControlNetModel)


def test_starts_are_denoised_in_windows_too(shared):
    pipe = ImagesThatSoundImg2ImgPipeline(**shared.components)
    pipe.set_progress_bar_config(disable=True)
    start = noise()
    found, whole = (
        pipe(**{**CALL, "strength": 0.5, **windows}, image=start, generator=torch.Generator().manual_seed(0)).images
        for windows in (APART, {})
    )
    assert found.shape == start.shape and not torch.equal(found, whole)


@torch.no_grad()
def test_wide_canvases_are_decoded_in_windows_that_overlap(shared):
    """Even if those of the UNets do not: an eighth of each is faded over into the next."""
    found = shared.decode_latents(noise(), shared.vae, Windows(64, 64, 192))
    assert found.shape == (1, 3, 256, 192)
    latents = noise() / shared.vae.config.scaling_factor
    first, second = ((shared.vae.decode(latents[..., i : i + 8]).sample / 2 + 0.5).clamp(0, 1) for i in (0, 7))
    rising = torch.arange(1, 9, dtype=torch.float64)
    faded = (first[..., 56:] * rising.flip(0) + second[..., :8] * rising) / 9
    expected = torch.cat([first[..., :56], faded], dim=-1)
    torch.testing.assert_close(found[..., :64], expected, atol=1e-9, rtol=0)


@torch.no_grad()
def test_wide_canvases_are_encoded_in_windows_that_overlap(shared):
    pipe = ImagesThatSoundImg2ImgPipeline(**shared.components)
    canvas = torch.rand(1, 1, 256, 192, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moments = [shared.vae.encode(2 * canvas[..., i : i + 64].expand(-1, 3, -1, -1) - 1).latent_dist for i in (0, 56)]
    found = pipe.encode_canvases(canvas, shared.vae, torch.Generator().manual_seed(1), Windows(64, 64, 192))
    assert found.shape == (1, 4, 32, 24)
    drawn = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mean, deviation = (getattr(moments[0], name)[..., :7] for name in ("mean", "std"))
    expected = shared.vae.config.scaling_factor * (mean + deviation * drawn[..., :7])
    torch.testing.assert_close(found[..., :7], expected, atol=1e-9, rtol=0)
    # One column of latents lies in both.
    mean = (moments[0].mean[..., 7] + moments[1].mean[..., 0]) / 2
    assert ((found / shared.vae.config.scaling_factor)[..., 7] - mean).abs().max() < 8 * deviation.max()


def test_the_weight_changes_over_time(shared):
    weights = [0.0, 0.25, 1.0]
    expected = pieces_of(shared, [{"audio_weight": each} for each in weights])
    over_time = dict(zip((0, 0.64, 1.28), weights))
    torch.testing.assert_close(latents_of(shared, **APART, audio_weight=over_time), expected, atol=1e-9, rtol=0)
    late = {**APART, "audio_guidance_start": 0.5}
    expected = pieces_of(shared, [{"audio_weight": each, "audio_guidance_start": 0.5} for each in (0.2, 0.2, 0.9)])
    found = latents_of(shared, **late, audio_weight={0: 0.2, 1.28: 0.9})
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    assert torch.equal(latents_of(shared, audio_weight={0: 0.5, 1: [0.5, 0.5]}), latents_of(shared))


# -------------------- Going on --------------------


def test_a_sample_goes_on_to_its_right(shared):
    """Its pixels stay, and what follows is a call that begins with its last ones and keeps them."""
    pipe = ImagesThatSoundImg2ImgPipeline(**shared.components)
    pipe.set_progress_bar_config(disable=True)
    call = {**PROMPTS, "num_inference_steps": 2, "window_width": 128, "audio_window_width": 128, "output_type": "pt"}
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 256, 150, generator=generator, dtype=torch.float64)
    spectrogram = torch.rand(1, 1, 256, 150, generator=generator, dtype=torch.float64)
    sample = {"image": image, "spectrogram": spectrogram, "extend_by_in_s": 1.0}
    found = pipe.extend(**call, **sample, num_images_per_prompt=2, generator=torch.Generator().manual_seed(1))
    assert found.images.shape == (2, 3, 256, 250) and found.spectrograms.shape == (2, 1, 256, 250)
    assert found.audios.shape == (2, 250 * 160)
    for row in range(2):
        torch.testing.assert_close(found.images[row, ..., :134], image[0, ..., :134], atol=1e-6, rtol=0)
        torch.testing.assert_close(found.spectrograms[row, ..., :134], spectrogram[0, ..., :134], atol=1e-6, rtol=0)
    last = image[..., -64:]
    start = torch.cat([last, last.flip(-1), torch.zeros(1, 3, 256, 200)], dim=-1)[..., :200]
    place = {"strength": 1.0, "mask_start_in_s": 0.64, "audio_length_in_s": 1.64}
    arguments = {**call, **place, "num_images_per_prompt": 2, "generator": torch.Generator().manual_seed(1)}
    new = pipe(image=start, **arguments).images
    torch.testing.assert_close(found.images[..., 150:], new[..., 64:164], atol=1e-9, rtol=0)
    assert torch.equal(found.audios, pipe.play(found.spectrograms))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"spectrogram": torch.rand(1, 1, 256, 140)}, "`image` and `spectrogram` have to be one strip each"),
        ({"image": torch.rand(1, 3, 512, 150)}, "`image` and `spectrogram` have to be one strip each, of 256 rows"),
        ({"image": torch.rand(2, 3, 256, 150)}, "`image` and `spectrogram` have to be one strip each"),
        ({"extend_by_in_s": 0.0}, "`extend_by_in_s` has to be .* but is 0.0"),
        ({"canvas_layout": "folded"}, "`canvas_layout` and `circular` can't be given to `extend`"),
        ({"circular": True}, "`canvas_layout` and `circular` can't be given to `extend`"),
    ],
)
def test_an_extension_that_makes_no_sense_is_refused(shared, arguments, message):
    sample = {"image": torch.rand(1, 3, 256, 150), "spectrogram": torch.rand(1, 1, 256, 150), "extend_by_in_s": 1.0}
    with pytest.raises(ValueError, match=message):
        ImagesThatSoundImg2ImgPipeline(**shared.components).extend("a", "b", **{**sample, **arguments})


# -------------------- Loops --------------------


def test_windows_of_a_circular_canvas_cross_its_end():
    windows = Windows(64, 48, 160, circular=True)
    columns = torch.arange(160.0)[None, None, None]
    assert windows.starts == [0, 48, 96, 144]
    assert windows.cut(columns, [3]).flatten().tolist() == [*range(144, 160), *range(48)]
    torch.testing.assert_close(windows.merge(columns, lambda pieces, _: pieces), columns)
    assert windows.fractions(3, (0, 40, 150)) == [40 / 64, 8 / 64 + 6 / 64, 10 / 64]
    assert Windows(64, 48, 160).fractions(2, (0, 150)) == [54 / 64, 10 / 64]


def test_a_circular_canvas_turns_with_its_noise(shared):
    """No column is the first: noise that is turned by a window's stride gives the same, turned."""
    circular = {"circular": True, "window_width": 64, "window_stride": 32, "audio_window_width": 96}
    circular |= {"audio_window_stride": 32}
    straight, turned = (latents_of(shared, **circular, latents=noise().roll(by, -1)) for by in (0, 8))
    torch.testing.assert_close(turned, straight.roll(8, -1), atol=1e-9, rtol=0)
    whole, half = (latents_of(shared, circular=True, latents=noise().roll(by, -1)) for by in (0, 12))
    torch.testing.assert_close(half, whole.roll(12, -1), atol=1e-9, rtol=0)


@pytest.mark.parametrize("vocoder", ["neural", "griffin-lim"])
def test_the_sound_of_a_loop_goes_on_at_its_beginning(shared, vocoder):
    pipe = ImagesThatSoundPipeline(**{**shared.components, **({} if vocoder == "neural" else {"vocoder": None})})
    # A tone that does not fit into the loop: it would jump at its end.
    seconds = torch.arange(16000 * 96 // 100) / 16000
    tone = 0.5 * torch.sin(2 * torch.pi * 300.7 * seconds)
    canvas = pipe.mel_spectrogram.audio_to_canvas(tone[None])
    loop, once = pipe.play(canvas, circular=True), pipe.play(canvas)
    assert loop.shape == once.shape == (1, 16000 * 96 // 100)
    # Behind the overlap both are alike; the loop's first sample follows its last as others do.
    if vocoder == "neural":
        torch.testing.assert_close(loop[:, 32 * 160 : 64 * 160], once[:, 32 * 160 : 64 * 160], atol=1e-5, rtol=0)
    steps = loop.diff(dim=-1).abs()
    assert (loop[0, 0] - loop[0, -1]).abs() <= steps.max()


def test_loops_are_whole_and_in_one_strip(shared):
    output = shared(**{**CALL, "crop_right": None, "output_type": "pt"}, circular=True)
    assert output.images.shape[-1] == 192 and output.audios.shape == (1, 192 * 160)
    for arguments, message in (
        ({"crop_right": 8}, "`circular` keeps the whole canvas, .* but the last 8 of 192 would be cut"),
        ({"width": None, "crop_right": None, "audio_length_in_s": 1.0}, "the last 4 of 104 would be cut"),
        ({"canvas_layout": "folded", "width": 96}, "`circular` is for `canvas_layout='strip'`"),
    ):
        with pytest.raises(ValueError, match=message):
            shared(**{**CALL, **arguments}, circular=True)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"window_width": 60}, "`window_width` has to be a multiple of 8, but is 60"),
        ({"audio_window_width": 4}, "`audio_window_width` has to be an integer from 8 on, but is 4"),
        ({"window_width": 64, "window_stride": 72}, "`window_stride` has to be an integer from 8 to 64, but is 72"),
        ({"audio_window_stride": 12}, "`audio_window_stride` has to be a multiple of 8, but is 12"),
        ({"window_batch_size": 0}, "`window_batch_size` has to be a positive integer, but is 0"),
        ({**APART, "prompt": {1: "a castle"}}, "`prompt` over time has to be a dict .* begins at 0"),
        ({"audio_weight": {1: 0.5}}, "`audio_weight` over time has to be a dict .* begins at 0"),
        ({"audio_weight": {0: 0.5, 1: 1.5}}, "`audio_weight` has to be a number between 0 and 1, but is 1.5"),
        ({"audio_weight": {0: 0.5, 2: 0.1}}, "`audio_weight` has to begin before the sound ends, at 1.92 s, .* 2 s"),
        ({**APART, "prompt": {0: "a castle", "end": "fog"}}, "`prompt` over time has to be a dict"),
        ({**APART, "negative_audio_prompt": {0: 3}}, "`negative_audio_prompt` over time has to hold strings"),
        ({**APART, "audio_prompt": {0: "a bell", 2: "rain"}}, "`audio_prompt` has to begin before .* 1.92 s, .* 2 s"),
        ({"prompt": {0: "a castle", 1: "fog"}}, "`prompt` can't change over time on a canvas .* `window_width`"),
        ({**APART, "prompt": {0: "a"}, "negative_prompt": ["b"]}, "`prompt` and its negative have to be a string"),
        ({**APART, "prompt": ["a", "b"], "negative_prompt": {0: "c", 1: "d"}}, "`prompt` and its negative have to be"),
        ({"circular": True, "window_stride": 192, "window_width": 256}, "`window_stride` has to be below the 192"),
        ({**APART, "cross_attention_kwargs": {"ip_adapter_masks": []}}, "`ip_adapter_masks` can't be given"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(shared, arguments, message):
    with pytest.raises(ValueError, match=message):
        latents_of(shared, **arguments)
