"""Pictures in sounds that stay what they are: a span of time and a band of frequencies follow the picture."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import scipy.fft
import scipy.signal


# A frame lasts about as long as in most viewers of spectrograms.
FRAME_IN_S = 0.046
FRAMES_OVERLAP = 4
# White is above the mean power of the band, black below white.
WHITE_IN_DB = 6.0
RANGE_IN_DB = 60.0
# A band that is almost silent gets a picture of this level below the mean over all frequencies.
QUIET_BAND_IN_DB = -40.0
# In silence white is as loud, bin by bin, as white noise of this deviation.
FAINTEST = 1e-3
# Noise carries the picture where the sound is so far below white, whose phase there is only that of what leaks in from
# elsewhere. It repeats after so many samples.
NOISE_IN_DB = 25.0
NOISE_PERIOD = 2**19
MOST_COLUMNS = 2**15
# Rounds of the search for a sound that stays within full scale, and the full scale of 16 bits.
ROUNDS, FULL_SCALE = 12, 1 - 2**-15
FEWEST_BINS = 8
# From hertz to where a frequency is on a scale; "mel" is HTK's.
FREQUENCY_SCALES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda hertz: hertz,
    "logarithmic": np.log,
    "mel": lambda hertz: np.log1p(hertz / 700),
}


@dataclass(frozen=True, kw_only=True)
class HiddenPicture:
    """
    A picture, and where in a sound it goes.

    Letters: `C` channels, `N` samples, `F` bins of the band, `T` frames, `H` rows and `W` columns of the picture.

    Args:
        picture (`np.ndarray` of shape `(H, W)`): In 0..1; 1 is loud.
        sampling_rate (`int`): Samples per second of the sound.
        start_in_s (`float`): Where it begins, in seconds.
        end_in_s (`float`): Where it ends.
        min_frequency (`float`): The band's lower edge in Hz.
        max_frequency (`float`): The band's upper edge in Hz, at most half of `sampling_rate`.
        strength (`float`, defaults to 0.8): How much of the band's own ups and downs makes way for the picture: 0
            leaves the sound as it is, 1 leaves nothing but the picture.
        frequency_scale (`str`, defaults to `"linear"`): On what scale the rows are: `"linear"`, `"logarithmic"` or
            `"mel"`.

    Raises:
        ValueError: If a value is out of range, or the span or the band is too small for a picture.
    """

    picture: np.ndarray
    sampling_rate: int
    start_in_s: float
    end_in_s: float
    min_frequency: float
    max_frequency: float
    strength: float = 0.8
    frequency_scale: str = "linear"

    def __post_init__(self) -> None:
        values = np.asarray(self.picture)
        if values.ndim != 2 or not values.size or not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(f"`picture` has to have the shape (H, W) and values in 0..1, but is {values.shape}.")
        if self.frequency_scale not in FREQUENCY_SCALES:
            raise ValueError(
                f"`frequency_scale` has to be among {list(FREQUENCY_SCALES)}, but is {self.frequency_scale!r}."
            )
        if not 0 <= self.strength <= 1:
            raise ValueError(f"`strength` has to be in 0..1, but is {self.strength}.")
        self._check_span()
        self._check_band()

    def _check_span(self) -> None:
        least = 2 * self.frame_length / self.sampling_rate
        if not (0 <= self.start_in_s < math.inf and least <= self.end_in_s - self.start_in_s < math.inf):
            raise ValueError(
                f"`end_in_s` has to be at least {least:.2f} s after `start_in_s`, which is not negative, but they are"
                f" {self.end_in_s} and {self.start_in_s}."
            )

    def _check_band(self) -> None:
        lowest = 1 if self.frequency_scale == "logarithmic" else 0
        if not lowest <= self.min_frequency < self.max_frequency <= self.sampling_rate / 2:
            raise ValueError(
                f"`min_frequency` and `max_frequency` have to rise within {lowest}..{self.sampling_rate / 2:g} Hz, but"
                f" are {self.min_frequency} and {self.max_frequency}."
            )
        if len(self.bins) < FEWEST_BINS:
            width = FEWEST_BINS * self.sampling_rate / self.frame_length
            raise ValueError(
                f"`max_frequency` has to be at least {width:.0f} Hz above `min_frequency`, but they are"
                f" {self.max_frequency} and {self.min_frequency}."
            )

    @property
    def frame_length(self) -> int:
        """Samples of a frame."""
        return frame_length_of(self.sampling_rate)

    @property
    def hop_length(self) -> int:
        """Samples from a frame to the next."""
        return self.frame_length // FRAMES_OVERLAP

    @property
    def span(self) -> tuple[int, int]:
        """Its first sample, and the one after its last."""
        return round(self.start_in_s * self.sampling_rate), round(self.end_in_s * self.sampling_rate)

    @property
    def bins(self) -> np.ndarray:
        """Numbers `(F,)` of the Fourier transform's bins in the band."""
        width = self.sampling_rate / self.frame_length
        return np.arange(math.ceil(self.min_frequency / width), math.floor(self.max_frequency / width) + 1)

    @cached_property
    def rows(self) -> np.ndarray:
        """The picture `(F, W)` with a row for each bin, low frequencies first."""
        scale, width = FREQUENCY_SCALES[self.frequency_scale], self.sampling_rate / self.frame_length
        ends = scale(np.array([self.min_frequency, self.max_frequency], np.float64))
        edges = (self.bins[:, None] + [-0.5, 0.5]) * width
        low, high = (scale(edges.clip(self.min_frequency, self.max_frequency)).T - ends[0]) / (ends[1] - ends[0])
        picture = np.asarray(self.picture, np.float32)[::-1]
        if picture.shape[1] > MOST_COLUMNS:
            column = np.arange(MOST_COLUMNS) / MOST_COLUMNS
            picture = picture @ shares(column, column + 1 / MOST_COLUMNS, picture.shape[1]).T
        return shares(low, high, len(picture)) @ picture

    def columns(self, first_frames: np.ndarray) -> np.ndarray:
        """The picture `(F, T)` in frames that begin at samples `(T,)`, counted from the span's first."""
        start, end = self.span
        middles = (first_frames + self.frame_length / 2) / (end - start)
        half = self.hop_length / 2 / (end - start)
        return self.rows @ shares(middles - half, middles + half, self.rows.shape[1]).T


def hide_pictures(audio: np.ndarray, pictures: list[HiddenPicture]) -> np.ndarray:
    """
    Hides pictures in a sound. In the span and the band of each the magnitudes of the short-time Fourier transform
    follow the picture, dark takes sound away and bright adds it, with the phases that are there; all else stays.

    Args:
        audio (`np.ndarray` of shape `(N,)` or `(N, C)`): Waveform in -1..1 at the pictures' `sampling_rate`.
        pictures (`list[HiddenPicture]`): None overlaps another in time and frequency.

    Returns:
        `np.ndarray` of the same shape: Float64 waveform; outside of the spans it equals `audio`, and it may leave
        -1..1 where that is loud.

    Raises:
        ValueError: If a picture ends after the sound, or two overlap.
    """
    audio = np.asarray(audio, np.float64)
    channels = audio.reshape(len(audio), -1)
    check_pictures(pictures, len(audio))
    levels = [level_of([(0, channels)], each) for each in pictures]
    parts = [difference(channels, 0, each, level) for each, level in zip(pictures, levels)]
    return audio + sum(parts).reshape(audio.shape)


def check_pictures(pictures: list[HiddenPicture], num_samples: int) -> None:
    """Raises `ValueError` for pictures that are not within a sound of `num_samples`, or overlap each other."""
    for i, one in enumerate(pictures):
        if one.span[1] > num_samples:
            length = num_samples / one.sampling_rate
            raise ValueError(f"`end_in_s` has to be in the {length:.2f} s of the sound, but is {one.end_in_s}.")
        for other in pictures[:i]:
            in_time = one.span[0] < other.span[1] and other.span[0] < one.span[1]
            if in_time and one.min_frequency < other.max_frequency and other.min_frequency < one.max_frequency:
                raise ValueError(
                    f"Pictures may not overlap, but those at {other.start_in_s:g} s and {one.start_in_s:g} s do."
                )


def level_of(parts: Iterable[tuple[int, np.ndarray]], picture: HiddenPicture) -> float:
    """
    The level that white gets: somewhat above the mean power of the band in the picture's span, over all channels.

    Args:
        parts (`Iterable[tuple[int, np.ndarray]]`): Parts `(n, C)` of the sound, each with the number of its first
            sample. A frame counts if a part holds all of it, so that parts overlap by less than a frame.
        picture ([`HiddenPicture`]): The picture to hide.

    Returns:
        `float`: Power of a bin in dB.
    """
    band = every = count = 0.0
    for begin, part in parts:
        for spectrum in _spectra(part, begin, picture)[1]:
            power = np.abs(spectrum) ** 2
            band += power[picture.bins].mean(axis=0).sum()
            every += power.mean(axis=0).sum()
            count += power.shape[1]
    count = max(count, 1)
    faintest = FAINTEST**2 * (window_of(picture.frame_length) ** 2).sum()
    power = max(band / count, every / count * 10 ** (QUIET_BAND_IN_DB / 10), faintest)
    return 10 * math.log10(power) + WHITE_IN_DB


def difference(part: np.ndarray, begin: int, picture: HiddenPicture, level: float) -> np.ndarray:
    """
    Samples to add to a part of a sound so that it holds a picture.

    Args:
        part (`np.ndarray` of shape `(n, C)`): Samples of the sound.
        begin (`int`): The number of the first.
        picture ([`HiddenPicture`]): The picture to hide.
        level (`float`): That of [`level_of`].

    Returns:
        `np.ndarray` of shape `(n, C)`: True but for a frame at either end that is not the span's own. Frames lie in
        the span, so that nothing changes outside of it, and only bins of the band differ.
    """
    frames, spectra = _spectra(part, begin, picture)
    added = np.zeros(part.shape)
    if not len(frames):
        return added
    start, window = picture.span[0], window_of(picture.frame_length)
    wanted = level - RANGE_IN_DB * (1 - picture.columns(frames))
    noise = np.resize(_noise(), len(part) + begin % NOISE_PERIOD)[begin % NOISE_PERIOD :]
    (noise_spectrum,) = _spectra(noise[:, None], begin, picture)[1]
    moved = 1 - (1 - picture.strength) ** 2
    floor = moved * 10 ** ((level - NOISE_IN_DB) / 20) / math.sqrt((window**2).sum())
    for channel, spectrum in enumerate(spectra):
        before = spectrum[picture.bins]
        carrier = before + floor * noise_spectrum[picture.bins]
        magnitude = np.abs(carrier).clip(1e-30)
        exponent = moved * (wanted / 20 - np.log10(magnitude))
        spectrum[:] = 0
        spectrum[picture.bins] = carrier * 10**exponent - before
        _overlap_add(added[:, channel], spectrum, frames + start - begin, picture)
    return added


def within_full_scale(part: np.ndarray, begin: int, added: np.ndarray, pictures: list[HiddenPicture]) -> np.ndarray:
    """
    Samples to add instead, so that fewer leave -1..1. The excess is taken away in the pictures' bands. That raises
    other samples, some of them above full scale again, and so on for `ROUNDS`.

    Args:
        part (`np.ndarray` of shape `(n, C)`): Samples of the sound.
        begin (`int`): The number of the first.
        added (`np.ndarray` of shape `(n, C)`): The sum of `difference` for all pictures.
        pictures (`list[HiddenPicture]`): The hidden pictures.

    Returns:
        `np.ndarray` of shape `(n, C)`: True but for `ROUNDS + 1` frames at either end.
    """
    for _ in range(ROUNDS):
        whole = part + added
        beyond = np.where(added == 0, 0, whole - whole.clip(-FULL_SCALE, FULL_SCALE))
        if not beyond.any():
            break
        for picture in pictures:
            share = len(picture.bins) / (picture.frame_length // 2)
            added = added - _in_band(beyond, begin, picture) / share
    return added


def _in_band(part: np.ndarray, begin: int, picture: HiddenPicture) -> np.ndarray:
    """The share of a part in a picture's span and band."""
    frames, spectra = _spectra(part, begin, picture)
    kept = np.zeros(part.shape)
    for channel, spectrum in enumerate(spectra):
        band = np.zeros_like(spectrum)
        band[picture.bins] = spectrum[picture.bins]
        _overlap_add(kept[:, channel], band, frames + picture.span[0] - begin, picture)
    return kept


def _overlap_add(added: np.ndarray, spectra: np.ndarray, starts: np.ndarray, picture: HiddenPicture) -> None:
    """Adds to samples `(n,)` the waveform whose frames, from `starts` on, have `spectra` of shape `(bins, T)`."""
    window = window_of(picture.frame_length)
    # The window once more would leave too much beside the band.
    pieces = scipy.fft.irfft(spectra, axis=0) * (window**2 * picture.hop_length / (window**3).sum())[:, None]
    for first, piece in zip(starts, pieces.T):
        added[first : first + len(piece)] += piece


def _spectra(part: np.ndarray, begin: int, picture: HiddenPicture) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """
    Frames of the span that are wholly in a part, by their first samples `(T,)` counted from the span's first, and for
    each channel their spectra, of shape `(bins, T)`.
    """
    (start, end), length, hop = picture.span, picture.frame_length, picture.hop_length
    first = max(-(-(begin - start) // hop), 0)
    last = (min(begin + len(part), end) - length - start) // hop
    frames = np.arange(first, last + 1) * hop
    places = (frames + start - begin)[None] + np.arange(length)[:, None]
    window = window_of(length)[:, None]
    return frames, (scipy.fft.rfft(channel[places] * window, axis=0) for channel in part.T)


def frame_length_of(sampling_rate: int) -> int:
    """Samples of a frame, a power of two."""
    return 2 ** round(math.log2(FRAME_IN_S * sampling_rate))


def shares(low: np.ndarray, high: np.ndarray, number: int) -> np.ndarray:
    """Shares `(n, number)` of intervals `(n,)` in 0..1 that lie in each of `number` equal parts."""
    edges = np.arange(number)
    low, high = low[:, None] * number, high[:, None] * number
    shares = (np.minimum(high, edges + 1) - np.maximum(low, edges)).clip(0).astype(np.float32)
    return shares / shares.sum(axis=1, keepdims=True).clip(1e-12)


@lru_cache(maxsize=4)
def window_of(length: int) -> np.ndarray:
    """The Hann window `(length,)` of a frame."""
    return scipy.signal.windows.hann(length, sym=False)


@lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(NOISE_PERIOD)
