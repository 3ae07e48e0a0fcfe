"""Views of samples on the page, and its error messages."""

import base64
import io
import shutil
from pathlib import Path

import gradio as gr
import PIL.Image
from studio import label_of

from images_that_sound.scripts.common.samples import sample_settings


# Width and height of the board that a visitor draws on.
BOARDS = {"strip": (1024, 256), "folded": (512, 512)}


def as_message(error: Exception) -> gr.Error:
    """The message of an error. The log has the rest of errors that the visitor can't mend."""
    return gr.Error(str(error), duration=8, print_exception=not isinstance(error, ValueError))


def blank(canvas_layout: str, ground: int) -> PIL.Image.Image:
    """An empty board to draw on."""
    return PIL.Image.new("RGB", BOARDS[canvas_layout], (ground,) * 3)


def check_made(folder: Path | None) -> Path:
    """A sample's folder, as long as it is kept."""
    if folder is None or not folder.exists():
        raise gr.Error("Make a picture first.", print_exception=False)
    return folder


def made_file(file: Path) -> Path | None:
    return file if file.exists() else None


def picked(choices: list, event: gr.SelectData) -> object:
    """The choice that a visitor has clicked."""
    if event.index not in range(len(choices)):
        raise gr.Error("There is nothing yet.", print_exception=False)
    return choices[event.index]


def rows_of(canvas_layout: str) -> int:
    """Number of strips of a picture, played one after the other."""
    return 2 if canvas_layout == "folded" else 1


def on_the_way(picture: PIL.Image.Image, done: float | None, rows: int) -> dict:
    """Values of the player while a run is at work; `done` is the share of its steps."""
    png = io.BytesIO()
    picture.save(png, "png")
    return {"picture": data_url("image/png", png.getvalue()), "audio": None, "done": done, "rows": rows}


def finished(picture: Path, audio: Path, canvas_layout: str = "strip") -> dict:
    """Values of the player for a finished sample."""
    return {**playing(picture.read_bytes(), audio.read_bytes()), "rows": rows_of(canvas_layout)}


def playing(picture: bytes, audio: bytes, audio_type: str = "wav") -> dict:
    """Values of the player for a picture and its sound, of one row."""
    picture_type = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    sources = {"picture": data_url(f"image/{picture_type}", picture), "audio": data_url(f"audio/{audio_type}", audio)}
    return {**sources, "done": None, "rows": 1}


def began_with(folder: Path) -> gr.Image:
    """The picture or drawing that a sample began with."""
    files = [folder / name for name in ("picture.png", "drawing.png") if (folder / name).exists()]
    return gr.Image(files[0] if files else None, visible=bool(files))


def data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def candidates(made: list[Path]) -> gr.Gallery:
    """All candidates with their scores, if there are several."""
    if len(made) == 1:
        return gr.Gallery(visible=False)
    return gr.Gallery([(folder / "image.png", label_of(folder)) for folder in made], visible=True, selected_index=0)


def earlier_ones(runs: list[list[Path]]) -> gr.Gallery:
    """The best of each run of a visit."""
    settings = [sample_settings(made[0]) for made in runs]
    captions = [f"{each['prompt']} · {each['audio_prompt']}" for each in settings]
    return gr.Gallery([(made[0] / "image.png", words) for made, words in zip(runs, captions)], selected_index=None)


def remove(runs: list[list[Path]]) -> None:
    """Deletes runs: the oldest of a visitor, or all of one who is gone."""
    for made in runs:
        # The run's own folder, with its archive.
        shutil.rmtree(made[0].parents[1], ignore_errors=True)


def remove_hidden(file: Path | None) -> None:
    """Deletes a sound with a hidden picture, with its folder."""
    if file is not None:
        shutil.rmtree(file.parent, ignore_errors=True)
