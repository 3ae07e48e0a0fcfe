"""Spectrograms of sounds of any length as pictures, with axes in seconds and hertz."""

import math

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import scipy.fft
import soundfile

from ...pipelines.images_that_sound_hiding import FREQUENCY_SCALES, frame_length_of, shares, window_of


RANGE_IN_DB = 60.0
# Scales of rows: those of pictures, of which "mel" is HTK's, and Slaney's mel scale, that of Auffusion's canvases.
SCALES = {
    **FREQUENCY_SCALES,
    "slaney": lambda hertz: 3 * hertz.clip(max=1000) / 200 + 27 * np.log(hertz.clip(1000) / 1000) / np.log(6.4),
}
# Where a logarithmic scale begins: the lowest tone that people hear.
LOWEST_TONE = 20.0
# Samples that are drawn at once, and frames of which a long column shows the mean.
SAMPLES_AT_ONCE = 2**18
MOST_FRAMES = 64
# Pixels around a spectrogram for its axes.
LEFT, RIGHT, TOP, BOTTOM = 84, 16, 12, 48
FONT_SIZE = 16


def spectrogram_of(
    sound: soundfile.SoundFile,
    start_in_s: float,
    end_in_s: float,
    size: tuple[int, int],
    frequency_scale: str = "linear",
    white_in_db: float | None = None,
    range_in_db: float = RANGE_IN_DB,
) -> PIL.Image.Image:
    """
    Draws a part of a sound, all frequencies, the low ones at the bottom.

    Args:
        sound (`soundfile.SoundFile`): Open for reading.
        start_in_s (`float`): Start of the part.
        end_in_s (`float`): End of the part.
        size (`tuple[int, int]`): Columns and rows of the picture.
        frequency_scale (`str`): `"linear"`, `"logarithmic"`, from 20 Hz on, `"mel"` or `"slaney"`.
        white_in_db (`float`, *optional*): The level of a bin that is drawn white. Default: that of the loudest pixel.
        range_in_db (`float`, defaults to 60.0): How far below white black is.

    Returns:
        `PIL.Image.Image`: Gray, of `size`.
    """
    width, height = size
    rows = _rows(sound.samplerate, height, frequency_scale)
    edges = np.linspace(start_in_s, end_in_s, width + 1) * sound.samplerate
    at_once = max(int(SAMPLES_AT_ONCE * width / (edges[-1] - edges[0])), 1)
    groups = [edges[i : i + at_once + 1] for i in range(0, width, at_once)]
    power = np.concatenate([rows @ _powers(sound, group) for group in groups], axis=1)
    decibels = 10 * np.log10(power.clip(1e-20))
    white = decibels.max() if white_in_db is None else white_in_db
    gray = (1 + (decibels - white) / range_in_db).clip(0, 1)
    return PIL.Image.fromarray((255 * gray[::-1]).round().astype(np.uint8))


def _rows(sampling_rate: int, height: int, frequency_scale: str) -> np.ndarray:
    """Which share of which bin each row shows, `(height, bins)`, low frequencies first."""
    number = frame_length_of(sampling_rate) // 2 + 1
    bounds = _row_bounds(sampling_rate, height, frequency_scale)
    # A bin reaches half of its width to either side.
    places = (bounds / (sampling_rate / 2) * (number - 1) + 0.5) / number
    return shares(places[:-1], places[1:], number)


def _row_bounds(sampling_rate: int, height: int, frequency_scale: str) -> np.ndarray:
    """Frequencies between rows in Hz, `(height + 1,)`, rising."""
    scale = SCALES[frequency_scale]
    hertz = np.geomspace(LOWEST_TONE, sampling_rate / 2, 2**14)
    lowest = LOWEST_TONE if frequency_scale == "logarithmic" else 0.0
    hertz = np.concatenate([[lowest], hertz[hertz > lowest]])
    places = scale(hertz)
    return np.interp(np.linspace(places[0], places[-1], height + 1), places, hertz)


def rows_between(low: float, high: float, sampling_rate: int, height: int, frequency_scale: str) -> float:
    """How many of the rows of a spectrogram are between two frequencies in Hz."""
    bounds = _row_bounds(sampling_rate, height, frequency_scale)
    return float(np.diff(np.interp([low, high], bounds, np.arange(height + 1)))[0])


def _powers(sound: soundfile.SoundFile, edges: np.ndarray) -> np.ndarray:
    """Mean power of the bins between places of a sound, in samples: `(bins, len(edges) - 1)`."""
    length = frame_length_of(sound.samplerate)
    first = int(edges[0]) - length
    last = int(edges[-1]) + length
    start = min(max(first, 0), sound.frames)
    sound.seek(start)
    samples = sound.read(min(last, sound.frames) - start, dtype="float64", always_2d=True)
    samples = np.pad(samples, ((start - first, max(last - first - (start - first) - len(samples), 0)), (0, 0)))
    number = min(math.ceil((edges[1] - edges[0]) / (length // 4)), MOST_FRAMES)
    middles = edges[:-1, None] + (np.arange(number) + 0.5) / number * np.diff(edges)[:, None]
    places = (middles.ravel() - length / 2 - first).astype(int)[None] + np.arange(length)[:, None]
    window = window_of(length)[:, None]
    power = sum(np.abs(scipy.fft.rfft(channel[places] * window, axis=0)) ** 2 for channel in samples.T)
    return (power / samples.shape[1]).reshape(len(power), -1, number).mean(axis=-1)


def with_axes(
    spectrogram: PIL.Image.Image, start_in_s: float, end_in_s: float, sampling_rate: int, frequency_scale: str
) -> PIL.Image.Image:
    """A picture of `spectrogram_of` with its axes: seconds below it, hertz on its left."""
    width, height = spectrogram.size
    sheet = PIL.Image.new("L", (LEFT + width + RIGHT, TOP + height + BOTTOM))
    sheet.paste(spectrogram, (LEFT, TOP))
    pen, font = PIL.ImageDraw.Draw(sheet), PIL.ImageFont.load_default(size=FONT_SIZE)
    for seconds in _ticks(start_in_s, end_in_s, max(width // 110, 1)):
        x = LEFT + (seconds - start_in_s) / (end_in_s - start_in_s) * width
        pen.line((x, TOP + height, x, TOP + height + 6), fill=255)
        pen.text((x, TOP + height + 10), f"{seconds:g} s", font=font, fill=255, anchor="ma")
    bounds = _row_bounds(sampling_rate, height, frequency_scale)
    lowest = math.inf
    for hertz in _hertz_ticks(sampling_rate, height, frequency_scale):
        y = TOP + height - np.interp(hertz, bounds, np.arange(height + 1))
        if lowest - y < FONT_SIZE:
            continue
        lowest = y
        pen.line((LEFT - 6, y, LEFT, y), fill=255)
        pen.text((LEFT - 10, y), f"{hertz:g} Hz", font=font, fill=255, anchor="rm")
    return sheet


def _hertz_ticks(sampling_rate: int, height: int, frequency_scale: str) -> list[float]:
    if frequency_scale == "linear":
        return _ticks(0, sampling_rate / 2, max(height // 60, 1))
    return [hertz for hertz in (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000) if hertz < sampling_rate / 2]


def _ticks(low: float, high: float, number: int) -> list[float]:
    """Round numbers within bounds, about so many."""
    rough = (high - low) / number
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [round(i * step, 6) for i in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]
