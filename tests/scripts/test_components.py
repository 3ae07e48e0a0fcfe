"""ControlNets, IP-Adapters and LoRAs on the command line: the same as by the pipeline's own methods, and recorded."""

import copy
import hashlib
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import controlnet_of, save_ip_adapter
from diffusers import ControlNetModel, EulerDiscreteScheduler, TCDScheduler, UniPCMultistepScheduler
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.scripts import generate, search
from images_that_sound.scripts.common.control_lines import lines_of
from images_that_sound.scripts.common.models import EMBEDDED, EMBEDDED_CONTROLNET, new_scheduler
from images_that_sound.scripts.common.own_files import source_and_weight
from images_that_sound.scripts.common.presets import SCHEDULERS
from images_that_sound.scripts.common.samples import write_picture


PROMPTS = {"prompt": "a painting of furry kittens, grayscale", "audio_prompt": "birds singing sweetly"}
WORDS = [word for name, value in PROMPTS.items() for word in (f"--{name}", value)]
QUICK = ["--num_inference_steps", "2", "--width", "128", "--device", "cpu", "--no-video"]
CALL = {**PROMPTS, "num_inference_steps": 2, "width": 128}


@pytest.fixture(scope="module")
def pipe():
    pipe = ImagesThatSoundPipeline.from_pretrained(EMBEDDED)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def parts(pipe, tmp_path_factory) -> Path:
    """
    A folder with a ControlNet, one for onsets as FoleyCrafter stores it, an IP-Adapter as its repo holds it, a LoRA,
    one for a wider UNet, and a picture.
    """
    folder = tmp_path_factory.mktemp("parts")
    onsets = ControlNetModel.from_unet(pipe.unet_audio, conditioning_channels=1)
    weights = {f"module.{name}": each + 0.02 for name, each in onsets.state_dict().items()}
    (folder / "onsets").mkdir()
    torch.save(weights, folder / "onsets" / "temporal_adapter.ckpt")
    controlnet_of(pipe.unet, 0).save_pretrained(folder / "net")
    save_ip_adapter(pipe.unet, folder / "adapter" / "models" / "ip-adapter_sd15.safetensors")
    unet = copy.deepcopy(pipe.unet)
    unet.add_adapter(LoraConfig(r=4, init_lora_weights=False, target_modules=["to_q", "to_v"]))
    lora = {
        f"unet.{name}": each for name, each in convert_state_dict_to_diffusers(get_peft_model_state_dict(unet)).items()
    }
    save_file(lora, folder / "style.safetensors")
    save_file({name: torch.cat([each] * 2, -1) for name, each in lora.items()}, folder / "other.safetensors")
    torch.save(lora, folder / "style.bin")
    rows, columns = np.mgrid[:96, :64]
    PIL.Image.fromarray(np.uint8(3 * columns + rows)).save(folder / "ramp.png")
    return folder


def made(folder: Path) -> np.ndarray:
    return np.asarray(PIL.Image.open(folder / "seed-000000" / "image.png")).astype(int)


def test_components_act_as_the_pipeline_s_own_methods_load_them(pipe, parts, tmp_path, monkeypatch):
    """All of them in one run, beside a pipeline that is put together by hand."""
    monkeypatch.chdir(parts)
    components = ["--controlnet", "net", "--control_image", "ramp.png", "--controlnet_conditioning_scale", "0.5"]
    components += ["--ip_adapter", "adapter:0.3", "--ip_adapter_image", "ramp.png"]
    components += ["--lora", "style.safetensors:0.8", "--audio_lora", "./style.safetensors", "style.safetensors:-0.25"]
    generate.main([*components, *WORDS, *QUICK, "--output_dir", str(tmp_path)])

    by_hand = ImagesThatSoundPipeline.from_pretrained(EMBEDDED, controlnet=ControlNetModel.from_pretrained("net"))
    by_hand.set_progress_bar_config(disable=True)
    by_hand.load_ip_adapter("adapter", subfolder="models", weight_name="ip-adapter_sd15.safetensors")
    by_hand.set_ip_adapter_scale(0.3)
    by_hand.load_lora_weights("style.safetensors", adapter_name="a")
    by_hand.set_adapters("a", 0.8)
    by_hand.audio.load_lora_weights("style.safetensors", adapter_name="a")
    by_hand.audio.set_adapters("a", 0.75)
    ramp = PIL.Image.open("ramp.png")
    guides = {"control_image": ramp, "ip_adapter_image": ramp, "controlnet_conditioning_scale": 0.5}
    expected = by_hand(**CALL, **guides, generator=[torch.Generator().manual_seed(0)]).images[0]
    assert np.abs(made(tmp_path) - np.asarray(expected)).max() <= 1
    plain = pipe(**CALL, generator=[torch.Generator().manual_seed(0)]).images[0]
    assert np.abs(made(tmp_path) - np.asarray(plain)).max() > 20

    settings = json.loads((tmp_path / "seed-000000" / "settings.json").read_text())
    assert settings["controlnet"] == ["net"] and settings["control_image"] == ["ramp.png"]
    assert settings["ip_adapter"] == "adapter:0.3" and settings["lora"] == ["style.safetensors:0.8"]
    names = ("ramp.png", "style.safetensors", "./style.safetensors")
    assert settings["sha256"] == {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in names}


def test_guides_of_the_audio_side_act_as_the_pipeline_s_own_methods_load_them(pipe, parts, tmp_path, monkeypatch):
    """The temporal adapter as FoleyCrafter stores it, and its settings, which repeat the sample."""
    monkeypatch.chdir(parts)
    components = ["--audio_controlnet", "onsets/temporal_adapter.ckpt", "--onsets", "0.2-0.4", "1-1.28"]
    components += ["--audio_controlnet_conditioning_scale", "0.5"]
    components += ["--audio_ip_adapter", "adapter:0.3", "--audio_ip_adapter_image", "ramp.png"]
    generate.main([*components, *WORDS, *QUICK, "--output_dir", str(tmp_path / "first")])

    by_hand = ImagesThatSoundPipeline.from_pretrained(EMBEDDED)
    by_hand.set_progress_bar_config(disable=True)
    by_hand.load_audio_controlnet("onsets", weight_name="temporal_adapter.ckpt")
    by_hand.audio.load_ip_adapter("adapter", subfolder="models", weight_name="ip-adapter_sd15.safetensors")
    by_hand.audio.set_ip_adapter_scale(0.3)
    guides = {"audio_onsets": [(0.2, 0.4), (1, 1.28)], "audio_controlnet_conditioning_scale": 0.5}
    guides["audio_ip_adapter_image"] = PIL.Image.open("ramp.png")
    expected = by_hand(**CALL, **guides, generator=[torch.Generator().manual_seed(0)]).images[0]
    assert np.abs(made(tmp_path / "first") - np.asarray(expected)).max() <= 1
    plain = pipe(**CALL, generator=[torch.Generator().manual_seed(0)]).images[0]
    assert np.abs(made(tmp_path / "first") - np.asarray(plain)).max() > 20

    settings = tmp_path / "first" / "seed-000000" / "settings.json"
    assert json.loads(settings.read_text())["onsets"] == ["0.2-0.4", "1-1.28"]
    once_more = ["--model", "embedded", *components[:2], "--audio_ip_adapter", "adapter:0.3"]
    generate.main(["--params_from", str(settings), *once_more, "--no-video", "--output_dir", str(tmp_path / "again")])
    assert np.array_equal(made(tmp_path / "again"), made(tmp_path / "first"))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_has_the_checkpoint_s_noise(pipe, name):
    scheduler = new_scheduler(name, pipe.scheduler.config)
    class_name, options = SCHEDULERS[name]
    assert type(scheduler).__name__ == class_name
    torch.testing.assert_close(scheduler.alphas_cumprod, pipe.scheduler.alphas_cumprod)
    expected = {"prediction_type": "epsilon", "timestep_spacing": "leading", **options}
    assert expected.items() <= scheduler.config.items()


def test_samples_are_made_by_the_scheduler_that_is_named(pipe, tmp_path):
    generate.main(["--scheduler", "unipc", *WORDS, *QUICK, "--output_dir", str(tmp_path / "first")])
    by_hand = copy.copy(pipe)
    by_hand.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config)
    expected = by_hand(**CALL, generator=[torch.Generator().manual_seed(0)]).images[0]
    assert np.abs(made(tmp_path / "first") - np.asarray(expected)).max() <= 1
    settings = tmp_path / "first" / "seed-000000" / "settings.json"
    generate.main(["--params_from", str(settings), *QUICK[2:], "--output_dir", str(tmp_path / "again")])
    assert np.array_equal(made(tmp_path / "again"), made(tmp_path / "first"))


def test_few_steps_that_ship_and_a_lora_act_together(pipe, parts, tmp_path, monkeypatch):
    monkeypatch.chdir(parts)
    call = ["--few_steps", "lcm", "--lora", "style.safetensors:0.5", *WORDS, "--width", "128", "--device", "cpu"]
    generate.main([*call, "--no-video", "--output_dir", str(tmp_path / "first")])
    by_hand = ImagesThatSoundPipeline.from_pretrained(EMBEDDED)
    by_hand.set_progress_bar_config(disable=True)
    by_hand.load_few_step_lora_weights(EMBEDDED / "lcm_lora", TCDScheduler.from_config(pipe.scheduler.config), 4)
    by_hand.load_lora_weights("style.safetensors", adapter_name="style")
    by_hand.set_adapters(["few_steps", "style"], [1.0, 0.5])
    expected = by_hand(**PROMPTS, width=128, generator=[torch.Generator().manual_seed(0)])
    assert np.abs(made(tmp_path / "first") - np.asarray(expected.images[0])).max() <= 1
    settings = json.loads((tmp_path / "first" / "seed-000000" / "settings.json").read_text())
    wanted = {"few_steps": "lcm", "num_inference_steps": 4, "guidance_scale": 1.0, "audio_guidance_scale": 1.0}
    assert wanted.items() <= settings.items()
    with pytest.raises(SystemExit, match=r"`few_steps` of the embedded checkpoint, by itself, .* but is tcd"):
        generate.main(["--few_steps", "tcd", *WORDS, "--output_dir", str(tmp_path / "other")])


def test_the_controlnet_that_ships_sees_lines_of_a_picture(parts, tmp_path):
    """By its folder it takes control images as they are."""
    lines_of(PIL.Image.open(parts / "ramp.png"), 128, 128).save(tmp_path / "lines.png")
    folder = str(EMBEDDED_CONTROLNET)
    for source, picture in (("embedded", parts / "ramp.png"), (folder, tmp_path / "lines.png")):
        control = ["--controlnet", source, "--control_image", str(picture)]
        generate.main([*control, *WORDS, *QUICK, "--output_dir", str(tmp_path / Path(source).name)])
    assert np.array_equal(made(tmp_path / "embedded"), made(tmp_path / Path(folder).name))


def test_timesteps_of_one_s_own(tmp_path):
    pipe = ImagesThatSoundPipeline.from_pretrained(EMBEDDED)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(tmp_path / "euler")
    quick = ["--model", str(tmp_path / "euler"), "--timesteps", "700", "300", "--width", "128", "--no-video"]
    generate.main([*WORDS, *quick, "--output_dir", str(tmp_path)])
    call = {**PROMPTS, "width": 128, "timesteps": [700, 300]}
    expected = pipe(**call, generator=[torch.Generator().manual_seed(0)]).images[0]
    assert np.abs(made(tmp_path) - np.asarray(expected)).max() <= 1
    with pytest.raises(ValueError, match="`timesteps` can't be given to a search"):
        search.parse_args([*WORDS, "--timesteps", "700", "300"])


def test_repos_folders_and_files_with_weights():
    expected = {
        "some/repo": ("some/repo", 1.0),
        "some/repo:0.8": ("some/repo", 0.8),
        "some/repo:-1": ("some/repo", -1.0),
        r"C:\loras\style.safetensors": (r"C:\loras\style.safetensors", 1.0),
        r"C:\loras\style.safetensors:.5": (r"C:\loras\style.safetensors", 0.5),
        "some/repo:nan": ("some/repo:nan", 1.0),
        ":0.5": (":0.5", 1.0),
    }
    assert {text: source_and_weight(text) for text in expected} == expected


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--lora", "other.safetensors"], "`lora` .*'other.safetensors' is none: .*size mismatch"),
        (["--audio_lora", "other.safetensors"], "`audio_lora` .*'other.safetensors' is none: .*does not fit"),
        (["--lora", "style.bin"], "`lora` .*has to end in .safetensors"),
        (["--lora", "net"], "`lora` .*'net' is none"),
        (["--controlnet", "adapter", "--control_image", "ramp.png"], "`controlnet` .*'adapter' is none"),
        (["--ip_adapter", "style.safetensors", "--ip_adapter_image", "ramp.png"], "`ip_adapter` .*is none"),
        (["--controlnet", "net"], "`controlnet` can't be given without `control_image`"),
        (["--ip_adapter_image", "ramp.png"], "`ip_adapter_image` can't be given without `ip_adapter`"),
        (["--control_guidance_end", "0.5"], "`control_guidance_end` can't be given without `controlnet`"),
        (["--controlnet", "net", "net", "--control_image", "ramp.png"], ".* have to be as many, but are 2 and 1"),
        (["--onsets", "0-1"], "`onsets` can't be given without `audio_controlnet`"),
        (["--audio_controlnet", "net"], "`audio_controlnet` can't be given without `audio_control_image` or `onsets`"),
        (["--audio_controlnet", "net", "--onsets", "soon"], "`onsets` has to be picture, or spans .* but is 'soon'"),
        (["--audio_controlnet", "net", "--onsets", "picture"], "`audio_onsets` has to be 'picture', with a picture"),
        (["--audio_controlnet", "style.bin", "--onsets", "0-1"], "`audio_controlnet` .*has to end in .ckpt"),
        (["--audio_ip_adapter", "adapter"], "`audio_ip_adapter` can't be given without `audio_ip_adapter_image`"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(parts, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(parts)
    with pytest.raises(SystemExit, match=f"^error: {words}"):
        generate.main([*arguments, *WORDS, *QUICK, "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name, value",
    [
        *(("lora", ["some/style:0.8", "a b"]), ("audio_lora", ["some/birds"]), ("lora", ["embedded"])),
        *(("controlnet", ["embedded", "some/net"]), ("ip_adapter", "h94/IP-Adapter")),
        *(("audio_controlnet", ["some/net"]), ("audio_ip_adapter", "h94/IP-Adapter")),
    ],
)
def test_components_that_a_file_names_have_to_be_named_once_more(tmp_path, name, value):
    file = tmp_path / "made.png"
    write_picture(file, PIL.Image.new("L", (8, 8)), json.dumps({**PROMPTS, "model": "embedded", name: value}))
    again = ["--params_from", str(file)]
    with pytest.raises(ValueError, match=f"`params_from` names models, .* --model embedded --{name} "):
        generate.parse_args(again)
    with pytest.raises(ValueError, match="`params_from` "):
        search.parse_args(again)
    if "lora" in name:
        named = generate.parse_args([*again, f"--{name}", *value])
        assert getattr(named.models, name) == value and named.models.model == "embedded"


def test_the_controlnet_that_ships_is_loaded_because_a_file_says_so(parts, tmp_path):
    ramp = parts / "ramp.png"
    made = {**PROMPTS, "model": "embedded", "controlnet": ["embedded"], "control_image": [str(ramp)]}
    made["sha256"] = {str(ramp): hashlib.sha256(ramp.read_bytes()).hexdigest()}
    write_picture(tmp_path / "made.png", PIL.Image.new("L", (8, 8)), json.dumps(made))
    request = generate.parse_args(["--params_from", str(tmp_path / "made.png")])
    assert request.models.controlnet == ["embedded"] and request.files["control_image"][0].path == ramp
    with pytest.raises(ValueError, match="`controlnet`, which this command can't take"):
        search.parse_args(["--params_from", str(tmp_path / "made.png")])
