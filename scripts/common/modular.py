"""Writes the configs by which a Hub repo of this project's code is a modular pipeline."""

import json
import os
import tempfile
from pathlib import Path

from ...pipelines import ImagesThatSoundBlocks


def write_modular_files(folder: str | Path) -> None:
    """
    Writes `modular_config.json` and `modular_model_index.json`, generated from the blocks, into a folder that holds
    the files of `pipelines`, so that `ModularPipeline.from_pretrained(..., trust_remote_code=True)` finds the blocks
    there or, once uploaded, on the Hub.

    Args:
        folder (`str` or `Path`): Exists, and holds no weights: the index names the components' repos.

    Raises:
        ValueError: If `folder` holds a pipeline's weights, which diffusers would take for those of the other repos.
    """
    folder = Path(folder)
    if (folder / "model_index.json").exists():
        raise ValueError(f"`folder` has to hold code alone, but {folder} has a `model_index.json`.")
    blocks = ImagesThatSoundBlocks()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        blocks.save_pretrained(temporary)
        blocks.init_pipeline().save_pretrained(temporary, overwrite_modular_index=False)
        index_file = Path(temporary, "modular_model_index.json")
        index = json.loads(index_file.read_text(encoding="utf-8"))
        # A class of the repo's code can't be named in an index; without it, the spec of the blocks counts.
        del index["vocoder"]
        index_file.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        for name in ("modular_config.json", "modular_model_index.json"):
            os.replace(Path(temporary, name), folder / name)
