"""Differences from diffusers in loading and saving: the vocoder in float32, and code beside the weights."""

import inspect
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils.dynamic_modules_utils import get_relative_import_files
from transformers import SpeechT5HifiGan

from .images_that_sound_files import written


# File names of weights in repos.
WEIGHTS = [
    f"{stem}{variant}.{ending}"
    for stem, ending in (("model", "safetensors"), ("pytorch_model", "bin"))
    for variant in ("", ".fp16", ".bf16")
]


@contextmanager
def kept_in_float32(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Undoes casts of these modules to half precision inside the context. Their device may change."""
    kept = [(module, {k: v.detach().cpu().float() for k, v in module.state_dict().items()}) for module in modules]
    yield
    for module, weights in kept:
        if any(weight.dtype in (torch.float16, torch.bfloat16) for weight in module.parameters()):
            module.float().load_state_dict(weights)


def exact_vocoder(vocoder: SpeechT5HifiGan | None) -> SpeechT5HifiGan | None:
    """
    The vocoder in float32. If it was rounded while it was loaded, its folder is read again, since a cast upwards keeps
    the rounding.
    """
    if vocoder is None or vocoder.dtype == torch.float32:
        return vocoder
    rounded = vocoder.state_dict()
    if os.path.isdir(vocoder.name_or_path):
        exact = SpeechT5HifiGan.from_pretrained(vocoder.name_or_path, dtype=torch.float32).state_dict()
        # Weights that differ were changed on purpose.
        if all(torch.equal(exact[name].to(value.dtype), value.cpu()) for name, value in rounded.items()):
            rounded = exact
    vocoder.float().load_state_dict(rounded)
    return vocoder


def check_not_offloaded(pipe: DiffusionPipeline, method: str) -> None:
    """Raises `ValueError` if models that `method` loads would miss the hooks that the others have."""
    if getattr(pipe, "_all_hooks", None) or pipe._maybe_raise_error_if_group_offload_active():
        raise ValueError(f"`{method}` has to be called before offloading is enabled.")


class SelfContainedSavingMixin:
    """Makes `save_pretrained` of a [`DiffusionPipeline`] write the code beside the weights."""

    def save_config(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """
        Writes `model_index.json` and the source files of the pipeline, so that
        `DiffusionPipeline.from_pretrained(save_directory, trust_remote_code=True)` loads the folder anywhere.

        Raises:
            ValueError: If `push_to_hub` is set, which would upload the config alone.
        """
        if push_to_hub:
            raise ValueError(
                "`push_to_hub` of a config alone is not possible; use `save_pretrained` or `push_to_hub`."
            )
        super().save_config(save_directory, **kwargs)
        source = Path(inspect.getsourcefile(type(self)))
        for file in (source, *map(Path, get_relative_import_files(source))):
            target = Path(save_directory) / file.name
            if not (target.exists() and target.samefile(file)):
                shutil.copyfile(file, target)
        index_file = Path(save_directory) / self.config_name
        index = json.loads(index_file.read_text(encoding="utf-8"))
        index["_class_name"] = [source.stem, type(self).__name__]
        index.pop("_name_or_path", None)
        with written(index_file) as file:
            file.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike, **kwargs) -> dict:
        config = super()._dict_from_json_file(json_file, **kwargs)
        if isinstance(config.get("_class_name"), list):
            # The list form makes diffusers run the repo's copy of the code. A class that is imported needs no copy.
            config["_class_name"] = config["_class_name"][-1]
        # Components that this class lacks, such as a safety checker, need no download, neither folder nor weights.
        components = inspect.signature(cls.__init__).parameters
        others = [
            name
            for name, value in config.items()
            if isinstance(value, list) and name not in components and not name.startswith("_")
        ]
        unused = [f"{name}/{file}" for name in others for file in WEIGHTS]
        kept = {name: value for name, value in config.items() if name not in others}
        return {**kept, "_ignore_files": [*config.get("_ignore_files", []), *unused]}
