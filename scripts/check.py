"""Is the sound really the picture? Compares a sample's canvas with spectrograms of its sound and of rebuilt ones."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .common.border import run
from .common.files import check_writable, write_json, written
from .common.parsers import new_parser


if TYPE_CHECKING:
    import torch

    from ..pipelines import MelSpectrogram


def check(sample_dir: Path, vocoder: str | None = None) -> Iterator[str]:
    """Checks all samples; yields the lines of a table."""
    import torch

    from ..pipelines import MelSpectrogram
    from ..pipelines.images_that_sound_audio_prior import check_vocoder
    from .common.canvases import canvas_of, heard_canvas, sheet_of
    from .common.models import SHIPPED, read_vocoder
    from .common.samples import find_samples, read_picture, sample_settings

    folders = find_samples(sample_dir)
    check_writable(sample_dir, "sample_dir")
    vocoders: dict[str, torch.nn.Module] = {}
    yield f"{'sound':<36} {'correlation':>11} {'distance in dB':>15}   sample"
    for folder in folders:
        settings = sample_settings(folder)
        mel = MelSpectrogram.from_dict(settings.get("spectrogram", {}))
        source, made_by = vocoder, settings.get("audio_model")
        if source is None and made_by in SHIPPED:
            source = made_by
        elif source is None and made_by is not None:
            yield f"{folder}: for the vocoder of what made it, name it by --vocoder {shlex.quote(made_by)}"
        if source is not None and source not in vocoders:
            vocoders[source] = read_vocoder(source, spectrogram=None if vocoder else mel)
        check_vocoder(vocoders.get(source), mel)
        canvas = canvas_of(read_picture(folder / "spectrogram.png"), mel)
        numbers, canvases = {}, {"picture": canvas[0]}
        for name, audio in sounds_of(folder, canvas, mel, vocoders.get(source)).items():
            canvases[name], numbers[name] = heard_canvas(canvas, audio, mel)
            correlation, distance = numbers[name].values()
            yield f"{name:<36} {correlation:>11.3f} {distance:>15.1f}   {folder}"
        with written(folder / "check.png") as file:
            sheet_of(canvases).save(file)
        write_json(folder / "check.json", numbers)


def sounds_of(
    folder: Path, canvas: "torch.Tensor", mel: "MelSpectrogram", vocoder: "torch.nn.Module | None"
) -> dict[str, "torch.Tensor"]:
    """The saved waveform and those rebuilt from the canvas `(1, 1, M, T)`, each of shape `(N,)`."""
    import torch

    from .common.loudness import without_gain
    from .common.samples import sample_settings
    from .common.sounds import read_audio

    log_mel = mel.canvas_to_log_mel(canvas)
    saved = without_gain(read_audio(folder / "audio.wav", mel.sampling_rate), sample_settings(folder))
    sounds = {"saved sound": torch.from_numpy(saved)}
    if vocoder is not None:
        with torch.no_grad():
            rebuilt = mel.canvas_to_audio(canvas, vocoder)
        sounds["vocoder"] = rebuilt[0]
        sounds["magnitude with the vocoder's phase"] = mel.griffin_lim(log_mel, 0, phases_of=rebuilt)[0]
    sounds["Griffin-Lim"] = mel.griffin_lim(log_mel)[0]
    return sounds


def main(input_args: list[str] | None = None) -> None:
    parser = new_parser("check", __doc__)
    parser.add_argument(
        "--sample_dir", type=Path, required=True, help="Every sample at or below it gets check.png and check.json."
    )
    parser.add_argument("--vocoder", help="Repo or folder of the vocoder, such as the sample's audio model.")
    args = parser.parse_args(input_args)
    run(lambda: check(args.sample_dir, args.vocoder))


if __name__ == "__main__":
    main()
