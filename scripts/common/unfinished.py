"""Samples of score distillation, which take hours: each keeps its state in a folder beside it until it is done."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .border import arguments_named
from .files import keep_settings
from .values import Samples


if TYPE_CHECKING:
    from accelerate import Accelerator


def state_of(samples: Samples, seed: int, made_by: dict[str, Any], accelerator: "Accelerator") -> dict[str, Any]:
    """
    Arguments of the call by which a sample goes on where it stopped. The call checks its own arguments against the
    state; `ValueError` is raised here for a foreign folder, and for a state of other models.
    """
    folder = _folder_of(samples, seed)
    keep_settings(folder, made_by)
    return {"accelerator": accelerator, "checkpoint_dir": folder}


def finished(samples: Samples, made: Iterable[Path], accelerator: "Accelerator") -> Iterator[Path]:
    """Folders of samples as they appear, once their state is removed; yields them in the main process alone."""
    with arguments_named(checkpoint_dir="output_dir"):
        for folder in made:
            if accelerator.is_main_process:
                seed = int(folder.name.removeprefix("seed-"))
                shutil.rmtree(_folder_of(samples, seed), ignore_errors=True)
                yield folder


def _folder_of(samples: Samples, seed: int) -> Path:
    folder = samples.folder(seed)
    return folder.with_name(f"{folder.name}.unfinished")
