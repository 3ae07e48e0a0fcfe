"""One file that does what the pipeline and its siblings do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from images_that_sound.scripts.single_file import merge


ROOT = Path(__file__).parents[2]
LOAD = """
import sys
sys.modules["images_that_sound"] = None
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

image_side, audio_side, file, result, saved = sys.argv[1:]
pipe = DiffusionPipeline.from_pretrained(image_side, custom_pipeline=file, trust_remote_code=True)
pipe.load_audio_prior(audio_side)
output = pipe("a castle", "a bell", width=64, num_inference_steps=2, output_type="pt",
              generator=torch.Generator().manual_seed(0))
save_file({name: output[name].contiguous() for name in ("images", "spectrograms", "audios")}, result)
pipe.save_pretrained(saved)
"""


def siblings() -> list[Path]:
    """The pipeline's file and those that it names."""
    main = ROOT / "pipelines" / "pipeline_images_that_sound.py"
    nodes = ast.parse(main.read_text()).body
    names = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 1]
    return [main, *(main.with_name(f"{name}.py") for name in names)]


@pytest.fixture(scope="module")
def file(run_fresh, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("single")
    output = folder / "community" / "images_that_sound_in_one_file.py"
    code = "from images_that_sound.scripts.cli import main\nmain()"
    process = run_fresh(code, "single-file", "--output", str(output), directory=folder)
    assert process.returncode == 0, process.stderr
    assert [each.name for each in output.parent.iterdir()] == [output.name]
    return output


def test_file_holds_every_definition_as_it_was_written(file):
    text = file.read_text()
    definitions = 0
    for source in map(Path.read_text, siblings()):
        for node in ast.parse(source).body:
            if not isinstance(node, (ast.Import, ast.ImportFrom)) and not isinstance(node, ast.Expr):
                assert text.count(ast.get_source_segment(source, node)) == 1
                definitions += 1
    assert definitions > 40
    assert not [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.level]


def test_file_is_clean(file):
    for arguments in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--config", str(ROOT / "pyproject.toml"), str(file)]
        process = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert process.returncode == 0, process.stdout


def test_file_gives_what_the_pipeline_gives(
    run_fresh, file, pipe, tmp_path, stable_diffusion_folder, auffusion_folder
):
    result, saved = tmp_path / "outputs.safetensors", tmp_path / "saved"
    arguments = map(str, (stable_diffusion_folder, auffusion_folder, file, result, saved))
    process = run_fresh(LOAD, *arguments, directory=tmp_path)
    assert process.returncode == 0, process.stderr
    call = {"width": 64, "num_inference_steps": 2, "output_type": "pt"}
    expected = pipe("a castle", "a bell", **call, generator=torch.Generator().manual_seed(0))
    for name, value in load_file(result).items():
        assert torch.equal(value, expected[name]), name
    assert [each.name for each in saved.glob("*.py")] == [file.name]


def test_names_that_clash_are_refused(tmp_path):
    (tmp_path / "first.py").write_text('"""First."""\n\nfrom .second import other\n\n\nlimit = 1\nsame = 0\n')
    (tmp_path / "second.py").write_text("import os\n\n\nlimit = 2\nsame = 0\nother = os.sep\n")
    with pytest.raises(ValueError, match="`limit` is defined differently in two modules"):
        merge(tmp_path, "first")
    (tmp_path / "second.py").write_text("from os import path as limit\n\n\nother = limit.sep\n")
    with pytest.raises(ValueError, match="`limit` is defined differently in two modules"):
        merge(tmp_path, "first")
    (tmp_path / "second.py").write_text("import os\n\n\nsame = 0\nother = os.sep\n")
    assert merge(tmp_path, "first") == '"""First."""\n\nimport os\n\n\nsame = 0\nother = os.sep\n\n\nlimit = 1\n'
    (tmp_path / "first.py").write_text("from .second import other as renamed\n")
    with pytest.raises(ValueError, match="under another name"):
        merge(tmp_path, "first")
