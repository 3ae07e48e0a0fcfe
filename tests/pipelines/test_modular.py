"""The blocks: in a fresh process what the pipeline gives, bit by bit, from a folder of code that names other repos."""

import inspect
import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import ModularPipeline
from safetensors.torch import load_file

from images_that_sound.pipelines import ImagesThatSoundBlocks, ImagesThatSoundPipeline
from images_that_sound.scripts.common.modular import write_modular_files


PIPELINES = Path(__file__).parents[2] / "pipelines"
IMAGE_SIDE, AUDIO_SIDE = "stable-diffusion-v1-5/stable-diffusion-v1-5", "auffusion/auffusion-full-no-adapter"
SOURCES = {
    "text_encoder": (IMAGE_SIDE, "text_encoder"),
    "tokenizer": (IMAGE_SIDE, "tokenizer"),
    "unet": (IMAGE_SIDE, "unet"),
    "vae": (IMAGE_SIDE, "vae"),
    "scheduler": (IMAGE_SIDE, "scheduler"),
    "text_encoder_audio": (AUDIO_SIDE, "text_encoder"),
    "unet_audio": (AUDIO_SIDE, "unet"),
    "vae_audio": (AUDIO_SIDE, "vae"),
    "vocoder": (AUDIO_SIDE, ""),
}
CALLS = {
    "strip": {"num_images_per_prompt": 2, "negative_audio_prompt": "noise"},
    "folded": {"canvas_layout": "folded", "height": 512, "audio_weight": [0.2, 0.5, 1.0], "guidance_scale": 1.0},
    "late": {"audio_length_in_s": 0.5, "eta": 0.5, "crop_right": 8, "image_guidance_start": 0.5},
}
PROMPTS = {"prompt": ["a castle"], "audio_prompt": ["a bell"], "output_type": "pt", "num_inference_steps": 3}
NAMES = ["images", "spectrograms", "audios"]
COMPOSE = """
import json, sys
sys.modules["images_that_sound"] = None
import torch
from diffusers import ModularPipeline
from safetensors.torch import save_file

folder, sources, calls, result = sys.argv[1], *map(json.loads, sys.argv[2:4]), sys.argv[4]
pipe = ModularPipeline.from_pretrained(folder, trust_remote_code=True)
pipe.load_components(pretrained_model_name_or_path=sources)
tensors = {}
for name, call in calls.items():
    output = pipe(**call, generator=torch.Generator().manual_seed(0), output=["images", "spectrograms", "audios"])
    tensors.update({f"{name}.{key}": value.contiguous() for key, value in output.items()})
save_file(tensors, result)

half = ModularPipeline.from_pretrained(folder, trust_remote_code=True)
half.load_components(pretrained_model_name_or_path=sources, dtype=torch.bfloat16, device_map="cpu")
assert {half.unet.dtype, half.unet_audio.dtype, half.vae.dtype, half.text_encoder.dtype} == {torch.bfloat16}
assert half.vocoder.dtype == torch.float32
assert torch.isfinite(half(**calls["strip"], output="images")).all()
"""


@pytest.fixture(scope="module")
def repo(tmp_path_factory) -> Path:
    """A folder as it is published: flat files of code and the generated configs."""
    folder = tmp_path_factory.mktemp("repo")
    for file in (*PIPELINES.glob("images_that_sound_*.py"), PIPELINES / "pipeline_images_that_sound.py"):
        shutil.copy(file, folder)
    write_modular_files(folder)
    return folder


def call_of(name: str) -> dict:
    return {
        **PROMPTS,
        **({"width": 64} if name == "strip" else {"width": 32} if name == "folded" else {}),
        **CALLS[name],
    }


@pytest.fixture(scope="module")
def composed(run_fresh, repo, tmp_path_factory) -> dict[str, torch.Tensor]:
    """What a process without this package makes of the folder; its components are random-weight models."""
    fixtures = Path(__file__).parents[1] / "fixtures" / "models"
    folders = {IMAGE_SIDE: str(fixtures / "stable-diffusion"), AUDIO_SIDE: str(fixtures / "auffusion")}
    sources = {name: folders[source] for name, (source, _) in SOURCES.items()}
    result = tmp_path_factory.mktemp("result") / "outputs.safetensors"
    arguments = [str(repo), json.dumps(sources), json.dumps({name: call_of(name) for name in CALLS}), str(result)]
    process = run_fresh(COMPOSE, *arguments, directory=result.parent)
    assert process.returncode == 0, process.stderr
    return load_file(result)


@pytest.mark.parametrize("name", CALLS)
def test_blocks_give_what_the_pipeline_gives(composed, pipe, name):
    output = pipe(**call_of(name), generator=torch.Generator().manual_seed(0))
    for key in NAMES:
        assert torch.equal(composed[f"{name}.{key}"], output[key]), key


def test_components_are_named_by_their_own_repos(repo):
    specs = {spec.name: spec for spec in ImagesThatSoundBlocks().expected_components}
    assert {n: (s.pretrained_model_name_or_path, s.subfolder) for n, s in specs.items()} == SOURCES
    index = json.loads((repo / "modular_model_index.json").read_text())
    named = {name: entry[2] for name, entry in index.items() if isinstance(entry, list)}
    assert {name: (e["pretrained_model_name_or_path"], e["subfolder"]) for name, e in named.items()} == {
        name: source for name, source in SOURCES.items() if name != "vocoder"
    }
    assert sorted(file.name for file in repo.iterdir() if file.suffix != ".py") == [
        "modular_config.json",
        "modular_model_index.json",
    ]


def test_code_does_not_run_without_trust(repo):
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        ModularPipeline.from_pretrained(repo)


def test_configs_are_not_written_beside_weights(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(ValueError, match="`folder` has to hold code alone"):
        write_modular_files(tmp_path)


@pytest.fixture
def blocks_pipe(pipe) -> ModularPipeline:
    """The blocks over the pipeline's own components."""
    modular = ImagesThatSoundBlocks().init_pipeline()
    modular.update_components(**pipe.components)
    modular.set_progress_bar_config(disable=True)
    return modular


def test_inputs_are_the_calls_arguments_and_are_described(blocks_pipe):
    inputs = {parameter.name: parameter for parameter in blocks_pipe.blocks.inputs}
    for name in ("prompt", "audio_weight", "crop_right", "cross_attention_kwargs", "output_type", "eta"):
        assert len(inputs[name].description) > 15
    assert inputs["canvas_layout"].default == "strip" and inputs["eta"].default is None
    assert "Sound to hear" in blocks_pipe.doc


@pytest.mark.parametrize("inputs", [{"height": 100}, {"audio_weight": 2.0}, {"prompt": []}, {"output_type": "jpg"}])
def test_bad_inputs_are_refused_before_anything_runs(blocks_pipe, inputs):
    with pytest.raises(ValueError, match=f"`{next(iter(inputs))}`"):
        blocks_pipe(**{**PROMPTS, "width": 64, **inputs})


@pytest.mark.parametrize(
    "argument", [{"control_image": torch.zeros(1, 3, 256, 64)}, {"clip_skip": 1}, {"guidance_rescale": 0.5}]
)
def test_what_the_blocks_lack_is_refused(blocks_pipe, argument):
    (name,) = argument
    with pytest.raises(ValueError, match=f"`{name}` can't be given to these blocks"):
        blocks_pipe(**{**PROMPTS, "width": 64, **argument})


def test_the_blocks_take_each_argument_of_the_call_or_refuse_it(blocks_pipe):
    arguments = set(inspect.signature(ImagesThatSoundPipeline.__call__).parameters) - {"self", "return_dict"}
    assert arguments <= {parameter.name for parameter in blocks_pipe.blocks.inputs}


def test_blocks_without_components_say_what_to_do():
    with pytest.raises(ValueError, match="load_components"):
        ImagesThatSoundBlocks().init_pipeline()(**PROMPTS)


def test_latents_of_one_call_are_decoded_by_the_last_block_alone(blocks_pipe):
    call = {**PROMPTS, "width": 64, "num_inference_steps": 1}
    whole = blocks_pipe(**call, generator=torch.Generator().manual_seed(0))
    decode = ImagesThatSoundBlocks().sub_blocks["decode"].init_pipeline()
    decode.update_components(**{name: getattr(blocks_pipe, name) for name in ("vae", "vae_audio", "vocoder")})
    alone = decode(latents=whole.latents, canvas=whole.canvas, output_type="pt")
    assert all(torch.equal(alone.get(name), whole.get(name)) for name in NAMES)
    assert alone.sampling_rate == 16000
