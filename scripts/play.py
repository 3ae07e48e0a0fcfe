"""Plays any picture as a spectrogram: one made here with the constants inside it, any other with Auffusion's."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from .common.arguments import new_parser, run
from .common.files import check_writable, written


def play(picture: Path, output: Path | None = None, vocoder: str | None = None) -> Iterator[Path]:
    """Makes a sound of a picture; yields its file."""
    import torch

    from ..pipelines import audio_problems, load_vocoder
    from .common.canvases import canvas_of, constants_of
    from .common.samples import read_picture, write_audio

    output = output or picture.with_suffix(".wav")
    if output.suffix.lower() != ".wav":
        raise ValueError(f"`output` has to end in .wav, but is {output}.")
    check_writable(output.parent)
    pixels = read_picture(picture)
    mel, settings = constants_of(picture)
    canvas = canvas_of(pixels, mel, settings.get("canvas_layout") == "folded")
    least = math.ceil((mel.n_fft - mel.hop_length) / 2 / mel.hop_length) + 1
    if canvas.shape[-1] < least:
        raise ValueError(
            f"`picture` has to be at least {least} columns wide to be played, but has {canvas.shape[-1]}."
        )
    with torch.no_grad():
        audio = mel.canvas_to_audio(canvas, None if vocoder is None else load_vocoder(vocoder))[0].numpy()
    for problem in audio_problems(audio):
        print(f"warning: {problem}", flush=True)
    with written(output) as file:
        write_audio(file, audio, mel.sampling_rate, json.dumps({**settings, "spectrogram": mel.to_dict()}))
    yield output


def main(input_args: list[str] | None = None) -> None:
    parser = new_parser("play", __doc__)
    parser.add_argument(
        "picture", type=Path, help="A picture; resized to the number of mel bins where it has no settings."
    )
    parser.add_argument(
        "--vocoder", help="Repo or folder such as Auffusion's whose vocoder plays. Default: Griffin-Lim."
    )
    parser.add_argument("--output", type=Path, help="WAV file. Default: the picture's name with .wav.")
    args = parser.parse_args(input_args)
    run(lambda: play(args.picture, args.output, args.vocoder))


if __name__ == "__main__":
    main()
