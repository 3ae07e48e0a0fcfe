"""Samples of score distillation, which take hours: each keeps its state in a folder beside it until it is done."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .border import arguments_named
from .files import check_own_folder, keep_settings
from .values import Samples


if TYPE_CHECKING:
    from accelerate import Accelerator


def state_of(samples: Samples, seed: int, settings: dict[str, Any], accelerator: "Accelerator") -> dict[str, Any]:
    """Arguments of the call by which a sample goes on where it stopped; `ValueError` for one of other settings."""
    folder = _folder_of(samples, seed)
    check_own_folder(folder)
    keep_settings(folder, {name: value for name, value in settings.items() if name != "versions"})
    return {"accelerator": accelerator, "checkpoint_dir": folder}


def precision_of(accelerator: "Accelerator") -> dict[str, Any]:
    """Settings of an optimisation that its accelerator knows."""
    return {name: getattr(accelerator, name) for name in ("mixed_precision", "gradient_accumulation_steps")}


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
