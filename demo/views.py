"""Views of samples on the page, and its error messages."""

import base64
import io
import re
import shutil
from difflib import get_close_matches
from pathlib import Path

import gradio as gr
import PIL.Image
from studio import is_long, label_of

from images_that_sound.scripts.common.samples import read_picture, sample_settings
from images_that_sound.scripts.common.vocabulary import FUNCTION_WORDS, unknown_words, vocabulary, words_of


# Width and height of the board that a visitor draws on. A strip would be too low for a finger on a narrow page.
WIDE, SQUARE = (1024, 256), (512, 512)


# Likeness, from 0 to 1, from which on a word may be another one misspelled.
SPELLED_ALIKE = 0.85
# Folder of a sample in the page's own one.
SAMPLE = re.compile(r"[\w-]{32}/images-that-sound/seed-[0-9]{6,16}", re.ASCII)
# Width by height of a line of a long picture, and pixels between lines.
LINE, LINE_GAP = 4, 6
# Width and height of an uploaded picture as it is shown. Gradio keeps what it shows in memory, for each visitor.
PREVIEW = (640, 160)


def as_message(error: Exception) -> gr.Error:
    """The message of an error. The log has the rest of errors that the visitor can't mend."""
    return gr.Error(str(error), duration=8, print_exception=not isinstance(error, ValueError))


def blank(ground: int, size: tuple[int, int] = WIDE) -> PIL.Image.Image:
    """An empty board to draw on."""
    return PIL.Image.new("RGB", size, (ground,) * 3)


def unknown_of(settings: dict) -> list[str]:
    """Sentences about words that the models do not know."""
    return [each.replace("the checkpoint", "the model") for each in unknown_words(settings)]


def misspelled(prompt: str, model: str, kind: str) -> dict[str, str]:
    """Unknown words of a prompt, and for each the known word of a `kind` that is spelled almost like it."""
    known = [each for each in vocabulary(model, kind)[1] if each not in FUNCTION_WORDS]
    unknown = [each for each in words_of(prompt) if each not in {*known, *FUNCTION_WORDS}]
    nearest = {each: get_close_matches(each, known, 1, SPELLED_ALIKE) for each in unknown}
    return {word: found[0] for word, found in nearest.items() if found}


def check_made(folder: Path | None) -> Path:
    """A sample's folder, as long as it is kept."""
    if folder is None or not folder.exists():
        raise gr.Error("Make a picture first.", print_exception=False)
    return folder


def preview_of(picture: PIL.Image.Image) -> PIL.Image.Image:
    """A picture, small."""
    small = picture.copy()
    small.thumbnail(PREVIEW)
    return small


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
    shown = {"picture": data_url("image/png", png.getvalue()), "long": is_long(picture), "rows": rows}
    return {**shown, "audio": None, "loops": False, "done": done}


def in_lines(picture: PIL.Image.Image) -> PIL.Image.Image:
    """A long picture in lines below each other, as a text is; any other as it is."""
    if not is_long(picture):
        return picture
    width, height = LINE * picture.height, picture.height
    number = -(-picture.width // width)
    page = PIL.Image.new("RGBA", (width, number * (height + LINE_GAP) - LINE_GAP))
    for i in range(number):
        line = picture.crop((i * width, 0, min((i + 1) * width, picture.width), height))
        page.paste(line, (0, i * (height + LINE_GAP)))
    return page


def finished(picture: Path, audio: Path, canvas_layout: str = "strip", loops: bool = False) -> dict:
    """Values of the player for a finished sample."""
    return {**playing(picture.read_bytes(), audio.read_bytes()), "rows": rows_of(canvas_layout), "loops": loops}


def playing(picture: bytes, audio: bytes, audio_type: str = "wav") -> dict:
    """Values of the player for a picture and its sound, of one row."""
    picture_type = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    sources = {"picture": data_url(f"image/{picture_type}", picture), "audio": data_url(f"audio/{audio_type}", audio)}
    long = is_long(PIL.Image.open(io.BytesIO(picture)))
    return {**sources, "long": long, "loops": False, "done": None, "rows": 1}


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
    return gr.Gallery([(thumbnail_of(folder), label_of(folder)) for folder in made], visible=True, selected_index=0)


def thumbnail_of(folder: Path) -> Path | PIL.Image.Image:
    picture = read_picture(folder / "image.png")
    return in_lines(picture) if is_long(picture) else folder / "image.png"


def earlier_ones(runs: list[list[Path]]) -> gr.Gallery:
    """The best of each run of a visit."""
    settings = [sample_settings(made[0]) for made in runs]
    captions = [f"{each['prompt']} · {each['audio_prompt']}" for each in settings]
    return gr.Gallery([(thumbnail_of(made[0]), words) for made, words in zip(runs, captions)], selected_index=None)


def names_of(runs: list[list[Path]], folder: Path) -> list[list[str]]:
    """Runs as a browser keeps them, to ask for them after a reload."""
    return [[each.relative_to(folder).as_posix() for each in made] for made in runs]


def runs_of(names: object, folder: Path) -> list[list[Path]]:
    """Runs by `names_of`, as far as they are kept. Anything may have been sent, and is then no run."""
    runs = []
    for run in names if isinstance(names, list) else []:
        made = [each for each in run if isinstance(each, str)] if isinstance(run, list) else []
        made = [folder / each for each in made if SAMPLE.fullmatch(each) and (folder / each).is_dir()]
        runs += [made] if made else []
    return runs


def remove(runs: list[list[Path]]) -> None:
    """Deletes runs: the oldest of a visitor, or all of one who is gone."""
    for made in runs:
        # The run's own folder, with its archive.
        shutil.rmtree(made[0].parents[1], ignore_errors=True)


def remove_hidden(file: Path | None) -> None:
    """Deletes a sound with a hidden picture, with its folder."""
    if file is not None:
        shutil.rmtree(file.parent, ignore_errors=True)
