"""
Trains a vocoder for the embedded checkpoint from nothing: a small HiFi-GAN generator that plays the world's sounds and
canvases that are both a picture and a sound. Stages: data, vocoder. A killed run that is started again with the same
arguments goes on where it was; one that is started with more steps goes on from there.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from images_that_sound.scripts.common.models import EMBEDDED

from .embedded import to_vae_input
from .loop import Run, load_as_float32, make_data, parse_run, train, trapezoid
from .world import HEIGHT, SPECTROGRAM, WIDTH, draw, draw_waveform


# Columns of a crop, and those at either end of it that Fourier transforms see only in part.
CROP_WIDTH, MARGIN = 64, 6
# Shorter windows than the canvas', which tell when something sounds.
SHORT = replace(SPECTROGRAM, n_fft=512, win_length=256, num_mel_bins=64)


def draw_for_vocoder(kind: str, seed: int, index: int) -> tuple[np.ndarray, str, dict]:
    """A picture (H, W) as uint8 or a sound (N,) as 16-bit samples, the name of what it is, and its attributes."""
    if kind == "picture":
        return draw(kind, seed, index)
    audio, name, attributes = draw_waveform(np.random.default_rng([seed, 1, index]))
    return (audio * 32767).round().astype(np.int16), name, attributes


def new_vocoder(log_mel: torch.Tensor) -> SpeechT5HifiGan:
    """An untrained vocoder for such log-mels (B, M, T); most of its 1.3 million weights work at the canvas' rate."""
    vocoder = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=HEIGHT,
            sampling_rate=SPECTROGRAM.sampling_rate,
            upsample_initial_channel=256,
            upsample_rates=[1, 2, 2, 4, 5, 2],
            upsample_kernel_sizes=[3, 4, 4, 8, 11, 4],
            resblock_kernel_sizes=[3],
            resblock_dilation_sizes=[[1, 3, 9, 27, 1, 3, 9]],
            normalize_before=True,
        )
    )
    for module in vocoder.modules():
        if isinstance(module, (torch.nn.Conv1d, torch.nn.ConvTranspose1d)):
            # The class begins with weights that are too small to learn without an adversary.
            module.reset_parameters()
    vocoder.mean.copy_(log_mel.mean(dim=(0, 2)))
    vocoder.scale.fill_(log_mel.std())
    return vocoder


def crop_sounds(sounds: np.ndarray, numbers: np.random.Generator, batch_size: int) -> tuple[torch.Tensor, ...]:
    """Random crops of 16-bit sounds: waveforms (B, N) and their log-mels (B, M, T)."""
    margin = MARGIN * SPECTROGRAM.hop_length
    length = SPECTROGRAM.num_samples(CROP_WIDTH) + 2 * margin
    crops = np.empty((batch_size, length), np.float32)
    for row in range(batch_size):
        first = int(numbers.integers(WIDTH - CROP_WIDTH - 2 * MARGIN + 1)) * SPECTROGRAM.hop_length
        crops[row] = sounds[int(numbers.integers(len(sounds))), first : first + length]
    audio = torch.from_numpy(crops / 32767)
    return audio[:, margin:-margin], SPECTROGRAM.audio_to_log_mel(audio)[..., MARGIN:-MARGIN]


@torch.no_grad()
def overlay_pictures(
    vae: AutoencoderKL, log_mel: torch.Tensor, pictures: np.ndarray, numbers: np.random.Generator
) -> torch.Tensor:
    """Log-mels (B, M, T) of canvases whose latents lie between those of sounds and of pictures."""
    crops = np.empty((len(log_mel), HEIGHT, CROP_WIDTH), np.float32)
    for row in range(len(log_mel)):
        left = int(numbers.integers(WIDTH - CROP_WIDTH + 1))
        crops[row] = pictures[int(numbers.integers(len(pictures)))][:, left : left + CROP_WIDTH]
    sounds = SPECTROGRAM.log_mel_to_canvas(log_mel)[:, 0].cpu().numpy() * 255
    latents = vae.encode(to_vae_input(np.concatenate([sounds, crops]), log_mel.device)).latent_dist.mean.float()
    weights = torch.from_numpy(numbers.uniform(0.3, 0.7, (len(log_mel), 1, 1, 1)).astype(np.float32))
    of_sounds, of_pictures = latents.chunk(2)
    decoded = vae.decode(torch.lerp(of_sounds, of_pictures, weights.to(latents.device))).sample
    return SPECTROGRAM.canvas_to_log_mel((decoded.float() / 2 + 0.5).clamp(0, 1))


def distance(heard: torch.Tensor, log_mel: torch.Tensor, any_gain: bool = False) -> torch.Tensor:
    """
    Mean distance of log-mels (B, M, T) away from their ends. With `any_gain` each of the first may be quieter as a
    whole, since what canvases show may be louder than full scale.
    """
    difference = (heard - log_mel)[..., MARGIN:-MARGIN]
    if any_gain:
        difference = difference - difference.mean(dim=(1, 2), keepdim=True).clamp(max=0)
    return difference.abs().mean()


def train_vocoder(run: Run, data: dict, vae: AutoencoderKL) -> SpeechT5HifiGan:
    """Learns to make sounds whose canvases are those that they are played from; there is no adversary."""
    pictures, sounds = data["picture"][0], data["sound"][0]
    torch.manual_seed(run.seed)
    vocoder = new_vocoder(crop_sounds(sounds, np.random.default_rng(run.seed), 500)[1]).to(run.device)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, _ = run.generators(0, step)
        audio, log_mel = (each.to(run.device) for each in crop_sounds(sounds, numbers, run.batch_size))
        half = run.batch_size // 2
        with run.autocast():
            overlaid = overlay_pictures(vae, log_mel[half:], pictures, numbers)
            played = vocoder(torch.cat([log_mel[:half], overlaid]).transpose(1, 2)).float()
        of_sounds, of_overlaid = SPECTROGRAM.audio_to_log_mel(played).split([half, len(played) - half])
        short = distance(SHORT.audio_to_log_mel(played[:half]), SHORT.audio_to_log_mel(audio[:half]))
        return distance(of_sounds, log_mel[:half]) + distance(of_overlaid, overlaid, any_gain=True) + 0.5 * short

    train(run, "vocoder", vocoder, loss_of_step, learning_rate_at=trapezoid)
    return vocoder


def save_vocoder(vocoder: SpeechT5HifiGan, folder: Path) -> None:
    """Writes float16 weights that load as float32 unless asked otherwise."""
    vocoder.to("cpu", torch.float16).save_pretrained(folder)
    load_as_float32(folder)


def main(input_args: list[str] | None = None) -> None:
    work_dir, steps = "outputs/train_vocoder", {"vocoder": 40_000}
    run = parse_run(__doc__, input_args, work_dir=work_dir, num_draws=2000, batch_size=8, steps=steps)
    data = make_data(run, draw_for_vocoder, ("picture", "sound"))
    vae = AutoencoderKL.from_pretrained(EMBEDDED, subfolder="vae", dtype=torch.float32).to(run.device)
    save_vocoder(train_vocoder(run, data, vae.requires_grad_(False).eval()), run.output_dir)


if __name__ == "__main__":
    main()
