"""Hides pictures in a sound of yours: they are seen in its spectrogram, and all else stays as it is."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common.border import run
from .common.files import Write, check_absent, check_readable, check_writable, json_text, written, written_once
from .common.parsers import add_invert_argument, add_video_arguments, new_parser, with_look
from .common.progress import tell
from .common.values import STRIP, Look


if TYPE_CHECKING:
    import soundfile

    from ..pipelines.images_that_sound_hiding import HiddenPicture

# Places of pictures that are given none: hardly heard, and of their natural shape.
BAND = (6000.0, 14000.0)
SHARES = (0.4, 0.9)  # of the frequencies of a sound that does not reach so high
SECONDS = 5.0
# Percent of a picture's pixels that may become all black, and all white, when its contrast is stretched.
CUT_OFF = 0.5
# The part of the sound that is shown: rows, the share around the pictures, and seconds at most.
ROWS, AROUND, MOST_SHOWN = 720, 0.15, 120.0
PLACE = ("start_in_s", "end_in_s", "min_frequency", "max_frequency", "strength", "frequency_scale")


def hide(
    song: Path,
    image: list[Path],
    output: Path | None = None,
    invert: bool | None = None,
    video: Look | None = STRIP,
    **place: list | None,
) -> Iterator[Path]:
    """
    Hides pictures; yields the files of the sound, its spectrogram and its video.

    Args:
        song (`Path`): A sound of any length.
        image (`list[Path]`): Pictures.
        output (`Path`, *optional*): Ends in `.wav` or `.flac`. The spectrogram and the video are beside it. Default:
            the song's name and "-hidden", in the current folder.
        invert (`bool`, *optional*): Whether light and dark of the pictures are swapped. Default: as each looks.
        video ([`Look`], *optional*, defaults to `STRIP`): Look of the video; `None` for none.
        place (`list`, *optional*): By the names in `PLACE`, a value for all pictures or one for each.
    """
    from .common.hiding import SUFFIXES, hide_in_file
    from .common.sounds import opened_sound

    check_readable(song, "sound")
    grays = [read_drawing(each, invert) for each in image]
    given, output = output, output or Path(f"{song.stem}-hidden{'.flac' if song.suffix == '.flac' else '.wav'}")
    if output.suffix.lower() not in SUFFIXES:
        raise ValueError(f"`--output` has to end in {' or '.join(SUFFIXES)}, but is {output}.")
    check_writable(output.parent, "--output")
    write = written_once if given is None else written
    formats = video.video_format if video else []
    files = [output, *(output.with_suffix(f".{end}") for end in ("png", *formats))]
    for file in files:
        if file.exists() and any(file.samefile(each) for each in (song, *image) if each.exists()):
            raise ValueError(f"`--output` would replace {file}, which is read. Name another file.")
        if given is None:
            check_absent(file, "--output")
    with write(output) as target, opened_sound(song, target.parent) as sound:
        pictures = [placed(sound, gray, values) for gray, values in zip(grays, each_place(len(grays), place))]
        hidden = hide_in_file(sound, song, target, pictures)
    yield output
    yield from show(output, song, image, pictures, min(hidden.levels), video, write)
    say(hidden, output)


def read_drawing(path: Path, invert: bool | None) -> Any:
    """A picture as gray values `(H, W)` in 0..1, from black to white, with the drawing in light."""
    import numpy as np
    import PIL.ImageOps

    from .common.samples import read_drawing as read

    gray = read(path, invert=invert).convert("L")
    return np.asarray(PIL.ImageOps.autocontrast(gray, CUT_OFF), np.float32) / 255


def each_place(number: int, place: dict[str, list | None]) -> list[dict[str, Any]]:
    """Values of the places of pictures, for each; a single value is for all."""
    for name, values in place.items():
        if values is not None and len(values) not in (1, number):
            raise ValueError(f"`{name}` has to be given once or for each of {number} pictures, but is {values}.")
    given = {name: values for name, values in place.items() if values is not None}
    return [{name: values[i % len(values)] for name, values in given.items()} for i in range(number)]


def placed(sound: "soundfile.SoundFile", picture: Any, place: dict[str, Any]) -> "HiddenPicture":
    """
    A picture in a sound. Its place is, unless `place` says otherwise, as long as it is wide, and hardly heard. Raises
    `ValueError` if the sound ends before, unless nothing says when the picture begins or ends.
    """
    from ..pipelines.images_that_sound_hiding import HiddenPicture

    rows, columns = picture.shape
    start, highest = place.get("start_in_s", 0.0), sound.samplerate / 2
    seconds, length = sound.frames / sound.samplerate, max(SECONDS * columns / rows, 1)
    if start and "end_in_s" not in place and start + length > seconds:
        raise ValueError(
            f"`start_in_s` is {start:g}, and the picture lasts {length:.2f} s in its shape, but the sound ends after"
            f" {seconds:.2f} s. Begin earlier, or name `end_in_s`."
        )
    length = min(length, seconds - start)
    band = BAND if highest > BAND[1] else [share * highest for share in SHARES]
    usual = {"start_in_s": start, "end_in_s": start + length, "min_frequency": band[0], "max_frequency": band[1]}
    return HiddenPicture(picture=picture, sampling_rate=sound.samplerate, **{**usual, **place})


def show(
    output: Path,
    song: Path,
    image: list[Path],
    pictures: "list[HiddenPicture]",
    level: float,
    video: Look | None,
    write: Write = written,
) -> Iterator[Path]:
    """Draws the part of a sound that pictures are in, and films it."""
    import soundfile

    from .common.samples import write_picture
    from .common.spectrograms import spectrogram_of, with_axes
    from .common.video import write_videos

    scale = pictures[0].frequency_scale
    settings = json_text({"image": [str(each) for each in image], "audio": str(song), **place_of(pictures)})
    with soundfile.SoundFile(output) as sound:
        start, end = shown_part(pictures, sound.frames / sound.samplerate)
        drawn = spectrogram_of(sound, start, end, (columns_of(pictures[0], end - start), ROWS), scale, level)
        with write(output.with_suffix(".png")) as file:
            write_picture(file, with_axes(drawn, start, end, sound.samplerate, scale), settings)
        yield output.with_suffix(".png")
        if video:
            sound.seek(round(start * sound.samplerate))
            audio = sound.read(round((end - start) * sound.samplerate), dtype="float32", always_2d=True).mean(axis=1)
            captions = [f"picture: {', '.join(each.name for each in image)}", f"sound: {song.name}"]
            panels = [(drawn, 1)]
            yield from write_videos(output, panels, audio, sound.samplerate, captions, settings, video, write=write)


def place_of(pictures: "list[HiddenPicture]") -> dict[str, list]:
    return {name: [getattr(each, name) for each in pictures] for name in PLACE}


def shown_part(pictures: "list[HiddenPicture]", seconds: float) -> tuple[float, float]:
    """From when to when a sound is shown."""
    start, end = min(each.start_in_s for each in pictures), max(each.end_in_s for each in pictures)
    start, end = max(start - AROUND * (end - start), 0.0), min(end + AROUND * (end - start), seconds)
    if end - start > MOST_SHOWN:
        tell(f"The spectrogram and the video show the first {MOST_SHOWN:.0f} of {end - start:.0f} s.", sys.stdout)
    return start, min(end, start + MOST_SHOWN)


def columns_of(picture: "HiddenPicture", seconds: float) -> int:
    """How wide a spectrogram is in which a picture has its natural shape, within bounds."""
    from .common.spectrograms import rows_between

    rows, columns = picture.picture.shape
    band = (picture.min_frequency, picture.max_frequency)
    height = rows_between(*band, picture.sampling_rate, ROWS, picture.frequency_scale)
    width = columns / rows * height * seconds / (picture.end_in_s - picture.start_in_s)
    return math.ceil(min(max(width, 64), 4096))


def say(hidden: Any, output: Path) -> None:
    """Says a user what may matter of a new sound."""
    if hidden.num_clipped:
        tell(
            f"warning: {hidden.num_clipped} samples would be louder than a file holds, and are held at full scale."
            " If that is heard, a lower --strength or a quieter song helps.",
            sys.stdout,
        )
    if not hidden.tags_kept:
        kept = "Title, artist and such tags are kept" if output.suffix.lower() == ".flac" else "No tags are kept"
        tell(f"{kept}. FLAC keeps title, artist and such; WAV to WAV, or FLAC to FLAC, keeps all.", sys.stdout)


def main(input_args: list[str] | None = None) -> None:
    parser = new_parser("hide", __doc__)
    parser.add_argument("song", type=Path, help="A sound of any length that libsndfile or FFmpeg reads.")
    parser.add_argument(
        "--image", type=Path, nargs="+", action="extend", required=True, help="Pictures, each in another place."
    )
    places = parser.add_argument_group("places", "A value for all pictures, or one for each.")
    for name, text in {
        "start_in_s": "Start of a picture in seconds. Default: 0.",
        "end_in_s": "Its end. Default: 5 seconds after its start for a square, more for a wide one.",
        "min_frequency": "Lower edge of its band in Hz. Default: 6000.",
        "max_frequency": "Upper edge in Hz. Default: 14000.",
        "strength": "From 0, the sound as it is, to 1, nothing but the picture in its place. Default: 0.8.",
    }.items():
        places.add_argument(f"--{name}", type=float, nargs="+", action="extend", help=text)
    places.add_argument(
        "--frequency_scale",
        choices=("linear", "logarithmic", "mel"),
        nargs="+",
        action="extend",
        help="Scale of the viewer that the picture is for. Default: linear.",
    )
    add_invert_argument(parser)
    add_video_arguments(parser)
    parser.add_argument(
        "--output",
        type=Path,
        help="WAV or FLAC; the spectrogram and the video go beside it. Default: the song's name and -hidden, in the"
        " current folder.",
    )
    args = parser.parse_args(input_args)
    run(lambda: hide(**with_look(args)))


if __name__ == "__main__":
    main()
