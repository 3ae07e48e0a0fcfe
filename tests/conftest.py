import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, DiffusionPipeline, UNet2DConditionModel
from fresh_processes import FreshProcesses
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from images_that_sound.pipelines import (
    FactorizedColorizationPipeline,
    ImagesThatSoundImprintPipeline,
    ImagesThatSoundPipeline,
    ImagesThatSoundSDSPipeline,
)


FIXTURES = Path(__file__).parent / "fixtures"
STABLE_DIFFUSION = FIXTURES / "models" / "stable-diffusion"
AUFFUSION = FIXTURES / "models" / "auffusion"
DEEPFLOYD = FIXTURES / "models" / "deepfloyd-if-stage-1"


def two_sides(pipeline_class: type[DiffusionPipeline], folder: Path) -> DiffusionPipeline:
    """An image side's folder and the audio side, random-weight conformance models."""
    pipeline = pipeline_class.from_pretrained(folder)
    pipeline.load_audio_prior(AUFFUSION)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def controlnet_of(unet: UNet2DConditionModel, seed: int, **kwargs: object) -> ControlNetModel:
    """A ControlNet whose residuals are not 0, as those of a new one are."""
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8, 8, 16), **kwargs)
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return net.eval()


def save_ip_adapter(unet: UNet2DConditionModel, file: Path) -> None:
    """Random weights of an IP-Adapter with its image encoder beside it, as a repo holds them."""
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 32, "projection_dim": 8, "image_size": 32, "patch_size": 16}
    config = CLIPVisionConfig(num_hidden_layers=1, num_attention_heads=2, **size)
    CLIPVisionModelWithProjection(config).save_pretrained(file.parent / "image_encoder")
    size = unet.config.cross_attention_dim
    weights = {"image_proj.proj.weight": torch.randn(4 * size, 8), "image_proj.proj.bias": torch.randn(4 * size)}
    weights |= {"image_proj.norm.weight": torch.ones(size), "image_proj.norm.bias": torch.zeros(size)}
    names = [name.removesuffix(".processor") for name in unet.attn_processors if "attn2" in name]
    for i, name in enumerate(names):
        shape = unet.get_submodule(name).to_k.weight.shape
        weights |= {f"ip_adapter.{2 * i + 1}.to_{part}_ip.weight": torch.randn(shape) for part in "kv"}
    save_file(weights, file)


@pytest.fixture(scope="session")
def stable_diffusion_folder() -> Path:
    return STABLE_DIFFUSION


@pytest.fixture(scope="session")
def auffusion_folder() -> Path:
    return AUFFUSION


@pytest.fixture(scope="session")
def riffusion_folder(tmp_path_factory) -> Path:
    """Stable Diffusion's layout, with the same VAE and text encoder, another UNet and no vocoder."""
    folder = tmp_path_factory.mktemp("some") / "riffusion-model-v1"
    shutil.copytree(STABLE_DIFFUSION, folder)
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    generator = torch.Generator().manual_seed(0)
    for parameter in unet.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    unet.save_pretrained(folder / "unet")
    return folder


@pytest.fixture
def pipe() -> ImagesThatSoundPipeline:
    return two_sides(ImagesThatSoundPipeline, STABLE_DIFFUSION)


@pytest.fixture
def imprint_pipe() -> ImagesThatSoundImprintPipeline:
    return two_sides(ImagesThatSoundImprintPipeline, STABLE_DIFFUSION)


@pytest.fixture
def pixel_pipe() -> ImagesThatSoundSDSPipeline:
    return two_sides(ImagesThatSoundSDSPipeline, DEEPFLOYD)


@pytest.fixture(params=["pixel", "latent"])
def sds_pipe(request) -> ImagesThatSoundSDSPipeline:
    """Either image prior beside the audio prior."""
    folder = {"pixel": DEEPFLOYD, "latent": STABLE_DIFFUSION}[request.param]
    return two_sides(ImagesThatSoundSDSPipeline, folder)


@pytest.fixture
def colorization_pipe() -> FactorizedColorizationPipeline:
    """Both stages of the random-weight DeepFloyd IF."""
    pipeline = FactorizedColorizationPipeline.from_pretrained(DEEPFLOYD)
    pipeline.load_super_resolution(FIXTURES / "models" / "deepfloyd-if-stage-2")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def golden():
    """Reads tensors and arguments of a run of the reference implementation."""

    def read(name: str) -> tuple[dict[str, torch.Tensor], dict]:
        with safe_open(FIXTURES / "goldens" / f"{name}.safetensors", "pt") as file:
            arguments = json.loads(file.metadata()["arguments"])
            return {key: file.get_tensor(key) for key in file.keys()}, arguments

    return read


@pytest.fixture
def fixtures_folder() -> Path:
    return FIXTURES


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium, where there is one."""
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("needs Debian's chromium and chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run"):
        options.add_argument(f"--{flag}")
    options.add_argument("--autoplay-policy=no-user-gesture-required")
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def run_fresh(tmp_path_factory):
    """Runs code in fresh processes."""
    processes = FreshProcesses(tmp_path_factory.mktemp("fresh"))
    yield processes
    processes.close()
