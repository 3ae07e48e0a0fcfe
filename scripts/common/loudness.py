"""One loudness for all files of sounds, measured by ITU-R BS.1770 in FFmpeg."""

import errno
import tempfile
from fractions import Fraction
from math import log10
from pathlib import Path

import av
import numpy as np


# EBU R 128's: most sounds reach it without a limiter, since it leaves 22 dB for their peaks.
LOUDNESS_IN_LUFS = -23.0
MAX_TRUE_PEAK_IN_DB = -1.0
# Most that the limiter may take from peaks; more would be another sound.
MAX_LIMITING_IN_DB = 20.0
# Peaks that the limiter's lookahead and resampling leave above its limit stay below this.
LIMITER_MARGIN_IN_DB = 0.2

# The meter's block in samples: a tenth of a second, for which it wants 48 kHz.
FRAME = 4800

# A filter of FFmpeg: its name and its options.
Filter = tuple[str, dict[str, str]]


def levelled(audio: np.ndarray, sampling_rate: int) -> tuple[np.ndarray, float]:
    """
    A sound at -23 LUFS, by one gain for all of it. Peaks that would exceed -1 dBTP then are held down by a limiter,
    by 20 dB at most. What is inaudible or not finite stays as it is.

    Args:
        audio (`np.ndarray` of shape `(N,)`): Waveform in -1..1.
        sampling_rate (`int`): Samples per second.

    Returns:
        `tuple[np.ndarray, float]`: The waveform as float32, and the gain in dB, to two decimals.
    """
    # It takes seconds to import.
    from ...pipelines.images_that_sound_spectrogram import SILENCE_PEAK

    peak = float(np.abs(audio).max(initial=0))
    if not SILENCE_PEAK <= peak < np.inf:
        return audio, 0.0
    loudness, true_peak = _loudness_and_true_peak(audio / peak, sampling_rate)
    headroom = MAX_TRUE_PEAK_IN_DB - max(true_peak, 0)
    gain = round(min(LOUDNESS_IN_LUFS - loudness, headroom + MAX_LIMITING_IN_DB) - _in_db(peak), 2)
    louder = np.float32(10 ** (gain / 20)) * audio.astype(np.float32)
    return louder if gain + _in_db(peak) <= headroom else _limited(louder, sampling_rate), gain


def without_gain(audio: np.ndarray, settings: dict) -> np.ndarray:
    """A waveform of a sample's file as it was before it was levelled."""
    return audio / np.float32(10 ** (settings.get("gain_in_db", 0) / 20))


def _in_db(magnitude: float) -> float:
    return 20 * log10(magnitude)


def _loudness_and_true_peak(audio: np.ndarray, sampling_rate: int) -> tuple[float, float]:
    """Integrated loudness in LUFS, with silence added to a sound shorter than 0.4 s, and true peak in dBTP."""
    missing = max(_block(sampling_rate) - len(audio), 0)
    with tempfile.TemporaryDirectory() as folder:
        # PyAV before 18.1 hides the metadata of frames.
        file = Path(folder, "loudness.txt")
        meter = ("ebur128", {"metadata": "1", "peak": "true"}), ("ametadata", {"mode": "print", "file": str(file)})
        frames = _frames_through(np.pad(audio, (0, missing)), sampling_rate, _resample(10 * FRAME), *meter)
        text = file.read_text()
    # FFmpeg says nothing of a disk that is full. It measures after each whole frame.
    if text.count("frame:") != sum(len(frame) == FRAME for frame in frames) or not text.endswith("\n"):
        raise OSError(errno.ENOSPC, "The loudness can't be measured without room for a temporary file", str(file))
    values = dict(line.split("=") for line in text.splitlines() if "=" in line)
    return float(values["lavfi.r128.I"]), _in_db(float(values["lavfi.r128.true_peak"]))


def _limited(audio: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Held below the greatest true peak, at a rate that shows peaks between samples."""
    limit = 10 ** ((MAX_TRUE_PEAK_IN_DB - LIMITER_MARGIN_IN_DB) / 20)
    limiter = ("alimiter", {"limit": str(limit), "level": "false", "latency": "true"})
    steps = _resample(max(192000, sampling_rate)), limiter, _resample(sampling_rate)
    # Resamplers may swallow the end.
    frames = _frames_through(np.pad(audio, (0, _block(sampling_rate))), sampling_rate, *steps)
    return np.concatenate(frames)[: len(audio)]


def _block(sampling_rate: int) -> int:
    """A little more than the samples of a gating block."""
    return round(0.41 * sampling_rate)


def _resample(sampling_rate: int) -> Filter:
    return "aresample", {"sample_rate": str(sampling_rate)}


def _frames_through(audio: np.ndarray, sampling_rate: int, *filters: Filter) -> list[np.ndarray]:
    """Frames of a waveform `(N,)` that went through filters of FFmpeg."""
    graph = av.filter.Graph()
    time_base = Fraction(1, sampling_rate)
    source = graph.add_abuffer(sample_rate=sampling_rate, format="flt", layout="mono", time_base=time_base)
    nodes = [graph.add(name, **options) for name, options in filters]
    graph.link_nodes(source, *nodes, graph.add("aformat", sample_fmts="flt"), graph.add("abuffersink")).configure()
    frame = av.AudioFrame.from_ndarray(audio[None].astype(np.float32), format="flt", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = sampling_rate, time_base, 0
    graph.push(frame)
    graph.push(None)
    parts = []
    while True:
        try:
            parts.append(graph.pull().to_ndarray()[0])
        except av.error.EOFError:
            return parts
