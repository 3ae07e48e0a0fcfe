"""Factorized colorization on the random-weight DeepFloyd IF: what holds of it whatever the weights are."""

import http.server
import os
import subprocess
import sys
import threading

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import IFPipeline

from images_that_sound.pipelines import FactorizedColorizationPipeline
from images_that_sound.pipelines.images_that_sound_canvas import resolve_windows
from images_that_sound.pipelines.images_that_sound_deepfloyd import predict_pixel_noise


PROMPT = "a colorful photo of a castle"
SMALL = dict(num_inference_steps=3, start_diffusion_step=1, output_type="pt")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gray_picture(count: int = 1, height: int = 32, width: int = 64) -> torch.Tensor:
    return torch.rand(count, 1, height, width, generator=generator(7)).expand(-1, 3, -1, -1)


def test_prompts_are_encoded_as_by_the_stock_pipeline(colorization_pipe):
    stock = IFPipeline(
        tokenizer=colorization_pipe.tokenizer,
        text_encoder=colorization_pipe.text_encoder,
        unet=colorization_pipe.unet,
        scheduler=colorization_pipe.scheduler,
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
    expected = stock.encode_prompt("A Castle ", num_images_per_prompt=2, device=torch.device("cpu"))
    ours = colorization_pipe.encode_prompt("A Castle ", num_images_per_prompt=2)
    for first, second in zip(ours, expected, strict=True):
        torch.testing.assert_close(first, second, atol=1e-6, rtol=0)


def test_exact_gray_is_exact_up_to_the_clamp(colorization_pipe):
    gray = gray_picture()
    loose = colorization_pipe(gray, PROMPT, **SMALL, generator=generator())
    exact = colorization_pipe(gray, PROMPT, **SMALL, generator=generator(), exact_gray=True)

    shifted = loose.images + gray.mean(1, keepdim=True) - loose.images.mean(1, keepdim=True)
    torch.testing.assert_close(exact.images, shifted.clamp(0, 1), atol=1e-6, rtol=0)
    inside = ((shifted >= 0) & (shifted <= 1)).all(dim=1)
    assert inside.any()
    difference = (exact.images.mean(1) - gray.mean(1)).abs()
    assert difference[inside].max() < 1e-6
    for output in (loose, exact):
        measured = (output.images.mean(1) - gray.mean(1)).abs().mean().item()
        assert output.gray_errors == pytest.approx([measured], abs=1e-6)
    assert exact.gray_errors[0] <= loose.gray_errors[0]


def test_lightness_is_held_during_the_steps(colorization_pipe):
    """Where the noise is gone, the mean of the channels is the gray picture's, whatever the models say."""
    pipe = colorization_pipe
    with torch.no_grad():
        for unet in (pipe.unet, pipe.unet_super_resolution):
            unet.conv_out.weight.zero_()
            unet.conv_out.bias.zero_()
    seen = []
    pipe(
        torch.full((1, 3, 32, 64), 0.25),
        PROMPT,
        num_inference_steps=50,
        generator=generator(),
        output_type="pt",
        callback_on_step_end=lambda pipe, step, t, tensors: seen.append(tensors["latents"]) or tensors,
    )
    assert seen[0].shape == (1, 3, 8, 16) and seen[-1].shape == (1, 3, 32, 64)
    assert len(seen) == 50 - 7 + 50
    assert seen[-1].mean().item() == pytest.approx(-0.5, abs=0.02)


def test_batches_give_what_single_calls_give(colorization_pipe):
    gray = gray_picture(2)
    prompts = [PROMPT, "kittens"]
    batch = colorization_pipe(
        gray, prompts, **SMALL, num_images_per_prompt=2, generator=[generator(i) for i in range(4)]
    )
    for i in range(4):
        single = colorization_pipe(gray[i // 2 : i // 2 + 1], prompts[i // 2], **SMALL, generator=generator(i))
        torch.testing.assert_close(batch.images[i], single.images[0], atol=2e-3, rtol=0)


def test_one_picture_under_several_prompts(colorization_pipe):
    gray, prompts = gray_picture(), [PROMPT, "kittens"]
    batch = colorization_pipe(gray, prompts, **SMALL, generator=[generator(i) for i in range(2)])
    single = colorization_pipe(gray, prompts[1], **SMALL, generator=generator(1))
    torch.testing.assert_close(batch.images[1], single.images[0], atol=2e-3, rtol=0)


def test_embeddings_replace_the_text_encoder(colorization_pipe, tmp_path):
    expected = colorization_pipe(gray_picture(), PROMPT, **SMALL, generator=generator())
    with torch.no_grad():
        embeds, negative = colorization_pipe.encode_prompt(PROMPT)
    colorization_pipe.save_pretrained(tmp_path)
    pipe = FactorizedColorizationPipeline.from_pretrained(tmp_path, text_encoder=None, tokenizer=None)
    pipe.set_progress_bar_config(disable=True)
    given = dict(prompt_embeds=embeds, negative_prompt_embeds=negative)
    output = pipe(gray_picture(), **given, **SMALL, generator=generator(), return_dict=False)
    torch.testing.assert_close(output[0], expected.images, atol=2e-3, rtol=0)
    assert output[1] == pytest.approx(expected.gray_errors, abs=1e-4)
    with pytest.raises(ValueError, match="Without `text_encoder`"):
        pipe(gray_picture(), PROMPT)


def test_pil_in_and_out(colorization_pipe):
    gray = PIL.Image.fromarray((gray_picture()[0, 0].numpy() * 255).astype(np.uint8))
    output = colorization_pipe(gray, PROMPT, **{**SMALL, "output_type": "pil"}, generator=generator())
    assert output.images[0].size == (64, 32) and output.images[0].mode == "RGB"


def test_float16_leaves_the_overflowing_layers_of_t5_alone(colorization_pipe):
    before = colorization_pipe.text_encoder.encoder.block[0].layer[1].DenseReluDense.wo.weight.clone()
    colorization_pipe.to(torch.float16)
    feed_forward = colorization_pipe.text_encoder.encoder.block[0].layer[1].DenseReluDense
    assert torch.equal(feed_forward.wo.weight, before)
    assert feed_forward.wi_0.weight.dtype == torch.float16


@torch.no_grad()
@pytest.mark.parametrize("batch_size", [1, 2])
def test_windows_that_do_not_overlap_are_pictures_of_their_own(colorization_pipe, batch_size):
    """Two rows of stage II, each with its prompt and its level, against one call for each half."""
    pipe, unet = colorization_pipe, colorization_pipe.unet_super_resolution
    embeds = pipe.encode_prompt([PROMPT, "a dog"], do_classifier_free_guidance=True)
    embeds, levels = torch.cat([embeds[1], embeds[0]]), torch.tensor([50, 70])
    pipe._guidance_scale, timestep = 4.0, torch.tensor(500)
    rows = torch.randn(2, 6, 32, 128, generator=generator(1))
    windows = resolve_windows(128, 64, 64, 4, batch_size=batch_size)
    found = pipe.predict_noise(unet, rows, timestep, embeds, levels, windows)
    halves = [predict_pixel_noise(unet, half, timestep, embeds, 4.0, levels) for half in rows.split(64, dim=-1)]
    torch.testing.assert_close(found, torch.cat(halves, dim=-1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("circular", [False, True])
def test_a_wide_picture_is_seen_in_windows_by_both_stages(colorization_pipe, circular):
    widths, pipe = [], colorization_pipe
    hooks = [
        unet.register_forward_pre_hook(lambda _, inputs: widths.append(inputs[0].shape[-1]))
        for unet in (pipe.unet, pipe.unet_super_resolution)
    ]
    gray, small = gray_picture(width=160), {**SMALL, "guidance_scale": 1.0, "exact_gray": True}
    output = pipe(gray, PROMPT, **small, window_width=64, circular=circular, generator=generator())
    for hook in hooks:
        hook.remove()
    number = 5 if circular else 4
    assert widths == [16] * number * 2 + [64] * number * 3
    assert output.images.shape == (1, 3, 32, 160) and output.gray_errors[0] < 0.05


def test_unguided_and_interrupted(colorization_pipe):
    def stop(pipe, step, timestep, tensors):
        pipe._interrupt = True
        return tensors

    output = colorization_pipe(
        gray_picture(), PROMPT, **SMALL, guidance_scale=1.0, generator=generator(), callback_on_step_end=stop
    )
    assert output.images.shape == (1, 3, 32, 64)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(prompt=None), "`prompt`"),
        (dict(prompt=["a", "b", "c"], image=gray_picture(2)), "`image` and `prompt`"),
        (dict(image=gray_picture(height=30)), "height of `image` has to be a multiple of 4, but is 30"),
        (dict(image=torch.full((1, 3, 32, 32), -2.0)), "`image` has to be in 0..1"),
        (dict(num_inference_steps=0), "`num_inference_steps`"),
        (
            dict(num_inference_steps=5, start_diffusion_step=5),
            "`start_diffusion_step` has to be an integer from 0 to 4",
        ),
        (dict(noise_level=1000), "`noise_level` has to be an integer from 0 to 999, but is 1000"),
        (dict(output_type="latent"), "`output_type` has to be 'pil', 'np' or 'pt'"),
        (dict(guidance_scale=float("nan")), "`guidance_scale`"),
        (dict(generator=[torch.Generator()] * 2), "`generator`"),
        (dict(window_width=30), "`window_width` has to be a multiple of 4, but is 30"),
        (dict(window_width=32, window_stride=64), "`window_stride` has to be an integer from 4 to 32, but is 64"),
        (dict(circular=True, window_stride=64), "`window_stride` has to be below the 64 columns"),
    ],
)
def test_bad_input_is_refused(colorization_pipe, arguments, words):
    with pytest.raises(ValueError, match=words):
        colorization_pipe(**{"image": gray_picture(), "prompt": PROMPT, **arguments})


def test_missing_second_stage(fixtures_folder, tmp_path):
    pipe = FactorizedColorizationPipeline.from_pretrained(fixtures_folder / "models" / "deepfloyd-if-stage-1")
    with pytest.raises(ValueError, match="load_super_resolution"):
        pipe(gray_picture(), PROMPT)
    with pytest.raises(ValueError, match="No UNet2DConditionModel can be loaded from `unet`"):
        pipe.load_super_resolution(tmp_path)
    with pytest.raises(ValueError, match="is no stage II"):
        stage_1_twice = tmp_path / "twice"
        pipe.save_pretrained(stage_1_twice)
        pipe.scheduler.save_pretrained(stage_1_twice / "image_noising_scheduler")
        pipe.load_super_resolution(stage_1_twice)


class _Gate(http.server.BaseHTTPRequestHandler):
    """Answers every request as the Hub does for a gated repo."""

    def do_GET(self):
        self.send_response(403)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("X-Error-Message", "Access to this model is restricted.")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


LOAD_GATED = """
import sys
from images_that_sound.pipelines import FactorizedColorizationPipeline

for load in (FactorizedColorizationPipeline.from_pretrained,
             FactorizedColorizationPipeline.from_pretrained(sys.argv[1]).load_super_resolution):
    try:
        load("some/gated")
    except ValueError as error:
        print(error)
"""


def test_gated_repo_says_what_to_accept_and_where(tmp_path, fixtures_folder):
    """Asked of stage I, then of stage II."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Gate)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [sys.executable, "-c", LOAD_GATED, str(fixtures_folder / "models" / "deepfloyd-if-stage-1")]
    address = f"http://127.0.0.1:{server.server_address[1]}"
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    server.shutdown()
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("`some/gated` is gated: accept its licence at") == 2
    assert process.stdout.count("hf auth login") == 2


def test_model_offloading_gives_the_same(colorization_pipe):
    expected = colorization_pipe(gray_picture(), PROMPT, **SMALL, generator=generator()).images
    colorization_pipe.enable_model_cpu_offload(device="cpu")
    for _ in range(2):
        assert torch.equal(colorization_pipe(gray_picture(), PROMPT, **SMALL, generator=generator()).images, expected)
    with pytest.raises(ValueError, match="has to be called before offloading is enabled"):
        colorization_pipe.load_super_resolution("anything")
