"""
Puts the open world's stages together as a pipeline, with `vocabulary.json` and what else is there of scores and LoRAs:
`ImagesThatSoundPipeline.from_pretrained(output_dir)` loads it.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from diffusers import AutoencoderKL, UNet2DConditionModel, UniPCMultistepScheduler
from transformers import CLIPTextModel, CLIPTokenizer

from images_that_sound.pipelines import ImagesThatSoundPipeline, MelSpectrogram
from images_that_sound.scripts.common.files import write_json
from images_that_sound.scripts.common.vocabulary import words_of

from .loop import NOISE, save
from .open_world.pictures import SQUARE
from .open_world.squares import describe, make_squares


# Auffusion's constants; a fifth of the rounds that its canvases take, on magnitudes that are closer to the canvas.
SPECTROGRAM = MelSpectrogram(inverse_filter_iterations=20, griffin_lim_iterations=12)
# Arguments of calls of the pipelines on this checkpoint, if they are left out. A canvas is four squares beside each
# other, of which the UNets see one at a time.
DEFAULT_ARGUMENTS = {
    "height": SQUARE,
    "width": 4 * SQUARE,
    **{f"{side}window_{size}": SQUARE for side in ("", "audio_") for size in ("width", "stride")},
    "window_batch_size": 4,
    "crop_right": 0,
    "guidance_scale": 7.5,
    "audio_guidance_scale": 7.5,
    "num_inference_steps": 10,
    "num_audio_inference_steps": 25,
    "num_crops": 1,
    "crop_width": 4 * SQUARE,
    "num_iterations": 2000,
    "image_start_step": 250,
}
# What else belongs to a checkpoint.
FOLDERS = ("clip", "clap", "lcm_lora")
# Wordings of each name, enough to hold every word that a prompt may have.
NUM_WORDINGS = 300


def open_pipeline(folder: Path) -> ImagesThatSoundPipeline:
    """The pipeline of the stages in a folder."""
    return ImagesThatSoundPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
        scheduler=UniPCMultistepScheduler(**NOISE, timestep_spacing="leading", steps_offset=1),
        unet_audio=UNet2DConditionModel.from_pretrained(folder / "unet_audio"),
        vocoder=None,
        **dict.fromkeys(("vae_audio", "text_encoder_audio", "tokenizer_audio")),
        **dict.fromkeys(("controlnet", "audio_controlnet", "image_encoder", "feature_extractor")),
        spectrogram=SPECTROGRAM.to_dict(),
        default_arguments=DEFAULT_ARGUMENTS,
    )


def known_words(labels: dict[str, list[dict]]) -> dict[str, dict[str, list[str]]]:
    """For each kind of labels the names of what there is, and all words of its prompts."""
    numbers, known = np.random.default_rng(0), {}
    for kind in labels:
        names = list(dict.fromkeys(label["name"] for label in labels[kind]))
        rounds = -(-NUM_WORDINGS * len(names) // len(labels[kind]))
        prompts = (describe(kind, label, numbers) for label in labels[kind] for _ in range(rounds))
        known[kind] = {"names": names, "words": sorted({word for prompt in prompts for word in words_of(prompt)})}
    return known


def main(input_args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default="training/checkpoints", help="Folder of the stages.")
    parser.add_argument("--work_dir", type=Path, default="outputs/open_world", help="Keeps the squares.")
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder for the pipeline.")
    args = parser.parse_args(input_args)
    save(open_pipeline(args.model), args.output_dir)
    for name in FOLDERS:
        if (args.model / name).exists():
            shutil.copytree(args.model / name, args.output_dir / name, dirs_exist_ok=True)
    data = make_squares(args.work_dir, 1000, ("picture", "sound"))
    write_json(args.output_dir / "vocabulary.json", known_words({kind: data[kind].labels for kind in data}))


if __name__ == "__main__":
    main()
