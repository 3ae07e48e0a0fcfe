"""
The published method's numbers, through the public call. The models' weights are random and double an error of rounding
at every step, so that whole runs are compared in float64.
"""

import pytest
import torch

from images_that_sound.pipelines import SPECTROGRAMS, MelSpectrogram, load_hifigan_vocoder
from images_that_sound.pipelines.images_that_sound_score_distillation import FourierCanvas
from images_that_sound.pipelines.pipeline_images_that_sound_imprint import imprint


@pytest.mark.parametrize("name", ["denoise-default", "denoise-weighted", "denoise-rearranged"])
def test_denoising_matches_the_reference(pipe, golden, name):
    expected, arguments = golden(name)
    steps = arguments["num_inference_steps"]
    history = []

    def record(pipeline, step, timestep, tensors):
        history.append(tensors["latents"])
        return tensors

    output = pipe.to(torch.float64)(
        prompt=arguments["image_prompt"],
        audio_prompt=arguments["audio_prompt"],
        negative_prompt=arguments["image_neg_prompt"],
        negative_audio_prompt=arguments["audio_neg_prompt"],
        height=arguments["img_height"],
        width=arguments["img_width"],
        num_inference_steps=steps,
        guidance_scale=arguments["image_guidance_scale"],
        audio_guidance_scale=arguments["audio_guidance_scale"],
        audio_weight=arguments["audio_weight"],
        image_guidance_start=arguments["image_start_step"] / steps,
        audio_guidance_start=arguments["audio_start_step"] / steps,
        canvas_layout="folded" if arguments["transformation"] == "rearrange" else "strip",
        crop_right=0,
        generator=torch.Generator("cpu").manual_seed(arguments["seed"]),
        output_type="pt",
        callback_on_step_end=record,
    )

    assert len(history) == steps
    for step, latents in ((0, "latents_first"), (steps // 2, "latents_mid"), (-1, "latents")):
        torch.testing.assert_close(history[step], expected[latents], atol=1e-9, rtol=0)
    gray = expected["spectrogram"].mean(dim=1, keepdim=True)
    torch.testing.assert_close(output.images.float(), expected["image"], atol=1e-6, rtol=0)
    torch.testing.assert_close(output.spectrograms.float(), gray, atol=1e-6, rtol=0)
    torch.testing.assert_close(output.audios[0], expected["audio"], atol=1e-5, rtol=0)


def test_spectrogram_matches_the_reference(golden):
    expected, _ = golden("spectrogram")
    mel = MelSpectrogram()
    torch.testing.assert_close(mel.audio_to_log_mel(expected["audio"]), expected["log_mel"], atol=1e-4, rtol=0)
    canvas = mel.audio_to_canvas(expected["audio"])
    torch.testing.assert_close(canvas.expand(3, -1, -1), expected["canvas"], atol=1e-4, rtol=0)
    log_mel_back = mel.canvas_to_log_mel(expected["canvas"])
    torch.testing.assert_close(log_mel_back, expected["log_mel_back"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("sound", ["mono", "stereo"])
def test_riffusions_magnitudes_match_its_code(golden, sound):
    """Its samples are whole numbers; the channels of a sound are a batch here."""
    expected, _ = golden("riffusion-spectrogram")
    mel = SPECTROGRAMS["riffusion"]
    magnitudes = mel.audio_to_log_mel(expected[f"{sound}.samples"] / 2**15).exp() * 2**15
    torch.testing.assert_close(magnitudes, expected[f"{sound}.mel"], rtol=1e-4, atol=0)
    back = mel.canvas_to_log_mel(riffusion_canvases(expected, sound)).exp() * 2**15
    torch.testing.assert_close(back, expected[f"{sound}.mel_back"], rtol=1e-4, atol=0)


def riffusion_canvases(expected, sound):
    """Each channel's canvas `(C, 1, M, T)` in 0..1: green is left and blue right in a stereo picture."""
    channels = [0] if sound == "mono" else [1, 2]
    return expected[f"{sound}.image"][..., channels].permute(2, 0, 1)[:, None] / 255


def test_riffusions_picture_matches_its_code(golden):
    expected, _ = golden("riffusion-spectrogram")
    canvas = SPECTROGRAMS["riffusion"].audio_to_canvas(expected["mono.samples"] / 2**15)
    levels = canvas[0, 0].mul(255).round()
    assert levels.shape == expected["mono.image"].shape[:2]
    assert (levels[..., None] - expected["mono.image"]).abs().max() <= 1


@pytest.mark.parametrize("sound", ["mono", "stereo"])
def test_riffusions_picture_is_played_as_well_as_by_its_code(golden, sound):
    expected, _ = golden("riffusion-spectrogram")
    mel = SPECTROGRAMS["riffusion"]
    canvases = riffusion_canvases(expected, sound)
    rebuilt = mel.canvas_to_audio(canvases)
    assert rebuilt.shape == expected[f"{sound}.samples"].shape and rebuilt.abs().amax() <= 1
    for canvas, again in zip(canvases, mel.audio_to_canvas(rebuilt)):
        assert float(torch.corrcoef(torch.stack([canvas.flatten(), again.flatten()]))[0, 1]) >= 0.992


@pytest.mark.parametrize(
    "folder, name", [("auffusion", "vocoder_audio"), ("auffusion-odd-vocoder", "vocoder_odd_audio")]
)
@torch.no_grad()
def test_vocoder_matches_the_reference(auffusion_folder, golden, folder, name):
    expected, _ = golden("spectrogram")
    files = auffusion_folder.parent / folder / "vocoder"
    vocoder = load_hifigan_vocoder(files / "config.json", files / "vocoder.pt")
    audio = MelSpectrogram().canvas_to_audio(expected["canvas"][None], vocoder)
    torch.testing.assert_close(audio[0], expected[name], atol=1e-3, rtol=0)


def test_imprint_matches_the_reference(imprint_pipe, golden):
    expected, arguments = golden("imprint-default")
    output = imprint_pipe.to(torch.float64)(
        arguments["image_prompt"],
        arguments["audio_prompt"],
        negative_prompt=arguments["image_neg_prompt"],
        negative_audio_prompt=arguments["audio_neg_prompt"],
        height=arguments["img_height"],
        width=arguments["img_width"],
        num_inference_steps=50,
        num_audio_inference_steps=arguments["num_inference_steps"],
        guidance_scale=arguments["image_guidance_scale"],
        audio_guidance_scale=arguments["audio_guidance_scale"],
        magnitude_ratio=arguments["mag_ratio"],
        invert_image=arguments["inverse_image"],
        crop_right=0,
        generator=torch.Generator("cpu").manual_seed(arguments["seed"]),
        output_type="pt",
    )
    torch.testing.assert_close(output.images.float(), expected["image_rgb"], atol=1e-6, rtol=0)
    torch.testing.assert_close(output.spectrograms[:, 0].float(), expected["spectrogram"], atol=1e-6, rtol=0)
    torch.testing.assert_close(output.audios[0], expected["audio"], atol=1e-5, rtol=0)


@torch.no_grad()
def test_imprinting_of_the_references_own_picture_and_spectrogram(imprint_pipe, golden):
    """Without the long way to them, on which rounding decides."""
    expected, arguments = golden("imprint-default")
    gray = expected["spec_rgb"].mean(dim=1, keepdim=True)
    canvas = imprint(gray, expected["image_rgb"], arguments["mag_ratio"], arguments["inverse_image"])
    torch.testing.assert_close(canvas[:, 0], expected["spectrogram"], atol=1e-6, rtol=0)
    audio = imprint_pipe.mel_spectrogram.canvas_to_audio(canvas, imprint_pipe.vocoder)
    torch.testing.assert_close(audio[0], expected["audio"], atol=1e-3, rtol=0)


def test_colorization_matches_the_reference(colorization_pipe, golden):
    expected, arguments = golden("colorize-default")
    last = arguments["num_inference_steps"] - arguments["start_diffusion_step"] - 1

    def colorize(nudge: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Stage I's result and the final one; stage II goes on from the reference's stage I."""
        stage_1 = []

        def swap(pipeline, step, timestep, tensors):
            if step == last:
                stage_1.append(tensors["latents"])
                return {"latents": expected["stage_1"] * (1 - nudge)}
            return tensors

        output = colorization_pipe(
            expected["gray"] * (1 - nudge),
            arguments["prompt"],
            num_inference_steps=arguments["num_inference_steps"],
            guidance_scale=arguments["guidance_scale"],
            start_diffusion_step=arguments["start_diffusion_step"],
            noise_level=arguments["noise_level"],
            generator=torch.Generator("cpu").manual_seed(arguments["seed"]),
            output_type="pt",
            callback_on_step_end=swap,
        )
        return stage_1[0], output.images

    # Random weights amplify rounding, which differs between processors: as far as a last digit more or less in the
    # input moves the result, the result is equal.
    for ours, nudged, reference in zip(
        colorize(0.0), colorize(6e-8), (expected["stage_1"], expected["image"]), strict=True
    ):
        rounding = float((ours - nudged).abs().max())
        assert rounding < 5e-3
        torch.testing.assert_close(ours, reference, atol=1e-4 + 4 * rounding, rtol=0)


def test_score_distillation_matches_the_reference(sds_pipe, golden):
    expected, arguments = golden("sds-step")
    prior = sds_pipe.image_prior
    crops = expected["crops"][: 1 if prior == "latent" else 2].clone().requires_grad_()
    timesteps = expected[f"{prior}.timestep"]
    with torch.no_grad():
        prompt = sds_pipe.encode_prompt("a painting of castle towers, grayscale", "bell ringing")
    embeds, audio_embeds = (torch.cat([negative, positive]) for positive, negative in (prompt[:2], prompt[2:]))
    loss = sds_pipe.image_loss(
        crops,
        embeds,
        timesteps,
        1 - sds_pipe.scheduler.alphas_cumprod[timesteps],
        expected[f"{prior}.noise"],
        arguments["image_guidance_scale"],
        expected.get(f"{prior}.posterior_noise"),
    )
    loss.backward()
    gradient = expected["latent.crop_grad" if prior == "latent" else "pixel.crops_grad"]
    torch.testing.assert_close(loss, expected[f"{prior}.loss"][0], rtol=1e-3, atol=0)
    torch.testing.assert_close(crops.grad, gradient, rtol=0, atol=1e-3 * float(gradient.abs().max()))

    canvas = expected["canvas"].clone().requires_grad_()
    timesteps = expected["audio.timestep"]
    loss = sds_pipe.audio_loss(
        canvas,
        audio_embeds,
        timesteps,
        1 - sds_pipe.scheduler_audio.alphas_cumprod[timesteps],
        expected["audio.noise"],
        arguments["audio_guidance_scale"],
        expected["audio.posterior_noise"],
    )
    loss.backward()
    gradient = expected["audio.canvas_grad"]
    torch.testing.assert_close(loss, expected["audio.loss"][0], rtol=1e-3, atol=0)
    torch.testing.assert_close(canvas.grad, gradient, rtol=0, atol=1e-3 * float(gradient.abs().max()))


def test_fourier_canvas_matches_the_reference(golden):
    expected, _ = golden("sds-step")
    canvas = FourierCanvas(64, 128, num_frequencies=8, hidden_size=16)
    weights = {name.removeprefix("mlp."): value for name, value in expected.items() if name.startswith("mlp.")}
    image, frequencies = weights.pop("image"), weights.pop("freqs")
    canvas.layers.load_state_dict(weights)
    canvas.frequencies.copy_(frequencies)
    torch.testing.assert_close(canvas.train()()[0], image, atol=1e-4, rtol=0)
