"""Only a Hub that says so knows that a repo lacks a file: a busy or a dead one decides nothing."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants
from loopback_hub import LoopbackHub

from images_that_sound.pipelines.images_that_sound_audio_prior import AudioPriorRepo


@pytest.fixture
def hub(auffusion_folder, tmp_path, monkeypatch):
    """A Hub with an audio side that has no `model_index.json`, which huggingface_hub asks again without waiting."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    folder = shutil.copytree(auffusion_folder / "vocoder", tmp_path / "repo" / "vocoder").parent
    hub = LoopbackHub({})
    hub.put("tester/prior", folder)
    yield hub
    hub.shutdown()


def look_for_files(hub: LoopbackHub, cache: Path, **kwargs: bool) -> list[bool | str]:
    """Whether there is an index and a vocoder, or why that is not known."""
    found = []
    for name in ("model_index.json", "vocoder/config.json"):
        repo = AudioPriorRepo("tester/prior", "", {"cache_dir": cache, "endpoint": hub.address, **kwargs})
        try:
            found.append(repo.find(name) is not None)
        except ValueError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_no_hub_that_lacks_a_file(hub, tmp_path, status):
    hub.busy = {"model_index.json": status}
    index, vocoder = look_for_files(hub, tmp_path / "busy")
    assert vocoder is True
    assert "did not answer whether `tester/prior` holds `model_index.json`" in index and str(status) in index
    hub.busy = {}
    assert look_for_files(hub, tmp_path / "busy") == [False, True]


def test_what_a_dead_hub_has_said_before_is_known(hub, tmp_path):
    assert look_for_files(hub, tmp_path / "known") == [False, True]
    hub.shutdown()
    hub.server_close()
    for kwargs in ({}, {"local_files_only": True}):
        assert look_for_files(hub, tmp_path / "known", **kwargs) == [False, True]
        for answer in look_for_files(hub, tmp_path / "empty", **kwargs):
            assert "The Hub did not answer" in answer


def test_a_missing_repo_and_a_gated_one_are_named(hub, tmp_path):
    for name, gated in (("tester/nothing", False), ("tester/prior", True)):
        hub.repos["tester/prior"].gated = gated
        repo = AudioPriorRepo(name, "", {"cache_dir": tmp_path / "cache", "endpoint": hub.address})
        with pytest.raises(ValueError, match=f"`model_index.json` of `{name}` can't be read from the Hub"):
            repo.find("model_index.json")
