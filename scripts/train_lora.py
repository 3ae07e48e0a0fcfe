"""Learns sounds of yours: a LoRA of the audio side from a folder of them. A stopped run goes on."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from .common.border import run
from .common.files import check_text
from .common.parsers import add_options, add_spectrogram_argument, new_parser
from .common.values import Models, Request, Training, values_of


@dataclass(frozen=True, kw_only=True)
class LoraRequest:
    """A request for a training, whose audio side is the `model` of `models`."""

    audio_dir: Path
    audio_prompt: str | None
    output_dir: Path
    models: Models
    training: Training
    report_to: str | None


def parse_args(input_args: list[str] | None = None) -> LoraRequest:
    parser = new_parser("train-lora", __doc__)
    parser.add_argument(
        "--audio_dir",
        type=Path,
        required=True,
        help="Folder of sounds. Captions are those of its metadata.jsonl (`file_name`, `text`), else of a text file"
        " beside a sound, else --audio_prompt, else the words of the file's name.",
    )
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="Gets the LoRA, which --audio_lora of other commands takes."
    )
    parser.add_argument("--audio_prompt", help="Caption of all sounds that have none of their own.")
    parser.add_argument(
        "--audio_model", default="embedded", help="Repo or folder of the audio side. Default: %(default)s."
    )
    add_spectrogram_argument(parser, "Spectrograms of the audio side. Default: those that are known of it.")
    add_options(parser, Training, *(field.name for field in fields(Training)))
    add_options(parser, Models, "device")
    add_options(parser, Request, "report_to")
    args = parser.parse_args(input_args)
    for name in ("audio_prompt", "validation_prompt"):
        check_text(name, getattr(args, name) or "")
    model = args.audio_model
    # Only the embedded checkpoint holds both sides.
    models = Models(
        model=model,
        audio_model=None if model == "embedded" else model,
        spectrogram=args.spectrogram,
        device=args.device,
    )
    training = values_of(Training, args).for_model(model)
    return values_of(LoraRequest, args, models=models, training=training)


def train_lora(request: LoraRequest) -> Iterator[Path]:
    """Trains a LoRA unless it is there; yields its file."""
    from .common.lora_training import train
    from .common.sound_folders import captioned_sounds

    sounds = captioned_sounds(request.audio_dir, request.audio_prompt)
    yield train(sounds, request.output_dir, request.models, request.training, request.report_to)


def main(input_args: list[str] | None = None) -> None:
    run(lambda: train_lora(parse_args(input_args)))


if __name__ == "__main__":
    main()
