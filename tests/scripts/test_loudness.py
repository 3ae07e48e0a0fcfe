"""All sounds are as loud as each other, by an implementation of ITU-R BS.1770-4 of its own."""

import resource

import numpy as np
import pytest
import scipy.signal

from images_that_sound.scripts.common.loudness import levelled, without_gain


# The standard's own filters at 48 kHz.
K_WEIGHTING = [
    [1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241, 0.73248077421585],
    [1, -2, 1, 1, -1.99004745483398, 0.99007225036621],
]


def loudness(audio: np.ndarray, rate: int) -> float:
    heard = scipy.signal.sosfilt(K_WEIGHTING, scipy.signal.resample_poly(audio.astype(float), 48000, rate))
    blocks = np.lib.stride_tricks.sliding_window_view(heard, 19200)[::4800]
    powers = (blocks**2).mean(axis=1)
    levels = -0.691 + 10 * np.log10(powers + 1e-20)
    powers, levels = powers[levels > -70], levels[levels > -70]
    gate = -0.691 + 10 * np.log10(powers.mean()) - 10
    return -0.691 + 10 * np.log10(powers[levels > gate].mean())


def true_peak(audio: np.ndarray) -> float:
    return 20 * np.log10(np.abs(scipy.signal.resample_poly(audio.astype(float), 8, 1)).max())


def tone(rate: int, frequency: float = 997, seconds: float = 3) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate).astype(np.float32)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_sounds_are_as_loud_as_each_other(rate):
    assert loudness(tone(rate), rate) == pytest.approx(-3.01, abs=0.02), "as the standard says"
    noise = np.random.default_rng(0).uniform(-1, 1, 3 * rate).astype(np.float32)
    with_pause = tone(rate) * (np.arange(3 * rate) < rate)
    for audio in (tone(rate), 0.02 * noise, 0.3 * tone(rate, 80), with_pause):
        louder, gain = levelled(audio, rate)
        assert loudness(louder, rate) == pytest.approx(-23, abs=0.1) and true_peak(louder) < -1
        assert louder.dtype == np.float32
        np.testing.assert_allclose(without_gain(louder, {"gain_in_db": gain}), audio, atol=1e-6)
    assert levelled(tone(rate), rate)[1] == pytest.approx(-23 + 3.01, abs=0.03)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_spike_does_not_keep_a_sound_quiet(rate):
    audio = 0.02 * tone(rate, seconds=10)
    audio[rate : rate + 2] = 1, -1
    louder, gain = levelled(audio, rate)
    assert loudness(louder, rate) == pytest.approx(-23, abs=1) and -2 < true_peak(louder) < -1
    assert len(louder) == len(audio) and np.array_equal(louder, levelled(audio, rate)[0])
    elsewhere = np.abs(np.arange(len(audio)) - rate) > 0.2 * rate
    elsewhere[:100] = elsewhere[-100:] = False
    np.testing.assert_allclose(louder[elsewhere], 10 ** (gain / 20) * audio[elsewhere], atol=2e-3)


def test_a_full_disk_is_said_and_changes_no_loudness():
    """Files may not grow beyond 1 kB, which cuts off the one that FFmpeg writes its measures to."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="loudness can't be measured without room"):
            levelled(tone(16000), 16000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_limiter_takes_no_more_than_20_db():
    rumble = tone(16000, 2)
    louder, gain = levelled(rumble, 16000)
    assert 18 < gain < 20 and true_peak(louder) < -1


@pytest.mark.parametrize("length", [1, 100, 3000])
def test_short_sounds_are_levelled(length):
    louder, gain = levelled(0.1 * tone(16000, 3000)[5 : 5 + length], 16000)
    assert len(louder) == length and np.isfinite(louder).all() and gain > 0 and np.abs(louder).max() < 10 ** (-1 / 20)


def test_a_quiet_sound_is_levelled_like_any_other():
    louder, gain = levelled(0.005 * tone(16000), 16000)
    assert gain == pytest.approx(-23 + 3.01 - 20 * np.log10(0.005), abs=0.05)
    np.testing.assert_allclose(louder, levelled(tone(16000), 16000)[0], atol=1e-3)


@pytest.mark.parametrize("audio", [np.zeros(0, np.float32), 0.0009 * tone(16000), np.array([0.5, np.nan], np.float32)])
def test_what_is_inaudible_stays_so(audio):
    same, gain = levelled(audio, 16000)
    assert gain == 0
    np.testing.assert_array_equal(same, audio)
