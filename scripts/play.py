"""Plays any picture as a spectrogram: one made here with the constants inside it, any other with Auffusion's."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .common.border import run
from .common.files import check_absent, check_writable, json_text, written, written_once
from .common.parsers import add_invert_argument, add_spectrogram_argument, add_video_arguments, new_parser, with_look
from .common.progress import tell
from .common.values import STRIP, Look


if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    import torch

    from ..pipelines import MelSpectrogram

# Rows of a spectrogram with axes: the first number with which it is at most so wide, or else the last.
ROWS, WIDEST, NARROWEST = (512, 256), 4096, 64
# How far below the loudest pixel a spectrogram is black: so far that gray parts of a canvas are gray there too, whose
# darkest ones drown in what its brightest spill.
RANGE_IN_DB = 120.0


def play(
    picture: Path,
    output: Path | None = None,
    vocoder: str | None = None,
    spectrogram: str | dict | None = None,
    frequency_scale: str = "mel",
    invert: bool | None = None,
    audio_length_in_s: float | None = None,
    video: Look | None = STRIP,
) -> Iterator[Path]:
    """
    Makes a sound of a picture; yields its file, those of the canvas that was played and of the sound's spectrogram,
    and a video. The picture lasts 0.01 s for each column of the canvas, unless `audio_length_in_s` says how long.
    """
    from .common.canvases import canvas_of, constants_of, lasting, on_scale, picture_of
    from .common.loudness import levelled
    from .common.samples import read_drawing, write_audio, write_picture
    from .common.video import write_videos

    given, output = output, output or Path(picture.with_suffix(".wav").name)
    if output.suffix.lower() != ".wav":
        raise ValueError(f"`--output` has to end in .wav, but is {output}.")
    check_writable(output.parent, "--output")
    write = written_once if given is None else written
    files = files_beside(output, video)
    for file in files:
        if file.exists() and picture.exists() and file.samefile(picture):
            raise ValueError(f"`--output` would replace {file}, which is read. Name another file.")
    mel, settings = constants_of(picture, spectrogram)
    mel = on_scale(mel, frequency_scale)
    pixels = read_drawing(picture, mel.silence, invert)
    for file in files if given is None else []:
        check_absent(file, "--output")
    seen = canvas_of(pixels, mel, settings.get("canvas_layout") == "folded")
    canvas = seen if audio_length_in_s is None else lasting(seen, audio_length_in_s, mel)
    audio, gain = levelled(sound_of(canvas, mel, vocoder, frequency_scale), mel.sampling_rate)
    length = {} if audio_length_in_s is None else {"audio_length_in_s": audio_length_in_s}
    text = json_text({**settings, **length, "spectrogram": mel.to_dict(), "gain_in_db": gain})
    with write(output) as file:
        write_audio(file, audio, mel.sampling_rate, text)
    yield output
    with write(files[1]) as file:
        write_picture(file, picture_of(canvas[0, 0]), text)
    yield files[1]
    with write(files[2]) as file:
        write_picture(file, drawn(output, mel, seen.shape[-1] / seen.shape[-2]), text)
    yield files[2]
    if video:
        panels, captions = [(picture_of(seen[0, 0]), 1)], [f"picture: {picture.name}"]
        yield from write_videos(output, panels, audio, mel.sampling_rate, captions, text, video, write=write)


def files_beside(output: Path, video: Look | None) -> list[Path]:
    """The sound's file and those that come with it: what was played, what it looks like, and the video."""
    endings = ("-picture.png", "-spectrogram.png", *(f".{each}" for each in (video.video_format if video else [])))
    return [output, *(output.with_name(f"{output.stem}{ending}") for ending in endings)]


def sound_of(canvas: "torch.Tensor", mel: "MelSpectrogram", vocoder: str | None, frequency_scale: str) -> "np.ndarray":
    """The waveform of a canvas. Says its problems in a line each."""
    import torch

    from ..pipelines import audio_problems, audio_remarks
    from ..pipelines.images_that_sound_audio_prior import check_vocoder
    from .common.models import read_vocoder

    if canvas.shape[-1] < mel.min_columns:
        raise ValueError(
            f"`picture` has to be at least {mel.min_columns} columns wide to be played, but has {canvas.shape[-1]}."
        )
    if vocoder is not None and frequency_scale != "mel":
        raise ValueError(f"`vocoder` reads mel only, so that it excludes `frequency_scale` {frequency_scale}.")
    plays = None if vocoder is None else read_vocoder(vocoder)
    check_vocoder(plays, mel)
    with torch.no_grad():
        audio = mel.canvas_to_audio(canvas, plays)[0].numpy()
    for said in (*audio_problems(audio), *audio_remarks(audio, mel)):
        tell(f"warning: {said}", sys.stdout)
    return audio


def drawn(sound: Path, mel: "MelSpectrogram", shape: float) -> "PIL.Image.Image":
    """The spectrogram of a file with its axes. The picture, `shape` times as wide as high, has its shape there."""
    import soundfile

    from .common.spectrograms import rows_between, spectrogram_of, with_axes

    scale = {"htk": "mel"}.get(mel.frequency_scale, mel.frequency_scale)
    with soundfile.SoundFile(sound) as file:
        seconds, band = file.frames / file.samplerate, (mel.min_frequency, mel.max_frequency)
        sizes = [(round(shape * rows_between(*band, file.samplerate, rows, scale)), rows) for rows in ROWS]
        width, rows = next((size for size in sizes if size[0] <= WIDEST), sizes[-1])
        size = (max(width, NARROWEST), rows)
        picture = spectrogram_of(file, 0.0, seconds, size, scale, range_in_db=RANGE_IN_DB)
        return with_axes(picture, 0.0, seconds, file.samplerate, scale)


def main(input_args: list[str] | None = None) -> None:
    parser = new_parser("play", __doc__)
    parser.add_argument(
        "picture", type=Path, help="A picture; resized to the number of mel bins if it has no settings."
    )
    parser.add_argument(
        "--vocoder", help="Repo or folder such as Auffusion's whose vocoder plays. Default: Griffin-Lim."
    )
    add_spectrogram_argument(parser, "How the picture is read. Default: as it says itself, or as Auffusion's.")
    parser.add_argument(
        "--frequency_scale",
        choices=("mel", "linear", "logarithmic"),
        default="mel",
        help="On what scale the rows are, such as that of a viewer for which the picture was made. Default: mel.",
    )
    add_invert_argument(parser)
    parser.add_argument(
        "--audio_length_in_s",
        type=float,
        help="Seconds that the picture lasts. Default: 0.01 s for each column, 2.56 s for a square picture.",
    )
    add_video_arguments(parser)
    parser.add_argument(
        "--output",
        type=Path,
        help="WAV file; pictures and the video go beside it. Default: the picture's name with .wav, in the current"
        " folder.",
    )
    args = parser.parse_args(input_args)
    run(lambda: play(**with_look(args)))


if __name__ == "__main__":
    main()
