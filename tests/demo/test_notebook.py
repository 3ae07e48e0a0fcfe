"""The notebook: as it is committed, and as it runs on the embedded checkpoint."""

import base64
import io
import json
import re
import sys
from pathlib import Path

import av
import ipykernel.kernelspec
import nbclient
import nbformat
import numpy as np
import PIL.Image
import pytest
import scipy.stats
import soundfile
import torch

from images_that_sound.pipelines import MelSpectrogram


NOTEBOOK = Path(__file__).parents[2] / "demo" / "images_that_sound.ipynb"
# Comes after the cell that is tagged `parameters`.
PARAMETERS = """
embedded, colorize = True, True
num_inference_steps, num_colorization_steps = 3, 2
num_candidates, batch_size = 4, 3
"""
REPORT = """
import json, sys
print(json.dumps({"python": sys.executable, "folder": str(folder), "settings": settings, "scores": scores}))
"""
JUPYTER = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
PROGRESS_BAR = re.compile(r"([\w ]+\.*: *)? *\d+%\|.*")


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> tuple[dict, dict, Path]:
    """Outputs of each cell by its id, what the kernel reports in the end, and the folder it ran in."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    tagged = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    notebook.cells.insert(tagged[0] + 1, nbformat.v4.new_code_cell(PARAMETERS))
    notebook.cells.append(nbformat.v4.new_code_cell(REPORT, id="report"))
    folder, jupyter = tmp_path_factory.mktemp("notebook"), tmp_path_factory.mktemp("jupyter")
    ipykernel.kernelspec.install(prefix=str(jupyter))
    with pytest.MonkeyPatch.context() as patch:
        for name in JUPYTER:
            patch.setenv(name, str(jupyter / name.lower()))
        patch.setenv("JUPYTER_PATH", str(jupyter / "share" / "jupyter"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        nbclient.NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        ).execute()
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    return outputs, json.loads(outputs["report"][0].text), folder


def pictures(outputs: list) -> list[np.ndarray]:
    files = [base64.b64decode(each.data["image/png"]) for each in outputs if "image/png" in each.get("data", {})]
    return [np.asarray(PIL.Image.open(io.BytesIO(file)).convert("RGB"), float) for file in files]


def sounds(outputs: list) -> list[np.ndarray]:
    pages = "".join(each.data.get("text/html", "") for each in outputs if "data" in each)
    files = [base64.b64decode(file) for file in re.findall(r"data:audio/wav;base64,([^\"]+)", pages)]
    return [soundfile.read(io.BytesIO(file), dtype="float32")[0] for file in files]


def test_it_is_committed_valid_and_as_nobody_ran_it():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    nbformat.validate(notebook)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None, cell["id"]
        assert cell["metadata"].keys() <= {"tags"}, cell["id"]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert notebook["metadata"] == {"kernelspec": kernel, "language_info": {"name": "python"}}


def test_it_ran_in_this_python_and_said_nothing_but_progress(executed):
    outputs, report, _ = executed
    assert report["python"] == sys.executable
    for cell, of_cell in outputs.items():
        text = "".join(each.text for each in of_cell if each.output_type == "stream" and each.name == "stderr")
        lines = [line.strip() for line in re.split(r"[\r\n]|\x1b\[A", text)]
        # transformers says so of what diffusers imports.
        lines = [line for line in lines if "requires torchvision" not in line]
        assert all(PROGRESS_BAR.fullmatch(line) for line in lines if line), (cell, text)


def test_all_pictures_show_something_and_all_sounds_are_heard(executed):
    outputs, _, _ = executed
    shown = {cell: pictures(of_cell) for cell, of_cell in outputs.items() if pictures(of_cell)}
    counts = {"compose": 1, "spectrogram": 1, "watch": 3, "weight": 3, "scores": 4, "color": 1}
    assert {cell: len(of_cell) for cell, of_cell in shown.items()} == counts
    for cell, of_cell in shown.items():
        assert all(picture.shape == (128, 512, 3) and picture.std() > 20 for picture in of_cell), cell
    heard = {cell: sounds(of_cell) for cell, of_cell in outputs.items() if sounds(of_cell)}
    assert {cell: len(of_cell) for cell, of_cell in heard.items()} == {"hear": 1, "weight": 3, "scores": 4}
    for cell, of_cell in heard.items():
        assert all(len(sound) == 81920 and sound.std() > 0.01 for sound in of_cell), cell


def test_the_spectrogram_is_the_sounds(executed):
    outputs, report, _ = executed
    mel = MelSpectrogram.from_dict(report["settings"]["spectrogram"])
    canvas = mel.audio_to_canvas(torch.from_numpy(sounds(outputs["hear"])[0])).squeeze().numpy()
    spectrogram = pictures(outputs["spectrogram"])[0].mean(axis=-1)
    assert np.corrcoef(canvas[:, :512].ravel(), spectrogram.ravel())[0, 1] > 0.9


def test_guesses_come_close_to_the_picture_and_weights_lead_away_from_it(executed):
    outputs, _, _ = executed
    picture = pictures(outputs["compose"])[0]
    distances = [np.abs(guess - picture).mean() for guess in pictures(outputs["watch"])]
    assert distances[0] > distances[1] > distances[2] and distances[2] < 3
    less, same, more = (np.abs(other - picture).mean() for other in pictures(outputs["weight"]))
    assert same < 1 < min(less, more)


def test_the_best_candidate_is_saved(executed):
    outputs, report, folder = executed
    ranks = [scipy.stats.rankdata(values) for values in report["scores"].values()]
    combined = (np.mean(ranks, axis=0) - 1) / (len(ranks[0]) - 1)
    printed = "".join(each.text for each in outputs["scores"] if each.get("name") == "stdout")
    order = [(int(seed), float(value)) for seed, value in re.findall(r"seed (\d+):.* combined (\S+)", printed)]
    assert sorted(seed for seed, _ in order) == [0, 1, 2, 3]
    assert [value for _, value in order] == pytest.approx(sorted(combined, reverse=True), abs=0.006)
    assert [value for _, value in order] == pytest.approx([combined[seed] for seed, _ in order], abs=0.006)
    settings = json.loads((folder / report["folder"] / "settings.json").read_text(encoding="utf-8"))
    assert isinstance(settings.pop("gain_in_db"), float) and settings == report["settings"]
    assert combined[settings["seed"]] == combined.max() > combined.min()
    saved = np.asarray(PIL.Image.open(folder / report["folder"] / "image.png").convert("RGB"), float)
    assert (saved == pictures(outputs["scores"])[0]).all()


def test_the_video_decodes_with_its_sound(executed):
    outputs, report, folder = executed
    file = folder / report["folder"] / "video.mp4"
    (page,) = (each.data["text/html"] for each in outputs["save"] if "data" in each)
    assert base64.b64encode(file.read_bytes()).decode() in page
    with av.open(str(file)) as container:
        assert sum(1 for _ in container.decode(video=0)) == round(5.12 * 60)
    with av.open(str(file)) as container:
        audio = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])
    assert audio.std() > 0.01


def test_colours_keep_the_gray(executed):
    outputs, report, folder = executed
    color, picture = pictures(outputs["color"])[0], pictures(outputs["scores"])[0]
    assert np.abs(color.mean(axis=-1) - picture.mean(axis=-1)).mean() < 5
    assert color.std(axis=-1).mean() > 5
    assert (folder / report["folder"] / "color.png").exists()
