"""Shows any sound as a canvas: low frequencies are at the bottom, a column is a hop of the sound."""

from collections.abc import Iterator
from pathlib import Path

from .common.border import arguments_named, run
from .common.files import check_absent, check_writable, json_text, written, written_once
from .common.parsers import add_spectrogram_argument, new_parser


def see(
    sound: Path, output: Path | None = None, params_from: Path | None = None, spectrogram: str | dict | None = None
) -> Iterator[Path]:
    """Makes a picture of a sound; yields its file."""
    import torch

    from .common.canvases import constants_of, picture_of
    from .common.samples import write_picture
    from .common.sounds import read_audio

    given, output = output, output or Path(sound.with_suffix(".png").name)
    if output.suffix.lower() != ".png":
        raise ValueError(f"`--output` has to end in .png, but is {output}.")
    check_writable(output.parent, "--output")
    if params_from and spectrogram:
        raise ValueError("`params_from` and `spectrogram` exclude each other.")
    mel, settings = constants_of(params_from or sound, spectrogram)
    if params_from and not settings:
        raise ValueError(f"`params_from` has to be a file with settings, but {params_from} holds none.")
    audio = read_audio(sound, mel.sampling_rate)
    if given is None:
        check_absent(output, "--output")
    with arguments_named(audio="sound"):
        canvas = mel.audio_to_canvas(torch.from_numpy(audio))
    with (written_once if given is None else written)(output) as file:
        write_picture(file, picture_of(canvas[0]), json_text({"spectrogram": mel.to_dict()}))
    yield output


def main(input_args: list[str] | None = None) -> None:
    parser = new_parser("see", __doc__)
    parser.add_argument(
        "sound", type=Path, help="A sound that libsndfile reads; peak-normalised, channels averaged, resampled."
    )
    parser.add_argument("--params_from", type=Path, help="A file made here whose spectrogram constants to use.")
    add_spectrogram_argument(parser, "How to draw. Default: as the sound says itself, or as Auffusion.")
    parser.add_argument(
        "--output", type=Path, help="PNG file. Default: the sound's name with .png, in the current folder."
    )
    args = parser.parse_args(input_args)
    run(lambda: see(**vars(args)))


if __name__ == "__main__":
    main()
