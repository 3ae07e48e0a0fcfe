"""Inputs and repos that stock Stable Diffusion takes give the same here, or are refused in a line."""

import copy
import json
import shutil

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import STABLE_DIFFUSION, two_sides
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    IPNDMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from diffusers.callbacks import SDCFGCutoffCallback
from diffusers.utils import convert_state_dict_to_diffusers
from diffusers.utils import logging as diffusers_logging
from peft import LoraConfig, get_peft_model_state_dict

from images_that_sound.pipelines import ImagesThatSoundImg2ImgPipeline, ImagesThatSoundPipeline
from images_that_sound.pipelines.images_that_sound_canvas import read_pictures
from images_that_sound.pipelines.images_that_sound_lora import check_lora, separate_text_encoders
from images_that_sound.pipelines.images_that_sound_sides import convert_prediction
from images_that_sound.selection import prediction_lift


CALL = {"width": 64, "crop_right": 0, "num_inference_steps": 3, "guidance_scale": 2.0, "audio_guidance_scale": 2.0}
PROMPTS = {"prompt": "a castle", "audio_prompt": "a bell"}


@pytest.fixture(scope="module")
def shared():
    """One pipeline for tests that leave it as it was."""
    return two_sides(ImagesThatSoundPipeline, STABLE_DIFFUSION)


def latents_of(pipe, **arguments):
    call = {**PROMPTS, **CALL, "image_guidance_start": 0.0, "output_type": "latent", **arguments}
    return pipe(**call, generator=torch.Generator().manual_seed(0)).images


def tells_velocity(unet, alphas_cumprod):
    """A UNet that says the velocity for the noise that it says otherwise."""
    told = copy.deepcopy(unet)
    forward = told.forward

    def velocity(sample, timestep, *args, **kwargs):
        noise = forward(sample, timestep, *args, **kwargs)[0]
        signal = alphas_cumprod[int(timestep)]
        clean = (sample - (1 - signal) ** 0.5 * noise) / signal**0.5
        return (signal**0.5 * noise - (1 - signal) ** 0.5 * clean,)

    told.forward = velocity
    return told


# -------------------- Noise, velocity, sample --------------------


def test_predictions_are_converted_as_their_definitions_say():
    rng = np.random.default_rng(0)
    clean, noise, signal = rng.normal(size=(2, 4, 8, 8)), rng.normal(size=(2, 4, 8, 8)), 0.3
    noisy = signal**0.5 * clean + (1 - signal) ** 0.5 * noise
    velocity = signal**0.5 * noise - (1 - signal) ** 0.5 * clean
    kinds = {"epsilon": noise, "v_prediction": velocity, "sample": clean}
    for kind, prediction in kinds.items():
        for wanted, expected in kinds.items():
            tensors = (torch.from_numpy(each) for each in (prediction, noisy))
            found = convert_prediction(*tensors, torch.tensor(signal, dtype=torch.float64), kind, wanted)
            np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_an_audio_side_that_tells_velocity_is_averaged_as_noise(pipe):
    pipe.to(torch.float64)
    expected = latents_of(pipe)
    pipe.register_modules(unet_audio=tells_velocity(pipe.unet_audio, pipe.scheduler.alphas_cumprod.double()))
    wrong = latents_of(pipe)
    pipe.register_to_config(audio_prediction_type="v_prediction")
    torch.testing.assert_close(latents_of(pipe), expected, atol=1e-6, rtol=1e-6)
    assert (wrong - expected).abs().max() > 0.1


def test_the_audio_repo_says_what_it_tells_and_has_the_same_noise_levels(auffusion_folder, tmp_path):
    prior = shutil.copytree(auffusion_folder, tmp_path / "auffusion")
    file = prior / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text())
    pipe = ImagesThatSoundPipeline.from_pretrained(STABLE_DIFFUSION)
    file.write_text(json.dumps({**config, "prediction_type": "v_prediction"}))
    pipe.load_audio_prior(prior)
    assert pipe.config.audio_prediction_type == "v_prediction"
    for name, value in {"beta_schedule": "linear", "num_train_timesteps": 500}.items():
        file.write_text(json.dumps({**config, name: value}))
        with pytest.raises(ValueError, match=f"noise levels, `{name}`.*{value}"):
            pipe.load_audio_prior(prior)


def test_lift_is_the_same_of_velocity(pipe):
    latents = torch.randn(1, 4, 32, 8, generator=torch.Generator().manual_seed(0))
    image, audio = prediction_lift(pipe, latents, **PROMPTS, num_draws=2)
    alphas_cumprod = pipe.scheduler.alphas_cumprod
    pipe.register_modules(**{n: tells_velocity(getattr(pipe, n), alphas_cumprod) for n in ("unet", "unet_audio")})
    pipe.scheduler.register_to_config(prediction_type="v_prediction")
    pipe.register_to_config(audio_prediction_type="v_prediction")
    velocity_image, velocity_audio = prediction_lift(pipe, latents, **PROMPTS, num_draws=2)
    torch.testing.assert_close(velocity_image, image, atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(velocity_audio, audio, atol=1e-3, rtol=1e-2)


# -------------------- Schedulers --------------------


def test_pndm_of_an_old_repo_does_not_clip(tmp_path):
    folder = shutil.copytree(STABLE_DIFFUSION, tmp_path / "old")
    file = folder / "scheduler" / "scheduler_config.json"
    config = {key: value for key, value in json.loads(file.read_text()).items() if key != "clip_sample"}
    file.write_text(json.dumps({**config, "steps_offset": 0}))
    pipe = ImagesThatSoundPipeline.from_pretrained(folder)
    stock = StableDiffusionPipeline.from_pretrained(folder)
    assert isinstance(pipe.scheduler, DDIMScheduler) and pipe.scheduler.config.clip_sample is False
    assert pipe.scheduler.config.steps_offset == stock.scheduler.config.steps_offset == 1
    assert isinstance(stock.scheduler, PNDMScheduler)
    assert ImagesThatSoundPipeline.from_pipe(stock).scheduler.config.clip_sample is False


@pytest.mark.parametrize("scheduler_class", [LMSDiscreteScheduler, PNDMScheduler])
def test_schedulers_with_a_history_start_anew_from_a_picture(shared, scheduler_class):
    """The picture comes back as well as with DDIM, which has no history."""
    image = torch.full((1, 3, 256, 64), 0.5)
    pipe, changes = ImagesThatSoundImg2ImgPipeline(**shared.components), []
    for each in (DDIMScheduler, scheduler_class):
        pipe.scheduler = each.from_config(shared.scheduler.config)
        pipe.set_progress_bar_config(disable=True)
        start = pipe.encode_canvases(image, pipe.vae, torch.Generator().manual_seed(1))
        made = latents_of(pipe, image=start, strength=0.3, num_inference_steps=20, audio_weight=0.0)
        changes.append((made - start).square().mean() ** 0.5)
    assert changes[1] < 1.5 * changes[0]


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_expected_latents_of_other_predictions(pipe, prediction_type):
    """Those of DDIM, which says them itself, and of a multistep scheduler at its first step."""
    expected = []
    for scheduler_class in (DDIMScheduler, DPMSolverMultistepScheduler):
        config = {**pipe.scheduler.config, "prediction_type": prediction_type, "timestep_spacing": "trailing"}
        pipe.scheduler = scheduler_class.from_config(config)
        seen = []
        latents_of(
            pipe,
            num_inference_steps=2,
            callback_on_step_end=lambda _, step, t, tensors, seen=seen: seen.append(tensors) or {},
            callback_on_step_end_tensor_inputs=["pred_original_sample"],
        )
        expected.append(seen[0]["pred_original_sample"])
    torch.testing.assert_close(expected[1], expected[0], atol=1e-3, rtol=1e-3)


def test_schedulers_that_can_not_serve_say_so(pipe):
    noting = {"callback_on_step_end": lambda *_: {}, "callback_on_step_end_tensor_inputs": ["pred_original_sample"]}
    pipe.scheduler = IPNDMScheduler()
    with pytest.raises(ValueError, match="`pred_original_sample` is not known for steps of IPNDMScheduler"):
        latents_of(pipe, **noting)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ValueError, match="`scheduler` has to take predictions of noise, but FlowMatchEuler"):
        latents_of(pipe)


# -------------------- Inputs --------------------


def test_an_empty_prompt_is_no_prompt(shared):
    stock = StableDiffusionPipeline(
        **{name: getattr(shared, name) for name in ("vae", "text_encoder", "tokenizer", "unet")},
        **dict.fromkeys(("scheduler", "safety_checker", "feature_extractor")),
        requires_safety_checker=False,
    )
    stock.scheduler = shared.scheduler
    stock.set_progress_bar_config(disable=True)
    call = {"height": 256, "width": 64, "num_inference_steps": 3, "guidance_scale": 2.0, "output_type": "latent"}
    expected = stock("", **call, generator=torch.Generator().manual_seed(0)).images
    assert torch.equal(latents_of(shared, prompt="", audio_weight=0.0), expected)


@pytest.mark.parametrize("weight, name", [(0.0, "audio_prompt"), (1.0, "prompt")])
def test_a_silent_side_needs_no_prompt(shared, weight, name):
    expected = latents_of(shared, audio_weight=weight)
    assert torch.equal(latents_of(shared, audio_weight=weight, **{name: None}), expected)


def test_starts_may_be_latents_or_tensors_from_minus_one_on(shared):
    pipe = ImagesThatSoundImg2ImgPipeline(**shared.components)
    pipe.set_progress_bar_config(disable=True)
    image = torch.rand(1, 3, 256, 64, generator=torch.Generator().manual_seed(3))
    expected = latents_of(pipe, image=image, strength=0.7)
    torch.testing.assert_close(latents_of(pipe, image=2 * image - 1, strength=0.7), expected, atol=1e-3, rtol=1e-3)
    stock = StableDiffusionImg2ImgPipeline(
        **{name: getattr(pipe, name) for name in ("vae", "text_encoder", "tokenizer", "unet")},
        **dict.fromkeys(("scheduler", "safety_checker", "feature_extractor")),
        requires_safety_checker=False,
    )
    stock.scheduler = pipe.scheduler
    stock.set_progress_bar_config(disable=True)
    start = torch.randn(1, 4, 32, 8, generator=torch.Generator().manual_seed(3))
    call = {"strength": 0.7, "num_inference_steps": 3, "guidance_scale": 2.0, "output_type": "latent"}
    expected = stock("a castle", image=start, **call, generator=torch.Generator().manual_seed(0)).images
    assert torch.equal(latents_of(pipe, image=start, strength=0.7, audio_weight=0.0), expected)


def test_pictures_of_pillow_are_read_as_the_commands_read_files():
    sixteen = PIL.Image.fromarray(np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8))
    np.testing.assert_allclose(read_pictures(sixteen)[0, 0].numpy(), np.asarray(sixteen) / 65535, atol=2e-3)
    turned = PIL.Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)[:, :4])
    turned.getexif()[0x0112] = 6
    assert read_pictures(turned).shape[-2:] == (4, 8)
    hidden = PIL.Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert read_pictures(hidden).amax() == 0 and read_pictures([hidden], ground=1.0).amin() == 1


def test_a_tiny_autoencoder_encodes_starts(shared):
    torch.manual_seed(0)
    tiny = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4).eval()
    pipe = ImagesThatSoundImg2ImgPipeline(**{**shared.components, "vae": tiny, "vae_audio": None})
    pipe.set_progress_bar_config(disable=True)
    image = torch.rand(1, 3, 256, 64, generator=torch.Generator().manual_seed(3))
    assert torch.isfinite(latents_of(pipe, image=image, strength=0.7)).all()


def test_callbacks_count_the_steps_that_are_taken(shared):
    pipe = ImagesThatSoundImg2ImgPipeline(**shared.components)
    pipe.set_progress_bar_config(disable=True)
    numbers = []

    def count(pipe, step, timestep, tensors):
        numbers.append((step, pipe.num_timesteps))
        return {}

    given = {"image": torch.full((1, 3, 256, 64), 0.5), "strength": 0.5, "num_inference_steps": 10}
    latents_of(pipe, **given, callback_on_step_end=count)
    assert numbers == [(step, 5) for step in range(5)]
    cutoff = SDCFGCutoffCallback(cutoff_step_ratio=0.4)
    assert not torch.equal(latents_of(pipe, **given, callback_on_step_end=cutoff), latents_of(pipe, **given))


# -------------------- Components --------------------


def test_siblings_of_the_same_components_draw_alike(riffusion_folder):
    pipe = ImagesThatSoundPipeline.from_pretrained(STABLE_DIFFUSION)
    pipe.load_audio_prior(riffusion_folder)
    sibling = ImagesThatSoundImg2ImgPipeline(**pipe.components)
    assert (
        sibling.mel_spectrogram
        == pipe.mel_spectrogram
        != ImagesThatSoundPipeline(**{**pipe.components, "unet_audio": None}).mel_spectrogram
    )
    assert sibling.default_arguments["height"] == 512
    # The kind of the audio side's predictions is part of its config, too.
    velocity = ImagesThatSoundPipeline(**pipe.components, audio_prediction_type="v_prediction")
    drawn = latents_of(velocity, height=512)
    assert not torch.equal(drawn, latents_of(pipe, height=512))
    sibling = ImagesThatSoundPipeline(**velocity.components)
    assert torch.equal(latents_of(sibling, height=512), drawn)


def test_the_audio_side_loads_variants_and_precisions(auffusion_folder, tmp_path):
    prior = shutil.copytree(auffusion_folder, tmp_path / "auffusion")
    stock = StableDiffusionPipeline.from_pretrained(auffusion_folder, dtype=torch.float16)
    for name in ("unet", "vae", "text_encoder"):
        for file in (prior / name).glob("*.safetensors"):
            file.unlink()
    stock.save_pretrained(prior, variant="fp16")
    pipe = ImagesThatSoundPipeline.from_pretrained(STABLE_DIFFUSION)
    pipe.tokenizer.add_tokens(["<mine>"])
    pipe.load_audio_prior(prior, variant="fp16", dtype=torch.bfloat16)
    parts = (pipe.unet_audio, pipe.vae_audio, pipe.text_encoder_audio)
    assert {each.dtype for each in parts} == {torch.bfloat16} and pipe.vocoder.dtype == torch.float32


def test_a_callback_may_return_prompts_of_another_length(shared):
    shorter = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    changed = latents_of(shared, callback_on_step_end=lambda *_: {"prompt_embeds": shorter})
    assert torch.isfinite(changed).all() and not torch.equal(changed, latents_of(shared))


def test_stocks_order_of_arguments_says_what_is_wrong(shared):
    with pytest.raises(TypeError, match="`encode_prompt` takes `prompt` and `audio_prompt` before `device`"):
        shared.encode_prompt("a castle", "cpu", 1, True)


def test_warnings_heed_the_verbosity_of_diffusers(caplog):
    for set_verbosity, number in (
        (diffusers_logging.set_verbosity_error, 0),
        (diffusers_logging.set_verbosity_warning, 1),
    ):
        caplog.clear()
        set_verbosity()
        ImagesThatSoundPipeline.from_pretrained(STABLE_DIFFUSION)
        assert len([each for each in caplog.records if "PNDMScheduler" in each.message]) == number


def test_the_audio_side_takes_textual_inversions_and_saves_and_swaps_loras(auffusion_folder, tmp_path):
    pipe = two_sides(ImagesThatSoundPipeline, STABLE_DIFFUSION)
    stock = StableDiffusionPipeline.from_pretrained(auffusion_folder)
    token = {"<birds>": torch.randn(1, 32, generator=torch.Generator().manual_seed(0))}
    for each in (pipe.audio, stock):
        each.load_textual_inversion(token, token="<birds>")
    expected = stock.encode_prompt("<birds> singing", "cpu", 1, False)[0]
    assert torch.equal(pipe.encode_prompt(None, "<birds> singing")[2], expected)
    # The image side has never heard of it, and reads its letters.
    untaught = StableDiffusionPipeline.from_pretrained(STABLE_DIFFUSION)
    assert torch.equal(pipe.encode_prompt("<birds>", None)[0], untaught.encode_prompt("<birds>", "cpu", 1, False)[0])
    pipe.save_pretrained(tmp_path / "taught")
    again = ImagesThatSoundPipeline.from_pretrained(tmp_path / "taught")
    assert torch.equal(again.encode_prompt(None, "<birds> singing")[2], expected)

    torch.manual_seed(0)
    pipe.unet_audio.add_adapter(
        LoraConfig(r=4, lora_alpha=4, init_lora_weights=False, target_modules=["to_q", "to_v"]), "made"
    )
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipe.unet_audio, adapter_name="made"))
    with_lora = latents_of(pipe, audio_weight=1.0)
    pipe.audio.save_lora_weights(tmp_path, unet_lora_layers=layers)
    pipe.audio.delete_adapters("made")
    pipe.audio.load_lora_weights({name: value * 0 for name, value in _unet_keys(layers).items()}, adapter_name="a")
    pipe.audio.load_lora_weights(tmp_path, adapter_name="a", hotswap=True)
    torch.testing.assert_close(latents_of(pipe, audio_weight=1.0), with_lora, atol=1e-4, rtol=1e-4)


def test_an_audio_side_with_another_tokenizer_reads_by_it(auffusion_folder, tmp_path):
    folder = shutil.copytree(auffusion_folder, tmp_path / "auffusion")
    file = folder / "tokenizer" / "tokenizer.json"
    words = json.loads(file.read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["a</w>"], vocabulary["b</w>"] = vocabulary["b</w>"], vocabulary["a</w>"]
    file.write_text(json.dumps(words))
    pipe = ImagesThatSoundPipeline.from_pretrained(STABLE_DIFFUSION)
    pipe.load_audio_prior(folder)
    stock = StableDiffusionPipeline.from_pretrained(folder)
    embeds = pipe.encode_prompt("a", "a")
    assert torch.equal(embeds[2], stock.encode_prompt("a", "cpu", 1, False)[0])
    stock = StableDiffusionPipeline.from_pretrained(STABLE_DIFFUSION)
    assert torch.equal(embeds[0], stock.encode_prompt("a", "cpu", 1, False)[0])


def test_a_textual_inversion_that_one_side_can_not_read_says_so(shared):
    torch.manual_seed(0)
    shared.load_textual_inversion({"<drawn>": torch.randn(1, 32)})
    separate_text_encoders(shared)
    shared.text_encoder_audio.resize_token_embeddings(len(shared.tokenizer) - 1)
    with pytest.raises(ValueError, match="`audio_prompt` or its negative holds a token that the other side alone"):
        shared.encode_prompt("a castle", "<drawn>")


@pytest.mark.parametrize("fused", [False, True])
def test_a_lora_that_is_added_by_hand_leaves_the_audio_prompts_alone(fused):
    """Also one that diffusers' loading did not bring, and in a text encoder that both sides share."""
    pipe = ImagesThatSoundPipeline.from_pretrained(STABLE_DIFFUSION)
    pipe.register_modules(unet_audio=copy.deepcopy(pipe.unet))
    plain = pipe.encode_prompt("a castle", "a bell")
    torch.manual_seed(0)
    pipe.text_encoder.add_adapter(LoraConfig(r=4, init_lora_weights=False, target_modules=["q_proj", "v_proj"]), "a")
    if fused:
        pipe.fuse_lora(components=["text_encoder"])
    drawn = pipe.encode_prompt("a castle", "a bell")
    assert not torch.allclose(drawn[0], plain[0], atol=1e-3) and torch.equal(drawn[2], plain[2])
    assert torch.equal(pipe.encode_prompt("a castle", "a bell")[0], drawn[0])


def _unet_keys(layers):
    return {f"unet.{name}": value for name, value in layers.items()}


def test_other_kinds_of_adapters_are_named_in_a_sentence(shared):
    weights = {"lora_unet_down_blocks_0_attentions_0_proj_in.hada_w1_a": torch.ones(2, 2)}
    with pytest.raises(ValueError, match="another kind of adapter, such as LoHa, LoKr"):
        check_lora(weights, shared.image_side)
