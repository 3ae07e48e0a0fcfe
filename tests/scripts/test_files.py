"""Files and folders that appear only when they are complete."""

import stat
from pathlib import Path

import pytest

from images_that_sound.scripts.common.files import check_writable, read_json, write_json, written, written_once


def test_a_file_replaces_another_when_it_is_complete(tmp_path):
    (tmp_path / "file.txt").write_text("old")
    with written(tmp_path / "file.txt") as file:
        assert file.suffix == ".txt" and file.parent.parent == tmp_path
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        file.write_text("new")
        assert (tmp_path / "file.txt").read_text() == "old"
        with written(tmp_path / "file.txt") as other:
            assert other != file
            other.write_text("another process's")
    assert (tmp_path / "file.txt").read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["file.txt"]


def test_a_folder_appears_whole_in_new_folders(tmp_path):
    with written(tmp_path / "a" / "b") as folder:
        folder.mkdir()
        (folder / "file").write_text("x")
        assert not (tmp_path / "a" / "b").exists()
    assert [each.name for each in (tmp_path / "a").iterdir()] == ["b"] and (tmp_path / "a" / "b" / "file").exists()


def test_a_default_name_that_is_taken_meanwhile_is_kept(tmp_path):
    with written_once(tmp_path / "file") as file:
        file.write_text("ours")
    assert (tmp_path / "file").read_text() == "ours"
    with pytest.raises(ValueError, match="`--output` has to be given, since .*other is there already"):
        with written_once(tmp_path / "other") as file:
            file.write_text("ours")
            (tmp_path / "other").write_text("theirs")
    assert (tmp_path / "other").read_text() == "theirs"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "other"]


# Ends at each step by which a file could appear, or refuses links as some file systems do.
INTERRUPTED = """
import os, sys
from pathlib import Path
from images_that_sound.scripts.common.files import written_once

def look(event, arguments):
    if event == "os.rename" and sys.argv[1] == "killed":
        os._exit(9)
    if event == "os.link" and sys.argv[1] == "without links":
        raise OSError(95, "Operation not supported")

with written_once(Path("file")) as file:
    file.write_text("whole")
    sys.addaudithook(look)
"""


@pytest.mark.parametrize("way, exit_code", [("killed", 9), ("without links", 0)])
def test_a_default_name_never_has_a_file_that_is_not_whole(tmp_path, way, exit_code, run_fresh):
    process = run_fresh(INTERRUPTED, way, directory=tmp_path)
    assert process.returncode == exit_code, process.stderr
    assert (tmp_path / "file").read_text() == "whole"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_leaves_nothing_behind(tmp_path, error):
    with pytest.raises(error), written(tmp_path / "file") as file:
        file.write_text("half")
        raise error
    assert not list(tmp_path.iterdir())


def test_others_and_planted_names_are_left_alone(tmp_path):
    """A link under a name that a temporary file could have is not followed, and no other's work is removed."""
    (tmp_path / ".file.part").symlink_to(tmp_path / "target")
    (tmp_path / ".file.other.part").mkdir()
    with written(tmp_path / "file") as file:
        file.write_text("x")
    assert not (tmp_path / "target").exists()
    assert {each.name for each in tmp_path.iterdir()} == {"file", ".file.part", ".file.other.part"}


def test_whoever_comes_second_drops_its_own_folder(tmp_path):
    def make(content: str) -> None:
        with written(tmp_path / "folder") as folder:
            folder.mkdir()
            (folder / "file").write_text(content)
            if content == "second":
                make("first")

    with pytest.raises(FileExistsError):
        make("second")
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder" / "file").read_text() == "first"


def test_names_as_long_as_the_file_system_takes(tmp_path):
    name = "x" * 255
    with written(tmp_path / name) as file:
        file.write_text("whole")
    assert (tmp_path / name).read_text() == "whole"


def test_folders_that_cannot_be_written_to_are_found_before(tmp_path):
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    bad = [tmp_path / "dangling", tmp_path / "dangling" / "a", tmp_path / "file", tmp_path / "file" / "a"]
    bad += [tmp_path / "a" / ("x" * 300) / "b", tmp_path.joinpath(*["x" * 100] * 41), Path("/proc/nothing")]
    for folder in bad:
        with pytest.raises(ValueError, match="`sample_dir` needs a folder that can be written to, but"):
            check_writable(folder, "sample_dir")
    check_writable(tmp_path / "new" / "folder")
    assert {each.name for each in tmp_path.iterdir()} == {"dangling", "file"}


def test_json_holds_null_for_what_is_not_finite(tmp_path):
    write_json(tmp_path / "file.json", {"a": [float("nan"), 1.5], "b": (float("inf"),)})
    text = (tmp_path / "file.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert read_json(tmp_path / "file.json") == {"a": [None, 1.5], "b": [None]}


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 100_000, '{"a": "\\ud800"}', "1" * 5000, " " * 2**21 + "{}", "\0"])
def test_json_of_the_wrong_kind(tmp_path, text):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(ValueError, match="file.json` can't be read: no "):
        read_json(tmp_path / "file.json")
