"""Riffusion as the audio side: a folder of its layout with random weights, in all ways of loading."""

import json
import re
import shutil

import pytest
import safetensors.torch
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from huggingface_hub import constants

from images_that_sound.pipelines import (
    SPECTROGRAMS,
    ImagesThatSoundImprintPipeline,
    ImagesThatSoundPipeline,
    ImagesThatSoundSDSPipeline,
    MelSpectrogram,
)
from images_that_sound.pipelines.pipeline_images_that_sound_imprint import imprint
from images_that_sound.scripts import generate


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

RIFFUSION = SPECTROGRAMS["riffusion"]
CALL = {"width": 176, "num_inference_steps": 2}


def two_sides(pipeline_class, image_folder, audio_folder, **kwargs):
    pipe = pipeline_class.from_pretrained(image_folder)
    pipe.load_audio_prior(audio_folder, **kwargs)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pair(stable_diffusion_folder, riffusion_folder):
    return two_sides(ImagesThatSoundPipeline, stable_diffusion_folder, riffusion_folder)


def call(pipe, **arguments):
    return pipe("a castle", "jazz", generator=torch.Generator().manual_seed(0), **{**CALL, **arguments})


def test_it_is_known_by_its_name(pair):
    assert pair.mel_spectrogram == RIFFUSION and pair.sampling_rate == 44100
    assert pair.vocoder is None and pair.vae_audio is None and pair.text_encoder_audio is None
    wanted = {"height": 512, "width": 512, "crop_right": 0, "num_inference_steps": 30, "guidance_scale": 7.0}
    assert wanted.items() <= pair.default_arguments.items()
    assert pair.default_arguments["audio_guidance_scale"] == 7.0 and pair.default_arguments["audio_weight"] == 0.5


def test_any_other_name_needs_the_spectrogram(riffusion_folder, stable_diffusion_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(riffusion_folder, folder)
    pipe = ImagesThatSoundPipeline.from_pretrained(stable_diffusion_folder)
    with pytest.raises(ValueError, match="`vocoder/config.json` is missing.*`spectrogram`.*riffusion"):
        pipe.load_audio_prior(folder)
    with pytest.raises(ValueError, match="`spectrogram` has to be among.*'jazz'"):
        pipe.load_audio_prior(folder, spectrogram="jazz")
    assert pipe.unet_audio is None and pipe.mel_spectrogram == MelSpectrogram()
    for spectrogram in ("riffusion", RIFFUSION.to_dict(), RIFFUSION):
        pipe.load_audio_prior(folder, spectrogram=spectrogram)
        assert pipe.mel_spectrogram == RIFFUSION and pipe.default_arguments["width"] == 512
    own = {"num_mel_bins": 128}
    pipe.load_audio_prior(folder, spectrogram=own)
    assert pipe.mel_spectrogram == MelSpectrogram(**own) and pipe.default_arguments["height"] == 128
    assert pipe.default_arguments["num_inference_steps"] == 100


# Names of diffusers and, in a small model of two blocks of one layer, of the single files of Stable Diffusion v1.5.
UNET_NAMES = {
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
    "down_blocks.0.resnets.0.": "input_blocks.1.0.",
    "down_blocks.0.attentions.0.": "input_blocks.1.1.",
    "down_blocks.0.downsamplers.0.conv.": "input_blocks.2.0.op.",
    "down_blocks.1.resnets.0.": "input_blocks.3.0.",
    "mid_block.resnets.0.": "middle_block.0.",
    "mid_block.attentions.0.": "middle_block.1.",
    "mid_block.resnets.1.": "middle_block.2.",
    "up_blocks.0.resnets.0.": "output_blocks.0.0.",
    "up_blocks.0.resnets.1.": "output_blocks.1.0.",
    "up_blocks.0.upsamplers.0.conv.": "output_blocks.1.1.conv.",
    "up_blocks.1.resnets.0.": "output_blocks.2.0.",
    "up_blocks.1.attentions.0.": "output_blocks.2.1.",
    "up_blocks.1.resnets.1.": "output_blocks.3.0.",
    "up_blocks.1.attentions.1.": "output_blocks.3.1.",
}
UNET_RESNET_NAMES = {
    ".norm1.": ".in_layers.0.",
    ".conv1.": ".in_layers.2.",
    ".time_emb_proj.": ".emb_layers.1.",
    ".norm2.": ".out_layers.0.",
    ".conv2.": ".out_layers.3.",
    ".conv_shortcut.": ".skip_connection.",
}
VAE_NAMES = {
    r"down_blocks\.(\d)\.resnets": r"down.\1.block",
    r"down_blocks\.(\d)\.downsamplers\.0": r"down.\1.downsample",
    r"up_blocks\.(\d)\.resnets": lambda match: f"up.{3 - int(match[1])}.block",
    r"up_blocks\.(\d)\.upsamplers\.0": lambda match: f"up.{3 - int(match[1])}.upsample",
    r"mid_block\.resnets\.(\d)": lambda match: f"mid.block_{int(match[1]) + 1}",
    r"mid_block\.attentions\.0": "mid.attn_1",
    r"attn_1\.group_norm": "attn_1.norm",
    r"attn_1\.to_(q|k|v)": r"attn_1.\1",
    r"attn_1\.to_out\.0": "attn_1.proj_out",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
}


def as_single_file(folder) -> dict[str, torch.Tensor]:
    parts = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None).components
    tensors = {
        f"cond_stage_model.transformer.text_model.{k}": v for k, v in parts["text_encoder"].state_dict().items()
    }
    for name, tensor in parts["unet"].state_dict().items():
        beginning = next(each for each in UNET_NAMES if name.startswith(each))
        rest = name.removeprefix(beginning)
        if ".resnets." in beginning:
            rest = next(f".{rest}".replace(*each) for each in UNET_RESNET_NAMES.items() if each[0] in f".{rest}")[1:]
        tensors[f"model.diffusion_model.{UNET_NAMES[beginning]}{rest}"] = tensor
    for name, tensor in parts["vae"].state_dict().items():
        for diffusers_name, other in VAE_NAMES.items():
            name = re.sub(diffusers_name, other, name)
        convolution = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name)
        tensors[f"first_stage_model.{name}"] = tensor[..., None, None] if convolution else tensor
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def single_file(riffusion_folder, tmp_path_factory):
    """Single files, and where diffusers finds their configuration: a cache of the Hub with Stable Diffusion v1.5."""
    folder = tmp_path_factory.mktemp("files")
    repo = folder / "cache" / "models--stable-diffusion-v1-5--stable-diffusion-v1-5"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40)
    shutil.copytree(riffusion_folder, repo / "snapshots" / ("0" * 40))
    tensors = as_single_file(riffusion_folder)
    safetensors.torch.save_file(tensors, folder / "riffusion.safetensors")
    torch.save({"state_dict": tensors}, folder / "mine.ckpt")
    return folder, {"cache_dir": folder / "cache", "local_files_only": True}


def test_a_single_file_is_the_folder(pair, single_file, stable_diffusion_folder):
    folder, cached = single_file
    for name, arguments in (("riffusion.safetensors", {}), ("mine.ckpt", {"spectrogram": "riffusion"})):
        pipe = two_sides(ImagesThatSoundPipeline, stable_diffusion_folder, folder / name, **arguments, **cached)
        assert pipe.mel_spectrogram == RIFFUSION and pipe.vae_audio is None and pipe.text_encoder_audio is None
        for parameter, value in pair.unet_audio.state_dict().items():
            assert torch.equal(pipe.unet_audio.state_dict()[parameter], value)


def test_the_image_side_is_a_single_file(single_file, riffusion_folder, auffusion_folder):
    folder, cached = single_file
    pipe = ImagesThatSoundPipeline.from_single_file(folder / "riffusion.safetensors", **cached)
    expected = ImagesThatSoundPipeline.from_pretrained(riffusion_folder)
    for name in ("unet", "vae", "text_encoder"):
        weights = getattr(pipe, name).state_dict()
        assert all(torch.equal(weights[key], value) for key, value in getattr(expected, name).state_dict().items())
    pipe.load_audio_prior(auffusion_folder)
    assert pipe.unet_audio is not None


def test_commands_take_a_single_file_as_the_image_side(single_file, auffusion_folder, tmp_path, monkeypatch):
    folder, cached = single_file
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cached["cache_dir"]))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    call = ["--prompt", "a castle", "--audio_prompt", "bell ringing", "--width", "64", "--num_inference_steps", "1"]
    call += ["--no-video", "--device", "cpu", "--audio_model", str(auffusion_folder), "--output_dir", str(tmp_path)]
    generate.main([*call, "--model", str(folder / "riffusion.safetensors")])
    assert (tmp_path / "seed-000000" / "image.png").exists()
    (tmp_path / "mine.ckpt").write_bytes(b"")
    with pytest.raises(SystemExit, match="It has to be a repo, a folder or, for commands by Stable Diff"):
        generate.main([*call, "--model", str(tmp_path / "mine.ckpt")])


def test_a_single_file_that_is_none(single_file, stable_diffusion_folder, tmp_path):
    pipe = ImagesThatSoundPipeline.from_pretrained(stable_diffusion_folder)
    folder, cached = single_file
    (tmp_path / "riffusion.ckpt").write_bytes(b"no weights")
    safetensors.torch.save_file({"weight": torch.ones(1)}, tmp_path / "riffusion.safetensors")
    for name in ("riffusion.ckpt", "riffusion.safetensors"):
        with pytest.raises(ValueError, match="can't be read as a single file"):
            pipe.load_audio_prior(tmp_path / name, **cached)
    with pytest.raises(ValueError, match="mine.ckpt` has no vocoder"):
        pipe.load_audio_prior(folder / "mine.ckpt", **cached)
    with pytest.raises(ValueError, match="`subfolder` has to be empty"):
        pipe.load_audio_prior(folder / "mine.ckpt", subfolder="unet", spectrogram="riffusion")
    with pytest.raises(ValueError, match="`quantization_config` can't be used with a single file"):
        quantized = {"quantization_config": {"quant_method": "torchao"}, "spectrogram": "riffusion"}
        pipe.load_audio_prior(folder / "mine.ckpt", **quantized, **cached)
    assert pipe.unet_audio is None


def test_a_repo_that_names_its_constants_counts_before_its_name(riffusion_folder, stable_diffusion_folder, tmp_path):
    folder = tmp_path / "riffusion-of-mine"
    shutil.copytree(riffusion_folder, folder)
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"spectrogram": {**RIFFUSION.to_dict(), "num_mel_bins": 256}, "default_arguments": {"height": 256}}
    (folder / "model_index.json").write_text(json.dumps(index))
    pipe = two_sides(ImagesThatSoundPipeline, stable_diffusion_folder, folder)
    assert pipe.mel_spectrogram.num_mel_bins == 256 and pipe.mel_spectrogram.black_is_loud
    assert pipe.default_arguments["height"] == 256 and pipe.default_arguments["num_inference_steps"] == 100


def test_the_audio_side_can_be_changed(pair, auffusion_folder, riffusion_folder):
    pair.load_audio_prior(auffusion_folder)
    assert pair.mel_spectrogram == MelSpectrogram() and pair.vocoder is not None
    assert pair.default_arguments["width"] == 1024 and pair.config.default_arguments is None
    pair.load_audio_prior(riffusion_folder)
    assert pair.mel_spectrogram == RIFFUSION and pair.vocoder is None


@torch.no_grad()
def test_black_is_loud_in_a_call(pair):
    output = call(pair, output_type="pt")
    assert output.images.shape == (1, 3, 512, 176) and output.spectrograms.shape == (1, 1, 512, 176)
    assert output.audios.shape == (1, 175 * 441) and output.audios.abs().amax() <= 1
    torch.testing.assert_close(output.audios, RIFFUSION.canvas_to_audio(output.spectrograms))
    louder = output.spectrograms.clone()
    louder[..., :88] = louder[..., :88] ** 2
    halves = RIFFUSION.canvas_to_audio(louder).chunk(2, dim=-1)
    before = output.audios.chunk(2, dim=-1)
    assert halves[0].std() / halves[1].std() > 1.2 * before[0].std() / before[1].std()


def test_length_crop_and_folding(pair):
    output = call(pair, width=None, audio_length_in_s=1.5, output_type="pt")
    assert output.audios.shape == (1, 66150) and output.spectrograms.shape[-1] == 151
    output = call(pair, crop_right=16, output_type="pt")
    assert output.audios.shape == (1, 159 * 441) and output.spectrograms.shape[-1] == 160
    output = call(pair, width=88, canvas_layout="folded", output_type="pt")
    assert output.images.shape[-2:] == (1024, 88) and output.spectrograms.shape[-2:] == (512, 176)
    with pytest.raises(ValueError, match="`width` has to give at least 22 columns to Griffin-Lim, but gives 16"):
        call(pair, width=16)


@pytest.mark.parametrize("guidance_scale", [1.0, 7.0])
def test_the_audio_side_alone_is_stable_diffusion_of_its_folder(pair, riffusion_folder, guidance_scale):
    scales = {"guidance_scale": guidance_scale, "audio_guidance_scale": guidance_scale}
    latents = call(pair, audio_weight=1.0, image_guidance_start=0.0, output_type="latent", **scales).images
    stock = StableDiffusionPipeline.from_pretrained(riffusion_folder, safety_checker=None)
    stock.scheduler = pair.scheduler
    stock.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    expected = stock(
        "jazz", height=512, guidance_scale=guidance_scale, generator=generator, **CALL, output_type="latent"
    )
    assert torch.equal(latents, expected.images)


def test_saved_and_loaded_again(pair, tmp_path):
    latents = call(pair, output_type="latent").images
    pair.save_pretrained(tmp_path / "both")
    index = json.loads((tmp_path / "both" / "model_index.json").read_text())
    assert MelSpectrogram.from_dict(index["spectrogram"]) == RIFFUSION and index["default_arguments"]["width"] == 512
    loaded = ImagesThatSoundPipeline.from_pretrained(tmp_path / "both")
    again = ImagesThatSoundImprintPipeline.from_pretrained(tmp_path / "both")
    for pipe in (loaded, again):
        assert pipe.mel_spectrogram == RIFFUSION and pipe.default_arguments["guidance_scale"] == 7.0
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(call(loaded, output_type="latent").images, latents)
    stock = DiffusionPipeline.from_pretrained(tmp_path / "both", trust_remote_code=True)
    assert stock.mel_spectrogram.to_dict() == RIFFUSION.to_dict()
    other = ImagesThatSoundImprintPipeline.from_pipe(pair)
    assert other.mel_spectrogram == RIFFUSION and other.default_arguments["height"] == 512
    parts = ImagesThatSoundPipeline.from_pretrained(tmp_path / "both")
    parts.load_audio_prior(tmp_path / "both")
    assert parts.mel_spectrogram == RIFFUSION and parts.default_arguments == pair.default_arguments


# Without the package, by the files of the pipelines alone.
ELSEWHERE = """
import sys
sys.modules["images_that_sound"] = None
import torch
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained({image!r}, custom_pipeline={code!r}, trust_remote_code=True)
pipe.load_audio_prior({audio!r})
pipe.set_progress_bar_config(disable=True)
latents = pipe(
    "a castle", "jazz", width=176, num_inference_steps=2, generator=torch.Generator().manual_seed(0),
    output_type="latent",
).images
images, spectrograms, audios = pipe.decode(latents)
assert images.shape == (1, 3, 512, 176) and audios.shape == (1, 175 * 441), audios.shape
torch.save(latents, {result!r})
"""


def test_as_a_custom_pipeline(run_fresh, pair, riffusion_folder, stable_diffusion_folder, fixtures_folder, tmp_path):
    code = ELSEWHERE.format(
        image=str(stable_diffusion_folder),
        audio=str(riffusion_folder),
        code=str(fixtures_folder.parents[1] / "pipelines"),
        result=str(tmp_path / "latents.pt"),
    )
    process = run_fresh(code, directory=tmp_path)
    assert process.returncode == 0, process.stderr
    latents = torch.load(tmp_path / "latents.pt", weights_only=True)
    torch.testing.assert_close(latents, call(pair, output_type="latent").images, atol=1e-4, rtol=0)


# Imprint and score distillation


def test_imprinting_takes_towards_silence():
    """In the negative all is the paper's: what is white there, and loud, is black here."""
    generator = torch.Generator().manual_seed(0)
    spectrograms, images = torch.rand(2, 1, 8, 8, generator=generator), torch.rand(2, 3, 8, 8, generator=generator)
    for invert_image in (True, False):
        white = imprint(spectrograms, images, 0.7, invert_image, silence=1.0)
        torch.testing.assert_close(1 - white, imprint(1 - spectrograms, 1 - images, 0.7, invert_image))
        assert (white >= spectrograms).all()
    blank = imprint(spectrograms, torch.ones(2, 3, 8, 8), 1.0, silence=1.0)
    assert torch.equal(blank, torch.ones(2, 1, 8, 8)), "white paper is silent"
    kept = imprint(spectrograms, torch.zeros(2, 3, 8, 8), 1.0, silence=1.0)
    torch.testing.assert_close(kept, spectrograms)


def test_a_picture_is_imprinted_as_it_is(stable_diffusion_folder, riffusion_folder):
    pipe = two_sides(ImagesThatSoundImprintPipeline, stable_diffusion_folder, riffusion_folder)
    audio = torch.rand(66150, generator=torch.Generator().manual_seed(0)) - 0.5
    picture = torch.ones(1, 3, 512, 151)
    picture[..., 100:400, 50:100] = 0
    output = pipe(image=picture, audio=audio, magnitude_ratio=1.0, output_type="pt")
    assert output.audios.shape == (1, 66150)
    ink = 1 - output.spectrograms[0, 0]
    assert ink[120:380, 60:90].mean() > 0.3 and ink[:, :40].max() < 0.01 and ink[:90].max() < 0.01


def test_score_distillation_follows_the_audio_side(stable_diffusion_folder, riffusion_folder):
    pipe = two_sides(ImagesThatSoundSDSPipeline, stable_diffusion_folder, riffusion_folder)
    assert pipe.default_arguments["height"] == 512 and pipe.default_arguments["crop_right"] == 0
    sizes = {"width": 64, "crop_width": 64, "num_crops": 1, "num_iterations": 2, "image_start_step": 1}
    output = pipe("a castle", "jazz", canvas="pixels", output_type="pt", **sizes)
    assert output.spectrograms.shape == (1, 1, 512, 64) and output.audios.shape == (1, 63 * 441)
