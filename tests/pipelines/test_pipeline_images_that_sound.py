"""The pipeline's call: what it computes, against stock diffusers, and how it behaves in diffusers' machinery."""

import io
import logging
import shutil

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.callbacks import SDCFGCutoffCallback
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict

from images_that_sound.pipelines import ImagesThatSoundPipeline, MelSpectrogram, fold_canvas, unfold_canvas


# NumPy's about what diffusers' schedulers do, by the ten thousand.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CALL = {
    "prompt": "a castle",
    "audio_prompt": "a bell",
    "width": 64,
    "crop_right": 0,
    "num_inference_steps": 3,
    "guidance_scale": 2.0,
    "audio_guidance_scale": 2.0,
    "image_guidance_start": 0.0,
    "output_type": "latent",
}


def draw(pipe, seed=0, **arguments):
    """The call's output for a small canvas; the result depends on the seed alone."""
    call = {"generator": torch.Generator().manual_seed(seed), **CALL, **arguments}
    return pipe(**call)


def latents_of(pipe, seed=0, **arguments):
    return draw(pipe, seed, **arguments).images


def record(history):
    """A callback that notes the latents after each step."""

    def callback(pipe, step, timestep, tensors):
        history.append(tensors["latents"].clone())
        return tensors

    return callback


@pytest.fixture
def calls(pipe):
    """Rows of each forward pass of the two UNets."""
    rows = {"image": [], "audio": []}
    pipe.unet.register_forward_pre_hook(lambda _, inputs: rows["image"].append(len(inputs[0])))
    pipe.unet_audio.register_forward_pre_hook(lambda _, inputs: rows["audio"].append(len(inputs[0])))
    return rows


@pytest.fixture
def shared_folder(auffusion_folder, stable_diffusion_folder, tmp_path):
    """An audio side that shares the image side's VAE and text encoder."""
    folder = shutil.copytree(auffusion_folder, tmp_path / "auffusion")
    for part in ("vae", "text_encoder"):
        shutil.rmtree(folder / part)
        shutil.copytree(stable_diffusion_folder / part, folder / part)
    return folder


@pytest.fixture
def shared_pipe(stable_diffusion_folder, shared_folder):
    pipe = ImagesThatSoundPipeline.from_pretrained(stable_diffusion_folder)
    pipe.load_audio_prior(shared_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def stable_diffusion(pipe, side):
    """Stock Stable Diffusion made from one side of the pipeline, with the image side's scheduler."""
    suffix = "" if side == "image" else "_audio"
    parts = {name: getattr(pipe, name + suffix) for name in ("unet", "vae", "text_encoder")}
    extras = dict.fromkeys(("safety_checker", "feature_extractor"))
    stock = StableDiffusionPipeline(
        **parts, tokenizer=pipe.tokenizer, scheduler=None, requires_safety_checker=False, **extras
    )
    # Assigned, since stock's constructor overrides `clip_sample` where it deems a config old.
    stock.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    stock.set_progress_bar_config(disable=True)
    return stock


def stock_latents(stock, prompt, **arguments):
    call = {name: CALL[name] for name in ("width", "num_inference_steps", "guidance_scale", "output_type")}
    generator = torch.Generator().manual_seed(0)
    return stock(prompt, height=256, generator=generator, **{**call, **arguments}).images


# What is computed


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
def test_image_side_alone_is_stable_diffusion(pipe, guidance_scale):
    latents = latents_of(pipe, audio_weight=0.0, guidance_scale=guidance_scale, negative_prompt="dark")
    stock = stable_diffusion(pipe, "image")
    expected = stock_latents(stock, CALL["prompt"], guidance_scale=guidance_scale, negative_prompt="dark")
    assert torch.equal(latents, expected)


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
def test_audio_side_alone_is_stable_diffusion_of_the_audio_folder(pipe, auffusion_folder, guidance_scale):
    latents = latents_of(
        pipe, audio_weight=1.0, audio_guidance_scale=guidance_scale, negative_audio_prompt="noise", seed=0
    )
    stock = StableDiffusionPipeline.from_pretrained(auffusion_folder)
    stock.scheduler = pipe.scheduler
    stock.set_progress_bar_config(disable=True)
    expected = stock_latents(stock, CALL["audio_prompt"], guidance_scale=guidance_scale, negative_prompt="noise")
    assert torch.equal(latents, expected)


def test_scheduler_is_ddim_from_the_repos_own_config(pipe, stable_diffusion_folder):
    stock = StableDiffusionPipeline.from_pretrained(stable_diffusion_folder)
    expected = diffusers.DDIMScheduler.from_config(stock.scheduler.config)
    assert type(pipe.scheduler) is diffusers.DDIMScheduler
    assert {k: v for k, v in pipe.scheduler.config.items() if k != "_use_default_values"} == {
        k: v for k, v in expected.config.items() if k != "_use_default_values"
    }


def test_swapping_the_sides_and_the_weight_changes_nothing(pipe):
    swapped = ImagesThatSoundPipeline(
        vae=pipe.vae_audio,
        text_encoder=pipe.text_encoder_audio,
        tokenizer=pipe.tokenizer,
        unet=pipe.unet_audio,
        scheduler=pipe.scheduler,
        unet_audio=pipe.unet,
        vocoder=pipe.vocoder,
        vae_audio=pipe.vae,
        text_encoder_audio=pipe.text_encoder,
        tokenizer_audio=None,
        **dict.fromkeys(("controlnet", "audio_controlnet", "image_encoder", "feature_extractor")),
    )
    swapped.set_progress_bar_config(disable=True)
    latents = latents_of(pipe, audio_weight=0.25, guidance_scale=2.0, audio_guidance_scale=3.0)
    back = latents_of(
        swapped,
        audio_weight=0.75,
        guidance_scale=3.0,
        audio_guidance_scale=2.0,
        prompt=CALL["audio_prompt"],
        audio_prompt=CALL["prompt"],
    )
    torch.testing.assert_close(back, latents, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "arguments, image_calls, audio_calls",
    [
        ({"image_guidance_start": 0.3, "audio_guidance_end": 0.6}, 7, 6),
        ({"image_guidance_end": 0.8, "audio_guidance_start": 0.5}, 8, 5),
        ({"image_guidance_start": 0.3, "image_guidance_end": 0.8, "audio_guidance_start": 0.0}, 5, 10),
        ({"image_guidance_start": 0.1}, 9, 10),
        ({"audio_weight": [0.0] * 2 + [0.5] * 3 + [1.0] * 5}, 5, 8),
        ({"audio_weight": 0.0}, 10, 0),
        ({"audio_weight": 1.0}, 0, 10),
    ],
)
def test_a_silent_model_is_not_run(pipe, calls, arguments, image_calls, audio_calls):
    latents_of(pipe, num_inference_steps=10, **arguments)
    assert (len(calls["image"]), len(calls["audio"])) == (image_calls, audio_calls)


def test_without_guidance_each_model_sees_the_latents_once(pipe, calls):
    latents_of(pipe, guidance_scale=1.0)
    assert calls == {"image": [1] * 3, "audio": [2] * 3}


def test_a_list_of_weights_is_one_per_step(pipe):
    history, constant = [], []
    latents_of(pipe, audio_weight=[0.5, 0.5, 0.2], callback_on_step_end=record(history))
    latents_of(pipe, audio_weight=0.5, callback_on_step_end=record(constant))
    assert [torch.equal(a, b) for a, b in zip(history, constant)] == [True, True, False]


def test_a_batch_is_what_single_calls_give(pipe):
    prompts, audio_prompts, negative_prompts = ["a castle", "a train"], ["a bell", "a whistle"], ["dark", "bright"]
    few = {"num_inference_steps": 2, "audio_weight": 0.4}
    batch = latents_of(
        pipe,
        prompt=prompts,
        audio_prompt=audio_prompts,
        negative_prompt=negative_prompts,
        num_images_per_prompt=2,
        generator=[torch.Generator().manual_seed(seed) for seed in range(4)],
        **few,
    )
    for i in range(4):
        words = dict(prompt=prompts[i // 2], audio_prompt=audio_prompts[i // 2])
        single = latents_of(pipe, seed=i, negative_prompt=negative_prompts[i // 2], **words, **few)
        torch.testing.assert_close(batch[i], single[0], atol=1e-4, rtol=0)


def test_a_batch_is_decoded_to_what_single_calls_give(pipe):
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    batch = draw(pipe, num_inference_steps=1, num_images_per_prompt=2, generator=generators, output_type="pt")
    for i in range(2):
        single = draw(pipe, seed=i, num_inference_steps=1, output_type="pt")
        torch.testing.assert_close(batch.images[i], single.images[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(batch.spectrograms[i], single.spectrograms[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(batch.audios[i], single.audios[0], atol=1e-3, rtol=0)


def test_given_latents_are_the_initial_noise(pipe):
    noise = torch.randn(1, 4, 32, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(latents_of(pipe, generator=None, latents=noise), latents_of(pipe, seed=0))


def test_eta_draws_fresh_noise_from_the_generator(pipe):
    assert torch.equal(latents_of(pipe, eta=1.0), latents_of(pipe, eta=1.0))
    assert not torch.equal(latents_of(pipe, eta=1.0), latents_of(pipe, eta=0.0))


# Schedulers

SCHEDULERS = [
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "IPNDMScheduler",
    "SASolverScheduler",
    "LCMScheduler",
    "TCDScheduler",
]
MULTISTEP = [
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "IPNDMScheduler",
    "SASolverScheduler",
]
CHANGE = {"num_inference_steps": 6, "image_guidance_start": 0.5}


def with_scheduler(pipe, name):
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)


def test_the_list_of_schedulers_is_complete():
    """Every scheduler that diffusers itself calls interchangeable is tried, but for two that need other packages."""
    interchangeable = {scheduler.name for scheduler in diffusers.schedulers.KarrasDiffusionSchedulers}
    assert interchangeable - {"DPMSolverSDEScheduler", "EDMEulerScheduler"} <= set(SCHEDULERS)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_any_scheduler_runs_both_models(pipe, calls, name):
    with_scheduler(pipe, name)
    latents = latents_of(pipe, **CHANGE)
    passes = len(pipe.scheduler.timesteps)
    assert torch.isfinite(latents).all()
    assert len(calls["audio"]) == passes
    assert 0 < len(calls["image"]) < passes
    assert abs(len(calls["image"]) - passes / 2) <= 1


@pytest.mark.parametrize("name", SCHEDULERS)
def test_image_side_alone_is_stable_diffusion_with_any_scheduler(pipe, name):
    with_scheduler(pipe, name)
    stock = stable_diffusion(pipe, "image")
    # What stock leaves to nobody.
    assert torch.equal(latents_of(pipe, audio_weight=0.0, eta=0.0), stock_latents(stock, CALL["prompt"]))


def mixed_noise(pipe, scheduler, latents, timestep):
    """Half the image side's noise, half the audio side's, both with guidance 2, by the models alone."""
    embeds, negative, audio_embeds, audio_negative = pipe.encode_prompt(CALL["prompt"], CALL["audio_prompt"])
    rows, noises = scheduler.scale_model_input(torch.cat([latents] * 2), timestep), []
    for unet, pair in ((pipe.unet, (negative, embeds)), (pipe.unet_audio, (audio_negative, audio_embeds))):
        without, with_prompt = unet(rows, timestep, encoder_hidden_states=torch.cat(pair)).sample.chunk(2)
        noises.append(without + 2.0 * (with_prompt - without))
    return 0.5 * noises[0] + 0.5 * noises[1]


@pytest.mark.parametrize("name", MULTISTEP)
@torch.no_grad()
def test_after_a_change_of_mixture_the_scheduler_starts_afresh(pipe, calls, name):
    with_scheduler(pipe, name)
    history, states = [], []

    def callback(pipeline, step, timestep, tensors):
        history.append(tensors["latents"].clone())
        states.append(generator.get_state())
        return tensors

    generator = torch.Generator().manual_seed(0)
    result = latents_of(pipe, **CHANGE, generator=generator, callback_on_step_end=callback)
    change = len(history) - len(calls["image"])

    fresh = type(pipe.scheduler).from_config(pipe.scheduler.config)
    fresh.set_timesteps(CHANGE["num_inference_steps"])
    fresh.set_begin_index(change)
    latents = history[change - 1]
    generator.set_state(states[change - 1])
    extra = {"generator": generator} if "generator" in fresh.step.__code__.co_varnames else {}
    for timestep in fresh.timesteps[change:]:
        noise = mixed_noise(pipe, fresh, latents, timestep)
        latents = fresh.step(noise, timestep, latents, **extra, return_dict=False)[0]
    torch.testing.assert_close(result, latents, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_pndm_takes_a_first_order_step_after_a_change_of_mixture(pipe, calls):
    with_scheduler(pipe, "PNDMScheduler")
    history = []
    latents_of(pipe, **CHANGE, callback_on_step_end=record(history))
    change = len(history) - len(calls["image"])
    before, timestep = history[change - 1], pipe.scheduler.timesteps[change]
    noise = mixed_noise(pipe, pipe.scheduler, before, timestep).double()

    previous = timestep - 1000 // CHANGE["num_inference_steps"]
    now, then = (pipe.scheduler.alphas_cumprod[step].double() for step in (timestep, previous))
    clean = (before - (1 - now).sqrt() * noise) / now.sqrt()
    ddim = then.sqrt() * clean + (1 - then).sqrt() * noise
    torch.testing.assert_close(history[change].double(), ddim, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_lms_takes_a_first_order_step_after_a_change_of_mixture(pipe, calls):
    with_scheduler(pipe, "LMSDiscreteScheduler")
    history = []
    latents_of(pipe, **CHANGE, callback_on_step_end=record(history))
    change = len(history) - len(calls["image"])
    before, sigmas = history[change - 1], pipe.scheduler.sigmas
    scaled = before / (sigmas[change] ** 2 + 1) ** 0.5
    identity = diffusers.DDIMScheduler()
    noise = mixed_noise(pipe, identity, scaled, pipe.scheduler.timesteps[change])
    euler = before + (sigmas[change + 1] - sigmas[change]) * noise
    torch.testing.assert_close(history[change], euler, atol=1e-3, rtol=1e-3)


def test_a_constant_mixture_keeps_the_history(pipe):
    """Second order from the second step on: the result differs from one that is restarted at every step."""
    with_scheduler(pipe, "DPMSolverMultistepScheduler")
    kept = latents_of(pipe, audio_weight=0.5, num_inference_steps=4)
    pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, solver_order=1)
    first_order = latents_of(pipe, audio_weight=0.5, num_inference_steps=4)
    assert not torch.allclose(kept, first_order, atol=1e-2)


# Steps from outside: progress bar, callbacks, embeddings


def test_progress_bar_counts_the_steps(pipe):
    for name in ("DDIMScheduler", "HeunDiscreteScheduler", "PNDMScheduler"):
        with_scheduler(pipe, name)
        screen = io.StringIO()
        pipe.set_progress_bar_config(disable=False, file=screen)
        latents_of(pipe)
        assert screen.getvalue().rstrip().split("\r")[-1].startswith("100%") and "3/3" in screen.getvalue()


def test_callback_sees_the_embeddings_and_changes_the_latents(pipe):
    names = list(pipe._callback_tensor_inputs)
    shapes = {}

    def callback(pipeline, step, timestep, tensors):
        shapes.update({name: None if value is None else tuple(value.shape) for name, value in tensors.items()})
        return {"latents": torch.zeros_like(tensors["latents"])}

    latents = latents_of(pipe, callback_on_step_end=callback, callback_on_step_end_tensor_inputs=names)
    assert not latents.any()
    assert sorted(shapes) == sorted(names)
    assert shapes["latents"] == (1, 4, 32, 8)
    assert shapes["prompt_embeds"] == shapes["audio_prompt_embeds"] == (2, 77, 32)


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"])
def test_a_call_in_two_parts_gives_what_one_call_gives(pipe, name):
    with_scheduler(pipe, name)
    whole = latents_of(pipe, num_inference_steps=5)
    part = latents_of(pipe, num_inference_steps=5, denoising_end=0.4)
    assert not torch.equal(part, whole)
    rest = latents_of(pipe, num_inference_steps=5, denoising_start=0.4, latents=part)
    torch.testing.assert_close(rest, whole, rtol=0, atol=1e-5)


def test_a_call_in_two_parts_draws_no_noise_twice(pipe):
    whole = latents_of(pipe, num_inference_steps=4, eta=1.0)
    generator = torch.Generator().manual_seed(0)
    part = latents_of(pipe, num_inference_steps=4, eta=1.0, denoising_end=0.5, generator=generator)
    rest = latents_of(pipe, num_inference_steps=4, eta=1.0, denoising_start=0.5, latents=part, generator=generator)
    torch.testing.assert_close(rest, whole, rtol=0, atol=1e-5)


def test_a_call_without_steps_decodes(pipe, calls):
    latents = latents_of(pipe)
    whole = draw(pipe, 0, output_type="pt")
    calls["image"].clear(), calls["audio"].clear()
    decoded = draw(pipe, 0, denoising_start=1.0, latents=latents, output_type="pt")
    assert not calls["image"] and not calls["audio"]
    assert torch.equal(decoded.images, whole.images) and torch.equal(decoded.audios, whole.audios)


def test_callback_gets_the_expected_end(pipe):
    """Solved from DDIM's equation for the latents before and after a step (arXiv 2010.02502, equation 12)."""
    before, expected = [], []

    def callback(pipeline, step, timestep, tensors):
        before.append(tensors["latents"])
        expected.append(tensors["pred_original_sample"])
        return {}

    pipe.scheduler.register_to_config(clip_sample=False)
    latents_of(
        pipe,
        num_inference_steps=3,
        callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=["latents", "pred_original_sample"],
    )
    alphas = pipe.scheduler.alphas_cumprod[pipe.scheduler.timesteps]
    last = pipe.scheduler.final_alpha_cumprod
    # Latents are sqrt(a) * end + sqrt(1 - a) * noise before and after a step, with the same end and noise.
    matrix = torch.tensor([[alphas[2] ** 0.5, (1 - alphas[2]) ** 0.5], [last**0.5, (1 - last) ** 0.5]])
    end = torch.linalg.solve(matrix.double(), torch.stack([before[1].flatten(), before[2].flatten()]).double())[0]
    torch.testing.assert_close(expected[2].flatten(), end.float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "name", ["DEISMultistep", "DPMSolverMultistep", "DPMSolverSinglestep", "LCM", "PNDM", "TCD", "UniPCMultistep"]
)
def test_every_scheduler_tells_the_expected_end(pipe, name):
    """Of schedulers that return something else or nothing: noise taken away as it was added (arXiv 2006.11239)."""
    scheduler_class = getattr(diffusers, f"{name}Scheduler")
    pipe.scheduler = scheduler_class.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    noisy, noise, expected = [], [], []

    def note_forward(unet, inputs, output):
        noisy.append(inputs[0].double().numpy())
        noise.append(output[0].double().numpy())

    def note(pipeline, step, timestep, tensors):
        expected.append(tensors["pred_original_sample"])
        return {}

    pipe.unet_audio.register_forward_hook(note_forward)
    asked = {"callback_on_step_end": note, "callback_on_step_end_tensor_inputs": ["pred_original_sample"]}
    latents_of(pipe, num_inference_steps=3, audio_weight=1.0, audio_guidance_scale=1.0, **asked)
    config = pipe.scheduler.config
    betas = np.linspace(config.beta_start**0.5, config.beta_end**0.5, config.num_train_timesteps) ** 2
    signals = np.cumprod(1 - betas)[pipe.scheduler.timesteps.long()]
    assert len(expected) == len(signals) == len(noise)
    for signal, before, predicted, end in zip(signals, noisy, noise, expected):
        clean = (before - (1 - signal) ** 0.5 * predicted) / signal**0.5
        np.testing.assert_allclose(end, clean, rtol=1e-3, atol=1e-3)


def test_eta_left_out_is_the_schedulers_own(pipe):
    plain = latents_of(pipe)
    assert torch.equal(plain, latents_of(pipe, eta=0.0)) and not torch.equal(plain, latents_of(pipe, eta=0.3))
    pipe.scheduler = diffusers.TCDScheduler.from_config(pipe.scheduler.config)
    assert torch.equal(latents_of(pipe), latents_of(pipe, eta=0.3))
    assert not torch.equal(latents_of(pipe), latents_of(pipe, eta=0.0))


def test_models_distilled_with_their_guidance_are_told_it(pipe, calls):
    """As `StableDiffusionPipeline` tells latent consistency models, without rows that have no prompt."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config({**pipe.unet.config, "time_cond_proj_dim": 8})
    pipe.register_modules(unet=unet, scheduler=diffusers.LCMScheduler.from_config(pipe.scheduler.config))
    expected = stock_latents(stable_diffusion(pipe, "image"), CALL["prompt"], guidance_scale=8.0)
    assert torch.equal(latents_of(pipe, audio_weight=0.0, guidance_scale=8.0), expected)
    assert not torch.equal(latents_of(pipe, audio_weight=0.0, guidance_scale=4.0), expected)


def test_callback_changes_the_audio_embeddings(pipe):
    other = {"callback_on_step_end_tensor_inputs": ["audio_prompt_embeds"]}

    def silence(pipeline, step, timestep, tensors):
        return {"audio_prompt_embeds": torch.zeros_like(tensors["audio_prompt_embeds"])}

    heard = latents_of(pipe, audio_weight=1.0)
    assert not torch.equal(latents_of(pipe, audio_weight=1.0, callback_on_step_end=silence, **other), heard)
    image = latents_of(pipe, audio_weight=0.0)
    assert torch.equal(latents_of(pipe, audio_weight=0.0, callback_on_step_end=silence, **other), image)


def test_interrupt_skips_the_steps_that_are_left(pipe, calls):
    history = []

    def stop(pipeline, step, timestep, tensors):
        history.append(tensors["latents"].clone())
        pipeline._interrupt = step == 1
        return tensors

    latents = latents_of(pipe, num_inference_steps=5, callback_on_step_end=stop)
    assert len(calls["image"]) == len(history) == 2
    assert torch.equal(latents, history[-1])
    latents_of(pipe)
    assert len(calls["image"]) == 2 + 3


def test_stock_callback_turns_guidance_off(pipe, calls):
    cutoff = {"callback_on_step_end": SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=0)}
    latents = latents_of(pipe, audio_weight=0.0, **cutoff)
    expected = stock_latents(stable_diffusion(pipe, "image"), CALL["prompt"], **cutoff)
    assert calls["image"][:3] == [2, 1, 1]
    assert torch.equal(latents, expected)
    latents_of(pipe, **cutoff)
    assert calls["audio"] == [2, 2, 2]


def test_embeddings_stand_in_for_prompts(pipe):
    names = ("prompt_embeds", "negative_prompt_embeds", "audio_prompt_embeds", "negative_audio_prompt_embeds")
    negative = {"negative_prompt": "dark", "negative_audio_prompt": "noise"}
    embeds = dict(zip(names, pipe.encode_prompt(CALL["prompt"], CALL["audio_prompt"], **negative)))
    by_prompt = latents_of(pipe, **negative)
    assert torch.equal(latents_of(pipe, prompt=None, audio_prompt=None, **embeds), by_prompt)
    half = {"audio_prompt": None, "audio_prompt_embeds": embeds["audio_prompt_embeds"]}
    assert torch.equal(latents_of(pipe, **half, **negative), by_prompt)


def test_each_side_reads_its_own_prompt_by_its_own_encoder(pipe, stable_diffusion_folder, auffusion_folder):
    embeds = pipe.encode_prompt("a castle", "a bell", negative_audio_prompt="noise")
    for folder, prompt, (positive, negative), negative_prompt in (
        (stable_diffusion_folder, "a castle", embeds[:2], ""),
        (auffusion_folder, "a bell", embeds[2:], "noise"),
    ):
        stock = StableDiffusionPipeline.from_pretrained(folder)
        expected = stock.encode_prompt(prompt, "cpu", 1, True, negative_prompt)
        assert torch.equal(positive, expected[0]) and torch.equal(negative, expected[1])


def test_prompts_that_are_too_long_are_cut_with_a_warning(pipe, caplog):
    short = " ".join(["a"] * 75)
    with caplog.at_level(logging.WARNING):
        pipe.encode_prompt(short, short)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        embeds = pipe.encode_prompt(short + " lost words", short)
    assert "77 tokens" in caplog.text and "lost words" in caplog.text
    assert embeds[0].shape == (1, 77, 32)
    assert torch.equal(embeds[0], pipe.encode_prompt(short, short)[0])


# Outputs


@pytest.mark.parametrize("output_type", ["np", "pt"])
def test_outputs_are_canvases_in_0_to_1_and_float32_waveforms(pipe, output_type):
    output = draw(pipe, output_type=output_type, num_images_per_prompt=2)
    order = (lambda shape: (shape[0], *shape[2:], shape[1])) if output_type == "np" else tuple
    assert tuple(output.images.shape) == order((2, 3, 256, 64))
    assert tuple(output.spectrograms.shape) == order((2, 1, 256, 64))
    assert tuple(output.audios.shape) == (2, 64 * 160)
    kind = np.ndarray if output_type == "np" else torch.Tensor
    assert all(isinstance(each, kind) for each in (output.images, output.spectrograms, output.audios))
    assert output.audios.dtype == (np.float32 if output_type == "np" else torch.float32)
    assert 0 <= output.images.min() < output.images.max() <= 1
    assert 0 <= output.spectrograms.min() < output.spectrograms.max() <= 1
    assert -1 <= output.audios.min() < 0 < output.audios.max() <= 1
    assert pipe.sampling_rate == 16000


def test_pil_outputs_are_the_same_pixels(pipe):
    output, tensors = draw(pipe, output_type="pil"), draw(pipe, output_type="pt")
    (image,), (spectrogram,) = output.images, output.spectrograms
    assert isinstance(image, PIL.Image.Image) and (image.mode, image.size) == ("RGB", (64, 256))
    assert (spectrogram.mode, spectrogram.size) == ("L", (64, 256))
    pixels = (tensors.images[0].permute(1, 2, 0).numpy() * 255).round()
    np.testing.assert_array_equal(np.asarray(image), pixels)
    np.testing.assert_array_equal(np.asarray(spectrogram), (tensors.spectrograms[0, 0].numpy() * 255).round())
    np.testing.assert_array_equal(output.audios, tensors.audios.numpy())


def test_latents_are_what_stock_decoding_turns_into_the_picture(pipe):
    latents, output = latents_of(pipe), draw(pipe, output_type="pt")
    with torch.no_grad():
        image, canvas = (vae.decode(latents / 0.18215).sample / 2 + 0.5 for vae in (pipe.vae, pipe.vae_audio))
    torch.testing.assert_close(output.images, image.clamp(0, 1))
    torch.testing.assert_close(output.spectrograms, canvas.clamp(0, 1).mean(dim=1, keepdim=True))
    log_mel = MelSpectrogram().canvas_to_log_mel(output.spectrograms)
    with torch.no_grad():
        torch.testing.assert_close(output.audios, pipe.vocoder(log_mel.transpose(1, 2)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("output_type", ["latent", "pt"])
def test_a_tuple_holds_what_the_output_holds(pipe, output_type):
    output = draw(pipe, output_type=output_type)
    plain = draw(pipe, output_type=output_type, return_dict=False)
    for ours, name in zip(plain, ("images", "spectrograms", "audios"), strict=True):
        theirs = getattr(output, name)
        assert theirs is None if ours is None else torch.equal(ours, theirs)
    assert (output.audios is None) == (output_type == "latent")


def test_without_a_vocoder_griffin_lim_plays(pipe):
    pipe.register_modules(vocoder=None)
    output = draw(pipe, output_type="pt")
    assert output.audios.shape == (1, 64 * 160)
    assert torch.equal(output.audios, MelSpectrogram().canvas_to_audio(output.spectrograms))


# Sizes and layouts


def test_defaults_come_from_the_checkpoint(pipe):
    defaults = {"width": 80, "crop_right": 16, "num_inference_steps": 2, "audio_weight": 1.0, "guidance_scale": 3.0}
    small = ImagesThatSoundPipeline(**pipe.components, default_arguments=defaults)
    small.set_progress_bar_config(disable=True)
    left_out = dict.fromkeys(defaults)
    output = draw(small, output_type="pt", **left_out)
    assert output.images.shape[-1] == 80 - 16 and small.num_timesteps == 2 and small.guidance_scale == 3.0
    assert torch.equal(output.images, draw(pipe, output_type="pt", **defaults).images)
    assert latents_of(small, width=72).shape[-1] == 9


def test_config_is_saved_and_loaded(pipe, tmp_path):
    components = {**pipe.components, "vocoder": None}
    constants = {"min_magnitude": 1e-4, "max_magnitude": 50.0}
    defaults = {"width": 64, "crop_right": 0, "num_inference_steps": 2}
    saved = ImagesThatSoundPipeline(**components, spectrogram=constants, default_arguments=defaults)
    saved.save_pretrained(tmp_path)
    loaded = ImagesThatSoundPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.mel_spectrogram == MelSpectrogram(**constants)
    assert loaded.config.spectrogram == MelSpectrogram(**constants).to_dict()
    assert loaded.config.default_arguments == defaults
    assert type(loaded.scheduler) is diffusers.DDIMScheduler
    assert torch.equal(latents_of(loaded, **dict.fromkeys(defaults)), latents_of(pipe, **defaults))


def test_both_sides_are_saved_and_loaded(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = ImagesThatSoundPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    expected, output = draw(pipe, output_type="pt"), draw(loaded, output_type="pt")
    assert torch.equal(output.images, expected.images) and torch.equal(output.audios, expected.audios)


@pytest.mark.parametrize("shape", [(1, 4, 64, 8), (2, 3, 6, 10)])
def test_folding_is_the_inverse_of_unfolding(shape):
    canvas = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    strip = unfold_canvas(canvas)
    assert strip.shape == (*shape[:2], shape[2] // 2, shape[3] * 2)
    assert torch.equal(strip[..., : shape[3]], canvas[..., : shape[2] // 2, :])
    assert torch.equal(fold_canvas(strip), canvas)


def test_folded_layout_plays_the_top_half_first(pipe):
    folded = {"canvas_layout": "folded", "width": 32}
    latents, output = latents_of(pipe, **folded), draw(pipe, output_type="pt", **folded)
    assert latents.shape == (1, 4, 64, 4)
    assert output.images.shape == (1, 3, 512, 32)
    assert output.spectrograms.shape == (1, 1, 256, 64)
    with torch.no_grad():
        strip = torch.cat([latents[:, :, :32], latents[:, :, 32:]], dim=3)
        canvas = (pipe.vae_audio.decode(strip / 0.18215).sample / 2 + 0.5).clamp(0, 1).mean(dim=1, keepdim=True)
    torch.testing.assert_close(output.spectrograms, canvas)
    with torch.no_grad():
        audio = pipe.mel_spectrogram.canvas_to_audio(canvas, pipe.vocoder)
    torch.testing.assert_close(output.audios, audio, atol=1e-4, rtol=0)


def test_folded_audio_side_alone_is_the_strip_folded(pipe):
    strip = latents_of(pipe, audio_weight=1.0, latents=unfold_canvas(noise := torch.randn(1, 4, 64, 4)))
    folded = latents_of(pipe, audio_weight=1.0, latents=noise, canvas_layout="folded", width=32)
    torch.testing.assert_close(folded, fold_canvas(strip), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layout, shape", [("strip", (1, 4, 32, 128)), ("folded", (1, 4, 64, 64))])
def test_default_sizes(pipe, layout, shape):
    fast = {"num_inference_steps": 1, "audio_weight": 1.0, "audio_guidance_scale": 1.0}
    assert latents_of(pipe, canvas_layout=layout, width=None, **fast).shape == shape


@pytest.mark.parametrize("layout", ["strip", "folded"])
@pytest.mark.parametrize("seconds, samples, crop_right", [(0.5, 8000, 0), (0.5, 8000, 32), (0.377, 6080, 8)])
def test_sound_has_exactly_the_length_asked_for(pipe, layout, seconds, samples, crop_right):
    sized = {"audio_length_in_s": seconds, "width": None, "crop_right": crop_right, "num_inference_steps": 1}
    output = draw(pipe, canvas_layout=layout, output_type="pt", **sized)
    assert output.audios.shape == (1, samples)
    assert output.spectrograms.shape[-1] * 160 == samples


def test_crop_right_cuts_picture_spectrogram_and_sound(pipe):
    whole, cropped = (draw(pipe, output_type="pt", crop_right=columns) for columns in (0, 13))
    assert torch.equal(cropped.images, whole.images[..., :-13])
    assert torch.equal(cropped.spectrograms, whole.spectrograms[..., :-13])
    assert torch.equal(cropped.audios, whole.audios[..., : -13 * 160])


# One VAE or two


def count(module):
    passes = []
    module.register_forward_hook(lambda *_: passes.append(1))
    return passes


def test_shared_parts_are_neither_kept_nor_run_twice(shared_pipe):
    assert shared_pipe.vae_audio is None and shared_pipe.text_encoder_audio is None
    decoded = count(shared_pipe.vae.decoder)
    output = draw(shared_pipe, output_type="pt")
    assert len(decoded) == 1
    torch.testing.assert_close(output.spectrograms, output.images.mean(dim=1, keepdim=True))
    draw(shared_pipe, output_type="pt", canvas_layout="folded", width=32)
    assert len(decoded) == 3
    draw(shared_pipe, output_type="latent")
    assert len(decoded) == 3


def test_two_vaes_decode_once_each(pipe):
    picture, canvas = count(pipe.vae.decoder), count(pipe.vae_audio.decoder)
    draw(pipe, output_type="pt")
    assert len(picture) == len(canvas) == 1


def test_a_single_different_weight_keeps_the_audio_sides_part(stable_diffusion_folder, shared_folder):
    pipe = ImagesThatSoundPipeline.from_pretrained(stable_diffusion_folder)
    with torch.no_grad():
        pipe.vae.post_quant_conv.bias[0] += 1e-6
    pipe.load_audio_prior(shared_folder)
    assert pipe.vae_audio is not None and pipe.text_encoder_audio is None


# Devices and precision


def same_state(module, state):
    return all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("arguments", [(torch.bfloat16,), ("cpu", torch.bfloat16)])
def test_half_precision_leaves_the_vocoder_alone(pipe, arguments):
    before = {name: value.clone() for name, value in pipe.vocoder.state_dict().items()}
    assert pipe.to(*arguments) is pipe
    assert pipe.unet.dtype == pipe.unet_audio.dtype == pipe.vae.dtype == torch.bfloat16
    assert pipe.vocoder.dtype == torch.float32 and same_state(pipe.vocoder, before)
    output = draw(pipe, output_type="np")
    assert output.audios.dtype == np.float32 and np.isfinite(output.audios).all()
    assert output.images.dtype == np.float32 and np.isfinite(output.images).all()


def test_loading_in_half_precision_leaves_the_vocoder_alone(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = ImagesThatSoundPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.unet_audio.dtype == torch.bfloat16
    assert loaded.vocoder.dtype == torch.float32
    assert same_state(loaded.vocoder, pipe.vocoder.state_dict())


def test_the_audio_side_joins_in_the_image_sides_precision(stable_diffusion_folder, auffusion_folder):
    pipe = ImagesThatSoundPipeline.from_pretrained(stable_diffusion_folder, dtype=torch.bfloat16)
    pipe.load_audio_prior(auffusion_folder)
    assert pipe.unet_audio.dtype == pipe.vae_audio.dtype == pipe.text_encoder_audio.dtype == torch.bfloat16
    assert pipe.vocoder.dtype == torch.float32


def test_moving_to_a_device_and_to_float32_changes_nothing(pipe):
    expected = latents_of(pipe)
    assert torch.equal(latents_of(pipe.to("cpu").to(torch.float32)), expected)
    assert torch.equal(latents_of(pipe.to("cpu", torch.float32)), expected)


def test_model_offloading_gives_the_same(pipe):
    assert "unet_audio" not in pipe.model_cpu_offload_seq.split("->")
    expected = draw(pipe, output_type="pt")
    pipe.enable_model_cpu_offload(device="cpu")
    for _ in range(2):
        output = draw(pipe, output_type="pt")
        assert torch.equal(output.images, expected.images) and torch.equal(output.audios, expected.audios)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="accelerate can't offload from the CPU to the CPU")
def test_sequential_offloading_gives_the_same(pipe):
    expected = draw(pipe, output_type="pt")
    pipe.enable_sequential_cpu_offload()
    output = draw(pipe, output_type="pt")
    torch.testing.assert_close(output.images.cpu(), expected.images, atol=1e-2, rtol=0)
    assert output.audios.shape == expected.audios.shape


def test_vae_slicing_gives_the_same_and_tiling_runs(pipe):
    two = {"output_type": "pt", "num_images_per_prompt": 2, "num_inference_steps": 1}
    expected = draw(pipe, **two)
    pipe.vae.enable_slicing()
    pipe.vae_audio.enable_slicing()
    torch.testing.assert_close(draw(pipe, **two).images, expected.images, atol=1e-5, rtol=0)
    pipe.vae.enable_tiling()
    pipe.vae_audio.enable_tiling()
    tiled = draw(pipe, **two)
    assert tiled.images.shape == expected.images.shape and tiled.audios.shape == expected.audios.shape


def test_compiled_unets_give_the_same(pipe):
    expected = latents_of(pipe, num_inference_steps=2)
    pipe.unet.compile(backend="eager")
    pipe.unet_audio.compile(backend="eager")
    torch.testing.assert_close(latents_of(pipe, num_inference_steps=2), expected, atol=1e-5, rtol=0)


def test_from_pipe_of_stable_diffusion_and_back(pipe, stable_diffusion_folder, auffusion_folder):
    stock = StableDiffusionPipeline.from_pretrained(stable_diffusion_folder)
    ours = ImagesThatSoundPipeline.from_pipe(stock)
    assert ours.unet is stock.unet and ours.unet_audio is None and ours.vocoder is None
    assert type(stock.scheduler).__name__ == "PNDMScheduler"
    ours.load_audio_prior(auffusion_folder)
    ours.set_progress_bar_config(disable=True)
    assert torch.equal(latents_of(ours), latents_of(pipe))

    again = StableDiffusionPipeline.from_pipe(ours, safety_checker=None, feature_extractor=None)
    again.set_progress_bar_config(disable=True)
    assert again.unet is stock.unet
    assert torch.equal(stock_latents(again, CALL["prompt"]), latents_of(ours, audio_weight=0.0))


def test_from_pipe_keeps_precision_and_spectrogram(pipe):
    pipe.to(torch.bfloat16)
    pipe.register_to_config(spectrogram={**pipe.config.spectrogram, "max_magnitude": 100.0})
    stock = StableDiffusionPipeline.from_pipe(pipe, safety_checker=None, feature_extractor=None, dtype=torch.bfloat16)
    ours = ImagesThatSoundPipeline.from_pipe(stock, unet_audio=pipe.unet_audio, vocoder=pipe.vocoder)
    assert ours.unet.dtype == ours.unet_audio.dtype == ours.text_encoder.dtype == torch.bfloat16
    assert ours.vocoder.dtype == torch.float32 and ours.mel_spectrogram.max_magnitude == 100.0
    assert ImagesThatSoundPipeline.from_pipe(ours, dtype=torch.float32).unet.dtype == torch.float32


# LoRA and textual inversion


def lora(module, targets):
    """Weights of a random LoRA for the module."""
    torch.manual_seed(0)
    module.add_adapter(LoraConfig(r=4, init_lora_weights=False, target_modules=targets))
    return convert_state_dict_to_diffusers(get_peft_model_state_dict(module))


@pytest.fixture
def unet_lora(stable_diffusion_folder, tmp_path):
    stock = StableDiffusionPipeline.from_pretrained(stable_diffusion_folder)
    layers = lora(stock.unet, ["to_q", "to_k", "to_v"])
    StableDiffusionPipeline.save_lora_weights(tmp_path / "unet-lora", unet_lora_layers=layers)
    return tmp_path / "unet-lora"


@pytest.fixture
def text_lora(stable_diffusion_folder, tmp_path):
    stock = StableDiffusionPipeline.from_pretrained(stable_diffusion_folder)
    layers = lora(stock.text_encoder, ["q_proj", "k_proj", "v_proj", "out_proj"])
    StableDiffusionPipeline.save_lora_weights(tmp_path / "text-lora", text_encoder_lora_layers=layers)
    return tmp_path / "text-lora"


def test_lora_is_the_image_sides(pipe, unet_lora):
    image, audio = latents_of(pipe, audio_weight=0.0), latents_of(pipe, audio_weight=1.0)
    pipe.load_lora_weights(unet_lora)
    with_lora = latents_of(pipe, audio_weight=0.0)
    assert not torch.allclose(with_lora, image, atol=1e-3)
    assert torch.equal(latents_of(pipe, audio_weight=1.0), audio)
    stock = stable_diffusion(pipe, "image")
    assert torch.equal(with_lora, stock_latents(stock, CALL["prompt"]))
    torch.testing.assert_close(latents_of(pipe, audio_weight=0.0, cross_attention_kwargs={"scale": 0.0}), image)
    pipe.unload_lora_weights()
    assert torch.equal(latents_of(pipe, audio_weight=0.0), image)


@pytest.mark.parametrize("name", ["pipe", "shared_pipe"])
def test_text_encoder_lora_is_the_image_sides(request, text_lora, name):
    pipe = request.getfixturevalue(name)
    image, _, audio, negative_audio = pipe.encode_prompt("a castle", "a bell")
    pipe.load_lora_weights(text_lora)
    embeds = pipe.encode_prompt("a castle", "a bell")
    assert not torch.allclose(embeds[0], image, atol=1e-3)
    torch.testing.assert_close(embeds[2], audio)
    torch.testing.assert_close(embeds[3], negative_audio)
    assert all(torch.equal(a, b) for a, b in zip(pipe.encode_prompt("a castle", "a bell"), embeds))


def test_a_fused_lora_survives_a_call(shared_pipe, text_lora):
    shared_pipe.load_lora_weights(text_lora)
    shared_pipe.fuse_lora(lora_scale=0.5)
    fused = {name: weight.clone() for name, weight in shared_pipe.text_encoder.state_dict().items()}
    before = shared_pipe.encode_prompt("a castle", "a bell")[0]
    assert torch.equal(shared_pipe.encode_prompt("a castle", "a bell")[0], before)
    assert all(torch.equal(fused[name], each) for name, each in shared_pipe.text_encoder.state_dict().items())


def test_the_lora_weight_that_the_user_set_survives_a_call(shared_pipe, text_lora):
    shared_pipe.load_lora_weights(text_lora, adapter_name="style")
    full = shared_pipe.encode_prompt("a castle", "a bell")[0]
    shared_pipe.set_adapters("style", adapter_weights=0.5)
    first, second = (shared_pipe.encode_prompt("a castle", "a bell")[0] for _ in range(2))
    assert not torch.allclose(first, full, atol=1e-4)
    assert torch.equal(first, second)


def test_textual_inversion_is_read_in_image_prompts(pipe):
    plain = pipe.encode_prompt("a castle", "a bell")
    pipe.load_textual_inversion({"<drawn>": torch.ones(32)})
    embeds = pipe.encode_prompt("a castle in <drawn>", "a bell")
    assert "<drawn>" in pipe.tokenizer.get_vocab()
    assert not torch.allclose(embeds[0], pipe.encode_prompt("a castle in", "a bell")[0], atol=1e-3)
    assert torch.equal(embeds[2], plain[2])
    assert torch.isfinite(latents_of(pipe, prompt="a castle in <drawn>")).all()


def test_textual_inversion_of_several_vectors_takes_several_tokens(pipe):
    pipe.load_textual_inversion({"<many>": torch.randn(3, 32)})
    embeds = pipe.encode_prompt("a <many>", "a bell")[0]
    assert torch.equal(embeds, stable_diffusion(pipe, "image").encode_prompt("a <many>", "cpu", 1, False)[0])


# Reports


@pytest.fixture
def warnings_of(pipe, caplog):
    def read():
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            draw(pipe, output_type="pt", num_images_per_prompt=2, num_inference_steps=1)
        return caplog.text

    return read


def test_a_good_result_is_not_reported(warnings_of):
    assert warnings_of() == ""


@pytest.mark.parametrize("bias, said", [(0.0, "inaudible"), (100.0, "clipped"), (float("nan"), "not finite")])
@torch.no_grad()
def test_a_bad_sound_is_reported(pipe, warnings_of, bias, said):
    pipe.vocoder.conv_post.weight.zero_()
    pipe.vocoder.conv_post.bias.fill_(bias)
    text = warnings_of()
    assert text.count(said) == 2 and "Sample 0" in text and "Sample 1" in text


@pytest.mark.parametrize("side", ["vae", "vae_audio"])
@pytest.mark.filterwarnings("ignore:invalid value")
@torch.no_grad()
def test_a_picture_that_is_not_finite_is_reported(pipe, warnings_of, side):
    getattr(pipe, side).decoder.conv_out.bias.fill_(float("nan"))
    text = warnings_of()
    assert text.count("not finite") >= 2 and "Sample 1" in text
