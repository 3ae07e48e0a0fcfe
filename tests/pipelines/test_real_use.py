"""What people do with a pipeline besides calling it as it comes: compile, precompute, swap, cast, mix, offload."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)
from diffusers.callbacks import SDCFGCutoffCallback
from diffusers.hooks import apply_group_offloading
from loopback_hub import LoopbackHub

from images_that_sound.pipelines import (
    FactorizedColorizationPipeline,
    Guided,
    ImagesThatSoundBlocks,
    ImagesThatSoundImprintPipeline,
    ImagesThatSoundPipeline,
    ImagesThatSoundSDSPipeline,
)


NAMES = ("prompt_embeds", "negative_prompt_embeds", "audio_prompt_embeds", "negative_audio_prompt_embeds")
PROMPTS = {"prompt": "a castle", "audio_prompt": "a bell"}
CALL = {"width": 64, "crop_right": 0, "num_inference_steps": 2, "image_guidance_start": 0.0, "output_type": "latent"}
IMPRINT = {"width": 64, "num_inference_steps": 3, "num_audio_inference_steps": 2, "output_type": "latent"}
SDS = {
    "width": 64,
    "crop_width": 64,
    "crop_right": 0,
    "num_crops": 1,
    "num_iterations": 2,
    "image_start_step": 0,
    "canvas": "pixels",
    "output_type": "pt",
}
COLOR = {"num_inference_steps": 3, "start_diffusion_step": 0, "output_type": "pt"}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents_of(pipe, **arguments):
    return pipe(**{**PROMPTS, **CALL, "generator": generator(), **arguments}).images


def without_text_encoders(pipe):
    return type(pipe)(**{**pipe.components, "text_encoder": None, "tokenizer": None, "text_encoder_audio": None})


# Compiled modules


COMPILED = ("unet", "unet_audio", "vae", "vae_audio", "text_encoder", "text_encoder_audio")


@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_module_takes_the_place_of_the_plain_one(pipe, name):
    """By the wrapper, which has no length and no truth of its own."""
    expected = pipe(**{**PROMPTS, **CALL, "output_type": "pt"}, generator=generator())
    fullgraph = "text" not in name
    setattr(pipe, name, torch.compile(getattr(pipe, name), backend="eager", fullgraph=fullgraph))
    output = pipe(**{**PROMPTS, **CALL, "output_type": "pt"}, generator=generator())
    torch.testing.assert_close(output.images, expected.images, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.spectrograms, expected.spectrograms, atol=1e-5, rtol=0)


def test_blocks_over_compiled_modules(pipe):
    expected = latents_of(pipe)
    blocks = ImagesThatSoundBlocks().init_pipeline()
    compiled = {name: torch.compile(getattr(pipe, name), backend="eager") for name in ("unet", "text_encoder_audio")}
    blocks.update_components(**{**pipe.components, **compiled})
    blocks.set_progress_bar_config(disable=True)
    images = blocks(**PROMPTS, **CALL, generator=generator(), output="images")
    torch.testing.assert_close(images, expected, atol=1e-5, rtol=0)


# Precomputed embeddings


@torch.no_grad()
def test_embeddings_replace_the_text_encoders(pipe):
    expected, embeds = latents_of(pipe), dict(zip(NAMES, pipe.encode_prompt(**PROMPTS)))
    alone = without_text_encoders(pipe)
    alone.set_progress_bar_config(disable=True)
    given = {**CALL, **embeds, "generator": generator()}
    assert torch.equal(alone(**given).images, expected)
    blocks = ImagesThatSoundBlocks().init_pipeline()
    blocks.update_components(**{**alone.components, "text_encoder": None, "tokenizer": None})
    blocks.set_progress_bar_config(disable=True)
    assert torch.equal(blocks(**{**given, "generator": generator()}, output="images"), expected)
    with pytest.raises(ValueError, match="Without `text_encoder`.*`negative_prompt_embeds`"):
        alone(**{**given, "negative_prompt_embeds": None})
    with pytest.raises(ValueError, match="Without `text_encoder`.*`audio_prompt_embeds`"):
        alone(**{**given, "audio_prompt_embeds": None, "audio_prompt": "a bell"})
    alone(**{**given, "negative_prompt_embeds": None, "guidance_scale": 1.0})


@torch.no_grad()
def test_embeddings_replace_the_text_encoders_of_imprint(imprint_pipe):
    expected = imprint_pipe(**PROMPTS, **IMPRINT, generator=generator()).spectrograms
    embeds = dict(zip(NAMES, imprint_pipe.encode_prompt(**PROMPTS)))
    alone = without_text_encoders(imprint_pipe)
    alone.set_progress_bar_config(disable=True)
    assert torch.equal(alone(**embeds, **IMPRINT, generator=generator()).spectrograms, expected)


def test_embeddings_replace_the_text_encoders_of_sds(sds_pipe):
    expected = sds_pipe(**PROMPTS, **SDS, generator=generator()).spectrograms
    with torch.no_grad():
        embeds = dict(zip(NAMES, sds_pipe.encode_prompt(**PROMPTS)))
    alone = without_text_encoders(sds_pipe)
    alone.set_progress_bar_config(disable=True)
    torch.testing.assert_close(alone(**embeds, **SDS, generator=generator()).spectrograms, expected)


@torch.no_grad()
def test_a_text_encoder_alone_encodes(pipe, colorization_pipe, pixel_pipe):
    """As one does with a large one: encode, drop it, and load the rest."""
    for whole in (pipe, colorization_pipe, pixel_pipe):
        parts = ("tokenizer", "text_encoder", "tokenizer_audio", "text_encoder_audio")
        components = {k: v if k in parts or "scheduler" in k else None for k, v in whole.components.items()}
        alone = type(whole)(**components)
        prompts = PROMPTS if "unet_audio" in whole.components else {"prompt": "a castle"}
        for found, expected in zip(alone.encode_prompt(**prompts), whole.encode_prompt(**prompts), strict=True):
            assert torch.equal(found, expected)


@torch.no_grad()
def test_each_side_is_encoded_alone(pipe):
    both = pipe.encode_prompt(**PROMPTS, negative_audio_prompt="noise")
    image = pipe.encode_prompt("a castle", None)[:2]
    audio = pipe.encode_prompt(None, "a bell", negative_audio_prompt="noise")[2:]
    assert all(torch.equal(*pair) for pair in zip((*image, *audio), both, strict=True))


# Guidance


@pytest.mark.parametrize("guidance_scale", [0.5, 1.0])
def test_sds_without_guidance_runs_each_row_once(sds_pipe, guidance_scale):
    rows = {"unet": [], "unet_audio": []}
    for name, seen in rows.items():
        getattr(sds_pipe, name).register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(len(inputs[0])))
    scales = {"guidance_scale": guidance_scale, "audio_guidance_scale": guidance_scale}
    output = sds_pipe(**PROMPTS, **SDS, **scales, generator=generator())
    assert torch.isfinite(output.spectrograms).all()
    assert rows == {"unet": [1, 1], "unet_audio": [1, 1]}


def rows_after_cutoff(pipe, unet: str, call: dict) -> list[int]:
    rows = []
    getattr(pipe, unet).register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    callback = SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=0)
    pipe(**call, generator=generator(), callback_on_step_end=callback)
    return rows


def test_guidance_is_cut_off_by_diffusers_own_callback(pipe, imprint_pipe, sds_pipe, colorization_pipe):
    assert rows_after_cutoff(pipe, "unet", {**PROMPTS, **CALL}) == [2, 1]
    assert rows_after_cutoff(imprint_pipe, "unet", {**PROMPTS, **IMPRINT}) == [2, 1, 1]
    assert rows_after_cutoff(sds_pipe, "unet", {**PROMPTS, **SDS}) == [2, 1]
    picture = {"image": torch.full((1, 3, 32, 32), 0.5), "prompt": "a castle"}
    assert rows_after_cutoff(colorization_pipe, "unet", {**picture, **COLOR}) == [2, 1, 1]


def test_cut_off_guidance_is_back_for_the_next_canvas(pixel_pipe):
    rows = rows_after_cutoff(pixel_pipe, "unet", {**PROMPTS, **SDS, "num_images_per_prompt": 2})
    assert rows == [2, 1, 2, 1]


# One prompt for all of the other side's


@pytest.mark.parametrize("one", ["a bell", ["a bell"]])
def test_a_single_prompt_serves_all_of_the_other_side(pipe, imprint_pipe, one):
    generators = [generator(i) for i in range(2)]
    many = {"prompt": ["a castle", "a train"], "audio_prompt": one, "negative_audio_prompt": "noise"}
    spelled_out = {**many, "audio_prompt": ["a bell"] * 2}
    batch = pipe(**many, **CALL, generator=generators).images
    expected = pipe(**spelled_out, **CALL, generator=[generator(i) for i in range(2)]).images
    torch.testing.assert_close(batch, expected, atol=1e-5, rtol=0)
    batch = imprint_pipe(**many, **IMPRINT, generator=[generator(i) for i in range(2)]).spectrograms
    expected = imprint_pipe(**spelled_out, **IMPRINT, generator=[generator(i) for i in range(2)]).spectrograms
    torch.testing.assert_close(batch, expected, atol=1e-4, rtol=1e-4)


def test_a_single_audio_prompt_serves_all_canvases_of_sds(pixel_pipe):
    prompts = {"prompt": ["a castle", "a train"], "audio_prompt": "a bell"}
    batch = pixel_pipe(**prompts, **SDS, generator=[generator(0), generator(1)]).spectrograms
    single = pixel_pipe("a train", "a bell", **SDS, generator=generator(1)).spectrograms
    torch.testing.assert_close(batch[1], single[0], atol=1e-6, rtol=0)


# Schedulers


def test_a_given_scheduler_is_kept(pipe, stable_diffusion_folder, tmp_path):
    given = PNDMScheduler.from_config(pipe.scheduler.config)
    assert ImagesThatSoundPipeline(**{**pipe.components, "scheduler": given}).scheduler is given
    loaded = ImagesThatSoundPipeline.from_pretrained(stable_diffusion_folder, scheduler=given)
    assert loaded.scheduler is given
    loaded.save_pretrained(tmp_path)
    assert type(ImagesThatSoundPipeline.from_pretrained(tmp_path).scheduler) is PNDMScheduler
    stock = StableDiffusionPipeline.from_pretrained(stable_diffusion_folder)
    assert ImagesThatSoundPipeline.from_pipe(stock, scheduler=given).scheduler is given


def test_a_scheduler_that_the_repo_names_is_replaced_and_that_is_said(stable_diffusion_folder, caplog):
    pipe = ImagesThatSoundPipeline.from_pretrained(stable_diffusion_folder)
    assert type(pipe.scheduler) is DDIMScheduler and "PNDMScheduler" in caplog.text


def test_sds_keeps_the_scheduler_and_uses_its_noise_levels(pixel_pipe):
    expected = pixel_pipe(**PROMPTS, **SDS, generator=generator()).spectrograms
    euler = EulerDiscreteScheduler.from_config(pixel_pipe.scheduler.config)
    torch.testing.assert_close(euler.alphas_cumprod, pixel_pipe.scheduler.alphas_cumprod)
    other = ImagesThatSoundSDSPipeline(**{**pixel_pipe.components, "scheduler": euler})
    other.set_progress_bar_config(disable=True)
    assert other.scheduler is euler
    torch.testing.assert_close(other(**PROMPTS, **SDS, generator=generator()).spectrograms, expected)


@pytest.mark.parametrize("scheduler", [DPMSolverMultistepScheduler, DDIMScheduler])
def test_colorization_by_another_scheduler(colorization_pipe, scheduler):
    pipe = colorization_pipe
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    pipe.scheduler_super_resolution = scheduler.from_config(pipe.scheduler_super_resolution.config)
    gray = torch.rand(1, 1, 32, 32, generator=generator()).expand(-1, 3, -1, -1)
    output = pipe(gray, "a castle", **COLOR, generator=generator())
    assert torch.isfinite(output.images).all()


# Precision


def test_the_vocoder_is_never_rounded(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    exact = pipe.vocoder.state_dict()
    for dtype in (torch.bfloat16, {"default": torch.bfloat16}, {"default": torch.bfloat16, "vocoder": torch.float16}):
        for load in (
            ImagesThatSoundPipeline.from_pretrained(tmp_path, dtype=dtype),
            DiffusionPipeline.from_pretrained(tmp_path, dtype=dtype, trust_remote_code=True),
        ):
            assert load.unet.dtype == torch.bfloat16 and load.vocoder.dtype == torch.float32
            assert all(torch.equal(value, exact[name]) for name, value in load.vocoder.state_dict().items())


@pytest.mark.parametrize(
    "pipeline_class", [ImagesThatSoundPipeline, ImagesThatSoundImprintPipeline, FactorizedColorizationPipeline]
)
def test_precision_can_be_named_for_each_component(request, pipeline_class, tmp_path):
    name = "colorization_pipe" if pipeline_class is FactorizedColorizationPipeline else "pipe"
    request.getfixturevalue(name).save_pretrained(tmp_path)
    loaded = pipeline_class.from_pretrained(tmp_path, dtype={"default": torch.float32, "unet": torch.bfloat16})
    assert loaded.unet.dtype == torch.bfloat16 and loaded.text_encoder.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parts_that_are_equal_but_for_rounding_are_kept_once(
    stable_diffusion_folder, auffusion_folder, tmp_path, dtype
):
    """A half-precision variant of Stable Diffusion beside an Auffusion in full precision, in any precision."""
    half, prior = tmp_path / "half", shutil.copytree(auffusion_folder, tmp_path / "auffusion")
    stock = StableDiffusionPipeline.from_pretrained(stable_diffusion_folder, dtype=torch.float16)
    stock.save_pretrained(half, variant="fp16")
    for part in ("vae", "text_encoder"):
        shutil.rmtree(prior / part)
        shutil.copytree(stable_diffusion_folder / part, prior / part)
    pipe = ImagesThatSoundPipeline.from_pretrained(half, variant="fp16", dtype=dtype)
    pipe.load_audio_prior(prior)
    assert pipe.vae_audio is None and pipe.text_encoder_audio is None
    other = ImagesThatSoundPipeline.from_pretrained(half, variant="fp16", dtype=dtype)
    other.load_audio_prior(auffusion_folder)
    assert other.vae_audio is not None and other.text_encoder_audio is not None


def test_public_halves_of_a_call_compute_no_gradients(pipe):
    noise = torch.randn(1, 4, 32, 8, generator=generator())
    with torch.no_grad():
        embeds = dict(zip(NAMES, pipe.encode_prompt(**PROMPTS)))
    image = Guided(pipe.image_side, embeds["prompt_embeds"], embeds["negative_prompt_embeds"], 10.0)
    audio = Guided(pipe.audio_side, embeds["audio_prompt_embeds"], embeds["negative_audio_prompt_embeds"], 10.0)
    canvas = pipe.resolve_size(width=64, crop_right=0)
    latents = pipe.denoise(noise, pipe.prepare_steps([0.5] * 2), image, audio, canvas)
    assert torch.equal(latents, latents_of(pipe, latents=noise))
    images, spectrograms, audios = pipe.decode(latents, canvas)
    assert not any(value.requires_grad for value in (latents, images, spectrograms, audios))


# Loading


def test_the_audio_side_is_not_loaded_behind_offloading_hooks(stable_diffusion_folder, auffusion_folder):
    pipe = ImagesThatSoundPipeline.from_pretrained(stable_diffusion_folder)
    apply_group_offloading(
        pipe.unet, onload_device=torch.device("cpu"), offload_device=torch.device("cpu"), offload_type="leaf_level"
    )
    with pytest.raises(ValueError, match="`load_audio_prior` has to be called before offloading"):
        pipe.load_audio_prior(auffusion_folder)


def test_group_offloading_reaches_both_sides(pipe):
    expected = latents_of(pipe)
    for unet in (pipe.unet, pipe.unet_audio):
        unet.enable_group_offload(
            onload_device=torch.device("cpu"), offload_device=torch.device("cpu"), offload_type="leaf_level"
        )
    assert torch.equal(latents_of(pipe), expected)


LOAD = """
import sys
from images_that_sound.pipelines import ImagesThatSoundPipeline
pipe = ImagesThatSoundPipeline.from_pretrained("tester/stable-diffusion")
print(sorted(pipe.components))
"""


def test_a_safety_checker_is_not_downloaded(stable_diffusion_folder, tmp_path):
    folder = shutil.copytree(stable_diffusion_folder, tmp_path / "repo")
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (folder / "model_index.json").write_text(json.dumps(index))
    for part, file in (("safety_checker", "model.safetensors"), ("feature_extractor", "preprocessor_config.json")):
        (folder / part).mkdir(exist_ok=True)
        (folder / part / file).write_text("{}")
        (folder / part / "config.json").write_text("{}")
    hub = LoopbackHub({})
    hub.put("tester/stable-diffusion", folder)
    environment = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {**os.environ, **environment, "HF_HUB_OFFLINE": "0"}
    process = subprocess.run([sys.executable, "-c", LOAD], env=environment, capture_output=True, text=True)
    hub.shutdown()
    assert process.returncode == 0, process.stderr
    assert "unet" in process.stdout and "safety_checker" not in process.stdout
    downloaded = {file.name for file in (tmp_path / "home").rglob("*")}
    assert "unet" in downloaded and "safety_checker" not in downloaded


# What diffusers' own mixins switch on and off


@pytest.mark.parametrize("name", ["pipe", "imprint_pipe"])
def test_freeu_and_fused_projections_reach_both_sides(request, name):
    pipe = request.getfixturevalue(name)
    call = {**PROMPTS, **(CALL if name == "pipe" else IMPRINT)}

    def result(**arguments):
        output = pipe(**call, **arguments, generator=generator())
        return output.images if output.spectrograms is None else output.spectrograms

    only_audio = {"audio_weight": 1.0} if name == "pipe" else {}
    plain = result(**only_audio)
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    assert not torch.allclose(result(**only_audio), plain, atol=1e-3)
    pipe.disable_freeu()
    assert torch.equal(result(**only_audio), plain)

    processors = {type(p).__name__ for p in pipe.unet_audio.attn_processors.values()}
    pipe.fuse_qkv_projections()
    for model in (pipe.unet, pipe.unet_audio, pipe.vae, pipe.vae_audio):
        assert {type(p).__name__ for p in model.attn_processors.values()} == {"FusedAttnProcessor2_0"}
    torch.testing.assert_close(result(**only_audio), plain, atol=1e-3, rtol=1e-3)
    pipe.unfuse_qkv_projections()
    assert {type(p).__name__ for p in pipe.unet_audio.attn_processors.values()} == processors
    assert torch.equal(result(**only_audio), plain)


def test_an_interrupted_call_does_not_silence_the_next(pipe):
    def stop(pipeline, step, timestep, tensors):
        pipeline._interrupt = True
        return tensors

    first = latents_of(pipe, num_inference_steps=3, callback_on_step_end=stop)
    whole = latents_of(pipe, num_inference_steps=3)
    assert not torch.equal(first, whole)
    assert torch.equal(latents_of(pipe, num_inference_steps=3), whole)
