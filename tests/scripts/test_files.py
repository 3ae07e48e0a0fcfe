"""Files and folders that appear only when they are complete."""

import stat

import pytest

from images_that_sound.scripts.common.files import written


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
