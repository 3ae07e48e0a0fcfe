"""
Trains the open world's ControlNet: lines of wild squares, which hold anything at any place, and of the named drawings
steer the image UNet, which stays as it is. Run `training.text` before. Writes `controlnet`.
"""

import numpy as np
import torch
from PIL import Image, ImageFilter

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.scripts.common.control_lines import lines_of
from images_that_sound.scripts.common.files import written

from .controlnet import new_controlnet, train_controlnet
from .loop import Run, parse_run, save_model
from .open_pipeline import open_pipeline
from .open_world.pictures import SQUARE, WILD, draw_wild
from .open_world.squares import Squares, describe, make_squares
from .unets import latents_of


# Of the lines' 256 pixels to the latents' 16.
EMBEDDING_CHANNELS = (4, 8, 16, 32, 64)
# Wild squares from this number on are drawn for the ControlNet alone.
FIRST_WILD = 10_000
# Share of the named drawings whose prompt names nothing, so that only the lines tell.
GENERIC_SHARE = 0.4


def lines_of_squares(pixels: np.ndarray) -> np.ndarray:
    """Lines (N, 256, 32), packed, of squares (N, 256, 256) in 0..255; of every second one without fine detail."""
    lines = []
    for index, square in enumerate(pixels):
        picture = Image.fromarray(square).filter(ImageFilter.GaussianBlur(4 * (index % 2)))
        lines.append(np.packbits(np.asarray(lines_of(picture, SQUARE, SQUARE)) > 127, axis=1))
    return np.stack(lines)


def make_data(run: Run, pictures: Squares, pipe: ImagesThatSoundPipeline) -> tuple[torch.Tensor, np.ndarray]:
    """
    Latents (N, C, 16, 16) and packed lines (N, 256, 32) of the pictures and behind them `run.num_draws` wild squares,
    from disk if they are there.
    """
    file = run.work_dir / "lines.npz"
    if not file.exists():
        wild = [draw_wild(np.random.default_rng(FIRST_WILD + i)) for i in range(run.num_draws)]
        pixels = np.concatenate([pictures.pixels, np.stack(wild)])
        with written(file) as partial_file:
            np.savez_compressed(partial_file, pixels=pixels, lines=lines_of_squares(pixels))
    with np.load(file, allow_pickle=False) as arrays:
        return latents_of(run.work_dir, pipe.vae, "lines", arrays["pixels"]), arrays["lines"]


def main(input_args: list[str] | None = None) -> None:
    steps, work_dir = {"controlnet": 1500}, "outputs/open_world"
    run = parse_run(__doc__, input_args, work_dir=work_dir, num_draws=1500, batch_size=16, steps=steps)
    pictures = make_squares(run.work_dir, 1000, ("picture",))["picture"]
    pipe = open_pipeline(run.output_dir)
    latents, lines = make_data(run, pictures, pipe)
    count = len(pictures.pixels)

    def prompt_of(row: int, numbers: np.random.Generator) -> str:
        generic = row >= count or numbers.random() < GENERIC_SHARE
        return describe("picture", {"name": WILD} if generic else pictures.labels[row], numbers)

    torch.manual_seed(run.seed)
    controlnet = new_controlnet(pipe.unet, EMBEDDING_CHANNELS)
    print(f"{controlnet.num_parameters()} parameters", flush=True)
    train_controlnet(run, pipe, controlnet, (latents, lines), prompt_of)
    save_model(controlnet, run.output_dir / "controlnet")


if __name__ == "__main__":
    main()
