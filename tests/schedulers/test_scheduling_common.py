"""What diffusers asks of every scheduler's configuration, and that what a scheduler does follows from it alone."""

import copy
import inspect
import json
import logging

import pytest
import torch

import images_that_sound.schedulers
from images_that_sound.schedulers import ModalityScheduler, ScoreDistillationScheduler


# Values other than the defaults.
ARGUMENTS = {
    ModalityScheduler: {
        "audio_weight": 0.4,
        "image_guidance_start": 0.0,
        "image_guidance_end": 0.9,
        "audio_guidance_start": 0.2,
        "audio_guidance_end": 0.95,
        "fade": 0.2,
    },
    ScoreDistillationScheduler: {"min_timestep": 0.1, "max_timestep": 0.9, "final_max_timestep": 0.5},
}
# What a value needs beside it, so that somebody speaks at every step.
BESIDES = {"audio_guidance_start": {"image_guidance_start": 0.0}}
ONE_BY_ONE = [(scheduler, name) for scheduler, arguments in ARGUMENTS.items() for name in arguments]


@pytest.fixture(params=ARGUMENTS, ids=lambda scheduler_class: scheduler_class.__name__)
def scheduler_class(request):
    return request.param


@pytest.fixture
def scheduler(scheduler_class):
    """With as many values at once as leave nobody silent."""
    arguments = {name: value for name, value in ARGUMENTS[scheduler_class].items() if name != "audio_guidance_end"}
    return scheduler_class(**arguments)


def behaviour(scheduler) -> list:
    """All that a scheduler decides in a run of 40 steps."""
    if isinstance(scheduler, ModalityScheduler):
        return scheduler.audio_noise_shares(40)
    generator = torch.Generator().manual_seed(0)
    alphas_cumprod = torch.linspace(0.99, 0.01, 1000)
    draws = [scheduler.draw(8, iteration, 40, alphas_cumprod, generator) for iteration in range(40)]
    return [(timesteps.tolist(), weights.tolist()) for timesteps, weights in draws]


def arguments_of(config) -> dict:
    """A configuration without what diffusers notes in it."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


def test_every_scheduler_is_tested_here():
    names = [scheduler_class.__name__ for scheduler_class in ARGUMENTS]
    assert sorted(names) == sorted(images_that_sound.schedulers.__all__)


def test_the_configuration_holds_every_argument(scheduler_class):
    parameters = dict(inspect.signature(scheduler_class.__init__).parameters)
    del parameters["self"]
    assert parameters.keys() == ARGUMENTS[scheduler_class].keys()
    assert arguments_of(scheduler_class().config) == {name: each.default for name, each in parameters.items()}
    assert arguments_of(scheduler_class(**ARGUMENTS[scheduler_class]).config) == ARGUMENTS[scheduler_class]


@pytest.mark.parametrize("scheduler_class, name", ONE_BY_ONE)
def test_every_argument_matters(scheduler_class, name):
    others = BESIDES.get(name, {})
    changed = scheduler_class(**{name: ARGUMENTS[scheduler_class][name]}, **others)
    assert behaviour(changed) != behaviour(scheduler_class(**others))


@pytest.mark.parametrize("save", ["save_pretrained", "save_config"])
def test_saved_and_loaded_it_does_the_same(scheduler, save, tmp_path):
    getattr(scheduler, save)(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["scheduler_config.json"]
    saved = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert saved["_class_name"] == type(scheduler).__name__
    assert arguments_of(saved) == arguments_of(scheduler.config)
    loaded = type(scheduler).from_pretrained(tmp_path)
    assert arguments_of(loaded.config) == arguments_of(scheduler.config)
    assert behaviour(loaded) == behaviour(scheduler)


@pytest.mark.parametrize("scheduler_class, name", ONE_BY_ONE)
def test_an_argument_beside_a_configuration_wins(scheduler_class, name, tmp_path):
    others = BESIDES.get(name, {})
    changed = {name: ARGUMENTS[scheduler_class][name]}
    saved, expected = scheduler_class(**others), scheduler_class(**others, **changed)
    saved.save_pretrained(tmp_path)
    loaded, unused = scheduler_class.from_pretrained(tmp_path, **changed, nonsense=3, return_unused_kwargs=True)
    for other in (loaded, scheduler_class.from_config(saved.config, **changed)):
        assert arguments_of(other.config) == arguments_of(expected.config)
        assert behaviour(other) == behaviour(expected)
    assert arguments_of(unused) == {"nonsense": 3}
    assert arguments_of(saved.config) != arguments_of(expected.config)


@pytest.mark.parametrize("scheduler_class, name", ONE_BY_ONE)
def test_what_an_older_file_lacks_has_its_default(scheduler_class, name, tmp_path):
    others = BESIDES.get(name, {})
    scheduler_class(**others, **{name: ARGUMENTS[scheduler_class][name]}).save_pretrained(tmp_path)
    file = tmp_path / "scheduler_config.json"
    config = json.loads(file.read_text())
    del config[name]
    file.write_text(json.dumps(config))
    assert behaviour(scheduler_class.from_pretrained(tmp_path)) == behaviour(scheduler_class(**others))


def test_what_a_file_holds_besides_is_named_and_left_out(scheduler, tmp_path, monkeypatch, caplog):
    scheduler.save_pretrained(tmp_path)
    file = tmp_path / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "nonsense": 3}))
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    loaded = type(scheduler).from_pretrained(tmp_path)
    assert "'nonsense': 3" in caplog.text
    assert behaviour(loaded) == behaviour(scheduler)
    with pytest.raises(TypeError, match="nonsense"):
        type(scheduler)(nonsense=3)


@pytest.mark.parametrize("scheduler_class, name", ONE_BY_ONE)
def test_a_file_is_checked_like_arguments(scheduler_class, name, tmp_path):
    scheduler_class().save_pretrained(tmp_path)
    file = tmp_path / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: 1.5}))
    with pytest.raises(ValueError, match=f"`{name}`.* 1.5"):
        scheduler_class.from_pretrained(tmp_path)


def test_it_keeps_no_state_and_copies_do_the_same(scheduler):
    before, config = behaviour(scheduler), dict(scheduler.config)
    duplicate = copy.deepcopy(scheduler)
    assert behaviour(scheduler) == before == behaviour(duplicate)
    assert dict(scheduler.config) == config == dict(duplicate.config)
