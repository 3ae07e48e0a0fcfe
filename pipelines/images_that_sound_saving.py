"""Saving a pipeline with its own source files, so that the folder or repo loads anywhere."""

import inspect
import json
import os
import shutil
from pathlib import Path
from typing import Any

from diffusers.utils.dynamic_modules_utils import get_relative_import_files

from .images_that_sound_files import written


# Files of weights as repos name them.
WEIGHTS = [
    f"{stem}{variant}.{ending}"
    for stem, ending in (("model", "safetensors"), ("pytorch_model", "bin"))
    for variant in ("", ".fp16", ".bf16")
]


class SelfContainedSavingMixin:
    """A [`DiffusionPipeline`] whose `save_pretrained` writes its code beside its weights."""

    def save_config(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """
        Writes `model_index.json` and beside it the pipeline's own source files, so that what `save_pretrained` leaves
        loads again by `DiffusionPipeline.from_pretrained(save_directory, trust_remote_code=True)`.

        Raises:
            ValueError: For `push_to_hub`, which would upload the config alone.
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
            # The list form makes diffusers run the repo's copy of the code. A class that is already here needs none.
            config["_class_name"] = config["_class_name"][-1]
        # What only the repo's own pipeline has, such as a safety checker, need not be downloaded: neither its folder
        # nor its weights, which diffusers takes from any folder.
        components = inspect.signature(cls.__init__).parameters
        others = [
            name
            for name, value in config.items()
            if isinstance(value, list) and name not in components and not name.startswith("_")
        ]
        unused = [f"{name}/{file}" for name in others for file in WEIGHTS]
        kept = {name: value for name, value in config.items() if name not in others}
        return {**kept, "_ignore_files": [*config.get("_ignore_files", []), *unused]}
