"""
Trains the embedded checkpoint's ControlNet: lines of the drawn pictures of `world` steer its image side, which stays
as it is. A killed run that is started again with the same arguments goes on from its last state.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from diffusers import ControlNetModel, DDPMScheduler, UNet2DConditionModel
from PIL import Image, ImageFilter
from scipy import ndimage

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.scripts.common.control_lines import lines_of
from images_that_sound.scripts.common.models import EMBEDDED

from .embedded import encode_data
from .loop import (
    NOISE,
    Run,
    make_data,
    mostly,
    noise_loss,
    noised,
    parse_run,
    tokenize,
    train,
    trapezoid,
    velocity_weights,
)
from .world import HEIGHT, WIDTH, describe, draw


# The prompt if only the lines show the subject.
GENERIC_PROMPTS = ("a picture", "a painting", "a drawing", "a painting, grayscale", "a picture, black background")


def draw_one(kind: str, seed: int, index: int) -> tuple[np.ndarray, str, dict]:
    """A drawn picture (H, W), or its lines, packed (H, W / 8); those of every second one without fine detail."""
    canvas, name, attributes = draw("picture", seed, index)
    if kind == "lines":
        picture = Image.fromarray(canvas).filter(ImageFilter.GaussianBlur(2 * (index % 2)))
        canvas = np.packbits(np.asarray(lines_of(picture, HEIGHT, WIDTH)) > 127, axis=1)
    return canvas, name, attributes


# -------------------- Lines as a hand draws them --------------------


def hand_drawn(lines: np.ndarray, numbers: np.random.Generator) -> np.ndarray:
    """Lines (H, W) of 0 and 1 that are shaky, broken, thick and soft, each more or less, in 0..1."""
    lines = _shaken(lines.astype(np.float32), numbers, 3 * numbers.random() ** 2)
    lines = _broken(lines, numbers, 0.4 * numbers.random() ** 2)
    thickness = int(numbers.integers(1, 5))
    lines = ndimage.grey_dilation(lines, (thickness, thickness))
    lines = ndimage.gaussian_filter(lines, 0.8 * numbers.random())
    return lines / max(lines.max(), 1e-3)


def _shaken(lines: np.ndarray, numbers: np.random.Generator, shift: float) -> np.ndarray:
    """Each pixel comes from up to about `shift` pixels away, its neighbours from nearby."""
    shifts = [shift * _hills(lines.shape, numbers) for _ in range(2)]
    return ndimage.map_coordinates(lines, np.indices(lines.shape) + shifts, order=1)


def _broken(lines: np.ndarray, numbers: np.random.Generator, share: float) -> np.ndarray:
    """Without about that share of them, in patches."""
    hills = _hills(lines.shape, numbers)
    return lines * (hills > np.quantile(hills, share))


def _hills(shape: tuple[int, int], numbers: np.random.Generator) -> np.ndarray:
    """Smooth random heights of unit variance, hills 16 pixels apart."""
    coarse = numbers.standard_normal((shape[0] // 16 + 1, shape[1] // 16 + 1)).astype(np.float32)
    hills = Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(hills) / np.std(hills)


# -------------------- Training --------------------


def new_controlnet(
    unet: UNet2DConditionModel, embedding_channels: tuple[int, ...] = (8, 16, 32, 64)
) -> ControlNetModel:
    """One that begins as the UNet's encoder and says nothing. All but one `embedding_channels` halve the lines."""
    encoder = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=embedding_channels)
    # `from_unet` leaves out the number of heads.
    heads = unet.config.addition_embed_type_num_heads
    controlnet = ControlNetModel.from_config(encoder.config, addition_embed_type_num_heads=heads)
    controlnet.load_state_dict(encoder.state_dict())
    return controlnet


def train_controlnet(
    run: Run,
    pipe: ImagesThatSoundPipeline,
    controlnet: ControlNetModel,
    data: tuple[torch.Tensor, np.ndarray],
    prompt_of: Callable[[int, np.random.Generator], str],
) -> ControlNetModel:
    """
    Learns to predict the velocity (arXiv 2202.00512) of pictures whose lines it sees, and to be silent if the
    prompt is empty, so that guidance strengthens the lines too.

    Args:
        run ([`Run`]): Its folder gets the checkpoint.
        pipe ([`ImagesThatSoundPipeline`]): Its image side stays as it is.
        controlnet ([`ControlNetModel`]): A new one of its UNet.
        data (`tuple`): Latents (N, C, h, w), and lines (N, H, W / 8), packed.
        prompt_of (`Callable`): From a row of the data and a source of chance to a prompt.
    """
    latents, packed = data
    scheduler = DDPMScheduler(**NOISE)
    for model in (pipe.vae, pipe.unet, pipe.text_encoder):
        model.to(run.device).requires_grad_(False)
    unet = pipe.unet.to(memory_format=torch.channels_last)
    controlnet.to(run.device, memory_format=torch.channels_last)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, generator = run.generators(0, step)
        rows = numbers.integers(len(packed), size=run.batch_size)
        prompts = [mostly(partial(prompt_of, row, numbers), numbers) for row in rows]
        lines = np.stack([hand_drawn(np.unpackbits(packed[row], axis=1), numbers) for row in rows])
        lines = torch.from_numpy(lines)[:, None].expand(-1, 3, -1, -1)
        lines = lines.to(run.device, memory_format=torch.channels_last)
        noisy, timesteps, noise = noised(scheduler, latents[rows].float().to(run.device), generator)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        empty = [row for row, prompt in enumerate(prompts) if not prompt]
        with run.autocast():
            with torch.no_grad():
                embeddings = pipe.text_encoder(tokenize(pipe.tokenizer, prompts, run.device)).last_hidden_state
                if empty:
                    noise[empty] = unet(noisy[empty], timesteps[empty], embeddings[empty]).sample.float()
            down, middle = controlnet(noisy, timesteps, embeddings, lines, return_dict=False)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            predicted = unet(noisy, timesteps, embeddings, **residuals).sample.float()
        return noise_loss(predicted, noise, velocity_weights(scheduler, timesteps))

    train(run, "controlnet", controlnet, loss_of_step, learning_rate_at=trapezoid)
    return controlnet


def main(input_args: list[str] | None = None) -> None:
    steps, work_dir = {"controlnet": 5000}, "outputs/train_controlnet"
    run = parse_run(__doc__, input_args, work_dir=work_dir, num_draws=3000, batch_size=8, steps=steps)
    data = make_data(run, draw_one, ("picture", "lines"))
    pipe = ImagesThatSoundPipeline.from_pretrained(EMBEDDED).to(run.device)
    latents = encode_data(run, {"picture": data["picture"]}, pipe.vae)["picture"]
    packed, labels = data["lines"]

    def prompt_of(row: int, numbers: np.random.Generator) -> str:
        generic = numbers.random() < 0.4
        return str(numbers.choice(GENERIC_PROMPTS)) if generic else describe("picture", labels[row], numbers)

    torch.manual_seed(run.seed)
    controlnet = new_controlnet(pipe.unet)
    train_controlnet(run, pipe, controlnet, (latents, packed), prompt_of)
    controlnet.to("cpu", torch.float16).save_pretrained(run.output_dir)


if __name__ == "__main__":
    main()
