"""What diffusers asks of every pipeline, asked of each of ours, small real components inside."""

import ast
import inspect
import re

import pytest
import torch

from images_that_sound.pipelines import (
    FactorizedColorizationPipeline,
    ImagesThatSoundImprintPipeline,
    ImagesThatSoundPipeline,
    ImagesThatSoundSDSPipeline,
)


PIPELINES = {
    ImagesThatSoundPipeline: "pipe",
    ImagesThatSoundImprintPipeline: "imprint_pipe",
    ImagesThatSoundSDSPipeline: "pixel_pipe",
    FactorizedColorizationPipeline: "colorization_pipe",
}
PROMPTS = {"prompt": "castle towers", "audio_prompt": "bell ringing", "width": 64}
CALLS = {
    ImagesThatSoundPipeline: {**PROMPTS, "num_inference_steps": 2},
    ImagesThatSoundImprintPipeline: {**PROMPTS, "num_inference_steps": 2, "num_audio_inference_steps": 2},
    ImagesThatSoundSDSPipeline: {
        **PROMPTS,
        "crop_width": 64,
        "crop_right": 0,
        "num_crops": 1,
        "num_iterations": 2,
        "image_start_step": 1,
        "canvas": "pixels",
    },
    FactorizedColorizationPipeline: {
        "image": torch.linspace(0, 1, 3072).reshape(1, 3, 32, 32),
        "prompt": "a castle",
        "num_inference_steps": 2,
        "start_diffusion_step": 1,
    },
}
every_pipeline = pytest.mark.parametrize("pipeline_class", PIPELINES, ids=lambda each: each.__name__)


@pytest.fixture
def pipeline(request, pipeline_class):
    return request.getfixturevalue(PIPELINES[pipeline_class])


def draw(pipeline, **arguments):
    call = {"output_type": "pt", "generator": torch.Generator().manual_seed(0), **CALLS[type(pipeline)], **arguments}
    return pipeline(**call)


def tensors(output) -> list[torch.Tensor]:
    return [value for value in output.to_tuple() if isinstance(value, torch.Tensor)]


def documented(docstring: str) -> dict[str, str]:
    """Heads of the entries under `Args:`, by name."""
    block = re.search(r"^( *)Args:\n(.*?)(?=^\1\S|\Z)", docstring, re.MULTILINE | re.DOTALL)
    entries = re.findall(rf"^{block[1]}    (\w+) \((.+?)\):(?:\n| \S)", block[2], re.MULTILINE | re.DOTALL)
    return dict(entries)


@every_pipeline
def test_call_documents_every_argument_in_order_with_its_default(pipeline_class):
    parameters = dict(inspect.signature(pipeline_class.__call__).parameters)
    del parameters["self"]
    entries = documented(pipeline_class.__call__.__doc__)
    assert list(entries) == list(parameters)
    for name, parameter in parameters.items():
        assert parameter.annotation is not parameter.empty, name
        if parameter.default not in (parameter.empty, None):
            stated = entries[name].split("defaults to ")[-1].strip("`")
            assert ast.literal_eval(stated) == parameter.default, name
        elif parameter.default is None and "checkpoint" in entries[name]:
            assert "defaults to" in entries[name], name
    for heading in ("Examples:", "Returns:", "Raises:"):
        assert heading in pipeline_class.__call__.__doc__


@every_pipeline
def test_class_documents_every_component(pipeline_class):
    parameters = set(inspect.signature(pipeline_class.__init__).parameters) - {"self"}
    documenting = pipeline_class
    if "same components as [`ImagesThatSoundPipeline`]" in pipeline_class.__doc__:
        documenting = ImagesThatSoundPipeline
    entries = documented(documenting.__doc__)
    assert set(entries) == parameters
    assert {name for name in pipeline_class._optional_components if "*optional*" not in entries[name]} == set()


@every_pipeline
def test_call_takes_what_diffusers_pipelines_take(pipeline_class):
    parameters = inspect.signature(pipeline_class.__call__).parameters
    assert parameters.keys() >= {"prompt", "num_images_per_prompt", "generator", "callback_on_step_end"}
    assert parameters["output_type"].default == "pil" and parameters["return_dict"].default is True


@every_pipeline
def test_a_second_call_a_tuple_and_a_saved_pipeline_give_the_same(pipeline, pipeline_class, tmp_path):
    expected = tensors(draw(pipeline))
    assert expected and all(torch.isfinite(value).all() for value in expected)
    pipeline.save_pretrained(tmp_path)
    loaded = pipeline_class.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    tuple_ = [value for value in draw(pipeline, return_dict=False) if isinstance(value, torch.Tensor)]
    for found in (tuple_, tensors(draw(loaded))):
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@every_pipeline
def test_half_precision_gives_finite_canvases(pipeline, pipeline_class):
    output = tensors(draw(pipeline.to(torch.bfloat16)))
    assert all(torch.isfinite(value).all() for value in output)
    assert pipeline.unet.dtype == torch.bfloat16
