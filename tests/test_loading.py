"""The three ways in, each in a fresh process, from an unrelated directory; and what `save_pretrained` leaves."""

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import soundfile
import torch
from diffusers import ControlNetModel

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.scripts.common.models import EMBEDDED


PIPELINES = Path(__file__).parents[1] / "pipelines"
COMPOSE = """
import sys
import torch
if {without_package}:
    sys.modules["images_that_sound"] = None
from diffusers import DiffusionPipeline
{load}
output = pipe("a painting of castle towers", "bell ringing", width=64, num_inference_steps=2, output_type="latent",
              generator=torch.Generator().manual_seed(0))
torch.save(output.images, {result!r})
pipe.save_pretrained({saved!r})
"""
INSTALLED = "from images_that_sound.pipelines import ImagesThatSoundPipeline\n"


@pytest.fixture
def run(run_fresh, tmp_path):
    """Runs code in a fresh process; gives what it printed, and its exit code."""
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    return partial(run_fresh, directory=directory)


def compose(run, tmp_path: Path, load: str, without_package: bool, name: str) -> tuple[torch.Tensor, Path]:
    result, saved = tmp_path / f"{name}.pt", tmp_path / name
    code = COMPOSE.format(without_package=without_package, load=load, result=str(result), saved=str(saved))
    process = run(code)
    assert process.returncode == 0, process.stderr
    return torch.load(result, weights_only=True), saved


@pytest.fixture
def expected(pipe) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    call = dict(width=64, num_inference_steps=2, output_type="latent", generator=generator)
    return pipe("a painting of castle towers", "bell ringing", **call).images


def test_installed_package(run, tmp_path, expected, stable_diffusion_folder, auffusion_folder):
    load = (
        f"{INSTALLED}pipe = ImagesThatSoundPipeline.from_pretrained({str(stable_diffusion_folder)!r})\n"
        f"pipe.load_audio_prior({str(auffusion_folder)!r})"
    )
    latents, saved = compose(run, tmp_path, load, without_package=False, name="first")
    torch.testing.assert_close(latents, expected, atol=1e-4, rtol=0)

    again = f"{INSTALLED}pipe = ImagesThatSoundPipeline.from_pretrained({str(saved)!r})"
    latents, _ = compose(run, tmp_path, again, without_package=False, name="second")
    torch.testing.assert_close(latents, expected, atol=1e-4, rtol=0)


def test_custom_pipeline_and_the_folder_that_it_saves(
    run, tmp_path, expected, pipe, stable_diffusion_folder, auffusion_folder
):
    net = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(4, 4, 4, 4))
    net.save_pretrained(tmp_path / "net")
    load = (
        f"from diffusers import ControlNetModel\nnet = ControlNetModel.from_pretrained({str(tmp_path / 'net')!r})\n"
        f"pipe = DiffusionPipeline.from_pretrained({str(stable_diffusion_folder)!r}, controlnet=[net, net],"
        f" custom_pipeline={str(PIPELINES)!r}, trust_remote_code=True)\n"
        f"pipe.load_audio_prior({str(auffusion_folder)!r})"
    )
    latents, saved = compose(run, tmp_path, load, without_package=True, name="first")
    torch.testing.assert_close(latents, expected, atol=1e-4, rtol=0)

    again = f"pipe = DiffusionPipeline.from_pretrained({str(saved)!r}, trust_remote_code=True)"
    latents, saved = compose(run, tmp_path, again, without_package=True, name="second")
    torch.testing.assert_close(latents, expected, atol=1e-4, rtol=0)

    once_more = f"pipe = DiffusionPipeline.from_pretrained({str(saved)!r}, trust_remote_code=True)"
    latents, saved = compose(run, tmp_path, once_more, without_package=True, name="third")
    torch.testing.assert_close(latents, expected, atol=1e-4, rtol=0)
    assert len(list(saved.glob("controlnet*/*.safetensors"))) == 2


def test_code_of_a_repo_does_not_run_without_trust(run, pipe, tmp_path, stable_diffusion_folder):
    pipe.save_pretrained(tmp_path / "whole")
    for arguments in (
        f"{str(stable_diffusion_folder)!r}, custom_pipeline={str(PIPELINES)!r}",
        f"{str(tmp_path / 'whole')!r}",
    ):
        process = run(f"from diffusers import DiffusionPipeline\nDiffusionPipeline.from_pretrained({arguments})")
        assert process.returncode != 0
        assert "trust_remote_code=True" in process.stderr
    assert not list((tmp_path / "elsewhere" / "modules").rglob("pipeline_images_that_sound.py"))


def test_saved_index_names_no_path_and_holds_the_code(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    index = (tmp_path / "model_index.json").read_text()
    assert str(Path(__file__).parents[1]) not in index
    for file in tmp_path.glob("*.py"):
        assert file.read_bytes() == (PIPELINES / file.name).read_bytes()
    shared = ("audio_prior", "audio_side", "canvas", "checks", "denoising", "files", "guides", "loading", "lora")
    shared += ("picture_reading", "sides", "spectrogram", "two_sides")
    expected = {"pipeline_images_that_sound.py", *(f"images_that_sound_{name}.py" for name in shared)}
    assert {file.name for file in tmp_path.glob("*.py")} == expected


def test_the_embedded_folder_holds_everything(run, tmp_path):
    for name, load, without_package in (
        (
            "by its own code",
            f"pipe = DiffusionPipeline.from_pretrained({str(EMBEDDED)!r}, trust_remote_code=True)",
            True,
        ),
        ("by the package", f"{INSTALLED}pipe = ImagesThatSoundPipeline.from_pretrained({str(EMBEDDED)!r})", False),
    ):
        latents, _ = compose(run, tmp_path, load, without_package, name)
        assert latents.shape == (1, 4, 16, 8) and torch.isfinite(latents).all()


def test_diffusers_own_command_makes_picture_and_sound(run, tmp_path):
    call = {"width": 128, "num_inference_steps": 2}
    arguments = {"prompt": "a painting of castle towers", "audio_prompt": "bell ringing", **call}
    command = ["run", "--model", str(EMBEDDED), "--trust-remote-code", "--seed", "0", "--device-map", "cpu"]
    command += ["--pipeline-kwargs", json.dumps(arguments), "--output", f"{tmp_path / 'out'}{os.sep}"]
    process = run(
        "import sys\nsys.modules['images_that_sound'] = None\nfrom diffusers.commands.diffusers_cli import main\n"
        f"sys.argv[1:] = {command!r}\nmain()"
    )
    assert process.returncode == 0, process.stderr

    pipe = ImagesThatSoundPipeline.from_pretrained(EMBEDDED)
    expected = pipe(**arguments, generator=torch.Generator().manual_seed(0))
    picture, sound = sorted((tmp_path / "out").iterdir())
    assert (picture.suffix, sound.suffix) == (".png", ".wav")
    difference = np.asarray(PIL.Image.open(picture), int) - np.asarray(expected.images[0], int)
    assert difference.shape == (128, 128, 3) and abs(difference).max() <= 1
    waveform, rate = soundfile.read(sound)
    assert rate == pipe.sampling_rate and waveform.shape == expected.audios[0].shape
    np.testing.assert_allclose(waveform, expected.audios[0], atol=1e-3)


SIBLINGS = {
    "ImagesThatSoundSDSPipeline": (
        "pipeline_images_that_sound_sds.py",
        "deepfloyd-if-stage-1",
        "pipe.load_audio_prior({models}/'auffusion')",
        "pipe('castle towers', 'bell ringing', width=64, crop_width=64, num_crops=1, num_iterations=1,"
        " image_start_step=0, canvas='pixels', generator=torch.Generator().manual_seed(0), output_type='pt').images",
    ),
    "ImagesThatSoundImprintPipeline": (
        "pipeline_images_that_sound_imprint.py",
        "stable-diffusion",
        "pipe.load_audio_prior({models}/'auffusion')",
        "pipe('castle towers', 'bell ringing', width=64, num_inference_steps=2, num_audio_inference_steps=2,"
        " output_type='latent', generator=torch.Generator().manual_seed(0)).spectrograms",
    ),
    "FactorizedColorizationPipeline": (
        "pipeline_factorized_colorization.py",
        "deepfloyd-if-stage-1",
        "pipe.load_super_resolution({models}/'deepfloyd-if-stage-2')",
        "pipe(torch.linspace(0, 1, 3072).reshape(1, 3, 32, 32), 'a castle', num_inference_steps=2,"
        " start_diffusion_step=1, output_type='pt', generator=torch.Generator().manual_seed(0)).images",
    ),
}


@pytest.mark.parametrize("name", SIBLINGS)
def test_three_ways_into_each_sibling(run, tmp_path, fixtures_folder, name):
    """From the package, as a custom pipeline, and from a folder that was saved; each in a process of its own."""
    file, base, rest, call = SIBLINGS[name]
    models = fixtures_folder / "models"
    rest = rest.format(models=f"__import__('pathlib').Path({str(models)!r})")
    base, code = str(models / base), str(PIPELINES / file)
    ways = {
        "package": f"from images_that_sound.pipelines import {name} as P\npipe = P.from_pretrained({base!r})\n{rest}",
        "custom": "from diffusers import DiffusionPipeline as P\n"
        f"pipe = P.from_pretrained({base!r}, custom_pipeline={code!r}, trust_remote_code=True)\n{rest}",
        "folder": "from diffusers import DiffusionPipeline as P\n"
        f"pipe = P.from_pretrained({str(tmp_path / 'custom')!r}, trust_remote_code=True)",
    }
    results = {}
    for way, load in ways.items():
        hidden = "" if way == "package" else "import sys\nsys.modules['images_that_sound'] = None\n"
        result = tmp_path / f"{way}.pt"
        end = f"\ntorch.save({call}, {str(result)!r})\npipe.save_pretrained({str(tmp_path / way)!r})"
        process = run(f"{hidden}import torch\n{load}\nassert type(pipe).__name__ == {name!r}{end}")
        assert process.returncode == 0, process.stderr
        results[way] = torch.load(result, weights_only=True)
    for way in ("custom", "folder"):
        torch.testing.assert_close(results[way], results["package"], atol=2e-3, rtol=0)

    untrusting = f"from diffusers import DiffusionPipeline as P\nP.from_pretrained({base!r}, custom_pipeline={code!r})"
    process = run(untrusting)
    assert process.returncode != 0 and "trust_remote_code=True" in process.stderr
