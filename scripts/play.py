"""Plays any picture as a spectrogram: one made here with the constants inside it, any other with Auffusion's."""

from collections.abc import Iterator
from pathlib import Path

from .common.border import run
from .common.files import check_absent, check_writable, json_text, written
from .common.parsers import add_spectrogram_argument, new_parser


def play(
    picture: Path,
    output: Path | None = None,
    vocoder: str | None = None,
    spectrogram: str | dict | None = None,
    frequency_scale: str = "mel",
) -> Iterator[Path]:
    """Makes a sound of a picture; yields its file."""
    import torch

    from ..pipelines import audio_problems, audio_remarks
    from ..pipelines.images_that_sound_audio_prior import check_vocoder
    from .common.canvases import canvas_of, constants_of, on_scale
    from .common.loudness import levelled
    from .common.models import read_vocoder
    from .common.samples import read_picture, write_audio

    given, output = output, output or Path(picture.with_suffix(".wav").name)
    if output.suffix.lower() != ".wav":
        raise ValueError(f"`output` has to end in .wav, but is {output}.")
    check_writable(output.parent, "output")
    pixels = read_picture(picture)
    if given is None:
        check_absent(output, "output")
    mel, settings = constants_of(picture, spectrogram)
    mel = on_scale(mel, frequency_scale)
    canvas = canvas_of(pixels, mel, settings.get("canvas_layout") == "folded")
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
        print(f"warning: {said}", flush=True)
    audio, gain = levelled(audio, mel.sampling_rate)
    settings = {**settings, "spectrogram": mel.to_dict(), "gain_in_db": gain}
    with written(output) as file:
        write_audio(file, audio, mel.sampling_rate, json_text(settings))
    yield output


def main(input_args: list[str] | None = None) -> None:
    parser = new_parser("play", __doc__)
    parser.add_argument(
        "picture", type=Path, help="A picture; resized to the number of mel bins where it has no settings."
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
    parser.add_argument(
        "--output", type=Path, help="WAV file. Default: the picture's name with .wav, in the current folder."
    )
    args = parser.parse_args(input_args)
    run(lambda: play(**vars(args)))


if __name__ == "__main__":
    main()
